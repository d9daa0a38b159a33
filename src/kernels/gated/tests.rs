use candle_core::{Device, Tensor};

use super::*;

#[test]
fn both_activations_follow_their_definition() {
    let n = 37;
    let x: Vec<f32> = (0..2 * n * 3).map(|i| ((i * 29 % 83) as f32 - 41.0) / 6.0).collect();
    let tensor = Tensor::from_slice(&x, (3, 2 * n), &Device::Cpu).unwrap();
    let gelu =
        |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let truths: [(Activation, &dyn Fn(f64) -> f64); 2] =
        [(Activation::GeluTanh, &gelu), (Activation::Silu, &silu)];
    for (activation, truth) in truths {
        let out = gate(&tensor, activation, &ComputePool::serial()).unwrap().to_vec2::<f32>().unwrap();
        for (row, out) in out.iter().enumerate() {
            for (i, &found) in out.iter().enumerate() {
                let (gate, up) = (f64::from(x[row * 2 * n + i]), f64::from(x[row * 2 * n + n + i]));
                let expected = truth(gate) * up;
                assert!((f64::from(found) - expected).abs() < 1e-5, "{activation:?}: {expected} {found}");
            }
        }
        let out = activate(&tensor, activation, &ComputePool::serial()).unwrap();
        for (found, &x) in out.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(&x) {
            assert!((f64::from(*found) - truth(f64::from(x))).abs() < 1e-5, "{activation:?} of {x}: {found}");
        }
    }
}

#[test]
fn an_odd_width_is_an_error() {
    let tensor = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(gate(&tensor, Activation::Silu, &ComputePool::serial()).is_err());
}
