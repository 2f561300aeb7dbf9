//! Consumer groups: every segment has each of them, and what is pending of its own entries.

use bytes::{Bytes, BytesMut};

use super::super::segments::texts;
use super::super::whole::Whole;
use super::super::{Steps, count_of, sound, whole};
use super::entries::between;
use super::{array_of, cut_by_segment, last_id};
use crate::command::Special;
use crate::command::number::{StreamId, integer};
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::request::Outcome;
use crate::resp::walk::{is_error, text};
use crate::resp::{Args, encode};

pub(super) fn is_possible(special: Special) -> bool {
    use Special::*;
    matches!(
        special,
        XgroupCreate
            | XgroupDestroy
            | XgroupSetid
            | XgroupCreateconsumer
            | XgroupDelconsumer
            | Xpending
            | Xclaim
            | Xautoclaim
            | XinfoConsumers
    )
}

/// Executes it.
pub(super) async fn execute(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    use Special::*;
    let args = steps.args();
    let key = match special {
        Xpending | Xclaim | Xautoclaim => args.arg(1),
        _ => args.arg(2),
    };
    let whole = whole(p, steps, key).await?;
    if matches!(special, XgroupCreate | XgroupDestroy | XgroupSetid) {
        steps.stripes.queue(steps.db, key).forget_cursors();
    }
    let reply = match special {
        _ if whole.segments() == 1 => {
            let (name, from) = match special {
                Xpending | Xclaim | Xautoclaim => (args.arg(0).to_vec(), 2),
                _ => ([args.arg(0), args.arg(1)].join(&b' '), 3),
            };
            let words: Vec<&[u8]> = args.iter().skip(from).collect();
            whole.on(p, 0, &name, &words).await?
        }
        Xpending if args.len() == 3 => pending_summary(p, &whole, &args).await?,
        Xpending => pending(p, &whole, &args).await?,
        Xclaim => claim(p, &whole, &args).await?,
        Xautoclaim => claim_all(p, &whole, &args).await?,
        _ => on_all(p, &whole, &args, special).await?,
    };
    whole.finish();
    Ok(answer(reply))
}

/// `XGROUP …`, in every segment.
async fn on_all(p: &Procedure, whole: &Whole, args: &Args<'_>, special: Special) -> Step<Bytes> {
    let name = [args.arg(0), args.arg(1)].join(&b' ');
    let mut words: Vec<&[u8]> = args.iter().skip(3).collect();
    let last = StreamId::from(last_id(p, whole).await?).to_string();
    if matches!(special, Special::XgroupCreate | Special::XgroupSetid) {
        if let Some(id) = words.get_mut(1).filter(|id| **id == b"$") {
            *id = last.as_bytes();
        }
        // How many entries it has read is counted by segments.
        if let Some(at) = words
            .iter()
            .position(|word| word.eq_ignore_ascii_case(b"ENTRIESREAD"))
        {
            words.drain(at..(at + 2).min(words.len()));
        }
    }
    let mut sum = 0;
    let mut first = Bytes::new();
    if special == Special::XgroupCreate {
        return create(p, whole, &name, &words).await;
    }
    for at in 0..whole.segments() {
        let reply = sound(whole.on(p, at, &name, &words).await?)?;
        sum += count_of(&reply);
        if at == 0 {
            first = reply;
        }
    }
    Ok(match special {
        Special::XgroupDestroy | Special::XgroupCreateconsumer => encode::integer(i64::from(sum > 0)),
        Special::XgroupDelconsumer => encode::integer(sum),
        _ => first,
    })
}

/// `XGROUP CREATE`: it is there if every segment has it; what an attempt that failed half-way has made is completed.
async fn create(p: &Procedure, whole: &Whole, name: &[u8], words: &[&[u8]]) -> Step<Bytes> {
    let mut there = None;
    let mut made = None;
    for at in 0..whole.segments() {
        let reply = whole.on(p, at, name, words).await?;
        match reply.starts_with(b"-BUSYGROUP") {
            true => there = Some(reply),
            false => made = Some(sound(reply)?),
        }
    }
    Ok(made.or(there).unwrap_or_default())
}

/// `XPENDING key group`.
async fn pending_summary(p: &Procedure, whole: &Whole, args: &Args<'_>) -> Step<Bytes> {
    let asked = (0..whole.segments()).map(|at| (at, vec![Bytes::copy_from_slice(args.arg(2))]));
    let found = whole.read(p, b"XPENDING", asked.collect()).await?;
    let mut total = 0;
    let (mut least, mut greatest) = (None, None);
    let mut consumers: Vec<(Bytes, i64)> = Vec::new();
    for reply in &found {
        let fields: Vec<&[u8]> = elements(reply).collect();
        let [count, first, last, of_consumers] = fields.as_slice() else {
            continue;
        };
        total += count_of(count);
        if count_of(count) > 0 {
            least = least.or(text(first));
            greatest = text(last);
        }
        for pair in elements(of_consumers) {
            let pair: Vec<&[u8]> = elements(pair).collect();
            let (Some(name), Some(count)) = (pair.first().and_then(|n| text(n)), pair.get(1)) else {
                continue;
            };
            match consumers.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum += count_of(count),
                None => consumers.push((Bytes::copy_from_slice(name), count_of(count))),
            }
        }
    }
    consumers.sort_unstable();
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', 4);
    out.extend_from_slice(&encode::integer(total));
    for id in [least, greatest] {
        match id {
            Some(id) => encode::bulk(&mut out, id),
            None => out.extend_from_slice(b"_\r\n"),
        }
    }
    match consumers.is_empty() {
        true => out.extend_from_slice(b"_\r\n"),
        false => encode::header(&mut out, b'*', consumers.len()),
    }
    for (name, count) in consumers {
        encode::header(&mut out, b'*', 2);
        encode::bulk(&mut out, &name);
        encode::bulk(&mut out, count.to_string().as_bytes());
    }
    Ok(out.freeze())
}

/// `XPENDING key group [IDLE ms] from to count [consumer]`.
async fn pending(p: &Procedure, whole: &Whole, args: &Args<'_>) -> Step<Bytes> {
    let words: Vec<&[u8]> = args.iter().skip(2).collect();
    let at = match args.arg(3).eq_ignore_ascii_case(b"IDLE") {
        true => 3,
        false => 1,
    };
    let range = words
        .get(at)
        .zip(words.get(at + 1))
        .and_then(|(from, to)| between(from, to));
    let count = words.get(at + 2).and_then(|count| integer(count));
    let (Some(ids), Some(mut left)) = (range, count) else {
        // A node says what is wrong with it.
        return whole.on(p, 0, b"XPENDING", &words).await;
    };
    let directory = whole.directory();
    let (first, last) = (directory.place_of(ids.from), directory.place_of(ids.to));
    let mut found: Vec<Bytes> = Vec::new();
    for segment in first..=last.max(first) {
        let left_text = left.to_string();
        let mut call = words.clone();
        if let Some(count) = call.get_mut(at + 2) {
            *count = left_text.as_bytes();
        }
        let reply = sound(whole.on(p, segment, b"XPENDING", &call).await?)?;
        left -= elements(&reply).count() as i64;
        found.push(reply);
        if left <= 0 {
            break;
        }
    }
    Ok(array_of(found.iter().flat_map(|reply| elements(reply))))
}

/// `XCLAIM key group consumer idle id … [options]`.
async fn claim(p: &Procedure, whole: &Whole, args: &Args<'_>) -> Step<Bytes> {
    let is_id = |word: &&[u8]| StreamId::parse(word).is_some();
    let ids = args.iter().skip(5).take_while(is_id).count();
    let options: Vec<&[u8]> = args.iter().skip(5 + ids).collect();
    let named = args.iter().skip(5).take(ids);
    let cut = cut_by_segment(whole.directory(), named).unwrap_or_default();
    if ids == 0 || cut.is_empty() {
        let words: Vec<&[u8]> = args.iter().skip(2).collect();
        return whole.on(p, 0, b"XCLAIM", &words).await;
    }
    let mut found: Vec<Bytes> = Vec::new();
    for (at, ids) in cut {
        let mut words: Vec<&[u8]> = vec![args.arg(2), args.arg(3), args.arg(4)];
        words.extend(ids);
        words.extend(&options);
        found.push(sound(whole.on(p, at, b"XCLAIM", &words).await?)?);
    }
    Ok(array_of(found.iter().flat_map(|reply| elements(reply))))
}

/// `XAUTOCLAIM key group consumer idle start [COUNT n] [JUSTID]`: from one segment to the next.
async fn claim_all(p: &Procedure, whole: &Whole, args: &Args<'_>) -> Step<Bytes> {
    let words: Vec<&[u8]> = args.iter().skip(2).collect();
    let count_at = args
        .iter()
        .skip(6)
        .position(|word| word.eq_ignore_ascii_case(b"COUNT"))
        .map(|at| at + 6);
    let count = match count_at {
        Some(at) => integer(args.arg(at + 1)).filter(|count| *count > 0),
        None => Some(100),
    };
    let start = between(args.arg(5), b"+");
    let (Some(mut left), Some(start)) = (count, start) else {
        return whole.on(p, 0, b"XAUTOCLAIM", &words).await;
    };
    let mut claimed: Vec<Bytes> = Vec::new();
    let mut deleted: Vec<Bytes> = Vec::new();
    let mut cursor = Bytes::from_static(b"0-0");
    for at in whole.directory().place_of(start.from)..whole.segments() {
        if left <= 0 {
            // Behind the greatest id there is nothing.
            if let Some(next) = whole.segment(at).0.base.checked_add(1) {
                cursor = StreamId::from(next).to_string().into();
            }
            break;
        }
        let left_text = left.to_string();
        let mut call = words.clone();
        // `words` begin with the third argument.
        match count_at.and_then(|at| call.get_mut(at - 1)) {
            Some(count) => *count = left_text.as_bytes(),
            None => call.extend([&b"COUNT"[..], left_text.as_bytes()]),
        }
        let reply = sound(whole.on(p, at, b"XAUTOCLAIM", &call).await?)?;
        let fields: Vec<&[u8]> = elements(&reply).collect();
        let here = fields
            .get(1)
            .map(|list| reply.slice_ref(list))
            .unwrap_or_default();
        left -= elements(&here).count() as i64;
        claimed.push(here);
        if let Some(gone) = fields.get(2) {
            let gone = reply.slice_ref(gone);
            left -= elements(&gone).count() as i64;
            deleted.extend(texts(&gone));
        }
        let next = fields.first().and_then(|id| text(id)).unwrap_or(b"0-0");
        if next != b"0-0" {
            cursor = Bytes::copy_from_slice(next);
            break;
        }
    }
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', 3);
    encode::bulk(&mut out, &cursor);
    out.extend_from_slice(&array_of(claimed.iter().flat_map(|list| elements(list))));
    encode::header(&mut out, b'*', deleted.len());
    deleted.iter().for_each(|id| encode::bulk(&mut out, id));
    debug_assert!(!is_error(&out));
    Ok(out.freeze())
}
