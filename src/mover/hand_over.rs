//! The hand-over: the last keys go over while nobody writes, and the recipient joins.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use redis_protocol::resp3::types::BytesFrame;
use tracing::info;

use super::ends::Ends;
use super::job::{FEW_KEYS, Job, JobError, LAST_HAND_OVER_MAX};
use crate::account::{self, Position};
use crate::node::{ControlError, Pace, Scope, bytes_of, is_error, text_of};
use crate::request::{Action, HoldId, NodeId, Outcome, PartitionId};

/// How long it may take until the partitions are held: those that are already wait for the others.
pub(super) const HOLD_PATIENCE: Duration = Duration::from_millis(100);

/// A hand-over that takes longer is worth a line in the log, in us.
const LONG_HOLD_US: u64 = 50_000;

/// How long the table's record may take, where the hand-over waits for it.
const RECORD_WAIT: Duration = Duration::from_secs(2);

/// Numbers of holds.
static HOLDS: AtomicU64 = AtomicU64::new(1);

/// The number of a hold that nobody has had.
pub(super) fn next_hold() -> HoldId {
    HoldId::of_pool(HOLDS.fetch_add(1, Relaxed))
}

impl Job<'_> {
    /// Copies the last keys, under a hold, and lets the recipient join.
    pub(super) async fn hand_over(
        &self,
        ends: &mut Ends,
        scope: &Scope<'_>,
        longest: Duration,
    ) -> Result<(), JobError> {
        let hold = next_hold();
        let mut partitions: Vec<PartitionId> = scope.wanted.iter().copied().collect();
        partitions.sort_unstable();
        let began = Instant::now();
        let is_last = longest == LAST_HAND_OVER_MAX;
        let patience = if is_last { longest } else { HOLD_PATIENCE };
        // All at once where it would not help to know which one cannot be held.
        let at_once = match self.shared.library.judge.is_one_place() {
            true => usize::MAX,
            false => 1,
        };
        let result = match self.shared.hold(hold, &partitions, at_once, patience).await {
            Ok(()) => {
                let steps = self.under_hold(hold, ends, scope, is_last);
                tokio::time::timeout(longest, steps)
                    .await
                    .unwrap_or(Err(JobError::TooLong(longest)))
            }
            Err(partition) => Err(JobError::Held(partition)),
        };
        let release = partitions.iter().map(|&p| (p, Action::Release)).collect();
        self.shared.operate(hold, 0, release).await;
        let held_us = began.elapsed().as_micros() as u64;
        let mut progress = self.shared.progress.lock();
        progress.longest_hold_us = progress.longest_hold_us.max(held_us);
        drop(progress);
        if held_us > LONG_HOLD_US {
            info!(
                held_ms = held_us / 1000,
                partitions = partitions.len(),
                "clients of these partitions had to wait for a hand-over: large values change all the time, or the machine is busy"
            );
        }
        result
    }

    async fn under_hold(
        &self,
        hold: HoldId,
        ends: &mut Ends,
        scope: &Scope<'_>,
        is_last: bool,
    ) -> Result<(), JobError> {
        let copy = self.copy;
        // A source that has fallen out of a partition answers all the same, but not for that partition.
        let settled = |&partition: &PartitionId| (partition, Action::Settled(copy.from));
        let settled = self
            .shared
            .operate(hold, 0, scope.wanted.iter().map(settled).collect())
            .await;
        if settled.iter().any(|outcome| *outcome != Outcome::Done) {
            return Err(JobError::Refused("waiting for the source"));
        }
        self.come_to_rest(hold, &[copy.to]).await?;
        ends.catch_up().await?;
        let open = ends.open_changes().count();
        if !is_last && open > FEW_KEYS * 4 {
            return Err(JobError::TooMany(open));
        }
        let mut changed: HashSet<Vec<u8>> = ends
            .take_changed(self.shared, hold, scope)
            .await?
            .into_iter()
            .collect();
        changed.extend(ends.restless(scope).cloned());
        changed.extend(ends.streams_in_doubt(scope).await?);
        // Keys that are called like ours are not told of.
        let ours = [account::APPLIED, account::TOUCHED].map(<[u8]>::to_vec);
        changed.extend(ours.into_iter().filter(|key| super::ends::is_wanted(key, scope)));
        let changed: Vec<Vec<u8>> = changed.into_iter().collect();
        let left = self.copy_changed(ends, &changed, scope, &Pace::new(0)).await?;
        if left > 0 {
            // They are taken from those that are known to have changed, so there is no trying once more.
            return Err(JobError::Refused("copying the last keys"));
        }
        let positions = self.hand_account_over(ends, scope).await?;
        // It may have been taken out of the pool meanwhile; and is not, while this is held.
        let _joining = self.shared.keeper.joining.lock().await;
        if self.shared.keeper.access(copy.to).is_none() {
            return Err(JobError::Refused("joining"));
        }
        let join = |(partition, position)| (partition, Action::Join(copy.to, position));
        let joined = self
            .shared
            .operate(hold, 0, positions.into_iter().map(join).collect())
            .await;
        let mut result = match joined.iter().all(|outcome| *outcome == Outcome::Done) {
            true => Ok(()),
            false => Err(JobError::Refused("joining")),
        };
        if self.shared.config.pool.replicas == 1 {
            if result.is_ok() {
                result = self.switch(hold, scope).await;
            }
            if result.is_err() {
                // Nothing is acknowledged while there are both.
                let leave = |&partition: &PartitionId| (partition, Action::Leave(copy.to));
                let undo = scope.wanted.iter().map(leave).collect();
                self.shared.operate(hold, 0, undo).await;
            }
        }
        result
    }

    /// The recipient stands where the source stands: where that is, in each partition. (`None` with one copy: then it only says that the
    /// node has something of the partition.)
    async fn hand_account_over(
        &self,
        ends: &mut Ends,
        scope: &Scope<'_>,
    ) -> Result<Vec<(PartitionId, Option<Position>)>, JobError> {
        let wanted: Vec<PartitionId> = scope.wanted.iter().copied().collect();
        let names: Vec<Vec<u8>> = wanted.iter().map(|p| p.to_string().into_bytes()).collect();
        let mut get: Vec<&[u8]> = vec![b"HMGET", account::APPLIED];
        get.extend(names.iter().map(Vec::as_slice));
        let found = async {
            ends.source.select(scope.bookkeeping_db).await?;
            ends.source.call(&get).await
        };
        let found = found.await.map_err(|error| ends.of_source(error))?;
        let BytesFrame::Array { data: texts, .. } = found else {
            return Err(JobError::Refused("reading the source's account"));
        };
        let positions: Option<Vec<Position>> = texts.iter().map(position_of).collect();
        let Some(positions) = positions.filter(|positions| positions.len() == wanted.len()) else {
            return Err(JobError::Refused("reading the source's account"));
        };
        let texts: Vec<String> = positions.iter().map(Position::to_string).collect();
        let texts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
        self.clear_marks(ends, scope, &wanted, &texts).await?;
        let keeps_account = self.shared.config.pool.replicas > 1;
        let positions = positions
            .into_iter()
            .map(|position| keeps_account.then_some(position));
        Ok(wanted.into_iter().zip(positions).collect())
    }

    /// Takes the marks of these partitions from the recipient, and gives it these positions there, in one transaction.
    async fn clear_marks(
        &self,
        ends: &mut Ends,
        scope: &Scope<'_>,
        wanted: &[PartitionId],
        positions: &[&[u8]],
    ) -> Result<(), JobError> {
        let names: Vec<Vec<u8>> = wanted.iter().map(|p| p.to_string().into_bytes()).collect();
        let mut clear: Vec<&[u8]> = vec![b"HDEL", account::REPAIR];
        clear.extend(names.iter().map(Vec::as_slice));
        let mut applied: Vec<&[u8]> = vec![b"HSET", account::APPLIED];
        for (name, position) in names.iter().zip(positions) {
            applied.extend([name.as_slice(), *position]);
        }
        let commands: [&[&[u8]]; 4] = [&[b"MULTI"], &clear, &applied, &[b"EXEC"]];
        let replies = async {
            ends.target.select(scope.bookkeeping_db).await?;
            ends.target.call_all(commands).await
        };
        let replies = replies.await.map_err(|error| ends.of_target(error))?;
        match replies.into_iter().find(is_error) {
            Some(error) => Err(ends.of_target(ControlError::Refused(text_of(&error)))),
            None => Ok(()),
        }
    }

    /// With one copy no account tells who has more, so the former node leaves while nothing is under way.
    async fn switch(&self, hold: HoldId, scope: &Scope<'_>) -> Result<(), JobError> {
        let partitions: Vec<PartitionId> = scope.wanted.iter().copied().collect();
        self.recorded(&partitions, |row| row.contains(&self.copy.to))
            .await?;
        let leave = |&partition: &PartitionId| (partition, Action::Leave(self.copy.from));
        let left = self
            .shared
            .operate(hold, 0, partitions.iter().map(leave).collect())
            .await;
        if left.iter().any(|outcome| *outcome != Outcome::Done) {
            return Err(JobError::Refused("leaving"));
        }
        self.recorded(&partitions, |row| !row.contains(&self.copy.from))
            .await
    }

    /// Waits until the table's record has it.
    async fn recorded(
        &self,
        partitions: &[PartitionId],
        has: impl Fn(&[NodeId]) -> bool,
    ) -> Result<(), JobError> {
        let end = Instant::now() + RECORD_WAIT;
        loop {
            let table = self.shared.table.load_full();
            let mut rows = partitions.iter().filter_map(|p| table.rows.get(usize::from(*p)));
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

/// The position that an account's field tells. A node of which it has never been noted is at the beginning: it may have been emptied
/// while the partition was empty, and then it lacks nothing.
fn position_of(field: &BytesFrame) -> Option<Position> {
    match field {
        BytesFrame::Null => Some(Position::default()),
        text => Position::parse(bytes_of(text)),
    }
}
