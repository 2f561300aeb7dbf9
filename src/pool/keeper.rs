//! The keeper: looks after the nodes while the pool is served, and keeps the table's record.
//!
//! For each node one task: connect, look it over, claim it (a restarted node has forgotten its users), then watch it. The
//! workers' streams wait for this *admission* before they log in. A claim that is somebody else's means that this sidecar
//! has been fenced: the program ends, since two that take the pool from each other would serve nobody.

pub use members::{ChangeError, NewNode, ShareChange};

mod library;
mod members;
mod record;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::{debug, info, warn};

use super::admissions::Admissions;
use super::node_info::NodeInfo;
use super::open::{connect_as_operator, node_of};
use super::recover::rules_out_successor;
use super::shelf::{Change, Shelf};
use super::table::Table;
use crate::config::{self, Config};
use crate::limits;
use crate::node::{
    AdmissionError, CheckFailure, Claim, Control, ControlError, Instance, admit, look_over, read_claim,
    text_of,
};
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

/// What people are told of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeHealth {
    /// Why it cannot be used, if so.
    pub trouble: Option<String>,
    /// How often it has been claimed: each time it may have other contents.
    pub claims: u64,
    /// Which start of the server process it is.
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
    table: Mutex<Table>,
    /// The newest record that any node may have been given.
    attempted: Mutex<Table>,
    wanted: Mutex<BTreeMap<PartitionId, Membership>>,
    wanted_changed: Notify,
    /// Held while a record is being written.
    recording: tokio::sync::Mutex<()>,
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
            attempted: Mutex::new(table.clone()),
            table: Mutex::new(table),
            wanted: Mutex::default(),
            wanted_changed: Notify::new(),
            recording: tokio::sync::Mutex::default(),
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

    /// A connection of the mover to a node that is claimed, as a user that a successor can fence.
    ///
    /// # Errors
    /// What the node, or the way to it, has against it.
    pub async fn connect(&self, id: NodeId) -> Result<Control, ControlError> {
        let node = self.access(id).ok_or(ControlError::Protocol)?;
        let user = self.instance.user("m");
        let login = Some((user.as_str(), self.instance.secret.as_str()));
        Control::connect(&node.address, login, self.config.timeouts.connect).await
    }

    /// The same, when all that the mover has sent to the node before has been executed, or never will be (invariant 5): what was
    /// given up in the middle may still be in the node's buffers.
    ///
    /// # Errors
    /// What the node, or the way to it, has against it.
    pub async fn connect_anew(&self, id: NodeId) -> Result<Control, ControlError> {
        let mut control = self.connect(id).await?;
        let user = self.instance.user("m");
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
                    self.set_trouble(id, None);
                    if let Some(health) = self.health.get(usize::from(id)) {
                        lock(health).claims += 1;
                    }
                    self.admissions.set_busy(id, false);
                    info!(node = name, "node claimed");
                    self.admissions.set_strangers(true);
                    if let Some(claimed) = self.admissions.claimed.get(usize::from(id)) {
                        claimed.send_modify(|n| *n += 1);
                    }
                    let why = self.watch_claimed(id, &mut control).await;
                    self.admissions.set_busy(id, why.starts_with("BUSY"));
                    debug!(node = name, why, "looking at the node again");
                }
                Err(Untaken::Fenced(claim)) => {
                    // The receiver ends the program.
                    drop(self.events.send(PoolEvent::Fenced(claim)).await);
                    return std::future::pending().await;
                }
                Err(Untaken::Trouble(why)) => {
                    self.admissions.set_busy(id, why.contains("BUSY "));
                    if self.set_trouble(id, Some(why.clone())) {
                        warn!(node = name, "node {name:?} {why}");
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

    /// Whether what is said about the node is news.
    fn set_trouble(&self, id: NodeId, trouble: Option<String>) -> bool {
        let Some(health) = self.health.get(usize::from(id)) else {
            return false;
        };
        let mut health = lock(health);
        let news = health.trouble != trouble;
        health.trouble = trouble;
        news
    }

    /// Claims the node and makes its control connection.
    async fn take(&self, id: NodeId, node: &config::Node) -> Result<Control, Untaken> {
        let timeout = self.config.timeouts.connect;
        let mut control = connect_as_operator(node, timeout).await?;
        let facts = look_over(&mut control, self.config.pool.bookkeeping_db).await?;
        if let Some(health) = self.health.get(usize::from(id)) {
            lock(health).run_id = facts.run_id;
        }
        // What a node without a claim has forgotten may be that a successor has claimed it. One that claims a majority
        // after this question meets a node that carries our claim; so it is asked again when the node is ours.
        let forgetful = read_claim(&mut control)
            .await
            .map_err(CheckFailure::Unreachable)?
            .is_none();
        if forgetful {
            self.rule_out_successor(id).await?;
        }
        match admit(&mut control, &self.claim, false, &self.instance, &self.roles).await {
            Ok(()) => {}
            Err(AdmissionError::Superseded(claim)) => return Err(Untaken::Fenced(claim)),
            Err(other) => return Err(Untaken::Trouble(other.to_string())),
        }
        if forgetful {
            self.rule_out_successor(id).await?;
        }
        let user = self.instance.user("c");
        let login = Some((user.as_str(), self.instance.secret.as_str()));
        let mut own = Control::connect(&node.address, login, timeout)
            .await
            .map_err(CheckFailure::Unreachable)?;
        let Some(slot) = self.controls.get(usize::from(id)) else {
            return Ok(control);
        };
        // Under the locks, so that an older record cannot overtake a newer one.
        let shelf = self.shelf.lock().await;
        let mut slot = slot.lock().await;
        self.give_record(&mut own)
            .await
            .map_err(CheckFailure::Unreachable)?;
        self.shelve_all(id, &shelf, &mut own)
            .await
            .map_err(CheckFailure::Unreachable)?;
        *slot = Some(own);
        Ok(control)
    }

    /// Asks the other nodes whether they still carry our claim, enough of them for nobody else to have a majority.
    async fn rule_out_successor(&self, id: NodeId) -> Result<(), Untaken> {
        let asked = self.controls.iter().enumerate().map(|(other, slot)| async move {
            let mut slot = slot.lock().await;
            let Some(control) = slot.as_mut().filter(|_| other != usize::from(id)) else {
                return false;
            };
            matches!(read_claim(control).await, Ok(Some(claim)) if claim == self.claim)
        });
        let witnesses = futures::future::join_all(asked).await;
        let witnesses = witnesses.into_iter().filter(|&carries| carries).count();
        let members = self.table().members().count();
        if rules_out_successor(members, witnesses) {
            return Ok(());
        }
        Err(Untaken::Trouble(format!(
            "is empty, so it may have forgotten that another sidecar has claimed it, and only {witnesses} of the other nodes \
             show that none has: it is used again when more of them answer, or when this sidecar is restarted"
        )))
    }

    /// Watches a claimed node until something is wrong with it: what it was.
    async fn watch_claimed(&self, id: NodeId, control: &mut Control) -> String {
        let Some(lost) = self.admissions.lost.get(usize::from(id)) else {
            return String::new();
        };
        loop {
            let info = match control.call(&[b"INFO"]).await {
                Ok(reply) => NodeInfo::parse(&text_of(&reply)),
                Err(error) => return error.to_string(),
            };
            let (used, max) = (info.memory_used, info.memory_max);
            self.note_info(id, info);
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
            lock(health).info = info;
            let is_full = max > 0 && used * 100 >= max * FULL_PERCENT;
            if self.admissions.set_full(id, is_full) {
                let table = lock(&self.table);
                let name = table.nodes.get(usize::from(id)).map_or("", |n| &n.name);
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
}

/// Why a node was not taken.
enum Untaken {
    Fenced(Claim),
    Trouble(String),
}

impl From<CheckFailure> for Untaken {
    fn from(failure: CheckFailure) -> Self {
        Self::Trouble(failure.to_string())
    }
}

/// Locks; a panic elsewhere while it was locked has left nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
