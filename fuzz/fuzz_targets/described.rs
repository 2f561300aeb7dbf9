#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringfence_fuzz::targets::described(data));

/// Only `cargo fuzz` makes a fuzzer of this; see `src/bin/smoke.rs` for running without it.
#[cfg(not(fuzzing))]
fn main() {}
