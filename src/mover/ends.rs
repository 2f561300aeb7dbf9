//! The two nodes of a copy, and what has changed on the source since it was copied.
//!
//! Two know of changes, and each of some only. The source tells which values have changed ([`Tracker`]), by scripts and expiry too, but
//! not what happens to a stream's consumer groups. The owner knows the keys that writes name (`sequencer::changes`), but not what
//! scripts do. What neither can tell is what scripts do to consumer groups: where there were such writes, all streams with groups
//! are copied once more at the end.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;

use redis_protocol::resp3::decode::complete::decode_bytes;
use redis_protocol::resp3::types::BytesFrame;

use super::ROLE;
use super::job::JobError;
use super::plan::Copy;
use crate::node::{
    Building, Control, ControlError, Copied, CopyError, Pace, Scope, Tracker, are_large, bytes_of, copy_keys,
    text_of,
};
use crate::request::{Action, HoldId, Outcome, PartitionId};
use crate::shared::Shared;

/// Keys that are asked about at once.
const CHUNK_KEYS: usize = 64;

/// The connections of a copy.
pub(super) struct Ends {
    pub(super) source: Control,
    pub(super) target: Control,
    /// Databases that have had keys since the copy began: what has been removed from one of them is removed from its copy.
    pub(super) dbs: BTreeSet<u16>,
    tracker: Tracker,
    /// Large values that were copied once more because they had changed.
    copied_again: HashSet<Vec<u8>>,
    /// Those of them that have changed again since. To copy one that always does before the hand-over is in vain.
    restless: HashSet<Vec<u8>>,
    /// Keys that are streams, or were.
    streams: HashSet<Vec<u8>>,
    /// Partitions with writes that do not name their keys.
    unnamed: HashSet<PartitionId>,
    names: [String; 2],
}

impl Ends {
    /// Connects, after all that is left of an earlier copy has been ended.
    pub(super) async fn open(shared: &Shared, copy: &Copy, scope: &Scope<'_>) -> Result<Self, JobError> {
        let names = [copy.from, copy.to].map(|node| shared.node_name(node));
        let of = |i: usize| {
            let node = names.get(i).cloned().unwrap_or_default();
            move |error| JobError::Node { node, error }
        };
        let keeper = &shared.keeper;
        let source = keeper.connect_alone(copy.from, ROLE).await.map_err(of(0))?;
        let target = keeper.connect_alone(copy.to, ROLE).await.map_err(of(1))?;
        let tracking = keeper.connect(copy.from, ROLE).await.map_err(of(0))?;
        let (wanted, keyspace) = (scope.wanted.clone(), scope.keyspace.clone());
        let is_wanted = move |key: &[u8]| wanted.contains(&keyspace.partition_of(key));
        let tracker = Tracker::start(tracking, is_wanted).await.map_err(of(0))?;
        Ok(Self {
            source,
            target,
            dbs: BTreeSet::new(),
            tracker,
            copied_again: HashSet::new(),
            restless: HashSet::new(),
            streams: HashSet::new(),
            unnamed: HashSet::new(),
            names,
        })
    }

    pub(super) fn of_source(&self, error: ControlError) -> JobError {
        let [node, _] = self.names.clone();
        JobError::Node { node, error }
    }

    pub(super) fn of_target(&self, error: ControlError) -> JobError {
        let [_, node] = self.names.clone();
        JobError::Node { node, error }
    }

    /// Does something with the two nodes; what changes on the source meanwhile does not pile up there.
    pub(super) async fn while_listening<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Control, &mut Control) -> Result<T, CopyError>,
    ) -> Result<T, JobError> {
        let [node, _] = self.names.clone();
        let mut work = pin!(work(&mut self.source, &mut self.target));
        tokio::select! {
            done = &mut work => Ok(done?),
            lost = self.tracker.listen() => match lost {
                Err(error) => Err(JobError::Node { node, error }),
                Ok(()) => Err(JobError::Refused("following the source")),
            },
        }
    }

    /// Copies keys of one database.
    pub(super) async fn copy(&mut self, db: u16, keys: &[Vec<u8>], pace: &Pace) -> Result<Copied, JobError> {
        // Nobody relies on what the recipient has.
        let building = Building::InPlace;
        self.while_listening(async |source, target| copy_keys(source, target, db, keys, building, pace).await)
            .await
    }

    /// Learns of every value that has changed so far.
    pub(super) async fn catch_up(&mut self) -> Result<(), JobError> {
        let caught_up = self.tracker.catch_up().await;
        caught_up.map_err(|error| self.of_source(error))
    }

    /// The values that are known to have changed since they were last taken, without those that are left for the hand-over.
    pub(super) fn open_changes(&self) -> impl Iterator<Item = &Vec<u8>> {
        let changed = self.tracker.changed().iter();
        changed.filter(|key| !self.restless.contains(*key))
    }

    /// Which of the changed values are large.
    pub(super) async fn large_changes(&mut self, scope: &Scope<'_>) -> Result<HashSet<Vec<u8>>, JobError> {
        let keys: Vec<Vec<u8>> = self.open_changes().cloned().collect();
        let mut found = HashSet::new();
        if keys.is_empty() {
            return Ok(found);
        }
        for db in self
            .dbs
            .clone()
            .into_iter()
            .filter(|db| *db != scope.bookkeeping_db)
        {
            let large = are_large(&mut self.source, db, &keys).await;
            let large = large.map_err(|error| self.of_source(error))?;
            let large = keys.iter().zip(large).filter(|(_, is_large)| *is_large);
            found.extend(large.map(|(key, _)| key.clone()));
        }
        Ok(found)
    }

    /// Those of the changed keys that are to be copied now, when these of them have large values.
    pub(super) fn sort_out(&mut self, large: HashSet<Vec<u8>>, changed: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        for key in large {
            if !self.copied_again.insert(key.clone()) {
                self.restless.insert(key);
            }
        }
        let is_open = |key: &Vec<u8>| !self.restless.contains(key);
        changed.into_iter().filter(is_open).collect()
    }

    /// Keys that were left for the hand-over.
    pub(super) fn restless(&self, scope: &Scope<'_>) -> impl Iterator<Item = &Vec<u8>> {
        self.restless.iter().filter(|key| is_wanted(key, scope))
    }

    /// The partitions whose hand-over takes longer by them.
    pub(super) fn heavy(&self, scope: &Scope<'_>) -> HashSet<PartitionId> {
        let restless = self.restless(scope);
        restless.map(|key| scope.keyspace.partition_of(key)).collect()
    }

    /// The keys that have changed since that was last asked for, as far as anybody tells.
    pub(super) async fn take_changed(
        &mut self,
        shared: &Shared,
        under: HoldId,
        scope: &Scope<'_>,
    ) -> Result<Vec<Vec<u8>>, JobError> {
        let mut changed = self.tracker.take().ok_or(JobError::Flushed)?;
        let partitions: Vec<PartitionId> = scope.wanted.iter().copied().collect();
        let ask = partitions.iter().map(|&p| (p, Action::TakeChanges)).collect();
        let told = shared.operate(under, 0, ask).await;
        for (partition, outcome) in partitions.into_iter().zip(told) {
            let Some((is_unnamed, keys)) = parse_changes(outcome) else {
                return Err(JobError::Refused("following the writes"));
            };
            changed.extend(keys);
            if is_unnamed {
                self.unnamed.insert(partition);
            }
        }
        changed.retain(|key| is_wanted(key, scope));
        Ok(changed.into_iter().collect())
    }

    /// Notes which of these keys are streams.
    pub(super) async fn note_streams(&mut self, db: u16, keys: &[Vec<u8>]) -> Result<(), JobError> {
        for chunk in keys.chunks(CHUNK_KEYS) {
            let types = ask_all(&mut self.source, db, &[b"TYPE"], chunk).await;
            let types = types.map_err(|error| self.of_source(error))?;
            let streams = chunk.iter().zip(types);
            let streams = streams.filter(|(_, kind)| text_of(kind) == "stream");
            self.streams.extend(streams.map(|(key, _)| key.clone()));
        }
        Ok(())
    }

    /// Streams with consumer groups of which nobody can tell whether they have changed.
    pub(super) async fn streams_in_doubt(&mut self, scope: &Scope<'_>) -> Result<Vec<Vec<u8>>, JobError> {
        let in_doubt = |key: &&Vec<u8>| {
            let partition = scope.keyspace.partition_of(key);
            scope.wanted.contains(&partition) && self.unnamed.contains(&partition)
        };
        let streams: Vec<Vec<u8>> = self.streams.iter().filter(in_doubt).cloned().collect();
        let mut found = Vec::new();
        for db in self
            .dbs
            .clone()
            .into_iter()
            .filter(|db| *db != scope.bookkeeping_db)
        {
            for chunk in streams.chunks(CHUNK_KEYS) {
                let here = ask_all(&mut self.source, db, &[b"XINFO", b"GROUPS"], chunk).await;
                let here = here.map_err(|error| self.of_source(error))?;
                let there = ask_all(&mut self.target, db, &[b"XINFO", b"GROUPS"], chunk).await;
                let there = there.map_err(|error| self.of_target(error))?;
                let has_any = |groups: &BytesFrame| matches!(groups, BytesFrame::Array { data, .. } if !data.is_empty());
                let both = chunk.iter().zip(here.iter().zip(&there));
                let with_groups = both.filter(|(_, (here, there))| has_any(here) || has_any(there));
                found.extend(with_groups.map(|(key, _)| key.clone()));
            }
        }
        Ok(found)
    }
}

/// Whether the key is of one of these partitions.
pub(super) fn is_wanted(key: &[u8], scope: &Scope<'_>) -> bool {
    scope.wanted.contains(&scope.keyspace.partition_of(key))
}

/// Asks the same about several keys of a database; error replies are answers like any other.
async fn ask_all(
    control: &mut Control,
    db: u16,
    question: &[&[u8]],
    keys: &[Vec<u8>],
) -> Result<Vec<BytesFrame>, ControlError> {
    control.select(db).await?;
    let asked: Vec<Vec<&[u8]>> = keys.iter().map(|key| [question, &[key]].concat()).collect();
    control.call_all(asked.iter().map(Vec::as_slice)).await
}

/// What [`Action::TakeChanges`] answers.
fn parse_changes(outcome: Outcome) -> Option<(bool, Vec<Vec<u8>>)> {
    let Outcome::Reply { frames, .. } = outcome else {
        return None;
    };
    let (frame, _) = decode_bytes(&frames).ok()??;
    let BytesFrame::Array { data, .. } = frame else {
        return None;
    };
    let (unnamed, keys) = data.split_first()?;
    let keys = keys.iter().map(|key| bytes_of(key).to_vec()).collect();
    Some((text_of(unnamed) == "1", keys))
}
