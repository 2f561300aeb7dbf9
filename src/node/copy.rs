//! Copying keys from one node to another while nobody writes to them: what recovery needs.
//!
//! `DUMP` and `RESTORE`, a few keys at a time, with their expiry as an absolute time. The target is told in advance what
//! it will be given (`rf:repair`), so that a copy that is cut short is known for what it is.

use std::collections::HashSet;

use redis_protocol::resp3::types::BytesFrame;
use thiserror::Error;

use super::control::{Control, ControlError, bytes_of, is_error, text_of};
use crate::request::PartitionId;
use crate::ring::partition_of;

/// Keys in one round trip.
const CHUNK_KEYS: usize = 64;

/// `COUNT` of a `SCAN`.
const SCAN_COUNT: &[u8] = b"512";

/// Why a copy failed.
#[derive(Debug, Error)]
pub enum CopyError {
    /// A node did not answer, or refused.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The target did not take a value.
    #[error("the target refuses a value ({0}): are the servers' versions too different?")]
    Restore(String),
}

/// Which partitions.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Number of partitions of the pool.
    pub partitions: u16,
    /// Those to be copied.
    pub wanted: &'a HashSet<PartitionId>,
    /// Not a client's database.
    pub bookkeeping_db: u16,
}

/// Makes `keys` of database `db` on `target` what they are on `source`; also if that is nothing.
pub async fn copy_keys(
    source: &mut Control,
    target: &mut Control,
    db: u16,
    keys: &[Vec<u8>],
) -> Result<(), CopyError> {
    let number = db.to_string();
    source.call(&[b"SELECT", number.as_bytes()]).await?;
    target.call(&[b"SELECT", number.as_bytes()]).await?;
    for chunk in keys.chunks(CHUNK_KEYS) {
        let commands: Vec<[&[u8]; 2]> = chunk
            .iter()
            .flat_map(|key| {
                [
                    [b"DUMP".as_slice(), key.as_slice()],
                    [b"PEXPIRETIME".as_slice(), key.as_slice()],
                ]
            })
            .collect();
        let replies = source.call_all(commands.iter().map(|c| &c[..])).await?;
        let mut writes: Vec<Vec<Vec<u8>>> = Vec::with_capacity(chunk.len());
        for (key, pair) in chunk.iter().zip(replies.chunks(2)) {
            let [dump, expiry] = pair else { continue };
            if is_error(dump) {
                return Err(ControlError::Refused(text_of(dump)).into());
            }
            let payload = bytes_of(dump);
            if payload.is_empty() {
                writes.push(vec![b"DEL".to_vec(), key.clone()]);
                continue;
            }
            let at = if is_error(expiry) {
                expiry_before_7(source, key).await?
            } else {
                text_of(expiry).parse::<i64>().unwrap_or(-1).max(0)
            };
            let mut restore = vec![
                b"RESTORE".to_vec(),
                key.clone(),
                at.to_string().into_bytes(),
                payload.to_vec(),
            ];
            restore.push(b"REPLACE".to_vec());
            if at > 0 {
                restore.push(b"ABSTTL".to_vec());
            }
            writes.push(restore);
        }
        let borrowed: Vec<Vec<&[u8]>> = writes
            .iter()
            .map(|w| w.iter().map(Vec::as_slice).collect())
            .collect();
        let replies = target.call_all(borrowed.iter().map(|w| &w[..])).await?;
        if let Some(error) = replies.iter().find(|reply| is_error(reply)) {
            return Err(CopyError::Restore(text_of(error)));
        }
    }
    Ok(())
}

/// Makes the wanted partitions on `target` what they are on `source`, in every database. The number of keys copied.
pub async fn copy_partitions(
    source: &mut Control,
    target: &mut Control,
    scope: &Scope<'_>,
) -> Result<usize, CopyError> {
    let mut dbs = databases(source).await?;
    dbs.extend(databases(target).await?);
    dbs.remove(&scope.bookkeeping_db);
    let mut copied = 0;
    for db in dbs {
        let wanted = keys_of(source, db, scope).await?;
        let mut all: HashSet<Vec<u8>> = keys_of(target, db, scope).await?.into_iter().collect();
        all.extend(wanted);
        let all: Vec<Vec<u8>> = all.into_iter().collect();
        copied += all.len();
        copy_keys(source, target, db, &all).await?;
    }
    Ok(copied)
}

/// The databases that have keys.
async fn databases(control: &mut Control) -> Result<HashSet<u16>, ControlError> {
    let info = text_of(&control.call(&[b"INFO", b"keyspace"]).await?);
    Ok(info
        .lines()
        .filter_map(|l| l.strip_prefix("db")?.split(':').next()?.parse().ok())
        .collect())
}

async fn keys_of(control: &mut Control, db: u16, scope: &Scope<'_>) -> Result<Vec<Vec<u8>>, ControlError> {
    control.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
    let mut cursor = b"0".to_vec();
    let mut found = HashSet::new();
    loop {
        let reply = control.call(&[b"SCAN", &cursor, b"COUNT", SCAN_COUNT]).await?;
        let BytesFrame::Array { data, .. } = reply else {
            return Err(ControlError::Protocol);
        };
        let [next, BytesFrame::Array { data: keys, .. }] = data.as_slice() else {
            return Err(ControlError::Protocol);
        };
        for key in keys {
            let key = bytes_of(key);
            if scope.wanted.contains(&partition_of(key, scope.partitions)) {
                found.insert(key.to_vec());
            }
        }
        cursor = bytes_of(next).to_vec();
        if cursor == b"0" {
            return Ok(found.into_iter().collect());
        }
    }
}

/// When a key expires, in Unix ms, on a server that has no `PEXPIRETIME`; 0: never.
async fn expiry_before_7(source: &mut Control, key: &[u8]) -> Result<i64, ControlError> {
    let ttl: i64 = text_of(&source.call(&[b"PTTL", key]).await?)
        .parse()
        .unwrap_or(-1);
    let now_ms = millis(&source.call(&[b"TIME"]).await?);
    Ok(if ttl < 0 { 0 } else { now_ms + ttl })
}

fn millis(time: &BytesFrame) -> i64 {
    let BytesFrame::Array { data, .. } = time else {
        return 0;
    };
    let number = |i: usize| {
        data.get(i)
            .and_then(|f| text_of(f).parse::<i64>().ok())
            .unwrap_or(0)
    };
    number(0) * 1000 + number(1) / 1000
}
