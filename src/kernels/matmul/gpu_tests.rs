//! The op on a real card against the CPU's bits. Without a card it says that it is skipped; the kernels themselves are then
//! proved by `device_tests.rs`.

use candle_core::Device;
use rand::{SeedableRng, rngs::SmallRng};

use super::{tests::noise, *};
use crate::kernels::cuda::device::card;

/// The bits of a matrix, widened.
fn bits(tensor: &Tensor) -> Vec<u32> {
    let there = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    super::tests::bits(&there.flatten_all().unwrap().to_vec1::<f32>().unwrap())
}

#[test]
fn a_product_on_a_card_has_the_cpus_bits_at_every_number_of_rows() {
    let Some(card) = card() else { return };
    let random = &mut SmallRng::seed_from_u64(9);
    for (rows, n, k) in [(1, 768, 768), (8, 100, 3_072), (40, 90, 77), (300, 2_000, 130), (65, 66, 1)] {
        let mut matrix = |rows: usize, dtype| {
            let values = Tensor::from_vec(noise(random, rows * k), (rows, k), &Device::Cpu).unwrap();
            values.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
        };
        for dtype in [DType::F32, DType::BF16] {
            let (x, weight) = (matrix(rows, dtype), matrix(n, dtype));
            let expected = fixed_matmul(&x, &weight).unwrap().to_dtype(dtype).unwrap();
            let there = |tensor: &Tensor| tensor.to_device(&card).unwrap().to_dtype(dtype).unwrap();
            let (x, weight) = (there(&x), there(&weight));
            let found = fixed_matmul(&x, &weight).unwrap();
            assert!(bits(&found) == bits(&expected), "{rows} x {n} x {k} {dtype:?}");
            let last = fixed_matmul(&x.narrow(0, rows - 1, 1).unwrap(), &weight).unwrap();
            assert!(bits(&last) == bits(&expected)[(rows - 1) * n..], "the last row of {rows} x {n} x {k}");
        }
    }
}
