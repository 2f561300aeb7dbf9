//! The sidecar's documents, as far as they are shown. What only one kind of sidecar says (`pid`) is left out.

use serde::Deserialize;

/// One of `GET /v1/nodes`.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: String,
    /// How its connection and its copies are: `in_sync`, `catching_up`, …
    pub(super) state: String,
    pub(super) reason: Option<String>,
    /// What it is for: `active`, `draining`, `drained`, `away`.
    pub(super) status: String,
    pub(super) weight: u32,
    pub(super) zone: Option<String>,
    /// Partitions it holds a copy of.
    pub(super) partitions: u64,
    /// Of these, the ones in sync.
    pub(super) in_sync: u64,
    /// Partitions it should hold.
    pub(super) wanted: u64,
    pub(super) lag_ops: u64,
    pub(super) memory_bytes: u64,
}

/// What a change of the pool moves.
#[derive(Debug, Deserialize)]
pub(super) struct Plan {
    /// Copies of partitions to be made.
    pub(super) moves: u64,
    /// The fewest that any placement would need.
    pub(super) ideal_moves: u64,
    pub(super) bytes_estimated: u64,
    /// Of the pool.
    pub(super) partitions: u64,
    pub(super) nodes: Vec<PlanNode>,
}

/// A node in a [`Plan`].
#[derive(Debug, Deserialize)]
pub(super) struct PlanNode {
    pub(super) name: String,
    /// Copies it has now.
    pub(super) before: u64,
    /// Copies it will have.
    pub(super) after: u64,
    pub(super) bytes_in: u64,
}

/// The answer to a change of nodes.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    pub(super) plan: Plan,
    pub(super) applied: bool,
}

/// The answer to a removal.
#[derive(Debug, Deserialize)]
pub(super) struct Removal {
    pub(super) applied: bool,
}

/// How the moves stand: `/v1/ring`.
#[derive(Debug, Deserialize)]
pub(super) struct Moves {
    pub(super) state: MovesState,
    pub(super) reason: Option<String>,
    pub(super) moves_total: u64,
    pub(super) moves_done: u64,
    pub(super) keys_copied: u64,
    pub(super) bytes_copied: u64,
    pub(super) bytes_estimated: u64,
    pub(super) bytes_per_s: u64,
    pub(super) eta_s: Option<u64>,
    /// The longest that writes were held back for a hand-over.
    pub(super) longest_hold_us: u64,
    pub(super) jobs: Vec<Job>,
    pub(super) nodes: Vec<Holding>,
}

/// See [`Moves`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum MovesState {
    /// There is nothing to do.
    Settled,
    Moving,
    /// By an operator.
    Paused,
    /// For what `reason` says.
    Waiting,
    /// One that this program does not know: a newer sidecar's.
    #[serde(other)]
    Unknown,
}

/// Copies under way.
#[derive(Debug, Deserialize)]
pub(super) struct Job {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) partitions: u64,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// `scan`, `catch_up`, `hand_over`, `sweep`.
    pub(super) phase: String,
}

/// What a node has of what it should have, in copies of partitions.
#[derive(Debug, Deserialize)]
pub(super) struct Holding {
    pub(super) name: String,
    pub(super) holds: u64,
    pub(super) wanted: u64,
}

/// How the comparison stands: `/v1/verify`.
#[derive(Debug, Deserialize)]
pub(super) struct Verification {
    pub(super) state: VerificationState,
    pub(super) keys: u64,
    pub(super) different: u64,
    pub(super) repaired: u64,
    pub(super) skipped: u64,
    pub(super) partitions_done: u64,
    pub(super) partitions_total: u64,
    pub(super) keys_per_s: u64,
    /// Why keys were skipped, if that was for another reason than their size.
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// See [`Verification`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VerificationState {
    /// It has not run since the sidecar's start.
    Idle,
    Running,
    Done,
    /// By an operator.
    Stopped,
    /// One that this program does not know: a newer sidecar's.
    #[serde(other)]
    Unknown,
}
