//! What is refused, and how tensors come in.

use candle_core::{Device, Tensor};

use super::*;

#[test]
fn wrong_parts_are_refused() {
    let shape = LinearShape { n: 2, k: 3 };
    let f32s = |len| LinearWeights::F32 { values: vec![1.0; len] };
    let i8s = |scales: Vec<f32>| LinearWeights::I8 {
        values: vec![1; 6],
        scales,
        activations: ActivationBits::Eight,
    };
    let new = |shape, weights, bias| Linear::new(shape, weights, bias, pool(1)).unwrap_err();
    let length = |what, expected, got| LinearError::Length { what, expected, got };
    assert_eq!(new(shape, f32s(5), None), length("weights", 6, 5));
    assert_eq!(new(shape, i8s(vec![1.0]), None), length("scales", 2, 1));
    assert_eq!(new(shape, f32s(6), Some(vec![0.0; 3])), length("biases", 2, 3));
    let activations = ActivationBits::Eight;
    let blocks = |values, scales| LinearWeights::Blocks {
        values: vec![1; values],
        scales: vec![f16::ONE; scales],
        activations,
    };
    assert_eq!(new(shape, blocks(5, 2), None), length("weights", 6, 5));
    assert_eq!(new(shape, blocks(6, 3), None), length("scales", 2, 3));
    let nibbles = |level, scales, offset| LinearWeights::Nibbles {
        levels: vec![level; 6],
        scales: vec![f16::ONE; scales],
        offsets: vec![offset; 2],
        activations,
    };
    assert_eq!(new(shape, nibbles(15, 1, f16::ONE), None), length("scales", 2, 1));
    assert_eq!(new(shape, nibbles(16, 2, f16::ONE), None), LinearError::Level { index: 0, level: 16 });
    let infinite = LinearError::NotFinite { what: "offsets", index: 0, value: f32::INFINITY };
    assert_eq!(new(shape, nibbles(15, 2, f16::INFINITY), None), infinite);
    assert!(matches!(new(shape, i8s(vec![1.0, f32::NAN]), None), LinearError::NotFinite { index: 1, .. }));
    assert!(matches!(
        new(shape, f32s(6), Some(vec![f32::INFINITY, 0.0])),
        LinearError::NotFinite { index: 0, .. }
    ));
    for shape in [(0, 3), (2, 0), (1, MAX_K + 1), (usize::MAX, 3)].map(|(n, k)| LinearShape { n, k }) {
        assert_eq!(new(shape, f32s(6), None), LinearError::Shape { n: shape.n, k: shape.k });
    }
    let part = |n, k, weights| LinearPart { shape: LinearShape { n, k }, weights, bias: None };
    // Nothing is made room for before all are looked at.
    let claimed = vec![part(1, 3, f32s(3)), part(1 << 58, 3, f32s(3))];
    assert_eq!(Linear::concat(claimed, pool(1)).unwrap_err(), length("weights", 3 << 58, 3));
    let concat = |parts| Linear::concat(parts, pool(1)).unwrap_err();
    assert_eq!(concat(vec![]), LinearError::Parts { epilogue: Epilogue::Plain, parts: 0 });
    assert_eq!(
        concat(vec![part(2, 3, f32s(6)), part(3, 2, f32s(6))]),
        LinearError::MixedInputs { part: 1, expected: 3, got: 2 }
    );
    assert_eq!(
        concat(vec![part(2, 3, f32s(6)), part(2, 3, i8s(vec![1.0; 2]))]),
        LinearError::MixedRecipes { part: 1 }
    );
    let fine = LinearWeights::Blocks {
        values: vec![1; 6],
        scales: vec![f16::ONE; 2],
        activations: ActivationBits::Fifteen,
    };
    assert_eq!(
        concat(vec![part(2, 3, blocks(6, 2)), part(2, 3, fine)]),
        LinearError::MixedRecipes { part: 1 }
    );
}

#[test]
fn wrong_short_floats_are_refused() {
    let shape = LinearShape { n: 2, k: 3 };
    let refused = |weights| Linear::new(shape, weights, None, pool(1)).unwrap_err();
    let mut brains = vec![bf16::ONE; 6];
    brains[4] = bf16::NEG_INFINITY;
    let infinite = LinearError::NotFinite { what: "weights", index: 4, value: f32::NEG_INFINITY };
    assert_eq!(refused(LinearWeights::Bf16 { values: brains }), infinite);
    let halves = LinearWeights::F16 { values: vec![f16::NAN; 6] };
    assert!(matches!(refused(halves), LinearError::NotFinite { index: 0, .. }));
    let short = LinearWeights::F16 { values: vec![f16::ONE; 5] };
    assert_eq!(refused(short), LinearError::Length { what: "weights", expected: 6, got: 5 });
    // What is held otherwise is another recipe: whoever stacks parts has widened them.
    let part = |weights| LinearPart { shape, weights, bias: None };
    let brains = || LinearWeights::Bf16 { values: vec![bf16::ONE; 6] };
    for other in
        [LinearWeights::F32 { values: vec![1.0; 6] }, LinearWeights::F16 { values: vec![f16::ONE; 6] }]
    {
        let error = Linear::concat(vec![part(other), part(brains())], pool(1)).unwrap_err();
        assert_eq!(error, LinearError::MixedRecipes { part: 1 });
    }
}

#[test]
fn a_gate_must_fit() {
    let part = |n| LinearPart {
        shape: LinearShape { n, k: 1 },
        weights: LinearWeights::F32 { values: vec![1.0; n] },
        bias: None,
    };
    let (gated, activated) = (Epilogue::Gated(Activation::Silu), Epilogue::Activated(Activation::Silu));
    let refused = |parts, epilogue| Linear::pack(parts, epilogue, pool(1)).unwrap_err();
    assert_eq!(refused(vec![part(2), part(3)], gated), LinearError::MixedOutputs { gate: 2, up: 3 });
    assert_eq!(refused(vec![part(2)], gated), LinearError::Parts { epilogue: gated, parts: 1 });
    let two = vec![part(2), part(2)];
    assert_eq!(refused(two, activated), LinearError::Parts { epilogue: activated, parts: 2 });
}

#[test]
fn tensors_keep_their_leading_dimensions() {
    let shape = LinearShape { n: 5, k: 4 };
    let linear = Linear::new(shape, weights(4, shape, Recipe::F32), None, pool(1)).unwrap();
    let x = Tensor::from_vec(activations(4, 6, 4, &[Rows::Random]), (6, 4), &Device::Cpu).unwrap();
    let flat = linear.forward(&x).unwrap();
    assert_eq!(flat.dims(), [6, 5]);
    let deep = linear.forward(&x.reshape((2, 3, 4)).unwrap()).unwrap();
    assert_eq!(deep.dims(), [2, 3, 5]);
    assert_eq!(
        deep.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        flat.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    );
    // A narrowed view starts inside its storage.
    let tail = linear.forward(&x.narrow(0, 4, 2).unwrap()).unwrap();
    assert_eq!(tail.to_vec2::<f32>().unwrap(), flat.to_vec2::<f32>().unwrap()[4..]);
    let empty = linear.forward(&x.narrow(0, 0, 0).unwrap()).unwrap();
    assert_eq!(empty.dims(), [0, 5]);
}

#[test]
fn added_onto_is_the_sum_to_the_bit() {
    for &(rows, n) in unless_miri(&[(1, 64), (3, 70), (9, 192)][..], &[(2, 70)]) {
        let shape = LinearShape { n, k: 33 };
        let x =
            Tensor::from_vec(activations(6, rows, 33, &[Rows::Random]), (rows, 33), &Device::Cpu).unwrap();
        let onto =
            Tensor::from_vec(activations(7, rows + 1, n, &[Rows::Random]), (rows + 1, n), &Device::Cpu)
                .unwrap();
        // A view that starts inside its storage.
        let onto = onto.narrow(0, 1, rows).unwrap();
        for recipe in RECIPES {
            let linear = Linear::new(shape, weights(6, shape, recipe), Some(vec![0.25; n]), pool(2)).unwrap();
            let expected = (&onto + linear.forward(&x).unwrap()).unwrap().to_vec2::<f32>().unwrap();
            for isa in available() {
                let linear = linear.clone().with_isa(isa).unwrap();
                assert_eq!(
                    linear.forward_onto(&x, &onto).unwrap().to_vec2::<f32>().unwrap(),
                    expected,
                    "{isa:?}"
                );
            }
        }
        let linear = Linear::new(shape, weights(6, shape, Recipe::F32), None, pool(1)).unwrap();
        let error = linear.forward_onto(&x, &onto.narrow(1, 1, n - 1).unwrap()).unwrap_err();
        assert!(error.to_string().contains("what they are added to"), "{error}");
        let turned = onto.t().unwrap().contiguous().unwrap().t().unwrap();
        assert!(rows == 1 || linear.forward_onto(&x, &turned).is_err());
    }
}

#[test]
fn wrong_tensors_are_refused() {
    let shape = LinearShape { n: 5, k: 4 };
    let linear = Linear::new(shape, weights(4, shape, Recipe::F32), None, pool(1)).unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(linear.forward(&zeros(&[2, 5])).unwrap_err().to_string().contains("last dimension must be 4"));
    assert!(linear.forward(&zeros(&[])).is_err());
    assert!(linear.forward(&zeros(&[4, 3]).t().unwrap()).unwrap_err().to_string().contains("contiguous"));
    assert!(linear.forward(&zeros(&[2, 4]).to_dtype(candle_core::DType::F64).unwrap()).is_err());
    let length = LinearError::Length { what: "activations", expected: 4, got: 8 };
    assert_eq!(linear.forward_rows(&[0.0; 8], 1), Err(length));
}
