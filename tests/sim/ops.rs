//! What clients ask for, one after the other, and how each of it ended.

use ringfence::account::Position;
use ringfence::request::{NodeId, PartitionId};

use crate::node::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `RPUSH`.
    Push,
    /// The same by a script that may touch anything.
    Script,
    /// `RPUSH` and `INCR` in a transaction.
    Both,
    Incr,
    /// `LRANGE 0 -1`.
    List,
    /// `GET`.
    Counter,
    /// `LRANGE` and `GET` in a transaction.
    ReadBoth,
    Add,
    /// `SPOP`: decided by one node.
    Pop,
    /// What every node refuses to queue.
    Boom,
    /// `RPUSH` to lists of two partitions, as one write.
    PushTwo,
    /// The same by a script.
    ScriptTwo,
    /// What every node refuses to queue, of two partitions.
    BoomTwo,
    /// `RPUSH` to a list of each of two partitions that are held, one after the other.
    PushInTurn,
    /// `LRANGE` of both of them, held.
    Peek,
    /// `RPUSH` to a queue.
    Put,
    /// The same by a script, so that nobody knows what it brings.
    PutScript,
    /// `LPOP` of a queue.
    Take,
    /// `RPOPLPUSH` from a queue to that of another partition, as one write.
    Move,
    /// `BLPOP` of one queue or two.
    WaitTake,
    /// `BRPOPLPUSH` within a partition.
    WaitMove,
    /// Waits to be told that it may take something.
    WaitTold,
    /// Waits for a list to be longer than it is: everybody who does is served by the same push.
    WaitLong,
    /// A sign that a node has executed what was ordered before.
    Settled,
}

impl Kind {
    pub fn pushes(self) -> bool {
        matches!(
            self,
            Self::Push | Self::Script | Self::Both | Self::PushTwo | Self::ScriptTwo | Self::PushInTurn
        )
    }

    pub fn counts(self) -> bool {
        matches!(self, Self::Incr | Self::Both)
    }

    pub fn reads(self) -> bool {
        matches!(
            self,
            Self::List | Self::Counter | Self::ReadBoth | Self::Peek | Self::WaitLong
        )
    }

    /// Its value becomes an element of a queue.
    pub fn puts(self) -> bool {
        matches!(self, Self::Put | Self::PutScript)
    }

    /// It takes an element out of the world.
    pub fn takes(self) -> bool {
        matches!(self, Self::Take | Self::WaitTake | Self::WaitTold)
    }

    /// It needs two partitions.
    pub fn is_of_two(self) -> bool {
        self.is_joint() || matches!(self, Self::PushInTurn | Self::Peek)
    }

    /// One write of two partitions.
    pub fn is_joint(self) -> bool {
        matches!(self, Self::PushTwo | Self::ScriptTwo | Self::BoomTwo | Self::Move)
    }

    /// It takes several steps: see `clients.rs`.
    pub fn is_procedure(self) -> bool {
        matches!(self, Self::PushInTurn | Self::Peek) || self.waits()
    }

    pub fn waits(self) -> bool {
        matches!(
            self,
            Self::WaitTake | Self::WaitMove | Self::WaitTold | Self::WaitLong
        )
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was done.
    Done,
    /// It was certainly not done.
    NotDone,
    /// Nobody knows: the sidecar said so, or died.
    Unknown,
}

#[derive(Debug)]
pub struct Op {
    pub kind: Kind,
    pub partition: PartitionId,
    /// The other partition.
    pub other: Option<PartitionId>,
    pub producer: usize,
    /// The sidecar's instance.
    pub owner: u32,
    pub end: Option<End>,
    /// Those that it pushes to, or reads, and how long they were at least.
    pub lists: Vec<Key>,
    pub list_floors: Vec<usize>,
    pub counter_floor: i64,
    /// A node, and where the partition stood when it was asked for a sign.
    pub settles: Option<(NodeId, Position)>,
}
