//! Activations and gates as the last part of a map.

use super::*;

/// A map's outputs, finished one by one as [`Epilogue`] defines it.
fn finish(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Relu if x < 0.0 => 0.0,
        Activation::Relu => x,
        Activation::GeluTanh => activation::gelu_tanh(x),
        Activation::Silu => activation::silu(x),
    }
}

const ACTIVATIONS: [Activation; 3] = [Activation::Relu, Activation::GeluTanh, Activation::Silu];

proptest! {
    #![proptest_config(runs(30))]

    #[test]
    fn activated_and_gated_maps_give_the_same_bits_as_the_steps_apart(
        (rows, n, k) in (1usize..unless_miri(20, 5), 1usize..130, 1usize..unless_miri(80, 40)),
        recipe in prop::sample::select(RECIPES.as_slice()),
        activation in prop::sample::select(ACTIVATIONS.as_slice()),
        seed in any::<u64>(),
    ) {
        let shape = LinearShape { n, k };
        let x = activations(seed, rows, k, &[Rows::Random, Rows::Outlier, Rows::Zeros]);
        let part = |seed| LinearPart {
            shape,
            weights: weights(seed, shape, recipe),
            bias: Some((0..n).map(|j| noise(seed, j)).collect()),
        };
        let apart = |part: LinearPart| reference::forward(&x, shape, &part.weights, part.bias.as_deref());
        let activated: Vec<f32> = apart(part(seed)).into_iter().map(|x| finish(activation, x)).collect();
        let gated: Vec<f32> = activated.iter().zip(apart(part(!seed))).map(|(gate, up)| gate * up).collect();
        for isa in available() {
            let map = |parts, epilogue| Linear::pack(parts, epilogue, pool(2)).unwrap().with_isa(isa).unwrap();
            let (gate, up) = (part(seed), part(!seed));
            let one = map(vec![gate.clone()], Epilogue::Activated(activation));
            prop_assert_eq!(run(&one, &x), bits(&activated));
            let both = map(vec![gate, up], Epilogue::Gated(activation));
            prop_assert_eq!(both.shape(), shape);
            prop_assert_eq!(run(&both, &x), bits(&gated));
        }
    }

    #[test]
    fn activations_are_near_their_formulas(x in -30f32..30.0) {
        let wide = f64::from(x);
        let silu = wide / (1.0 + (-wide).exp());
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
        let gelu = 0.5 * wide * (1.0 + inner.tanh());
        prop_assert!((f64::from(activation::exp(x)) / wide.exp() - 1.0).abs() < 2.5e-7);
        prop_assert!((f64::from(activation::silu(x)) - silu).abs() <= 4e-7 * silu.abs());
        prop_assert!((f64::from(activation::gelu_tanh(x)) - gelu).abs() <= 4e-7 * gelu.abs() + 1e-7);
    }
}

#[test]
fn activations_hold_at_the_ends() {
    for (x, silu, gelu) in
        [(0.0, 0.0, 0.0), (200.0, 200.0, 200.0), (1e30, 1e30, 1e30), (f32::MAX, f32::MAX, f32::MAX)]
    {
        assert_eq!((activation::silu(x), activation::gelu_tanh(x)), (silu, gelu));
        assert!(activation::silu(-x).abs() <= x * 1e-38 && activation::gelu_tanh(-x).abs() <= x * 1e-38);
    }
    assert!(activation::silu(f32::NAN).is_nan() && activation::gelu_tanh(f32::NAN).is_nan());
    assert_eq!(activation::exp(0.0), 1.0);
}
