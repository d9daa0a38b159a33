//! How AVX-512 reads the numbers that keys and values are kept in.

use std::arch::x86_64::{
    __m512, __mmask16, _mm256_loadu_si256, _mm256_maskz_loadu_epi16, _mm512_cvtph_ps, _mm512_loadu_ps,
    _mm512_maskz_loadu_ps,
};

use half::f16;

/// A number that keys and values are kept in, read as f32.
pub(super) trait Kept: Copy {
    /// 16 of them, of any alignment.
    ///
    /// # Safety
    /// `at` points to 16 readable ones, and the processor has AVX-512.
    unsafe fn load(at: *const Self) -> __m512;

    /// Those in `mask`, and 0 in the other lanes.
    ///
    /// # Safety
    /// `at` points to readable ones where `mask` has a bit, and the processor has AVX-512.
    unsafe fn load_first(mask: __mmask16, at: *const Self) -> __m512;
}

impl Kept for f32 {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    unsafe fn load(at: *const Self) -> __m512 {
        // SAFETY: as the trait has it.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    unsafe fn load_first(mask: __mmask16, at: *const Self) -> __m512 {
        // SAFETY: as the trait has it.
        unsafe { _mm512_maskz_loadu_ps(mask, at) }
    }
}

impl Kept for f16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    unsafe fn load(at: *const Self) -> __m512 {
        // SAFETY: as the trait has it.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    unsafe fn load_first(mask: __mmask16, at: *const Self) -> __m512 {
        // SAFETY: as the trait has it.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, at.cast()) })
    }
}
