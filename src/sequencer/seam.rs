//! What the sequencer is told, and what follows from it.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::account::Position;
use crate::command::dump::Question;
use crate::request::{NodeId, Outcome, PartitionId, ReplyTo};
use crate::ring::Keyspace;

/// What the sequencer is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This worker's number: its name in the nodes' account.
    pub worker: u16,
    /// How the pool's keys are divided into partitions.
    pub keyspace: Keyspace,
    /// R. With one copy there is nothing to reconcile, so no account is kept.
    pub replicas: u32,
    /// W.
    pub write_quorum: u32,
    /// Fewer nodes than that: no writes.
    pub min_in_sync: u32,
    /// Bound of the backlog in bytes.
    pub backlog_bytes: usize,
    /// Most commands in a batch.
    pub batch_commands_max: usize,
    /// A batch is closed when it has reached so many bytes.
    pub batch_bytes_max: usize,
    /// How nodes are asked for a key that is to be made on others what it is there.
    pub question: Question,
    /// Database of the nodes' account.
    pub bookkeeping_db: u16,
    /// Reads go to any node in sync, not just to the primary.
    pub read_any: bool,
    /// Reads wait for the proof that nobody has fenced this owner.
    pub linearizable: bool,
    /// A write that has not reached its quorum for so long has an unknown outcome, in ms.
    pub write_timeout_ms: u64,
    /// A node that has owed an answer for so long is cut off, in ms.
    pub node_timeout_ms: u64,
    /// A node that has owed an answer for so long gets no more reads, and those it has go elsewhere, in ms.
    pub read_patience_ms: u64,
}

/// A partition as the table has it when its owner begins.
#[derive(Clone, Debug)]
pub struct PartitionStart {
    /// Which partition.
    pub partition: PartitionId,
    /// Where the epoch begins.
    pub position: Position,
    /// First epoch in which that seq was reached: see `pool::table::Row`.
    pub since: u64,
    /// The replica set, first choice first.
    pub replicas: SmallVec<[NodeId; 3]>,
    /// Those of it that are in sync, by bit.
    pub in_sync: u8,
}

/// What follows from an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// A client's request has ended.
    Complete(ReplyTo, Outcome),
    /// The set of nodes in sync has changed and the table should record it; `set` by bit.
    InSync {
        /// Whose set.
        partition: PartitionId,
        /// The set as it is now.
        set: u8,
    },
    /// A mirror answered otherwise than the first one.
    Mismatch {
        /// The node that differs.
        node: NodeId,
        /// Where.
        partition: PartitionId,
    },
    /// A check has found copies of a key that differ.
    Differs {
        /// The database.
        db: u16,
        /// The key.
        key: Bytes,
    },
    /// A node cannot be caught up from the backlog any more.
    Expelled {
        /// The node.
        node: NodeId,
        /// The partition it lacks.
        partition: PartitionId,
    },
    /// A node has owed an answer for too long: its stream should be closed.
    Hung(NodeId),
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Batches of writes sent.
    pub batches: u64,
    /// Writes in them, once for each node.
    pub batched_writes: u64,
    /// Writes ordered.
    pub writes: u64,
    /// Reads ordered.
    pub reads: u64,
    /// Replies that differed between mirrors.
    pub mismatches: u64,
    /// Keys made on all nodes what they are on the primary.
    pub repairs: u64,
    /// Entries given once more to a node that came back.
    pub resent: u64,
}
