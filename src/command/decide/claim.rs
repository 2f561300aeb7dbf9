//! `XCLAIM` and `XAUTOCLAIM`: which pending entries are idle for long enough is asked of one node.
//!
//! A node counts idle time from when it delivered the entry itself, by its own clock; two nodes may disagree about an
//! entry that is just at the limit. So `XPENDING` on one node decides, and all nodes get an `XCLAIM` of the chosen ids
//! without a limit, with the delivery time written out (`TIME`). From then on they agree to the millisecond.
//!
//! An `XCLAIM` without a minimal idle time needs no decision, only the `TIME`.
//!
//! Two things are not exact. Redis forgets a pending entry that was deleted from the stream as soon as a claim comes across
//! it; here that happens only when the entry is also idle for long enough. And `XAUTOCLAIM` looks at no more
//! than [`SCAN_MAX`] pending entries in one call, so a larger `COUNT` may take more calls; the cursor says so, as it does in
//! Redis after ten times `COUNT`.

use std::collections::HashSet;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::smallvec;

use super::{Conclusion, Decision, Reply};
use crate::command::frame::FrameWriter;
use crate::command::number::{StreamId, integer};
use crate::resp::walk::{self, Elements};
use crate::resp::{Args, encode};

/// Most pending entries that one `XAUTOCLAIM` looks at: what Redis does for a `COUNT` of 1,000.
const SCAN_MAX: usize = 10_000;
/// `XAUTOCLAIM` looks at so many entries for each one it may claim. Redis: `attempts`.
const SCAN_PER_CLAIM: usize = 10;
/// Claimed at most by `XAUTOCLAIM` unless it says otherwise.
const COUNT_DEFAULT: i64 = 100;

/// Whether an `XCLAIM` needs a decision.
pub(in crate::command) fn claim(args: &Args<'_>) -> Option<Decision> {
    (Claim::read(args)?.idle_ms_min > 0).then_some(Decision::Claim)
}

/// An `XCLAIM` without a minimal idle time, with an absolute delivery time.
pub(in crate::command) fn claim_of_any_age(args: &Args<'_>, now_ms: u64) -> Option<Bytes> {
    let claim = Claim::read(args).filter(|claim| claim.idle_ms_min <= 0)?;
    Some(claim.write(args, claim.ids.clone().map(|i| args.arg(i)), now_ms))
}

/// The arguments of an `XCLAIM` that Redis would take.
struct Claim {
    idle_ms_min: i64,
    /// Which arguments are ids.
    ids: Range<usize>,
    /// Creates pending entries for ids that are not pending.
    force: bool,
    /// Moves the group's last delivered id, whatever is claimed.
    sets_last_id: bool,
    /// What becomes the delivery time.
    delivered: Delivered,
}

/// A delivery time as `XCLAIM` takes it; the last option counts.
enum Delivered {
    Now,
    /// `IDLE`, in milliseconds.
    Ago(i64),
    /// `TIME`, in milliseconds.
    At(i64),
}

impl Claim {
    fn read(args: &Args<'_>) -> Option<Self> {
        let idle_ms_min = integer(args.get(4)?)?;
        let ids = args
            .iter()
            .skip(5)
            .take_while(|arg| StreamId::parse(arg).is_some())
            .count();
        let ids_end = 5 + ids;
        let mut claim = Self {
            idle_ms_min,
            ids: 5..ids_end,
            force: false,
            sets_last_id: false,
            delivered: Delivered::Now,
        };
        if ids == 0 {
            return None;
        }
        let mut at = ids_end;
        while let Some(option) = args.get(at) {
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("FORCE") {
                claim.force = true;
                at += 1;
            } else if is("JUSTID") {
                at += 1;
            } else if is("IDLE") {
                claim.delivered = Delivered::Ago(integer(args.get(at + 1)?)?);
                at += 2;
            } else if is("TIME") {
                claim.delivered = Delivered::At(integer(args.get(at + 1)?)?);
                at += 2;
            } else if is("RETRYCOUNT") {
                integer(args.get(at + 1)?)?;
                at += 2;
            } else if is("LASTID") {
                StreamId::parse(args.get(at + 1)?)?;
                claim.sets_last_id = true;
                at += 2;
            } else {
                return None;
            }
        }
        Some(claim)
    }

    /// The same claim of `ids`, whatever their idle time, with an absolute delivery time.
    fn write<'a>(&self, args: &Args<'a>, ids: impl Iterator<Item = &'a [u8]>, now_ms: u64) -> Bytes {
        let mut frame = FrameWriter::new(args.arg(0), args.bytes.len() + 48);
        frame.args(args.iter().take(4).skip(1)).arg(b"0").args(ids);
        let mut at = self.ids.end;
        while let Some(option) = args.get(at) {
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("IDLE") || is("TIME") {
                at += 2;
            } else if is("RETRYCOUNT") || is("LASTID") {
                frame.arg(option).arg(args.arg(at + 1));
                at += 2;
            } else {
                frame.arg(option);
                at += 1;
            }
        }
        frame
            .arg(b"TIME")
            .number(now_ms.saturating_sub(self.idle_ms_after(now_ms)))
            .finish()
    }

    /// For how long a claimed entry will have been idle. Redis takes the present for a time in the future or before 1970.
    fn idle_ms_after(&self, now_ms: u64) -> u64 {
        let idle = match self.delivered {
            Delivered::Now => Some(0),
            Delivered::Ago(ms) => u64::try_from(ms).ok(),
            Delivered::At(ms) => u64::try_from(ms).ok().and_then(|at| now_ms.checked_sub(at)),
        };
        idle.filter(|&idle| idle <= now_ms).unwrap_or(0)
    }
}

/// All pending entries between the smallest and the largest id. With `FORCE` an id that is not pending must be told
/// from one that is not idle, so then those that are not idle are asked for too.
pub(super) fn probe_claim(args: &Args<'_>) -> Bytes {
    let mut frame = FrameWriter::new(b"XPENDING", args.bytes.len() + 96);
    frame.arg(args.arg(1)).arg(args.arg(2));
    let Some(claim) = Claim::read(args) else {
        return frame.finish();
    };
    if !claim.force {
        frame.arg(b"IDLE").arg(args.arg(4));
    }
    let ids = || claim.ids.clone().filter_map(|i| StreamId::parse(args.arg(i)));
    let first = ids().min().unwrap_or_default();
    let last = ids().max().unwrap_or_default();
    frame.id(first).id(last).number(i64::MAX.unsigned_abs()).finish()
}

pub(super) fn conclude_claim(args: &Args<'_>, probe_reply: &[u8], now_ms: u64) -> Option<Conclusion> {
    let claim = Claim::read(args)?;
    // In ascending order, as the server keeps them.
    let mut pending = Vec::new();
    for entry in Elements::of(probe_reply).ok()?? {
        pending.push(Pending::read(entry.ok()?)?);
    }
    let qualifies = |id: StreamId| match pending.binary_search_by_key(&id, |pending| pending.id) {
        Ok(at) => pending
            .get(at)
            .is_some_and(|pending| pending.idle_ms >= claim.idle_ms_min),
        Err(_) => claim.force,
    };
    // An id that is named twice is not idle any more the second time, unless the claim says so.
    let again = i64::try_from(claim.idle_ms_after(now_ms)).is_ok_and(|idle_ms| idle_ms >= claim.idle_ms_min);
    let mut seen = HashSet::new();
    let mut chosen: Vec<&[u8]> = Vec::with_capacity(claim.ids.len());
    for text in claim.ids.clone().map(|i| args.arg(i)) {
        let id = StreamId::parse(text)?;
        if qualifies(id) && (again || seen.insert(id)) {
            chosen.push(text);
        }
    }
    if !chosen.is_empty() {
        let write = claim.write(args, chosen.into_iter(), now_ms);
        return Some(Conclusion {
            write: smallvec![write],
            reply: Reply::OfWrite,
        });
    }
    if claim.sets_last_id {
        // No entry has this id, so nothing is claimed.
        let write = claim.write(args, std::iter::once(&b"0-0"[..]), now_ms);
        return Some(Conclusion {
            write: smallvec![write],
            reply: Reply::OfWrite,
        });
    }
    Some(Conclusion::only(Bytes::from_static(b"*0\r\n")))
}

/// Whether an `XAUTOCLAIM` needs a decision: always, but where Redis refuses it.
pub(in crate::command) fn auto_claim(args: &Args<'_>) -> Option<Decision> {
    AutoClaim::read(args).map(|_| Decision::AutoClaim)
}

/// The arguments of an `XAUTOCLAIM` that Redis would take, but for the start, which is the probe's too.
struct AutoClaim {
    idle_ms_min: i64,
    claims_max: usize,
    looks_max: usize,
    just_id: bool,
}

impl AutoClaim {
    fn read(args: &Args<'_>) -> Option<Self> {
        let idle_ms_min = integer(args.get(4)?)?;
        let mut count = COUNT_DEFAULT;
        let mut just_id = false;
        let mut at = 6;
        while let Some(option) = args.get(at) {
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("COUNT") {
                // Redis refuses a count whose ids would not fit into memory.
                count = integer(args.get(at + 1)?).filter(|&count| (1..=i64::MAX / 16).contains(&count))?;
                at += 2;
            } else if is("JUSTID") {
                just_id = true;
                at += 1;
            } else {
                return None;
            }
        }
        let claims_max = usize::try_from(count).ok()?;
        let looks_max = claims_max.saturating_mul(SCAN_PER_CLAIM).min(SCAN_MAX);
        Some(Self {
            idle_ms_min,
            claims_max,
            looks_max,
            just_id,
        })
    }
}

/// The pending entries that Redis would look at, and one more for the cursor.
pub(super) fn probe_auto_claim(args: &Args<'_>) -> Bytes {
    let looks_max = AutoClaim::read(args).map_or(0, |claim| claim.looks_max);
    FrameWriter::new(b"XPENDING", args.bytes.len() + 48)
        .arg(args.arg(1))
        .arg(args.arg(2))
        .arg(args.arg(5))
        .arg(b"+")
        .number(looks_max as u64 + 1)
        .finish()
}

pub(super) fn conclude_auto_claim(args: &Args<'_>, probe_reply: &[u8], now_ms: u64) -> Option<Conclusion> {
    let claim = AutoClaim::read(args)?;
    let mut entries = Elements::of(probe_reply).ok()??;
    let mut ids: Vec<Bytes> = Vec::new();
    let mut looks = 0;
    while looks < claim.looks_max && ids.len() < claim.claims_max {
        let Some(entry) = entries.next() else { break };
        let entry = Pending::read(entry.ok()?)?;
        if entry.idle_ms >= claim.idle_ms_min {
            ids.push(Bytes::copy_from_slice(entry.text));
        }
        looks += 1;
    }
    let cursor = match entries.next() {
        Some(next) => Bytes::copy_from_slice(Pending::read(next.ok()?)?.text),
        None => Bytes::from_static(b"0-0"),
    };
    if ids.is_empty() {
        return Some(Conclusion::only(auto_claimed(&cursor, &ids, b"*0\r\n")));
    }
    let mut frame = FrameWriter::new(b"XCLAIM", args.bytes.len() + 48 * ids.len());
    frame
        .args(args.iter().take(4).skip(1))
        .arg(b"0")
        .args(ids.iter().map(|id| id.as_ref()));
    frame.arg(b"TIME").number(now_ms);
    if claim.just_id {
        frame.arg(b"JUSTID");
    }
    Some(Conclusion {
        write: smallvec![frame.finish()],
        reply: Reply::AutoClaimed { cursor, ids },
    })
}

/// The reply of `XAUTOCLAIM`: cursor, what was claimed, and the ids that turned out to be deleted.
pub(super) fn auto_claimed(cursor: &Bytes, ids: &[Bytes], claimed: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(claimed.len() + 96);
    encode::header(&mut out, b'*', 3);
    encode::bulk(&mut out, cursor);
    let mut kept = BytesMut::with_capacity(claimed.len());
    let mut deleted: Vec<&Bytes> = Vec::new();
    let mut kept_len = 0;
    let mut ids = ids.iter();
    // Both are in the same order, the claimed ones are some of the ids. Nodes before 7.0 answer a null for a deleted one.
    for entry in Elements::of(claimed)
        .ok()
        .flatten()
        .into_iter()
        .flatten()
        .flatten()
    {
        let Some(id) = entry_id(entry) else { continue };
        deleted.extend(ids.by_ref().take_while(|known| known != &id));
        kept.put_slice(entry);
        kept_len += 1;
    }
    deleted.extend(ids);
    encode::header(&mut out, b'*', kept_len);
    out.put_slice(&kept);
    encode::header(&mut out, b'*', deleted.len());
    for id in deleted {
        encode::bulk(&mut out, id);
    }
    out.freeze()
}

/// The id of a claimed entry: of `[id, [field, value, …]]`, or with `JUSTID` the entry itself.
fn entry_id(entry: &[u8]) -> Option<&[u8]> {
    match Elements::of(entry).ok()? {
        Some(mut parts) => walk::text(parts.next()?.ok()?),
        None => walk::text(entry),
    }
}

/// One entry of the reply to `XPENDING`: `[id, consumer, idle, deliveries]`.
struct Pending<'a> {
    id: StreamId,
    text: &'a [u8],
    idle_ms: i64,
}

impl<'a> Pending<'a> {
    fn read(entry: &'a [u8]) -> Option<Self> {
        let mut parts = Elements::of(entry).ok()??;
        let text = walk::text(parts.next()?.ok()?)?;
        let _consumer = parts.next()?.ok()?;
        let idle_ms = integer(walk::text(parts.next()?.ok()?)?)?;
        Some(Self {
            id: StreamId::parse(text)?,
            text,
            idle_ms,
        })
    }
}
