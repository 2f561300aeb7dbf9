//! The targets, by what they read.

mod client;
mod kept;
mod node;
mod rewritten;

pub use client::{command_scanner, commands, script};
pub use kept::{account, config, table};
pub use node::{compare, described, downgrade, reply_scanner, stream};
pub use rewritten::rewrite;
