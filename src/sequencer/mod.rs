//! The sequencer: the one place where the order of a partition's commands is decided.
//!
//! **Problem.** Writes of many clients must reach several nodes in the same order, be answered when enough nodes have
//! them, and survive any of these nodes going away at any moment.
//!
//! **Idea.** One sequencer a worker thread owns some partitions (invariant 2). Every write gets the next seq of its partition and an
//! entry in one [log](log); every node's stream works through the entries that concern it, in that order, in batches
//! that carry the node's own [account](crate::account) of what it has applied. Since a node executes in order, one number
//! a replica (`acked`) says what it has, and a write is safe when W of those numbers have reached its seq (invariant 3). A node that
//! comes back tells the number itself, and gets the rest of the log.
//!
//! **Pure.** Nothing here reads a clock or touches a socket. Events come in as method calls ([`Sequencer::order`],
//! [`Sequencer::receive`], [`Sequencer::link_up`], [`Sequencer::link_down`], [`Sequencer::tick`]); what follows from them
//! is collected as [`Effect`]s, and as bytes for nodes. So the same code runs behind real sockets and in the simulation.
//!
//! **One batch of writes in flight to a node** (invariant 8; reads may follow it). A batch that a node refuses (`EXECABORT`: disk full,
//! out of memory) has then no successor that was executed without it: the node stands exactly where its account says.

mod acks;
mod annul;
mod batch;
mod busy;
mod changes;
mod hold;
mod inbound;
mod joint;
mod links;
mod log;
mod members;
mod node;
mod partition;
mod reads;
mod repair;
mod seam;
mod waits;

pub use inbound::Broken;
pub use links::{LinkReport, NodeView, PartitionView};
pub use seam::{Counters, Effect, PartitionStart, Settings};

use bytes::{Bytes, BytesMut};
use slab::Slab;
use smallvec::SmallVec;

use self::busy::Patience;
use self::log::{Entry, Joint, Log};
use self::node::{Item, Node};
use self::partition::{Partition, Replica};
use self::reads::Read;
use self::waits::Waits;
use crate::command::decide::{Conclusion, Reply};
use crate::command::spec::Compare;
use crate::request::{
    Action, Brings, Commands, NodeId, Outcome, PartitionId, Refusal, ReplyTo, Request, Touched,
};

/// Orders the commands of the partitions that one worker owns.
#[derive(Debug)]
pub struct Sequencer {
    settings: Settings,
    /// The worker's clock in ms; set by the worker, never read from the system here.
    now_ms: u64,
    /// The pool's clock in ms since 1970, for decisions that depend on time.
    pool_ms: u64,
    /// The clock by which requests come to their deadlines.
    patience: Patience,
    nodes: Vec<Node>,
    partitions: Vec<Option<Partition>>,
    log: Log,
    reads: Slab<Read>,
    read_generation: u32,
    parked: Vec<u32>,
    /// Bytes of the replies that are not certainly current yet.
    parked_bytes: usize,
    round: u64,
    batch_mark: u64,
    marks: Vec<PartitionId>,
    touched: BytesMut,
    units: Vec<inbound::Unit>,
    again: Vec<Request>,
    waits: Waits,
    effects: Vec<Effect>,
    counters: Counters,
}

impl Sequencer {
    /// A sequencer for `nodes` nodes, none of them connected, that owns the given partitions.
    pub fn new(settings: Settings, nodes: usize, starts: &[PartitionStart]) -> Self {
        let mut partitions: Vec<Option<Partition>> =
            (0..settings.keyspace.partitions).map(|_| None).collect();
        for start in starts {
            let replicas: SmallVec<[Replica; 3]> = start
                .replicas
                .iter()
                .map(|&node| Replica { node, acked: 0 })
                .collect();
            if let Some(slot) = partitions.get_mut(usize::from(start.partition)) {
                *slot = Some(Partition {
                    epoch: start.position.epoch,
                    start: start.position.seq,
                    since: start.since,
                    last: start.position.seq,
                    committed: start.position.seq,
                    trimmed: start.position.seq,
                    replicas,
                    keeps_account: settings.replicas > 1,
                    in_sync: start.in_sync,
                    recorded: start.in_sync,
                    recording: None,
                    leaving: 0,
                    live: 0,
                    streaming: 0,
                    batch_mark: 0,
                    batch_seq: 0,
                    suspects: 0,
                    annulled: 0,
                    changes: None,
                    held: None,
                });
            }
        }
        let backlog_bytes = if settings.replicas > 1 {
            settings.backlog_bytes
        } else {
            0
        };
        Self {
            now_ms: 0,
            pool_ms: 0,
            patience: Patience::default(),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            partitions,
            log: Log::new(backlog_bytes),
            reads: Slab::new(),
            read_generation: 0,
            parked: Vec::new(),
            parked_bytes: 0,
            round: 1,
            batch_mark: 0,
            marks: Vec::new(),
            touched: BytesMut::new(),
            units: Vec::new(),
            again: Vec::new(),
            waits: Waits::default(),
            effects: Vec::new(),
            counters: Counters::default(),
            settings,
        }
    }

    /// Sets the clocks: the worker's own (any monotonic origin) and the pool's (Unix time), in ms.
    pub fn set_clock(&mut self, now_ms: u64, pool_ms: u64) {
        self.now_ms = now_ms;
        self.pool_ms = pool_ms;
    }

    /// What has followed from the events so far; the caller empties it.
    pub fn effects(&mut self) -> &mut Vec<Effect> {
        &mut self.effects
    }

    /// Counters since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Puts a request in its place.
    pub fn order(&mut self, request: Request) {
        let Request {
            partition,
            db,
            action,
            under,
            reply_to,
        } = request;
        match action {
            Action::OnNode(node, commands) => return self.order_on_node(node, db, commands, reply_to),
            Action::Everywhere(frame, count) => return self.order_everywhere(db, frame, count, reply_to),
            Action::Joint(partitions, commands, parted) => {
                return self.order_joint(partitions, db, commands, parted, under, reply_to);
            }
            Action::Release => return self.let_go(partition, under),
            // Questions, whoever holds the partition.
            Action::NoteChanges(begins) => return self.order_note_changes(partition, begins, reply_to),
            Action::TakeChanges => return self.order_take_changes(partition, reply_to),
            // About clients that wait, and a hold may be waiting for just that.
            Action::Forget(waiter, key) => return self.order_forget(partition, db, &waiter, key),
            Action::LookAgain(key) => return self.order_look_again(partition, db, key),
            _ => {}
        }
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return self.refuse(reply_to, Refusal::NotOwner);
        };
        if let Some(hold) = &mut p.held
            && hold.by != under
        {
            hold.waiting.push_back(Request {
                partition,
                db,
                action,
                under,
                reply_to,
            });
            return;
        }
        match action {
            Action::Read(commands) => self.order_read(partition, db, commands, reply_to),
            Action::Write(commands) => self.order_write(partition, db, commands, reply_to, None),
            Action::Decide(decide) => self.order_decide(partition, db, decide, reply_to),
            Action::Probed(commands) => {
                let last = Conclusion {
                    write: SmallVec::new(),
                    reply: Reply::OfWrite,
                };
                self.order_write(partition, db, commands, reply_to, Some(Box::new(last)))
            }
            Action::Repair(key) => self.order_repair(partition, db, key),
            Action::Hold => {
                self.hold(partition, under);
                self.effects.push(Effect::Complete(reply_to, Outcome::Done));
            }
            Action::Writable => {
                let outcome = self
                    .refusal_of_write(partition)
                    .map_or(Outcome::Done, Outcome::Refused);
                self.effects.push(Effect::Complete(reply_to, outcome));
            }
            Action::Settled(node) => self.order_settled(partition, node, reply_to),
            Action::Join(node, position) => self.order_join(partition, node, position, reply_to),
            Action::Leave(node) => self.order_leave(partition, node, reply_to),
            Action::Wait(wait) => self.order_wait(partition, db, wait, reply_to),
            Action::OnNode(..)
            | Action::Everywhere(..)
            | Action::Joint(..)
            | Action::Release
            | Action::NoteChanges(_)
            | Action::TakeChanges
            | Action::Forget(..)
            | Action::LookAgain(_) => {}
        }
    }

    /// Why a write of the partition would be refused now.
    pub fn refusal_of_write(&self, partition: PartitionId) -> Option<Refusal> {
        if self.log.is_overloaded() {
            return Some(Refusal::Overloaded);
        }
        let p = self.partitions.get(usize::from(partition))?.as_ref()?;
        (p.available() < self.settings.min_in_sync).then(|| self.too_few())
    }

    fn refuse(&mut self, to: ReplyTo, refusal: Refusal) {
        let refusal = match refusal {
            Refusal::TooFewNodes => self.too_few(),
            other => other,
        };
        self.effects.push(Effect::Complete(to, Outcome::Refused(refusal)));
    }

    /// Gives a write the next seq of its partition and queues it for every replica that is given writes.
    fn order_write(
        &mut self,
        partition: PartitionId,
        db: u16,
        commands: Commands,
        reply_to: ReplyTo,
        conclusion: Option<Box<Conclusion>>,
    ) {
        if let Some(refusal) = self.refusal_of_write(partition) {
            return self.refuse(reply_to, refusal);
        }
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        p.last += 1;
        p.note_write(&commands);
        let mut entry = Entry::new(partition, db, p.last, commands, reply_to, self.patience.now_ms());
        entry.conclusion = conclusion;
        let pos = self.log.push(entry);
        for (i, replica) in p.replicas.iter().enumerate() {
            if p.streaming & (1 << i) != 0
                && let Some(node) = self.nodes.get_mut(usize::from(replica.node))
            {
                node.todo.push_back(Item::Write(pos));
            }
        }
        self.counters.writes += 1;
        if !self.waits.is_empty() {
            self.brought(partition, pos);
        }
        self.trim();
    }

    /// A write of all partitions at one place of the order.
    fn order_everywhere(&mut self, db: u16, frame: Bytes, count: u32, reply_to: ReplyTo) {
        let min = self.settings.min_in_sync;
        if self.partitions.iter().flatten().any(|p| p.available() < min) {
            return self.refuse(reply_to, Refusal::TooFewNodes);
        }
        let mut seqs = Vec::new();
        for (partition, p) in self.partitions.iter_mut().enumerate() {
            if let Some(p) = p {
                p.last += 1;
                seqs.push((partition as PartitionId, p.last));
            }
        }
        let commands = Commands {
            frame,
            count,
            compare: Compare::Exact,
            touched: Touched::Partition,
            scripts: None,
            brings: Brings::Removal,
            in_multi: false,
            second_chance: None,
        };
        let mut entry = Entry::new(0, db, 0, commands, reply_to, self.patience.now_ms());
        entry.joint = Some(Box::new(Joint {
            seqs: seqs.into(),
            is_flush: true,
        }));
        let pos = self.log.push(entry);
        for (id, node) in self.nodes.iter_mut().enumerate() {
            let streams = |p: &Partition| {
                p.bit_of(id as NodeId)
                    .is_some_and(|(_, bit)| p.streaming & bit != 0)
            };
            if node.up && self.partitions.iter().flatten().any(streams) {
                node.todo.push_back(Item::Write(pos));
            }
        }
        self.counters.writes += 1;
        self.removed_all();
    }
}
