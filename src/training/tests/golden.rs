//! Against PyTorch: `tests/golden/make_training.py` says what.

use ::safetensors::SafeTensors;
use serde_json::Value;

use super::support::{golden, tiny};
use crate::{
    backbones::TextPair,
    training::{AdapterShape, Backbone, Optimiser, Parameters, Rates, Tensors},
};

const CLIP: f64 = 1.0;
const STEPS: u64 = 10;
const WARMUP: u64 = 3;

struct Case {
    backbone: Backbone,
    parameters: Parameters,
    pairs: Vec<(Vec<u32>, Vec<u32>)>,
    bytes: Vec<u8>,
}

impl Case {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(golden(&format!("training/{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let text = std::fs::read_to_string(golden(&format!("training/{name}.json"))).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let ids =
            |value: &Value| value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let pairs = json["pairs"].as_array().unwrap();
        let pairs = pairs.iter().map(|pair| (ids(&pair["source"]), ids(&pair["target"]))).collect();
        let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
        let (prompt, a) = (shape("P"), shape("A"));
        let shape = AdapterShape {
            prompt_length: prompt[0],
            rank: a[1],
            max_length: a[0],
            hidden: prompt[1],
            alpha: 8.0,
        };
        let mut case = Self {
            backbone: tiny(name),
            parameters: Parameters { shape, values: Tensors::zeros(&shape) },
            pairs,
            bytes: bytes.clone(),
        };
        case.parameters.values = case.tensors("");
        case
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn tensors(&self, prefix: &str) -> Tensors {
        let [prompt, a, b] = ["P", "A", "B"].map(|name| self.values(&format!("{prefix}{name}")));
        Tensors { prompt, a, b }
    }

    fn gradients(&self) -> (f32, Tensors) {
        let pairs: Vec<_> = self.pairs.iter().map(|(source, target)| TextPair { source, target }).collect();
        let targets: usize = pairs.iter().map(|pair| pair.target.len()).sum();
        self.backbone.gradients(&self.parameters, &pairs, 1.0 / targets as f32).unwrap()
    }
}

/// The largest difference, as a share of the largest expected value.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).fold(0f32, |apart, (x, y)| apart.max((x - y).abs())) / largest
}

#[test]
fn gradients_of_p_a_and_b_are_torchs() {
    for name in ["t5-v1_0", "t5-v1_1", "gpt2", "llama", "qwen2", "qwen3", "gemma2", "gemma3"] {
        let case = Case::read(name);
        let (loss, found) = case.gradients();
        let expected = case.values("loss")[0];
        assert!((loss - expected).abs() < 1e-4 * expected, "{name}: loss {expected}, found {loss}");
        let expected = case.tensors("grad.");
        for ((tensor, found), (_, expected)) in found.named().into_iter().zip(expected.named()) {
            let apart = apart(found, expected);
            assert!(apart < 1e-3, "{name}: the gradient of {tensor} is off by {apart}");
        }
    }
}

#[test]
fn ten_steps_are_torchs() {
    for name in ["t5-v1_1", "llama"] {
        let mut case = Case::read(name);
        let losses = case.values("steps.loss");
        let mut optimiser = Optimiser::new(&case.parameters.values);
        for step in 1..=STEPS {
            let (loss, mut gradients) = case.gradients();
            let expected = losses[step as usize - 1];
            assert!(
                (loss - expected).abs() < 1e-4 * expected,
                "{name} step {step}: {expected}, found {loss}"
            );
            gradients.scale((CLIP / (gradients.norm() + 1e-6)).min(1.0) as f32);
            let done = step - 1;
            let share = match done < WARMUP {
                true => done as f64 / WARMUP as f64,
                false => (STEPS - done) as f64 / (STEPS - WARMUP) as f64,
            };
            let rates = Rates { prompt: 0.3 * share, low_rank: 5e-3 * share };
            optimiser.step(&mut case.parameters.values, &gradients, rates);
            if ![1, 2, 5, STEPS].contains(&step) {
                continue;
            }
            let expected = case.tensors(&format!("step{step}."));
            for ((tensor, found), (_, expected)) in
                case.parameters.values.named().into_iter().zip(expected.named())
            {
                let apart = apart(found, expected);
                assert!(apart < 1e-4, "{name} step {step}: {tensor} is off by {apart}");
            }
        }
    }
}
