//! What all threads of one sidecar share: settings, the table, the commands, the library, and the ways to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::command::CommandTable;
use crate::config::Config;
use crate::library::Library;
use crate::metrics::WorkerMetrics;
use crate::net::Socket;
use crate::node::Instance;
use crate::pool::Admissions;
use crate::pool::table::Table;
use crate::pubsub::{Delivery, Publication, Registry};
use crate::request::{NodeId, Outcome, PartitionId, ReplyTo, Request};
use crate::sequencer::NodeView;

/// What a worker is told by others.
#[derive(Debug)]
pub enum Message {
    /// A client has connected; it is this worker's from now on.
    Accept(std::net::TcpStream),
    /// The same over a unix socket.
    AcceptUnix(std::os::unix::net::UnixStream),
    /// A request for a partition that this worker owns.
    Request(Request),
    /// The end of a request that came from this worker.
    Outcome(ReplyTo, Outcome),
    /// A publication on a channel that this worker owns, and who waits for it.
    Publish(Publication, ReplyTo),
    /// A publication that clients of this worker get.
    Deliver(Arc<Delivery>),
    /// The table's record has these sets of nodes in sync.
    Recorded(Vec<(PartitionId, u8)>),
    /// An operator wants to know how things are.
    View(oneshot::Sender<WorkerView>),
}

impl Message {
    /// A message that hands a client over.
    pub fn accept(socket: Socket) -> std::io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(stream) => Self::Accept(stream.into_std()?),
            Socket::Unix(stream) => Self::AcceptUnix(stream.into_std()?),
        })
    }
}

/// How a worker stands.
#[derive(Debug, Default)]
pub struct WorkerView {
    /// Its nodes, in the table's order.
    pub nodes: Vec<NodeView>,
    /// Whether each of its partitions has the nodes it needs to take writes.
    pub ready: bool,
    /// Its partitions: number, epoch, seq, nodes in sync by bit.
    pub partitions: Vec<(PartitionId, u64, u64, u8)>,
}

/// Everything that is shared.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub config: Arc<Config>,
    /// The table, as it was last recorded.
    pub table: ArcSwap<Table>,
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
    /// Number of the next client.
    pub next_client_id: AtomicU64,
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

    /// Name of a node.
    pub fn node_name(&self, node: NodeId) -> String {
        self.table
            .load()
            .nodes
            .get(usize::from(node))
            .map_or_else(|| format!("#{node}"), |n| n.name.clone())
    }
}

/// This host's clock, Unix ms.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}
