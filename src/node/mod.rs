//! Talking to one node outside the data path: looking it over, claiming it, copying keys.
//!
//! Everything here is slow and careful on purpose: one command, one reply, a time limit, and a decoder from a library.
//! The data path's own connections are in [`crate::stream`].

mod admission;
mod checks;
mod control;
mod copy;
pub mod libraries;
mod tracker;

pub use admission::{
    AdmissionError, Claim, Instance, Standing, USER_PREFIX, admit, fence_others, read_claim,
};
pub use checks::{CheckFailure, Facts, listed, look_over};
pub use control::{Control, ControlError, bytes_of, is_error, pairs_of, text_of};
pub use copy::{
    Building, Copied, CopyError, Pace, Scope, are_large, copy_keys, copy_partitions, databases, databases_in,
    name_beside, remove_all, remove_partitions, scan_step,
};
pub use tracker::Tracker;
