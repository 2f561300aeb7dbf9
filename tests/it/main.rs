//! Black-box tests: the program as a user starts it, real servers, real faults. One binary, so that it links once.
//!
//! | variable | meaning |
//! |---|---|
//! | `SEED` | seed of the random programs and fault schedules; a failing test prints the one it used |
//! | `PROGRAMS` | how many random programs each differential test runs |
//! | `COMMANDS` | how many commands each of them has |
//! | `FAULT_SECONDS` | how long each fault test does harm |
//! | `SOAK_SECONDS` | how long `soak` does harm, in rounds of a minute |
//! | `RINGFENCE_BIN` | another program under test than the one cargo has just built |
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

mod across;
mod blocking;
mod convergence;
mod determinism;
mod differential;
mod faults;
mod harness;
mod hostile;
mod pubsub;
mod scripts;
mod server;
mod side_by_side;
mod soak;
mod standby;
mod startup;
mod stripe;
mod transactions;
mod verify;
