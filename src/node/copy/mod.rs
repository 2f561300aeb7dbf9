//! Copying keys from one node to another, while others may be writing them on the source.
//!
//! The problem: `DUMP` of a large value blocks its node for up to a second, a payload is only taken by a server that is not
//! older, and a key may be changed, replaced or removed at any moment while it is read.
//!
//! The idea: keys are looked at first (`look`). Small values go as they are, many at a time (`dump`); large ones, and those
//! whose payload the target does not take, go by ranges of plain commands (`ranges`, `hash`, `stream`), each of which blocks
//! neither node for more than a few ms. What is read is bounded in bytes: nothing but one single large element makes more than a
//! few MiB of it.
//!
//! What holds, whoever writes meanwhile:
//! - A copy begins by removing what the target has at the key, or by replacing it whole. So whatever a copy that was cut short
//!   or torn has left there, the next one of the same key begins anew.
//! - A key that changes while it is copied may arrive torn. It is not an error, and not noticed here unless the key vanishes or
//!   becomes another type, which begins it again, [`ATTEMPTS`] times at most. Who copies while others write must know which keys
//!   are changed, and copy them once more.
//! - Every loop ends: it is bounded by the length that was seen at the beginning.

mod dump;
mod hash;
mod look;
mod pace;
mod partitions;
mod ranges;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashSet;

use thiserror::Error;

use self::look::{Kind, Seen, look};
pub use self::pace::Pace;
pub use self::partitions::{
    copy_partitions, databases, databases_in, remove_all, remove_partitions, scan_step,
};
use self::wire::{Batch, Stop};
use super::control::{Control, ControlError};
use crate::request::PartitionId;
use crate::ring::{Keyspace, PIN};

/// Keys that are looked at in one round trip. Where many small values change all the time, round trips are what a copy waits for.
const CHUNK_KEYS: usize = 256;

/// What is read at once, in bytes, as far as can be told in advance.
const CHUNK_BYTES: usize = 1024 * 1024;

/// From how many bytes on a value is not read at once: with the next one's it would pass [`CHUNK_BYTES`].
const LARGE_BYTES: usize = 512 * 1024;

/// More elements than this are not read at once: `DUMP` of a thousand takes about a ms.
const LARGE_ELEMENTS: usize = 1000;

/// Elements of small values that are read, and written, at once: what is pipelined is executed at one go, and takes up to 1.1 us
/// for each.
const DUMP_ELEMENTS: usize = 4000;

/// What a key is taken for when the pace is kept, in bytes besides its name and value: commands and replies around it.
const KEY_BYTES: usize = 128;

/// How often a key is begun that vanishes or becomes another type while it is copied.
const ATTEMPTS: usize = 3;

/// Why a copy failed.
#[derive(Debug, Error)]
pub enum CopyError {
    /// A node did not answer, or refused.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The target did not take a value: it is full, or cannot write to its disk, or is much older.
    #[error("the target refuses what it is given: {0}")]
    Restore(String),
    /// A module's value: only its payload can be copied, and the target does not take it.
    #[error(
        "a value of the type {kind} can only be copied as a whole, and the target refuses it ({error}): load the same module, in \
         the same or a newer version, on all nodes, and let no node's server be older than the others'"
    )]
    Module {
        /// What `TYPE` says.
        kind: String,
        /// What the target says.
        error: String,
    },
    /// Keys were changed again and again by somebody else, where nobody else may write.
    #[error("{0} keys change while they are copied: somebody else writes to the source")]
    Changing(u64),
}

/// Which partitions.
#[derive(Debug)]
pub struct Scope<'a> {
    /// How the pool's keys are divided into partitions.
    pub keyspace: &'a Keyspace,
    /// Those to be copied.
    pub wanted: &'a HashSet<PartitionId>,
    /// Not a client's database.
    pub bookkeeping_db: u16,
}

/// What has been copied.
#[derive(Default, Clone, Copy, Debug)]
pub struct Copied {
    /// Keys, also those that were removed from the target because the source has none.
    pub keys: u64,
    /// Bytes of values that were read, payloads or elements.
    pub bytes: u64,
    /// Those of the keys that vanished or became another type at each attempt, and were left as they were then: others write
    /// them, so they must be copied again.
    pub left: u64,
}

impl std::ops::AddAssign for Copied {
    fn add_assign(&mut self, more: Self) {
        self.keys += more.keys;
        self.bytes += more.bytes;
        self.left += more.left;
    }
}

/// Makes `keys` of database `db` on `target` what they are on `source`; also if that is nothing. Nobody else may write them on
/// the target meanwhile; on the source others may, and then the keys that they write must be copied again.
///
/// After an error, or when it is dropped before it has ended, some keys may be half there, or beside; copying them again replaces them. A
/// connection that was being used when it was dropped must not be used again.
pub async fn copy_keys(
    source: &mut Control,
    target: &mut Control,
    db: u16,
    keys: &[Vec<u8>],
    building: Building<'_>,
    pace: &Pace,
) -> Result<Copied, CopyError> {
    copy_keys_by(Way::Any, source, target, db, keys, building, pace).await
}

/// Which of the keys are so large that they are copied by ranges: what takes longer than a round trip or two.
pub async fn are_large(source: &mut Control, db: u16, keys: &[Vec<u8>]) -> Result<Vec<bool>, ControlError> {
    source.select(db).await?;
    let mut large = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK_KEYS) {
        let seen = look(source, chunk).await?;
        large.extend(seen.iter().map(|seen| !seen.is_small()));
    }
    Ok(large)
}

/// Where a large value is put together, which takes many commands.
#[derive(Debug, Clone, Copy)]
pub enum Building<'a> {
    /// Under its own name: what the target had is gone from the beginning.
    InPlace,
    /// Under another name of its partition, and renamed at the end: until then the target has what it had. (In place where there is no room for
    /// both.)
    Beside(&'a Keyspace),
}

impl Building<'_> {
    /// The name beside the key's own.
    fn name_of(self, key: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::InPlace => None,
            Self::Beside(keyspace) => Some(name_beside(keyspace, key)),
        }
    }
}

/// What a value is called while it is put together ([`Building::Beside`]). No client can call a key so.
pub fn name_beside(keyspace: &Keyspace, key: &[u8]) -> Vec<u8> {
    let pin = format!("{:04x}.new:", keyspace.partition_of(key));
    [PIN, pin.as_bytes(), key].concat()
}

/// What a key is called on the two nodes.
#[derive(Clone, Copy)]
struct Names<'a> {
    source: &'a [u8],
    target: &'a [u8],
}

/// How values may be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a payload where that is small.
    Any,
    /// By ranges, whatever their size: the target does not take the source's payloads.
    Ranges,
}

async fn copy_keys_by(
    way: Way,
    source: &mut Control,
    target: &mut Control,
    db: u16,
    keys: &[Vec<u8>],
    building: Building<'_>,
    pace: &Pace,
) -> Result<Copied, CopyError> {
    source.select(db).await?;
    target.select(db).await?;
    let mut copy = Copy {
        source,
        target,
        pace,
        way,
        building,
        copied: Copied::default(),
    };
    for chunk in keys.chunks(CHUNK_KEYS) {
        copy.chunk(chunk).await?;
    }
    Ok(copy.copied)
}

/// A copy under way. Both connections stand in the database.
struct Copy<'a> {
    source: &'a mut Control,
    target: &'a mut Control,
    pace: &'a Pace,
    way: Way,
    building: Building<'a>,
    copied: Copied,
}

impl Copy<'_> {
    /// Copies so many keys as are looked at at once: first what is small, then one by one what is not.
    async fn chunk(&mut self, keys: &[Vec<u8>]) -> Result<(), CopyError> {
        self.copied.keys += keys.len() as u64;
        let names = keys.iter().map(|key| key.len() + KEY_BYTES).sum();
        self.pace.spend(names).await;
        let seen = look(self.source, keys).await?;
        let mut absent = Vec::new();
        let mut small: Vec<&[u8]> = Vec::new();
        let (mut bytes, mut elements) = (0, 0);
        let mut alone = Vec::new();
        for (key, seen) in keys.iter().zip(seen) {
            if seen.kind == Kind::Absent {
                absent.push(key.as_slice());
            } else if self.way == Way::Any && seen.is_small() {
                bytes += seen.bytes;
                elements += seen.elements();
                if bytes > CHUNK_BYTES || elements > DUMP_ELEMENTS {
                    alone.extend(self.dump(&small).await?);
                    small.clear();
                    (bytes, elements) = (seen.bytes, seen.elements());
                }
                small.push(key);
            } else {
                alone.push((key.as_slice(), Some(seen)));
            }
        }
        self.remove(&absent).await?;
        if self.way == Way::Any {
            alone.extend(self.dump(&small).await?);
        } else {
            // What was collected before the first refusal.
            alone.extend(small.into_iter().map(|key| (key, None)));
        }
        for (key, seen) in alone {
            self.alone(key, seen).await?;
        }
        Ok(())
    }

    /// Copies one key that is large, or whose payload the target refuses (`seen` is none then).
    async fn alone(&mut self, key: &[u8], seen: Option<Seen>) -> Result<(), CopyError> {
        let by_ranges = seen.is_none() || self.way == Way::Ranges;
        let (mut seen, mut building) = (seen, self.building);
        for _ in 0..ATTEMPTS {
            let now = match seen.take() {
                Some(seen) => seen,
                None => self.look_at(key).await?,
            };
            match self.attempt(key, now, by_ranges, building).await {
                Err(Stop::Changed) => {}
                Err(Stop::Failed(CopyError::Restore(error))) if error.starts_with("OOM") => {
                    // There is no room for what the target had and for what it is given.
                    let Some(beside) = building.name_of(key) else {
                        return Err(CopyError::Restore(error));
                    };
                    building = Building::InPlace;
                    let mut batch = Batch::default();
                    // At once, not some time later.
                    batch.push(&[b"DEL", &beside, key]);
                    self.write(batch).await?;
                }
                Err(Stop::Failed(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        self.copied.left += 1;
        Ok(())
    }

    async fn attempt(
        &mut self,
        key: &[u8],
        seen: Seen,
        by_ranges: bool,
        building: Building<'_>,
    ) -> Result<(), Stop> {
        match &seen.kind {
            Kind::Absent => Ok(self.remove(&[key]).await?),
            Kind::Module(kind) => self.dump_module(key, kind).await,
            // A large value has been replaced by a small one since it was looked at first.
            _ if !by_ranges && seen.is_small() => match self.dump(&[key]).await?.is_empty() {
                true => Ok(()),
                false => self.ranges(key, &seen, building).await,
            },
            _ => self.ranges(key, &seen, building).await,
        }
    }

    async fn look_at(&mut self, key: &[u8]) -> Result<Seen, CopyError> {
        let seen = look(self.source, &[key]).await?.pop();
        Ok(seen.ok_or(ControlError::Protocol)?)
    }

    /// Removes keys from the target.
    async fn remove(&mut self, keys: &[&[u8]]) -> Result<(), CopyError> {
        let mut batch = Batch::default();
        for key in keys {
            batch.push(&[b"UNLINK", key]);
        }
        self.write(batch).await?;
        Ok(())
    }
}
