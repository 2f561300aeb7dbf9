//! What the owner knows of one partition: its place in the order, and how far each replica is.
//!
//! A node executes what it is sent in order, so one number a replica says what it has: `acked`. A write is safe when W
//! replicas in sync stand at its seq or past it. Sets of replicas are bit masks over the replica set's order.

use smallvec::SmallVec;

use super::Effect;
use super::changes::Changes;
use super::hold::Hold;
use crate::account::Position;
use crate::request::{NodeId, PartitionId};

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
    /// Seq at which the epoch began, and the first epoch in which that was reached.
    pub(crate) start: u64,
    pub(crate) since: u64,
    /// Seq of the last write ordered.
    pub(crate) last: u64,
    /// Seq of the last write that is safe.
    pub(crate) committed: u64,
    /// Seq of the last write that has left the backlog.
    pub(crate) trimmed: u64,
    pub(crate) replicas: SmallVec<[Replica; 3]>,
    /// Whether nodes' accounts tell who has more: not with one copy.
    pub(crate) keeps_account: bool,
    /// Whose acknowledgements count.
    pub(crate) in_sync: u8,
    /// The same as the table's last safe record has it.
    pub(crate) recorded: u8,
    /// The set that is on its way into the table.
    pub(crate) recording: Option<u8>,
    /// Who is about to be taken out of the replica set.
    pub(crate) leaving: u8,
    /// Who is connected and has caught up: reads go there.
    pub(crate) live: u8,
    /// Who is given the writes.
    pub(crate) streaming: u8,
    /// Which batch mentioned it last, so that a batch's account names it once.
    pub(crate) batch_mark: u64,
    /// Its last write in that batch.
    pub(crate) batch_seq: u64,
    /// Nodes that may have executed a write that was annulled because all others refused it, and its seq.
    pub(crate) suspects: u8,
    pub(crate) annulled: u64,
    /// What has changed while it is copied.
    pub(super) changes: Option<Box<Changes>>,
    /// Who holds it, if somebody does.
    pub(super) held: Option<Hold>,
}

impl Partition {
    /// The node, which has all that was acknowledged, is live: what follows if it was not in sync.
    pub(super) fn go_live(&mut self, partition: PartitionId, bit: u8) -> Option<Effect> {
        self.live |= bit;
        let was_in_sync = self.in_sync & bit != 0;
        self.in_sync |= bit;
        (!was_in_sync).then_some(Effect::InSync {
            partition,
            set: self.in_sync,
        })
    }

    /// The seq at which a node stands whose account says `here`, if nothing that has happened since was before this
    /// epoch or is out of the backlog.
    pub(crate) fn standing(&mut self, bit: u8, here: Position) -> Option<u64> {
        if self.suspects & bit != 0 {
            if here.epoch == self.epoch && here.seq >= self.annulled {
                return None;
            }
            self.suspects &= !bit;
        }
        let same = here.epoch == self.epoch && (self.trimmed..=self.last).contains(&here.seq);
        let ended_there = here.seq == self.start && (self.since..self.epoch).contains(&here.epoch);
        (same || (ended_there && self.trimmed == self.start)).then_some(here.seq)
    }

    /// Whether a node is known to have executed the write `seq`.
    pub(crate) fn has_executed(&self, seq: u64) -> bool {
        self.replicas.iter().any(|r| r.acked >= seq)
    }

    /// The write `seq` is annulled, though the nodes of `set` may have executed it: they are not trusted from there on.
    pub(crate) fn suspect(&mut self, set: u8, seq: u64) {
        if set != 0 {
            self.annulled = if self.suspects == 0 {
                seq
            } else {
                self.annulled.min(seq)
            };
            self.suspects |= set;
        }
    }

    pub(crate) fn bit_of(&self, node: NodeId) -> Option<(usize, u8)> {
        let i = self.replicas.iter().position(|r| r.node == node)?;
        Some((i, 1 << i))
    }

    /// The nodes of a set of replicas.
    pub(crate) fn nodes_of(&self, set: u8) -> SmallVec<[NodeId; 7]> {
        let of_set = self
            .replicas
            .iter()
            .enumerate()
            .filter(|(i, _)| set & (1 << i) != 0);
        of_set.map(|(_, replica)| replica.node).collect()
    }

    /// The set of replicas that are among these nodes.
    pub(crate) fn set_of(&self, nodes: &[NodeId]) -> u8 {
        let bits = nodes.iter().filter_map(|&node| Some(self.bit_of(node)?.1));
        bits.fold(0, |set, bit| set | bit)
    }

    /// Replicas whose acknowledgements count: in sync by every record that a successor may find (invariant 7). Without accounts a successor
    /// that finds two in sync cannot tell which of them has all: then none counts until the record names one (invariant 13).
    fn counted(&self) -> u8 {
        if !self.keeps_account {
            let found = self.in_sync | self.recorded | self.recording.unwrap_or(0);
            if found.count_ones() > 1 {
                return 0;
            }
        }
        self.in_sync & self.recorded & self.recording.unwrap_or(u8::MAX)
    }

    /// Whether writes are open that cannot become safe with the nodes that are there: what comes after them cannot be told then.
    /// (Where nodes are there that only wait for a record in which they are in sync, they soon can.)
    pub(crate) fn is_stuck(&self, write_quorum: u32) -> bool {
        self.committed < self.last && (self.in_sync & self.streaming).count_ones() < write_quorum
    }

    /// Replicas that count and have the write `seq`. Only those that are there: what a node had that has gone, its account tells when
    /// it is back, if it has it still.
    fn acks(&self, seq: u64) -> u32 {
        self.holders(self.counted() & self.live, seq)
    }

    /// Whether the write `seq` is safe. `committed` moves up to it if W replicas have it.
    pub(crate) fn settle(&mut self, seq: u64, write_quorum: u32) -> bool {
        if seq > self.committed && self.acks(seq) >= write_quorum {
            self.committed = seq;
        }
        seq <= self.committed
    }

    /// Replicas of `set` that have the write `seq`.
    pub(crate) fn holders(&self, set: u8, seq: u64) -> u32 {
        let has = |(i, r): (usize, &Replica)| u32::from(set & (1 << i) != 0 && r.acked >= seq);
        self.replicas.iter().enumerate().map(has).sum()
    }

    /// Moves `committed` to the last write that W replicas have, when that was not learnt from an acknowledgement.
    pub(crate) fn raise_committed(&mut self, write_quorum: u32) {
        let best = self
            .replicas
            .iter()
            .map(|r| r.acked)
            .filter(|&seq| self.acks(seq) >= write_quorum)
            .max();
        self.committed = self.committed.max(best.unwrap_or(0));
    }

    /// Replicas that are in sync and connected.
    pub(crate) fn available(&self) -> u32 {
        (self.in_sync & self.live).count_ones()
    }

    /// How many nodes of the replica set must show that nobody has fenced this owner, for a read to be current
    /// (invariant 6): a successor that serves has fenced W of them, so at most R - W are left.
    pub(crate) fn confirmations(&self, write_quorum: u32) -> u32 {
        (self.replicas.len() as u32 + 1)
            .saturating_sub(write_quorum)
            .max(1)
    }

    /// The first replica in sync.
    pub(crate) fn primary(&self) -> Option<NodeId> {
        self.replicas
            .get(self.in_sync.trailing_zeros() as usize)
            .map(|r| r.node)
    }
}
