//! Reads: one node in sync executes them, and their replies wait until they are certainly current.
//!
//! A read is queued behind all that was ordered for its node before, so it sees every earlier write of its partition.
//! Its reply is released when those writes are safe, and when enough nodes have answered something that was sent after
//! the read came: a successor would have had to fence one of them first (invariant 6). Under load other batches show
//! that; else a `PING` goes along.
//!
//! A node's death only means that another one is asked. (The client's later writes to the same partition have waited
//! for the reply, so the read cannot see its client's own future.)

use bytes::Bytes;

use super::batch::PING;
use super::node::Item;
use super::{Effect, Sequencer};
use crate::limits;
use crate::request::{Commands, Decide, HoldId, NodeId, Outcome, PartitionId, Refusal, ReplyTo};

/// Who wants to know.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A client.
    Client(ReplyTo),
    /// A command that is decided by the answer; its partition is held meanwhile.
    Probe(Box<Decide>, ReplyTo),
    /// A repair of this key; its partition is held meanwhile.
    Repair(Bytes),
    /// A client, of this node and no other.
    OnNode(ReplyTo),
    /// Somebody who only wants to know that the node has come so far.
    Settled(ReplyTo),
}

impl Purpose {
    /// Whether it is about one node, so that no other can be asked instead.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self, Self::OnNode(_) | Self::Settled(_))
    }
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) generation: u32,
    pub(super) purpose: Purpose,
    pub(super) partition: PartitionId,
    pub(super) db: u16,
    pub(super) commands: Commands,
    pub(super) node: NodeId,
    /// Seq of the last write ordered before it.
    pub(super) after: u64,
    round: u64,
    pub(super) reply: Option<(Bytes, bool)>,
    /// By the clock of deadlines.
    asked_ms: u64,
    /// How often it has been taken to another node.
    pub(super) moves: u8,
}

impl Sequencer {
    pub(super) fn order_read(&mut self, partition: PartitionId, db: u16, commands: Commands, to: ReplyTo) {
        self.ask(partition, db, commands, Purpose::Client(to), 0);
    }

    pub(super) fn ask(
        &mut self,
        partition: PartitionId,
        db: u16,
        commands: Commands,
        purpose: Purpose,
        moves: u8,
    ) {
        let Some(node) = self.choose(partition) else {
            return self.read_failed(partition, purpose);
        };
        let Some(Some(p)) = self.partitions.get(usize::from(partition)) else {
            return;
        };
        let after = p.last;
        self.counters.reads += 1;
        let read = self.read(partition, db, commands, purpose, node);
        self.queue_read(Read { after, moves, ..read });
    }

    /// Asks a given node first.
    pub(super) fn ask_of(
        &mut self,
        partition: PartitionId,
        db: u16,
        commands: Commands,
        purpose: Purpose,
        node: NodeId,
    ) {
        if !self.nodes.get(usize::from(node)).is_some_and(|n| n.up) {
            return self.ask(partition, db, commands, purpose, 0);
        }
        let read = self.read(partition, db, commands, purpose, node);
        self.queue_read(read);
    }

    /// A command for one given node.
    pub(super) fn order_on_node(&mut self, node: NodeId, db: u16, commands: Commands, to: ReplyTo) {
        if !self.nodes.get(usize::from(node)).is_some_and(|n| n.up) {
            return self.refuse(to, Refusal::Unconfirmed);
        }
        let read = self.read(0, db, commands, Purpose::OnNode(to), node);
        self.queue_read(read);
    }

    /// A sign from the node when it has executed all that is ordered.
    pub(super) fn order_settled(&mut self, partition: PartitionId, node: NodeId, to: ReplyTo) {
        if !self.is_given(node, partition) {
            return self.refuse(to, Refusal::Unconfirmed);
        }
        let ping = Commands::one(Bytes::from_static(PING));
        let read = self.read(partition, 0, ping, Purpose::Settled(to), node);
        self.queue_read(read);
    }

    /// A read that comes now, before anything was ordered.
    fn read(
        &self,
        partition: PartitionId,
        db: u16,
        commands: Commands,
        purpose: Purpose,
        node: NodeId,
    ) -> Read {
        Read {
            generation: 0,
            purpose,
            partition,
            db,
            commands,
            node,
            after: 0,
            round: self.round,
            reply: None,
            asked_ms: self.patience.now_ms(),
            moves: 0,
        }
    }

    fn queue_read(&mut self, mut read: Read) {
        self.read_generation = self.read_generation.wrapping_add(1);
        read.generation = self.read_generation;
        let (node, generation) = (read.node, read.generation);
        let id = self.reads.insert(read) as u32;
        if let Some(node) = self.nodes.get_mut(usize::from(node)) {
            node.todo.push_back(Item::Read(id, generation));
        }
    }

    /// A live node in sync for a read, and pings for the nodes that must confirm it. `None`: not enough are there.
    fn choose(&mut self, partition: PartitionId) -> Option<NodeId> {
        let p = self.partitions.get(usize::from(partition))?.as_ref()?;
        if p.is_stuck(self.settings.write_quorum) {
            return None;
        }
        let able = p.in_sync & p.live;
        let needed = if self.settings.linearizable {
            p.confirmations(self.settings.write_quorum)
        } else {
            1
        };
        let n = p.replicas.len();
        let is_up = |i: usize| {
            p.replicas
                .get(i)
                .and_then(|r| self.nodes.get(usize::from(r.node)))
                .is_some_and(|node| node.up)
        };
        if ((0..n).filter(|&i| is_up(i)).count() as u32) < needed {
            return None;
        }
        let start = if self.settings.read_any {
            (self.round as usize).wrapping_add(usize::from(partition))
        } else {
            0
        };
        let all = (0..n).map(|i| (start + i) % n);
        let in_turn = all.clone().filter(|i| able & (1 << i) != 0);
        let is_slow = |i: usize| {
            let node = p
                .replicas
                .get(i)
                .and_then(|r| self.nodes.get(usize::from(r.node)));
            node.is_none_or(|node| node.slow)
        };
        let chosen = in_turn
            .clone()
            .find(|&i| !is_slow(i))
            .or_else(|| in_turn.clone().next())?;
        let mut wanted = needed - 1;
        for i in all {
            if wanted == 0 {
                break;
            }
            if i != chosen
                && let Some(node) = p
                    .replicas
                    .get(i)
                    .and_then(|r| self.nodes.get_mut(usize::from(r.node)))
                && node.up
                && !node.slow
            {
                node.ping_wanted = true;
                wanted -= 1;
            }
        }
        p.replicas.get(chosen).map(|r| r.node)
    }

    pub(super) fn read_answered(&mut self, id: u32, generation: u32, frames: Bytes, resp3: bool) {
        let Some(read) = self
            .reads
            .get_mut(id as usize)
            .filter(|r| r.generation == generation)
        else {
            return;
        };
        let p = self
            .partitions
            .get(usize::from(read.partition))
            .and_then(Option::as_ref);
        let is_kept_up = p
            .and_then(|p| Some(p.streaming & p.bit_of(read.node)?.1 != 0))
            .unwrap_or(false);
        if !is_kept_up && !matches!(read.purpose, Purpose::OnNode(_)) {
            // Expelled while the read waited there: it may have been executed without the writes before it.
            return self.reroute(std::iter::once(Item::Read(id, generation)));
        }
        read.reply = Some((frames, resp3));
        self.parked.push(id);
    }

    /// Releases the replies that have become current.
    pub(super) fn settle_reads(&mut self) {
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|&id| !self.settle(id));
        // Concluding a probe may have parked nothing, but keeps the mechanism honest.
        parked.append(&mut self.parked);
        let reply_bytes = |id: &u32| {
            self.reads
                .get(*id as usize)?
                .reply
                .as_ref()
                .map(|(frames, _)| frames.len())
        };
        self.parked_bytes = parked.iter().filter_map(reply_bytes).sum();
        self.parked = parked;
    }

    /// Whether the read is done with.
    fn settle(&mut self, id: u32) -> bool {
        let Some(read) = self.reads.get(id as usize) else {
            return true;
        };
        if read.reply.is_none() {
            return true;
        }
        if matches!(read.purpose, Purpose::Client(_)) && !self.is_current(read) {
            return false;
        }
        let Some(read) = self.reads.try_remove(id as usize) else {
            return true;
        };
        let Some((frames, resp3)) = read.reply else {
            return true;
        };
        match read.purpose {
            Purpose::Client(to) | Purpose::OnNode(to) => {
                self.effects
                    .push(Effect::Complete(to, Outcome::Reply { frames, resp3 }));
            }
            Purpose::Settled(to) => self.effects.push(Effect::Complete(to, Outcome::Done)),
            Purpose::Probe(decide, to) => self.decided(read.partition, read.db, *decide, to, &frames),
            Purpose::Repair(key) => self.repaired(read.partition, read.db, &key, frames),
        }
        true
    }

    fn is_current(&self, read: &Read) -> bool {
        let Some(Some(p)) = self.partitions.get(usize::from(read.partition)) else {
            return false;
        };
        if p.committed < read.after {
            return false;
        }
        if !self.settings.linearizable {
            return true;
        }
        // The node that has answered the read itself need not come to the end of the batch.
        let confirmed = p.replicas.iter().filter(|r| {
            self.nodes
                .get(usize::from(r.node))
                .is_some_and(|n| n.up && (r.node == read.node || n.confirmed_round >= read.round))
        });
        confirmed.count() as u32 >= p.confirmations(self.settings.write_quorum)
    }

    /// Asks another node, for the reads that this one was to answer.
    pub(super) fn reroute(&mut self, items: impl Iterator<Item = Item>) {
        for item in items {
            let Item::Read(id, generation) = item else {
                continue;
            };
            let id = id as usize;
            if self
                .reads
                .get(id)
                .is_none_or(|r| r.generation != generation || r.reply.is_some())
            {
                continue;
            }
            let read = self.reads.remove(id);
            match read.purpose {
                Purpose::OnNode(to) | Purpose::Settled(to) => self.refuse(to, Refusal::Unconfirmed),
                purpose if read.moves >= limits::READ_MOVES_MAX => self.read_failed(read.partition, purpose),
                purpose => self.ask(read.partition, read.db, read.commands, purpose, read.moves + 1),
            }
        }
    }

    fn read_failed(&mut self, partition: PartitionId, purpose: Purpose) {
        match purpose {
            Purpose::Client(to) | Purpose::OnNode(to) | Purpose::Settled(to) => {
                self.refuse(to, Refusal::Unconfirmed)
            }
            Purpose::Repair(_) => self.let_go(partition, HoldId::OWNER),
            Purpose::Probe(_, to) => {
                self.refuse(to, Refusal::Unconfirmed);
                self.let_go(partition, HoldId::OWNER);
            }
        }
    }

    /// Refuses reads that have waited too long, and asks every node for a sign while any wait.
    pub(super) fn tick_reads(&mut self) {
        let deadline = self
            .patience
            .now_ms()
            .saturating_sub(self.settings.write_timeout_ms);
        let late: Vec<usize> = self
            .reads
            .iter()
            .filter(|(_, r)| r.asked_ms < deadline)
            .map(|(id, _)| id)
            .collect();
        let late: Vec<Read> = late.into_iter().map(|id| self.reads.remove(id)).collect();
        // Before anything is asked anew: a new read may take the number of one of these.
        self.parked.retain(|&id| self.reads.contains(id as usize));
        for read in late {
            self.read_failed(read.partition, read.purpose);
        }
        if !self.parked.is_empty() {
            for node in self.nodes.iter_mut().filter(|n| n.up) {
                node.ping_wanted = true;
            }
        }
    }
}
