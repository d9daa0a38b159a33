//! Logs and metrics.

mod instruments;
mod logging;
mod metrics;
mod tenants;

pub use instruments::{
    AdapterRequests, Adapters, Loads, Outcomes, Phase, Rejections, Reloads, Seconds, Sizes, Steps,
};
pub use logging::{LogError, LogFormat, start_logging};
pub use metrics::{Listing, Metrics};
pub use tenants::{TenantRequests, TenantTokens, TokenKind};

#[cfg(test)]
mod tests;
