//! What waits for a node, and what it still owes.

use std::collections::{HashSet, VecDeque};

use super::log::LogPos;
use crate::limits;
use crate::resp::{ReplyPeak, ReplyScanner};

/// Something to be executed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A write: its place in the log.
    Write(LogPos),
    /// A read: its number, and the generation that tells it from an earlier one of the same number.
    Read(u32, u32),
}

/// What the node will send next, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// One reply of no interest.
    Skip,
    /// The reply to a `PING`.
    Alive,
    /// `+QUEUED`, so many times.
    Queued(u32),
    /// The header of `EXEC`'s array, or its refusal: of a whole batch that carries the node's account, or of one item.
    Exec {
        /// Whether the section carries the account.
        account: bool,
    },
    /// The replies of an item, so many.
    Item(Item, u32),
    /// All of a batch is answered.
    End {
        /// The round in which it was sent.
        round: u64,
        /// Whether it was the batch of writes that may be in flight.
        wrote: bool,
        /// When, in ms of the worker's clock.
        sent_ms: u64,
        /// Whether there is a script in it.
        script: bool,
    },
}

/// Why a node is not given writes, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// It refused a batch: its own words.
    Refused(String),
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Whether its stream is connected.
    pub(crate) up: bool,
    /// It has owed an answer for longer than reads should wait.
    pub(crate) slow: bool,
    pub(crate) todo: VecDeque<Item>,
    pub(crate) expected: VecDeque<Expect>,
    pub(crate) scanner: ReplyScanner,
    /// Database the stream stands in.
    pub(crate) db: u16,
    pub(crate) write_in_flight: bool,
    /// Number of the last batch of writes.
    pub(crate) batches: u64,
    /// The last round of which something has been answered.
    pub(crate) confirmed_round: u64,
    pub(crate) ping_wanted: bool,
    /// When something last came from it.
    pub(crate) heard_ms: u64,
    /// When it was last known to be executing a script, and so not expected to answer.
    pub(crate) excused_ms: u64,
    /// Reads that it has not answered.
    pub(crate) reads_in_flight: usize,
    /// How large its replies are.
    pub(crate) reply_peak: ReplyPeak,
    /// Scripts that it has been given over this stream.
    pub(crate) scripts: HashSet<[u8; 20]>,
    pub(crate) trouble: Trouble,
    /// Errors at queueing in the section being read: index of the command, text.
    pub(crate) queue_errors: Vec<(u32, Vec<u8>)>,
    pub(crate) queued_seen: u32,
}

impl Node {
    /// How many reads it may be given before it has answered some: large replies, or very many, would keep it from
    /// everything else for long, since a server makes all replies of a pipeline before it sends the first.
    pub(crate) fn read_window(&self) -> usize {
        (limits::READ_WINDOW_BYTES / self.reply_peak.bytes())
            .clamp(limits::READ_WINDOW_MIN, limits::READ_WINDOW_MAX)
    }

    /// Notes a read's reply.
    pub(crate) fn read_answered(&mut self, reply_bytes: usize) {
        self.reads_in_flight = self.reads_in_flight.saturating_sub(1);
        self.reply_peak.note(reply_bytes);
    }

    /// When the oldest batch that is not answered yet was sent.
    pub(crate) fn oldest_sent_ms(&self) -> Option<u64> {
        self.expected.iter().find_map(|e| match e {
            Expect::End { sent_ms, .. } => Some(*sent_ms),
            _ => None,
        })
    }
}
