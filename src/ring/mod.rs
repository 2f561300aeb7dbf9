//! The ring: which partition a key belongs to, and which nodes *should* hold a partition.
//!
//! Two questions are kept apart in this program, because they have different answers while anything moves:
//!
//! - Where *should* a partition be? The **ring** says so. It is a pure function of the nodes' names, weights and zones:
//!   no state, no I/O, the same answer on every host, platform and version, so it never has to be agreed on.
//! - Where *is* a partition? The **table** says so. It is the only thing commands are routed by, it is versioned and
//!   stored, and it changes one partition at a time, when a copy is complete.
//!
//! So **the ring is the target, the table is the truth**. A ring change (a node added, drained, given another weight)
//! moves nothing by itself: it makes a new target, and the difference between target and table is worked off by copies.
//!
//! Likewise the step before it: a key belongs to a partition for ever ([`partition_of`]), whatever the nodes are; only
//! the partition's replica set changes.
//!
//! What is here does not know addresses, connections, who is in sync, or the table.

mod keyspace;
mod partition;
mod placement;
mod share;

pub use keyspace::Keyspace;
pub use partition::{PIN, partition_of, pinned_to, routing_key};
pub use placement::{ReplicaSet, RingNode, place};
