use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, fmt, prelude::*, reload};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error(
        "'{filter}' is not a log filter ({cause}): write a level (info) or targets (info,dept::engine=debug)"
    )]
    Filter {
        /// The filter as it came.
        filter: String,
        /// What is wrong with it.
        cause: ParseError,
    },
    /// The log has ended.
    #[error("the log has ended, and its filter with it")]
    Gone,
    /// The process logs already.
    #[error("logging has been started already")]
    Twice,
}

/// The filter of a log that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Logs by `filter` from now on.
    ///
    /// # Errors
    /// When it is malformed; then the one before stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        self.0.reload(parse(filter)?).map_err(|_| LogError::Gone)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|cause| LogError::Filter { filter: filter.into(), cause })
}

/// Sends the process's log to stderr. Prompts and generated text are logged at no level, unless the server is told to.
///
/// # Errors
/// When `filter` is malformed or logging runs already.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<LogFilter, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
    Ok(LogFilter(handle))
}
