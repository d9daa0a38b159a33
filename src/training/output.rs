//! The adapter's folder: the layout of PEFT and of DePT's own code, with a card.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Map, Value, json};

use super::{error::TrainError, files::write_whole, parameters::Parameters};
use crate::adapter::{
    Card, LoadedAdapter, Manifest, Task,
    folder::{CARD_FILE, CONFIG_FILE},
    manifest::VARIANT_KEY,
    tensor_file::WeightsFormat,
};

/// Where the best adapter of a run is kept, and what its files say.
#[derive(Debug, Clone)]
pub struct Output {
    /// The folder.
    pub folder: PathBuf,
    /// The kind of model.
    pub task: Task,
    /// Its name.
    pub base_model: String,
    /// Its blocks and heads.
    pub layers_and_heads: (usize, usize),
    /// The text that P started from, if it did.
    pub init_text: Option<String>,
}

impl Output {
    /// Makes the folder, and one in it for the run's own files.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(&self) -> Result<(), TrainError> {
        let run = self.run_folder();
        fs::create_dir_all(&run).map_err(|source| TrainError::Write { path: run, source })
    }

    /// Where checkpoint and journal are; a server passes it over.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.join("training")
    }

    /// Writes the adapter; each file is there whole or as it was before.
    ///
    /// # Errors
    /// When a number is not finite or a file can't be written.
    pub fn save(&self, parameters: &Parameters, card: &Card) -> Result<LoadedAdapter, TrainError> {
        let config = format!("{:#}\n", self.config(parameters)).into_bytes();
        let adapter = self.adapter(parameters, card)?;
        let problem = |error: &dyn std::fmt::Display| TrainError::Read {
            path: self.folder.clone(),
            problem: error.to_string(),
        };
        let files = adapter.canonical(None).map_err(|error| problem(&error))?;
        let card = toml::to_string(card).map_err(|error| problem(&error))?;
        write_whole(&self.place(files.format.file_name()), &files.weights)?;
        write_whole(&self.place(CONFIG_FILE), &config)?;
        write_whole(&self.place(CARD_FILE), card.as_bytes())?;
        Ok(adapter)
    }

    /// The adapter as a server would load it.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn adapter(&self, parameters: &Parameters, card: &Card) -> Result<LoadedAdapter, TrainError> {
        let config = self.config(parameters).to_string();
        let manifest = Manifest::parse(config.as_bytes()).map_err(|error| TrainError::Read {
            path: self.place(CONFIG_FILE),
            problem: error.to_string(),
        })?;
        Ok(LoadedAdapter {
            manifest: manifest.trained(),
            weights: parameters.weights()?,
            card: card.clone(),
            format: WeightsFormat::Safetensors,
            tensors: Vec::new(),
            written_at: SystemTime::now(),
        })
    }

    fn place(&self, file: &str) -> PathBuf {
        self.folder.join(Path::new(file))
    }

    /// `adapter_config.json` with every key that the official readers know.
    fn config(&self, parameters: &Parameters) -> Value {
        let shape = &parameters.shape;
        let mut config = Map::new();
        let mut field = |name: &str, value: Value| config.insert(name.to_owned(), value);
        field("peft_type", json!(if shape.rank > 0 { "PROMPT_TUNING_LORA" } else { "PROMPT_TUNING" }));
        field("task_type", json!(self.task.as_str()));
        field("base_model_name_or_path", json!(self.base_model));
        field("tokenizer_name_or_path", json!(self.base_model));
        field("revision", Value::Null);
        field("inference_mode", json!(true));
        field("num_virtual_tokens", json!(shape.prompt_length));
        field("num_transformer_submodules", json!(1));
        field("token_dim", json!(shape.hidden));
        field("num_layers", json!(self.layers_and_heads.0));
        field("num_attention_heads", json!(self.layers_and_heads.1));
        let how = if self.init_text.is_some() { "TEXT" } else { "RANDOM" };
        field("prompt_tuning_init", json!(how));
        field("prompt_tuning_init_text", json!(self.init_text));
        if shape.rank > 0 {
            field("hidden_size", json!(shape.hidden));
            field("r", json!(shape.rank));
            field("lora_alpha", json!(shape.alpha));
            field("max_length", json!(shape.max_length));
            field("bias", json!("none"));
            field("init_lora_weights", json!(true));
            field("save_lora_embeddings", json!(true));
            if shape.max_length == shape.hidden {
                // The shape of A does not tell then.
                field(VARIANT_KEY, json!("dept"));
            }
        }
        Value::Object(config)
    }
}
