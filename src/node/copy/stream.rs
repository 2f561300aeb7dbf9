//! Streams by ranges: entries, groups, consumers, and what is pending.
//!
//! The problem: an entry may be pending in a group although it has been deleted from the stream, and `XCLAIM` makes nothing
//! pending that is not in the stream. Whether one is, could only be found by reading it.
//!
//! The idea: what is pending comes first, while the target's stream is empty. For each chunk of it, entries with those ids are
//! added, claimed, and trimmed away again, which leaves them pending, and does not count as a deletion
//! (`max-deleted-entry-id`); then the last id is set back, so that lower ones may come. The stream's entries follow, in their
//! order, and at last its counters.
//!
//! What cannot be copied so: how long ago a consumer was seen (`idle`, `inactive` of `XINFO CONSUMERS`): the target has seen it
//! just now. A delivery later than the target's clock is taken for one at its now. Consumers are read all at once, and groups
//! too: there is no command for a range of them.

use redis_protocol::resp3::types::BytesFrame;

use super::look::{Seen, millis};
use super::ranges::Stride;
use super::wire::{Batch, Stop, items_of, number_of};
use super::{Copy, CopyError, Names};
use crate::node::control::{ControlError, bytes_of, is_error, pairs_of};

/// Entries, or pending ones, that are read and written at once: 0.5 ms of the target.
const CHUNK_ENTRIES: usize = 500;

/// How often pending entries are read until it is sure to which ms their ages refer. One reading takes about 0.1 ms, so one in
/// ten is not.
const READINGS: usize = 16;

/// Of `XINFO STREAM`.
struct Info {
    last_id: Vec<u8>,
    /// None before 7.0.
    entries_added: Option<i64>,
    max_deleted_id: Vec<u8>,
}

/// Of `XINFO GROUPS`.
struct Group {
    name: Vec<u8>,
    pending: usize,
    last_id: Vec<u8>,
    /// None before 7.0, and where the server does not know it.
    entries_read: Option<i64>,
}

/// A pending entry.
struct Pending {
    id: Vec<u8>,
    consumer: Vec<u8>,
    /// Unix ms.
    delivered_at: i64,
    deliveries: i64,
}

impl Copy<'_> {
    pub(super) async fn stream(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        let info = Info::of(self.read(&[b"XINFO", b"STREAM", key.source]).await?)?;
        let groups = items_of(self.read(&[b"XINFO", b"GROUPS", key.source]).await?)?;
        let mut batch = Batch::default();
        // The only ways to an empty stream are this one and a group.
        batch.push(&[b"XADD", key.target, b"MAXLEN", b"0", b"0-1", b"", b""]);
        batch.push(&[b"XSETID", key.target, b"0-0"]);
        self.write(batch).await?;
        for group in groups {
            let group = Group::of(group);
            match self.group(key, &group).await {
                // It has been destroyed, or the key removed: that is seen at the end.
                Ok(()) | Err(Stop::Changed) => {}
                failed => return failed,
            }
        }
        let copied = self.entries(key, seen, &info).await?;
        let added = info.entries_added.unwrap_or(copied as i64).to_string();
        let counters: [&[u8]; 4] = [
            b"ENTRIESADDED",
            added.as_bytes(),
            b"MAXDELETEDID",
            &info.max_deleted_id,
        ];
        self.with_or_without(&[b"XSETID", key.target, &info.last_id], &counters)
            .await
    }

    /// Up to the last entry that there was at the beginning; how many.
    async fn entries(&mut self, key: Names<'_>, seen: &Seen, info: &Info) -> Result<usize, Stop> {
        let mut stride = Stride::new(seen, CHUNK_ENTRIES);
        let mut start = b"-".to_vec();
        let mut copied = 0;
        while copied < seen.len {
            let count = stride.digits();
            let range: [&[u8]; 6] = [
                b"XRANGE",
                key.source,
                &start,
                &info.last_id,
                b"COUNT",
                count.as_bytes(),
            ];
            let entries = items_of(self.read(&range).await?)?;
            let mut batch = Batch::default();
            let mut bytes = 0;
            for entry in &entries {
                let BytesFrame::Array { data, .. } = entry else {
                    return Err(ControlError::Protocol.into());
                };
                let [id, BytesFrame::Array { data: fields, .. }] = data.as_slice() else {
                    return Err(ControlError::Protocol.into());
                };
                let mut add: Vec<&[u8]> = vec![b"XADD", key.target, bytes_of(id)];
                add.extend(fields.iter().map(bytes_of));
                bytes += add.iter().map(|arg| arg.len()).sum::<usize>();
                batch.push(&add);
                start = exclusive(bytes_of(id));
            }
            self.spend(bytes).await;
            self.write(batch).await?;
            copied += entries.len();
            if entries.len() < stride.count() {
                break;
            }
            stride.learn(entries.len(), bytes);
        }
        Ok(copied)
    }

    async fn group(&mut self, key: Names<'_>, group: &Group) -> Result<(), Stop> {
        let read = group.entries_read.map(|n| n.to_string()).unwrap_or_default();
        let entries_read: [&[u8]; 2] = [b"ENTRIESREAD", read.as_bytes()];
        let create: [&[u8]; 5] = [b"XGROUP", b"CREATE", key.target, &group.name, &group.last_id];
        match group.entries_read {
            Some(_) => self.with_or_without(&create, &entries_read).await?,
            None => self.with_or_without(&create, &[]).await?,
        }
        let consumers = items_of(
            self.read(&[b"XINFO", b"CONSUMERS", key.source, &group.name])
                .await?,
        )?;
        for consumers in consumers.chunks(CHUNK_ENTRIES) {
            let mut batch = Batch::default();
            for consumer in consumers {
                let name = bytes_at(&pairs_of(consumer.clone()), "name");
                batch.push(&[b"XGROUP", b"CREATECONSUMER", key.target, &group.name, &name]);
            }
            self.write(batch).await?;
        }
        let mut start = b"-".to_vec();
        let mut copied = 0;
        while copied < group.pending {
            let pending = self.pending(key, &group.name, &start).await?;
            let Some(last) = pending.last() else { break };
            start = exclusive(&last.id);
            copied += pending.len();
            self.put_pending(key, &group.name, &pending).await?;
            if pending.len() < CHUNK_ENTRIES {
                break;
            }
        }
        Ok(())
    }

    /// The next pending entries of a group.
    async fn pending(&mut self, key: Names<'_>, group: &[u8], start: &[u8]) -> Result<Vec<Pending>, Stop> {
        let mut latest = (BytesFrame::Null, 0);
        for _ in 0..READINGS {
            let count = CHUNK_ENTRIES.to_string();
            let mut batch = Batch::default();
            batch.push(&[b"TIME"]);
            batch.push(&[b"XPENDING", key.source, group, start, b"+", count.as_bytes()]);
            batch.push(&[b"TIME"]);
            let mut replies = self.read_all(batch).await?.into_iter();
            let (Some(before), Some(pending), Some(after)) = (replies.next(), replies.next(), replies.next())
            else {
                return Err(ControlError::Protocol.into());
            };
            latest = (pending, millis(&after));
            if millis(&before) == latest.1 {
                break;
            }
        }
        let (pending, now) = latest;
        let mut entries = Vec::with_capacity(CHUNK_ENTRIES);
        for entry in items_of(pending)? {
            let entry = items_of(entry)?;
            let [id, consumer, idle, deliveries] = entry.as_slice() else {
                return Err(ControlError::Protocol.into());
            };
            entries.push(Pending {
                id: bytes_of(id).to_vec(),
                consumer: bytes_of(consumer).to_vec(),
                delivered_at: (now - number_of(idle).unwrap_or(0)).max(0),
                deliveries: number_of(deliveries).unwrap_or(1).max(0),
            });
        }
        Ok(entries)
    }

    /// Makes entries pending on the target, whose stream is empty before and after.
    async fn put_pending(
        &mut self,
        key: Names<'_>,
        group: &[u8],
        pending: &[Pending],
    ) -> Result<(), CopyError> {
        let bytes = pending.iter().map(|p| p.id.len() + p.consumer.len()).sum();
        self.spend(bytes).await;
        let mut batch = Batch::default();
        for entry in pending {
            batch.push(&[b"XADD", key.target, &entry.id, b"", b""]);
        }
        // Those that were delivered together are claimed together.
        for run in pending.chunk_by(Pending::same_delivery) {
            let Some(first) = run.first() else { continue };
            let (at, deliveries) = (first.delivered_at.to_string(), first.deliveries.to_string());
            let mut claim: Vec<&[u8]> = vec![b"XCLAIM", key.target, group, &first.consumer, b"0"];
            claim.extend(run.iter().map(|entry| entry.id.as_slice()));
            claim.extend_from_slice(&[b"TIME", at.as_bytes()]);
            claim.extend_from_slice(&[b"RETRYCOUNT", deliveries.as_bytes(), b"FORCE", b"JUSTID"]);
            batch.push(&claim);
        }
        batch.push(&[b"XTRIM", key.target, b"MAXLEN", b"0"]);
        batch.push(&[b"XSETID", key.target, b"0-0"]);
        self.write(batch).await?;
        Ok(())
    }

    /// Writes a command with arguments that older servers do not know, and without them if it is refused.
    async fn with_or_without(&mut self, command: &[&[u8]], newer: &[&[u8]]) -> Result<(), Stop> {
        let mut batch = Batch::default();
        batch.push(&[command, newer].concat());
        let replies = batch.send(self.target).await?;
        if replies.iter().any(is_error) {
            let mut batch = Batch::default();
            batch.push(command);
            self.write(batch).await?;
        }
        Ok(())
    }
}

impl Info {
    fn of(reply: BytesFrame) -> Result<Self, ControlError> {
        let pairs = pairs_of(reply);
        let last_id = bytes_at(&pairs, "last-generated-id");
        if last_id.is_empty() {
            return Err(ControlError::Protocol);
        }
        let mut max_deleted_id = bytes_at(&pairs, "max-deleted-entry-id");
        if max_deleted_id.is_empty() {
            max_deleted_id = b"0-0".to_vec();
        }
        Ok(Self {
            last_id,
            entries_added: number_at(&pairs, "entries-added"),
            max_deleted_id,
        })
    }
}

impl Group {
    fn of(reply: BytesFrame) -> Self {
        let pairs = pairs_of(reply);
        Self {
            name: bytes_at(&pairs, "name"),
            pending: number_at(&pairs, "pending").unwrap_or(0).max(0) as usize,
            last_id: bytes_at(&pairs, "last-delivered-id"),
            entries_read: number_at(&pairs, "entries-read"),
        }
    }
}

impl Pending {
    fn same_delivery(&self, other: &Self) -> bool {
        (&self.consumer, self.delivered_at, self.deliveries)
            == (&other.consumer, other.delivered_at, other.deliveries)
    }
}

type Pairs = [(BytesFrame, BytesFrame)];

/// The value of a map's field.
fn field<'p>(pairs: &'p Pairs, name: &str) -> Option<&'p BytesFrame> {
    let mut named = pairs
        .iter()
        .filter(|(field, _)| bytes_of(field) == name.as_bytes());
    named.next().map(|(_, value)| value)
}

fn bytes_at(pairs: &Pairs, name: &str) -> Vec<u8> {
    field(pairs, name).map_or_else(Vec::new, |value| bytes_of(value).to_vec())
}

fn number_at(pairs: &Pairs, name: &str) -> Option<i64> {
    number_of(field(pairs, name)?)
}

/// The start of a range that begins after `id`.
fn exclusive(id: &[u8]) -> Vec<u8> {
    [b"(", id].concat()
}
