//! The op on a real card against the CPU. Without a card it says that it is skipped; the kernel itself is then proved by
//! `device_tests.rs`.

use candle_core::{DType, Device};
use rand::{SeedableRng, rngs::SmallRng};

use super::{tests::rows, *};
use crate::kernels::cuda::device::card;

#[test]
fn choices_on_a_card_are_the_cpus() {
    let Some(card) = card() else { return };
    let random = &mut SmallRng::seed_from_u64(8);
    for (count, stride, vocab) in [(1, 32_128, 32_100), (64, 50_257, 50_257), (7, 1_003, 1_000), (3, 5, 2)] {
        let values = rows(random, count, stride, vocab);
        let logits = Tensor::from_vec(values, (count, stride), &Device::Cpu).unwrap();
        let expected = best_tokens(&logits, vocab).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let there = logits.to_device(&card).unwrap().to_dtype(dtype).unwrap();
            assert_eq!(best_tokens(&there, vocab).unwrap(), expected, "{count} x {vocab} {dtype:?}");
            // Rows that start inside of the memory, at no boundary of a vector.
            let later = there.narrow(0, count / 2, count - count / 2).unwrap();
            assert_eq!(
                best_tokens(&later, vocab).unwrap(),
                expected[count / 2..],
                "{count} x {vocab} {dtype:?}"
            );
        }
    }
}
