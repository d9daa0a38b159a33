//! How good an adapter is: metrics, intervals, confusion, and reports of them. Pure: answers come from wherever they come.

mod bootstrap;
mod confusion;
mod html;
mod metric;
mod normalise;
mod report;

pub use bootstrap::interval_95;
pub use confusion::Confusion;
pub use html::page;
pub use metric::{Metric, auc};
pub use report::{Report, Scored};

#[cfg(test)]
mod tests;
