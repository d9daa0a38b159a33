//! Flags, environment and file become one validated configuration. Nothing else reads the environment.
//!
//! A flag wins over its `DEPT_…` variable, that over its key in `dept.toml`, that over the default. The order is
//! clap's own: the file only replaces the defaults before clap reads the command line.

mod args;
mod crypto;
mod engine;
mod file;
mod hub;
mod location;
mod model_source;
pub mod otlp;
mod places;
mod serve;
mod units;

pub use args::{EngineArgs, ServeArgs};
pub(crate) use crypto::choose_crypto;
pub use engine::EngineConfig;
pub use file::{file_of, parse};
pub use hub::{HubModel, HubSettings};
pub use location::{Location, LocationError, Scheme};
pub use model_source::{ModelSource, SourceError};
pub use places::Places;
pub use serve::{ConfigError, ConnectionLimits, ServeConfig, TlsFiles};
pub use units::{CpuIsa, Device, Door, Dtype, KvCacheDtype, Shelf};
pub(crate) use units::{count, duration};

pub use crate::telemetry::LogFormat;

#[cfg(test)]
mod tests;
