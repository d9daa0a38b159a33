//! Logs and metrics.

mod instruments;
mod logging;
mod metrics;

pub use instruments::{
    AdapterRequests, Adapters, Loads, Outcomes, Phase, Rejections, Reloads, Seconds, Sizes, Steps,
    TenantRequests, TenantTokens, TokenKind,
};
pub use logging::{LogError, LogFormat, start_logging};
pub use metrics::{Listing, Metrics};

#[cfg(test)]
mod tests;
