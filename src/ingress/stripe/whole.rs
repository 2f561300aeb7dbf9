//! A list or a stream, for who is alone there: its segments and their lengths, and what changes them.

use std::sync::Arc;

use bytes::Bytes;

use super::errand::read_directory;
use super::segments::{next_partition, record};
use super::{native, role_of, stream};
use crate::command::number::integer;
use crate::ingress::procedure::{Procedure, Step, answer, replies};
use crate::profile::Role;
use crate::request::{Action, Commands};
use crate::resp::walk::{is_error, text};
use crate::resp::{encode, frame_of};
use crate::stripe::{Alone, Directory, End, Lengths, Segment, Stripe, Stripes, names};

/// Segments of one queue: their numbers go around in twice as many.
const SEGMENTS_MAX: usize = 1 << 15;

const TOO_MANY: &str = "ERR this queue has 32768 segments, and cannot have more: take from it first, or make a pool with a larger \
                        segment_len";

/// The command that tells a segment's length, of queues whose segments' lengths are known.
pub(super) fn length_of(role: Role) -> Option<&'static [u8]> {
    match role {
        Role::List => Some(b"LLEN"),
        Role::Stream => Some(b"XLEN"),
        _ => None,
    }
}

/// See the module. If it is dropped before it is [finished](Whole::finish), nothing is known of the list any more.
pub(super) struct Whole {
    key: Bytes,
    role: Role,
    db: u16,
    queue: Arc<Stripe>,
    stripes: Arc<Stripes>,
    directory: Directory,
    /// The length of each segment.
    lengths: Vec<u64>,
    is_changed: bool,
    is_finished: bool,
    is_doubted: bool,
    /// Behind all others: it is dropped last.
    alone: Alone,
}

/// A part of a segment: which one, from where to where; the last is part of it.
pub(super) struct Slice {
    pub(super) at: usize,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Whole {
    /// Waits to be alone, and counts what is not counted.
    pub(super) async fn open(p: &Procedure, stripes: &Arc<Stripes>, db: u16, key: &[u8]) -> Step<Self> {
        let queue = stripes.queue(db, key);
        let alone = queue.alone().await;
        let directory = match queue.directory() {
            Some(directory) => Directory::clone(&directory),
            None => read_directory(p, key).await?,
        };
        let role = role_of(&p.worker.shared().keyspace, key);
        let Some(length) = length_of(role) else {
            return Err(answer(encode::error(
                "ERR this key is no list or stream that is spread over nodes",
            )));
        };
        let counted = match directory.is_single() {
            true => None,
            false => queue.lengths(),
        };
        let counted = match counted {
            Some(counted) => counted,
            None => lengths(p, key, directory.segments(), length).await?,
        };
        Ok(Self {
            key: Bytes::copy_from_slice(key),
            role,
            db,
            queue,
            stripes: stripes.clone(),
            lengths: directory.segments().map(|s| counted.of(s.number)).collect(),
            directory,
            is_changed: false,
            is_finished: false,
            is_doubted: false,
            alone,
        })
    }

    /// Something has failed after something else was done: nothing is known then, but it is not in vain.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// What was found and done is true: others may go on with it.
    pub(super) fn finish(mut self) {
        self.is_finished = !self.is_doubted;
        if self.is_doubted {
            return;
        }
        let numbers = self.directory.segments().map(|s| s.number);
        let lengths: Lengths = numbers.zip(self.lengths.iter().copied()).collect();
        self.queue.counted(self.directory.clone(), lengths, &self.alone);
        if self.is_changed {
            self.stripes.tell_of_changes();
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.lengths.iter().sum()
    }

    pub(super) fn segments(&self) -> usize {
        self.lengths.len()
    }

    pub(super) fn length(&self, at: usize) -> u64 {
        self.lengths.get(at).copied().unwrap_or(0)
    }

    /// What the nodes call a segment, and where it is.
    pub(super) fn segment(&self, at: usize) -> (Segment, Bytes) {
        let segment = self.directory.segments().nth(at).unwrap_or(self.directory.open());
        (segment, names::segment(segment, &self.key))
    }

    /// The segment at an end.
    pub(super) fn end(&self, end: End) -> usize {
        match end {
            End::Head => 0,
            End::Tail => self.segments() - 1,
        }
    }

    /// A segment has become longer, or shorter.
    pub(super) fn count(&mut self, at: usize, by: i64) {
        if let Some(length) = self.lengths.get_mut(at) {
            *length = length.saturating_add_signed(by);
        }
    }

    /// Whether there is such a key.
    pub(super) async fn is_there(&self, p: &Procedure) -> Step<bool> {
        if self.role == Role::List || self.total() > 0 || self.segments() > 1 {
            return Ok(self.role == Role::Stream || self.total() > 0);
        }
        // A stream may be there without any entry.
        let found = self.read(p, b"EXISTS", vec![(0, Vec::new())]).await?;
        Ok(found.first().is_some_and(|reply| reply == &b":1\r\n"[..]))
    }

    /// Takes segments of a list that are empty out of its directory. One without any elements is where it was when it was new.
    pub(super) async fn settle(&mut self, p: &Procedure) -> Step<()> {
        match self.total() {
            0 => self.reset(p).await,
            _ => self.drop_empty(p).await,
        }
    }

    /// Nothing is left: a new one begins at home.
    async fn reset(&mut self, p: &Procedure) -> Step<()> {
        let home = p.worker.shared().keyspace.partition_of(&self.key);
        let after = Directory::new(home);
        if after != self.directory {
            let record = names::directory(home, &self.key);
            p.write(home, self.db, &[b"DEL", &record], 1).await?;
            self.directory = after;
            self.is_changed = true;
        }
        self.lengths = vec![0];
        Ok(())
    }

    /// Takes segments that are empty out of the directory, where some are not.
    async fn drop_empty(&mut self, p: &Procedure) -> Step<()> {
        let mut after = self.directory.clone();
        let mut lengths = self.lengths.iter();
        after.keep(|_| lengths.next().is_some_and(|length| *length > 0));
        if after != self.directory {
            record(p, self.db, &self.key, &after).await?;
            self.directory = after;
            self.lengths.retain(|length| *length > 0);
            self.is_changed = true;
        }
        Ok(())
    }

    /// Takes a sealed segment out of the directory, and its key away.
    pub(super) async fn drop_segment(&mut self, p: &Procedure, at: usize) -> Step<()> {
        let (segment, name) = self.segment(at);
        let mut after = self.directory.clone();
        if after.drop_sealed(segment.number) {
            record(p, self.db, &self.key, &after).await?;
            self.directory = after;
            self.lengths.remove(at);
            self.is_changed = true;
            p.write(segment.partition, self.db, &[b"UNLINK", &name], 1)
                .await?;
        }
        Ok(())
    }

    /// Removes all elements.
    pub(super) async fn clear(&mut self, p: &Procedure) -> Step<()> {
        for at in 0..self.segments() {
            let reply = self.on(p, at, b"UNLINK", &[]).await?;
            if is_error(&reply) {
                return Err(answer(reply));
            }
        }
        self.reset(p).await
    }

    /// Makes room for so many elements at an end: the segment there.
    pub(super) async fn room(&mut self, p: &Procedure, end: End, elements: u64) -> Step<usize> {
        if self.role == Role::Stream {
            // Entries passed without being counted; from now on they are. One whose id was not new got another place, behind those
            // that came meanwhile: it has that when the first question is answered, and is before the second.
            let tail = self.end(End::Tail);
            let (segment, _) = self.segment(tail);
            for _ in 0..2 {
                let found = lengths(p, &self.key, [segment].into_iter(), b"XLEN").await?;
                self.count(tail, found.total() as i64 - self.length(tail) as i64);
            }
        }
        let length = self.length(self.end(end));
        if length > 0 && length + elements > self.stripes.profile.segment_len {
            if self.segments() >= SEGMENTS_MAX {
                return Err(answer(encode::error(TOO_MANY)));
            }
            let mut after = self.directory.clone();
            let partition = next_partition(p, &after, after.end(end));
            match self.role {
                Role::Stream => {
                    let last = stream::last_id(p, self).await?;
                    after.open_next(partition, last);
                    stream::begin(p, self, after.open()).await?;
                }
                _ => {
                    after.open_at(end, partition);
                    // Whatever an interrupted attempt has left.
                    let name = names::segment(after.end(end), &self.key);
                    p.write(partition, self.db, &[b"UNLINK", &name], 1).await?;
                }
            }
            record(p, self.db, &self.key, &after).await?;
            self.directory = after;
            match end {
                End::Head => self.lengths.insert(0, 0),
                End::Tail => self.lengths.push(0),
            }
            self.is_changed = true;
        }
        Ok(self.end(end))
    }

    /// Executes a command on a segment, whose key comes behind the command's name, of one word or two: its reply, which may be an error.
    pub(super) async fn on(&self, p: &Procedure, at: usize, name: &[u8], rest: &[&[u8]]) -> Step<Bytes> {
        let (segment, key) = self.segment(at);
        native(p, segment.partition, &command(name, &key, rest)).await
    }

    /// Its key, as clients know it.
    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Reads something of several segments at one moment.
    pub(super) async fn read(
        &self,
        p: &Procedure,
        name: &[u8],
        asked: Vec<(usize, Vec<Bytes>)>,
    ) -> Step<Vec<Bytes>> {
        let asked = asked.into_iter().map(|(at, rest)| {
            let (segment, key) = self.segment(at);
            let rest: Vec<&[u8]> = rest.iter().map(|word| &word[..]).collect();
            let read = Commands::one(command(name, &key, &rest).0);
            (segment.partition, self.db, Action::Read(read))
        });
        let mut found = Vec::new();
        for outcome in p.ask_all(asked.collect()).await {
            found.extend(replies(outcome)?);
        }
        Ok(found)
    }

    /// The parts of segments that a range is made of. Offsets are as those of `LRANGE`.
    pub(super) fn slices(&self, start: i64, stop: i64) -> Vec<Slice> {
        let total = self.total() as i64;
        let from_end = |at: i64| if at < 0 { at.saturating_add(total) } else { at };
        let (start, stop) = (from_end(start).max(0), from_end(stop).min(total - 1));
        let mut base = 0;
        let mut slices = Vec::new();
        for (at, &length) in self.lengths.iter().enumerate() {
            let length = length as i64;
            let (from, to) = ((start - base).max(0), (stop - base).min(length - 1));
            if from <= to {
                slices.push(Slice {
                    at,
                    from: from as u64,
                    to: to as u64,
                });
            }
            base += length;
        }
        slices
    }

    /// How many elements are before a segment.
    pub(super) fn base(&self, at: usize) -> u64 {
        self.lengths.iter().take(at).sum()
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.is_finished {
            self.queue.lose();
            self.stripes.tell_of_changes();
        }
    }
}

fn command(name: &[u8], key: &[u8], rest: &[&[u8]]) -> (Bytes, crate::resp::Spans) {
    let mut words: Vec<&[u8]> = name.split(|byte| *byte == b' ').collect();
    words.push(key);
    words.extend(rest);
    frame_of(&words)
}

/// The lengths of a queue's segments, as the nodes have them.
///
/// Asked in the order of writes: commands that have passed and are not answered yet are before it, which a read need not see.
pub(super) async fn lengths(
    p: &Procedure,
    key: &[u8],
    segments: impl Iterator<Item = Segment> + Clone,
    length: &[u8],
) -> Step<Lengths> {
    let asked = segments.clone().map(|segment| {
        let name = names::segment(segment, key);
        let ask = Commands::one(encode::command_frame(&[length, &name]));
        (segment.partition, p.db, Action::Write(ask))
    });
    let mut found = Vec::new();
    for outcome in p.ask_in_order(asked.collect()).await {
        let reply = replies(outcome)?;
        let length = reply.first().and_then(|reply| text(reply)).and_then(integer);
        found.push(length.unwrap_or(0).max(0) as u64);
    }
    Ok(segments.map(|s| s.number).zip(found).collect())
}
