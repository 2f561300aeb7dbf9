//! The seam between the sidecar that has a client and the owner that orders its command.
//!
//! A [`Request`] holds everything the owner needs and nothing of the connection it came from, so it can be handed over
//! by a function call, through a channel to another worker thread, or over a socket; its answer comes back as an
//! [`Outcome`] for a [`ReplyTo`]. Nothing below the router knows which way it was.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire, Release},
};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::account::Position;
use crate::command::decide::Decision;
pub use crate::command::parts::Brings;
use crate::command::parts::Line;
use crate::command::spec::Compare;
use crate::resp::{Args, Span, Spans};

/// One of the equal slices of the key space.
pub type PartitionId = u16;

/// A node's place in the table's list of nodes.
pub type NodeId = u16;

/// The nodes of a partition, as the table records them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The replica set.
    pub replicas: SmallVec<[NodeId; 4]>,
    /// Those of it that are in sync, by bit.
    pub in_sync: u8,
}

impl Membership {
    /// Those that are in sync.
    pub fn nodes_in_sync(&self) -> SmallVec<[NodeId; 4]> {
        let is_in = |(i, _): &(usize, &NodeId)| self.in_sync & (1 << i) != 0;
        let in_sync = self.replicas.iter().enumerate().filter(is_in);
        in_sync.map(|(_, &node)| node).collect()
    }
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The worker that has the client.
    pub worker: u16,
    /// Which part of a command that went to several partitions.
    pub part: u16,
    /// The client, as its worker counts them.
    pub client: u32,
    /// Tells this client from an earlier one of the same number.
    pub generation: u32,
    /// The client's command, counted from its first.
    pub slot: u64,
}

/// Commands for one partition, executed together at one place of its order.
#[derive(Clone, Debug)]
pub struct Commands {
    /// The commands' bytes, one after the other.
    pub frame: Bytes,
    /// How many there are: one, or those of a transaction.
    pub count: u32,
    /// How the mirrors' replies are compared.
    pub compare: Compare,
    /// What may have changed when they were executed.
    pub touched: Touched,
    /// Scripts that a node must know to execute them.
    pub scripts: Option<Box<[Arc<Script>]>>,
    /// What it brings to its keys that somebody may be waiting for.
    pub brings: Brings,
    /// Executed in a `MULTI` of its own if in no other: a command that would wait outside of one.
    pub in_multi: bool,
    /// For a stream entry whose id we chose: what to do if the stream was already past it.
    pub second_chance: Option<Box<Decide>>,
}

impl Commands {
    /// The same, with a frame in front of it that changes nothing.
    #[must_use]
    pub fn behind(self, first: &[u8]) -> Self {
        let moved = |key: &Span| Span {
            start: key.start + first.len() as u32,
            len: key.len,
        };
        Self {
            frame: [first, &self.frame].concat().into(),
            touched: match self.touched {
                Touched::Partition => Touched::Partition,
                Touched::Keys(keys) => Touched::Keys(keys.iter().map(moved).collect()),
            },
            ..self
        }
    }

    /// One command that changes nothing.
    pub fn one(frame: Bytes) -> Self {
        Self {
            frame,
            count: 1,
            compare: Compare::Exact,
            touched: Touched::Keys(SmallVec::new()),
            scripts: None,
            brings: Brings::Nothing,
            in_multi: false,
            second_chance: None,
        }
    }
}

/// A client that waits, at all keys where it does: it is served only once.
#[derive(Debug, Default)]
pub struct Waiter {
    state: AtomicU8,
}

impl Waiter {
    const FREE: u8 = 0;
    /// Something is being taken for it.
    const CLAIMED: u8 = 1;
    /// The same, and if nothing is found, it will not wait any more.
    const ENDING: u8 = 2;
    const GONE: u8 = 3;

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// Takes the right to serve it.
    pub fn claim(&self) -> bool {
        self.change(Self::FREE, Self::CLAIMED)
    }

    /// Gives the right back: nothing was found. Whether it ends with that.
    pub fn unclaim(&self) -> bool {
        !self.change(Self::CLAIMED, Self::FREE) && self.change(Self::ENDING, Self::GONE)
    }

    /// It waits no more. `false`: something is being taken for it just now, or has been; how that ends will be told.
    pub fn end(&self) -> bool {
        self.change(Self::FREE, Self::GONE) || {
            self.change(Self::CLAIMED, Self::ENDING);
            false
        }
    }

    /// It has been served.
    pub fn served(&self) {
        self.state.store(Self::GONE, Release);
    }

    /// Whether it waits, and nothing is being taken for it.
    pub fn is_free(&self) -> bool {
        self.state.load(Acquire) == Self::FREE
    }

    /// Whether it waits no more.
    pub fn is_gone(&self) -> bool {
        self.state.load(Acquire) == Self::GONE
    }
}

/// A client that is to wait at a key.
#[derive(Clone, Debug)]
pub struct Wait {
    /// Who.
    pub waiter: Arc<Waiter>,
    /// At which key.
    pub key: Bytes,
    /// With whom it competes.
    pub line: Line,
    /// It moves what it finds: its attempt asks the key for its length first, so that an error over its type can be told from
    /// one over where it moves it.
    pub moves: bool,
    /// What serves it; `None`: it is told to come and see for itself, and says what it has found: nothing
    /// ([`Action::LookAgain`]), or something ([`Action::Forget`]).
    pub attempt: Option<Attempt>,
}

/// What is tried to serve a client that waits.
#[derive(Clone, Debug)]
pub enum Attempt {
    /// Executed on one node.
    Read(Commands),
    /// Executed on all nodes.
    Write(Commands),
}

/// A script as nodes have it.
#[derive(Debug)]
pub struct Script {
    /// SHA-1 of its text.
    pub sha: [u8; 20],
    /// `SCRIPT LOAD` of its text, as a frame.
    pub load: Bytes,
}

/// Which keys a write may have changed: what a node that misses it needs to be given.
#[derive(Clone, Debug)]
pub enum Touched {
    /// The keys at these places of the frame.
    Keys(SmallVec<[Span; 1]>),
    /// Any key of the partition (a script may touch keys that it does not declare).
    Partition,
}

/// What is asked of the owner.
#[derive(Clone, Debug)]
pub enum Action {
    /// Executed on one node in sync.
    Read(Commands),
    /// Executed on all nodes of the replica set, at the same place.
    Write(Commands),
    /// The same, of a command that does not tell by its reply whether its key was still there: an `EXISTS` goes before it,
    /// whose reply is for the comparison of the mirrors only.
    Probed(Commands),
    /// Made on all nodes what it is on the primary: a key.
    Repair(Bytes),
    /// Nothing else of the partition is ordered until [`Action::Release`], but what carries the same [`Request::under`].
    /// Answered ([`Outcome::Done`]) when that is so.
    Hold,
    /// Whether enough nodes are there to write ([`Outcome::Done`]), before the first of several writes.
    Writable,
    /// Ends a hold. Not answered.
    Release,
    /// Answered ([`Outcome::Done`]) when this node has executed all writes of the partition that are ordered before; refused if
    /// it is not given them.
    Settled(NodeId),
    /// Which keys writes of the partition name is noted from now on, or no more.
    NoteChanges(bool),
    /// Tells which: an array of 1 or 0 (whether there was a write that does not name its keys), and keys.
    TakeChanges,
    /// Under a hold: this node has a copy of all that was ordered for the partition. It is given what comes from here on, and
    /// counts; it is taken into the replica set if it is not there. Refused if that is not what stands at this position (`None`:
    /// there is no account).
    Join(NodeId, Option<Position>),
    /// This node leaves the replica set, as soon as that is recorded.
    Leave(NodeId),
    /// Decided on one node, then written to all.
    Decide(Box<Decide>),
    /// Tries to serve a client, and lets it wait if there is nothing ([`Outcome::Waits`] then, and each time that it was tried
    /// again in vain; [`Outcome::Done`] if that was the last time, because it ends: [`Waiter::end`]).
    Wait(Box<Wait>),
    /// This one does not wait at this key any more.
    Forget(Arc<Waiter>, Bytes),
    /// Something may have passed by those who wait at this key, because one of them was being served elsewhere. One who was
    /// told to come and see, and found nothing ([`Waiter::unclaim`]), waits again, at its place.
    LookAgain(Bytes),
    /// Executed on one given node, whatever partitions it has; behind all that was ordered for it before.
    OnNode(NodeId, Commands),
    /// A write of several partitions of this worker that live on the same nodes, at one place of the order of each.
    Joint(Box<[PartitionId]>, Commands, WhereParted),
    /// A write of every partition of this worker, at one place of the order (`FLUSHDB`): commands and their number.
    Everywhere(Bytes, u32),
}

/// What becomes of a joint write when a node is given some of its partitions only. (Where their replica sets differ, it is always
/// refused.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhereParted {
    /// It is [refused](Refusal::Parted): it can be done in steps.
    Refuse,
    /// There is no other way to do it: the node is given none of these partitions any more.
    Expel,
}

/// A command whose effect one node decides before all execute it.
#[derive(Clone, Debug)]
pub struct Decide {
    /// How it is decided.
    pub decision: Decision,
    /// The client's command.
    pub frame: Bytes,
    /// Its arguments.
    pub spans: Spans,
}

impl Decide {
    /// The client's command, to be looked at.
    pub fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.frame,
            spans: &self.spans,
        }
    }
}

/// Tells the holds of partitions from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldId(u64);

impl HoldId {
    /// No hold: ordered when nobody holds the partition.
    pub const NONE: Self = Self(0);

    /// The owner's own, while one node decides a command.
    pub(crate) const OWNER: Self = Self(u64::MAX);

    /// The owner's own, while clients that wait are served.
    pub(crate) const SERVICE: Self = Self(u64::MAX - 1);

    /// The `n`th of who looks after the pool.
    pub fn of_pool(n: u64) -> Self {
        Self(0xfff0 << 48 | n & 0xffff_ffff_ffff)
    }

    /// The `n`th of a worker.
    pub fn new(worker: u16, n: u64) -> Self {
        Self((u64::from(worker) + 1) << 48 | n & 0xffff_ffff_ffff)
    }
}

/// A command, or a transaction, for the owner of a partition.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it belongs. Without meaning for [`Action::OnNode`] and [`Action::Everywhere`].
    pub partition: PartitionId,
    /// The logical database.
    pub db: u16,
    /// What is asked.
    pub action: Action,
    /// The hold that it belongs to.
    pub under: HoldId,
    /// Who waits.
    pub reply_to: ReplyTo,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The replies of its commands, one after the other, in RESP3.
    Reply {
        /// Complete frames.
        frames: Bytes,
        /// Whether there is a type among them that RESP2 does not have.
        resp3: bool,
    },
    /// What was asked has no reply, and has happened.
    Done,
    /// There is nothing yet; it will be told.
    Waits,
    /// There may be something: it should come and see.
    MayCome,
    /// Nothing was changed, and nothing will be.
    Refused(Refusal),
    /// It may or may not have been executed; nobody can tell. The client is disconnected, as by a crashed server.
    Unknown,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer nodes than `min_in_sync` are there.
    TooFewNodes,
    /// The same, because nodes cannot write to their disks.
    DisksFull,
    /// The same, because nodes are at their `maxmemory`.
    MemoryFull,
    /// No node could answer a read, or not enough of them could show that it is not stale.
    Unconfirmed,
    /// More writes wait for their quorum than the backlog may hold.
    Overloaded,
    /// This worker does not own the partition (any more).
    NotOwner,
    /// The partitions of a joint write do not have the same nodes now: it has to be done in steps.
    Parted,
}

impl Refusal {
    /// What a client is told whose command was done in other partitions.
    pub fn message_of_part(self) -> String {
        let rest = "What the command does in other partitions was done.";
        ["Nothing was written", "Nothing was done"]
            .iter()
            .find_map(|nothing| {
                let (before, after) = self.message().split_once(nothing)?;
                let after = after
                    .trim_start_matches(['.', ';'])
                    .trim_start_matches(" try again.");
                Some(format!("{before}{rest}{after}"))
            })
            .unwrap_or_else(|| self.message().to_owned())
    }

    /// What a client is told.
    pub fn message(self) -> &'static str {
        match self {
            Self::TooFewNodes => {
                "NOREPLICAS Not enough nodes of this key's replica set are in sync to keep the write safe (setting \
                 min_in_sync). Nothing was written. See /v1/nodes on the admin port."
            }
            Self::DisksFull => {
                "MISCONF Nodes of this pool cannot write to their disks, and not enough others are in sync to keep the \
                 write safe. Nothing was written. See /v1/nodes on the admin port."
            }
            Self::MemoryFull => {
                "OOM Nodes of this pool are at their maxmemory, and not enough others are in sync to keep the write \
                 safe. Nothing was written. See /v1/nodes on the admin port."
            }
            Self::Unconfirmed => {
                "NOREPLICAS Not enough nodes of this key's replica set answer to give a read that is certainly \
                 current. See /v1/nodes on the admin port."
            }
            Self::Overloaded => {
                "NOREPLICAS Too many writes wait for nodes to acknowledge them (setting limits.backlog). Nothing was \
                 written; try again."
            }
            Self::Parted => {
                "TRYAGAIN The keys of this command live on different nodes while the pool is being changed, and it can \
                 only be executed where they are together. Nothing was done; try again."
            }
            Self::NotOwner => "TRYAGAIN The owner of this key is changing. Nothing was done; try again.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_refused_in_part_is_not_told_that_nothing_was_done() {
        let part = Refusal::Overloaded.message_of_part();
        assert!(
            part.ends_with("(setting limits.backlog). What the command does in other partitions was done.")
        );
        for refusal in [
            Refusal::TooFewNodes,
            Refusal::DisksFull,
            Refusal::MemoryFull,
            Refusal::NotOwner,
            Refusal::Parted,
        ] {
            let part = refusal.message_of_part();
            assert!(!part.contains("Nothing") && part.contains("was done."), "{part}");
        }
        assert_eq!(
            Refusal::Unconfirmed.message_of_part(),
            Refusal::Unconfirmed.message()
        );
    }
}
