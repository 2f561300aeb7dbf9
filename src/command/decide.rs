//! Commands that are decided on one node before all nodes get their effect.
//!
//! Which member `SPOP` takes is the node's own choice; which pending entries are idle for long enough depends on clocks
//! that each node reads for itself. For such a command the owner holds the partition, asks one in-sync node what the
//! command would choose ([`Decision::probe`], a read), and then writes the choice to all of them as an ordinary
//! command ([`Decision::conclude`]). Since nothing else happens in the partition meanwhile, what the probe saw is still so when
//! the write arrives; only the expiry of a key can come between, and then all nodes answer the write alike.
//!
//! The client must not notice: its reply has the form of the command that it sent ([`Conclusion::finish`]), in RESP3 as
//! from a node. An error of the probe (a wrong type, no such group) is its reply, and nothing is written.
//!
//! A decision holds no state: everything is read again from the arguments, which the request keeps anyway.

mod claim;
mod sort;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::{SmallVec, smallvec};

use super::frame::FrameWriter;
use super::number::{StreamId, integer};
use super::xadd;
use crate::limits;
use crate::resp::walk::{self, Elements, Payload};
use crate::resp::{Args, encode};

pub(super) use claim::{auto_claim, claim, claim_of_any_age};
pub(super) use sort::sort;

/// The answer when a probe's reply is not what such a command can answer. Not known to occur.
const PROBE_UNREADABLE: &[u8] =
    b"-ERR the node's answer was not understood, nothing was written; try again\r\n";

/// What is to be decided. The rest is in the command's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// `SPOP`: which members.
    Pop,
    /// `XCLAIM` with a minimal idle time: which of the ids.
    Claim,
    /// `XAUTOCLAIM`: which ids.
    AutoClaim,
    /// `SORT … BY … STORE`: in which order.
    SortStore,
    /// `XADD *` on a stream whose last id is in the future: which id.
    Add,
}

/// What follows from a probe's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// Commands for all nodes, to be executed at the command's place in the order with nothing between them. Empty:
    /// nothing to write.
    pub write: SmallVec<[Bytes; 2]>,
    /// What the client gets once they are acknowledged.
    pub reply: Reply,
}

/// Where a client's reply comes from. Made into bytes by [`Conclusion::finish`].
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// From the (one) write.
    OfWrite,
    /// From here.
    Fixed(Bytes),
    /// From the write, an `XCLAIM`, with what `XAUTOCLAIM` says around it.
    AutoClaimed {
        /// Where the next call goes on.
        cursor: Bytes,
        /// What the `XCLAIM` asks for, in its order. Ids that it does not answer are of deleted entries.
        ids: Vec<Bytes>,
    },
}

impl Conclusion {
    /// Nothing to write, and this reply.
    fn only(reply: impl Into<Bytes>) -> Self {
        Self {
            write: SmallVec::new(),
            reply: Reply::Fixed(reply.into()),
        }
    }

    fn unreadable() -> Self {
        Self::only(Bytes::from_static(PROBE_UNREADABLE))
    }

    /// The client's reply in RESP3, given the replies to the writes, one each. The first error among them is the reply.
    pub fn finish<'a>(&self, write_replies: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
        let mut last: &[u8] = PROBE_UNREADABLE;
        for reply in write_replies {
            last = reply;
            if walk::is_error(reply) {
                return Bytes::copy_from_slice(reply);
            }
        }
        match &self.reply {
            Reply::OfWrite => Bytes::copy_from_slice(last),
            Reply::Fixed(reply) => reply.clone(),
            Reply::AutoClaimed { cursor, ids } => claim::auto_claimed(cursor, ids, last),
        }
    }
}

impl Decision {
    /// A read-only command for one in-sync node, on the partition's order behind everything before.
    pub fn probe(self, args: &Args<'_>) -> Bytes {
        match self {
            Self::Pop => probe_pop(args),
            Self::Claim => claim::probe_claim(args),
            Self::AutoClaim => claim::probe_auto_claim(args),
            Self::SortStore => sort::probe(args),
            Self::Add => FrameWriter::new(b"XINFO", args.arg(1).len() + 48)
                .arg(b"STREAM")
                .arg(args.arg(1))
                .finish(),
        }
    }

    /// What to write and to answer, given the (RESP3) reply to the probe. `now_ms` is the pool's time.
    pub fn conclude(self, args: &Args<'_>, probe_reply: &[u8], now_ms: u64) -> Conclusion {
        if walk::is_error(probe_reply) && self != Self::Add {
            return Conclusion::only(Bytes::copy_from_slice(probe_reply));
        }
        let concluded = match self {
            Self::Pop => conclude_pop(args, probe_reply),
            Self::Claim => claim::conclude_claim(args, probe_reply, now_ms),
            Self::AutoClaim => claim::conclude_auto_claim(args, probe_reply, now_ms),
            Self::SortStore => sort::conclude(args, probe_reply),
            Self::Add => conclude_add(args, probe_reply, now_ms),
        };
        concluded.unwrap_or_else(Conclusion::unreadable)
    }
}

/// Whether a `SPOP` needs a decision: not with a count that Redis refuses, nor with none to take.
pub(super) fn pop(args: &Args<'_>) -> Option<Decision> {
    let decide = match args.len() {
        2 => true,
        3 => integer(args.arg(2)).is_some_and(|count| count > 0),
        _ => false,
    };
    decide.then_some(Decision::Pop)
}

fn probe_pop(args: &Args<'_>) -> Bytes {
    FrameWriter::new(b"SRANDMEMBER", args.bytes.len())
        .args(args.iter().skip(1))
        .finish()
}

fn conclude_pop(args: &Args<'_>, probe_reply: &[u8]) -> Option<Conclusion> {
    if args.len() == 2 {
        let member = match walk::frame(probe_reply).ok()?.0.payload {
            Payload::Text(member) => member,
            Payload::Null => return Some(Conclusion::only(Bytes::copy_from_slice(probe_reply))),
            Payload::Values(_) => return None,
        };
        let write = FrameWriter::new(b"SREM", args.bytes.len() + member.len() + 16)
            .arg(args.arg(1))
            .arg(member)
            .finish();
        return Some(Conclusion {
            write: smallvec![write],
            reply: Reply::Fixed(encode::bulk_frame(member)),
        });
    }
    // The members as `SRANDMEMBER` lists them, in what `SPOP` calls a set.
    let elements = Elements::of(probe_reply).ok()??;
    let mut reply = BytesMut::with_capacity(probe_reply.len());
    encode::header(&mut reply, b'~', elements.len());
    let mut members = Vec::with_capacity(elements.len());
    for element in elements {
        let element = element.ok()?;
        reply.put_slice(element);
        members.push(walk::text(element)?);
    }
    Some(Conclusion {
        write: in_chunks(b"SREM", args.arg(1), &members),
        reply: Reply::Fixed(reply.freeze()),
    })
}

/// `name key items…`, as several commands if the items are more than a node takes in one.
fn in_chunks(name: &[u8], key: &[u8], items: &[&[u8]]) -> SmallVec<[Bytes; 2]> {
    items
        .chunks(limits::COMMAND_ARGS_MAX - 2)
        .map(|chunk| {
            let payload_bytes = chunk.iter().map(|item| item.len() + 16).sum::<usize>() + key.len() + 16;
            FrameWriter::new(name, payload_bytes)
                .arg(key)
                .args(chunk.iter().copied())
                .finish()
        })
        .collect()
}

fn conclude_add(args: &Args<'_>, probe_reply: &[u8], now_ms: u64) -> Option<Conclusion> {
    let by_time = StreamId { ms: now_ms, seq: 0 };
    let id = match last_stream_id(probe_reply) {
        Some(last) => last.next().map_or(last, |next| next.max(by_time)),
        // The stream is gone.
        None => by_time,
    };
    // At the very last id of all the nodes answer the error.
    let write = xadd::add(args, || id)?;
    Some(Conclusion {
        write: smallvec![write],
        reply: Reply::OfWrite,
    })
}

/// The last id of a stream in the reply to `XINFO STREAM`.
pub fn last_stream_id(reply: &[u8]) -> Option<StreamId> {
    let mut fields = Elements::of(reply).ok()??;
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if walk::text(name.ok()?)? == b"last-generated-id" {
            return StreamId::parse(walk::text(value.ok()?)?);
        }
    }
    None
}
