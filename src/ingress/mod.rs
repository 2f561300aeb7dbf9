//! The client's side: reading commands, finding their way, and answering in the client's order.
//!
//! A client's commands may be answered by many partitions in any order; what the client sees is the order it asked in.
//! [`Client`] keeps a slot for each command; replies fill slots, and the filled ones at the front go out.

mod across;
mod blocking;
mod client;
mod connection;
mod dispatch;
mod exec;
mod finish;
mod flush;
mod functions;
mod gather;
mod info;
mod kill;
mod pool_wide;
mod procedure;
mod scan_cursor;
mod scripts;
mod serve;
mod subscriptions;
mod transaction;
mod watch;

pub use client::{Client, Session};
pub(crate) use procedure::Inbox;
pub use serve::serve;
pub(crate) use watch::Watcher;
