//! What the fuzz targets do, as plain functions: run by libFuzzer (`fuzz_targets/`) and by a driver of our own
//! (`src/bin/smoke.rs`). See `Cargo.toml` for how to run them.
//!
//! A target panics when something does not hold, and that is how a fuzzer learns of it. So indexing and `expect` are in
//! order here.

pub mod cuts;
pub mod targets;
pub mod valid;

/// A target: it takes any bytes, and panics if something that should hold does not.
pub type Target = fn(&[u8]);

/// All targets by name. Their seeds are in `seeds/<name>/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("command_scanner", targets::command_scanner),
    ("reply_scanner", targets::reply_scanner),
    ("downgrade", targets::downgrade),
    ("commands", targets::commands),
    ("rewrite", targets::rewrite),
    ("compare", targets::compare),
    ("script", targets::script),
    ("account", targets::account),
    ("table", targets::table),
    ("config", targets::config),
    ("described", targets::described),
    ("stream", targets::stream),
];
