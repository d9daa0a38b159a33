//! How much a kernel's test does: little under Miri, which takes thousands of times as long.

use proptest::test_runner::Config;

/// `usual`, or `under_miri`.
pub(super) const fn unless_miri<T: Copy>(usual: T, under_miri: T) -> T {
    if cfg!(miri) { under_miri } else { usual }
}

/// How often a property is tried.
pub(super) fn runs(usual: u32) -> Config {
    Config::with_cases(unless_miri(usual, 2))
}
