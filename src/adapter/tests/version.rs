use std::time::SystemTime;

use ::safetensors::Dtype;
use serde_json::{Value, json};

use super::{
    super::{
        Card, Generation,
        assemble::{ADEPT_BIAS_A, ADEPT_BIAS_B, LOW_RANK_A, PROMPT},
        tensor_file::WeightsFormat,
    },
    support::{
        self, Tensor, Tensors, adept_tensors, config, config_with, counting, load_bytes, tensors, torch_bin,
    },
};
use crate::domain::Version;

fn version_of(config: &Value, format: WeightsFormat, weights: Vec<u8>, card: &str) -> Version {
    let loaded = load_bytes(config, format, weights).unwrap();
    let card = Card::parse(card.as_bytes()).unwrap();
    let name = "x".parse().unwrap();
    Generation::new(name, loaded.manifest, loaded.weights, card, SystemTime::UNIX_EPOCH).version()
}

fn version(config: &Value, tensors: &Tensors, card: &str) -> Version {
    version_of(config, WeightsFormat::Safetensors, support::safetensors(tensors), card)
}

#[test]
fn what_only_dresses_the_content_up_does_not_change_the_version() {
    let base = version(&config(), &tensors(), "max_tokens = 3\nlicense = 'MIT'");
    let card = "license = \"MIT\" # as it was\nmax_tokens   = 3";
    let bin = version_of(&config(), WeightsFormat::TorchBin, torch_bin(&tensors()), card);
    let half = support::safetensors_as(&tensors(), Dtype::F16);
    assert_eq!(base, bin);
    assert_eq!(base, version_of(&config(), WeightsFormat::Safetensors, half, card));
    assert_eq!(
        base,
        version(&config_with(json!({ "revision": "main", "lora_alpha": 8.0 })), &tensors(), card)
    );
    let mut by_hidden = tensors();
    by_hidden.insert(LOW_RANK_A.into(), counting(&[4, 3], 20.0));
    let without = version(&config(), &by_hidden, "");
    by_hidden.insert(ADEPT_BIAS_A.into(), Tensor { shape: vec![3], values: vec![0.0; 3] });
    by_hidden.insert(ADEPT_BIAS_B.into(), Tensor { shape: vec![4], values: vec![0.0; 4] });
    assert_eq!(without, version(&config_with(json!({ "peft_type": "PROMPT_TUNING_LORAX" })), &by_hidden, ""));
    let empty = version(&config(), &tensors(), "");
    assert_eq!(empty, version(&config(), &tensors(), "labels = {}\nresults = []"));
}

#[test]
fn every_part_of_the_content_changes_the_version() {
    let mut other_value = tensors();
    other_value.get_mut(LOW_RANK_A).unwrap().values[7] += 1.0;
    let mut other_sign = tensors();
    other_sign.get_mut(PROMPT).unwrap().values[0] = -0.0;
    let mut longer = tensors();
    longer.insert(LOW_RANK_A.into(), counting(&[6, 3], 20.0));
    let mut by_hidden = tensors();
    by_hidden.insert(LOW_RANK_A.into(), counting(&[4, 3], 20.0));
    let lorax = config_with(json!({ "peft_type": "PROMPT_TUNING_LORAX" }));
    let mut other_bias = adept_tensors();
    other_bias.get_mut(ADEPT_BIAS_B).unwrap().values[0] += 1.0;
    let all = [
        version(&config(), &by_hidden, ""),
        version(&lorax, &adept_tensors(), ""),
        version(&lorax, &other_bias, ""),
        version(&config(), &tensors(), ""),
        version(&config(), &tensors(), "max_tokens = 3"),
        version(&config(), &tensors(), "template = '{x}'"),
        version(&config(), &tensors(), "labels = { '1' = 'x' }"),
        version(&config(), &tensors(), "over_length = 'error'"),
        version(&config_with(json!({ "lora_alpha": 9 })), &tensors(), ""),
        version(&config_with(json!({ "task_type": "CAUSAL_LM" })), &tensors(), ""),
        version(&config_with(json!({ "max_length": 6 })), &longer, ""),
        version(&config(), &other_value, ""),
        version(&config(), &other_sign, ""),
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(!all[..i].contains(one), "{i}");
    }
}
