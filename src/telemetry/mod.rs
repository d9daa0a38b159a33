//! Logs, metrics and traces.

mod allocator;
mod instruments;
mod live;
mod logging;
mod metrics;
mod missing_pins;
mod store_faults;
mod tenants;
pub mod traces;

pub use instruments::{
    AdapterRequests, Adapters, Loads, Outcomes, Phase, Rejections, Reloads, Seconds, Sizes, Steps, TraceSpans,
};
pub use live::{LoraRequests, StepAge};
pub use logging::{LogError, LogFilter, LogFormat, start_logging};
pub use metrics::{Listing, Metrics};
pub use missing_pins::{MissingPins, PinFault};
pub use store_faults::{Standing, StoreFault, StoreFaults, StoreWork};
pub use tenants::{TenantRequests, TenantTokens, TokenKind};

#[cfg(test)]
mod tests;
