//! `dept serve`.

use std::path::PathBuf;

use super::{Cli, Command};
use crate::{
    app::{self, Watched},
    config::{self, ConfigError, Places, ServeArgs, ServeConfig},
    telemetry::{LogFilter, start_logging},
};

/// Serves until SIGTERM or ctrl-c.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let file = config::file_of(&args);
    let config = ServeConfig::new(args, &Places::from_environment())?;
    let filter = start_logging(config.log_format, &config.log).map_err(ConfigError::Log)?;
    let watched = file.map(|file| log_key(file, filter)).into_iter().collect();
    // One worker: requests are small beside the steps, and the cores belong to the engine.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(runtime.block_on(app::serve(config, watched))?)
}

/// The `log` of the configuration file, the one key that is followed while the server runs. The whole command line is read
/// anew, so that a flag or a variable still wins over the file.
fn log_key(file: PathBuf, filter: LogFilter) -> Watched {
    let reload = move || {
        let cli: Cli = config::parse(std::env::args_os()).map_err(|error| error.to_string())?;
        let Command::Serve(args) = cli.command else { return Ok(()) };
        filter.set(&args.log).map_err(|error| error.to_string())
    };
    Watched { name: "log", files: vec![file], reload: Box::new(reload) }
}
