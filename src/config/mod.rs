//! Flags, environment and file become one validated configuration. Nothing else reads the environment.
//!
//! A flag wins over its `DEPT_…` variable, that over its key in `dept.toml`, that over the default. The order is
//! clap's own: the file only replaces the defaults before clap reads the command line.

mod args;
mod file;
mod places;
mod serve;
mod units;

pub use args::ServeArgs;
pub use file::parse;
pub use places::Places;
pub use serve::{ConfigError, ModelSource, ServeConfig};
pub use units::{Device, Dtype};

#[cfg(test)]
mod tests;
