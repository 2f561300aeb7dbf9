//! Putting elements to the ends of a list, and taking them from there.

use bytes::{Bytes, BytesMut};

use super::super::segments::texts;
use super::super::whole::Whole;
use super::super::{NULL, Steps, native, native_at_last, role_of, whole, with_words};
use super::{pop_end, push_end};
use crate::command::Special;
use crate::command::number::integer;
use crate::ingress::answer::SYNTAX;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::profile::Role;
use crate::request::Outcome;
use crate::resp::walk::{is_error, text};
use crate::resp::{Spans, encode};
use crate::stripe::{End, Segment, Stripe, names};

pub(super) const NO_COUNT: &str = "ERR count should be greater than 0";

const NOT_POSITIVE: &str = "ERR value is out of range, must be positive";

/// `LPUSH`, `RPUSH`: with others, as long as there is room in the segment at the end.
pub(super) async fn push(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    let args = steps.args();
    let (key, end) = (args.arg(1), push_end(special).unwrap_or(End::Tail));
    let elements = (args.len() - 2) as u64;
    loop {
        let queue = steps.stripes.queue(steps.db, key);
        let inside = queue.entered().await;
        let room = queue.room(end, elements, steps.stripes.profile.segment_len);
        if let (Some(directory), Some(segment)) = (queue.directory(), room) {
            let call = with_words(&args, &[(1, names::segment(segment, key))]);
            let reply = counted(&queue, native_at_last(p, segment.partition, &call).await)?;
            if directory.is_single() || is_error(&reply) {
                return Ok(answer(reply));
            }
            let mut total = queue.count(segment, elements as i64);
            drop(inside);
            if total.is_none() {
                // Somebody has lost count meanwhile. A new count would have in it what the client's next commands have done.
                if !p.keep_waiting() {
                    return Err(Outcome::Unknown);
                }
                let whole = whole(p, steps, key).await?;
                total = Some(whole.total());
                whole.finish();
            }
            return Ok(answer(encode::integer(total.unwrap_or(0) as i64)));
        }
        drop(inside);
        let mut whole = whole(p, steps, key).await?;
        whole.room(p, end, elements).await?;
        whole.finish();
    }
}

/// A command on the segment at an end, for who counts what it has done.
async fn at_end(p: &Procedure, queue: &Stripe, segment: Segment, call: &(Bytes, Spans)) -> Step<Bytes> {
    counted(queue, native(p, segment.partition, call).await)
}

/// What has come of such a command: where that is not known, how many there are is not, either.
fn counted(queue: &Stripe, result: Step<Bytes>) -> Step<Bytes> {
    if result == Err(Outcome::Unknown) {
        queue.lose_count();
    }
    result
}

/// `LPUSHX`, `RPUSHX`.
pub(super) async fn push_if_there(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    let args = steps.args();
    let mut whole = whole(p, steps, args.arg(1)).await?;
    whole.settle(p).await?;
    if whole.total() > 0 {
        let (end, name): (End, &[u8]) = match special {
            Special::Lpushx => (End::Head, b"LPUSH"),
            _ => (End::Tail, b"RPUSH"),
        };
        let elements: Vec<&[u8]> = args.iter().skip(2).collect();
        let at = whole.room(p, end, elements.len() as u64).await?;
        let reply = whole.on(p, at, name, &elements).await?;
        if is_error(&reply) {
            return Err(answer(reply));
        }
        whole.count(at, elements.len() as i64);
    }
    let total = whole.total();
    whole.finish();
    Ok(answer(encode::integer(total as i64)))
}

/// `LPOP`, `RPOP`: one element is taken with others, as long as the segment at the end has any.
pub(super) async fn pop(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    let args = steps.args();
    let (key, end) = (args.arg(1), pop_end(special).unwrap_or(End::Head));
    match args.len() {
        2 => {
            let taken = pop_one(p, steps, key, end).await?;
            Ok(answer(taken.map_or(NULL, |element| encode::bulk_frame(&element))))
        }
        3 => match integer(args.arg(2)) {
            Some(count @ 0..) => {
                let mut whole = whole(p, steps, key).await?;
                let was_there = whole.total() > 0;
                let taken = take(p, &mut whole, end, count as u64).await?;
                whole.finish();
                Ok(answer(if was_there { array(&taken) } else { NULL }))
            }
            _ => Err(answer(encode::error(NOT_POSITIVE))),
        },
        _ => {
            let name = String::from_utf8_lossy(pop_name(end)).to_lowercase();
            let line = format!("ERR wrong number of arguments for '{name}' command");
            Err(answer(encode::error(&line)))
        }
    }
}

/// Takes one element from an end.
pub(super) async fn pop_one(p: &Procedure, steps: &Steps, key: &[u8], end: End) -> Step<Option<Bytes>> {
    let name = pop_name(end);
    let queue = steps.stripes.queue(steps.db, key);
    let inside = queue.entered().await;
    if let Some(directory) = queue.directory() {
        let segment = directory.end(end);
        let call = crate::resp::frame_of(&[name, &names::segment(segment, key)]);
        let reply = at_end(p, &queue, segment, &call).await?;
        if is_error(&reply) {
            return Err(answer(reply));
        }
        if let Some(element) = text(&reply) {
            queue.count(segment, -1);
            return Ok(Some(reply.slice_ref(element)));
        }
        if directory.is_single() {
            return Ok(None);
        }
    }
    // The segment is empty, or the list not known any more.
    drop(inside);
    let mut whole = whole(p, steps, key).await?;
    let taken = take(p, &mut whole, end, 1).await?;
    whole.finish();
    Ok(taken.into_iter().next())
}

fn pop_name(end: End) -> &'static [u8] {
    match end {
        End::Head => b"LPOP",
        End::Tail => b"RPOP",
    }
}

/// Takes up to so many elements from an end, for who is alone.
pub(super) async fn take(p: &Procedure, whole: &mut Whole, end: End, count: u64) -> Step<Vec<Bytes>> {
    let mut taken = Vec::new();
    whole.settle(p).await?;
    while (taken.len() as u64) < count && whole.total() > 0 {
        match take_some(p, whole, end, count - taken.len() as u64, &mut taken).await {
            Ok(()) => {}
            // What was taken is told, whatever comes then.
            Err(_) if !taken.is_empty() => {
                whole.doubt();
                break;
            }
            Err(end) => return Err(end),
        }
    }
    Ok(taken)
}

/// Takes elements from the segment at an end.
async fn take_some(
    p: &Procedure,
    whole: &mut Whole,
    end: End,
    count: u64,
    taken: &mut Vec<Bytes>,
) -> Step<()> {
    let at = whole.end(end);
    let wanted = count.min(whole.length(at));
    let reply = whole
        .on(p, at, pop_name(end), &[wanted.to_string().as_bytes()])
        .await?;
    if is_error(&reply) {
        return Err(answer(reply));
    }
    let here = texts(&reply);
    // Fewer than were counted: then none are there.
    whole.count(
        at,
        match here.is_empty() {
            true => -(wanted as i64),
            false => -(here.len() as i64),
        },
    );
    taken.extend(here);
    whole.settle(p).await
}

/// `LMPOP`: from the first list that has anything.
pub(super) async fn pop_first(p: &Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let keys = integer(args.arg(1)).unwrap_or(0).max(0) as usize;
    let side = 2 + keys;
    let end = match args.arg(side).to_ascii_uppercase().as_slice() {
        b"LEFT" => End::Head,
        b"RIGHT" => End::Tail,
        _ => return Err(answer(encode::error(SYNTAX))),
    };
    let count = match args.len() - side {
        1 => 1,
        3 if args.arg(side + 1).eq_ignore_ascii_case(b"COUNT") => match integer(args.arg(side + 2)) {
            Some(count @ 1..) => count as u64,
            Some(_) => return Err(answer(encode::error(NO_COUNT))),
            None => return Err(answer(encode::error(NO_COUNT))),
        },
        _ => return Err(answer(encode::error(SYNTAX))),
    };
    for at in 2..side {
        let key = args.arg(at);
        let taken = take_from(p, steps, key, end, count).await?;
        if !taken.is_empty() {
            let mut out = BytesMut::new();
            encode::header(&mut out, b'*', 2);
            encode::bulk(&mut out, key);
            out.extend_from_slice(&array(&taken));
            return Ok(answer(out.freeze()));
        }
    }
    Ok(answer(NULL))
}

/// Takes up to so many elements from an end of a list, whether it is spread over nodes or not.
pub(super) async fn take_from(
    p: &Procedure,
    steps: &Steps,
    key: &[u8],
    end: End,
    count: u64,
) -> Step<Vec<Bytes>> {
    let keyspace = &p.worker.shared().keyspace;
    if role_of(keyspace, key) == Role::List {
        if count == 1 {
            return Ok(pop_one(p, steps, key, end).await?.into_iter().collect());
        }
        let mut whole = whole(p, steps, key).await?;
        let taken = take(p, &mut whole, end, count).await?;
        whole.finish();
        return Ok(taken);
    }
    let partition = keyspace.partition_of(key);
    let call = crate::resp::frame_of(&[pop_name(end), key, count.to_string().as_bytes()]);
    let reply = native(p, partition, &call).await?;
    match is_error(&reply) {
        true => Err(answer(reply)),
        false => Ok(texts(&reply)),
    }
}

/// Elements as a reply.
pub(super) fn array(elements: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', elements.len());
    for element in elements {
        encode::bulk(&mut out, element);
    }
    out.freeze()
}
