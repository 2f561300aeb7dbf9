//! Entries: added, counted, read by their ids, and removed.

use bytes::Bytes;

use super::super::whole::Whole;
use super::super::{Steps, count_of, native, sound, whole};
use super::{NO_ID, array_of, cut_by_segment};
use crate::command::Special;
use crate::command::number::{StreamId, integer};
use crate::ingress::answer::{NOT_AN_INTEGER, SYNTAX};
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::request::Outcome;
use crate::resp::{Args, Spans, encode, frame_of};
use crate::stripe::{Directory, End, Segment, names};

/// Whether an `XADD` has more than an id in front of its fields.
pub(super) fn has_options(args: &Args<'_>) -> bool {
    is_option(args.arg(2))
}

fn is_option(word: &[u8]) -> bool {
    [&b"NOMKSTREAM"[..], b"MAXLEN", b"MINID", b"LIMIT"]
        .iter()
        .any(|option| word.eq_ignore_ascii_case(option))
}

/// What `XTRIM`, and `XADD` with options, say of what is to stay.
struct Trim {
    /// By the number of entries, or by the least id.
    limit: Limit,
    /// It may leave more.
    about: bool,
    /// Where the words behind it begin.
    end: usize,
}

enum Limit {
    Length(u64),
    Id(StreamId),
}

impl Trim {
    /// Reads it from that argument on; `None` if it is not as it should be.
    fn of(args: &Args<'_>, at: usize) -> Option<Self> {
        let by_length = args.arg(at).eq_ignore_ascii_case(b"MAXLEN");
        if !by_length && !args.arg(at).eq_ignore_ascii_case(b"MINID") {
            return None;
        }
        let about = args.arg(at + 1) == b"~";
        let mut end = at + 1 + usize::from(about || args.arg(at + 1) == b"=");
        let limit = match by_length {
            true => Limit::Length(integer(args.get(end)?)?.try_into().ok()?),
            false => Limit::Id(StreamId::parse(args.get(end)?)?),
        };
        end += 1;
        if about
            && args
                .get(end)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"LIMIT"))
        {
            integer(args.get(end + 1)?).filter(|limit| *limit >= 0)?;
            end += 2;
        }
        Some(Self { limit, about, end })
    }

    /// Trims: how many entries are removed.
    async fn execute(&self, p: &Procedure, whole: &mut Whole) -> Step<i64> {
        let tail = whole.segments() - 1;
        let at_tail = count_of(&whole.on(p, tail, b"XLEN", &[]).await?);
        whole.count(tail, at_tail - whole.length(tail) as i64);
        let mut removed = 0;
        for at in 0..whole.segments() {
            let length = whole.length(at);
            let (option, limit, all) = match &self.limit {
                Limit::Length(max) => {
                    let spare = whole.total().saturating_sub(*max);
                    let left = length.saturating_sub(spare);
                    ("MAXLEN", left.to_string(), left == 0)
                }
                Limit::Id(least) => {
                    let next = whole.directory().segments().nth(at + 1);
                    let all = next.is_some_and(|next| next.base < u128::from(*least));
                    ("MINID", least.to_string(), all)
                }
            };
            // What may leave more leaves a part of a segment, but not of the only one.
            if !all && self.about && whole.segments() > 1 {
                break;
            }
            let words = [option.as_bytes(), limit.as_bytes()];
            let here = count_of(&sound(whole.on(p, at, b"XTRIM", &words).await?)?);
            whole.count(at, -here);
            removed += here;
            if !all {
                break;
            }
        }
        drop_spent(p, whole).await?;
        Ok(removed)
    }
}

/// `XADD`, where the open segment is full, or that has options.
pub(super) async fn add(p: &Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let mut whole = whole(p, steps, args.arg(1)).await?;
    let mut at = 2;
    let mut trim = None;
    loop {
        if args.arg(at).eq_ignore_ascii_case(b"NOMKSTREAM") {
            at += 1;
            continue;
        }
        match Trim::of(&args, at) {
            Some(found) if trim.is_none() => {
                at = found.end;
                trim = Some(found);
            }
            _ => break,
        }
    }
    let is_sound = args.len() > at + 2 && !is_option(args.arg(at));
    if !is_sound || whole.segments() == 1 && whole.length(0) < steps.stripes.profile.segment_len {
        // There is room; or a node is to say what is wrong with it.
        let tail = whole.segments() - 1;
        let words: Vec<&[u8]> = args.iter().skip(2).collect();
        let reply = whole.on(p, tail, b"XADD", &words).await?;
        whole.count(tail, 1);
        whole.finish();
        return Ok(answer(reply));
    }
    drop_spent(p, &mut whole).await?;
    let tail = whole.room(p, End::Tail, 1).await?;
    let words: Vec<&[u8]> = args.iter().skip(at).collect();
    let reply = sound(whole.on(p, tail, b"XADD", &words).await?)?;
    whole.count(tail, 1);
    if let Some(trim) = &trim {
        trim.execute(p, &mut whole).await?;
    }
    whole.finish();
    Ok(answer(reply))
}

/// Sealed segments without entries go, if no group waits for an acknowledgement of what was there.
async fn drop_spent(p: &Procedure, whole: &mut Whole) -> Step<()> {
    for at in (0..whole.segments().saturating_sub(1)).rev() {
        if whole.length(at) > 0 {
            continue;
        }
        let groups = whole.on(p, at, b"XINFO GROUPS", &[]).await?;
        let is_pending = |group: &[u8]| {
            let fields: Vec<&[u8]> = elements(group).collect();
            let pending = fields
                .chunks(2)
                .find(|pair| pair.first().and_then(|name| crate::resp::walk::text(name)) == Some(b"pending"));
            pending
                .and_then(|pair| pair.get(1))
                .is_some_and(|count| count_of(count) > 0)
        };
        if !elements(&groups).any(is_pending) {
            whole.drop_segment(p, at).await?;
        }
    }
    Ok(())
}

/// `XLEN`: what is counted, and the open segment is asked.
pub(super) async fn length(p: &Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let whole = whole(p, steps, args.arg(1)).await?;
    let tail = whole.segments() - 1;
    let at_tail = count_of(&sound(whole.on(p, tail, b"XLEN", &[]).await?)?);
    let total = whole.base(tail) as i64 + at_tail;
    whole.finish();
    Ok(answer(encode::integer(total)))
}

/// `XDEL`.
pub(super) async fn delete(p: &Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let key = args.arg(1);
    let queue = steps.stripes.queue(steps.db, key);
    let inside = queue.entered().await;
    let mut removed = 0;
    if let Some(directory) = queue.directory() {
        let cut =
            cut_by_segment(&directory, args.iter().skip(2)).ok_or_else(|| answer(encode::error(NO_ID)))?;
        let mut is_spent = false;
        for (at, ids) in cut {
            let Some(segment) = directory.segments().nth(at) else {
                continue;
            };
            let name = names::segment(segment, key);
            let mut words: Vec<&[u8]> = vec![b"XDEL", &name];
            words.extend(ids);
            let reply = native(p, segment.partition, &frame_of(&words)).await;
            if reply == Err(Outcome::Unknown) {
                queue.lose_count();
            }
            let here = count_of(&sound(reply?)?);
            queue.count(segment, -here);
            removed += here;
            is_spent |=
                segment != directory.open() && queue.lengths().is_some_and(|l| l.of(segment.number) == 0);
        }
        drop(inside);
        if is_spent && removed > 0 {
            let mut whole = whole(p, steps, key).await?;
            drop_spent(p, &mut whole).await?;
            whole.finish();
        }
        return Ok(answer(encode::integer(removed)));
    }
    drop(inside);
    let whole = whole(p, steps, key).await?;
    whole.finish();
    Box::pin(delete(p, steps)).await
}

/// `XTRIM`.
pub(super) async fn trim(p: &Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let mut whole = whole(p, steps, args.arg(1)).await?;
    let reply = match Trim::of(&args, 2).filter(|trim| trim.end == args.len()) {
        Some(trim) => encode::integer(trim.execute(p, &mut whole).await?),
        None => {
            // A node says what is wrong with it.
            let words: Vec<&[u8]> = args.iter().skip(2).collect();
            let tail = whole.segments() - 1;
            whole.on(p, tail, b"XTRIM", &words).await?
        }
    };
    whole.finish();
    Ok(answer(reply))
}

/// A range of ids, from the least to the greatest.
#[derive(Clone, Copy)]
pub(super) struct Between {
    pub(super) from: u128,
    pub(super) to: u128,
}

/// The ids that `XRANGE` and its like name; `None` if that is not what they are.
pub(super) fn between(from: &[u8], to: &[u8]) -> Option<Between> {
    let bound = |text: &[u8], is_end: bool| -> Option<u128> {
        match text {
            b"-" => return Some(0),
            b"+" => return Some(u128::MAX),
            _ => {}
        }
        let (is_exclusive, text) = match text.strip_prefix(b"(") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let mut id = StreamId::parse(text)?;
        if is_end && !text.contains(&b'-') {
            id.seq = u64::MAX;
        }
        let id = u128::from(id);
        match (is_exclusive, is_end) {
            (false, _) => Some(id),
            (true, false) => id.checked_add(1),
            (true, true) => id.checked_sub(1),
        }
    };
    Some(Between {
        from: bound(from, false)?,
        to: bound(to, true)?,
    })
}

fn ends<'a>(args: &Args<'a>, special: Special) -> Option<Between> {
    match special {
        Special::Xrevrange => between(args.arg(3), args.arg(2)),
        _ => between(args.arg(2), args.arg(3)),
    }
}

/// The segment that a range of ids is in, if that is one; any, if there is something wrong with it.
pub(super) fn one_segment(args: &Args<'_>, directory: &Directory, special: Special) -> Option<Segment> {
    let Some(ids) = ends(args, special) else {
        return Some(directory.open());
    };
    let (first, last) = (directory.place_of(ids.from), directory.place_of(ids.to));
    (first >= last).then(|| directory.segments().nth(first)).flatten()
}

/// `XRANGE`, `XREVRANGE` over several segments.
pub(super) async fn range(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    let args = steps.args();
    let count = match args.len() {
        4 => None,
        6 if args.arg(4).eq_ignore_ascii_case(b"COUNT") => {
            Some(integer(args.arg(5)).ok_or_else(|| answer(encode::error(NOT_AN_INTEGER)))?)
        }
        _ => return Err(answer(encode::error(SYNTAX))),
    };
    if count.is_some_and(|count| count <= 0) {
        return Ok(answer(&b"_\r\n"[..]));
    }
    let Some(ids) = ends(&args, special) else {
        return Err(answer(encode::error(NO_ID)));
    };
    let backward = special == Special::Xrevrange;
    let found = entries_between(p, steps, args.arg(1), ids, backward, count).await?;
    Ok(answer(array_of(found.iter().map(|entry| &entry[..]))))
}

/// The entries of a range of ids: of the first segment alone, if these are enough; else of all at one moment.
pub(super) async fn entries_between(
    p: &Procedure,
    steps: &Steps,
    key: &[u8],
    ids: Between,
    backward: bool,
    count: Option<i64>,
) -> Step<Vec<Bytes>> {
    let queue = steps.stripes.queue(steps.db, key);
    let inside = queue.entered().await;
    if let Some(directory) = queue.directory() {
        let (first, last) = (directory.place_of(ids.from), directory.place_of(ids.to));
        if count.is_some() || first >= last {
            let at = if backward { last.max(first) } else { first };
            let segment = directory.segments().nth(at).unwrap_or(directory.open());
            let call = between_call(&names::segment(segment, key), ids, backward, count);
            let reply = sound(native(p, segment.partition, &call).await?)?;
            let found: Vec<Bytes> = elements(&reply).map(|entry| reply.slice_ref(entry)).collect();
            if first >= last || count.is_some_and(|count| found.len() as i64 >= count) {
                return Ok(found);
            }
        }
    }
    drop(inside);
    let whole = whole(p, steps, key).await?;
    let (first, last) = (
        whole.directory().place_of(ids.from),
        whole.directory().place_of(ids.to),
    );
    let mut order: Vec<usize> = (first..=last.max(first)).collect();
    if backward {
        order.reverse();
    }
    let mut left = count;
    let mut found = Vec::new();
    for at in order {
        let (segment, name) = whole.segment(at);
        let call = between_call(&name, ids, backward, left);
        let reply = sound(native(p, segment.partition, &call).await?)?;
        let here = elements(&reply).map(|entry| reply.slice_ref(entry));
        found.extend(here);
        left = count.map(|count| count - found.len() as i64);
        if left.is_some_and(|left| left <= 0) {
            break;
        }
    }
    whole.finish();
    Ok(found)
}

fn between_call(name: &[u8], ids: Between, backward: bool, count: Option<i64>) -> (Bytes, Spans) {
    let (from, to) = (
        StreamId::from(ids.from).to_string(),
        StreamId::from(ids.to).to_string(),
    );
    let count = count.map(|count| count.to_string());
    let mut words: Vec<&[u8]> = match backward {
        false => vec![b"XRANGE", name, from.as_bytes(), to.as_bytes()],
        true => vec![b"XREVRANGE", name, to.as_bytes(), from.as_bytes()],
    };
    if let Some(count) = &count {
        words.extend([&b"COUNT"[..], count.as_bytes()]);
    }
    frame_of(&words)
}
