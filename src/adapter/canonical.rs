//! An adapter written anew in one form, whatever form it came in: the tensors that are served, as f32 safetensors, and a
//! config of the fields that are read.
//!
//! The content stays the same and so does the version, but for a multitask prompt: one task's prompt is all that is left of it,
//! and that is plain prompt tuning.

use std::collections::HashMap;

use ::safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use serde_json::{Map, Value, json};

use super::{
    assemble::{ADEPT_BIAS_A, ADEPT_BIAS_B, LOW_RANK_A, LOW_RANK_B, PROMPT},
    folder::{AdapterBytes, LoadedAdapter},
    manifest::{Method, VARIANT_KEY},
    tensor::Matrix,
    tensor_file::WeightsFormat,
    weights::Update,
};

impl LoadedAdapter {
    /// Its files in the canonical form, `card` as it is given.
    ///
    /// # Errors
    /// When the weights can't be written, which no sound adapter does.
    pub fn canonical(&self, card: Option<Vec<u8>>) -> Result<AdapterBytes, SafeTensorError> {
        let config = format!("{:#}\n", config(self)).into_bytes();
        Ok(AdapterBytes { config, format: WeightsFormat::Safetensors, weights: weights(self)?, card })
    }
}

fn config(adapter: &LoadedAdapter) -> Value {
    let (manifest, weights) = (&adapter.manifest, &adapter.weights);
    let peft_type = match (weights.update(), manifest.method) {
        (Update::LowRank(_), _) => "PROMPT_TUNING_LORA",
        (Update::Adept(_), _) => "PROMPT_TUNING_LORAX",
        (Update::None, Method::PTuning) => "P_TUNING",
        (Update::None, _) => "PROMPT_TUNING",
    };
    let mut config = Map::new();
    let mut field = |name: &str, value: Value| config.insert(name.to_owned(), value);
    field("peft_type", json!(peft_type));
    field("task_type", json!(manifest.task.as_str()));
    field("base_model_name_or_path", json!(manifest.base_model));
    field("inference_mode", json!(true));
    field("num_virtual_tokens", json!(weights.prompt_length()));
    field("num_transformer_submodules", json!(1));
    field("token_dim", json!(weights.hidden()));
    match weights.update() {
        Update::None => {}
        Update::LowRank(pair) => {
            field("r", json!(pair.rank()));
            field("lora_alpha", json!(manifest.alpha()));
            field("max_length", json!(pair.max_length()));
            // Where s = d the shape does not tell.
            field(VARIANT_KEY, json!("dept"));
        }
        Update::Adept(network) => {
            field("r", json!(network.rank()));
        }
    }
    Value::Object(config)
}

fn weights(adapter: &LoadedAdapter) -> Result<Vec<u8>, SafeTensorError> {
    let prompt = adapter.weights.prompt();
    let matrix = |name, matrix: &Matrix| (name, vec![matrix.rows(), matrix.cols()], bytes(matrix));
    let vector = |name, matrix: &Matrix| (name, vec![matrix.len()], bytes(matrix));
    let mut tensors = Vec::new();
    if !prompt.is_empty() {
        tensors.push(matrix(PROMPT, prompt));
    }
    match adapter.weights.update() {
        Update::None => {}
        Update::LowRank(pair) => tensors.extend([matrix(LOW_RANK_A, pair.a()), matrix(LOW_RANK_B, pair.b())]),
        Update::Adept(network) => tensors.extend([
            matrix(LOW_RANK_A, network.a()),
            vector(ADEPT_BIAS_A, network.bias_a()),
            matrix(LOW_RANK_B, network.b()),
            vector(ADEPT_BIAS_B, network.bias_b()),
        ]),
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, SafeTensorError>>()?;
    // What PEFT looks for.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    ::safetensors::serialize(views, Some(metadata))
}

fn bytes(matrix: &Matrix) -> Vec<u8> {
    matrix.data().iter().flat_map(|value| value.to_le_bytes()).collect()
}
