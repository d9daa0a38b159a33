//! What holds for any bytes, one function a parser. The server's own tests replay the corpus through this file.

use crate::adapter::{
    Card, LoadedAdapter, Manifest,
    archive::{self, Limits},
    folder::AdapterBytes,
    template::Template,
    tensor_file::{TensorFile, WeightsFormat},
};

/// A config for m = 2, r = 3, s = 5, d = 4, which the weights' targets are read with.
const CONFIG: &[u8] =
    br#"{"peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 2, "r": 3,
    "lora_alpha": 8, "max_length": 5, "token_dim": 4, "num_transformer_submodules": 1}"#;

/// `adapter_config.json`
pub fn config(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert!(manifest.hidden > 0, "a config that passes states a width");
    }
}

/// `card.toml`
pub fn card(bytes: &[u8]) {
    if let Ok(card) = Card::parse(bytes)
        && let Some(template) = &card.template
    {
        let again = Template::parse(&template.to_string()).expect("a template's text is a template");
        assert!(again == *template, "a template reads back as itself");
    }
}

/// `adapter_model.bin`
pub fn torch_bin(bytes: &[u8]) {
    weights(WeightsFormat::TorchBin, bytes);
}

/// `adapter_model.safetensors`
pub fn safetensors(bytes: &[u8]) {
    weights(WeightsFormat::Safetensors, bytes);
}

/// `.zip` and `.tar.gz`
pub fn archive(bytes: &[u8]) {
    let limits = Limits { bytes: 1 << 20, entries: 16, ..Limits::default() };
    let Ok(files) = archive::read(bytes, &limits) else { return };
    let card = files.card.as_ref().map_or(0, Vec::len);
    assert!(files.config.len() + files.weights.len() + card <= 1 << 20, "the limit holds");
    let packed = archive::pack(&files);
    let again = archive::read(&packed, &limits).expect("what was read can be packed and read again");
    assert!((again.config, again.weights, again.card) == (files.config, files.weights, files.card));
    assert!(again.format == files.format);
}

fn weights(format: WeightsFormat, bytes: &[u8]) {
    if let Ok(mut file) = TensorFile::open(format, bytes.to_vec()) {
        for name in file.infos().keys().cloned().collect::<Vec<_>>() {
            let _ = file.read(&name);
        }
    }
    let files = AdapterBytes { config: CONFIG.to_vec(), format, weights: bytes.to_vec(), card: None };
    if let Ok(adapter) = LoadedAdapter::from_bytes(files, None) {
        assert!(adapter.weights.hidden() == 4 && adapter.weights.prompt_length() == 2);
    }
}
