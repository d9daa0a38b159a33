//! `dept key`: API keys for the file of `dept serve --api-keys`.

use std::io::{self, Write};

use clap::Subcommand;

use crate::tenancy::ApiKey;

/// The flags of `dept key`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a fresh key and the line that lets it in. The key is shown this once: the server keeps only its hash
    New {
        /// The key's name in logs
        #[arg(default_value = "key-1")]
        name: String,
    },
}

/// Runs `dept key`.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Action::New { name } = &args.action;
    let key = ApiKey::random()?;
    let mut out = io::stdout().lock();
    writeln!(out, "key   {}", key.reveal())?;
    writeln!(out, "line  {{ name = {}, hash = \"{}\" }}", toml::Value::from(name.as_str()), key.hash())?;
    Ok(())
}
