//! `rope.cu`, run on the host: the CPU kernel's bits in f32, within its rounding in bf16.

use candle_core::Device;
use half::bf16;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    plan::{Arguments, launch},
    *,
};
use crate::kernels::cuda::{
    Address, Format,
    shim::{HostDevice, available},
};

#[test]
fn heads_have_the_cpu_kernels_bits() {
    if !available() {
        return;
    }
    let random = &mut SmallRng::seed_from_u64(1);
    for (rows, heads, kv_heads, dim, normed, format) in [
        (3, 4, 2, 64, false, Format::F32),
        (5, 3, 3, 20, true, Format::F32),
        (2, 2, 1, 256, true, Format::F32),
        (4, 4, 1, 80, true, Format::Bf16),
        (4, 2, 2, 128, false, Format::Bf16),
    ] {
        let mut noise =
            |count| -> Vec<f32> { (0..count).map(|_| random.random_range(-2.0f32..2.0)).collect() };
        let shape = HeadShape { heads, kv_heads, dim };
        let width = shape.query_width() + 2 * shape.kv_width();
        let x: Vec<f32> = noise(rows * width).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
        let (query, key) = (noise(dim), noise(dim));
        let frequencies: Vec<f32> = (0..dim / 2).map(|i| 0.5f32.powi(i as i32)).collect();
        let rope = RopeTable::new(&frequencies, 12);
        let positions: Vec<u32> = (0..rows as u32).map(|row| row * 5 % 12).collect();
        let pool = &ComputePool::serial();
        let norm = |weight: &Vec<f32>| Norm::rms(weight.clone(), 1e-6, pool.clone()).unwrap();
        let norms = HeadNorms { query: norm(&query), key: norm(&key) };
        let prepare = PrepareHeads {
            heads: shape,
            norms: normed.then_some(&norms),
            rope: &rope,
            positions: &positions.clone().into(),
            pool,
        };
        let tensor = Tensor::from_slice(&x, (rows, width), &Device::Cpu).unwrap();
        let expected = prepare.forward(tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let bits: Vec<u16> = x.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        let mut device = HostDevice::default();
        let (x, out) = match format {
            Format::F32 => (device.upload(&x), device.output::<f32>(expected.len())),
            Format::Bf16 => (device.upload(&bits), device.output::<u16>(expected.len())),
        };
        let arguments = Arguments {
            x,
            out,
            positions: device.upload(&positions),
            turns: device.upload(&rope.turns),
            query_norm: if normed { device.upload(&query) } else { Address::default() },
            key_norm: if normed { device.upload(&key) } else { Address::default() },
            rows: rows as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            dim: dim as u32,
            query_eps: 1e-6,
            key_eps: 1e-6,
            normed: u32::from(normed),
            unused: 0,
        };
        let run = device.launch(launch(rows, shape, format), arguments).unwrap();
        match format {
            Format::F32 => assert_eq!(run.f32(0), expected),
            Format::Bf16 => {
                let rounded: Vec<u16> = expected.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
                assert_eq!(run.u16(0), rounded);
            }
        }
    }
}
