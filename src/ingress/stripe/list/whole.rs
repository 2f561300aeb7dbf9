//! A list, for who is alone there: its segments and their lengths, and what changes them.

use std::sync::Arc;

use bytes::Bytes;

use super::super::errand::read_directory;
use super::super::segments::{next_partition, record};
use super::super::{Steps, at_once};
use crate::command::number::integer;
use crate::ingress::procedure::{Procedure, Step, answer, replies};
use crate::request::{Action, Commands};
use crate::resp::walk::{is_error, text};
use crate::resp::{encode, frame_of};
use crate::stripe::{Alone, Directory, End, Lengths, Segment, Stripe, names};

/// See the module. If it is dropped before it is [finished](Whole::finish), nothing is known of the list any more.
pub(super) struct Whole {
    key: Bytes,
    db: u16,
    queue: Arc<Stripe>,
    stripes: Arc<crate::stripe::Stripes>,
    directory: Directory,
    /// The length of each segment.
    lengths: Vec<u64>,
    is_changed: bool,
    is_finished: bool,
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
    pub(super) async fn open(p: &Procedure, steps: &Steps, key: &[u8]) -> Step<Self> {
        let queue = steps.stripes.queue(steps.db, key);
        let alone = queue.alone().await;
        let directory = match queue.directory() {
            Some(directory) => Directory::clone(&directory),
            None => read_directory(p, key).await?,
        };
        let counted = match directory.is_single() {
            true => None,
            false => queue.lengths(),
        };
        let counted = match counted {
            Some(counted) => counted,
            None => lengths(p, key, &directory).await?,
        };
        Ok(Self {
            key: Bytes::copy_from_slice(key),
            db: steps.db,
            queue,
            stripes: steps.stripes.clone(),
            lengths: directory.segments().map(|s| counted.of(s.number)).collect(),
            directory,
            is_changed: false,
            is_finished: false,
            alone,
        })
    }

    /// What was found and done is true: others may go on with it.
    pub(super) fn finish(mut self) {
        self.is_finished = true;
        let numbers = self.directory.segments().map(|s| s.number);
        let lengths: Lengths = numbers.zip(self.lengths.iter().copied()).collect();
        self.queue
            .list(self.directory.clone(), lengths, Some(&self.alone));
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

    /// Takes segments that are empty out of the directory. A list without any elements is where it was when it was new.
    pub(super) async fn settle(&mut self, p: &Procedure) -> Step<()> {
        let mut after = self.directory.clone();
        let home = p.worker.shared().keyspace.partition_of(&self.key);
        match self.total() {
            0 => after = Directory::new(home),
            _ => {
                let lengths = self.directory.segments().zip(&self.lengths);
                let empty: Vec<u16> = lengths.filter(|(_, l)| **l == 0).map(|(s, _)| s.number).collect();
                after.keep(|segment| !empty.contains(&segment.number));
            }
        }
        if after == self.directory {
            return Ok(());
        }
        match self.total() {
            0 => drop(
                p.write(home, self.db, &[b"DEL", &names::directory(home, &self.key)], 1)
                    .await?,
            ),
            _ => record(p, self.db, &self.key, &after).await?,
        }
        self.directory = after;
        match self.total() {
            0 => self.lengths = vec![0],
            _ => self.lengths.retain(|length| *length > 0),
        }
        self.is_changed = true;
        Ok(())
    }

    /// Removes all elements.
    pub(super) async fn clear(&mut self, p: &Procedure) -> Step<()> {
        for at in 0..self.segments() {
            let reply = self.on(p, at, b"UNLINK", &[]).await?;
            if is_error(&reply) {
                return Err(answer(reply));
            }
            self.count(at, -(self.length(at) as i64));
        }
        self.settle(p).await
    }

    /// Makes room for so many elements at an end: the segment there.
    pub(super) async fn room(&mut self, p: &Procedure, end: End, elements: u64) -> Step<usize> {
        let length = self.length(self.end(end));
        if length > 0 && length + elements > self.stripes.profile.segment_len {
            let mut after = self.directory.clone();
            let partition = next_partition(p, &after, after.end(end));
            after.open_at(end, partition);
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

    /// Executes a command on a segment, whose key comes behind the command's name: its reply, which may be an error.
    pub(super) async fn on(&self, p: &Procedure, at: usize, name: &[u8], rest: &[&[u8]]) -> Step<Bytes> {
        let (segment, key) = self.segment(at);
        at_once(p, segment.partition, &[command(name, &key, rest)]).await
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
    let mut words = vec![name, key];
    words.extend(rest);
    frame_of(&words)
}

/// The lengths of a list's segments, as the nodes have them.
pub(in crate::ingress::stripe) async fn lengths(
    p: &Procedure,
    key: &[u8],
    directory: &Directory,
) -> Step<Lengths> {
    let asked = directory.segments().map(|segment| {
        let name = names::segment(segment, key);
        let read = Commands::one(encode::command_frame(&[b"LLEN", &name]));
        (segment.partition, p.db, Action::Read(read))
    });
    let mut found = Vec::new();
    for outcome in p.ask_all(asked.collect()).await {
        let reply = replies(outcome)?;
        let length = reply.first().and_then(|reply| text(reply)).and_then(integer);
        found.push(length.unwrap_or(0).max(0) as u64);
    }
    Ok(directory.segments().map(|s| s.number).zip(found).collect())
}
