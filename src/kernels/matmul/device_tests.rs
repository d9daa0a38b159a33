//! `matmul.cu`, run on the host: the reference's bits, rounded once where the output has 16.

use half::bf16;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    plan::{Arguments, Cut, Sides},
    reference::product,
    tests::{bits, noise},
};
use crate::kernels::cuda::{
    Address, Format,
    shim::{HostDevice, Run, available},
};

const CUTS: [Cut; 3] = [Cut::Few, Cut::Small, Cut::Large];
const FORMATS: [Format; 2] = [Format::F32, Format::Bf16];

/// Numbers that the format holds exactly.
fn rounded(mut values: Vec<f32>, format: Format) -> Vec<f32> {
    if format == Format::Bf16 {
        values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
    }
    values
}

/// Uploads numbers `ahead` numbers behind the start of their memory.
fn upload(device: &mut HostDevice, values: &[f32], ahead: usize, format: Format) -> Address {
    let padded: Vec<f32> = std::iter::repeat_n(f32::NAN, ahead).chain(values.iter().copied()).collect();
    let base = match format {
        Format::F32 => device.upload(&padded),
        Format::Bf16 => {
            device.upload(&padded.iter().map(|&x| bf16::from_f32(x).to_bits()).collect::<Vec<u16>>())
        }
    };
    base.offset(ahead * format.bytes())
}

/// Runs a kernel on operands, of which x starts `ahead` numbers behind the start of its memory.
fn run(cut: Cut, (x, weight): (&[f32], &[f32]), sides: Sides, ahead: usize, format: Format) -> Run {
    let mut device = HostDevice::default();
    let x = upload(&mut device, x, ahead, format);
    let weight = upload(&mut device, weight, 0, format);
    let count = sides.rows * sides.n;
    let out = match format {
        Format::F32 => device.output::<f32>(count),
        Format::Bf16 => device.output::<u16>(count),
    };
    let arguments = Arguments { out, ..Arguments::new(x, weight, sides, format) };
    device.launch(cut.launch(sides, format), arguments).unwrap()
}

/// The bits of all outputs.
fn found(run: &Run, format: Format) -> Vec<u32> {
    match format {
        Format::F32 => run.u32(0),
        Format::Bf16 => run.u16(0).into_iter().map(u32::from).collect(),
    }
}

/// What they have to be.
fn expected(x: &[f32], weight: &[f32], sides: Sides, format: Format) -> Vec<u32> {
    let sums = product(x, weight, (sides.rows, sides.n, sides.k));
    match format {
        Format::F32 => bits(&sums),
        Format::Bf16 => sums.iter().map(|&sum| bf16::from_f32(sum).to_bits().into()).collect(),
    }
}

#[test]
fn every_cut_has_the_references_bits() {
    if !available() {
        return;
    }
    for seed in 0..24 {
        let random = &mut SmallRng::seed_from_u64(seed);
        let rows = [1, 1 + random.random_range(0..9), random.random_range(9..80)][seed as usize % 3];
        let k = match random.random_range(0..3) {
            0 => random.random_range(0..9),
            1 => 4 * random.random_range(1..80),
            _ => random.random_range(1..300),
        };
        let sides = Sides { rows, n: random.random_range(1..90), k };
        let (format, ahead) = (FORMATS[seed as usize / 3 % 2], random.random_range(0..3) * 2);
        let x = rounded(noise(random, rows * k), format);
        let weight = rounded(noise(random, sides.n * k), format);
        let expected = expected(&x, &weight, sides, format);
        for cut in CUTS {
            let run = run(cut, (&x, &weight), sides, ahead, format);
            assert_eq!(found(&run, format), expected, "seed {seed}: {cut:?} {sides:?} {format:?}");
        }
    }
}

#[test]
fn what_stands_behind_the_last_column_changes_no_bit() {
    if !available() {
        return;
    }
    // Products below the least number leave sums of minus zero.
    let random = &mut SmallRng::seed_from_u64(2);
    let sides = Sides { rows: 3, n: 5, k: 1 };
    let x = vec![-1e-30, 1e-30, -0.0];
    let weight: Vec<f32> = noise(random, sides.n).iter().map(|x| x.abs() * 1e-30).collect();
    let expected = expected(&x, &weight, sides, Format::F32);
    assert!(expected[..5].iter().all(|&sum| sum == (-0.0f32).to_bits()));
    for cut in CUTS {
        assert_eq!(run(cut, (&x, &weight), sides, 0, Format::F32).u32(0), expected, "{cut:?}");
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_batch() {
    if !available() {
        return;
    }
    let random = &mut SmallRng::seed_from_u64(3);
    let sides = Sides { rows: 70, n: 50, k: 72 };
    for format in FORMATS {
        let x = rounded(noise(random, sides.rows * sides.k), format);
        let weight = rounded(noise(random, sides.n * sides.k), format);
        let batch = found(&run(Cut::Large, (&x, &weight), sides, 0, format), format);
        for (first, rows) in [(0, 1), (41, 1), (69, 1), (7, 5), (20, 33)] {
            let part = Sides { rows, ..sides };
            let x = &x[first * sides.k..][..rows * sides.k];
            let alone = found(&run(Cut::of(part, 132), (x, &weight), part, 0, format), format);
            assert_eq!(alone, batch[first * sides.n..][..rows * sides.n], "rows {first}.. {format:?}");
        }
    }
}

#[test]
fn a_single_row_reads_each_weight_once() {
    if !available() {
        return;
    }
    let sides = Sides { rows: 1, n: 320, k: 512 };
    let random = &mut SmallRng::seed_from_u64(4);
    let (x, weight) = (noise(random, sides.k), noise(random, sides.n * sides.k));
    for format in FORMATS {
        let cut = Cut::of(sides, 132);
        let run = run(cut, (&x, &weight), sides, 0, format);
        let inputs = (sides.k + sides.n * sides.k) * format.bytes();
        let least = inputs + sides.n * format.bytes();
        let ratio = (run.loaded + run.stored) as f64 / least as f64;
        println!("{cut:?} {format:?}: {} bytes moved, {ratio:.3} of the least", run.loaded + run.stored);
        assert_eq!(run.distinct_loaded, inputs as u64);
        assert!(ratio <= 1.05, "{ratio}");
    }
}

#[test]
fn many_rows_take_large_tiles_where_they_fill_the_device() {
    for (rows, n, expected) in [
        (1, 32_128, Cut::Few),
        (8, 768, Cut::Few),
        (9, 32_128, Cut::Small),
        (64, 768, Cut::Small),
        (64, 32_128, Cut::Large),
        (8_192, 768, Cut::Large),
    ] {
        assert_eq!(Cut::of(Sides { rows, n, k: 768 }, 132), expected, "{rows} x {n}");
    }
}
