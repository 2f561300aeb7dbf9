//! The log: every write of this worker's partitions, in their one order.
//!
//! It is the queue of all nodes at once (a node's own queue only names places in it) and the *backlog*: entries stay
//! after everybody has them, up to a bound in bytes, so that a node that was away for a moment, or came back with an
//! older append-only file, is given the rest instead of a copy.
//!
//! A write that is not safe, and whose client has been told that its outcome is unknown, is *held over*: it stays where it can be
//! found, but does not keep what comes after it from going. So a node that has all that is safe of a partition can always be given
//! the rest, and no such node drops out of sync for want of a backlog, however many writes of other partitions pass. What is held over
//! is what was under way when a quorum was lost, since without one nothing more is ordered.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

use crate::command::decide::Conclusion;
use crate::request::{Commands, PartitionId, ReplyTo};

/// What an entry costs beside its commands' bytes, for the backlog's bound.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// A place in the log; never used twice.
pub(crate) type LogPos = u64;

/// One write.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) partition: PartitionId,
    pub(crate) db: u16,
    /// Its place in the partition's order. For a write of several partitions: that of the first of them.
    pub(crate) seq: u64,
    pub(crate) commands: Commands,
    pub(crate) reply_to: ReplyTo,
    /// How the nodes' replies become the client's, where one node has decided the command.
    pub(crate) conclusion: Option<Box<Conclusion>>,
    /// The first reply, until it is released.
    pub(crate) reply: Option<(Bytes, bool)>,
    /// Digest of the first reply, by the commands' rule.
    pub(crate) digest: Option<u64>,
    /// Whether its client has been answered.
    pub(crate) released: bool,
    /// Replicas (by bit) that it was sent to and that may have executed it.
    pub(crate) sent: u8,
    /// Replicas (by bit) that refused to queue it.
    pub(crate) refused: u8,
    /// When it was ordered, by the clock of deadlines.
    pub(crate) ordered_ms: u64,
    /// What it costs, for the backlog's bound.
    cost_bytes: usize,
    /// A write of several partitions.
    pub(crate) joint: Option<Box<Joint>>,
}

/// One write of several partitions, at one place of the order of each.
#[derive(Debug)]
pub(crate) struct Joint {
    /// In the order of the partitions' numbers.
    pub(crate) seqs: Box<[(PartitionId, u64)]>,
    /// It removes all keys of a database. Then it is for all nodes; else its partitions have the same ones.
    pub(crate) is_flush: bool,
}

impl Entry {
    /// A write that has just been ordered, as `seq` of its partition.
    pub(crate) fn new(
        partition: PartitionId,
        db: u16,
        seq: u64,
        commands: Commands,
        reply_to: ReplyTo,
        ordered_ms: u64,
    ) -> Self {
        Self {
            partition,
            db,
            seq,
            commands,
            reply_to,
            conclusion: None,
            reply: None,
            digest: None,
            released: false,
            sent: 0,
            refused: 0,
            ordered_ms,
            cost_bytes: 0,
            joint: None,
        }
    }

    /// How many partitions it writes.
    pub(crate) fn partitions(&self) -> usize {
        self.joint.as_ref().map_or(1, |joint| joint.seqs.len())
    }

    /// The `i`th partition that it writes, and its seq there.
    pub(crate) fn part(&self, i: usize) -> Option<(PartitionId, u64)> {
        match &self.joint {
            Some(joint) => joint.seqs.get(i).copied(),
            None => (i == 0).then_some((self.partition, self.seq)),
        }
    }

    /// All of them.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (PartitionId, u64)> {
        (0..self.partitions()).filter_map(|i| self.part(i))
    }

    /// Whether a node that has only some of its partitions executes it all the same.
    pub(crate) fn is_flush(&self) -> bool {
        self.joint.as_ref().is_some_and(|joint| joint.is_flush)
    }

    fn cost_now(&self) -> usize {
        let joint = self.joint.as_ref().map_or(0, |joint| size_of_val(&*joint.seqs));
        self.commands.frame.len() + joint + ENTRY_OVERHEAD_BYTES
    }

    /// Its seq in `partition`; `None` if it does not write there.
    pub(crate) fn seq_in(&self, partition: PartitionId) -> Option<u64> {
        match &self.joint {
            Some(joint) => {
                let at = joint.seqs.binary_search_by_key(&partition, |(p, _)| *p).ok()?;
                joint.seqs.get(at).map(|(_, seq)| *seq)
            }
            None => (self.partition == partition).then_some(self.seq),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    base: LogPos,
    entries: VecDeque<Entry>,
    held_over: BTreeMap<LogPos, Entry>,
    held_over_bytes: usize,
    /// Where those that are held over are looked at next.
    looked_at: LogPos,
    bytes: usize,
    bytes_max: usize,
    /// All before it are released.
    open: LogPos,
}

impl Log {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            base: 0,
            entries: VecDeque::new(),
            held_over: BTreeMap::new(),
            held_over_bytes: 0,
            looked_at: 0,
            bytes: 0,
            bytes_max,
            open: 0,
        }
    }

    pub(crate) fn push(&mut self, mut entry: Entry) -> LogPos {
        entry.cost_bytes = entry.cost_now();
        self.bytes += entry.cost_bytes;
        self.entries.push_back(entry);
        self.base + self.entries.len() as u64 - 1
    }

    pub(crate) fn get(&self, pos: LogPos) -> Option<&Entry> {
        match pos.checked_sub(self.base) {
            Some(at) => self.entries.get(at as usize),
            None => self.held_over.get(&pos),
        }
    }

    pub(crate) fn get_mut(&mut self, pos: LogPos) -> Option<&mut Entry> {
        match pos.checked_sub(self.base) {
            Some(at) => self.entries.get_mut(at as usize),
            None => self.held_over.get_mut(&pos),
        }
    }

    /// The places of all entries, in their order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = LogPos> + use<> {
        let held_over: Vec<LogPos> = self.held_over.keys().copied().collect();
        held_over.into_iter().chain(self.base..self.end())
    }

    /// The place of the next entry.
    pub(crate) fn end(&self) -> LogPos {
        self.base + self.entries.len() as u64
    }

    /// Takes the oldest entry out if the log is over its bound and the entry's client has been answered. Those that are not safe are
    /// held over, while there is room.
    pub(crate) fn trim_one(&mut self, is_safe: impl Fn(&Entry) -> bool) -> Option<Entry> {
        while self.bytes > self.bytes_max && self.entries.front()?.released {
            let entry = self.entries.pop_front()?;
            let pos = self.base;
            self.base += 1;
            self.bytes -= entry.cost_bytes;
            if is_safe(&entry) {
                return Some(entry);
            }
            self.held_over_bytes += entry.cost_bytes;
            self.held_over.insert(pos, entry);
            if self.held_over_bytes > HELD_OVER_BYTES_MAX {
                let (&oldest, _) = self.held_over.first_key_value()?;
                return self.let_go(oldest);
            }
        }
        None
    }

    /// Takes entries out that have become safe since they were held over. It looks at a few of them, and next time at the next ones.
    pub(crate) fn trim_held_over(&mut self, is_safe: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let next = self.held_over.range(self.looked_at..).take(HELD_OVER_AT_ONCE);
        let seen: Vec<(LogPos, bool)> = next.map(|(&pos, entry)| (pos, is_safe(entry))).collect();
        self.looked_at = match seen.last() {
            Some((last, _)) if seen.len() == HELD_OVER_AT_ONCE => last + 1,
            _ => 0,
        };
        let safe = seen.into_iter().filter(|(_, is_safe)| *is_safe);
        safe.filter_map(|(pos, _)| self.let_go(pos)).collect()
    }

    fn let_go(&mut self, held_over: LogPos) -> Option<Entry> {
        let entry = self.held_over.remove(&held_over)?;
        self.held_over_bytes -= entry.cost_bytes;
        Some(entry)
    }

    /// Whether unanswered writes alone fill the log.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.bytes > self.bytes_max + OVERLOAD_SLACK_BYTES
            && self.entries.front().is_some_and(|e| !e.released)
    }

    /// The oldest entry whose client has not been answered.
    pub(crate) fn first_open(&mut self) -> Option<LogPos> {
        self.open = self.open.max(self.base);
        while self.get(self.open)?.released {
            self.open += 1;
        }
        Some(self.open)
    }
}

/// Entries that are looked at together: a tick must be short.
const HELD_OVER_AT_ONCE: usize = 1000;

/// Room for writes that are held over. All that is under way when a quorum is lost, if it is not more than is taken at all.
const HELD_OVER_BYTES_MAX: usize = OVERLOAD_SLACK_BYTES;

/// Room for writes in flight where there is no backlog to speak of, in bytes.
const OVERLOAD_SLACK_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequencer::repair::NOBODY;

    fn log_of(entries: u64) -> Log {
        let mut log = Log::new(0);
        for seq in 1..=entries {
            let commands = Commands::one(Bytes::from_static(b"*1\r\n$4\r\nPING\r\n"));
            let mut entry = Entry::new(0, 0, seq, commands, NOBODY, 0);
            entry.released = true;
            log.push(entry);
        }
        log
    }

    #[test]
    fn what_is_not_safe_stays_until_it_is() {
        let mut log = log_of(5);
        let safe_to = |seq: u64| move |entry: &Entry| entry.seq <= seq;
        let mut trimmed = Vec::new();
        while let Some(entry) = log.trim_one(safe_to(2)) {
            trimmed.push(entry.seq);
        }
        assert_eq!(trimmed, [1, 2]);
        let left: Vec<u64> = log
            .positions()
            .filter_map(|pos| Some(log.get(pos)?.seq))
            .collect();
        assert_eq!(
            (left, log.bytes),
            (vec![3, 4, 5], 0),
            "held over, beside the bound"
        );
        let pos = log.push(Entry::new(0, 0, 6, Commands::one(Bytes::new()), NOBODY, 0));
        assert_eq!(log.positions().last(), Some(pos));
        assert!(log.trim_held_over(safe_to(2)).is_empty());
        let safe: Vec<u64> = log.trim_held_over(safe_to(4)).iter().map(|e| e.seq).collect();
        assert_eq!((safe, log.positions().count()), (vec![3, 4], 2));
    }

    #[test]
    fn of_many_that_are_held_over_a_few_are_looked_at_in_turn() {
        let many = 2 * HELD_OVER_AT_ONCE as u64 + 10;
        let mut log = log_of(many);
        assert!(log.trim_one(|_| false).is_none());
        let (mut looks, mut left) = (0, many as usize);
        while left > 0 {
            let safe = log.trim_held_over(|_| true).len();
            assert!(safe <= HELD_OVER_AT_ONCE);
            (looks, left) = (looks + 1, left - safe);
        }
        assert_eq!((looks, log.held_over_bytes), (3, 0));
    }
}
