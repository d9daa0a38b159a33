#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dept_fuzz::targets::archive(bytes));
