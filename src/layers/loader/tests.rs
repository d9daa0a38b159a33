use std::path::Path;

use super::*;

fn open(path: &str) -> Weights {
    Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn loader(weights: &Weights, recipe: Recipe) -> Loader<'_> {
    Loader {
        weights,
        recipe,
        place: Place::Cpu,
        pool: ComputePool::serial(),
        isa: Isa::Portable,
        gradients: false,
        packed: PackedParts::Fresh,
    }
}

#[test]
fn a_map_that_is_read_in_strips_is_the_whole_one() {
    let [qwen2, llama, t5] =
        ["tests/golden/qwen2", "tests/golden/llama.q8_0.gguf", "models/flan-t5-small-en"].map(open);
    let q = ("model.layers.0.self_attn.q_proj", 32, 32);
    let down = ("model.layers.1.mlp.down_proj", 32, 64);
    let wo = ("encoder.block.0.layer.1.DenseReluDense.wo", 512, 1024);
    for (weights, (module, n, k), bias, recipe) in [
        (&qwen2, q, true, Recipe::F32),
        (&qwen2, q, true, Recipe::I8),
        (&llama, down, false, Recipe::Stored),
        (&llama, down, false, Recipe::I8),
        (&t5, wo, false, Recipe::Stored),
    ] {
        let parts = [Part { name: "", n, bias, stored: Stored::Rows }];
        let group = Group { prefix: module, parts: &parts, k, activations: ActivationBits::Eight };
        let loader = loader(weights, recipe);
        let strips_of = |strip| {
            let wanted = Wanted { strip, ..group.wanted(Epilogue::Plain) };
            match loader.map(module, wanted, |outputs| loader.parts(group, outputs)).unwrap() {
                LinearMap::Packed(map) => map,
                dense => panic!("{dense:?}"),
            }
        };
        for strip in [1, 7, n - 1] {
            assert_eq!(strips_of(strip).bytes(), strips_of(n).bytes(), "{module}, {recipe:?}, {strip}");
        }
    }
}

#[test]
fn maps_are_computed_by_the_instructions_that_were_asked_for() {
    let weights = open("tests/golden/llama");
    for (isa, gradients) in Isa::ALL.into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
        let loader = Loader { isa, gradients, ..loader(&weights, Recipe::F32) };
        match loader.linear("model.layers.0.mlp.", &[("gate_proj", 64)], 32) {
            Ok(LinearMap::Packed(map)) => assert_eq!(map.isa(), isa),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(!isa.is_available(), "{error}");
                assert!(error.to_string().contains("this machine lacks the instructions"), "{error}");
            }
        }
    }
}
