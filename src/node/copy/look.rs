//! Looking at keys before they are copied: of what type, how long, about how many bytes, until when.

use redis_protocol::resp3::types::BytesFrame;

use super::wire::{Batch, number_of};
use super::{LARGE_BYTES, LARGE_ELEMENTS};
use crate::node::control::{Control, ControlError, is_error, text_of};

/// `SAMPLES` of `MEMORY USAGE` for a value that may be small: all its elements, so that the one large one among them is found.
const SAMPLES_SMALL: usize = LARGE_ELEMENTS;

/// And for a large one, of which only the average is asked.
const SAMPLES_LARGE: usize = 50;

/// Samples that are taken at once. Each is a few memory accesses, up to 1 us: what is pipelined is executed at one go.
const SAMPLES_AT_ONCE: usize = 4000;

/// A value's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Absent,
    String,
    List,
    Hash,
    Set,
    Zset,
    Stream,
    /// What `TYPE` says of any other.
    Module(String),
}

impl Kind {
    fn of(text: String) -> Self {
        match text.as_str() {
            "none" => Kind::Absent,
            "string" => Kind::String,
            "list" => Kind::List,
            "hash" => Kind::Hash,
            "set" => Kind::Set,
            "zset" => Kind::Zset,
            "stream" => Kind::Stream,
            _ => Kind::Module(text),
        }
    }

    /// What `TYPE` says.
    pub(super) fn name(&self) -> &str {
        match self {
            Kind::Absent => "none",
            Kind::String => "string",
            Kind::List => "list",
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::Zset => "zset",
            Kind::Stream => "stream",
            Kind::Module(name) => name,
        }
    }

    /// The command that gives the length.
    fn length(&self) -> Option<&'static [u8]> {
        match self {
            Kind::String => Some(b"STRLEN"),
            Kind::List => Some(b"LLEN"),
            Kind::Hash => Some(b"HLEN"),
            Kind::Set => Some(b"SCARD"),
            Kind::Zset => Some(b"ZCARD"),
            Kind::Stream => Some(b"XLEN"),
            Kind::Absent | Kind::Module(_) => None,
        }
    }
}

/// What a key was when it was looked at.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// Elements; of a string: bytes.
    pub(super) len: usize,
    /// About how large it is. A stream's has its groups with it.
    pub(super) bytes: usize,
}

impl Seen {
    /// Whether it may be copied as a payload, with others.
    pub(super) fn is_small(&self) -> bool {
        let elements_max = match self.kind {
            Kind::String => LARGE_BYTES,
            Kind::Module(_) => return false,
            _ => LARGE_ELEMENTS,
        };
        self.len <= elements_max && self.bytes <= LARGE_BYTES
    }

    /// Elements that a copy of it as a whole goes through.
    pub(super) fn elements(&self) -> usize {
        match self.kind {
            Kind::String => 1,
            _ => self.len,
        }
    }
}

/// When a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// There is no such key (any more).
    Gone,
    Never,
    /// Unix ms.
    At(i64),
}

impl Expiry {
    /// From a reply to `PEXPIRETIME`; none if the server does not know it.
    pub(super) fn of(reply: &BytesFrame) -> Option<Self> {
        Some(match number_of(reply)? {
            -2 => Expiry::Gone,
            at if at < 0 => Expiry::Never,
            at => Expiry::At(at),
        })
    }
}

/// Looks at keys: their types, then their lengths, then their sizes, all at once where they are small.
pub(super) async fn look<K: AsRef<[u8]>>(
    source: &mut Control,
    keys: &[K],
) -> Result<Vec<Seen>, ControlError> {
    let mut types = Batch::default();
    for key in keys {
        types.push(&[b"TYPE", key.as_ref()]);
    }
    let mut all = Vec::with_capacity(keys.len());
    let mut lengths = Batch::default();
    for (reply, key) in types.send(source).await?.iter().zip(keys) {
        if is_error(reply) {
            return Err(ControlError::Refused(text_of(reply)));
        }
        let kind = Kind::of(text_of(reply));
        if let Some(command) = kind.length() {
            lengths.push(&[command, key.as_ref()]);
        }
        let (len, bytes) = (0, 0);
        all.push(Seen { kind, len, bytes });
    }
    let mut replies = lengths.send(source).await?.into_iter();
    for seen in all.iter_mut().filter(|seen| seen.kind.length().is_some()) {
        seen.len = size_of(replies.next());
        // Only of strings; of the others it is asked.
        seen.bytes = seen.len;
    }
    let mut asked: Vec<&mut Seen> = Vec::new();
    let mut sizes = Batch::default();
    let mut samples_sum = 0;
    for (seen, key) in all.iter_mut().zip(keys) {
        if matches!(seen.kind, Kind::Absent | Kind::String | Kind::Module(_)) {
            continue;
        }
        let samples = match seen.len > LARGE_ELEMENTS {
            true => SAMPLES_LARGE,
            false => SAMPLES_SMALL,
        };
        if samples_sum >= SAMPLES_AT_ONCE {
            take_sizes(source, std::mem::take(&mut sizes), &mut asked).await?;
            samples_sum = 0;
        }
        samples_sum += samples.min(seen.len);
        let samples = samples.to_string();
        sizes.push(&[b"MEMORY", b"USAGE", key.as_ref(), b"SAMPLES", samples.as_bytes()]);
        asked.push(seen);
    }
    take_sizes(source, sizes, &mut asked).await?;
    Ok(all)
}

async fn take_sizes(
    source: &mut Control,
    sizes: Batch,
    asked: &mut Vec<&mut Seen>,
) -> Result<(), ControlError> {
    let mut replies = sizes.send(source).await?.into_iter();
    for seen in asked.drain(..) {
        seen.bytes = size_of(replies.next());
    }
    Ok(())
}

/// A length or a size. An error is a key that has changed since: what is there now is found when it is copied.
fn size_of(reply: Option<BytesFrame>) -> usize {
    let n = reply.as_ref().and_then(number_of).unwrap_or(0);
    usize::try_from(n).unwrap_or(0)
}

/// How often a server is asked whose clock goes on between two commands.
const CLOCK_ATTEMPTS_MAX: usize = 20;

/// When keys expire, on a server that has no `PEXPIRETIME` (6.2): by the rest, at a moment in which the clock has not gone on.
pub(super) async fn expiries_before_7(
    source: &mut Control,
    keys: &[&[u8]],
) -> Result<Vec<Expiry>, ControlError> {
    let mut expiries = vec![Expiry::Never; keys.len()];
    let mut open: Vec<usize> = (0..keys.len()).collect();
    for attempt in 1..=CLOCK_ATTEMPTS_MAX {
        let mut batch = Batch::default();
        for key in open.iter().filter_map(|&i| keys.get(i)) {
            batch.push(&[b"TIME"]);
            batch.push(&[b"PTTL", key]);
            batch.push(&[b"TIME"]);
        }
        let replies = batch.send(source).await?;
        let mut again = Vec::new();
        for (&i, reply) in open.iter().zip(replies.chunks(3)) {
            let [before, left, after] = reply else { continue };
            let found = match number_of(left) {
                Some(-2) => Expiry::Gone,
                Some(left) if left >= 0 => {
                    if millis(before) != millis(after) && attempt < CLOCK_ATTEMPTS_MAX {
                        again.push(i);
                    }
                    Expiry::At(millis(after) + left)
                }
                _ => Expiry::Never,
            };
            if let Some(expiry) = expiries.get_mut(i) {
                *expiry = found;
            }
        }
        open = again;
        if open.is_empty() {
            break;
        }
    }
    Ok(expiries)
}

/// The reply to `TIME`, in ms.
pub(super) fn millis(time: &BytesFrame) -> i64 {
    let BytesFrame::Array { data, .. } = time else {
        return 0;
    };
    let number = |i: usize| data.get(i).and_then(number_of).unwrap_or(0);
    number(0) * 1000 + number(1) / 1000
}
