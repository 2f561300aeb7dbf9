//! One copy: some partitions, from a node that has them to one that should, while clients write to them.
//!
//! 1. The recipient's account is told that what it has of these partitions is not what any position says, so that a copy that is
//!    cut short is known for what it is; and its stream comes to rest, so that nothing of an earlier time arrives any more.
//! 2. The source tells of every change from here on ([`Tracker`]). Its keys are copied, a few at a time.
//! 3. Those that have changed meanwhile are copied again, until few are left.
//! 4. The partitions are held: nothing is ordered. The source executes what has been (and says so for each partition: it may be
//!    given some of them no more), the last keys go over, the recipient's account gets the source's position, and it joins the
//!    replica sets. Then clients go on; they have waited for a few ms.
//!
//! Whatever fails, the hold ends, and the copy is begun anew some time later, when nothing of the last attempt can arrive any more.
//! All connections are those of users that a successor fences.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;
use tracing::debug;

use super::plan::Copy;
use super::progress::Phase;
use crate::account;
use crate::node::{
    Control, ControlError, CopyError, Pace, Scope, Tracker, bytes_of, copy_keys, databases, is_error,
    remove_partitions, scan_step, text_of,
};
use crate::request::{Action, Commands, HoldId, NodeId, Outcome, PartitionId};
use crate::ring::partition_of;
use crate::shared::Shared;

/// Changed keys that are left for the hand-over: a round trip or two.
const FEW_KEYS: usize = 32;

/// So often changed keys are copied again before the hand-over is tried with however many there are.
const PASSES_MAX: u32 = 12;

/// So often it is tried with few keys only.
const HASTY_TRIES: u32 = 6;

/// Longest time that partitions are held for a hand-over that is not the last try.
const HAND_OVER_MAX: Duration = Duration::from_millis(200);

/// The same where nothing else has helped: large values that change all the time.
const LAST_HAND_OVER_MAX: Duration = Duration::from_secs(10);

/// How long the table's record may take, where the hand-over waits for it.
const RECORD_WAIT: Duration = Duration::from_secs(2);

/// Why a copy was not made.
#[derive(Debug, Error)]
pub(super) enum JobError {
    #[error("{node}: {error}")]
    Node { node: String, error: ControlError },
    #[error("{0}")]
    Copy(#[from] CopyError),
    #[error("a database was emptied meanwhile")]
    Flushed,
    #[error("{0} was not possible: a node has gone, or too few are in sync")]
    Refused(&'static str),
    #[error("the hand-over took longer than {0:?}")]
    TooLong(Duration),
    #[error("too many keys change at once: {0}")]
    TooMany(usize),
}

/// Numbers of holds.
static HOLDS: AtomicU64 = AtomicU64::new(1);

/// A copy being made.
pub(super) struct Job<'a> {
    pub(super) shared: &'a Shared,
    pub(super) copy: &'a Copy,
    pub(super) pace: &'a Pace,
}

impl Job<'_> {
    /// Makes it.
    pub(super) async fn run(&self) -> Result<(), JobError> {
        let copy = self.copy;
        let wanted: HashSet<PartitionId> = copy.partitions.iter().copied().collect();
        let config = &self.shared.config;
        let scope = Scope {
            partitions: self.shared.table.load().partitions(),
            wanted: &wanted,
            bookkeeping_db: config.pool.bookkeeping_db,
        };
        let target = self.shared.keeper.connect_anew(copy.to).await;
        let mut target = target.map_err(|error| self.of(copy.to, error))?;
        announce(&mut target, scope.bookkeeping_db, &copy.partitions)
            .await
            .map_err(|error| self.of(copy.to, error))?;
        self.come_to_rest(HoldId::NONE, &[copy.to]).await?;
        remove_partitions(&mut target, &scope, self.pace).await?;
        let mut source = self.connect(copy.from).await?;
        let tracker = Tracker::start(self.connect(copy.from).await?).await;
        let mut tracker = tracker.map_err(|error| self.of(copy.from, error))?;
        self.scan(&mut source, &mut target, &mut tracker, &scope).await?;
        let mut last = None;
        for attempt in 0..=HASTY_TRIES {
            self.shared.progress.phase(Phase::CatchUp);
            self.catch_up(&mut source, &mut target, &mut tracker, &scope)
                .await?;
            let is_last = attempt == HASTY_TRIES;
            self.shared.progress.phase(Phase::HandOver);
            match self
                .hand_over(&mut source, &mut target, &mut tracker, &scope, is_last)
                .await
            {
                Ok(()) => return Ok(()),
                Err(JobError::TooMany(keys)) => {
                    debug!(keys, "many keys have changed before the hand-over: once more");
                    last = Some(JobError::TooMany(keys));
                }
                // A connection that was given up in the middle of an answer is of no use any more.
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(JobError::Refused("the hand-over")))
    }

    fn of(&self, node: NodeId, error: ControlError) -> JobError {
        JobError::Node {
            node: self.shared.node_name(node),
            error,
        }
    }

    async fn connect(&self, node: NodeId) -> Result<Control, JobError> {
        let connect = self.shared.keeper.connect(node).await;
        connect.map_err(|error| self.of(node, error))
    }

    /// Waits until these nodes have executed everything that is on its way to them.
    async fn come_to_rest(&self, under: HoldId, nodes: &[NodeId]) -> Result<(), JobError> {
        let ping = Bytes::from_static(b"*1\r\n$4\r\nPING\r\n");
        let workers = self.shared.workers.len() as u16;
        let of_worker = |worker: u16| {
            nodes
                .iter()
                .map(move |&node| (worker, node))
                .map(|(worker, node)| (worker, Action::OnNode(node, Commands::one(ping.clone()))))
        };
        let asked = (0..workers).flat_map(of_worker).collect();
        let outcomes = self.shared.operate(under, asked).await;
        match outcomes.iter().all(|o| matches!(o, Outcome::Reply { .. })) {
            true => Ok(()),
            false => Err(JobError::Refused("waiting for the nodes' streams")),
        }
    }

    /// Copies all keys once.
    async fn scan(
        &self,
        source: &mut Control,
        target: &mut Control,
        tracker: &mut Tracker,
        scope: &Scope<'_>,
    ) -> Result<(), JobError> {
        let dbs = databases(source)
            .await
            .map_err(|error| self.of(self.copy.from, error))?;
        for db in dbs.into_iter().filter(|db| *db != scope.bookkeeping_db) {
            let mut cursor = b"0".to_vec();
            loop {
                let keys = scan_step(source, db, &mut cursor, scope).await?;
                let copied = copy_keys(source, target, db, &keys, self.pace).await?;
                self.shared.progress.copied(copied.keys, copied.bytes);
                // What has changed must not pile up at the source.
                self.note_changes(tracker).await?;
                if cursor == b"0" {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn note_changes(&self, tracker: &mut Tracker) -> Result<(), JobError> {
        let caught_up = tracker.catch_up().await;
        caught_up.map_err(|error| self.of(self.copy.from, error))
    }

    /// Copies what has changed, until few keys are left.
    async fn catch_up(
        &self,
        source: &mut Control,
        target: &mut Control,
        tracker: &mut Tracker,
        scope: &Scope<'_>,
    ) -> Result<(), JobError> {
        for _ in 0..PASSES_MAX {
            self.note_changes(tracker).await?;
            if tracker.changed() <= FEW_KEYS {
                break;
            }
            let changed = changed(tracker, scope)?;
            self.copy_changed(source, target, &changed, scope, self.pace)
                .await?;
        }
        Ok(())
    }

    /// Which databases a changed key was in is not told.
    async fn copy_changed(
        &self,
        source: &mut Control,
        target: &mut Control,
        keys: &[Vec<u8>],
        scope: &Scope<'_>,
        pace: &Pace,
    ) -> Result<(), JobError> {
        if keys.is_empty() {
            return Ok(());
        }
        let of = |node: NodeId| move |error| (node, error);
        let both: Result<BTreeSet<u16>, (NodeId, ControlError)> = async {
            let mut dbs = databases(source).await.map_err(of(self.copy.from))?;
            dbs.extend(databases(target).await.map_err(of(self.copy.to))?);
            Ok(dbs)
        }
        .await;
        let dbs = both.map_err(|(node, error)| self.of(node, error))?;
        for db in dbs.into_iter().filter(|db| *db != scope.bookkeeping_db) {
            let copied = copy_keys(source, target, db, keys, pace).await?;
            self.shared.progress.copied(copied.keys, copied.bytes);
        }
        Ok(())
    }

    /// The last keys, under a hold; and the recipient joins.
    async fn hand_over(
        &self,
        source: &mut Control,
        target: &mut Control,
        tracker: &mut Tracker,
        scope: &Scope<'_>,
        is_last: bool,
    ) -> Result<(), JobError> {
        let hold = HoldId::of_pool(HOLDS.fetch_add(1, Relaxed));
        let mut partitions = self.copy.partitions.clone();
        partitions.sort_unstable();
        let each = |action: fn() -> Action| partitions.iter().map(|&p| (p, action())).collect::<Vec<_>>();
        let held = self.shared.operate(hold, each(|| Action::Hold)).await;
        let began = Instant::now();
        let longest = if is_last {
            LAST_HAND_OVER_MAX
        } else {
            HAND_OVER_MAX
        };
        let result = match held.iter().all(|outcome| *outcome == Outcome::Done) {
            true => {
                let steps = self.under_hold(hold, source, target, tracker, scope, is_last);
                tokio::time::timeout(longest, steps)
                    .await
                    .unwrap_or(Err(JobError::TooLong(longest)))
            }
            false => Err(JobError::Refused("a hold")),
        };
        self.shared.operate(hold, each(|| Action::Release)).await;
        let held_us = began.elapsed().as_micros() as u64;
        let mut progress = self.shared.progress.lock();
        progress.longest_hold_us = progress.longest_hold_us.max(held_us);
        debug!(held_us, partitions = partitions.len(), "partitions were held");
        result
    }

    async fn under_hold(
        &self,
        hold: HoldId,
        source: &mut Control,
        target: &mut Control,
        tracker: &mut Tracker,
        scope: &Scope<'_>,
        is_last: bool,
    ) -> Result<(), JobError> {
        let copy = self.copy;
        // A source that has fallen out of a partition answers all the same, but not for that partition.
        let settled = |&partition: &PartitionId| (partition, Action::Settled(copy.from));
        let settled = self
            .shared
            .operate(hold, copy.partitions.iter().map(settled).collect())
            .await;
        if settled.iter().any(|outcome| *outcome != Outcome::Done) {
            return Err(JobError::Refused("waiting for the source"));
        }
        self.come_to_rest(hold, &[copy.to]).await?;
        self.note_changes(tracker).await?;
        if !is_last && tracker.changed() > FEW_KEYS * 4 {
            return Err(JobError::TooMany(tracker.changed()));
        }
        let mut changed = changed(tracker, scope)?;
        // Keys that are called like ours are not told of.
        let ours = [account::APPLIED, account::TOUCHED].map(<[u8]>::to_vec);
        changed.extend(ours.into_iter().filter(|key| is_wanted(key, scope)));
        self.copy_changed(source, target, &changed, scope, &Pace::new(0))
            .await?;
        self.hand_account_over(source, target, scope).await?;
        let join = |&partition: &PartitionId| (partition, Action::Join(copy.to));
        let joined = self
            .shared
            .operate(hold, copy.partitions.iter().map(join).collect())
            .await;
        if joined.iter().any(|outcome| *outcome != Outcome::Done) {
            return Err(JobError::Refused("joining"));
        }
        if self.shared.config.pool.replicas == 1 {
            self.switch(hold, source).await?;
        }
        Ok(())
    }

    /// The recipient stands where the source stands.
    async fn hand_account_over(
        &self,
        source: &mut Control,
        target: &mut Control,
        scope: &Scope<'_>,
    ) -> Result<(), JobError> {
        let db = scope.bookkeeping_db.to_string();
        let names: Vec<Vec<u8>> = self
            .copy
            .partitions
            .iter()
            .map(|p| p.to_string().into_bytes())
            .collect();
        let ask = |first: [&'static [u8]; 2]| -> Vec<&[u8]> {
            first.into_iter().chain(names.iter().map(Vec::as_slice)).collect()
        };
        let (select, get): (Vec<&[u8]>, _) =
            (vec![b"SELECT", db.as_bytes()], ask([b"HMGET", account::APPLIED]));
        let found = source
            .call_all([&select[..], &get[..]])
            .await
            .map_err(|error| self.of(self.copy.from, error))?;
        let positions = match found.last() {
            Some(redis_protocol::resp3::types::BytesFrame::Array { data, .. }) => data.clone(),
            _ => return Err(JobError::Refused("reading the source's account")),
        };
        let mut applied: Vec<&[u8]> = vec![b"HSET", account::APPLIED];
        for (name, position) in names.iter().zip(&positions) {
            let position = bytes_of(position);
            if !position.is_empty() {
                applied.extend([name.as_slice(), position]);
            }
        }
        let clear = ask([b"HDEL", account::REPAIR]);
        let mut commands: Vec<&[&[u8]]> = vec![&select, &[b"MULTI"], &clear];
        if applied.len() > 2 {
            commands.push(&applied);
        }
        commands.push(&[b"EXEC"]);
        let replies = target
            .call_all(commands)
            .await
            .map_err(|error| self.of(self.copy.to, error))?;
        match replies.into_iter().find(is_error) {
            Some(error) => Err(self.of(self.copy.to, ControlError::Refused(text_of(&error)))),
            None => Ok(()),
        }
    }

    /// With one copy there is no account, so the former node leaves while nothing is under way.
    async fn switch(&self, hold: HoldId, source: &mut Control) -> Result<(), JobError> {
        self.recorded(|row| row.contains(&self.copy.to)).await?;
        // By this it is known later what is to be removed there.
        announce(
            source,
            self.shared.config.pool.bookkeeping_db,
            &self.copy.partitions,
        )
        .await
        .map_err(|error| self.of(self.copy.from, error))?;
        let leave = |&partition: &PartitionId| (partition, Action::Leave(self.copy.from));
        let left = self
            .shared
            .operate(hold, self.copy.partitions.iter().map(leave).collect())
            .await;
        if left.iter().any(|outcome| *outcome != Outcome::Done) {
            return Err(JobError::Refused("leaving"));
        }
        self.recorded(|row| !row.contains(&self.copy.from)).await
    }

    /// Waits until the table's record has it.
    async fn recorded(&self, has: impl Fn(&[NodeId]) -> bool) -> Result<(), JobError> {
        let end = Instant::now() + RECORD_WAIT;
        loop {
            let table = self.shared.table.load_full();
            let mut rows = self
                .copy
                .partitions
                .iter()
                .filter_map(|p| table.rows.get(usize::from(*p)));
            if rows.all(|row| has(&row.replicas)) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(JobError::Refused("the record"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Marks partitions on a node as what no position tells of.
pub(super) async fn announce(
    control: &mut Control,
    bookkeeping_db: u16,
    partitions: &[PartitionId],
) -> Result<(), ControlError> {
    let db = bookkeeping_db.to_string();
    let names: Vec<Vec<u8>> = partitions.iter().map(|p| p.to_string().into_bytes()).collect();
    let mut mark: Vec<&[u8]> = vec![b"HSET", account::REPAIR];
    let mut forget: Vec<&[u8]> = vec![b"HDEL", account::APPLIED];
    for name in &names {
        mark.extend([name.as_slice(), b""]);
        forget.push(name);
    }
    let select: [&[u8]; 2] = [b"SELECT", db.as_bytes()];
    let replies = control
        .call_all([&select[..], &[b"MULTI"], &mark, &forget, &[b"EXEC"]])
        .await?;
    match replies.into_iter().find(is_error) {
        Some(error) => Err(ControlError::Refused(text_of(&error))),
        None => Ok(()),
    }
}

fn is_wanted(key: &[u8], scope: &Scope<'_>) -> bool {
    scope.wanted.contains(&partition_of(key, scope.partitions))
}

/// The keys of these partitions that have changed since they were last taken.
fn changed(tracker: &mut Tracker, scope: &Scope<'_>) -> Result<Vec<Vec<u8>>, JobError> {
    let changed = tracker.take().ok_or(JobError::Flushed)?;
    Ok(changed.into_iter().filter(|key| is_wanted(key, scope)).collect())
}
