//! Large values, by ranges of plain commands.
//!
//! The target's value is removed first; then a range is read from the source and written to the target, until the end; then
//! the key's expiry follows. What a range costs the nodes was measured (per 1000 elements of 100 bytes, in us):
//!
//! | | read | write |
//! |---|---|---|
//! | list | 45 (`LRANGE`) | 44 (`RPUSH`) |
//! | zset | 204 (`ZRANGE` by rank) | 1170 (`ZADD`) |
//! | set | 522 (`SSCAN`) | 708 (`SADD`) |
//! | hash | 1100 (`HSCAN`) | 899 (`HSET`) |
//! | stream | 257 (`XRANGE`) | 1000 (`XADD`, one by one) |
//!
//! A string that grows is moved now and then by the target's allocator, which takes 0.6 ms per MB: above 16 MB, some of the
//! `APPEND`s take more than 10 ms (of 512 MB: 22, the last 0.3 s). To make it as long as it will be first (`SETRANGE`) takes 0.4 to
//! 2 ms per MB at once. There is no command that does it in less.
//!
//! How large elements are is known when they have been read: a range is as long as the value's average and the last range's
//! let expect, and at most twice as long as the last one. Large elements that follow upon a great many small ones can still make
//! one range large. A hash or set that the source keeps in one piece (`hash-max-listpack-entries` and such) is read at once.
//!
//! By rank, and with lists, what is pushed or removed meanwhile moves the others: some are missed, or come twice. That is a key
//! that has changed, and is copied again.

use redis_protocol::resp3::types::BytesFrame;

use super::look::{Expiry, Kind, Seen, expiries_before_7};
use super::wire::{Batch, Stop, items_of, scanned, strings_of, unless_changed};
use super::{Building, CHUNK_BYTES, Copy, CopyError, Names};
use crate::node::control::{bytes_of, text_of};

/// Elements of a list that are read and written at once: 0.5 ms of a node. Over a slow link their number is what counts.
const LIST_ELEMENTS: usize = 10_000;

/// Members of a set or a sorted set, or fields of a hash, that are read and written at once: 0.6 ms of a node, so that
/// one that is busy with other things too stays below 10 ms.
pub(super) const CHUNK_ELEMENTS: usize = 500;

/// Bytes of a string that are read at once.
const STRING_BYTES: usize = 256 * 1024;

/// How many elements to read next.
pub(super) struct Stride {
    count: usize,
    max: usize,
    average_bytes: usize,
}

impl Stride {
    pub(super) fn new(seen: &Seen, max: usize) -> Self {
        let mut stride = Self {
            count: max,
            max,
            average_bytes: seen.bytes.checked_div(seen.len).unwrap_or(0),
        };
        stride.count = stride.fitting(0);
        stride
    }

    fn fitting(&self, average_bytes: usize) -> usize {
        let bytes = self.average_bytes.max(average_bytes).max(1);
        (CHUNK_BYTES / bytes).clamp(1, self.max)
    }

    /// So many elements have been read, of so many bytes.
    pub(super) fn learn(&mut self, elements: usize, bytes: usize) {
        if let Some(average) = bytes.checked_div(elements) {
            self.count = self.fitting(average).min(self.count * 2);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// `COUNT` of a command.
    pub(super) fn digits(&self) -> String {
        self.count.to_string()
    }
}

impl Copy<'_> {
    /// Copies one value by ranges. Modules' values have none.
    pub(super) async fn ranges(
        &mut self,
        key: &[u8],
        seen: &Seen,
        building: Building<'_>,
    ) -> Result<(), Stop> {
        let beside = building.name_of(key);
        let key = Names {
            source: key,
            target: beside.as_deref().unwrap_or(key),
        };
        self.remove(&[key.target]).await?;
        match seen.kind {
            Kind::String => self.string(key, seen).await?,
            Kind::List => self.list(key, seen).await?,
            Kind::Hash => self.hash(key, seen).await?,
            Kind::Set => self.set(key, seen).await?,
            Kind::Zset => self.zset(key, seen).await?,
            Kind::Stream => self.stream(key, seen).await?,
            Kind::Absent | Kind::Module(_) => {}
        }
        self.finish(key, seen).await
    }

    /// Looks whether the key is still what it was, sets its expiry, and gives it its name.
    async fn finish(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        let mut batch = Batch::default();
        batch.push(&[b"TYPE", key.source]);
        batch.push(&[b"PEXPIRETIME", key.source]);
        let replies = batch.send(self.source).await?;
        let expiry = match replies.get(1).and_then(Expiry::of) {
            Some(expiry) => expiry,
            None => expiries_before_7(self.source, &[key.source])
                .await?
                .pop()
                .unwrap_or(Expiry::Never),
        };
        if expiry == Expiry::Gone || replies.first().map(text_of).as_deref() != Some(seen.kind.name()) {
            return Err(Stop::Changed);
        }
        let mut batch = Batch::default();
        if let Expiry::At(at) = expiry {
            batch.push(&[b"PEXPIREAT", key.target, at.to_string().as_bytes()]);
        }
        if key.target != key.source {
            batch.push(&[b"RENAME", key.target, key.source]);
        }
        match self.write(batch).await {
            // It was empty in between, so nothing was written.
            Err(CopyError::Restore(error)) if error.contains("no such key") => Err(Stop::Changed),
            written => Ok(written.map(drop)?),
        }
    }

    async fn string(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        // `SET` first: it also makes the empty string.
        let (mut write, mut pos): (&[u8], usize) = (b"SET", 0);
        loop {
            let (first, last) = (pos.to_string(), (pos + STRING_BYTES - 1).to_string());
            let reply = self
                .read(&[b"GETRANGE", key.source, first.as_bytes(), last.as_bytes()])
                .await?;
            let part = bytes_of(&reply);
            self.spend(part.len()).await;
            let mut batch = Batch::default();
            batch.push(&[write, key.target, part]);
            self.write(batch).await?;
            write = b"APPEND";
            pos += part.len();
            if part.len() < STRING_BYTES || pos >= seen.len {
                return Ok(());
            }
        }
    }

    /// The next range is read while the last one is written. Elements stand in a reply as they do in a command, so they are
    /// handed on as they came.
    async fn list(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        let mut stride = Stride::new(seen, LIST_ELEMENTS);
        let mut pos = 0;
        let mut write = Batch::default();
        while pos < seen.len {
            let asked = stride.count().min(seen.len - pos);
            let (first, last) = (pos.to_string(), (pos + asked - 1).to_string());
            let range: [&[u8]; 4] = [b"LRANGE", key.source, first.as_bytes(), last.as_bytes()];
            let reply = self.write_and_read(std::mem::take(&mut write), &range).await?;
            let (count, elements) = strings_of(&reply)?;
            self.spend(elements.len()).await;
            if count > 0 {
                write.push_wire(&[b"RPUSH", key.target], count, elements);
            }
            pos += count;
            if count < asked {
                break;
            }
            stride.learn(count, elements.len());
        }
        self.write(write).await?;
        Ok(())
    }

    async fn set(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        let mut stride = Stride::new(seen, CHUNK_ELEMENTS);
        let mut scan = Scan::new(seen);
        while let Some(cursor) = scan.cursor() {
            let reply = self
                .read(&[b"SSCAN", key.source, cursor, b"COUNT", stride.digits().as_bytes()])
                .await?;
            let (next, members) = scanned(reply)?;
            let members: Vec<&[u8]> = members.iter().map(bytes_of).collect();
            let bytes = self
                .put(&[b"SADD", key.target], &members, 1, CHUNK_ELEMENTS)
                .await?;
            stride.learn(members.len(), bytes);
            scan.go_on(&next, members.len())?;
        }
        Ok(())
    }

    async fn zset(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        let mut stride = Stride::new(seen, CHUNK_ELEMENTS);
        let mut pos = 0;
        while pos < seen.len {
            let (first, last) = (pos.to_string(), (pos + stride.count() - 1).to_string());
            let range: [&[u8]; 5] = [
                b"ZRANGE",
                key.source,
                first.as_bytes(),
                last.as_bytes(),
                b"WITHSCORES",
            ];
            let members = scored(items_of(self.read(&range).await?)?)?;
            let mut args: Vec<&[u8]> = Vec::with_capacity(2 * members.len());
            for (member, score) in &members {
                args.push(score.as_bytes());
                args.push(bytes_of(member));
            }
            let bytes = self
                .put(&[b"ZADD", key.target], &args, 2, 2 * CHUNK_ELEMENTS)
                .await?;
            pos += members.len();
            if members.len() < stride.count() {
                break;
            }
            stride.learn(members.len(), bytes);
        }
        Ok(())
    }

    /// Writes what was read, in commands of at most `args_max` arguments; how many bytes.
    pub(super) async fn put(
        &mut self,
        head: &[&[u8]],
        args: &[&[u8]],
        unit: usize,
        args_max: usize,
    ) -> Result<usize, Stop> {
        let bytes = args.iter().map(|arg| arg.len()).sum();
        self.spend(bytes).await;
        let mut batch = Batch::default();
        batch.push_all(head, args, unit, args_max);
        self.write(batch).await?;
        Ok(bytes)
    }

    /// Asks the source several things about a key at once.
    pub(super) async fn read_all(&mut self, batch: Batch) -> Result<Vec<BytesFrame>, Stop> {
        let replies = batch.send(self.source).await?;
        replies.into_iter().map(unless_changed).collect()
    }
}

/// A walk with `HSCAN` or `SSCAN`. It ends by itself, as the server says; the bound is for one that is added to as fast as it
/// is read. A value that stands still cannot reach it: it gives each element once, or twice if its table shrinks meanwhile.
pub(super) struct Scan {
    cursor: Option<Vec<u8>>,
    elements_left: usize,
}

impl Scan {
    pub(super) fn new(seen: &Seen) -> Self {
        Self {
            cursor: Some(b"0".to_vec()),
            elements_left: 8 * seen.len + 100_000,
        }
    }

    pub(super) fn cursor(&self) -> Option<&[u8]> {
        self.cursor.as_deref()
    }

    /// The reply came with the cursor `next` and so many elements.
    pub(super) fn go_on(&mut self, next: &BytesFrame, elements: usize) -> Result<(), Stop> {
        let next = bytes_of(next);
        self.cursor = (next != b"0").then(|| next.to_vec());
        // A step that gives none counts too: a table may be that sparse, but has an end.
        let left = self.elements_left.checked_sub(elements.max(1));
        self.elements_left = left.ok_or(Stop::Changed)?;
        Ok(())
    }
}

/// Members and their scores, written so that they are read as the same numbers. RESP3 has them in pairs.
fn scored(items: Vec<BytesFrame>) -> Result<Vec<(BytesFrame, String)>, Stop> {
    let mut members = Vec::with_capacity(items.len());
    for pair in items {
        let mut pair = items_of(pair)?.into_iter();
        let (Some(member), Some(score)) = (pair.next(), pair.next()) else {
            return Err(crate::node::control::ControlError::Protocol.into());
        };
        let score = match score {
            // As few digits as name this number and no other: at most 17.
            BytesFrame::Double { data, .. } => format!("{data:e}"),
            other => text_of(&other),
        };
        members.push((member, score));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_as_long_as_elements_let_it() {
        let seen = |len, bytes| Seen {
            kind: Kind::List,
            len,
            bytes,
        };
        let mut stride = Stride::new(&seen(10_000, 1_000_000), 1000);
        assert_eq!(stride.count(), 1000);
        stride.learn(1000, 1000 * CHUNK_BYTES);
        assert_eq!(stride.count(), 1, "they have become large");
        stride.learn(1, 10);
        assert_eq!(stride.count(), 2, "and small again");
        assert_eq!(Stride::new(&seen(10, 100 * CHUNK_BYTES), 1000).count(), 1);
        assert_eq!(Stride::new(&seen(0, 0), 1000).count(), 1000, "nothing is known");
    }
}
