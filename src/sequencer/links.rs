//! Nodes that come and go: what a returning node is given, and when one is no longer waited for.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::log::{Entry, LogPos};
use super::node::{Expect, Item, Node, Trouble};
use super::partition::Partition;
use super::{Effect, Sequencer};
use crate::account::Position;
use crate::request::{NodeId, Outcome, PartitionId, Refusal};

/// What a node's account said when its stream came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Partitions of which it has everything.
    pub equal: u32,
    /// Partitions that are caught up from the backlog.
    pub behind: u32,
    /// Partitions it must be given whole: it is too far behind, ahead, or of an epoch that did not end there.
    pub out: u32,
}

/// A node as the sequencer sees it.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Whether its stream is connected.
    pub up: bool,
    /// Partitions of this worker that should be on it.
    pub partitions: u32,
    /// Those that it has in sync, connected and caught up.
    pub live: u32,
    /// Those whose writes it is given.
    pub streaming: u32,
    /// Those that it is in sync with as far as is known.
    pub in_sync: u32,
    /// Writes it has not acknowledged.
    pub lag_ops: u64,
    /// Its own words when it refused a batch that it is to be given again.
    pub refused: Option<String>,
}

/// A partition as its owner sees it.
#[derive(Clone, Debug)]
pub struct PartitionView {
    /// Which one.
    pub partition: PartitionId,
    /// The last write that was ordered.
    pub position: Position,
    /// The replica set, without nodes that are about to leave it.
    pub replicas: SmallVec<[NodeId; 7]>,
    /// Nodes in sync.
    pub in_sync: SmallVec<[NodeId; 7]>,
    /// Those of them that are connected and have caught up.
    pub live: SmallVec<[NodeId; 7]>,
    /// Nodes of the replica set that are connected, and lack more than the backlog could give them: they need a copy.
    pub out: SmallVec<[NodeId; 7]>,
    /// Nodes that are in sync by a record that a successor may find: the last safe one, or that on its way.
    pub recorded: SmallVec<[NodeId; 7]>,
    /// Nodes that are about to leave: until a record without them is safe.
    pub leaving: SmallVec<[NodeId; 7]>,
}

impl Sequencer {
    /// A stream to the node is connected, and `applied` is the node's account ([`Position::NOWHERE`] where it is marked).
    pub fn link_up(&mut self, id: NodeId, applied: &HashMap<PartitionId, Position>) -> LinkReport {
        let mut report = LinkReport::default();
        let keeps_account = self.settings.replicas > 1;
        let mut out = Vec::new();
        for (partition, p) in self.partitions.iter_mut().enumerate() {
            let partition = partition as PartitionId;
            let Some(p) = p else { continue };
            let Some((i, bit)) = p.bit_of(id).filter(|(_, bit)| p.leaving & bit == 0) else {
                continue;
            };
            let standing = p.standing(bit, applied.get(&partition).copied().unwrap_or_default());
            let is_the_copy = p.in_sync & bit != 0 && p.in_sync & p.live & !bit == 0;
            let Some(replica) = p.replicas.get_mut(i) else {
                continue;
            };
            if !keeps_account && !is_the_copy {
                // While a partition changes its only place, there are two; and no account tells what this one has missed.
                report.out += 1;
                out.push(partition);
                continue;
            } else if !keeps_account {
                replica.acked = p.last;
            } else if let Some(seq) = standing {
                replica.acked = seq;
            } else {
                report.out += 1;
                out.push(partition);
                continue;
            }
            let acked = replica.acked;
            p.streaming |= bit;
            if acked >= p.committed {
                self.effects.extend(p.go_live(partition, bit));
            }
            if acked == p.last {
                report.equal += 1;
            } else {
                report.behind += 1;
            }
        }
        for partition in out {
            self.expel(id, partition);
        }
        report.out += self.part_from_joint(id);
        let mut todo = std::collections::VecDeque::new();
        if keeps_account {
            for pos in self.log.positions() {
                let Some(entry) = self.log.get(pos) else { continue };
                if self.lacks(id, entry) {
                    todo.push_back(Item::Write(pos));
                    self.not_executed(id, pos);
                } else if !self.is_given(id, entry.partition) {
                    // It is copied before it counts again, whatever it has executed.
                    self.not_executed(id, pos);
                }
            }
        }
        self.counters.resent += todo.len() as u64;
        if let Some(node) = self.nodes.get_mut(usize::from(id)) {
            // Whether it still refuses is seen when it is given something; what needs copies is given nothing else.
            let trouble = match todo.is_empty() {
                true => Trouble::None,
                false => std::mem::take(&mut node.trouble),
            };
            *node = Node {
                up: true,
                todo,
                batches: node.batches,
                trouble,
                ..Node::default()
            };
        }
        self.release_all_safe();
        report
    }

    /// Whether the node is given the partition's writes.
    pub(super) fn is_given(&self, id: NodeId, partition: PartitionId) -> bool {
        let p = self
            .partitions
            .get(usize::from(partition))
            .and_then(Option::as_ref);
        p.and_then(|p| Some(p.streaming & p.bit_of(id)?.1 != 0))
            .unwrap_or(false)
    }

    fn lacks(&self, id: NodeId, entry: &Entry) -> bool {
        let lacks_in = |partition: PartitionId| {
            let p = self
                .partitions
                .get(usize::from(partition))
                .and_then(Option::as_ref);
            let (Some(p), Some(seq)) = (p, entry.seq_in(partition)) else {
                return false;
            };
            let Some((i, bit)) = p.bit_of(id) else {
                return false;
            };
            p.streaming & bit != 0 && p.replicas.get(i).is_some_and(|r| r.acked < seq)
        };
        entry.parts().any(|(partition, _)| lacks_in(partition))
    }

    /// The node's account says that it has not executed the write, whatever it was sent.
    fn not_executed(&mut self, id: NodeId, pos: LogPos) {
        let Some(entry) = self.log.get_mut(pos) else {
            return;
        };
        let p = self
            .partitions
            .get(usize::from(entry.partition))
            .and_then(Option::as_ref);
        if let Some((_, bit)) = p.and_then(|p| p.bit_of(id)) {
            entry.sent &= !bit;
        }
    }

    /// The stream to the node is gone. What it was to answer is asked elsewhere; what it was to write, it will be given
    /// again once its account says what it has.
    pub fn link_down(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(usize::from(id)) else {
            return;
        };
        if !node.up {
            return;
        }
        let fresh = Node {
            batches: node.batches,
            trouble: std::mem::take(&mut node.trouble),
            ..Node::default()
        };
        let gone = std::mem::replace(node, fresh);
        for p in self.partitions.iter_mut().flatten() {
            if let Some((_, bit)) = p.bit_of(id) {
                p.live &= !bit;
                p.streaming &= !bit;
            }
        }
        let sent = gone.expected.iter().filter_map(|e| match e {
            Expect::Item(item, _) => Some(*item),
            _ => None,
        });
        if self.settings.replicas == 1 {
            for item in sent.clone() {
                self.end_lost(id, item, true);
            }
            for item in &gone.todo {
                self.end_lost(id, *item, false);
            }
        }
        self.reroute(sent.chain(gone.todo.iter().copied()));
        for node in self.nodes.iter_mut().filter(|n| n.up) {
            node.ping_wanted = true;
        }
        self.settle_reads();
    }

    /// Why there are too few nodes: those that are there and refuse are what has to be looked at.
    pub(super) fn too_few(&self) -> Refusal {
        let refuse = |code: &str| {
            let mut troubles = self.nodes.iter().map(|node| &node.trouble);
            troubles.any(|trouble| matches!(trouble, Trouble::Refused(why) if why.starts_with(code)))
        };
        match (refuse("MISCONF"), refuse("OOM")) {
            (true, _) => Refusal::DisksFull,
            (_, true) => Refusal::MemoryFull,
            _ => Refusal::TooFewNodes,
        }
    }

    /// With one copy: the node that has gone was sent this write, or was about to be. No account will tell whether it has executed it; so
    /// that is the write's end, unless another node is given it, too.
    fn end_lost(&mut self, id: NodeId, item: Item, was_sent: bool) {
        let Item::Write(pos) = item else { return };
        let partitions = &self.partitions;
        let Some(entry) = self.log.get_mut(pos).filter(|entry| !entry.released) else {
            return;
        };
        let nobody_else = |(partition, _): (PartitionId, u64)| {
            let p = partitions.get(usize::from(partition)).and_then(Option::as_ref);
            p.is_some_and(|p| p.bit_of(id).is_some() && p.streaming == 0)
        };
        if !entry.parts().any(nobody_else) {
            return;
        }
        entry.released = true;
        // What is for all nodes may be at any of them; who was sent it is not noted.
        let outcome = match was_sent || entry.sent != 0 || entry.is_flush() {
            true => Outcome::Unknown,
            false => Outcome::Refused(Refusal::TooFewNodes),
        };
        self.effects.push(Effect::Complete(entry.reply_to, outcome));
        self.trim();
    }

    /// The node has been away for long: it is no longer counted on, though it may still come back by the backlog.
    pub fn give_up(&mut self, id: NodeId) {
        let write_quorum = self.settings.write_quorum;
        for (partition, p) in self.partitions.iter_mut().enumerate() {
            let Some(p) = p else { continue };
            if let Some((_, bit)) = p.bit_of(id)
                && p.in_sync & bit != 0
                && p.live & bit == 0
                // A set of fewer than W nodes could acknowledge nothing: leave it as it is.
                && (p.in_sync & p.live).count_ones() >= write_quorum
            {
                p.in_sync &= !bit;
                let partition = partition as PartitionId;
                self.effects.push(Effect::InSync {
                    partition,
                    set: p.in_sync,
                });
            }
        }
    }

    /// Time has passed: hung nodes, writes without quorum, reads without proof.
    pub fn tick(&mut self) {
        let now = self.now_ms;
        let mut impatient = Vec::new();
        for (id, node) in self.nodes.iter_mut().enumerate() {
            let Some(sent_ms) = node.oldest_sent_ms() else {
                continue;
            };
            // A long reply that keeps coming is not silence.
            let owed_ms = now.saturating_sub(sent_ms.max(node.heard_ms));
            if owed_ms.min(now.saturating_sub(node.excused_ms)) >= self.settings.node_timeout_ms {
                self.effects.push(Effect::Hung(id as NodeId));
            } else if owed_ms >= self.settings.read_patience_ms && !node.slow && self.settings.replicas > 1 {
                node.slow = true;
                impatient.push(id);
            }
        }
        for id in impatient {
            let Some(node) = self.nodes.get(id) else { continue };
            let sent = node.expected.iter().filter_map(|e| match e {
                Expect::Item(item, _) => Some(*item),
                _ => None,
            });
            // A command for this node alone stays with it; and a script, that would keep another node from everything, too.
            let elsewhere = |item: &Item| {
                let Item::Read(read, _) = item else { return false };
                self.reads
                    .get(*read as usize)
                    .is_some_and(|r| !r.purpose.is_pinned() && r.moves == 0 && r.commands.scripts.is_none())
            };
            let late: Vec<Item> = sent.chain(node.todo.iter().copied()).filter(elsewhere).collect();
            self.reroute(late.into_iter());
        }
        self.patience.tick(now);
        let deadline = self
            .patience
            .now_ms()
            .saturating_sub(self.settings.write_timeout_ms);
        while let Some(pos) = self.log.first_open() {
            let Some(entry) = self.log.get_mut(pos).filter(|e| e.ordered_ms < deadline) else {
                break;
            };
            entry.released = true;
            // Invariant 9.
            self.effects
                .push(Effect::Complete(entry.reply_to, Outcome::Unknown));
        }
        self.trim_held_over();
        self.tick_reads();
        self.settle_reads();
    }

    /// Lets the oldest entries go while the log is over its bound. A node that still lacks one of them cannot be caught
    /// up any more.
    pub(super) fn trim(&mut self) {
        while let Some(entry) = self.log.trim_one(|entry| is_safe(&self.partitions, entry)) {
            self.forget_entry(&entry);
        }
    }

    /// Lets entries go that were kept only until they are safe.
    fn trim_held_over(&mut self) {
        for entry in self.log.trim_held_over(|entry| is_safe(&self.partitions, entry)) {
            self.forget_entry(&entry);
        }
    }

    /// The entry has left the backlog.
    fn forget_entry(&mut self, entry: &Entry) {
        for (partition, seq) in entry.parts() {
            let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
                continue;
            };
            p.trimmed = p.trimmed.max(seq);
            if self.settings.replicas == 1 {
                continue;
            }
            for (i, replica) in p.replicas.iter().enumerate() {
                let bit = 1 << i;
                if replica.acked < seq && p.streaming & bit != 0 {
                    p.streaming &= !bit;
                    p.live &= !bit;
                    self.effects.push(Effect::Expelled {
                        node: replica.node,
                        partition,
                    });
                }
                if replica.acked < seq && p.in_sync & bit != 0 {
                    p.in_sync &= !bit;
                    self.effects.push(Effect::InSync {
                        partition,
                        set: p.in_sync,
                    });
                }
            }
        }
    }

    /// How the node stands.
    pub fn node_view(&self, id: NodeId) -> NodeView {
        let Some(node) = self.nodes.get(usize::from(id)) else {
            return NodeView::default();
        };
        // With nothing to try it on, nobody can say whether it would refuse it again.
        let is_tried =
            !node.up || node.write_in_flight || node.todo.iter().any(|item| matches!(item, Item::Write(_)));
        let refused = match &node.trouble {
            Trouble::Refused(why) if is_tried => Some(why.clone()),
            _ => None,
        };
        let mut view = NodeView {
            up: node.up,
            refused,
            ..NodeView::default()
        };
        for p in self.partitions.iter().flatten() {
            let Some((i, bit)) = p.bit_of(id) else { continue };
            view.partitions += 1;
            view.live += u32::from(p.live & p.in_sync & bit != 0);
            view.streaming += u32::from(p.streaming & bit != 0);
            view.in_sync += u32::from(p.in_sync & bit != 0);
            view.lag_ops += p.replicas.get(i).map_or(0, |r| p.last.saturating_sub(r.acked));
        }
        view
    }

    /// How the partition stands.
    pub fn partition_view(&self, partition: PartitionId) -> Option<PartitionView> {
        let p = self.partitions.get(usize::from(partition))?.as_ref()?;
        let mut out = p.nodes_of(!p.streaming & !p.leaving);
        out.retain(|node| self.is_up(*node));
        Some(PartitionView {
            partition,
            position: Position {
                epoch: p.epoch,
                seq: p.last,
            },
            replicas: p.nodes_of(!p.leaving),
            in_sync: p.nodes_of(p.in_sync),
            live: p.nodes_of(p.in_sync & p.live),
            out,
            recorded: p.nodes_of(p.recorded | p.recording.unwrap_or(0)),
            leaving: p.nodes_of(p.leaving),
        })
    }

    /// Whether every partition has the nodes it needs to take writes.
    pub fn is_ready(&self) -> bool {
        self.partitions
            .iter()
            .flatten()
            .all(|p| p.available() >= self.settings.min_in_sync)
    }

    /// Whether the stream to a node is connected.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(usize::from(id)).is_some_and(|n| n.up)
    }

    /// Any node that is connected, the quickest to ask first.
    pub fn any_node(&self) -> Option<NodeId> {
        let up = || self.nodes.iter().enumerate().filter(|(_, n)| n.up);
        up().find(|(_, n)| !n.slow)
            .or_else(|| up().next())
            .map(|(id, _)| id as NodeId)
    }
}

/// Whether W nodes have what the entry writes, in all its partitions.
pub(super) fn is_safe(partitions: &[Option<Partition>], entry: &Entry) -> bool {
    entry.parts().all(|(partition, seq)| {
        let p = partitions.get(usize::from(partition)).and_then(Option::as_ref);
        p.is_none_or(|p| seq <= p.committed)
    })
}
