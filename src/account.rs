//! The account each node keeps of itself: what it has applied, and what that touched.
//!
//! Lives in the bookkeeping database, and is changed in the same `MULTI … EXEC` as the data it speaks of, so that a
//! node's data and its account cannot differ whatever dies (invariant 4). This module is the format, both ways:
//!
//! ```text
//! rf:applied   hash   <partition>           -> <epoch>:<seq>
//! rf:touched   hash   <worker>:<n % J>      -> records of one batch
//! record              partition u16 | db u16 | seq u64 | key length u32 | key      (little endian)
//!                     key length 2^32-1, no key: anything in the partition
//!                     key length 2^32-2, no key: nothing
//! ```

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::request::PartitionId;
use crate::resp::encode;

/// Key of the hash of what is applied.
pub const APPLIED: &[u8] = b"rf:applied";
/// Key of the hash of what the last batches touched.
pub const TOUCHED: &[u8] = b"rf:touched";
/// Key of the table's record.
pub const TABLE: &[u8] = b"rf:table";
/// Key of the table's record on a node that was taken out of the pool, as it was then: who starts with an old `proxy.toml` finds the
/// pool's other nodes by it.
pub const LEFT: &[u8] = b"rf:left";
/// Key of the claim: which instance may use this node.
pub const CLAIM: &[u8] = b"rf:claim";
/// That the server had no claim when it was claimed: whatever it knew before is gone, and where it tells no position, it tells nothing.
pub const FORGOT: &[u8] = b"rf:forgot";
/// Key of the hash of scripts and functions: see `pool::shelf`.
pub const LIBRARY: &[u8] = b"rf:library";
/// Key of the hash of keys that a repair is overwriting: field = partition.
pub const REPAIR: &[u8] = b"rf:repair";

/// J: how many batches back `rf:touched` reaches. A node further behind than that needs a copy of the partition. One
/// batch of writes is in flight to a node at a time, so nothing about correctness hangs on the number.
pub const TOUCHED_BATCHES: u64 = 256;

const PARTITION_MARK: u32 = u32::MAX;
const NOTHING_MARK: u32 = u32::MAX - 1;

/// A place in a partition's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which owner ordered it: every takeover begins a new epoch.
    pub epoch: u64,
    /// How many writes the partition has seen.
    pub seq: u64,
}

impl Position {
    /// Where a node stands whose account says that what it has is of no position: nowhere. (No position at all is the beginning.)
    pub const NOWHERE: Self = Self {
        epoch: u64::MAX,
        seq: u64::MAX,
    };

    /// Appends `<epoch>:<seq>` as a bulk string.
    pub fn put(self, out: &mut BytesMut) {
        let mut text = [0u8; 41];
        let mut at = text.len();
        let mut digits = |mut n: u64, end: bool| {
            loop {
                at -= 1;
                if let Some(b) = text.get_mut(at) {
                    *b = b'0' + (n % 10) as u8;
                }
                n /= 10;
                if n == 0 {
                    break;
                }
            }
            if !end {
                at -= 1;
                if let Some(b) = text.get_mut(at) {
                    *b = b':';
                }
            }
        };
        digits(self.seq, false);
        digits(self.epoch, true);
        encode::bulk(out, text.get(at..).unwrap_or_default());
    }

    /// Reads what [`Position::put`] wrote.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (epoch, seq) = std::str::from_utf8(text).ok()?.split_once(':')?;
        Some(Self {
            epoch: epoch.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

impl fmt::Display for Position {
    /// As [`Position::put`] writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// Appends the name under which a batch's records are kept: `<worker>:<n % J>`, as a bulk string.
pub fn put_batch_name(out: &mut BytesMut, worker: u16, batch: u64) {
    let place = batch % TOUCHED_BATCHES;
    let digits = |n: u64| n.checked_ilog10().unwrap_or(0) as usize + 1;
    encode::header(out, b'$', digits(u64::from(worker)) + 1 + digits(place));
    encode::decimal(out, u64::from(worker));
    out.put_u8(b':');
    encode::decimal(out, place);
    out.put_slice(b"\r\n");
}

/// One record of `rf:touched`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedRecord {
    /// The partition that was written.
    pub partition: PartitionId,
    /// The database.
    pub db: u16,
    /// The write's place in the partition's epoch.
    pub seq: u64,
    /// What it may have changed.
    pub what: Touch<Vec<u8>>,
}

/// What a write may have changed in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch<Key> {
    /// Nothing: it only has its place in the order.
    Nothing,
    /// This key.
    Key(Key),
    /// Any key.
    Partition,
}

/// Appends one record.
pub fn put_touched(out: &mut BytesMut, partition: PartitionId, db: u16, seq: u64, what: Touch<&[u8]>) {
    out.put_u16_le(partition);
    out.put_u16_le(db);
    out.put_u64_le(seq);
    match what {
        Touch::Key(key) => {
            out.put_u32_le(key.len() as u32);
            out.put_slice(key);
        }
        Touch::Nothing => out.put_u32_le(NOTHING_MARK),
        Touch::Partition => out.put_u32_le(PARTITION_MARK),
    }
}

/// Reads the records of one batch; `None` if they are not in this format.
pub fn parse_touched(mut rest: &[u8]) -> Option<Vec<TouchedRecord>> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(16)?;
        let partition = u16::from_le_bytes(head.get(0..2)?.try_into().ok()?);
        let db = u16::from_le_bytes(head.get(2..4)?.try_into().ok()?);
        let seq = u64::from_le_bytes(head.get(4..12)?.try_into().ok()?);
        let len = u32::from_le_bytes(head.get(12..16)?.try_into().ok()?);
        rest = after;
        let what = match len {
            PARTITION_MARK => Touch::Partition,
            NOTHING_MARK => Touch::Nothing,
            len => {
                let (key, after) = rest.split_at_checked(len as usize)?;
                rest = after;
                Touch::Key(key.to_vec())
            }
        };
        records.push(TouchedRecord {
            partition,
            db,
            seq,
            what,
        });
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_records_come_back() {
        for position in [
            Position { epoch: 0, seq: 0 },
            Position {
                epoch: u64::MAX,
                seq: 1_000_007,
            },
        ] {
            let mut out = BytesMut::new();
            position.put(&mut out);
            let text = out[..]
                .split(|&b| b == b'\n')
                .nth(1)
                .unwrap()
                .strip_suffix(b"\r")
                .unwrap();
            assert_eq!(Position::parse(text), Some(position));
        }
        let mut out = BytesMut::new();
        put_touched(&mut out, 7, 3, 99, Touch::Key(b"key"));
        put_touched(&mut out, 255, 0, 100, Touch::Partition);
        put_touched(&mut out, 1, 0, 101, Touch::Nothing);
        let records = parse_touched(&out).unwrap();
        assert_eq!(
            records[0],
            TouchedRecord {
                partition: 7,
                db: 3,
                seq: 99,
                what: Touch::Key(b"key".to_vec())
            }
        );
        assert_eq!(records[1].what, Touch::Partition);
        assert_eq!(records[2].what, Touch::Nothing);
        assert_eq!(parse_touched(&out[..out.len() - 1]), None);
    }
}
