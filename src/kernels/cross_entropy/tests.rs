use candle_core::Device;
use proptest::prelude::*;

use super::*;

fn loss(logits: &[f32], vocab: usize, targets: &[u32], weight: f32) -> Result<f32> {
    let logits = Tensor::from_slice(logits, (logits.len() / vocab, vocab), &Device::Cpu)?;
    let pool = ComputePool::serial();
    CrossEntropy { targets: targets.to_vec(), weight, pool }.forward(&logits)?.to_scalar()
}

proptest! {
    #[test]
    fn it_agrees_with_the_reference(
        (vocab, logits) in (2usize..30).prop_flat_map(|vocab| (
            Just(vocab),
            (1usize..5).prop_flat_map(move |rows| prop::collection::vec(-9f32..9.0, rows * vocab)),
        )),
        pick in 0u32..1000,
    ) {
        let targets: Vec<u32> = (0..logits.len() / vocab).map(|row| (pick + row as u32) % vocab as u32).collect();
        let expected = reference::loss(&logits, vocab, &targets, 0.25);
        let found = loss(&logits, vocab, &targets, 0.25).unwrap();
        prop_assert!((f64::from(found) - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{expected} {found}");
    }
}

#[test]
fn huge_logits_stay_finite() {
    assert_eq!(loss(&[3e38, 0.0], 2, &[0], 1.0).unwrap(), 0.0);
    assert_eq!(loss(&[1000.0, 0.0], 2, &[1], 1.0).unwrap(), 1000.0);
}

#[test]
fn targets_are_checked() {
    assert!(loss(&[0.0; 4], 2, &[0], 1.0).unwrap_err().to_string().contains("1 targets for 2 rows"));
    assert!(
        loss(&[0.0; 4], 2, &[0, 2], 1.0).unwrap_err().to_string().contains("target 2 of a vocabulary of 2")
    );
}
