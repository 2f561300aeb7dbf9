//! What all threads of one sidecar share: settings, the table, the commands, the library, and the ways to each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::command::CommandTable;
use crate::command::dump::Question;
use crate::config::Config;
use crate::ingress::{Pause, RollCall, SlowLog};
use crate::library::Library;
use crate::metrics::{Totals, WorkerMetrics};
use crate::mover::Progress;
use crate::net::Socket;
use crate::node::Instance;
use crate::pool::Admissions;
use crate::pool::table::Table;
use crate::pubsub::{Delivery, Publication, Registry};
use crate::request::{Action, HoldId, Membership, NodeId, Outcome, PartitionId, ReplyTo, Request};
use crate::ring::Keyspace;
use crate::sequencer::{NodeView, PartitionView};
use crate::stripe::{Inside, Stripes};
use crate::verify::Verifier;

/// What a worker is told by others.
#[derive(Debug)]
pub enum Message {
    /// A client has connected; it is this worker's from now on. Its address, if not the other end of the connection.
    Accept(std::net::TcpStream, Option<SocketAddr>),
    /// The same over a unix socket.
    AcceptUnix(std::os::unix::net::UnixStream),
    /// A request for a partition that this worker owns.
    Request(Request),
    /// The requests before this one were made inside of a queue.
    Leave(Inside),
    /// The end of a request that came from this worker.
    Outcome(ReplyTo, Outcome),
    /// A publication on a channel that this worker owns, and who waits for it.
    Publish(Publication, ReplyTo),
    /// A publication that clients of this worker get.
    Deliver(Arc<Delivery>),
    /// The table's record has these nodes of partitions.
    Recorded(Vec<(PartitionId, Membership)>),
    /// A client of another worker asks about the clients of all.
    RollCall(RollCall, ReplyTo),
    /// A command that a client of another worker has sent, as monitors are shown it.
    Monitored(Bytes),
    /// An operator wants to know how things are.
    View(oneshot::Sender<WorkerView>),
    /// So many nodes are in the table now.
    Nodes(usize),
    /// Requests that come from no client: see `worker::operate`.
    Operate(Operation),
}

impl Message {
    /// A message that hands a client over.
    pub fn accept(arrival: Arrival) -> std::io::Result<Self> {
        Ok(match arrival.socket {
            Socket::Tcp(stream) => Self::Accept(stream.into_std()?, arrival.from),
            Socket::Unix(stream) => Self::AcceptUnix(stream.into_std()?),
        })
    }
}

/// A client that has connected.
#[derive(Debug)]
pub struct Arrival {
    /// Its connection.
    pub socket: Socket,
    /// Where it is, if another sidecar has passed it on.
    pub from: Option<SocketAddr>,
}

impl Arrival {
    /// One that has come itself.
    pub fn new(socket: Socket) -> Self {
        Self { socket, from: None }
    }
}

/// Requests of who looks after the pool, for partitions of one worker.
#[derive(Debug)]
pub struct Operation {
    /// The hold that they belong to, or make.
    pub under: HoldId,
    /// The logical database.
    pub db: u16,
    /// Ordered one after the other.
    pub actions: Vec<(PartitionId, Action)>,
    /// What became of them.
    pub done: oneshot::Sender<Vec<Outcome>>,
}

/// How a worker stands.
#[derive(Debug, Default)]
pub struct WorkerView {
    /// Its nodes, in the table's order.
    pub nodes: Vec<NodeView>,
    /// Whether each of its partitions has the nodes it needs to take writes.
    pub ready: bool,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
}

/// Shortest time that a rate is taken over: over less it would be chance.
const RATE_INTERVAL_MS: u64 = 100;

/// Where `INFO` counts from.
#[derive(Debug, Default)]
pub struct Counted {
    /// At the last `CONFIG RESETSTAT`.
    reset: Totals,
    /// When rates were last taken (Unix ms), and the counts then.
    sample: Option<(u64, [u64; 3])>,
    rates: [f64; 3],
}

/// Everything that is shared.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub config: Arc<Config>,
    /// The table, as it was last recorded.
    pub table: ArcSwap<Table>,
    /// How keys are divided into partitions.
    pub keyspace: Arc<Keyspace>,
    /// What is known of queues that are spread over nodes, if the profile has such.
    pub stripes: Option<Arc<Stripes>>,
    /// The commands all nodes know.
    pub commands: Arc<CommandTable>,
    /// Who we are to the nodes.
    pub instance: Instance,
    /// Our term.
    pub term: u64,
    /// Lowest version among the nodes: the one clients are told.
    pub version: String,
    /// How many logical databases every node has.
    pub databases: u16,
    /// Which nodes have been claimed.
    pub admissions: Arc<Admissions>,
    /// Partitions in which some key may expire.
    pub expiring: Box<[AtomicBool]>,
    /// The scripts and functions of the pool.
    pub library: Library,
    /// Who has subscribed to what.
    pub pubsub: Registry,
    /// The pool's clock minus this host's, in ms.
    pub clock_offset_ms: AtomicI64,
    /// Ways to the workers; messages travel in bunches.
    pub workers: Vec<mpsc::Sender<Vec<Message>>>,
    /// What the workers count.
    pub metrics: Vec<Arc<WorkerMetrics>>,
    /// Clients connected now.
    pub clients: AtomicUsize,
    /// Clients that wait for data.
    pub blocked: AtomicUsize,
    /// Those that were turned away because there were too many.
    pub rejected_clients: AtomicU64,
    /// Number of the next client.
    pub next_client_id: AtomicU64,
    /// Workers with a client that monitors, by bit.
    pub monitored_by: AtomicU64,
    /// `CLIENT PAUSE`.
    pub pause: Pause,
    /// Commands that took long.
    pub slow_log: SlowLog,
    /// Compares copies.
    pub verifier: Arc<Verifier>,
    /// How far moves are.
    pub progress: Progress,
    /// What `INFO` counts from.
    pub counted: Mutex<Counted>,
    /// When the sidecar started, Unix ms.
    pub started_ms: u64,
    /// Changes of partitions' sets that should be recorded.
    pub keeper: Arc<crate::pool::Keeper>,
}

impl Shared {
    /// The worker that owns a partition.
    pub fn owner_of(&self, partition: PartitionId) -> u16 {
        (usize::from(partition) % self.workers.len().max(1)) as u16
    }

    /// Notes that a key of the partition may expire.
    pub fn note_expiry(&self, partition: PartitionId) {
        if let Some(flag) = self.expiring.get(usize::from(partition)) {
            flag.store(true, Relaxed);
        }
    }

    /// Whether a key of the partition may expire.
    pub fn may_expire(&self, partition: PartitionId) -> bool {
        self.expiring
            .get(usize::from(partition))
            .is_none_or(|flag| flag.load(Relaxed))
    }

    /// Whether clients have a database of this number.
    pub fn has_database(&self, db: u16) -> bool {
        db < self.databases && db != self.config.pool.bookkeeping_db
    }

    /// The pool's clock, Unix ms.
    pub fn pool_ms(&self) -> u64 {
        (unix_ms() as i64 + self.clock_offset_ms.load(Relaxed)).max(0) as u64
    }

    /// The pool's clock minus this host's, in us.
    pub fn clock_offset_us(&self) -> i64 {
        self.clock_offset_ms.load(Relaxed).saturating_mul(1000)
    }

    /// What the workers have counted since the start, or since [`Shared::reset_counts`].
    pub fn counts(&self) -> Totals {
        self.all_counts().since(&lock(&self.counted).reset)
    }

    /// Counts from 0 again, for `INFO`; `/metrics` counts on.
    pub fn reset_counts(&self) {
        let now = self.all_counts();
        lock(&self.counted).reset = now;
    }

    /// Commands, and bytes in and out, in a second, since somebody last wanted to know.
    pub fn rates(&self) -> [f64; 3] {
        let all = self.all_counts();
        let now = [all.calls(), all.bytes_in, all.bytes_out];
        let mut counted = lock(&self.counted);
        let now_ms = unix_ms();
        let (then_ms, then) = counted.sample.unwrap_or((self.started_ms, [0; 3]));
        let elapsed_ms = now_ms.saturating_sub(then_ms);
        if elapsed_ms >= RATE_INTERVAL_MS {
            let mut rates = [0.0; 3];
            for ((rate, now), then) in rates.iter_mut().zip(now).zip(then) {
                *rate = now.saturating_sub(then) as f64 * 1000.0 / elapsed_ms as f64;
            }
            counted.rates = rates;
            counted.sample = Some((now_ms, now));
        }
        counted.rates
    }

    fn all_counts(&self) -> Totals {
        Totals::of(
            self.metrics.iter().map(Arc::as_ref),
            self.next_client_id.load(Relaxed),
        )
    }

    /// Asks all workers how they stand.
    pub async fn views(&self) -> Vec<WorkerView> {
        let mut views = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (sender, receiver) = oneshot::channel();
            if worker.send(vec![Message::View(sender)]).await.is_ok()
                && let Ok(view) = receiver.await
            {
                views.push(view);
            }
        }
        views
    }

    /// Has the owners of partitions do something, under a hold of that number: what became of each. Each owner's come in their
    /// order; owners do not wait for each other.
    pub async fn operate(&self, under: HoldId, db: u16, actions: Vec<(PartitionId, Action)>) -> Vec<Outcome> {
        type Numbered = (usize, (PartitionId, Action));
        let mut by_owner: BTreeMap<u16, Vec<Numbered>> = BTreeMap::new();
        let mut outcomes = vec![Outcome::Unknown; actions.len()];
        for (i, action) in actions.into_iter().enumerate() {
            by_owner
                .entry(self.owner_of(action.0))
                .or_default()
                .push((i, action));
        }
        let asked = by_owner.into_iter().map(|(owner, actions)| async move {
            let (places, actions): (Vec<usize>, Vec<_>) = actions.into_iter().unzip();
            let (done, answer) = oneshot::channel();
            let operation = Operation {
                under,
                db,
                actions,
                done,
            };
            if let Some(worker) = self.workers.get(usize::from(owner)) {
                // A worker lives as long as the pool is served.
                drop(worker.send(vec![Message::Operate(operation)]).await);
            }
            places.into_iter().zip(answer.await.unwrap_or_default())
        });
        for (i, outcome) in futures::future::join_all(asked).await.into_iter().flatten() {
            if let Some(place) = outcomes.get_mut(i) {
                *place = outcome;
            }
        }
        outcomes
    }

    /// Holds these partitions, which are sorted, so many at once, if that is possible in that time. Owners are asked one after the
    /// other, so that no two wait for each other: procedures of clients take theirs in the same order, whoever owns them. What is
    /// held, or still waited for, is to be [released](Action::Release) in any case.
    ///
    /// # Errors
    /// The first of those that somebody else holds for longer.
    pub async fn hold(
        &self,
        by: HoldId,
        partitions: &[PartitionId],
        at_once: usize,
        patience: Duration,
    ) -> Result<(), PartitionId> {
        let end = Instant::now() + patience;
        for run in partitions.chunk_by(|a, b| self.owner_of(*a) == self.owner_of(*b)) {
            for some in run.chunks(at_once.max(1)) {
                let actions = some.iter().map(|&partition| (partition, Action::Hold));
                let asked = self.operate(by, 0, actions.collect());
                let left = end.saturating_duration_since(Instant::now());
                let outcomes = tokio::time::timeout(left, asked).await.unwrap_or_default();
                let is_held = outcomes.iter().all(|outcome| *outcome == Outcome::Done);
                if outcomes.len() != some.len() || !is_held {
                    return Err(some.first().copied().unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    /// How nodes are asked for a key.
    pub fn question(&self) -> Question {
        Question::to(&self.version)
    }

    /// Name of a node.
    pub fn node_name(&self, node: NodeId) -> String {
        self.table
            .load()
            .nodes
            .get(usize::from(node))
            .map_or_else(|| format!("#{node}"), |n| n.name.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This host's clock, Unix ms.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}
