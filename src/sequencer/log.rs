//! The log: every write of this worker's partitions, in their one order.
//!
//! It is the queue of all nodes at once (a node's own queue only names places in it) and the *backlog*: entries stay
//! after everybody has them, up to a bound in bytes, so that a node that was away for a moment, or came back with an
//! older append-only file, is given the rest instead of a copy.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::command::decide::Conclusion;
use crate::request::{Commands, PartitionId, ReplyTo};

/// What an entry costs beside its commands' bytes, for the backlog's bound.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// A place in the log; never used twice.
pub(crate) type LogPos = u64;

/// One write.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) partition: PartitionId,
    pub(crate) db: u16,
    /// Its place in the partition's order. For a write of all partitions: unused, see `everywhere`.
    pub(crate) seq: u64,
    pub(crate) commands: Commands,
    pub(crate) reply_to: ReplyTo,
    /// How the nodes' replies become the client's, where one node has decided the command.
    pub(crate) conclusion: Option<Box<Conclusion>>,
    /// The first reply, until it is released.
    pub(crate) reply: Option<(Bytes, bool)>,
    /// Digest of the first reply, by the commands' rule.
    pub(crate) digest: Option<u64>,
    /// Whether its client has been answered.
    pub(crate) released: bool,
    /// Replicas (by bit) that it was sent to and that may have executed it.
    pub(crate) sent: u8,
    /// Replicas (by bit) that refused to queue it.
    pub(crate) refused: u8,
    /// When it was ordered, in ms of the worker's clock.
    pub(crate) ordered_ms: u64,
    /// A write of all partitions: the seq it has in each.
    pub(crate) everywhere: Option<Box<[u64]>>,
}

impl Entry {
    /// A write that has just been ordered, as `seq` of its partition.
    pub(crate) fn new(
        partition: PartitionId,
        db: u16,
        seq: u64,
        commands: Commands,
        reply_to: ReplyTo,
        ordered_ms: u64,
    ) -> Self {
        Self {
            partition,
            db,
            seq,
            commands,
            reply_to,
            conclusion: None,
            reply: None,
            digest: None,
            released: false,
            sent: 0,
            refused: 0,
            ordered_ms,
            everywhere: None,
        }
    }

    /// The partitions that it writes; of a write of all some may be another owner's (see [`Entry::seq_in`]).
    pub(crate) fn partitions(&self) -> Range<PartitionId> {
        match &self.everywhere {
            Some(seqs) => 0..seqs.len() as PartitionId,
            None => self.partition..self.partition + 1,
        }
    }

    /// Its seq in `partition`; `None` if it does not write there.
    pub(crate) fn seq_in(&self, partition: PartitionId) -> Option<u64> {
        match &self.everywhere {
            Some(seqs) => seqs.get(usize::from(partition)).copied().filter(|&seq| seq > 0),
            None => (self.partition == partition).then_some(self.seq),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    base: LogPos,
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// All before it are released.
    open: LogPos,
}

impl Log {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            base: 0,
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
            open: 0,
        }
    }

    pub(crate) fn push(&mut self, entry: Entry) -> LogPos {
        self.bytes += entry.commands.frame.len() + ENTRY_OVERHEAD_BYTES;
        self.entries.push_back(entry);
        self.base + self.entries.len() as u64 - 1
    }

    pub(crate) fn get(&self, pos: LogPos) -> Option<&Entry> {
        self.entries.get(pos.checked_sub(self.base)? as usize)
    }

    pub(crate) fn get_mut(&mut self, pos: LogPos) -> Option<&mut Entry> {
        self.entries.get_mut(pos.checked_sub(self.base)? as usize)
    }

    pub(crate) fn positions(&self) -> std::ops::Range<LogPos> {
        self.base..self.base + self.entries.len() as u64
    }

    /// Takes the oldest entry out if the log is over its bound and the entry's client has been answered.
    pub(crate) fn trim_one(&mut self) -> Option<Entry> {
        if self.bytes <= self.bytes_max || !self.entries.front()?.released {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.base += 1;
        self.bytes -= entry.commands.frame.len() + ENTRY_OVERHEAD_BYTES;
        Some(entry)
    }

    /// Whether unanswered writes alone fill the log.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.bytes > self.bytes_max + OVERLOAD_SLACK_BYTES
            && self.entries.front().is_some_and(|e| !e.released)
    }

    /// The oldest entry whose client has not been answered.
    pub(crate) fn first_open(&mut self) -> Option<LogPos> {
        self.open = self.open.max(self.base);
        while self.get(self.open)?.released {
            self.open += 1;
        }
        Some(self.open)
    }
}

/// Room for writes in flight where there is no backlog to speak of, in bytes.
const OVERLOAD_SLACK_BYTES: usize = 64 * 1024 * 1024;
