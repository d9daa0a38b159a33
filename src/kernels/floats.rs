//! Numbers of 16 bits and of 32, from one to the other: the same bits on every instruction set.
//!
//! To f16 rounds to nearest, ties to even, and what is beyond its largest number becomes that number: an infinity among keys
//! would make all of a row not a number.

use half::f16;

use super::simd::{Width, width};

/// Narrows `from` into `to`, which is as long.
pub(super) fn narrow(from: &[f32], to: &mut [f16]) {
    narrow_by(width(), from, to);
}

fn narrow_by(width: Width, from: &[f32], to: &mut [f16]) {
    assert_eq!(from.len(), to.len(), "a place a number");
    match width {
        // SAFETY: `width` names only vectors that this processor has.
        #[cfg(target_arch = "x86_64")]
        Width::Avx512 => unsafe { x86::narrow_avx512(from, to) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Width::Avx2 => unsafe { x86::narrow_avx2(from, to) },
        _ => narrow_portable(from, to),
    }
}

/// Widens as many as both have.
#[inline(always)]
pub(super) fn widen_portable(from: &[f16], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(from, to)| *to = from.to_f32());
}

fn narrow_portable(from: &[f32], to: &mut [f16]) {
    let (least, most) = (f16::MIN.to_f32_const(), f16::MAX.to_f32_const());
    from.iter().zip(to).for_each(|(from, to)| *to = f16::from_f32(from.clamp(least, most)));
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{widen_avx2, widen_avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps,
        _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps,
        _mm256_storeu_ps, _mm256_storeu_si256, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_loadu_ps,
        _mm512_max_ps, _mm512_min_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use half::f16;

    use super::{narrow_portable, widen_portable};

    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

    /// [`widen_portable`] for AVX-512.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(in crate::kernels) fn widen_avx512(from: &[f16], to: &mut [f32]) {
        let ((wholes, rest), (out, out_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
        for (from, to) in wholes.iter().zip(out) {
            // SAFETY: both are 16 numbers; neither load nor store asks for alignment.
            unsafe {
                let from = _mm256_loadu_si256(from.as_ptr().cast());
                _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(from));
            }
        }
        widen_portable(rest, out_rest);
    }

    /// [`widen_portable`] for AVX2.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    pub(in crate::kernels) fn widen_avx2(from: &[f16], to: &mut [f32]) {
        let ((wholes, rest), (out, out_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
        for (from, to) in wholes.iter().zip(out) {
            // SAFETY: both are 8 numbers; neither load nor store asks for alignment.
            unsafe {
                let from = _mm_loadu_si128(from.as_ptr().cast());
                _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(from));
            }
        }
        widen_portable(rest, out_rest);
    }

    /// The bounds stand first: where one operand is not a number, the second is the result.
    #[target_feature(enable = "avx512f")]
    pub(super) fn narrow_avx512(from: &[f32], to: &mut [f16]) {
        let ((wholes, rest), (out, out_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
        let [least, most] = [f16::MIN, f16::MAX].map(|bound| _mm512_set1_ps(bound.to_f32_const()));
        for (from, to) in wholes.iter().zip(out) {
            // SAFETY: both are 16 numbers; neither load nor store asks for alignment.
            unsafe {
                let from = _mm512_loadu_ps(from.as_ptr());
                let within = _mm512_max_ps(least, _mm512_min_ps(most, from));
                _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(within));
            }
        }
        narrow_portable(rest, out_rest);
    }

    /// As [`narrow_avx512`].
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn narrow_avx2(from: &[f32], to: &mut [f16]) {
        let ((wholes, rest), (out, out_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
        let [least, most] = [f16::MIN, f16::MAX].map(|bound| _mm256_set1_ps(bound.to_f32_const()));
        for (from, to) in wholes.iter().zip(out) {
            // SAFETY: both are 8 numbers; neither load nor store asks for alignment.
            unsafe {
                let from = _mm256_loadu_ps(from.as_ptr());
                let within = _mm256_max_ps(least, _mm256_min_ps(most, from));
                // The exceptions' bit is not this instruction's.
                _mm_storeu_si128(
                    to.as_mut_ptr().cast(),
                    _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(within),
                );
            }
        }
        narrow_portable(rest, out_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{miri::unless_miri, simd::widths};

    /// Every f16, and about every way to lie between two of them.
    #[test]
    fn every_width_rounds_as_the_reference_does() {
        let all: Vec<f16> = (0..=u16::MAX)
            .step_by(unless_miri(1, 601))
            .map(f16::from_bits)
            .filter(|x| x.is_finite())
            .collect();
        let mut numbers: Vec<f32> = all.iter().map(|x| x.to_f32_const()).collect();
        let between = numbers.iter().flat_map(|x| {
            [1 << 12, 1 << 11, (1 << 12) - 1, (1 << 12) + 1].map(|bits| f32::from_bits(x.to_bits() + bits))
        });
        let between: Vec<f32> = between.collect();
        numbers.extend(between);
        // Ties between numbers below the least normal one.
        numbers.extend((0..unless_miri(1024, 8)).map(|half| (half as f32 + 0.5) * 2f32.powi(-24)));
        numbers.extend([1e-8, -1e-8, 3e-8, 65519.0, 65520.0, -7e4, 1e30, -f32::MAX, f32::INFINITY, 0.1]);
        let expected = numbers.iter().map(|&x| f16::from_f32_const(x.clamp(-65504.0, 65504.0)).to_bits());
        let expected: Vec<u16> = expected.collect();
        for &width in widths() {
            let mut found = vec![f16::ZERO; numbers.len()];
            narrow_by(width, &numbers, &mut found);
            let found: Vec<u16> = found.iter().map(|x| x.to_bits()).collect();
            assert_eq!(found, expected, "{width:?}");
            let mut nothing = [f16::ZERO; 17];
            narrow_by(width, &[f32::NAN; 17], &mut nothing);
            assert!(nothing.iter().all(|x| x.is_nan()), "what is not a number stays so: {width:?}");
        }
    }

    #[test]
    fn every_width_widens_exactly() {
        let all: Vec<f16> = (0..=u16::MAX)
            .step_by(unless_miri(1, 601))
            .map(f16::from_bits)
            .filter(|x| x.is_finite())
            .collect();
        let expected: Vec<u32> = all.iter().map(|x| x.to_f32_const().to_bits()).collect();
        for &width in widths() {
            for length in [all.len(), 3, 16, 21] {
                let mut found = vec![0f32; length];
                match width {
                    // SAFETY: this processor has these vectors.
                    #[cfg(target_arch = "x86_64")]
                    Width::Avx512 => unsafe { widen_avx512(&all[..length], &mut found) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Width::Avx2 => unsafe { widen_avx2(&all[..length], &mut found) },
                    _ => widen_portable(&all[..length], &mut found),
                }
                let found: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
                assert_eq!(found, expected[..length], "{width:?}");
            }
        }
    }
}
