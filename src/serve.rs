//! A sidecar's life: open the pool, start the workers, end; with others to stand by for, again and again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::account::Position;
use crate::admin::{self, Admin, PidOf};
use crate::command::{CommandTable, TableError};
use crate::config::{Config, NodeAddress};
use crate::door::Door;
use crate::ingress::{Pause, SlowLog};
use crate::library::functions::{FunctionLibrary, Functions};
use crate::library::{Judge, Library};
use crate::metrics::WorkerMetrics;
use crate::mover::{self, Mover, Progress};
use crate::node::Claim;
use crate::pool::table::Table;
use crate::pool::{Candidacy, Keeper, OpenError, PoolEvent, Presence, open};
use crate::pubsub::Registry;
use crate::request::{NodeId, PartitionId};
use crate::sequencer::PartitionStart;
use crate::service::Service;
use crate::shared::{Message, Shared, unix_ms};
use crate::standby::{Standby, stand_by};
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
    let (service, watched) = Service::channel();
    let standby = Arc::new(Standby::default());
    let mut tasks = JoinSet::new();
    if let Some(address) = config.listen.admin {
        let listener = admin::bind(address).await.map_err(listen_error(address))?;
        info!(address = %listener.local_addr().unwrap_or(address), "admin port");
        let admin = Admin {
            service: watched.clone(),
            standby: standby.clone(),
            pid_of: extras.pid_of,
        };
        tasks.spawn(async move {
            if let Err(error) = admin::serve(listener, admin).await {
                error!(%error, "the admin port has failed");
            }
        });
    }
    let door = Door::bind(config.clone(), watched, standby.clone()).await?;
    let end = tokio::select! {
        error = live(&config, &service, &standby, door.advertised()) => Err(error),
        never = door.keep() => match never {},
        () = shutdown => Ok(()),
    };
    door.close();
    end
}

/// Serves the pool; with an address for other sidecars, stands by while one of them does, before and after.
async fn live(
    config: &Arc<Config>,
    service: &watch::Sender<Service>,
    standby: &Standby,
    peer: Option<NodeAddress>,
) -> ServeError {
    let Some(peer) = peer else {
        return serve_pool(config, service, None, &mut None).await;
    };
    let mut known = None;
    loop {
        let candidacy = match stand_by(config, service, standby, &peer, known.take()).await {
            Ok(candidacy) => candidacy,
            Err(error) => return error.into(),
        };
        known.clone_from(&candidacy.known);
        match serve_pool(config, service, Some(candidacy), &mut known).await {
            ServeError::Fenced(claim) => warn!(
                instance = claim.instance,
                term = claim.term,
                "another sidecar has taken over this pool: this one has been fenced, and stands by"
            ),
            ServeError::Open(OpenError::StoodBack) => debug!("this sidecar has not taken the pool"),
            error => return error,
        }
    }
}

/// Takes the pool and serves it, until it is lost; what is `known` of it is then what it was in the end.
async fn serve_pool(
    config: &Arc<Config>,
    service: &watch::Sender<Service>,
    candidacy: Option<Candidacy>,
    known: &mut Option<Table>,
) -> ServeError {
    let (event_sender, events) = mpsc::channel(POOL_EVENTS);
    let mut tasks = JoinSet::new();
    // Workers end with it.
    let ended = CancellationToken::new();
    let _guard = ended.clone().drop_guard();
    let (shared, presence) = match start(config, candidacy, event_sender, service, &mut tasks, &ended).await {
        Ok(started) => started,
        Err(error) => return error,
    };
    let serving = async {
        while !shared.views().await.iter().all(|view| view.ready) {
            tokio::time::sleep(READY_INTERVAL).await;
        }
        drop(presence);
        service.send_replace(Service::Here(shared.clone()));
        info!(workers = config.threads, "serving");
        std::future::pending().await
    };
    let claim = tokio::select! {
        claim = hear(&shared, events) => claim,
        never = serving => never,
    };
    *known = Some(shared.keeper.table());
    Service::opening(service);
    ServeError::Fenced(claim)
}

/// Opens the pool and starts everything that serves it; clients are let in when the workers are ready.
async fn start(
    config: &Arc<Config>,
    candidacy: Option<Candidacy>,
    events: mpsc::Sender<PoolEvent>,
    service: &watch::Sender<Service>,
    tasks: &mut JoinSet<()>,
    ended: &CancellationToken,
) -> Result<(Arc<Shared>, Presence), ServeError> {
    let roles: Vec<String> = (0..config.threads)
        .map(|w| format!("w{w}"))
        .chain(["c", mover::ROLE].map(str::to_owned))
        .collect();
    let opened = open(config, &roles, candidacy, service).await?;
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
        spawn_worker(id as u16, shared.clone(), starts, mailbox, ended.clone())
            .map_err(ServeError::Thread)?;
    }
    // Nearly always there in a moment: no reason to warn.
    let why = format!(
        "fewer than {} nodes of some partitions are connected (setting min_in_sync), see the log",
        config.pool.min_in_sync
    );
    Service::waits(service, &why);
    Ok((shared, opened.presence))
}

fn spawn_worker(
    id: u16,
    shared: Arc<Shared>,
    starts: Vec<PartitionStart>,
    mailbox: mpsc::Receiver<Vec<Message>>,
    ended: CancellationToken,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || {
            let run = Worker::run(id, shared, starts, mailbox);
            runtime.block_on(ended.run_until_cancelled(run))
        })?;
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
                    // A worker lives as long as this task.
                    drop(worker.send(vec![Message::Recorded(sets.clone())]).await);
                }
            }
        }
    }
    std::future::pending().await
}

/// The error of an address that cannot be listened on.
pub(crate) fn listen_error(what: impl ToString) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError::Listen {
        what: what.to_string(),
        error,
    }
}
