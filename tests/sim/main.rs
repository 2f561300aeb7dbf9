//! The sequencer and the recovery under thousands of seeded schedules: real bytes of the streams, fake nodes, no clock, no
//! sockets. Whatever happens, what clients were told must be true; see `history.rs` for what that means.
//!
//! | variable | meaning |
//! |---|---|
//! | `SIM_SEED` | replays one schedule, and tells what happened in it |
//! | `SIM_SEEDS` | how many schedules are run |
//! | `SIM_FROM` | the first seed of them |
//! | `SIM_KEEP_GOING` | set: a failing schedule does not end the run |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "tests: a failed expectation is a failed test"
)]

mod clients;
mod commands;
mod deadlines;
mod examples;
mod faults;
mod history;
mod keys;
mod left;
mod lines;
mod link;
mod lists;
mod moves;
mod node;
mod one_copy;
mod ops;
mod owners;
mod parting;
mod plan;
mod pool;
mod queues;
mod refusing;
mod rng;
mod settle;
mod sidecar;
mod streams;
mod takeover;
mod waiting;
mod wire;
mod world;

use plan::Tally;
use world::World;

/// Takes ten to twenty seconds in a debug build.
const SEEDS: u64 = 1200;

#[test]
fn nothing_that_was_told_is_untrue() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        let mut world = World::new(seed, true);
        let end = world.run();
        for line in world.story.iter().flatten() {
            eprintln!("{line}");
        }
        if let Err(why) = end {
            panic!("seed {seed}: {why}");
        }
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let from = number("SIM_FROM").unwrap_or(0);
    let keep_going = std::env::var_os("SIM_KEEP_GOING").is_some();
    let mut failures = 0;
    let mut all = Tally::default();
    for seed in from..from + seeds {
        let mut world = World::new(seed, false);
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()))
            .unwrap_or_else(|_| Err("panicked".into()));
        if let Err(why) = end {
            eprintln!("seed {seed}: {why}\n  replay it: SIM_SEED={seed} cargo test --test sim");
            failures += 1;
            assert!(keep_going, "seed {seed} failed");
        }
        world.tally.uneven = world.history.uneven.len() as u64;
        all.add(&world.tally);
    }
    eprintln!("{seeds} schedules: {all:?}");
    assert_eq!(failures, 0, "schedules failed");
}
