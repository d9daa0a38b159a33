use std::path::Path;

use super::*;

#[test]
fn maps_are_computed_by_the_instructions_that_were_asked_for() {
    let weights = Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama")).unwrap();
    for (isa, gradients) in Isa::ALL.into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
        let loader = Loader {
            weights: &weights,
            recipe: Recipe::F32,
            place: Place::Cpu,
            pool: ComputePool::serial(),
            isa,
            gradients,
            packed: PackedParts::Fresh,
        };
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
