//! Plain loops compiled for the widest vectors at hand.
//!
//! A function passed to [`widest!`] is compiled once for each instruction set and picked at run time. Every loop here
//! fixes its own order of sums and uses fused multiply-adds by name, so all versions give the same bits.
//!
//! Where such a function takes another one, pass a closure: a closure is compiled for the vectors of the function around it, a function
//! passed by its name is called as the plain machine would.

/// Calls an `#[inline(always)]` function in a copy compiled for the machine's widest vectors.
/// Arguments are names of local variables with their types.
macro_rules! widest {
    ($kernel:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($argument: $type),*) {
                $kernel($($argument),*)
            }
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) {
                $kernel($($argument),*)
            }
            match $crate::kernels::simd::width() {
                // SAFETY: `width` has just seen these features on this processor.
                $crate::kernels::simd::Width::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                $crate::kernels::simd::Width::Avx2 => unsafe { avx2($($argument),*) },
                $crate::kernels::simd::Width::Portable => $kernel($($argument),*),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        $kernel($($argument),*)
    }};
}
pub(crate) use widest;

/// The vector widths that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// 512-bit vectors.
    Avx512,
    /// 256-bit vectors with fused multiply-add, and f16 to f32 and back.
    Avx2,
    /// Whatever the target promises.
    Portable,
}

/// The widest vectors of this processor.
#[cfg(target_arch = "x86_64")]
pub(crate) fn width() -> Width {
    let has_avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (has_avx2, has_avx512) {
        (true, true) => Width::Avx512,
        (true, false) => Width::Avx2,
        (false, _) => Width::Portable,
    }
}

/// The widest vectors of this processor.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn width() -> Width {
    Width::Portable
}

/// Every kind of vectors that this processor has.
#[cfg(test)]
pub(crate) fn widths() -> &'static [Width] {
    const ALL: [Width; 3] = [Width::Portable, Width::Avx2, Width::Avx512];
    &ALL[..=ALL.iter().position(|&kind| kind == width()).expect("all kinds are listed")]
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for `values` to be brought to the second cache, where the processor can be asked.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        for at in (0..size_of_val(values)).step_by(LINE) {
            // SAFETY: a prefetch reads nothing, whatever it points to.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Sums are kept in this many lanes and folded at the end, on every instruction set.
const LANES: usize = 16;

/// The dot product, summed in [`LANES`] lanes.
#[inline(always)]
pub(crate) fn dot<T: Copy + Into<f32>>(x: &[f32], y: &[T]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (x, x_tail) = x.as_chunks::<LANES>();
    let (y, y_tail) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] = x[lane].mul_add(y[lane].into(), lanes[lane]);
        }
    }
    for (lane, (x, y)) in x_tail.iter().zip(y_tail).enumerate() {
        lanes[lane] = x.mul_add((*y).into(), lanes[lane]);
    }
    fold(lanes)
}

/// The sum, in [`LANES`] lanes.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (x, tail) = x.as_chunks::<LANES>();
    for x in x {
        for lane in 0..LANES {
            lanes[lane] += x[lane];
        }
    }
    for (lane, x) in tail.iter().enumerate() {
        lanes[lane] += x;
    }
    fold(lanes)
}

/// The largest value; negative infinity for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let larger = |x: f32, y: f32| if x > y { x } else { y };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (x, tail) = x.as_chunks::<LANES>();
    for x in x {
        for lane in 0..LANES {
            lanes[lane] = larger(x[lane], lanes[lane]);
        }
    }
    let of_tail = tail.iter().copied().fold(f32::NEG_INFINITY, larger);
    lanes.into_iter().fold(of_tail, larger)
}

/// Adds the lanes in halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `e^x` within 2 units in the last place, without a branch or a call, so that loops over it vectorise.
/// Arguments below -87 give about 1e-38 and above 88 about 1.6e38.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first times any exponent is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // Minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2 (Cephes, expf).
    let mut p = 1.987_569_1e-4f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let e = p.mul_add(r * r, r) + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    e * f32::from_bits(((exponent + 127) << 23) as u32)
}

/// `cap * tanh(x / cap)`: a bound that numbers bend towards.
#[inline(always)]
pub(crate) fn soft_cap(x: f32, cap: f32) -> f32 {
    cap * tanh(x / cap)
}

/// The hyperbolic tangent within 4e-7 of it, without a branch or a call: a quotient of polynomials, odd by even (Eigen's, of degree
/// 13 by 6). Never above 1; arguments are cut off where it is 1 but for a last bit.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    const ODD: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297e-8,
        1.485_722_4e-5,
        6.372_619_3e-4,
        4.893_524_6e-3,
    ];
    const EVEN: [f32; 4] = [1.198_258_4e-6, 1.185_347e-4, 2.268_434_6e-3, 4.893_525e-3];
    let x = x.clamp(-7.905_311, 7.905_311);
    let square = x * x;
    let by = |coefficients: &[f32]| coefficients.iter().fold(0.0f32, |sum, &c| sum.mul_add(square, c));
    x * by(&ODD) / by(&EVEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(miri, ignore = "takes minutes under Miri")]
    #[test]
    fn exp_is_close_everywhere() {
        for i in -86_900..87_900 {
            let x = i as f32 * 1e-3;
            let (ours, truth) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((ours - truth) / truth).abs() < 2.5e-7, "exp({x}) is {truth}, got {ours}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[cfg_attr(miri, ignore = "takes minutes under Miri")]
    #[test]
    fn tanh_is_close_everywhere_and_odd() {
        for i in 0..20_000 {
            let x = i as f32 * 5e-4;
            let (ours, truth) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((ours - truth).abs() < 4e-7, "tanh({x}) is {truth}, got {ours}");
            assert!((ours - truth).abs() < 1e-6 * truth.abs() + 1e-30, "tanh({x}) is {truth}, got {ours}");
            assert_eq!(tanh(-x).to_bits(), (-tanh(x)).to_bits());
        }
        assert!((tanh(f32::INFINITY) - 1.0).abs() < 4e-7 && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn every_width_gives_the_same_bits() {
        fn all(x: &[f32], out: &mut [f32]) {
            both(x, out);
        }
        #[inline(always)]
        fn both(x: &[f32], out: &mut [f32]) {
            out[0] = dot(x, x);
            out[1] = sum(x);
            out[2] = max(x);
            for (out, x) in out[3..].chunks_exact_mut(2).zip(x) {
                out.copy_from_slice(&[exp(*x), tanh(*x)]);
            }
        }
        for n in [0, 1, 15, 16, 17, 64, 100] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let (mut plain, mut wide) = (vec![0f32; 2 * n + 3], vec![0f32; 2 * n + 3]);
            all(&x, &mut plain);
            let (x, out) = (&x[..], &mut wide[..]);
            widest!(both(x: &[f32], out: &mut [f32]));
            assert_eq!(plain.map_bits(), wide.map_bits());
        }
    }

    trait Bits {
        fn map_bits(&self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(&self) -> Vec<u32> {
            self.iter().map(|x| x.to_bits()).collect()
        }
    }
}
