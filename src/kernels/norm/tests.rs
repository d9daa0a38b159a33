use std::num::NonZeroUsize;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::kernels::miri::{runs, unless_miri};

fn pool(threads: usize) -> ComputePool {
    ComputePool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(runs(60))]

    #[test]
    fn it_agrees_with_the_reference_and_rows_are_independent(
        (width, values, weight) in (1usize..150).prop_flat_map(|width| (
            Just(width),
            (1usize..9).prop_flat_map(move |rows| prop::collection::vec(-4f32..4.0, rows * width)),
            prop::collection::vec(-2f32..2.0, width),
        )),
        magnitude in prop::sample::select(vec![1e-6f32, 1.0, 1e6]),
        with_bias: bool,
    ) {
        let x: Vec<f32> = values.iter().map(|value| value * magnitude).collect();
        let bias = with_bias.then(|| weight.iter().map(|w| 1.0 - w).collect::<Vec<f32>>());
        let norm = match bias.clone() {
            None => Norm::rms(weight.clone(), 1e-6, pool(2)).unwrap(),
            Some(bias) => Norm::layer(weight.clone(), bias, 1e-6, pool(2)).unwrap(),
        };
        let out = norm.forward_rows(&x).unwrap();
        let expected = reference::forward(&x, &weight, bias.as_deref(), 1e-6);
        // A mean taken away leaves the rounding of what it was taken from.
        let rounding = if with_bias { 3e-5 } else { 1e-9 };
        for (out, expected) in out.iter().zip(expected) {
            prop_assert!((f64::from(*out) - expected).abs() <= 1e-6 * expected.abs() + rounding, "{out} {expected}");
        }
        for (x, together) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
            prop_assert_eq!(norm.forward_rows(x).unwrap(), together);
            let mut in_place = x.to_vec();
            norm.normalise_in_place(&mut in_place);
            prop_assert_eq!(&in_place, together);
        }
    }
}

#[test]
fn many_rows_on_threads_equal_one_thread() {
    let x: Vec<f32> =
        (0..unless_miri(1000, 20) * 96).map(|index| ((index * 37) % 101) as f32 - 50.0).collect();
    let run = |threads| Norm::rms(vec![0.5; 96], 1e-6, pool(threads)).unwrap().forward_rows(&x).unwrap();
    assert_eq!(run(1), run(2));
}

#[test]
fn known_values() {
    let norm = Norm::rms(vec![1.0, 2.0], 0.0, pool(1)).unwrap();
    let x = Tensor::new(&[[[3.0f32, -3.0], [0.5, 0.5]]], &Device::Cpu).unwrap();
    assert_eq!(norm.forward(&x).unwrap().to_vec3::<f32>().unwrap(), [[[1.0, -2.0], [1.0, 2.0]]]);
    let zeros = Norm::rms(vec![1.0, 2.0], 1e-6, pool(1)).unwrap();
    assert_eq!(zeros.forward(&x.zeros_like().unwrap()).unwrap().to_vec3::<f32>().unwrap(), [[[0.0, 0.0]; 2]]);
}

#[test]
fn wrong_input_is_refused() {
    assert_eq!(Norm::rms(vec![], 1e-6, pool(1)).unwrap_err(), NormError::Empty);
    assert!(matches!(Norm::rms(vec![1.0], -1.0, pool(1)), Err(NormError::Value { value: -1.0, .. })));
    assert!(
        Norm::rms(vec![1.0, f32::NAN], 1e-6, pool(1)).unwrap_err().to_string().contains("weight 1 is NaN")
    );
    let norm = Norm::rms(vec![1.0; 4], 1e-6, pool(1)).unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    assert!(norm.forward(&zeros(&[2, 5])).is_err());
    assert!(norm.forward(&zeros(&[])).is_err());
    assert!(norm.forward(&zeros(&[4, 2]).t().unwrap()).is_err());
    assert!(norm.forward(&zeros(&[2, 4]).to_dtype(DType::F64).unwrap()).is_err());
    assert!(norm.forward_rows(&[0.0; 7]).is_err());
}

#[test]
fn a_layer_norm_takes_the_mean_away_and_adds_its_bias() {
    let norm = Norm::layer(vec![1.0, 2.0], vec![0.5, -1.0], 0.0, pool(1)).unwrap();
    let x = Tensor::new(&[[1.0f32, 3.0], [5.0, 1.0]], &Device::Cpu).unwrap();
    assert_eq!(norm.forward(&x).unwrap().to_vec2::<f32>().unwrap(), [[-0.5, 1.0], [1.5, -3.0]]);
    assert!(Norm::layer(vec![1.0; 2], vec![0.0; 3], 1e-6, pool(1)).is_err());
    assert!(
        Norm::layer(vec![1.0], vec![f32::NAN], 1e-6, pool(1)).unwrap_err().to_string().contains("bias 0")
    );
}
