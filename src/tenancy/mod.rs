//! Who asks: API keys, what a key may do, and how much of it.
//!
//! A [`Gate`] turns the `Authorization` header into a [`Principal`], which the rest of the server passes on: its
//! [`Tenant`] has the adapters that it may use, its weight, and its [`Quotas`]. Without a key file everyone is the
//! tenant `default`.

mod allow;
mod file;
mod gate;
mod key;
mod principal;
mod quota;
mod rate;
mod scope;

pub use allow::{AdapterPattern, AllowList, PatternError};
pub use file::{KeyFileError, MAX_WEIGHT};
pub use gate::{Denied, Gate};
pub use key::{ApiKey, KeyError, KeyHash};
pub use principal::{Principal, PriorityError, Tenant};
pub use quota::{QuotaError, Quotas, Spending};
pub use scope::{Scope, Scopes};

#[cfg(test)]
mod tests;
