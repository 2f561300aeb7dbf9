//! Replica sets that change while they are used: a node joins, a node leaves, and the table records it.
//!
//! Whoever may find the table's record, now or after this owner is gone, must be right with it. So in memory the set always
//! contains every set that a successor may find: a node is in it before the record that names it is on its way, and stays in it
//! until a record without it is safe. An acknowledgement counts only by all of them (`Partition::counted`), and the proofs of
//! reads are counted over all of them (`Partition::confirmations`): invariant 13.
//!
//! A node joins under a hold of the partition, when it has a copy of all that was ordered: what that takes is not known here.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::partition::Partition;
use super::{Effect, Sequencer};
use crate::account::Position;
use crate::request::{Membership, NodeId, Outcome, PartitionId, Refusal, ReplyTo};

impl Sequencer {
    /// A node that is new in the pool; its number is the next one.
    pub fn add_node(&mut self) {
        self.nodes.push(super::Node::default());
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The node has what was ordered for the partition, which is held: it is given what comes, and is in sync.
    pub(super) fn order_join(
        &mut self,
        partition: PartitionId,
        node: NodeId,
        position: Option<Position>,
        to: ReplyTo,
    ) {
        if !self.nodes.get(usize::from(node)).is_some_and(|n| n.up) {
            return self.refuse(to, Refusal::Unconfirmed);
        }
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return self.refuse(to, Refusal::NotOwner);
        };
        if position.is_some_and(|position| !p.is_last(position)) {
            return self.refuse(to, Refusal::Unconfirmed);
        }
        if !p.join(node) {
            return self.refuse(to, Refusal::Overloaded);
        }
        self.effects.push(Effect::InSync {
            partition,
            set: p.in_sync,
        });
        self.effects.push(Effect::Complete(to, Outcome::Done));
    }

    /// The node leaves the replica set: it is given nothing any more, and is taken out once that is recorded.
    pub(super) fn order_leave(&mut self, partition: PartitionId, node: NodeId, to: ReplyTo) {
        let min = self.settings.min_in_sync;
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return self.refuse(to, Refusal::NotOwner);
        };
        let Some((_, bit)) = p.bit_of(node) else {
            return self.effects.push(Effect::Complete(to, Outcome::Done));
        };
        if (p.in_sync & p.live & !bit).count_ones() < min {
            return self.refuse(to, Refusal::TooFewNodes);
        }
        p.in_sync &= !bit;
        p.live &= !bit;
        p.streaming &= !bit;
        p.leaving |= bit;
        self.effects.push(Effect::InSync {
            partition,
            set: p.in_sync,
        });
        self.effects.push(Effect::Complete(to, Outcome::Done));
    }

    /// The partition's nodes, if they should be recorded now. Not while another record is on its way, and not before every
    /// write that was acknowledged with the help of a node that has left the set is on W nodes that are still in it
    /// (invariant 7). Where fewer than W are left at all, each of them must have those writes: then the record says that nobody else
    /// can be relied on. The caller makes the record, however long it takes, and says so ([`Self::recorded`]).
    pub fn to_record(&mut self, partition: PartitionId) -> Option<Membership> {
        let p = self.partitions.get_mut(usize::from(partition))?.as_mut()?;
        let needed = self.settings.write_quorum.min(p.in_sync.count_ones()).max(1);
        if p.recording.is_some() || p.holders(p.in_sync, p.committed) < needed {
            return None;
        }
        p.recording = Some(p.in_sync);
        Some(p.membership())
    }

    /// The table's safe record now has these.
    pub fn recorded(&mut self, records: &[(PartitionId, Membership)]) {
        let mut removed: HashMap<PartitionId, SmallVec<[usize; 2]>> = HashMap::new();
        for (partition, record) in records {
            let Some(Some(p)) = self.partitions.get_mut(usize::from(*partition)) else {
                continue;
            };
            p.recorded = p.set_of(&record.nodes_in_sync());
            p.recording = None;
            let gone: Vec<NodeId> = p
                .nodes_of(p.leaving)
                .into_iter()
                .filter(|node| !record.replicas.contains(node))
                .collect();
            let is_news = p.membership() != *record;
            for node in gone {
                if let Some((i, _)) = p.bit_of(node) {
                    p.remove(i);
                    removed.entry(*partition).or_default().push(i);
                }
            }
            if is_news && let Some(Some(p)) = self.partitions.get(usize::from(*partition)) {
                self.effects.push(Effect::InSync {
                    partition: *partition,
                    set: p.in_sync,
                });
            }
        }
        self.forget_places(&removed);
        self.release_all_safe();
        self.settle_reads();
    }

    /// The bits of writes that stand for places of their replica sets move up with these. Once for all partitions: the log is
    /// long.
    fn forget_places(&mut self, removed: &HashMap<PartitionId, SmallVec<[usize; 2]>>) {
        if removed.is_empty() {
            return;
        }
        for pos in self.log.positions() {
            let Some(entry) = self.log.get_mut(pos) else {
                continue;
            };
            for &i in removed.get(&entry.partition).into_iter().flatten() {
                entry.sent = without(entry.sent, i);
                entry.refused = without(entry.refused, i);
            }
        }
    }
}

impl Partition {
    /// Whether that is where the partition stands. The account of a node to which nothing was written in this epoch may still
    /// speak of the one before.
    fn is_last(&self, position: Position) -> bool {
        let is_start = self.last == self.start && (self.since..self.epoch).contains(&position.epoch);
        position.seq == self.last && (position.epoch == self.epoch || is_start)
    }

    /// As the table should have it.
    fn membership(&self) -> Membership {
        let stays = |(i, _): &(usize, &super::Replica)| self.leaving & (1 << i) == 0;
        let mut record = Membership::default();
        for (i, replica) in self.replicas.iter().enumerate().filter(stays) {
            if self.in_sync & (1 << i) != 0 {
                record.in_sync |= 1 << record.replicas.len();
            }
            record.replicas.push(replica.node);
        }
        record
    }

    /// Whether there is room for the node.
    fn join(&mut self, node: NodeId) -> bool {
        let bit = match self.bit_of(node) {
            Some((i, bit)) => {
                if let Some(replica) = self.replicas.get_mut(i)
                    && self.streaming & bit == 0
                {
                    replica.acked = self.last;
                }
                bit
            }
            None if self.replicas.len() < 8 => {
                let acked = self.last;
                self.replicas.push(super::Replica { node, acked });
                1 << (self.replicas.len() - 1)
            }
            None => return false,
        };
        if self.streaming & bit == 0 {
            self.suspects &= !bit;
            self.leaving &= !bit;
            self.streaming |= bit;
            self.live |= bit;
            self.in_sync |= bit;
        }
        true
    }

    /// Takes a node out of the replica set; the places behind it move up, and so do the bits that stand for them.
    fn remove(&mut self, i: usize) {
        self.replicas.remove(i);
        for set in [
            &mut self.in_sync,
            &mut self.recorded,
            &mut self.live,
            &mut self.streaming,
            &mut self.suspects,
            &mut self.leaving,
        ] {
            *set = without(*set, i);
        }
        self.recording = self.recording.map(|set| without(set, i));
    }
}

/// The set without the place `i`.
fn without(set: u8, i: usize) -> u8 {
    let below = (1u8 << i) - 1;
    (set & below) | ((set >> 1) & !below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_up() {
        assert_eq!(without(0b1011, 0), 0b101);
        assert_eq!(without(0b1011, 1), 0b101);
        assert_eq!(without(0b1011, 2), 0b111);
        assert_eq!(without(0b1111_1111, 7), 0b111_1111);
    }
}
