//! The mover: works off the difference between where partitions should be and where they are, while the pool is served.
//!
//! Nodes come (added, or back without their data), go (drained, or away for longer than `timeouts.replace_after`), and change
//! their share. None of that is a case of its own: the ring says which nodes should hold a partition, the owners say which ones
//! do, and [`plan`] names the next step. A sidecar that starts begins with the same comparison, so nothing of a change that was
//! interrupted needs to be remembered.
//!
//! It acts on the data path by ordinary requests (a hold, a node that joins or leaves), and by nothing else.

mod ends;
mod hand_over;
mod job;
pub mod plan;
mod progress;
mod sweep;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::job::Job;
use self::plan::{Copy, Picture, Place, Step, open_moves};
pub use self::progress::{Account, JobView, Phase, Progress};
use crate::node::Pace;
use crate::pool::table::{Table, TableNode};
use crate::request::{Action, NodeId, Outcome, PartitionId};
use crate::ring::ReplicaSet;
use crate::shared::{Shared, WorkerView};

/// How often the pool is looked at while something is not as it should be, and cannot be helped at once.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The same while all is well: every look takes the workers some time.
const IDLE_PAUSE: Duration = Duration::from_millis(500);

/// Most partitions that are copied together: what one hand-over holds, and what an interruption costs.
const GROUP_PARTITIONS: usize = 32;

/// Longest time that partitions are held for nodes to leave them.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// Pause before a node for which something has failed is tried again: the first, and the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Connections that copy, and remove, are of a user of their own: the mover does one thing after the other, and ends what is left of
/// the last one before it begins the next.
pub const ROLE: &str = "m";

/// Moves things where they should be.
#[derive(Debug)]
pub struct Mover {
    shared: Arc<Shared>,
    pace: Pace,
    /// Since when nodes are not connected.
    away: BTreeMap<NodeId, Instant>,
    /// Nodes for which something has failed: how often in a row, and when they are tried again.
    failures: BTreeMap<NodeId, (u32, Instant)>,
    /// Where partitions should be, and what that was computed from: it takes some ms.
    target: Option<(Vec<TableNode>, BTreeSet<NodeId>, Vec<ReplicaSet>)>,
    /// Partitions that are copied by themselves: with large values that change all the time, or that clients hold for long.
    heavy: BTreeSet<PartitionId>,
    /// When copying from a node has last failed.
    sources: BTreeMap<NodeId, Instant>,
    /// Which life of each node has been looked through for what it should not have.
    swept: BTreeMap<NodeId, u64>,
    /// Nodes that were not in sync with all that they hold when they were last looked at.
    short: BTreeSet<NodeId>,
}

impl Mover {
    /// For a pool that is about to be served.
    pub fn new(shared: Arc<Shared>) -> Self {
        let rate = shared.config.limits.copy_rate.as_u64();
        Self {
            shared,
            pace: Pace::new(rate),
            away: BTreeMap::new(),
            failures: BTreeMap::new(),
            target: None,
            heavy: BTreeSet::new(),
            sources: BTreeMap::new(),
            swept: BTreeMap::new(),
            short: BTreeSet::new(),
        }
    }

    /// Works for ever.
    pub async fn run(mut self) {
        loop {
            if !self.look().await {
                let is_well = self.away.is_empty()
                    && !self.shared.admissions.may_have_strangers()
                    && self.shared.progress.view().moves_open == 0;
                let pause = if is_well { IDLE_PAUSE } else { BUSY_PAUSE };
                // Whether it has changed meanwhile, or not: it looks again.
                let _elapsed = tokio::time::timeout(pause, self.shared.progress.changed.notified()).await;
            }
        }
    }

    /// Does the next step. Whether there was one.
    async fn look(&mut self) -> bool {
        let views = self.shared.views().await;
        self.note_away(&views);
        self.note_short(&views);
        let table = self.shared.table.load_full();
        let target = self.target(&table);
        let places = places(&views, target);
        let open = open_moves(&places) as u64;
        {
            let mut account = self.shared.progress.lock();
            account.moves_open = open;
            account.nodes.clone_from(&table.nodes);
        }
        let able = self.able(&views);
        let picture = Picture {
            places: &places,
            able: &able,
            min_in_sync: self.shared.config.pool.min_in_sync,
            replicas: table.replicas as usize,
            group_max: self.group_max(),
            heavy: &self.heavy,
            doubtful: &self.doubtful(),
            paused: table.paused,
        };
        match plan::next(&picture) {
            Some(Step::Copy(copy)) => {
                self.copy(&copy).await;
                true
            }
            Some(Step::Leave(leaving)) => self.leave(leaving).await,
            None => {
                let cleaned = self.sweep(&able, &places).await;
                if open == 0 {
                    self.heavy.clear();
                    self.shared.progress.settled();
                    let is_there = |place: &Place| place.replicas.len() == place.target.len();
                    if places.iter().all(is_there) {
                        self.shared.keeper.settled(&table).await;
                    }
                } else if !cleaned {
                    self.say_why_not(&places, &able, table.paused);
                }
                cleaned
            }
        }
    }

    /// In a pool where scripts may touch any key, a node needs all partitions at once: see `sequencer::joint`.
    fn group_max(&self) -> usize {
        match self.shared.library.judge.is_one_place() {
            true => usize::MAX,
            false => GROUP_PARTITIONS,
        }
    }

    fn note_away(&mut self, views: &[WorkerView]) {
        let now = Instant::now();
        let table = self.shared.table.load();
        for (node, _) in table.members() {
            let is_up = |view: &WorkerView| view.nodes.get(usize::from(node)).is_some_and(|n| n.up);
            if views.iter().all(is_up) {
                if self.away.remove(&node).is_some() {
                    self.failures.remove(&node);
                }
            } else {
                self.away.entry(node).or_insert(now);
            }
        }
    }

    /// Says when a node that was not is in sync with all that it holds.
    fn note_short(&mut self, views: &[WorkerView]) {
        let table = self.shared.table.load();
        for (node, member) in table.members() {
            let of_node = views.iter().filter_map(|view| view.nodes.get(usize::from(node)));
            let (live, all) = of_node.fold((0, 0), |(live, all), view| {
                (live + view.live, all + view.partitions)
            });
            if live < all {
                self.short.insert(node);
            } else if all > 0 && self.short.remove(&node) {
                info!(
                    node = member.name,
                    partitions = all,
                    "the node is in sync with all that it holds"
                );
            }
        }
    }

    /// Where partitions should be.
    fn target(&mut self, table: &Table) -> &[ReplicaSet] {
        let replaced = self.replaced(table);
        let is_known =
            matches!(&self.target, Some((nodes, away, _)) if *nodes == table.nodes && *away == replaced);
        if !is_known {
            let target = table.target(|node| replaced.contains(&node));
            self.target = Some((table.nodes.clone(), replaced, target));
        }
        self.target.as_ref().map_or(&[], |(_, _, target)| target)
    }

    /// Nodes that have been away for so long that others are to hold what they held, if there are enough others.
    fn replaced(&self, table: &Table) -> BTreeSet<NodeId> {
        let after = self.shared.config.timeouts.replace_after;
        let is_late = |(_, since): &(&NodeId, &Instant)| !after.is_zero() && since.elapsed() > after;
        let late: BTreeSet<NodeId> = self.away.iter().filter(is_late).map(|(node, _)| *node).collect();
        let others = table
            .members()
            .filter(|(id, node)| !node.draining && !late.contains(id));
        match others.count() >= table.replicas as usize {
            true => late,
            false => BTreeSet::new(),
        }
    }

    /// Nodes that can be given something now.
    fn able(&self, views: &[WorkerView]) -> BTreeSet<NodeId> {
        let now = Instant::now();
        let table = self.shared.table.load();
        let is_able = |node: &NodeId| {
            let rests = self.failures.get(node).is_some_and(|(_, until)| *until > now);
            let refuses = views
                .iter()
                .filter_map(|view| view.nodes.get(usize::from(*node)))
                .any(|view| view.refused.is_some());
            !self.away.contains_key(node)
                && !rests
                && !refuses
                && !self.shared.admissions.is_full(std::iter::once(*node))
        };
        table.members().map(|(node, _)| node).filter(is_able).collect()
    }

    /// Nodes from which copying has failed not long ago: another one may do better.
    fn doubtful(&self) -> BTreeSet<NodeId> {
        let lately = self
            .sources
            .iter()
            .filter(|(_, at)| at.elapsed() < RETRY_PAUSE_MAX);
        lately.map(|(node, _)| *node).collect()
    }

    async fn copy(&mut self, copy: &Copy) {
        let (from, to) = (self.shared.node_name(copy.from), self.shared.node_name(copy.to));
        let partitions = copy.partitions.len();
        self.shared.admissions.set_strangers(true);
        // With one copy, the source leaves with it.
        self.swept.remove(&copy.to);
        self.swept.remove(&copy.from);
        self.shared.progress.begin(JobView {
            from: from.clone(),
            to: to.clone(),
            partitions,
            keys: 0,
            bytes: 0,
            phase: Phase::Scan,
        });
        let began = Instant::now();
        let job = Job {
            shared: &self.shared,
            copy,
            pace: &self.pace,
        };
        match job.run().await {
            Ok(left) => {
                self.failures.remove(&copy.to);
                let partitions = partitions - left.len();
                self.heavy.extend(left);
                let mut progress = self.shared.progress.lock();
                progress.moves_done += partitions as u64;
                progress.moves_total += partitions as u64;
                let job = progress.job.take();
                drop(progress);
                let (keys, bytes) = job.map_or((0, 0), |job| (job.keys, job.bytes));
                info!(
                    from,
                    to,
                    partitions,
                    keys,
                    bytes,
                    ms = began.elapsed().as_millis() as u64,
                    "copied"
                );
            }
            Err(error) => {
                self.shared.progress.end();
                self.sources.insert(copy.from, Instant::now());
                let why = format!("copying from node {from:?} to node {to:?}: {error}");
                self.failed(copy.to, why);
            }
        }
    }

    /// Notes that something has failed for a node.
    fn failed(&mut self, node: NodeId, why: String) {
        let (times, _) = self.failures.get(&node).copied().unwrap_or((0, Instant::now()));
        let pause = RETRY_PAUSE_MAX.min(RETRY_PAUSE_MIN * 2u32.saturating_pow(times.min(10)));
        self.failures
            .insert(node, (times.saturating_add(1), Instant::now() + pause));
        // The first time it may only have met a node that was just going, which is said elsewhere; and each time anew would be the same
        // line again and again.
        if times == 1 && self.shared.keeper.is_news(node, &why) {
            warn!(node = self.shared.node_name(node), "not moved yet: {why}");
        }
        self.shared.progress.lock().reason = Some(why);
    }

    /// Nodes leave replica sets. Whether any could.
    async fn leave(&mut self, leaving: Vec<(u16, NodeId)>) -> bool {
        // Under a hold, when nothing is on its way to them: a write of several partitions must not find a node with some of them.
        let hold = hand_over::next_hold();
        let mut partitions: Vec<PartitionId> = leaving.iter().map(|(partition, _)| *partition).collect();
        partitions.sort_unstable();
        let nodes: BTreeSet<NodeId> = leaving.iter().map(|(_, node)| *node).collect();
        let connected: Vec<NodeId> = nodes
            .into_iter()
            .filter(|node| !self.away.contains_key(node))
            .collect();
        let mut outcomes = Vec::new();
        if self
            .shared
            .hold(hold, &partitions, usize::MAX, hand_over::HOLD_PATIENCE)
            .await
            .is_ok()
            && tokio::time::timeout(LEAVE_MAX, job::come_to_rest(&self.shared, hold, &connected))
                .await
                .is_ok()
        {
            let actions = leaving
                .iter()
                .map(|&(partition, node)| (partition, Action::Leave(node)));
            outcomes = self.shared.operate(hold, 0, actions.collect()).await;
        }
        let release = partitions.iter().map(|&p| (p, Action::Release)).collect();
        self.shared.operate(hold, 0, release).await;
        for &(_, node) in &leaving {
            self.swept.remove(&node);
        }
        self.shared.admissions.set_strangers(true);
        outcomes.contains(&Outcome::Done)
    }

    /// Why nothing is moved although something should be.
    fn say_why_not(&self, places: &[Place], able: &BTreeSet<NodeId>, paused: bool) {
        let mut progress = self.shared.progress.lock();
        if paused {
            progress.reason = Some("paused by an operator (ringfence ring resume)".into());
            return;
        }
        if progress.reason.is_some() {
            return;
        }
        let lacks = |place: &Place| {
            let missing = place.target.iter().find(|node| {
                !able.contains(node) && (!place.replicas.contains(node) || place.out.contains(node))
            });
            missing.copied()
        };
        progress.reason = places.iter().find_map(lacks).map(|node| {
            let name = self.shared.node_name(node);
            let health = self.shared.keeper.health(node);
            match health.trouble {
                Some(trouble) => format!("node {name:?} {}", trouble.why),
                None if self.shared.admissions.is_full(std::iter::once(node)) => {
                    format!("node {name:?} has no memory left")
                }
                None => format!("node {name:?} is not connected"),
            }
        });
    }
}

/// The partitions, in their order.
fn places(views: &[WorkerView], target: &[ReplicaSet]) -> Vec<Place> {
    let mut places: Vec<Place> = target
        .iter()
        .map(|target| Place {
            target: target.to_vec(),
            ..Place::default()
        })
        .collect();
    for view in views.iter().flat_map(|view| &view.partitions) {
        if let Some(place) = places.get_mut(usize::from(view.partition)) {
            place.replicas = view.replicas.to_vec();
            place.live = view.live.to_vec();
            place.out = view.out.to_vec();
            place.recorded = view.recorded.to_vec();
            place.leaving = view.leaving.to_vec();
        }
    }
    places
}
