//! One file per subcommand.

pub mod adapter;
mod bench;
mod eval;
mod generate;
mod health;
mod key;
mod measure;
pub mod model;
mod serve;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    app::AppError,
    config::{self, ConfigError},
};

/// Serve one frozen language model with thousands of tiny soft-prompt adapters.
#[derive(Debug, Parser)]
#[command(name = "dept", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model and its adapters over HTTP
    Serve(Box<config::ServeArgs>),
    /// Generate one answer here, without a server
    Generate(generate::Args),
    /// Train an adapter on examples
    Train(Box<train::Args>),
    /// Measure an adapter on examples
    Eval(Box<eval::Args>),
    /// Look into adapters, convert them, take them to a server and back
    Adapter(adapter::Args),
    /// Make API keys
    Key(key::Args),
    /// Look into models, and fetch the known ones
    Model(model::Args),
    /// Ask a server whether it is well: exit code 0 when it is, for the probes of containers
    Health(health::Args),
    /// Load a server with requests and measure its answers
    Bench(bench::Args),
}

/// Runs the command line and returns the process's exit code: 0 done, 1 failed, 2 bad usage, 78 bad configuration.
pub fn main() -> ExitCode {
    match config::parse::<Cli>(std::env::args_os()).map_err(anyhow::Error::from).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Generate(args) => generate::run(args),
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Adapter(args) => adapter::run(args),
        Command::Key(args) => key::run(&args),
        Command::Model(args) => model::run(args),
        Command::Health(args) => health::run(&args),
        Command::Bench(args) => bench::run(args),
    }
}

/// Says what went wrong on standard error, each cause on its own line.
fn report(error: &anyhow::Error) -> ExitCode {
    let config = error.downcast_ref::<ConfigError>();
    if let Some(ConfigError::Usage(usage)) = config {
        // clap writes help to standard output and mistakes to standard error; a closed pipe is no failure of ours.
        let _ = usage.print();
    } else {
        eprintln!("error: {error:#}");
    }
    let code = config.map(ConfigError::exit_code).or_else(|| error.downcast_ref().map(AppError::exit_code));
    ExitCode::from(code.unwrap_or(1))
}
