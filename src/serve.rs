//! A sidecar's life: open the pool, start the workers, take clients in, end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::account::Position;
use crate::admin::{self, Admin, PidOf};
use crate::command::{CommandTable, ErrorReply, TableError};
use crate::config::Config;
use crate::ingress::{Pause, SlowLog};
use crate::library::functions::{FunctionLibrary, Functions};
use crate::library::{Judge, Library};
use crate::metrics::WorkerMetrics;
use crate::mover::{self, Mover, Progress};
use crate::net::Socket;
use crate::node::Claim;
use crate::pool::{Keeper, OpenError, PoolEvent, open};
use crate::pubsub::Registry;
use crate::request::{NodeId, PartitionId};
use crate::sequencer::PartitionStart;
use crate::shared::{Message, Shared, unix_ms};
use crate::stripe::Stripes;
use crate::worker::Worker;

/// Events of the pool that may wait to be heard.
const POOL_EVENTS: usize = 64;

/// How often the workers are asked whether their streams are connected, before the first client is let in.
const READY_INTERVAL: Duration = Duration::from_millis(5);

/// Why a sidecar ended, or did not begin.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {what}: {error}")]
    Listen {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// The pool cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The nodes do not say what their commands are.
    #[error("the nodes' commands cannot be read: {0}")]
    Commands(#[from] TableError),
    /// A thread could not be started.
    #[error("a worker thread could not be started: {0}")]
    Thread(io::Error),
    /// Another sidecar has taken the pool over.
    #[error(
        "another sidecar (instance {}, term {}) has taken over this pool, and this one has been fenced: no client of it is \
         served any more. One sidecar at a time serves a pool; start this one again to take the pool back",
        .0.instance, .0.term
    )]
    Fenced(Claim),
}

/// What only `dev` adds.
#[derive(Default)]
pub struct Extras {
    /// The process of a node, for `/v1/nodes`.
    pub pid_of: Option<PidOf>,
}

impl std::fmt::Debug for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extras").finish_non_exhaustive()
    }
}

/// Where clients come from.
struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

/// Serves until `shutdown` is done, or the pool is lost.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(
    config: Config,
    extras: Extras,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    let (opened_sender, opened_receiver) = watch::channel(None);
    let (waits_sender, waits) = watch::channel(String::new());
    if let Some(address) = config.listen.admin {
        let listener = admin::bind(address).await.map_err(listen_error(address))?;
        info!(address = %listener.local_addr().unwrap_or(address), "admin port");
        let admin = Admin {
            shared: opened_receiver,
            waits: waits.clone(),
            pid_of: extras.pid_of,
        };
        tasks.spawn(async move {
            if let Err(error) = admin::serve(listener, admin).await {
                error!(%error, "the admin port has failed");
            }
        });
    }
    // Bound before the pool is opened, so that a mistake in an address is told at once.
    let listeners = bind(&config).await?;
    let (event_sender, events) = mpsc::channel(POOL_EVENTS);
    tokio::pin!(shutdown);
    let started = tokio::select! {
        started = start(&config, event_sender, &waits_sender, &mut tasks) => started?,
        never = turn_away(&listeners, &waits) => match never {},
        () = &mut shutdown => return Ok(()),
    };
    drop(opened_sender.send_replace(Some(started.clone())));
    info!(workers = config.threads, "serving");
    let end = tokio::select! {
        never = accept_for_ever(&started, &listeners) => match never {},
        claim = hear(&started, events) => Err(ServeError::Fenced(claim)),
        () = &mut shutdown => Ok(()),
    };
    if let Some((_, path)) = &listeners.unix {
        drop(std::fs::remove_file(path));
    }
    end
}

/// Opens the pool and starts everything that serves it.
async fn start(
    config: &Arc<Config>,
    events: mpsc::Sender<PoolEvent>,
    waits: &watch::Sender<String>,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Shared>, ServeError> {
    let roles: Vec<String> = (0..config.threads)
        .map(|w| format!("w{w}"))
        .chain(["c", mover::ROLE].map(str::to_owned))
        .collect();
    let opened = open(config, &roles, waits).await?;
    let keeper = Keeper::new(
        config.clone(),
        opened.instance.clone(),
        opened.claim.clone(),
        roles,
        opened.table.clone(),
        opened.shelf.clone(),
        events,
    );
    let (senders, mailboxes): (Vec<_>, Vec<_>) = (0..config.threads)
        .map(|_| mpsc::channel::<Vec<Message>>(crate::limits::MAILBOX_BUNCHES))
        .unzip();
    let commands = Arc::new(CommandTable::from_nodes(&opened.commands)?);
    let profile = config.profile();
    let judge = Judge::new(
        commands.clone(),
        config.pool.replicas,
        opened.table.partitions(),
        config.threads == 1 && opened.table.nodes.len() == config.pool.replicas,
    )
    .with_rules(&profile.keys);
    let mut functions = Functions::default();
    for (text, registered) in opened.libraries {
        let taken = FunctionLibrary::new(&judge, text, registered).map_err(str::to_owned);
        let taken = taken.and_then(|library| {
            functions
                .insert(library)
                .map_err(|name| String::from_utf8_lossy(&name).into_owned())
        });
        if let Err(why) = taken {
            warn!("a function library is left out: {why}");
        }
    }
    let limits = &config.limits;
    let shared = Arc::new(Shared {
        metrics: (0..config.threads)
            .map(|_| Arc::new(WorkerMetrics::new(commands.len())))
            .collect(),
        library: Library::new(judge, opened.shelf.texts(b's').cloned(), functions),
        commands,
        instance: opened.instance,
        term: opened.claim.term,
        version: opened.version,
        databases: opened.databases,
        admissions: keeper.admissions(),
        // Of a pool that was there before, nobody knows.
        expiring: opened
            .table
            .rows
            .iter()
            .map(|_| AtomicBool::new(opened.table.version > 1))
            .collect(),
        pubsub: Registry::default(),
        clock_offset_ms: AtomicI64::new(opened.clock_offset_ms),
        clients: AtomicUsize::new(0),
        blocked: AtomicUsize::new(0),
        rejected_clients: AtomicU64::new(0),
        next_client_id: AtomicU64::new(0),
        monitored_by: AtomicU64::new(0),
        pause: Pause::default(),
        slow_log: SlowLog::new(limits.slowlog_slower_than, limits.slowlog_max_len),
        counted: Mutex::default(),
        verifier: Arc::default(),
        progress: Progress::default(),
        started_ms: unix_ms(),
        workers: senders,
        keeper: keeper.clone(),
        config: config.clone(),
        keyspace: Arc::new(opened.table.keyspace()),
        stripes: profile.is_striped().then(|| Arc::new(Stripes::new(profile))),
        table: ArcSwap::from_pointee(opened.table),
    });
    let table = shared.table.load();
    for node in 0..table.nodes.len() {
        tasks.spawn(keeper.clone().watch_node(node as u16));
    }
    tasks.spawn(keeper.clone().keep_record());
    tasks.spawn(keeper.keep_library());
    tasks.spawn(Mover::new(shared.clone()).run());
    tasks.spawn(shared.verifier.clone().run(shared.clone()));
    for (id, mailbox) in mailboxes.into_iter().enumerate() {
        let starts: Vec<PartitionStart> = table
            .rows
            .iter()
            .enumerate()
            .filter(|(partition, _)| usize::from(shared.owner_of(*partition as PartitionId)) == id)
            .map(|(partition, row)| PartitionStart {
                partition: partition as PartitionId,
                position: Position {
                    epoch: row.epoch,
                    seq: row.start,
                },
                since: row.since,
                replicas: row.replicas.iter().copied().collect::<SmallVec<_>>(),
                in_sync: row.in_sync,
            })
            .collect();
        spawn_worker(id as u16, shared.clone(), starts, mailbox).map_err(ServeError::Thread)?;
    }
    waits.send_replace(format!(
        "fewer than {} nodes of some partitions are connected (setting min_in_sync), see the log",
        config.pool.min_in_sync
    ));
    while !shared.views().await.iter().all(|view| view.ready) {
        tokio::time::sleep(READY_INTERVAL).await;
    }
    Ok(shared)
}

fn spawn_worker(
    id: u16,
    shared: Arc<Shared>,
    starts: Vec<PartitionStart>,
    mailbox: mpsc::Receiver<Vec<Message>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || runtime.block_on(Worker::run(id, shared, starts, mailbox)))?;
    Ok(())
}

/// Hears what happens to the pool, until it is lost.
async fn hear(shared: &Arc<Shared>, mut events: mpsc::Receiver<PoolEvent>) -> Claim {
    let mut watched = shared.table.load().nodes.len();
    let mut watchers = JoinSet::new();
    while let Some(event) = events.recv().await {
        match event {
            PoolEvent::Fenced(claim) => return claim,
            PoolEvent::Changed => {
                let table = Arc::new(shared.keeper.table());
                shared.table.store(table.clone());
                shared.progress.changed.notify_one();
                let nodes = table.nodes.len();
                for worker in &shared.workers {
                    drop(worker.send(vec![Message::Nodes(nodes)]).await);
                }
                while watched < nodes {
                    watchers.spawn(shared.keeper.clone().watch_node(watched as NodeId));
                    watched += 1;
                }
                if table.members().count() > shared.config.pool.replicas
                    && shared.library.judge.is_one_place()
                    && let Err(lost) = shared.library.spread_out()
                {
                    warn!(
                        "function libraries that cannot be used in a pool of this size are left out: {lost}"
                    );
                }
            }
            PoolEvent::Recorded(sets) => {
                shared.table.store(Arc::new(shared.keeper.table()));
                for worker in &shared.workers {
                    // A worker lives as long as the program.
                    drop(worker.send(vec![Message::Recorded(sets.clone())]).await);
                }
            }
        }
    }
    std::future::pending().await
}

async fn bind(config: &Config) -> Result<Listeners, ServeError> {
    let tcp = match config.listen.tcp {
        Some(address) => {
            let listener = TcpListener::bind(address).await.map_err(listen_error(address))?;
            info!(address = %listener.local_addr().unwrap_or(address), "listening");
            Some(listener)
        }
        None => None,
    };
    let unix = match &config.listen.unix {
        Some(path) => {
            remove_stale(path).await;
            let listener = UnixListener::bind(path).map_err(listen_error(path.display()))?;
            info!(path = %path.display(), "listening");
            Some((listener, path.clone()))
        }
        None => None,
    };
    Ok(Listeners { tcp, unix })
}

/// Removes a socket that nobody listens on: what a killed sidecar leaves behind.
async fn remove_stale(path: &Path) {
    let refused = tokio::net::UnixStream::connect(path).await;
    if refused.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        drop(std::fs::remove_file(path));
    }
}

fn listen_error(what: impl ToString) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError::Listen {
        what: what.to_string(),
        error,
    }
}

/// Takes clients in, the workers in turn.
async fn accept_for_ever(shared: &Arc<Shared>, listeners: &Listeners) -> std::convert::Infallible {
    loop {
        take_in(shared, accept(listeners).await).await;
    }
}

/// How long clients just wait while the pool waits for something: most of what it waits for is over by then.
const WAITED_FOR: Duration = Duration::from_secs(1);

/// How long a client may take for its first command while nobody is served.
const TURNED_AWAY_AFTER: Duration = Duration::from_secs(5);

/// Clients that are told to come again, at most; the others wait until they are accepted.
const TURNED_AWAY_MAX: usize = 100;

/// Tells clients why they are not served yet, as a server does that loads its file: with drivers, that is a reason to try again. Those of a pool
/// that is just being opened are accepted when it is.
async fn turn_away(listeners: &Listeners, waits: &watch::Receiver<String>) -> std::convert::Infallible {
    drop(waits.clone().wait_for(|why| !why.is_empty()).await);
    tokio::time::sleep(WAITED_FOR).await;
    let mut clients = JoinSet::new();
    loop {
        let (mut read, write) = accept(listeners).await.into_split();
        let line = ErrorReply::new(format!(
            "LOADING Ringfence is not serving yet: {}",
            *waits.borrow()
        ))
        .to_bytes();
        clients.spawn(async move {
            // An answer must not come before the question; and one that is not read would cut the answer off.
            let mut question = vec![0; 16 * 1024];
            if let Ok(Ok(1..)) = tokio::time::timeout(TURNED_AWAY_AFTER, read.read(&mut question)).await {
                drop(write.try_write_vectored(&[io::IoSlice::new(&line)]));
            }
        });
        while clients.len() >= TURNED_AWAY_MAX {
            clients.join_next().await;
        }
    }
}

async fn accept(listeners: &Listeners) -> Socket {
    loop {
        let accepted = tokio::select! {
            stream = accept_tcp(listeners) => stream,
            stream = accept_unix(listeners) => stream,
        };
        match accepted {
            Ok(socket) => return socket,
            Err(error) => {
                // Usually too many open files: give some time for others to be closed.
                warn!(%error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

async fn accept_tcp(listeners: &Listeners) -> io::Result<Socket> {
    match &listeners.tcp {
        Some(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
        None => std::future::pending().await,
    }
}

async fn accept_unix(listeners: &Listeners) -> io::Result<Socket> {
    match &listeners.unix {
        Some((listener, _)) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
        None => std::future::pending().await,
    }
}

async fn take_in(shared: &Arc<Shared>, socket: Socket) {
    if shared.clients.load(Relaxed) >= shared.config.limits.clients_max {
        shared.rejected_clients.fetch_add(1, Relaxed);
        // What Redis says; the connection closes when it is dropped.
        let (_, write) = socket.into_split();
        let line = io::IoSlice::new(b"-ERR max number of clients reached\r\n");
        drop(write.try_write_vectored(&[line]));
        return;
    }
    let turn = shared.clients.fetch_add(1, Relaxed);
    let id = turn % shared.workers.len().max(1);
    let Some(worker) = shared.workers.get(id) else {
        return;
    };
    match Message::accept(socket) {
        Ok(message) => drop(worker.send(vec![message]).await),
        Err(error) => {
            shared.clients.fetch_sub(1, Relaxed);
            warn!(%error, "a client was lost before its first byte");
        }
    }
}
