//! The client's side: reading commands, finding their way, and answering in the client's order.
//!
//! A client's commands may be answered by many partitions in any order; what the client sees is the order it asked in.
//! [`Client`] keeps a slot for each command; replies fill slots, and the filled ones at the front go out.

mod account;
mod across;
mod answer;
mod blocking;
mod client;
mod client_command;
mod config_get;
mod connection;
mod dispatch;
mod exec;
mod finish;
mod flush;
mod functions;
mod gather;
mod hello;
mod info;
mod joint;
mod kill;
mod latency;
mod monitor;
mod notice;
mod pause;
mod pool_wide;
mod procedure;
mod roll_call;
mod room;
mod scan;
mod scan_cursor;
mod scripts;
mod send;
mod serve;
mod settled;
mod slowlog;
pub mod stripe;
mod subscriptions;
mod touched;
mod transaction;
mod wait;
mod watch;

pub use client::{Client, Session};
pub use pause::Pause;
pub(crate) use procedure::{Inbox, Inquiry};
pub use roll_call::RollCall;
pub use serve::serve;
pub use slowlog::SlowLog;
pub(crate) use stripe::write_old_items;
pub(crate) use watch::Watcher;
