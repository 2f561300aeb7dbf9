//! How far moves are, for whoever asks: written by the mover, read by the admin port and the metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::Notify;

use crate::pool::table::TableNode;

/// What the mover does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// All keys are copied once.
    #[default]
    Scan,
    /// Those that have changed since are copied again.
    CatchUp,
    /// The partitions are held, and the node joins.
    HandOver,
    /// What a node does not hold any more is removed from it.
    Sweep,
}

/// Something under way.
#[derive(Clone, Debug, Serialize)]
pub struct JobView {
    /// The node that is copied from; the same as `to` when something is removed.
    pub from: String,
    /// The node that is given something.
    pub to: String,
    /// How many partitions.
    pub partitions: usize,
    /// Keys copied so far.
    pub keys: u64,
    /// Bytes copied so far.
    pub bytes: u64,
    /// What is being done.
    pub phase: Phase,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Copies of partitions made since all was last where it should be.
    pub moves_done: u64,
    /// Copies that are still to be made.
    pub moves_open: u64,
    /// Keys copied since then.
    pub keys_copied: u64,
    /// Bytes copied since then.
    pub bytes_copied: u64,
    /// When the first of them began.
    pub began: Option<Instant>,
    /// The longest that partitions have been held, in us, since the sidecar started.
    pub longest_hold_us: u64,
    /// What is under way.
    pub job: Option<JobView>,
    /// Why nothing is, although something should be.
    pub reason: Option<String>,
    /// Keys removed from nodes that do not hold them any more, since the sidecar started.
    pub keys_removed: u64,
    /// Copies made since the sidecar started.
    pub moves_total: u64,
    /// Bytes copied since the sidecar started.
    pub bytes_total: u64,
    /// The nodes, and their shares, for which all of this was found.
    pub nodes: Vec<TableNode>,
}

/// Shared by the mover and those who ask.
#[derive(Debug, Default)]
pub struct Progress {
    account: Mutex<Account>,
    /// There are other nodes now, or other shares.
    pub changed: Notify,
}

impl Progress {
    /// As it is now.
    pub fn view(&self) -> Account {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Account> {
        // Nothing is left half done where it is locked.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, job: JobView) {
        let mut account = self.lock();
        account.began.get_or_insert_with(Instant::now);
        account.job = Some(job);
        account.reason = None;
    }

    pub(super) fn phase(&self, phase: Phase) {
        if let Some(job) = &mut self.lock().job {
            job.phase = phase;
        }
    }

    pub(super) fn copied(&self, keys: u64, bytes: u64) {
        let mut account = self.lock();
        account.keys_copied += keys;
        account.bytes_copied += bytes;
        account.bytes_total += bytes;
        if let Some(job) = &mut account.job {
            job.keys += keys;
            job.bytes += bytes;
        }
    }

    pub(super) fn end(&self) {
        self.lock().job = None;
    }

    /// All is where it should be.
    pub(super) fn settled(&self) {
        let mut account = self.lock();
        account.moves_done = 0;
        account.moves_open = 0;
        account.keys_copied = 0;
        account.bytes_copied = 0;
        account.began = None;
        account.reason = None;
    }
}
