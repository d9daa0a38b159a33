//! Maps that come some outputs at a time.

use std::ops::Range;

use super::*;
use crate::kernels::linear::Packing;

/// Some outputs of `k` inputs.
fn outputs_of(weights: &LinearWeights, k: usize, rows: Range<usize>) -> LinearWeights {
    fn of<T: Clone>(all: &[T], each: usize, rows: &Range<usize>) -> Vec<T> {
        all[rows.start * each..rows.end * each].to_vec()
    }
    let blocks = k.div_ceil(32);
    match weights {
        LinearWeights::F32 { values } => LinearWeights::F32 { values: of(values, k, &rows) },
        LinearWeights::F16 { values } => LinearWeights::F16 { values: of(values, k, &rows) },
        LinearWeights::Bf16 { values } => LinearWeights::Bf16 { values: of(values, k, &rows) },
        LinearWeights::I8 { values, scales, activations } => LinearWeights::I8 {
            values: of(values, k, &rows),
            scales: of(scales, 1, &rows),
            activations: *activations,
        },
        LinearWeights::Blocks { values, scales, activations } => LinearWeights::Blocks {
            values: of(values, k, &rows),
            scales: of(scales, blocks, &rows),
            activations: *activations,
        },
        LinearWeights::Nibbles { levels, scales, offsets, activations } => LinearWeights::Nibbles {
            levels: of(levels, k, &rows),
            scales: of(scales, blocks, &rows),
            offsets: of(offsets, blocks, &rows),
            activations: *activations,
        },
    }
}

proptest! {
    #![proptest_config(runs(60))]

    #[test]
    fn outputs_some_at_a_time_give_the_same_bytes(
        (n, k) in (1usize..260, 1usize..unless_miri(100, 40)),
        strip in 1usize..140,
        recipe in prop::sample::select(RECIPES.as_slice()),
        epilogue in prop::sample::select(vec![Epilogue::Plain, Epilogue::Activated(Activation::Relu)]),
        with_bias in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let shape = LinearShape { n, k };
        let weights = weights(seed, shape, recipe);
        let bias: Option<Vec<f32>> = with_bias.then(|| (0..n).map(|j| noise(seed ^ 1, j)).collect());
        let mut packing = Packing::new(shape, epilogue).unwrap();
        for first in (0..n).step_by(strip) {
            let rows = first..n.min(first + strip);
            let bias = bias.as_ref().map(|bias| bias[rows.clone()].to_vec());
            let shape = LinearShape { n: rows.len(), k };
            packing.push(LinearPart { shape, weights: outputs_of(&weights, k, rows), bias }).unwrap();
        }
        let found = packing.finish(pool(1)).unwrap();
        let whole = Linear::pack(vec![LinearPart { shape, weights, bias }], epilogue, pool(1)).unwrap();
        prop_assert_eq!(found.bytes(), whole.bytes());
    }
}

#[test]
fn outputs_that_are_missing_or_too_many_are_refused() {
    let shape = LinearShape { n: 3, k: 2 };
    let part = |n: usize, k: usize| LinearPart {
        shape: LinearShape { n, k },
        weights: LinearWeights::F32 { values: vec![1.0; n * k] },
        bias: None,
    };
    let outputs = |got| LinearError::Length { what: "outputs", expected: 3, got };
    let mut packing = Packing::new(shape, Epilogue::Plain).unwrap();
    packing.push(part(2, 2)).unwrap();
    assert_eq!(packing.push(part(2, 2)), Err(outputs(4)));
    assert_eq!(packing.push(part(1, 3)), Err(LinearError::MixedInputs { part: 1, expected: 2, got: 3 }));
    assert_eq!(packing.finish(pool(1)).unwrap_err(), outputs(2));
    let none = Packing::new(shape, Epilogue::Plain).unwrap();
    assert_eq!(none.finish(pool(1)).unwrap_err(), outputs(0));
    let flat = LinearShape { n: 0, k: 2 };
    assert_eq!(Packing::new(flat, Epilogue::Plain).unwrap_err(), LinearError::Shape { n: 0, k: 2 });
}

#[test]
fn a_gate_and_what_it_gates_are_halves() {
    let refused = |parts: &[usize]| {
        let shape = LinearShape { n: parts.iter().sum(), k: 1 };
        let mut packing = Packing::new(shape, Epilogue::Gated(Activation::Silu)).unwrap();
        let part = |&n: &usize| LinearPart {
            shape: LinearShape { n, k: 1 },
            weights: LinearWeights::F32 { values: vec![1.0; n] },
            bias: None,
        };
        parts.iter().map(part).try_for_each(|part| packing.push(part)).err()
    };
    let uneven = |gate, up| Some(LinearError::MixedOutputs { gate, up });
    assert_eq!(refused(&[2, 2]), None);
    assert_eq!(refused(&[1, 1, 2]), None);
    assert_eq!(refused(&[1, 3]), uneven(1, 3));
    assert_eq!(refused(&[3, 1]), uneven(3, 1));
    assert_eq!(refused(&[2, 3]), uneven(2, 3));
    assert_eq!(refused(&[4]), uneven(4, 0));
}

#[test]
fn a_shape_alone_takes_no_memory() {
    let shape = LinearShape { n: 1 << 45, k: 1 };
    let packing = Packing::new(shape, Epilogue::Plain).unwrap();
    let error = packing.finish(pool(1)).unwrap_err();
    assert_eq!(error, LinearError::Length { what: "outputs", expected: 1 << 45, got: 0 });
}
