//! The command table: what every command is, where its keys are, and what may be done with it.
//!
//! Redis knows its commands best, so the table is read from the nodes' own `COMMAND` at start (`described`, `table`):
//! modules and newer versions work without a new proxy, and a command that some node does not have is unknown. What
//! Redis does not say (where a command may go, how replies of copies compare, how RESP3 becomes RESP2) is a small
//! table of ours (`annotations`); what an old Redis does not say is in a snapshot of 7.0 (`builtin`).
//!
//! Everything here is pure: no sockets, no clock, no tokio. `CommandTable::lookup` and `Command::keys` run for each
//! command of each client and allocate nothing on the usual path.

mod annotations;
mod builtin;
mod described;
mod error;
pub mod glob;
mod keys;
pub mod script;
pub mod spec;
mod special;
mod table;

pub use error::ErrorReply;
pub use keys::{KeyPositions, sort_reads_other_keys, xread_block};
pub use spec::{Class, Command, Compare, Downgrade, Flags, Merge, Pool, Special, Split, Timeout};
pub use table::{CommandTable, TableError};

pub mod compare;
pub mod decide;
pub mod dump;
pub mod frame;
#[cfg(test)]
mod notes;
pub mod number;
pub mod parts;
pub mod rewrite;
mod xadd;
