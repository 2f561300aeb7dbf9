//! Whole partitions: finding their keys, copying and removing them.
//!
//! A server does not know of partitions: all its keys are walked through with `SCAN`, and those of the wanted ones picked. A
//! step at a time, so that no more than a step's keys are in memory. Keys that are there all the while are found, some of them
//! twice; keys that come or go meanwhile are found or not.

use std::collections::BTreeSet;

use redis_protocol::resp3::types::BytesFrame;

use super::wire::{Batch, number_of, scanned};
use super::{Building, CHUNK_KEYS, Copied, CopyError, Pace, Scope, copy_keys};
use crate::node::control::{Control, ControlError, bytes_of, is_error, text_of};

/// `COUNT` of a `SCAN`.
const SCAN_COUNT: &[u8] = b"512";

/// What the removal of a key is taken for when the pace is kept, in bytes besides its name: about what a copy may move in the
/// time that it takes.
const REMOVAL_BYTES: usize = 512;

/// One `SCAN` step of one database: the keys of the wanted partitions. `cursor` is where to begin (`0` or nothing at first), and
/// then where the next step does; it is `0` after the last one.
pub async fn scan_step(
    control: &mut Control,
    db: u16,
    cursor: &mut Vec<u8>,
    scope: &Scope<'_>,
) -> Result<Vec<Vec<u8>>, CopyError> {
    if cursor.is_empty() {
        cursor.push(b'0');
    }
    control.select(db).await?;
    let mut batch = Batch::default();
    batch.push(&[b"SCAN", cursor, b"COUNT", SCAN_COUNT]);
    let mut replies = checked(batch.send(control).await?)?;
    let (next, keys) = scanned(replies.pop().ok_or(ControlError::Protocol)?)?;
    *cursor = bytes_of(&next).to_vec();
    let wanted = |key: &&[u8]| scope.wanted.contains(&scope.keyspace.partition_of(key));
    Ok(keys
        .iter()
        .map(bytes_of)
        .filter(wanted)
        .map(<[u8]>::to_vec)
        .collect())
}

/// Makes the wanted partitions on `target` what they are on `source`, in every database but the bookkeeping one, while nobody
/// writes to them.
pub async fn copy_partitions(
    source: &mut Control,
    target: &mut Control,
    scope: &Scope<'_>,
    pace: &Pace,
) -> Result<Copied, CopyError> {
    let building = Building::Beside(scope.keyspace);
    let mut copied = Copied::default();
    for db in clients_databases(source, scope).await? {
        let mut cursor = b"0".to_vec();
        loop {
            let keys = scan_step(source, db, &mut cursor, scope).await?;
            copied += copy_keys(source, target, db, &keys, building, pace).await?;
            if cursor == b"0" {
                break;
            }
        }
    }
    // What only the target has. A copy of nothing removes.
    for db in clients_databases(target, scope).await? {
        let mut cursor = b"0".to_vec();
        loop {
            let mut keys = scan_step(target, db, &mut cursor, scope).await?;
            let mut there = exist(source, db, &keys).await?.into_iter();
            keys.retain(|_| there.next() == Some(false));
            copied += copy_keys(source, target, db, &keys, building, pace).await?;
            if cursor == b"0" {
                break;
            }
        }
    }
    match copied.left {
        0 => Ok(copied),
        left => Err(CopyError::Changing(left)),
    }
}

/// Removes every key of the wanted partitions, in every database but the bookkeeping one. How many.
pub async fn remove_partitions(
    control: &mut Control,
    scope: &Scope<'_>,
    pace: &Pace,
) -> Result<u64, CopyError> {
    let mut removed = 0;
    for db in clients_databases(control, scope).await? {
        let mut cursor = b"0".to_vec();
        loop {
            let keys = scan_step(control, db, &mut cursor, scope).await?;
            for keys in keys.chunks(CHUNK_KEYS) {
                pace.spend(keys.iter().map(|key| key.len() + REMOVAL_BYTES).sum())
                    .await;
                let mut args: Vec<&[u8]> = vec![b"UNLINK"];
                args.extend(keys.iter().map(Vec::as_slice));
                let reply = control.call(&args).await?;
                removed += number_of(&reply).unwrap_or(0).max(0) as u64;
            }
            if cursor == b"0" {
                break;
            }
        }
    }
    Ok(removed)
}

/// The databases that have keys.
pub async fn databases(control: &mut Control) -> Result<BTreeSet<u16>, ControlError> {
    let info = text_of(&control.call(&[b"INFO", b"keyspace"]).await?);
    Ok(databases_in(&info))
}

/// The same by what a node says of itself.
pub fn databases_in(info: &str) -> BTreeSet<u16> {
    info.lines()
        .filter_map(|l| l.strip_prefix("db")?.split(':').next()?.parse().ok())
        .collect()
}

/// Removes all keys of all databases but this one.
pub async fn remove_all(control: &mut Control, but: u16) -> Result<(), ControlError> {
    for db in databases(control).await? {
        if db != but {
            control.select(db).await?;
            control.call(&[b"FLUSHDB", b"ASYNC"]).await?;
        }
    }
    Ok(())
}

async fn clients_databases(control: &mut Control, scope: &Scope<'_>) -> Result<BTreeSet<u16>, ControlError> {
    let mut dbs = databases(control).await?;
    dbs.remove(&scope.bookkeeping_db);
    Ok(dbs)
}

/// Which of the keys there are.
async fn exist(control: &mut Control, db: u16, keys: &[Vec<u8>]) -> Result<Vec<bool>, ControlError> {
    control.select(db).await?;
    let mut batch = Batch::default();
    for key in keys {
        batch.push(&[b"EXISTS", key]);
    }
    let replies = checked(batch.send(control).await?)?;
    Ok(replies.iter().map(|r| number_of(r) != Some(0)).collect())
}

/// The replies, unless one is an error.
fn checked(replies: Vec<BytesFrame>) -> Result<Vec<BytesFrame>, ControlError> {
    match replies.iter().find(|reply| is_error(reply)) {
        Some(error) => Err(ControlError::Refused(text_of(error))),
        None => Ok(replies),
    }
}
