//! The admin port: how the pool is, for people, scripts and Prometheus. HTTP and JSON.
//!
//! Most of it only looks: workers are asked for a view of themselves, and answer between two batches. What changes the pool is in
//! [`changes`].

mod changes;
mod queues;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json};
use axum::routing::{get, patch, post};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::metrics::{NodeSample, PoolSample, render, render_standby};
use crate::pool::{FORGETS, TroubleKind};
use crate::request::NodeId;
use crate::service::Service;
use crate::shared::{Shared, WorkerView};
use crate::standby::Standby;

/// How long a worker may take to answer before it counts as stuck.
const VIEW_TIMEOUT: Duration = Duration::from_secs(2);

/// Under `dev`: tells the process of a node by its name.
pub type PidOf = Box<dyn Fn(&str) -> Option<u32> + Send + Sync>;

/// What the admin port knows before the pool is open, and after.
pub struct Admin {
    /// Who serves the pool.
    pub service: tokio::sync::watch::Receiver<Service>,
    /// Whose clients are passed on.
    pub standby: Arc<Standby>,
    /// Under `dev`: the process of a node.
    pub pid_of: Option<PidOf>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    fn open(&self) -> Result<Arc<Shared>, Unavailable> {
        match &*self.service.borrow() {
            Service::Here(shared) => Ok(shared.clone()),
            Service::There(active) => Err(Unavailable {
                // Asking again does not help.
                status: StatusCode::MISDIRECTED_REQUEST,
                error: format!(
                    "this sidecar stands by: ask the admin port of the one that serves the pool, on the host of {} (where other sidecars \
                     reach it)",
                    active.address
                ),
            }),
            Service::Nobody(_) => Err(Unavailable::for_now("the pool is not served yet")),
        }
    }
}

/// This sidecar does not serve the pool, or a worker does not answer.
struct Unavailable {
    status: StatusCode,
    error: String,
}

impl Unavailable {
    fn for_now(error: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: error.to_owned(),
        }
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> axum::response::Response {
        let body = Json(serde_json::json!({"error": self.error}));
        (self.status, body).into_response()
    }
}

/// Serves the admin port, for ever.
pub async fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/pool", get(pool))
        .route("/v1/nodes", get(nodes).post(changes::add_node))
        .route(
            "/v1/nodes/{name}",
            patch(changes::patch_node).delete(changes::remove_node),
        )
        .route("/v1/nodes/{name}/drain", post(changes::drain))
        .route("/v1/ring", get(changes::ring))
        .route(
            "/v1/verify",
            get(changes::verification)
                .post(changes::verify)
                .delete(changes::stop_verifying),
        )
        .route("/v1/ring/plan", get(changes::ring_plan))
        .route("/v1/ring/pause", post(changes::pause))
        .route("/v1/ring/resume", post(changes::resume))
        .route("/v1/ring/cancel", post(changes::cancel))
        .route("/v1/partitions", get(partitions))
        .route("/v1/queues", get(queues::queues))
        .fallback(|| async {
            let known = [
                "/healthz",
                "/readyz",
                "/metrics",
                "/v1/pool",
                "/v1/nodes",
                "/v1/partitions",
                "/v1/queues",
                "/v1/ring",
                "/v1/ring/plan",
                "/v1/verify",
            ];
            (
                StatusCode::NOT_FOUND,
                Json(serde_json::json!({"error": "no such path", "paths": known})),
            )
        })
        .layer(axum::middleware::from_fn(changes::only_on_purpose))
        .with_state(Arc::new(admin));
    axum::serve(listener, app).await
}

/// Binds the admin port.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let service = admin.service.borrow();
    match (&*service, service.waits_for()) {
        (_, Some(why)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not serving yet: {why}\n"),
        ),
        (Service::There(active), None) => {
            let address = &active.address;
            (
                StatusCode::OK,
                format!("ready: clients are passed on to {address}\n"),
            )
        }
        _ => (StatusCode::OK, "ready\n".to_owned()),
    }
}

#[derive(Serialize)]
struct PoolView {
    name: String,
    id: String,
    instance: String,
    term: u64,
    version: u64,
    replicas: u32,
    write_quorum: u32,
    min_in_sync: usize,
    partitions: u16,
    serving: bool,
}

async fn pool(State(admin): State<Arc<Admin>>) -> Result<Json<PoolView>, Unavailable> {
    let shared = admin.open()?;
    let table = shared.table.load();
    Ok(Json(PoolView {
        name: table.pool.clone(),
        id: table.id.clone(),
        instance: shared.instance.id.clone(),
        term: shared.term,
        version: table.version,
        replicas: table.replicas,
        write_quorum: table.write_quorum,
        min_in_sync: shared.config.pool.min_in_sync,
        partitions: table.partitions(),
        serving: true,
    }))
}

/// A node, for people.
#[derive(Serialize)]
struct NodeEntry {
    name: String,
    address: String,
    state: &'static str,
    reason: Option<String>,
    status: &'static str,
    weight: u32,
    zone: Option<String>,
    partitions: u32,
    in_sync: u32,
    wanted: u32,
    lag_ops: u64,
    memory_bytes: u64,
    #[serde(skip)]
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

async fn nodes(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<NodeEntry>>, Unavailable> {
    let shared = admin.open()?;
    let views = views(&shared).await?;
    Ok(Json(entries(&shared, &views, admin.pid_of.as_ref())))
}

fn entries(shared: &Shared, views: &[WorkerView], pid_of: Option<&PidOf>) -> Vec<NodeEntry> {
    let table = shared.table.load();
    let target = table.target(|_| false);
    let job = shared.progress.view().job;
    let entry = |(id, node): (NodeId, &crate::pool::table::TableNode)| {
        let id = usize::from(id);
        let of_node = || views.iter().filter_map(move |view| view.nodes.get(id));
        let health = shared.keeper.health(id as NodeId);
        let partitions: u32 = of_node().map(|v| v.partitions).sum();
        let live: u32 = of_node().map(|v| v.live).sum();
        let up = of_node().all(|v| v.up);
        let streaming: u32 = of_node().map(|v| v.streaming).sum();
        let refused = of_node().find_map(|v| v.refused.clone());
        let trouble = health.trouble.filter(|_| !up);
        let (state, reason) = if let Some(trouble) = trouble {
            let state = match trouble.kind {
                TroubleKind::Away => "connecting",
                TroubleKind::Refuses => "refusing",
                TroubleKind::Unfit => "unfit",
            };
            (state, Some(trouble.why))
        } else if let Some(why) = refused {
            ("refusing", Some(why))
        } else if !up {
            ("connecting", Some("its streams are not connected".into()))
        } else if streaming < partitions {
            let short = partitions - streaming;
            let why = format!(
                "{short} of {partitions} partitions are not what the backlog could complete: it is given copies of them"
            );
            let is_given = job
                .as_ref()
                .is_some_and(|job| job.to == node.name && job.from != job.to);
            (if is_given { "copying" } else { "out_of_sync" }, Some(why))
        } else if live < partitions {
            ("catching_up", None)
        } else if shared.admissions.is_full(std::iter::once(id as NodeId)) {
            let why =
                "its memory is nearly full (maxmemory): growing writes to what it holds are refused (-OOM)";
            ("full", Some(why.into()))
        } else {
            let forgets = health.info.forgets();
            ("in_sync", forgets.then(|| format!("in sync, but it {FORGETS}")))
        };
        let wanted = target.iter().filter(|set| set.contains(&(id as NodeId))).count() as u32;
        let status = match (node.draining, partitions) {
            (true, 0) => "drained",
            (true, _) => "draining",
            (false, 0) if wanted > 0 && !up => "away",
            (false, _) => "active",
        };
        NodeEntry {
            status,
            wanted,
            name: node.name.clone(),
            address: node.address.to_string(),
            state,
            reason,
            weight: node.weight,
            zone: node.zone.clone(),
            partitions,
            in_sync: live,
            lag_ops: of_node().map(|v| v.lag_ops).sum(),
            memory_bytes: health.info.memory_used,
            up,
            pid: pid_of.and_then(|of| of(&node.name)),
        }
    };
    table.members().map(entry).collect()
}

#[derive(Serialize)]
struct PartitionEntry {
    partition: u16,
    epoch: u64,
    seq: u64,
    owner: String,
    replicas: Vec<String>,
    in_sync: Vec<String>,
    /// Those of them that are there now.
    live: Vec<String>,
}

async fn partitions(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<PartitionEntry>>, Unavailable> {
    let shared = admin.open()?;
    let views = views(&shared).await?;
    let table = shared.table.load();
    let mut entries: Vec<PartitionEntry> = Vec::with_capacity(table.rows.len());
    for view in views.iter().flat_map(|v| &v.partitions) {
        let Some(row) = table.rows.get(usize::from(view.partition)) else {
            continue;
        };
        let name = |node: &NodeId| shared.node_name(*node);
        entries.push(PartitionEntry {
            partition: view.partition,
            epoch: view.position.epoch,
            seq: view.position.seq,
            owner: shared.instance.id.clone(),
            replicas: row.replicas.iter().map(name).collect(),
            in_sync: view.in_sync.iter().map(name).collect(),
            live: view.live.iter().map(name).collect(),
        });
    }
    entries.sort_by_key(|entry| entry.partition);
    Ok(Json(entries))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Result<String, Unavailable> {
    if matches!(*admin.service.borrow(), Service::There(_)) {
        return Ok(render_standby(admin.standby.relayed.load(Relaxed) as u64));
    }
    let shared = admin.open()?;
    let views = views(&shared).await?;
    let samples = entries(&shared, &views, None)
        .into_iter()
        .map(|entry| NodeSample {
            up: entry.up,
            state: entry.state,
            partitions: u64::from(entry.partitions),
            in_sync: u64::from(entry.in_sync),
            lag_ops: entry.lag_ops,
            memory_bytes: entry.memory_bytes,
            name: entry.name,
        })
        .collect();
    let table = shared.table.load();
    let fewer_than = |nodes: usize| {
        let all = views.iter().flat_map(|v| &v.partitions);
        all.filter(|view| view.live.len() < nodes).count() as u64
    };
    let workers: Vec<_> = shared.metrics.iter().map(Arc::as_ref).collect();
    let account = shared.progress.view();
    let pool = PoolSample {
        partitions_short: fewer_than(table.replicas as usize),
        partitions_refusing: fewer_than(shared.config.pool.min_in_sync),
        moves_open: account.moves_open,
        moves: account.moves_total,
        moved_bytes: account.bytes_total,
        removed_keys: account.keys_removed,
        longest_hold_us: account.longest_hold_us,
    };
    Ok(render(&workers, samples, &pool))
}

async fn views(shared: &Shared) -> Result<Vec<WorkerView>, Unavailable> {
    tokio::time::timeout(VIEW_TIMEOUT, shared.views())
        .await
        .map_err(|_| Unavailable::for_now("a worker thread does not answer"))
}
