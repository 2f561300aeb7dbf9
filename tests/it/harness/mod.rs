//! What the tests run on: real servers, the real program, a relay that can be cut, and a client without tricks.

mod client;
mod node;
mod relay;
mod reply;
mod rng;
mod sidecar;
mod wait;

pub use client::{Client, Endpoint, ToArg, encode};
pub use node::{Node, NodeOptions, Pool};
pub use relay::{Flow, Relay};
pub use reply::{Reply, printable};
pub use rng::{Rng, seed, setting};
pub use sidecar::{NodeEntry, Sidecar, SidecarConfig, binary};
pub use wait::{Port, wait_for, wait_until};
