//! The keeper: looks after the nodes while the pool is served, and keeps the table's record.
//!
//! For each node one task: connect, look it over, claim it (a restarted node has forgotten its users), then watch it. The
//! workers' streams wait for this *admission* before they log in. A claim that is somebody else's means that this sidecar
//! has been fenced: it ends, or stands by, since two that take the pool from each other would serve nobody.

pub use members::{ChangeError, NewNode, ShareChange};
pub(super) use taking::foreign_keys;

mod library;
mod members;
mod record;
mod said;
mod taking;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tracing::{debug, info, warn};

use self::said::Said;
use self::taking::Untaken;
use super::admissions::Admissions;
use super::node_info::{FORGETS, NodeInfo};
use super::open::node_of;
use super::shelf::{Change, Shelf};
use super::table::Table;
use crate::config::{self, Config};
use crate::limits;
use crate::node::{Claim, Control, ControlError, Instance};
use crate::request::{Membership, NodeId, PartitionId};

/// How often a node that is there is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How often, once it is more than half full: it must not run full between two looks.
const WATCH_INTERVAL_FILLING: Duration = Duration::from_millis(50);

/// From this share of its `maxmemory` on (in percent) a node takes no growing writes: it must never be the node that
/// refuses, since two nodes with the same data do not run full at the same command, and a node that is full refuses even
/// the account that a batch carries.
const FULL_PERCENT: u64 = 90;

/// First and longest pause before a node that is not there is tried again.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Pause before a node that executes a script is asked again: its clients are told that it is busy until then.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// What the rest of the program is told.
#[derive(Debug)]
pub enum PoolEvent {
    /// Another sidecar has taken over.
    Fenced(Claim),
    /// The table's record has these nodes of partitions.
    Recorded(Vec<(PartitionId, Membership)>),
    /// The table's record has other nodes, or other shares of them.
    Changed,
}

/// What kind of trouble there is with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// It is not there, or not yet.
    Away,
    /// It is there, and refuses what it is given.
    Refuses,
    /// Something is there that must not be used.
    Unfit,
}

/// Why a node cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTrouble {
    /// For machines.
    pub kind: TroubleKind,
    /// For people: the rest of a sentence that begins with the node.
    pub why: String,
}

/// What people are told of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeHealth {
    /// Why it cannot be used, if so.
    pub trouble: Option<NodeTrouble>,
    /// Whether it is claimed, and was well when it was last looked at.
    pub claimed: bool,
    /// How often it has been claimed: each time it may have other contents.
    pub claims: u64,
    /// Which start of the server process it was when it was last claimed.
    pub run_id: String,
    /// What it said of itself when it was last looked at.
    pub info: NodeInfo,
}

/// Keeps one pool.
#[derive(Debug)]
pub struct Keeper {
    config: Arc<Config>,
    instance: Instance,
    claim: Claim,
    roles: Vec<String>,
    admissions: Arc<Admissions>,
    controls: Vec<tokio::sync::Mutex<Option<Control>>>,
    /// What is kept of scripts and functions. Locked before a control connection is.
    shelf: tokio::sync::Mutex<Shelf>,
    /// Which stamp of it each node has.
    shelved: Vec<Mutex<(u64, u64)>>,
    /// Scripts that are to be kept some time soon.
    unshelved: Mutex<Change>,
    unshelved_changed: Notify,
    health: Vec<Mutex<NodeHealth>>,
    said: Vec<Mutex<Said>>,
    table: Mutex<Table>,
    /// The newest record that any node may have been given.
    attempted: Mutex<Table>,
    wanted: Mutex<BTreeMap<PartitionId, Membership>>,
    wanted_changed: Notify,
    /// Held while a record is being written.
    recording: tokio::sync::Mutex<()>,
    /// Held while a node joins replica sets, and while one is taken out of the pool.
    pub joining: tokio::sync::Mutex<()>,
    /// Held while an operator's change is being made.
    changing: tokio::sync::Mutex<()>,
    events: mpsc::Sender<PoolEvent>,
}

impl Keeper {
    /// A keeper for a pool that has just been opened.
    pub fn new(
        config: Arc<Config>,
        instance: Instance,
        claim: Claim,
        roles: Vec<String>,
        table: Table,
        shelf: Shelf,
        events: mpsc::Sender<PoolEvent>,
    ) -> Arc<Self> {
        // Room for all that may come.
        let nodes = limits::NODES_MAX;
        Arc::new(Self {
            config,
            instance,
            claim,
            roles,
            admissions: Arc::new(Admissions::new(nodes)),
            controls: (0..nodes).map(|_| tokio::sync::Mutex::new(None)).collect(),
            shelf: tokio::sync::Mutex::new(shelf),
            shelved: (0..nodes).map(|_| Mutex::default()).collect(),
            unshelved: Mutex::default(),
            unshelved_changed: Notify::new(),
            health: (0..nodes).map(|_| Mutex::default()).collect(),
            said: (0..nodes).map(|_| Mutex::default()).collect(),
            attempted: Mutex::new(table.clone()),
            table: Mutex::new(table),
            wanted: Mutex::default(),
            wanted_changed: Notify::new(),
            recording: tokio::sync::Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            events,
        })
    }

    /// What streams wait for.
    pub fn admissions(&self) -> Arc<Admissions> {
        self.admissions.clone()
    }

    /// The table as it is recorded.
    pub fn table(&self) -> Table {
        lock(&self.table).clone()
    }

    /// How a node is.
    pub fn health(&self, node: NodeId) -> NodeHealth {
        self.health
            .get(usize::from(node))
            .map(|h| lock(h).clone())
            .unwrap_or_default()
    }

    /// What the pool holds, as its nodes last told.
    pub fn pool_info(&self) -> NodeInfo {
        let table = self.table();
        let of = |(node, _)| self.health(node).info;
        let nodes: Vec<NodeInfo> = table.members().map(of).collect();
        let copies = table.replicas;
        NodeInfo::of_pool(&nodes, u64::from(copies), self.config.pool.bookkeeping_db)
    }

    /// Asks for a partition's nodes to be recorded.
    pub fn record(&self, partition: PartitionId, members: Membership) {
        lock(&self.wanted).insert(partition, members);
        self.wanted_changed.notify_one();
    }

    /// Where a node is, and with which account it is entered; `None` if it is not in the pool (any more).
    pub fn access(&self, id: NodeId) -> Option<config::Node> {
        let table = lock(&self.table);
        let node = table.nodes.get(usize::from(id)).filter(|node| !node.removed)?;
        Some(node_of(&self.config, node))
    }

    /// A control connection to a node that is claimed, as the user for this role, whom a successor can fence.
    ///
    /// # Errors
    /// What the node, or the way to it, has against it.
    pub async fn connect(&self, id: NodeId, role: &str) -> Result<Control, ControlError> {
        let node = self.access(id).ok_or(ControlError::Protocol)?;
        let user = self.instance.user(role);
        let login = Some((user.as_str(), self.instance.secret.as_str()));
        Control::connect(&node.address, login, self.config.timeouts.connect).await
    }

    /// The same, after all earlier connections of the role to that node have been ended: what they have sent, and the node has not
    /// received, is never executed (invariant 5).
    ///
    /// # Errors
    /// What the node, or the way to it, has against it.
    pub async fn connect_alone(&self, id: NodeId, role: &str) -> Result<Control, ControlError> {
        let mut control = self.connect(id, role).await?;
        let user = self.instance.user(role);
        control
            .call(&[b"CLIENT", b"KILL", b"USER", user.as_bytes(), b"SKIPME", b"yes"])
            .await?;
        Ok(control)
    }

    /// Looks after one node, as long as it is in the pool.
    pub async fn watch_node(self: Arc<Self>, id: NodeId) {
        let mut pause = RETRY_PAUSE_MIN;
        while let Some(node) = self.access(id) {
            let name = &node.name;
            match self.take(id, &node).await {
                Ok(mut control) => {
                    pause = RETRY_PAUSE_MIN;
                    if let Some(health) = self.health.get(usize::from(id)) {
                        let mut health = lock(health);
                        health.trouble = None;
                        health.claimed = true;
                        health.claims += 1;
                    }
                    self.admissions.set_busy(id, false);
                    self.say_claimed(id, name);
                    self.admissions.set_strangers(true);
                    if let Some(claimed) = self.admissions.claimed.get(usize::from(id)) {
                        claimed.send_modify(|n| *n += 1);
                    }
                    let why = self.watch_claimed(id, name, &mut control).await;
                    if let Some(health) = self.health.get(usize::from(id)) {
                        lock(health).claimed = false;
                    }
                    self.admissions.set_busy(id, why.starts_with("BUSY"));
                    debug!(node = name, why, "looking at the node again");
                }
                Err(Untaken::Fenced(claim)) => {
                    // The receiver ends what serves the pool, and this task with it.
                    drop(self.events.send(PoolEvent::Fenced(claim)).await);
                    return std::future::pending().await;
                }
                Err(Untaken::Trouble(trouble)) => {
                    let why = trouble.why.clone();
                    self.admissions.set_busy(id, why.contains("BUSY "));
                    // Who is not there keeps nobody from writing.
                    self.admissions.set_full(id, false);
                    if self.should_say(id, &why) {
                        warn!(node = name, "node {name:?} {why}");
                    }
                    if let Some(health) = self.health.get(usize::from(id)) {
                        lock(health).trouble = Some(trouble);
                    }
                    if self.admissions.is_busy(id) {
                        tokio::time::sleep(BUSY_PAUSE).await;
                        continue;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    /// Whether that has not been said of the node lately. Who tries again and again asks each time, and says it once.
    pub fn is_news(&self, id: NodeId, what: &str) -> bool {
        let said = self.said.get(usize::from(id));
        said.is_some_and(|said| lock(said).is_news(what, Instant::now()))
    }

    fn should_say(&self, id: NodeId, standing: &str) -> bool {
        let said = self.said.get(usize::from(id));
        said.is_some_and(|said| lock(said).should_say(standing, Instant::now()))
    }

    fn say_claimed(&self, id: NodeId, name: &str) {
        if self.should_say(id, "claimed") {
            info!(node = name, "node claimed");
        }
    }

    /// Watches a claimed node until something is wrong with it: what it was.
    async fn watch_claimed(&self, id: NodeId, name: &str, control: &mut Control) -> String {
        let Some(lost) = self.admissions.lost.get(usize::from(id)) else {
            return String::new();
        };
        loop {
            let info = match self.look_again(control).await {
                Ok(info) => info,
                Err(why) => return why,
            };
            let (used, max) = (info.memory_used, info.memory_max);
            self.note_info(id, info);
            self.say_claimed(id, name);
            let interval = if used * 2 > max && max > 0 {
                WATCH_INTERVAL_FILLING
            } else {
                WATCH_INTERVAL
            };
            if tokio::time::timeout(interval, lost.notified()).await.is_ok() {
                return "a stream lost it".into();
            }
        }
    }

    fn note_info(&self, id: NodeId, info: NodeInfo) {
        if let Some(health) = self.health.get(usize::from(id)) {
            let (used, max) = (info.memory_used, info.memory_max);
            let forgets = info.forgets();
            let before = std::mem::replace(&mut lock(health).info, info);
            if forgets && !before.forgets() {
                warn!(node = self.node_name(id), "the node {FORGETS}");
            }
            let is_full = max > 0 && used * 100 >= max * FULL_PERCENT;
            let words = if is_full { "full" } else { "not full" };
            if self.admissions.set_full(id, is_full) && self.is_news(id, words) {
                let name = self.node_name(id);
                if is_full {
                    warn!(
                        node = name,
                        used, max, "the node's memory is nearly full: growing writes are refused (-OOM)"
                    );
                } else {
                    info!(node = name, used, max, "the node has memory again");
                }
            }
        }
    }

    fn node_name(&self, id: NodeId) -> String {
        let table = lock(&self.table);
        let node = table.nodes.get(usize::from(id));
        node.map_or_else(String::new, |node| node.name.clone())
    }
}

/// Locks; a panic elsewhere while it was locked has left nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
