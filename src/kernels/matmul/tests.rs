//! The op on the CPU, and what it refuses.

use candle_core::{Device, Var};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

pub(super) fn noise(random: &mut SmallRng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect()
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_product_is_candles_but_for_rounding() {
    let random = &mut SmallRng::seed_from_u64(1);
    for (rows, n, k) in [(1, 1, 1), (3, 7, 5), (20, 9, 130), (2, 3, 0), (0, 3, 4)] {
        let x = Tensor::from_vec(noise(random, rows * k), (rows, k), &Device::Cpu).unwrap();
        let weight = Tensor::from_vec(noise(random, n * k), (n, k), &Device::Cpu).unwrap();
        let found = fixed_matmul(&x, &weight).unwrap();
        assert_eq!(found.dims(), [rows, n]);
        let expected = match rows * k {
            0 => Tensor::zeros((rows, n), DType::F32, &Device::Cpu).unwrap(),
            _ => x.matmul(&weight.t().unwrap()).unwrap(),
        };
        let (found, expected) = (found.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() <= 1e-5, "{rows} x {n} x {k}: {found}, expected {expected}");
        }
    }
}

#[test]
fn sums_run_over_k_in_order_and_are_fused() {
    // 2^-24 is lost when it is added to 1 first; the square of 1 + 2^-12 has a last bit that only a fused sum keeps.
    let small = 2f32.powi(-24);
    let odd = 1.0 + 2f32.powi(-12);
    let product = |x: &[f32], weight: &[f32]| {
        let row = |values: &[f32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
        fixed_matmul(&row(x), &row(weight)).unwrap().to_vec2::<f32>().unwrap()[0][0]
    };
    assert_eq!(product(&[1.0, small, small], &[1.0; 3]), 1.0);
    assert_eq!(product(&[small, small, 1.0], &[1.0; 3]), 1.0 + 2.0 * small);
    assert_eq!(product(&[-1.0, odd], &[1.0, odd]), 2f32.powi(-11) + small);
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let tensor = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let f32s = |shape: &[usize]| tensor(shape, DType::F32);
    let tracked = Var::from_tensor(&f32s(&[2, 3])).unwrap().as_tensor().clone();
    for (x, weight, expected) in [
        (f32s(&[2, 3]), f32s(&[5, 4]), "x [2, 3] and W [5, 4]"),
        (f32s(&[3]), f32s(&[5, 3]), "x [3] and W [5, 3]"),
        (f32s(&[2, 3]), tensor(&[5, 3], DType::F64), "x is F32, W is F64"),
        (tensor(&[2, 3], DType::BF16), tensor(&[5, 3], DType::BF16), "x is BF16, W is BF16"),
        (tracked, f32s(&[5, 3]), "no gradients"),
        (f32s(&[2, 3]), f32s(&[3, 5]).t().unwrap(), "contiguous"),
    ] {
        let error = fixed_matmul(&x, &weight).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
