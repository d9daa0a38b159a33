//! Checkpoints in 16-bit floats compute as the same numbers in f32 would, and are held in half the memory.

use std::{fs, path::Path};

use dept::{
    backbones::{
        decoder::{Decoder, DecoderConfig},
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    kernels::{Place, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedPart, PackedParts, Recipe, TableRows},
};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use crate::support::{
    Job, Memory,
    causal::{self, CausalJob, Pieces},
    generate, golden,
};

const PROMPT: [u32; 9] = [5, 9, 33, 17, 60, 8, 21, 40, 1];

/// What the tensors of a checkpoint are rounded to, by their place in it.
type Rounding = fn(usize) -> Dtype;

const ROUNDINGS: [(&str, Rounding); 3] = [
    ("bf16", |_| Dtype::BF16),
    ("f16", |_| Dtype::F16),
    ("mixed", |at| [Dtype::BF16, Dtype::F16, Dtype::F32][at % 3]),
];

/// A value's bytes as it is stored, and those of the same number in f32.
fn rounded(dtype: Dtype, value: f32) -> (Vec<u8>, [u8; 4]) {
    let (short, wide) = match dtype {
        Dtype::BF16 => (bf16::from_f32(value).to_le_bytes().to_vec(), bf16::from_f32(value).to_f32()),
        Dtype::F16 => (f16::from_f32(value).to_le_bytes().to_vec(), f16::from_f32(value).to_f32()),
        _ => (value.to_le_bytes().to_vec(), value),
    };
    (short, wide.to_le_bytes())
}

/// The model at `path` with its tensors rounded, stored short and stored as the same numbers in f32.
fn twins(path: &Path, rounding: Rounding) -> [TempDir; 2] {
    let file = fs::read(path.join("model.safetensors")).unwrap();
    let mut tensors: Vec<_> = SafeTensors::deserialize(&file).unwrap().tensors();
    tensors.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (mut short, mut wide) = (Vec::new(), Vec::new());
    for (at, (name, tensor)) in tensors.iter().enumerate() {
        let (stored, shape, bytes) = (tensor.dtype(), tensor.shape(), tensor.data());
        let f32s = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let brains = bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32());
        let values: Vec<f32> = match stored {
            Dtype::F32 => f32s.collect(),
            Dtype::BF16 => brains.collect(),
            // GPT-2's masks.
            _ => {
                for twin in [&mut short, &mut wide] {
                    twin.push((name, stored, shape, bytes.to_vec()));
                }
                continue;
            }
        };
        let dtype = rounding(at);
        let (narrow, same): (Vec<_>, Vec<_>) = values.into_iter().map(|value| rounded(dtype, value)).unzip();
        short.push((name, dtype, shape, narrow.concat()));
        wide.push((name, Dtype::F32, shape, same.concat()));
    }
    [short, wide].map(|tensors| {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(path.join("config.json"), folder.path().join("config.json")).unwrap();
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
        folder
    })
}

/// The model of a folder, and the bytes that its maps' weights and a table that is read as the file has it take.
fn load<M>(folder: &TempDir, recipe: Recipe, model: impl Fn(&Loader<'_>) -> M) -> (M, [usize; 2]) {
    let weights = Weights::open(folder.path()).unwrap();
    let (pool, packed) = (ComputePool::serial(), PackedParts::Remembered(Vec::new().into()));
    let loader = Loader {
        weights: &weights,
        place: Place::Cpu,
        recipe,
        pool,
        isa: Isa::fastest(),
        gradients: false,
        packed,
    };
    let model = model(&loader);
    let PackedParts::Remembered(parts) = loader.packed else { unreachable!("it was made so") };
    let mut bytes = [0, 0];
    for (_, part) in parts.into_inner() {
        match part {
            PackedPart::Map(linear) => bytes[0] += linear.bytes().weights.len(),
            PackedPart::Table(TableRows { vocab, hidden, .. }, rows) => {
                assert_eq!(rows.len(), 2 * vocab * hidden);
                bytes[1] += rows.len();
            }
        }
    }
    (model, bytes)
}

fn t5(loader: &Loader<'_>) -> T5 {
    T5::load(loader, T5Config::read(loader.weights).unwrap(), Reach { prompt: 64, new_tokens: 16 }).unwrap()
}

fn decoder(loader: &Loader<'_>) -> Decoder {
    Decoder::load(loader, DecoderConfig::read(loader.weights).unwrap(), 64).unwrap()
}

/// What is short throughout takes half, in maps and tables; a table in f32 is none that is read as the file has it.
fn check_bytes(name: &str, [short, table]: [usize; 2], [wide, wide_table]: [usize; 2]) {
    assert_eq!(wide_table, 0);
    if name != "mixed" {
        assert_eq!(short * 2, wide, "{name}");
        assert!(table > 0, "{name}: the table was widened");
    }
}

#[test]
fn an_encoder_decoder_answers_as_its_wide_twin() {
    for (name, rounding) in ROUNDINGS {
        for path in ["t5-v1_0", "t5-v1_1"] {
            let folders = twins(&golden(path), rounding);
            let jobs = [Job { min_tokens: 12, ..Job::new(PROMPT.to_vec(), None, 12) }];
            let [short, wide] = folders.each_ref().map(|folder| {
                let (model, bytes) = load(folder, Recipe::Stored, t5);
                (generate(model, &jobs, Memory::default()).0, bytes)
            });
            assert_eq!(short.0[0].len(), 12);
            assert_eq!(short.0, wide.0, "{path} in {name}");
            check_bytes(name, short.1, wide.1);
        }
    }
}

#[test]
fn a_decoder_answers_as_its_wide_twin_to_the_last_bit() {
    for (name, rounding) in ROUNDINGS {
        for path in ["gpt2", "llama", "qwen2", "gemma3"] {
            let folders = twins(&golden(path), rounding);
            for recipe in [Recipe::Stored, Recipe::F32, Recipe::I8] {
                let job = CausalJob { prompt: &PROMPT, adapter: None, new_tokens: 12 };
                let [short, wide] = folders.each_ref().map(|folder| {
                    let (model, bytes) = load(folder, recipe, decoder);
                    (causal::generate(&model, &[job], Pieces::Whole).remove(0), bytes)
                });
                assert_eq!(short.0.tokens.len(), 12);
                assert_eq!(short.0, wide.0, "{path} in {name}, {recipe:?}");
                if recipe != Recipe::I8 {
                    check_bytes(name, short.1, wide.1);
                }
            }
        }
    }
}
