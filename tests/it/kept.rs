//! Packed weights from a file give the answers of those that were packed.

use std::{fs, path::Path};

use dept::{
    backbones::{
        decoder::{Decoder, DecoderConfig},
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    kernels::{
        Place,
        linear::{Isa, LAYOUT, PackedBytes},
        pool::ComputePool,
    },
    layers::{Loader, PackedFile, PackedPart, PackedParts, Recipe, TableRows},
};
use sha2::{Digest, Sha256};

use crate::support::{
    Job, Memory,
    causal::{self, CausalJob, Generated, Pieces},
    generate, golden,
};

const PROMPT: [u32; 9] = [5, 9, 33, 17, 60, 8, 21, 40, 1];

fn load<M>(
    weights: &Weights,
    recipe: Recipe,
    packed: PackedParts,
    model: &impl Fn(&Loader<'_>) -> M,
) -> (M, PackedParts) {
    let pool = ComputePool::serial();
    let loader =
        Loader { weights, place: Place::Cpu, recipe, pool, isa: Isa::fastest(), gradients: false, packed };
    (model(&loader), loader.packed)
}

/// A model from its checkpoint, and the parts of it that a file can keep.
fn packed<M>(
    weights: &Weights,
    recipe: Recipe,
    model: &impl Fn(&Loader<'_>) -> M,
) -> (M, Vec<(String, PackedPart)>) {
    match load(weights, recipe, PackedParts::Remembered(Vec::new().into()), model) {
        (model, PackedParts::Remembered(parts)) => (model, parts.into_inner()),
        (_, other) => panic!("{other:?}"),
    }
}

/// A model from its checkpoint, from a file of its packed parts, and from one in which all of the weights are others.
fn three_times<M>(path: &Path, recipe: Recipe, model: impl Fn(&Loader<'_>) -> M) -> [M; 3] {
    let weights = Weights::open(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.packed");
    let (fresh, parts) = packed(&weights, recipe, &model);
    PackedFile::write(&file, "key", &parts).unwrap();
    let kept = PackedFile::open(&file, "key").unwrap();
    assert_eq!(kept.parts(), parts.len(), "two parts of one name");
    let kept = load(&weights, recipe, PackedParts::Kept(kept), &model).0;
    let mut bytes = fs::read(&file).unwrap();
    let index = bytes.len() - 16;
    let data = u64::from_le_bytes(bytes[index..index + 8].try_into().unwrap()) as usize;
    // Low bits of each fourth byte, of a float's fraction or of a quarter of the levels.
    bytes[..data].iter_mut().step_by(4).for_each(|byte| *byte ^= 3);
    let other = folder.path().join("other.packed");
    fs::write(&other, bytes).unwrap();
    let other = PackedParts::Kept(PackedFile::open(&other, "key").unwrap());
    [fresh, kept, load(&weights, recipe, other, &model).0]
}

fn t5(loader: &Loader<'_>) -> T5 {
    T5::load(loader, T5Config::read(loader.weights).unwrap(), Reach { prompt: 64, new_tokens: 16 }).unwrap()
}

fn decoder(loader: &Loader<'_>) -> Decoder {
    Decoder::load(loader, DecoderConfig::read(loader.weights).unwrap(), 64).unwrap()
}

#[test]
fn an_encoder_decoder_answers_the_same() {
    for (path, recipe) in [
        ("t5-v1_0", Recipe::Stored),
        ("t5-v1_1", Recipe::I8),
        ("t5-v1_1.q8_0.gguf", Recipe::Stored),
        ("t5-v1_1.q8_0.gguf", Recipe::Fine),
    ] {
        let jobs = [Job { min_tokens: 12, ..Job::new(PROMPT.to_vec(), None, 12) }];
        let models = three_times(&golden(path), recipe, t5);
        let [fresh, kept, other] = models.map(|model| generate(model, &jobs, Memory::default()).0);
        assert_eq!(fresh[0].len(), 12);
        assert_eq!(kept, fresh, "{path} in {recipe:?}");
        assert_ne!(other, fresh, "{path} in {recipe:?}: the file was not used");
    }
}

#[test]
fn a_decoder_answers_the_same() {
    for (path, recipe) in [
        ("gpt2", Recipe::Stored),
        ("qwen2", Recipe::I8),
        ("gemma3", Recipe::F32),
        ("llama.q8_0.gguf", Recipe::Stored),
        ("llama.q8_0.gguf", Recipe::Fine),
    ] {
        let job = CausalJob { prompt: &PROMPT, adapter: None, new_tokens: 12 };
        let models = three_times(&golden(path), recipe, decoder);
        let [fresh, kept, other]: [Generated; 3] =
            models.map(|model| causal::generate(&model, &[job], Pieces::Whole).remove(0));
        assert_eq!(fresh.tokens.len(), 12);
        assert_eq!(kept, fresh, "{path} in {recipe:?}");
        assert!(other.logits != fresh.logits, "{path} in {recipe:?}: the file was not used");
    }
}

/// What becomes of a checkpoint is part of what a file is named by, as a number: whoever changes the one changes the other.
#[test]
fn what_becomes_of_a_checkpoint_moves_only_with_the_layouts_number() {
    let mut hash = Sha256::new();
    let mut add = |mut parts: Vec<(String, PackedPart)>| {
        // A file finds its parts by their names.
        parts.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, part) in parts {
            hash.update(name);
            match part {
                PackedPart::Map(linear) => {
                    let PackedBytes { format, weights, ends, .. } = linear.bytes();
                    hash.update(format!("{format:?}"));
                    hash.update(weights);
                    hash.update(ends);
                }
                PackedPart::Table(TableRows { format, vocab, hidden }, rows) => {
                    hash.update(format!("{format:?} {vocab} {hidden}"));
                    hash.update(rows);
                }
            }
        }
    };
    for recipe in [Recipe::Stored, Recipe::Fine, Recipe::F32, Recipe::I8] {
        for path in ["t5-v1_0", "t5-v1_1.q8_0.gguf"] {
            add(packed(&Weights::open(&golden(path)).unwrap(), recipe, &t5).1);
        }
        for path in ["gpt2", "qwen2", "llama.q8_0.gguf"] {
            add(packed(&Weights::open(&golden(path)).unwrap(), recipe, &decoder).1);
        }
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (LAYOUT, digest.as_str()),
        (2, "d7ea75e7c9ea7cc6"),
        "other bytes for the same checkpoints: give LAYOUT a new number"
    );
}
