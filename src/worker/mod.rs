//! A worker: one thread, one event loop, its clients, its partitions, and its stream to each node.
//!
//! Everything of a worker is reached from its own thread only, so there are no locks. Tasks (one for each client's and
//! each node's bytes) change its state in short borrows that never last over an `await`, and ask for a *flush*. The flush
//! runs after all tasks that are ready now, so whatever they produced goes out together: one write for each node, one for
//! each client. That is where batches come from, and why more load makes a command cheaper.

mod flush;
mod mail;
mod operate;
mod publish;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slab::Slab;
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio_util::io::poll_read_buf;
use tracing::warn;

use crate::account::Position;
use crate::command::dump::Question;
use crate::command::rewrite::PoolClock;
use crate::config::{ReadFrom, Reads};
use crate::ingress::{Client, Inbox, Watcher};
use crate::limits;
use crate::metrics::WorkerMetrics;
use crate::net::{ReadHalf, WriteHalf};
use crate::pubsub::Subscribers;
use crate::request::{NodeId, PartitionId, Request};
use crate::resp::OutBuf;
use crate::ring::Keyspace;
use crate::sequencer::{Broken, LinkReport, PartitionStart, Sequencer, Settings};
use crate::shared::{Message, Shared};
use crate::stream;

/// How often time is looked at: hung nodes, late writes.
const TICK: Duration = Duration::from_millis(10);

/// Differences between mirrors are logged at most so often, in us.
const MISMATCH_LOG_INTERVAL_US: u64 = 1_000_000;

/// Longest step of the clock that others are judged by, in us: a few ticks.
const AWAKE_STEP_US_MAX: u64 = 50_000;

/// A node that has owed an answer for so long gets no more reads for the moment, in ms.
const READ_PATIENCE_MS: u64 = 30;

/// A worker, reached through an `Rc` by the tasks of its thread.
#[derive(Debug)]
pub struct Worker {
    id: u16,
    shared: Arc<Shared>,
    core: RefCell<Core>,
    flush: Notify,
    flush_wanted: Cell<bool>,
    /// When a difference between mirrors was last logged (us), and how many there have been since.
    mismatches: Cell<(u64, u64)>,
    started: Instant,
    metrics: Arc<WorkerMetrics>,
}

/// What its tasks change.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) sequencer: Sequencer,
    pub(crate) clients: Slab<Client>,
    /// Commands that take several steps.
    pub(crate) procedures: Slab<Rc<Inbox>>,
    /// Idle connections over which nodes are asked about watched keys.
    pub(crate) watchers: Vec<Watcher>,
    /// Number of the last hold.
    pub(crate) holds: u64,
    pub(crate) generation: u32,
    pub(crate) clock: PoolClock,
    /// Clients with something to be written.
    pub(crate) dirty: Vec<u32>,
    /// Its clients that have subscribed to something.
    pub(crate) subscribers: Subscribers,
    /// Clients whose command waits for the end of a pause.
    pub(crate) held_back: BTreeSet<u32>,
    /// Clients that are shown all commands, with their generations.
    pub(crate) monitors: Vec<(u32, u32)>,
    streams: Vec<StreamSlot>,
    outboxes: Vec<Outbox>,
    /// What clients' bytes are read into: see [`Worker::poll_read`].
    slab: BytesMut,
    /// Partitions whose set of nodes in sync is not recorded yet.
    unrecorded: BTreeSet<PartitionId>,
    /// Worker's clock at the last flush, in us.
    pub(crate) now_us: u64,
    /// The same without the times in which this thread was not running: by it others are judged.
    awake_us: u64,
}

/// The writing side of a stream.
#[derive(Debug)]
struct StreamSlot {
    write: Option<Rc<WriteHalf>>,
    out: OutBuf,
    /// Waiting for the socket to take more.
    blocked: bool,
    closed: Rc<Notify>,
    down_since_us: u64,
}

impl Default for StreamSlot {
    fn default() -> Self {
        Self {
            write: None,
            // Batches come one after the other: the memory of one serves the next.
            out: OutBuf::keeping(limits::STREAM_BUFFER_BYTES),
            blocked: false,
            closed: Rc::default(),
            down_since_us: 0,
        }
    }
}

/// Messages for another worker, until its mailbox has taken them.
#[derive(Debug, Default)]
struct Outbox {
    messages: Vec<Message>,
    ready: Rc<Notify>,
}

impl Core {
    /// Sends a message to another worker.
    pub(crate) fn mail(&mut self, worker: u16, message: Message) {
        if let Some(outbox) = self.outboxes.get_mut(usize::from(worker)) {
            outbox.messages.push(message);
            outbox.ready.notify_one();
        }
    }
}

impl Worker {
    /// Runs a worker until its thread's runtime ends. `starts` are the partitions it owns.
    pub async fn run(
        id: u16,
        shared: Arc<Shared>,
        starts: Vec<PartitionStart>,
        mailbox: mpsc::Receiver<Vec<Message>>,
    ) {
        let nodes = shared.table.load().nodes.len();
        let config = &shared.config;
        let settings = Settings {
            worker: id,
            keyspace: Keyspace::clone(&shared.keyspace),
            replicas: config.pool.replicas as u32,
            write_quorum: config.pool.write_quorum as u32,
            min_in_sync: config.pool.min_in_sync as u32,
            backlog_bytes: config.limits.backlog.as_u64() as usize / config.threads,
            batch_commands_max: config.limits.batch_commands_max,
            batch_bytes_max: config.limits.batch_bytes_max.as_u64() as usize,
            question: Question::to(&shared.version),
            bookkeeping_db: config.pool.bookkeeping_db,
            read_any: config.pool.read_from == ReadFrom::Any,
            linearizable: config.pool.reads == Reads::Linearizable,
            write_timeout_ms: config.timeouts.write.as_millis() as u64,
            node_timeout_ms: config.timeouts.node.as_millis() as u64,
            read_patience_ms: READ_PATIENCE_MS,
        };
        let metrics = shared.metrics.get(usize::from(id)).cloned().unwrap_or_default();
        let worker = Rc::new(Self {
            id,
            core: RefCell::new(Core {
                sequencer: Sequencer::new(settings, nodes, &starts),
                clients: Slab::new(),
                procedures: Slab::new(),
                watchers: Vec::new(),
                holds: 0,
                generation: 0,
                clock: PoolClock::default(),
                dirty: Vec::new(),
                subscribers: Subscribers::default(),
                held_back: BTreeSet::new(),
                monitors: Vec::new(),
                streams: (0..nodes).map(|_| StreamSlot::default()).collect(),
                outboxes: shared.workers.iter().map(|_| Outbox::default()).collect(),
                slab: BytesMut::new(),
                unrecorded: BTreeSet::new(),
                now_us: 0,
                awake_us: 0,
            }),
            shared,
            flush: Notify::new(),
            flush_wanted: Cell::new(false),
            mismatches: Cell::new((0, 0)),
            started: Instant::now(),
            metrics,
        });
        LocalSet::new().run_until(worker.run_tasks(nodes, mailbox)).await;
    }

    async fn run_tasks(self: Rc<Self>, nodes: usize, mailbox: mpsc::Receiver<Vec<Message>>) {
        self.note_time();
        for node in 0..nodes as NodeId {
            spawn_local(stream::run(self.clone(), node));
        }
        for peer in 0..self.shared.workers.len() {
            if peer != usize::from(self.id) {
                spawn_local(self.clone().forward_to(peer));
            }
        }
        spawn_local(self.clone().tick_for_ever());
        spawn_local(self.clone().flush_for_ever());
        if let Some(stripes) = self.shared.stripes.clone().filter(|_| self.id == 0) {
            spawn_local(crate::ingress::write_old_items(self.clone(), stripes));
        }
        self.read_mail(mailbox).await;
    }

    /// Nodes have come: each gets its stream.
    fn make_room(self: &Rc<Self>, nodes: usize) {
        let mut core = self.core.borrow_mut();
        while core.streams.len() < nodes {
            let node = core.streams.len() as NodeId;
            let down_since_us = core.now_us;
            core.streams.push(StreamSlot {
                down_since_us,
                ..StreamSlot::default()
            });
            core.sequencer.add_node();
            spawn_local(stream::run(self.clone(), node));
        }
    }

    /// A partition that it owns, for requests that are about none in particular.
    pub(crate) fn own_partition(&self) -> PartitionId {
        self.id
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its number.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// What it counts.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// Changes its state; what follows goes out with the next flush.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let result = change(&mut self.core.borrow_mut());
        self.want_flush();
        result
    }

    /// Its state, to be looked at or changed without anything that must go out.
    pub(crate) fn core_mut(&self) -> std::cell::RefMut<'_, Core> {
        self.core.borrow_mut()
    }

    fn want_flush(&self) {
        if !self.flush_wanted.replace(true) {
            self.flush.notify_one();
        }
    }

    /// Hands a request to the owner of its partition: this worker, or another one.
    pub(crate) fn submit(&self, core: &mut Core, owner: u16, request: Request) {
        if owner == self.id {
            core.sequencer.order(request);
        } else {
            core.mail(owner, Message::Request(request));
        }
    }

    /// Reads what a client has sent.
    ///
    /// A client without unfinished commands has no buffer of its own: the bytes go to one that all clients of the worker
    /// share, and their part of it becomes the client's. So idle clients cost nothing, and many small reads cost one
    /// allocation. A client in the middle of a command reads into its own buffer, which is made large enough for it.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        read: &mut ReadHalf,
        buf: &mut BytesMut,
        needed_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        if !buf.is_empty() {
            let missing = needed_bytes.saturating_sub(buf.len());
            buf.reserve(missing.clamp(4096, limits::READ_BUFFER_BYTES * 16));
            return poll_read_buf(Pin::new(read), cx, buf);
        }
        let mut core = self.core.borrow_mut();
        let slab = &mut core.slab;
        if slab.capacity() - slab.len() < limits::READ_BUFFER_BYTES / 8 {
            *slab = BytesMut::with_capacity(limits::READ_BUFFER_BYTES);
        }
        let result = poll_read_buf(Pin::new(read), cx, slab);
        if let Poll::Ready(Ok(n)) = result {
            *buf = slab.split_to(n);
        }
        result
    }

    /// Takes what a node's stream has received.
    pub(crate) fn receive(&self, node: NodeId, buf: &mut BytesMut) -> Result<(), Broken> {
        // A node that answers is busy no more.
        if self.shared.admissions.is_busy(node) {
            self.shared.admissions.set_busy(node, false);
        }
        self.with(|core| core.sequencer.receive(node, buf))
    }

    /// How many bytes the reply that a node has begun to send has at least.
    pub(crate) fn needed_bytes(&self, node: NodeId) -> usize {
        self.core.borrow().sequencer.needed_bytes(node)
    }

    /// A stream to a node is connected and ready.
    pub(crate) fn link_up(
        &self,
        node: NodeId,
        write: WriteHalf,
        applied: &HashMap<PartitionId, Position>,
    ) -> LinkReport {
        self.with(|core| {
            if let Some(slot) = core.streams.get_mut(usize::from(node)) {
                *slot = StreamSlot {
                    write: Some(Rc::new(write)),
                    ..StreamSlot::default()
                };
            }
            core.sequencer.link_up(node, applied)
        })
    }

    /// Is notified when the stream to a node should be given up.
    pub(crate) fn stream_closed(&self, node: NodeId) -> Rc<Notify> {
        self.core
            .borrow()
            .streams
            .get(usize::from(node))
            .map(|slot| slot.closed.clone())
            .unwrap_or_default()
    }

    /// A stream to a node is gone.
    pub(crate) fn link_down(&self, node: NodeId) {
        self.with(|core| {
            let now_us = core.now_us;
            if let Some(slot) = core.streams.get_mut(usize::from(node)) {
                *slot = StreamSlot {
                    down_since_us: now_us,
                    ..StreamSlot::default()
                };
            }
            core.sequencer.link_down(node);
        });
    }

    /// Reads the clocks, once for all that follows until the next flush.
    fn note_time(&self) {
        let mut core = self.core.borrow_mut();
        let now_us = self.started.elapsed().as_micros() as u64 + 1;
        let pool_ms = self.shared.pool_ms();
        // A node must not be found silent because this process was stopped, or short of time.
        core.awake_us += now_us.saturating_sub(core.now_us).min(AWAKE_STEP_US_MAX);
        core.now_us = now_us;
        core.clock.now_ms = pool_ms;
        let awake_ms = core.awake_us / 1000;
        core.sequencer.set_clock(awake_ms, pool_ms);
    }

    async fn tick_for_ever(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.note_time();
            self.tick();
        }
    }

    fn tick(&self) {
        let node_timeout_us = self.shared.config.timeouts.node.as_micros() as u64;
        self.with(|core| {
            for node in 0..core.streams.len() as NodeId {
                let admissions = &self.shared.admissions;
                let mine = core.sequencer.executes_script(node, admissions.is_busy(node));
                if admissions.executes_script(node, self.id, mine) {
                    core.sequencer.excuse(node);
                }
            }
            core.sequencer.tick();
            for (node, slot) in core.streams.iter().enumerate() {
                if slot.write.is_none() && core.now_us.saturating_sub(slot.down_since_us) > node_timeout_us {
                    core.sequencer.give_up(node as NodeId);
                }
            }
            self.record(core);
            let counters = core.sequencer.counters();
            self.metrics.batches.set(counters.batches);
            self.metrics.batched_writes.set(counters.batched_writes);
            self.metrics.writes.set(counters.writes);
            self.metrics.reads.set(counters.reads);
            self.metrics.mismatches.set(counters.mismatches);
            self.metrics.resent.set(counters.resent);
            self.metrics.repairs.set(counters.repairs);
            self.metrics.clients.set(core.clients.len() as u64);
            self.end_of_pause(core);
            self.metrics.held_back.set(core.held_back.len() as u64);
        });
    }

    /// Has recorded what can be recorded now of what has changed.
    fn record(&self, core: &mut Core) {
        let Core {
            unrecorded,
            sequencer,
            ..
        } = core;
        unrecorded.retain(|&partition| match sequencer.to_record(partition) {
            Some(members) => {
                self.shared.keeper.record(partition, members);
                false
            }
            None => true,
        });
    }

    /// A node has been silent for too long.
    fn close_stream(core: &mut Core, node: NodeId) {
        if let Some(slot) = core.streams.get_mut(usize::from(node)) {
            slot.closed.notify_one();
        }
    }

    /// Logs a difference between mirrors, but not each of many.
    fn note_mismatch(&self, now_us: u64, node: NodeId, partition: PartitionId) {
        let (logged_us, since) = self.mismatches.get();
        if logged_us > 0 && now_us < logged_us + MISMATCH_LOG_INTERVAL_US {
            return self.mismatches.set((logged_us, since + 1));
        }
        self.mismatches.set((now_us, 0));
        warn!(
            node = self.shared.node_name(node),
            partition,
            others_since = since,
            "a mirror answered otherwise than the first node"
        );
    }
}
