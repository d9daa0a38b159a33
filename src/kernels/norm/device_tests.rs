//! `norm.cu`, run on the host: the CPU kernel's bits, rounded once where the output has 16.

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
fn rows_have_the_cpu_kernels_bits() {
    if !available() {
        return;
    }
    let random = &mut SmallRng::seed_from_u64(1);
    for (rows, width, layer) in
        [(1, 1, false), (9, 64, false), (3, 200, true), (6, 768, false), (5, 33, true)]
    {
        let mut noise =
            |count| -> Vec<f32> { (0..count).map(|_| random.random_range(-2.0f32..2.0)).collect() };
        let (x, weight, bias, eps) = (noise(rows * width), noise(width), noise(width), 1e-6);
        let pool = ComputePool::serial();
        let norm = match layer {
            true => Norm::layer(weight.clone(), bias.clone(), eps, pool).unwrap(),
            false => Norm::rms(weight.clone(), eps, pool).unwrap(),
        };
        let expected = norm.forward_rows(&x).unwrap();
        for format in [Format::F32, Format::Bf16] {
            let mut device = HostDevice::default();
            let arguments = Arguments {
                x: device.upload(&x),
                weight: device.upload(&weight),
                bias: if layer { device.upload(&bias) } else { Address::default() },
                out: match format {
                    Format::F32 => device.output::<f32>(x.len()),
                    Format::Bf16 => device.output::<u16>(x.len()),
                },
                rows: rows as u32,
                width: width as u32,
                eps,
                layer: u32::from(layer),
            };
            let run = device.launch(launch(rows, format), arguments).unwrap();
            match format {
                Format::F32 => assert_eq!(run.f32(0), expected, "{rows} x {width}"),
                Format::Bf16 => {
                    let rounded: Vec<u16> = expected.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
                    assert_eq!(run.u16(0), rounded, "{rows} x {width}");
                }
            }
        }
    }
}
