//! Ringfence: a pool of plain Redis servers that looks like one, and does not lose an acknowledged write.
//!
//! # The life of one `LPUSH`
//!
//! 1. [`ingress`] reads the client's bytes; [`resp`] finds where the command begins and ends in them.
//! 2. [`command`] knows that `LPUSH` writes, that its key is argument 1, and whether it must be rewritten to have the same
//!    effect on every node; [`router`] and [`ring`] make a partition of the key.
//! 3. A [`request`] goes to the partition's owner: this [`worker`], or another one.
//! 4. The owner's [`sequencer`] gives it the next place in the partition's order and queues it for every node that holds the
//!    partition; with all else that waits for a node it becomes one batch, which also carries the node's [`account`].
//! 5. [`stream`]s bring the batches to the nodes, in parallel, and their answers back.
//! 6. When W nodes have executed it, the sequencer releases the reply, and the worker writes it to the client.
//!
//! Messages to subscribers take another way: [`pubsub`] delivers them in memory.
//!
//! # Around it
//!
//! [`pool`] opens the pool (claims nodes, fences a predecessor, recovers what it left) and keeps the table; [`node`] is how it
//! talks to one node; [`admin`] and [`metrics`] tell people how things are; [`config`] says how they should be; [`serve`] holds
//! it all together, [`dev`] runs a pool on one machine, and [`cli`] operates a sidecar that runs, over its admin port.
//!
//! Arrows point one way: `resp`, `command`, `ring`, `router`, `account`, `pubsub`, `sequencer` and `pool::recover` are pure (no sockets, no
//! clock, no tokio); the data path knows nothing of `pool::open`, `admin` and `dev`. See `ARCHITECTURE.md`.

pub mod account;
pub mod admin;
pub mod cli;
pub mod command;
pub mod config;
pub mod dev;
pub mod door;
pub mod ingress;
pub mod library;
pub mod limits;
pub mod metrics;
pub mod mover;
pub mod net;
pub mod node;
pub mod pool;
pub mod profile;
pub mod pubsub;
pub mod request;
pub mod resp;
pub mod ring;
pub mod router;
pub mod sequencer;
pub mod serve;
pub mod service;
pub mod shared;
pub mod standby;
pub mod stream;
pub mod stripe;
#[cfg(test)]
mod testserver;
pub mod verify;
pub mod worker;
