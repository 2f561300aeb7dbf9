//! What the owner knows of one partition: its place in the order, and how far each replica is.
//!
//! A node executes what it is sent in order, so one number a replica says what it has: `acked`. A write is safe when W
//! replicas in sync stand at its seq or past it. Sets of replicas are bit masks over the replica set's order.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::request::{NodeId, Request};

/// One node of a replica set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replica {
    pub(crate) node: NodeId,
    /// It has every write up to this seq.
    pub(crate) acked: u64,
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) epoch: u64,
    /// Seq of the last write ordered.
    pub(crate) last: u64,
    /// Seq of the last write that is safe.
    pub(crate) committed: u64,
    /// Seq of the last write that has left the backlog.
    pub(crate) trimmed: u64,
    pub(crate) replicas: SmallVec<[Replica; 3]>,
    /// Whose acknowledgements count.
    pub(crate) in_sync: u8,
    /// The same as the table's last safe record has it.
    pub(crate) recorded: u8,
    /// Who is connected and has caught up: reads go there.
    pub(crate) live: u8,
    /// Who is given the writes.
    pub(crate) streaming: u8,
    /// Which batch mentioned it last, so that a batch's account names it once.
    pub(crate) batch_mark: u64,
    /// Its last write in that batch.
    pub(crate) batch_seq: u64,
    /// Requests that wait while a command is decided on one node.
    pub(crate) held: Option<VecDeque<Request>>,
}

impl Partition {
    pub(crate) fn bit_of(&self, node: NodeId) -> Option<(usize, u8)> {
        let i = self.replicas.iter().position(|r| r.node == node)?;
        Some((i, 1 << i))
    }

    /// Replicas in sync that have the write `seq`.
    pub(crate) fn acks(&self, seq: u64) -> u32 {
        let has = |(i, r): (usize, &Replica)| u32::from(self.in_sync & (1 << i) != 0 && r.acked >= seq);
        self.replicas.iter().enumerate().map(has).sum()
    }

    /// Replicas that are in sync and connected.
    pub(crate) fn available(&self) -> u32 {
        (self.in_sync & self.live).count_ones()
    }

    /// How many nodes must show that nobody has fenced this owner, for a read to be current (invariant 6). Until a
    /// change of the set is recorded a successor may go by either set, so both count.
    pub(crate) fn confirmations(&self, write_quorum: u32) -> u32 {
        ((self.in_sync | self.recorded).count_ones() + 1).saturating_sub(write_quorum).max(1)
    }

    /// The first replica in sync.
    pub(crate) fn primary(&self) -> Option<NodeId> {
        self.replicas.get(self.in_sync.trailing_zeros() as usize).map(|r| r.node)
    }
}
