//! Comparing all copies of all keys while the pool is served, and repairing what differs.
//!
//! A key's copies can only be compared at one place of the order: elsewhere they differ because time passes between two looks.
//! So the question (a script that digests type, deadline and value) is ordered like a write, every node executes it at the same
//! place, and its answers are compared as those of any write are. A key on which they differ is made on all nodes what it is on
//! the primary, by the same mechanism as after any such write (`sequencer::repair`), and looked at once more at the end.
//!
//! Values that are too large to be digested in a few ms are compared by type, length and deadline only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use serde::Serialize;
use smallvec::smallvec;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::command::spec::Compare;
use crate::node::{Control, Scope, are_large, databases, scan_step, text_of};
use crate::request::{Action, Commands, HoldId, NodeId, Outcome, PartitionId, Touched};
use crate::resp::frame_of;
use crate::resp::walk::is_error;
use crate::shared::Shared;

/// The question.
const DIGEST: &[u8] = include_bytes!("digest.lua");

/// Most elements, and bytes, that are digested: larger values would block a node for more than a few ms.
const ELEMENTS_MAX: &[u8] = b"1000";
const BYTES_MAX: &[u8] = b"524288";

/// Keys a second, where nothing else is asked for.
const KEYS_PER_S: u64 = 2000;

/// Keys that are asked for together.
const TOGETHER: usize = 16;

/// Most keys that are looked at once more.
const AGAIN_MAX: usize = 10_000;

/// How long repairs may take before keys are looked at again.
const REPAIR_PAUSE: Duration = Duration::from_millis(200);

/// A key that is to be looked at.
struct Key {
    name: Vec<u8>,
    /// Its value would take long to digest.
    is_large: bool,
}

/// A key of a database.
type DbKey = (u16, Vec<u8>);

/// How far it is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// `idle`, `running`, `done`, `stopped`.
    pub state: &'static str,
    /// Keys whose copies were compared.
    pub keys: u64,
    /// Keys whose copies differed.
    pub different: u64,
    /// Those of them that do not any more.
    pub repaired: u64,
    /// Keys that are too large, or of a type that cannot be digested, and were compared by type, length and deadline only; and those
    /// that could not be compared at all (then there is a `reason`).
    pub skipped: u64,
    /// Partitions that were looked through.
    pub partitions_done: usize,
    /// Partitions of the pool.
    pub partitions_total: usize,
    /// How fast it goes.
    pub keys_per_s: u64,
    /// Why it was stopped, if not by an operator; or why keys could not be compared.
    pub reason: Option<String>,
}

/// What is known, and what is wanted.
#[derive(Debug)]
struct State {
    report: Report,
    different: BTreeSet<DbKey>,
    wanted: bool,
}

/// Compares copies when it is told to.
#[derive(Debug)]
pub struct Verifier {
    state: Mutex<State>,
    told: Notify,
}

impl Default for Verifier {
    fn default() -> Self {
        let report = Report {
            state: "idle",
            ..Report::default()
        };
        Self {
            state: Mutex::new(State {
                report,
                different: BTreeSet::new(),
                wanted: false,
            }),
            told: Notify::new(),
        }
    }
}

impl Verifier {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is.
    pub fn report(&self) -> Report {
        self.lock().report.clone()
    }

    /// Begins, or only changes the pace of what is under way.
    pub fn start(&self, keys_per_s: Option<u64>) {
        let mut state = self.lock();
        let rate = keys_per_s.unwrap_or(KEYS_PER_S).max(1);
        if state.report.state == "running" {
            state.report.keys_per_s = rate;
            return;
        }
        state.report = Report {
            state: "running",
            keys_per_s: rate,
            ..Report::default()
        };
        state.different.clear();
        state.wanted = true;
        self.told.notify_one();
    }

    /// Ends what is under way.
    pub fn stop(&self) {
        self.lock().wanted = false;
    }

    /// The owner has found that copies of a key differ.
    pub fn differs(&self, db: u16, key: Vec<u8>) {
        let mut state = self.lock();
        if state.report.state == "running" && state.different.insert((db, key)) {
            state.report.different += 1;
        }
    }

    /// Works whenever it is told to, for ever.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            self.told.notified().await;
            let ended = match self.compare_all(&shared).await {
                Ok(true) => "done",
                Ok(false) => "stopped",
                Err(why) => {
                    warn!("the comparison of all copies was given up: {why}");
                    self.lock().report.reason = Some(why);
                    "stopped"
                }
            };
            let mut state = self.lock();
            state.report.state = ended;
            state.wanted = false;
            let Report {
                keys,
                different,
                repaired,
                skipped,
                ..
            } = state.report;
            info!(keys, different, repaired, skipped, "compared all copies: {ended}");
        }
    }

    /// Whether all was compared; `false`: an operator has ended it.
    async fn compare_all(&self, shared: &Shared) -> Result<bool, String> {
        let partitions = shared.table.load().partitions();
        self.lock().report.partitions_total = usize::from(partitions);
        let mut pass = Pass::new(shared).await;
        let mut nodes: Vec<NodeId> = pass.holds.keys().copied().collect();
        nodes.sort_unstable();
        for node in nodes {
            let wanted = pass.holds.remove(&node).unwrap_or_default();
            let scope = Scope {
                keyspace: &shared.keyspace,
                wanted: &wanted,
                bookkeeping_db: shared.config.pool.bookkeeping_db,
            };
            let mut cursors: Vec<(u16, Vec<u8>)> = Vec::new();
            for db in pass.databases(node).await? {
                if db != scope.bookkeeping_db {
                    cursors.push((db, b"0".to_vec()));
                }
            }
            for (db, mut cursor) in cursors {
                loop {
                    let found = pass.page(node, db, &mut cursor, &scope).await?;
                    for keys in found.chunks(TOGETHER) {
                        if !self.lock().wanted {
                            return Ok(false);
                        }
                        self.compare(shared, db, keys).await;
                    }
                    if cursor == b"0" {
                        break;
                    }
                }
            }
            let listed = |partition: &&PartitionId| pass.listers.get(*partition) == Some(&node);
            self.lock().report.partitions_done += wanted.iter().filter(listed).count();
        }
        self.look_again(shared).await;
        Ok(true)
    }

    async fn compare(&self, shared: &Shared, db: u16, keys: &[Key]) {
        let began = Instant::now();
        let outcomes = ask(shared, db, keys).await;
        let failure = outcomes.iter().find_map(failure);
        let answers = |begins: &[u8]| {
            let is_it = |outcome: &&Outcome| matches!(outcome, Outcome::Reply { frames, .. } if text_begins(frames, begins));
            outcomes.iter().filter(is_it).count() as u64
        };
        let keys_per_s = {
            let report = &mut self.lock().report;
            let answered = answers(b"");
            report.keys += answered;
            report.skipped += answers(b"skipped:") + (keys.len() as u64 - answered);
            if failure.is_some() {
                report.reason = failure;
            }
            report.keys_per_s
        };
        let pause = Duration::from_secs_f64(keys.len() as f64 / keys_per_s as f64);
        tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
    }

    /// Whether what differed does so no more.
    async fn look_again(&self, shared: &Shared) {
        tokio::time::sleep(REPAIR_PAUSE).await;
        let before = std::mem::take(&mut self.lock().different);
        let mut by_db: BTreeMap<u16, Vec<Key>> = BTreeMap::new();
        for (db, name) in before.iter().take(AGAIN_MAX) {
            let key = Key {
                name: name.clone(),
                is_large: false,
            };
            by_db.entry(*db).or_default().push(key);
        }
        let counted = self.lock().report.different;
        for (db, keys) in by_db {
            for keys in keys.chunks(TOGETHER) {
                drop(ask(shared, db, keys).await);
            }
        }
        if !before.is_empty() {
            // The last mirror's answer may come after the first ones'.
            tokio::time::sleep(REPAIR_PAUSE).await;
        }
        let mut state = self.lock();
        let still = before.intersection(&state.different).count();
        state.report.different = counted;
        state.report.repaired = (before.len().min(AGAIN_MAX) - still.min(before.len())) as u64;
    }
}

/// One pass over all keys. Each is looked at where its partition's first node lists it; the other nodes are only asked for keys
/// that the first one does not have.
struct Pass<'a> {
    shared: &'a Shared,
    /// Which node lists each partition.
    listers: BTreeMap<PartitionId, NodeId>,
    /// What each node has.
    holds: BTreeMap<NodeId, HashSet<PartitionId>>,
    controls: BTreeMap<NodeId, Control>,
}

impl<'a> Pass<'a> {
    async fn new(shared: &'a Shared) -> Self {
        let mut pass = Self {
            shared,
            listers: BTreeMap::new(),
            holds: BTreeMap::new(),
            controls: BTreeMap::new(),
        };
        for view in shared.views().await.iter().flat_map(|view| &view.partitions) {
            if let Some(&lister) = view.live.first() {
                pass.listers.insert(view.partition, lister);
            }
            for node in &view.live {
                pass.holds.entry(*node).or_default().insert(view.partition);
            }
        }
        pass
    }

    async fn control(&mut self, node: NodeId) -> Result<&mut Control, String> {
        if !self.controls.contains_key(&node) {
            let connected = self.shared.keeper.connect(node, "c").await;
            let control = connected.map_err(|error| self.said(node, &error))?;
            self.controls.insert(node, control);
        }
        self.controls.get_mut(&node).ok_or_else(String::new)
    }

    fn said(&self, node: NodeId, error: &dyn std::fmt::Display) -> String {
        format!("node {:?}: {error}", self.shared.node_name(node))
    }

    async fn databases(&mut self, node: NodeId) -> Result<BTreeSet<u16>, String> {
        let found = databases(self.control(node).await?).await;
        found.map_err(|error| self.said(node, &error))
    }

    /// The next keys to be looked at.
    async fn page(
        &mut self,
        node: NodeId,
        db: u16,
        cursor: &mut Vec<u8>,
        scope: &Scope<'_>,
    ) -> Result<Vec<Key>, String> {
        let found = scan_step(self.control(node).await?, db, cursor, scope).await;
        let found = found.map_err(|error| self.said(node, &error))?;
        let mut elsewhere: BTreeMap<NodeId, Vec<Vec<u8>>> = BTreeMap::new();
        let mut page = Vec::new();
        for key in found {
            match self.listers.get(&self.shared.keyspace.partition_of(&key)) {
                Some(lister) if *lister != node => elsewhere.entry(*lister).or_default().push(key),
                _ => page.push(key),
            }
        }
        for (lister, keys) in elsewhere {
            page.extend(self.missing(lister, db, keys).await?);
        }
        let large = are_large(self.control(node).await?, db, &page).await;
        let large = large.map_err(|error| self.said(node, &error))?;
        let keys = page.into_iter().zip(large);
        Ok(keys.map(|(name, is_large)| Key { name, is_large }).collect())
    }

    /// Those of the keys that the node does not have.
    async fn missing(&mut self, node: NodeId, db: u16, keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
        let number = db.to_string();
        let asked: Vec<[&[u8]; 2]> = keys.iter().map(|key| [&b"EXISTS"[..], key]).collect();
        let select: &[&[u8]] = &[b"SELECT", number.as_bytes()];
        let commands = std::iter::once(select).chain(asked.iter().map(|command| &command[..]));
        let control = self.control(node).await?;
        let answers = control.call_all(commands).await;
        let answers = answers.map_err(|error| self.said(node, &error))?;
        let is_absent = |answer: &BytesFrame| text_of(answer) == "0";
        let absent: Vec<bool> = answers.iter().skip(1).map(is_absent).collect();
        let found = keys.into_iter().zip(absent);
        Ok(found.filter(|(_, absent)| *absent).map(|(key, _)| key).collect())
    }
}

/// Has all nodes digest these keys: the first one's answers.
async fn ask(shared: &Shared, db: u16, keys: &[Key]) -> Vec<Outcome> {
    let question = |key: &Key| {
        let (elements_max, bytes_max): (&[u8], &[u8]) = match key.is_large {
            true => (b"0", b"0"),
            false => (ELEMENTS_MAX, BYTES_MAX),
        };
        let (frame, spans) = frame_of(&[b"EVAL", DIGEST, b"1", &key.name, elements_max, bytes_max]);
        let at = spans.get(3).copied().unwrap_or_default();
        let commands = Commands {
            compare: Compare::Check,
            touched: Touched::Keys(smallvec![at]),
            ..Commands::one(frame)
        };
        (shared.keyspace.partition_of(&key.name), Action::Write(commands))
    };
    shared
        .operate(HoldId::NONE, db, keys.iter().map(question).collect())
        .await
}

/// Why there is no digest, if there is none.
fn failure(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Reply { frames, .. } if is_error(frames) => {
            let line = frames.split(|&b| b == b'\r').next().unwrap_or_default();
            Some(String::from_utf8_lossy(line.get(1..).unwrap_or_default()).into_owned())
        }
        Outcome::Reply { .. } => None,
        Outcome::Refused(refusal) => Some(refusal.message().to_owned()),
        _ => Some("a key was not answered in time".to_owned()),
    }
}

/// Whether a reply is text that begins so, and no error.
fn text_begins(frame: &Bytes, begins: &[u8]) -> bool {
    let body = frame
        .iter()
        .position(|&b| b == b'\n')
        .and_then(|at| frame.get(at + 1..));
    frame.starts_with(b"$") && body.is_some_and(|body| body.starts_with(begins))
}
