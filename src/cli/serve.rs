//! `dept serve`.

use crate::{
    app,
    config::{Places, ServeArgs, ServeConfig},
    telemetry::start_logging,
};

/// Serves until SIGTERM or ctrl-c.
pub(super) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = ServeConfig::new(args, &Places::from_environment())?;
    start_logging(config.log_format, &config.log)?;
    // One worker: requests are small beside the steps, and the cores belong to the engine.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(runtime.block_on(app::serve(config))?)
}
