//! The Redis protocol, as far as bytes go: where commands and replies begin and end, and how to write them.
//!
//! Nothing here knows what a command means. Both scanners are *resumable* (a frame that arrives in many reads is looked
//! at once, not from its start each time) and *bounded* (every length is checked before a byte of it is waited for),
//! because a client may send anything. They find frames without building them: the data path forwards the client's own
//! bytes, and only control connections ([`crate::node`]) decode replies, with the `redis-protocol` crate.

mod args;
mod command;
pub mod downgrade;
pub mod encode;
mod out;
mod peak;
mod reply;
pub mod walk;

pub use args::{Args, Span};
pub(crate) use command::frame_of;
pub use command::{CommandScanner, ProtocolError, Scanned, Spans};
pub use out::OutBuf;
pub use peak::ReplyPeak;
pub use reply::{ReplyError, ReplyScanner};
