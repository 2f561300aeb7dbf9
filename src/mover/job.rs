//! One copy: some partitions, from a node that has them to one that should, while clients write to them.
//!
//! 1. What is left of an earlier copy's connections is ended. The recipient's account is told that what it has of these partitions is
//!    not what any position says, so that a copy that is cut short is known for what it is.
//! 2. The source, and the owner, tell of every change from here on ([`ends`](super::ends)); then the recipient's streams come to rest, so
//!    that nothing of an earlier time arrives there any more. All keys are copied, a few at a time.
//! 3. Those that have changed meanwhile are copied again, until few are left.
//! 4. The partitions are held: nothing is ordered. The source executes what has been (and says so for each partition: it may be
//!    given some of them no more), the last keys go over, the recipient's account gets the source's position, and it joins the
//!    replica sets. Then clients go on; they have waited for a few ms.
//!
//! Whatever fails, the hold ends, and the copy is begun anew some time later, when nothing of the last attempt can arrive any more.
//! All connections are those of users that a successor fences.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use thiserror::Error;
use tracing::debug;

use super::ends::Ends;
use super::plan::Copy;
use super::progress::Phase;
use crate::account;
use crate::node::{
    Control, ControlError, CopyError, Pace, Scope, bytes_of, databases, pairs_of, remove_partitions,
    scan_step,
};
use crate::request::{Action, Commands, HoldId, NodeId, Outcome, PartitionId};
use crate::shared::Shared;

/// Changed keys that are left for the hand-over: a round trip or two.
pub(super) const FEW_KEYS: usize = 32;

/// So often changed keys are copied again before the hand-over is tried with however many there are.
const PASSES_MAX: u32 = 12;

/// So often it is tried with few keys only.
const HASTY_TRIES: u32 = 6;

/// Longest time that partitions are held where nothing else has helped: large values that change all the time. Else it is as
/// long as a node may be silent, or as its round trips take.
pub(super) const LAST_HAND_OVER_MAX: Duration = Duration::from_secs(10);

/// Round trips to the recipient that a hand-over takes besides those that copy what is left, and some more. Over a slow link
/// they are what takes long.
const HAND_OVER_TRIPS: u32 = 6;

/// So many are made to know how long one takes.
const TRIPS_MEASURED: u32 = 3;

/// Longest time on account of a slow link, or of large values.
const SLOW_HAND_OVER_MAX: Duration = Duration::from_secs(2);

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
    #[error("clients hold partition {0} for long")]
    Held(PartitionId),
    #[error("too many keys change at once: {0}")]
    TooMany(usize),
}

/// A copy being made.
pub(super) struct Job<'a> {
    pub(super) shared: &'a Shared,
    pub(super) copy: &'a Copy,
    pub(super) pace: &'a Pace,
}

impl Job<'_> {
    /// Makes it. What is left are partitions with large values that change all the time, and those that clients hold for long, if there
    /// are others: their hand-over takes longer, and nobody else should wait for it.
    pub(super) async fn run(&self) -> Result<Vec<PartitionId>, JobError> {
        let result = self.copy_and_hand_over().await;
        self.note_changes(false).await;
        result
    }

    async fn copy_and_hand_over(&self) -> Result<Vec<PartitionId>, JobError> {
        let copy = self.copy;
        let wanted: HashSet<PartitionId> = copy.partitions.iter().copied().collect();
        let config = &self.shared.config;
        let scope = Scope {
            keyspace: &self.shared.keyspace,
            wanted: &wanted,
            bookkeeping_db: config.pool.bookkeeping_db,
        };
        let mut ends = Ends::open(self.shared, copy, &scope).await?;
        mark(&mut ends.target, scope.bookkeeping_db, &copy.partitions)
            .await
            .map_err(|error| ends.of_target(error))?;
        self.note_changes(true).await;
        self.come_to_rest(HoldId::NONE, &[copy.to]).await?;
        if self.is_relied_on().await {
            unmark(&mut ends.target, scope.bookkeeping_db, &copy.partitions)
                .await
                .map_err(|error| ends.of_target(error))?;
            return Err(JobError::Refused("a copy to a node that has come back by itself"));
        }
        forget(&mut ends.target, scope.bookkeeping_db, &copy.partitions)
            .await
            .map_err(|error| ends.of_target(error))?;
        ends.while_listening(async |_, target| remove_partitions(target, &scope, self.pace).await)
            .await?;
        self.scan(&mut ends, &scope).await?;
        let trips = self.trip(&mut ends).await? * HAND_OVER_TRIPS;
        let mut blocked = HashSet::new();
        for attempt in 0.. {
            self.shared.progress.phase(Phase::CatchUp);
            // What is left will take about as long as what was copied last.
            let took = self.catch_up(&mut ends, &scope).await?;
            let hasty = (trips + took * 2)
                .min(SLOW_HAND_OVER_MAX)
                .max(config.timeouts.node);
            let mut heavy = ends.heavy(&scope);
            heavy.extend(&blocked);
            let light: HashSet<PartitionId> = wanted.difference(&heavy).copied().collect();
            let needs_all = self.shared.library.judge.is_one_place();
            let (goes, stays) = match light.is_empty() || needs_all {
                true => (&wanted, Vec::new()),
                false => (&light, heavy.iter().copied().collect()),
            };
            let is_last = attempt >= HASTY_TRIES || (stays.is_empty() && !heavy.is_empty());
            let scope = Scope {
                wanted: goes,
                ..scope
            };
            let longest = if is_last { LAST_HAND_OVER_MAX } else { hasty };
            self.shared.progress.phase(Phase::HandOver);
            match self.hand_over(&mut ends, &scope, longest).await {
                Err(why @ (JobError::TooMany(_) | JobError::Held(_))) if attempt < HASTY_TRIES => {
                    debug!(%why, "not handed over yet: once more");
                    if let JobError::Held(partition) = why {
                        blocked.insert(partition);
                    }
                }
                // A connection that was given up in the middle of an answer is of no use any more.
                ended => return ended.map(|()| stays),
            }
        }
        Ok(Vec::new())
    }

    /// Whether what the recipient has counts, or may by a record: it has come back by itself since somebody looked. Once there is a
    /// mark, it does not do that any more.
    async fn is_relied_on(&self) -> bool {
        let views = self.shared.views().await;
        let mut all = views.iter().flat_map(|view| &view.partitions);
        all.any(|view| {
            let counts = view.in_sync.contains(&self.copy.to) || view.recorded.contains(&self.copy.to);
            counts && self.copy.partitions.contains(&view.partition)
        })
    }

    /// Has the owners note which keys are written, or no more.
    async fn note_changes(&self, begins: bool) {
        let actions = self.copy.partitions.iter();
        let actions = actions.map(|&partition| (partition, Action::NoteChanges(begins)));
        self.shared.operate(HoldId::NONE, 0, actions.collect()).await;
    }

    /// The longest of some round trips to the recipient.
    async fn trip(&self, ends: &mut Ends) -> Result<Duration, JobError> {
        let mut longest = Duration::ZERO;
        for _ in 0..TRIPS_MEASURED {
            let began = Instant::now();
            let answered = ends.target.call(&[b"PING"]).await;
            answered.map_err(|error| ends.of_target(error))?;
            longest = longest.max(began.elapsed());
        }
        Ok(longest)
    }

    /// Waits until these nodes have executed everything that is on its way to them.
    pub(super) async fn come_to_rest(&self, under: HoldId, nodes: &[NodeId]) -> Result<(), JobError> {
        match come_to_rest(self.shared, under, nodes).await {
            true => Ok(()),
            false => Err(JobError::Refused("waiting for the nodes' streams")),
        }
    }

    /// Copies all keys once.
    async fn scan(&self, ends: &mut Ends, scope: &Scope<'_>) -> Result<(), JobError> {
        let dbs = databases(&mut ends.source).await;
        let dbs = dbs.map_err(|error| ends.of_source(error))?;
        ends.dbs.extend(&dbs);
        for db in dbs.into_iter().filter(|db| *db != scope.bookkeeping_db) {
            let mut cursor = b"0".to_vec();
            loop {
                let keys = scan_step(&mut ends.source, db, &mut cursor, scope).await?;
                ends.note_streams(db, &keys).await?;
                let copied = ends.copy(db, &keys, self.pace).await?;
                self.shared.progress.copied(copied.keys, copied.bytes);
                if cursor == b"0" {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Copies what has changed, until few keys are left: how long that took, the last time. Large values that change again and
    /// again are left out.
    async fn catch_up(&self, ends: &mut Ends, scope: &Scope<'_>) -> Result<Duration, JobError> {
        let mut took = Duration::ZERO;
        for pass in 0..PASSES_MAX {
            ends.catch_up().await?;
            let large = ends.large_changes(scope).await?;
            if pass > 0 && large.is_empty() && ends.open_changes().count() <= FEW_KEYS {
                break;
            }
            let began = Instant::now();
            let changed = ends.take_changed(self.shared, HoldId::NONE, scope).await?;
            let changed = ends.sort_out(large, changed);
            self.copy_changed(ends, &changed, scope, self.pace).await?;
            took = began.elapsed();
        }
        Ok(took)
    }

    /// Which databases a changed key was in is not told. How many keys would not stand still.
    pub(super) async fn copy_changed(
        &self,
        ends: &mut Ends,
        keys: &[Vec<u8>],
        scope: &Scope<'_>,
        pace: &Pace,
    ) -> Result<usize, JobError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let now = databases(&mut ends.source).await;
        let now = now.map_err(|error| ends.of_source(error))?;
        ends.dbs.extend(now);
        let mut left = 0;
        for db in ends
            .dbs
            .clone()
            .into_iter()
            .filter(|db| *db != scope.bookkeeping_db)
        {
            ends.note_streams(db, keys).await?;
            let copied = ends.copy(db, keys, pace).await?;
            self.shared.progress.copied(copied.keys, copied.bytes);
            left += copied.left as usize;
        }
        Ok(left)
    }
}

/// Waits until these nodes have executed everything that is on its way to them: whether they have.
pub(super) async fn come_to_rest(shared: &Shared, under: HoldId, nodes: &[NodeId]) -> bool {
    let ping = Bytes::from_static(b"*1\r\n$4\r\nPING\r\n");
    let on = |node: NodeId| Action::OnNode(node, Commands::one(ping.clone()));
    // The first partitions belong to the workers one by one.
    let workers = shared.workers.len() as PartitionId;
    let asked = (0..workers).flat_map(|worker| nodes.iter().map(move |&node| (worker, node)));
    let asked = asked.map(|(worker, node)| (worker, on(node))).collect();
    let outcomes = shared.operate(under, 0, asked).await;
    outcomes.iter().all(|o| matches!(o, Outcome::Reply { .. }))
}

/// Marks partitions on a node as what no position tells of (invariant 14).
pub(super) async fn mark(
    control: &mut Control,
    bookkeeping_db: u16,
    partitions: &[PartitionId],
) -> Result<(), ControlError> {
    let names: Vec<Vec<u8>> = partitions.iter().map(|p| p.to_string().into_bytes()).collect();
    let mut mark: Vec<&[u8]> = vec![b"HSET", account::REPAIR];
    for name in &names {
        mark.extend([name.as_slice(), b""]);
    }
    control.select(bookkeeping_db).await?;
    control.call(&mark).await.map(drop)
}

/// Takes marks back.
pub(super) async fn unmark(
    control: &mut Control,
    bookkeeping_db: u16,
    partitions: &[PartitionId],
) -> Result<(), ControlError> {
    let names: Vec<Vec<u8>> = partitions.iter().map(|p| p.to_string().into_bytes()).collect();
    let mut unmark: Vec<&[u8]> = vec![b"HDEL", account::REPAIR];
    unmark.extend(names.iter().map(Vec::as_slice));
    control.select(bookkeeping_db).await?;
    control.call(&unmark).await.map(drop)
}

/// Removes what a node's account says of marked partitions: its position there, and what its last batches touched. (Seqs of an earlier
/// time may come again, with other keys.)
pub(super) async fn forget(
    control: &mut Control,
    bookkeeping_db: u16,
    partitions: &[PartitionId],
) -> Result<(), ControlError> {
    control.select(bookkeeping_db).await?;
    let touched = pairs_of(control.call(&[b"HGETALL", account::TOUCHED]).await?);
    let is_of_them = |records: &BytesFrame| {
        let records = account::parse_touched(bytes_of(records));
        records.is_none_or(|records| records.iter().any(|r| partitions.contains(&r.partition)))
    };
    let batches: Vec<&[u8]> = touched
        .iter()
        .filter(|(_, records)| is_of_them(records))
        .map(|(batch, _)| bytes_of(batch))
        .collect();
    let names: Vec<Vec<u8>> = partitions.iter().map(|p| p.to_string().into_bytes()).collect();
    let mut positions: Vec<&[u8]> = vec![b"HDEL", account::APPLIED];
    positions.extend(names.iter().map(Vec::as_slice));
    control.call(&positions).await?;
    if !batches.is_empty() {
        let mut forget: Vec<&[u8]> = vec![b"HDEL", account::TOUCHED];
        forget.extend(batches);
        control.call(&forget).await?;
    }
    Ok(())
}
