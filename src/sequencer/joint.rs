//! Writes of several partitions that live on the same nodes: one entry of the log, at one place of the order of each.
//!
//! A node that has all of them executes such a write as any other, whole and natively, in one transaction with the account of
//! each partition. So it must never have one of the partitions without the others: who is given the writes of one of them and
//! not of the others, when the write is ordered or when a node comes back, is not given those either (invariant 11).

use smallvec::SmallVec;

use super::log::{Entry, Joint};
use super::node::Item;
use super::partition::Partition;
use super::{Effect, Sequencer};
use crate::request::{Action, Commands, HoldId, NodeId, PartitionId, Refusal, ReplyTo, Request, WhereParted};

impl Sequencer {
    /// Orders a write of these partitions, whose replica sets are the same nodes.
    pub(super) fn order_joint(
        &mut self,
        mut partitions: Box<[PartitionId]>,
        db: u16,
        commands: Commands,
        parted: WhereParted,
        under: HoldId,
        reply_to: ReplyTo,
    ) {
        partitions.sort_unstable();
        for &partition in &partitions {
            let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
                return self.refuse(reply_to, Refusal::NotOwner);
            };
            if let Some(hold) = p.held.as_mut().filter(|hold| hold.by != under) {
                hold.waiting.push_back(Request {
                    partition,
                    db,
                    action: Action::Joint(partitions, commands, parted),
                    under,
                    reply_to,
                });
                return;
            }
        }
        if self.log.is_overloaded() {
            return self.refuse(reply_to, Refusal::Overloaded);
        }
        if !self.has_one_set(&partitions) || (parted == WhereParted::Refuse && !self.is_together(&partitions))
        {
            return self.refuse(reply_to, Refusal::Parted);
        }
        let Some(nodes) = self.gather_nodes(&partitions) else {
            return self.refuse(reply_to, Refusal::TooFewNodes);
        };
        let mut seqs = Vec::with_capacity(partitions.len());
        for &partition in &partitions {
            if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) {
                p.last += 1;
                p.note_joint(&commands, partition, &self.settings.keyspace);
                seqs.push((partition, p.last));
            }
        }
        let Some(&(first, seq)) = seqs.first() else {
            return;
        };
        let mut entry = Entry::new(first, db, seq, commands, reply_to, self.patience.now_ms());
        entry.joint = Some(Box::new(Joint {
            seqs: seqs.into(),
            is_flush: false,
        }));
        let pos = self.log.push(entry);
        for node in nodes {
            if let Some(node) = self.nodes.get_mut(usize::from(node)) {
                node.todo.push_back(Item::Write(pos));
            }
        }
        self.counters.writes += 1;
        if !self.waits.is_empty() {
            for &partition in &partitions {
                self.brought(partition, pos);
            }
        }
        self.trim();
    }

    /// Whether these partitions have the same replica set.
    fn has_one_set(&self, partitions: &[PartitionId]) -> bool {
        let nodes = |p: &Partition| p.nodes_of(!p.leaving);
        self.is_one_set(partitions, nodes)
    }

    /// Whether every node is given the writes of all of these partitions, or of none, and they have the same replica set.
    pub fn is_together(&self, partitions: &[PartitionId]) -> bool {
        self.has_one_set(partitions) && self.is_one_set(partitions, |p| p.nodes_of(p.streaming))
    }

    fn is_one_set(
        &self,
        partitions: &[PartitionId],
        nodes_of: impl Fn(&Partition) -> SmallVec<[NodeId; 7]>,
    ) -> bool {
        let mut all = partitions
            .iter()
            .filter_map(|p| self.partitions.get(usize::from(*p))?.as_ref());
        let Some(first) = all.next().map(&nodes_of) else {
            return false;
        };
        all.all(|p| {
            let nodes = nodes_of(p);
            nodes.len() == first.len() && nodes.iter().all(|node| first.contains(node))
        })
    }

    /// The nodes that are given the writes of all of these partitions. Those that are given some of them only are given none from
    /// here on. `None`: too few would be left.
    fn gather_nodes(&mut self, partitions: &[PartitionId]) -> Option<Vec<NodeId>> {
        let of = |partition: &PartitionId| self.partitions.get(usize::from(*partition))?.as_ref();
        let mut nodes: Vec<NodeId> = Vec::new();
        let mut is_everywhere = true;
        for (i, p) in partitions.iter().filter_map(of).enumerate() {
            let given = p.nodes_of(p.streaming);
            if i == 0 {
                nodes.extend(&given);
            }
            is_everywhere &= given.len() == nodes.len() && given.iter().all(|node| nodes.contains(node));
            nodes.retain(|node| given.contains(node));
        }
        let is_enough = |p: &Partition| {
            let left = p.in_sync & p.live & p.set_of(&nodes);
            left.count_ones() >= self.settings.min_in_sync
        };
        if !partitions.iter().filter_map(of).all(is_enough) {
            return None;
        }
        if !is_everywhere {
            for &partition in partitions {
                let Some(Some(p)) = self.partitions.get(usize::from(partition)) else {
                    continue;
                };
                for node in p.nodes_of(p.streaming) {
                    if !nodes.contains(&node) {
                        self.expel(node, partition);
                    }
                }
            }
        }
        Some(nodes)
    }

    /// A node that has come back is given nothing of a partition of which it lacks a write that it cannot be given: because
    /// it is not given another partition of the same write, or has that already.
    pub(super) fn part_from_joint(&mut self, id: NodeId) -> u32 {
        let mut parted = 0;
        loop {
            let mut changed = false;
            for pos in self.log.positions() {
                let Some(entry) = self.log.get(pos).filter(|e| e.joint.is_some() && !e.is_flush()) else {
                    continue;
                };
                let can = |(partition, seq): (PartitionId, u64)| {
                    let p = self.partitions.get(usize::from(partition))?.as_ref()?;
                    let (i, bit) = p.bit_of(id)?;
                    Some((p.streaming & bit != 0, p.replicas.get(i)?.acked < seq))
                };
                let standing: Vec<Option<(bool, bool)>> = entry.parts().map(can).collect();
                let lacking: Vec<PartitionId> = entry
                    .parts()
                    .zip(&standing)
                    .filter(|(_, standing)| **standing == Some((true, true)))
                    .map(|((partition, _), _)| partition)
                    .collect();
                if lacking.is_empty() || lacking.len() == standing.len() {
                    continue;
                }
                for partition in lacking {
                    self.expel(id, partition);
                    parted += 1;
                    changed = true;
                }
            }
            if !changed {
                return parted;
            }
        }
    }

    /// The node is given nothing of the partition any more, until it has a copy.
    pub(super) fn expel(&mut self, id: NodeId, partition: PartitionId) {
        if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) {
            expel(p, id, partition, &mut self.effects);
        }
    }
}

/// See [`Sequencer::expel`].
pub(super) fn expel(p: &mut Partition, id: NodeId, partition: PartitionId, effects: &mut Vec<Effect>) {
    let Some((_, bit)) = p.bit_of(id) else { return };
    p.live &= !bit;
    p.streaming &= !bit;
    if p.in_sync & bit != 0 {
        p.in_sync &= !bit;
        effects.push(Effect::Expelled { node: id, partition });
        effects.push(Effect::InSync {
            partition,
            set: p.in_sync,
        });
    }
}

/// Whether the node is to execute a joint write: it is given the writes of all its partitions, and lacks this one in each. If that
/// is so in some of them only, it is given none of those any more.
pub(super) fn is_whole(
    partitions: &mut [Option<Partition>],
    effects: &mut Vec<Effect>,
    entry: &Entry,
    id: NodeId,
) -> bool {
    let lacks = |p: &Partition, seq: u64| {
        let Some((i, bit)) = p.bit_of(id) else {
            return false;
        };
        p.streaming & bit != 0 && p.replicas.get(i).is_some_and(|r| r.acked < seq)
    };
    let is_lacking = |(partition, seq): (PartitionId, u64)| {
        let p = partitions.get(usize::from(partition)).and_then(Option::as_ref);
        p.is_some_and(|p| lacks(p, seq))
    };
    if entry.parts().all(is_lacking) {
        return true;
    }
    for (partition, seq) in entry.parts() {
        if let Some(Some(p)) = partitions.get_mut(usize::from(partition))
            && lacks(p, seq)
        {
            expel(p, id, partition, effects);
        }
    }
    false
}
