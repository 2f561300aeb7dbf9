//! What a stream says of itself, put together from its segments.

use bytes::{Bytes, BytesMut};

use super::super::{Steps, count_of, sound, whole};
use crate::command::Special;
use crate::command::number::StreamId;
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::request::Outcome;
use crate::resp::encode;
use crate::resp::walk::text;

const NOT_FULL: &str = "ERR XINFO STREAM FULL is not possible on a stream that is spread over nodes. See docs/PROFILES.md for what is";

/// A map of a reply: names, and values as they are.
type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

fn fields(map: &[u8]) -> Fields<'_> {
    let all: Vec<&[u8]> = elements(map).collect();
    all.chunks_exact(2)
        .filter_map(|pair| Some((text(pair.first()?)?, *pair.get(1)?)))
        .collect()
}

fn value<'a>(fields: &Fields<'a>, name: &[u8]) -> &'a [u8] {
    fields
        .iter()
        .find(|(other, _)| *other == name)
        .map_or(&b"_\r\n"[..], |(_, value)| value)
}

/// `XINFO STREAM`, `XINFO GROUPS`, `XINFO CONSUMERS`.
pub(super) async fn execute(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    let args = steps.args();
    if special == Special::XinfoStream && args.len() > 3 {
        return Err(answer(encode::error(NOT_FULL)));
    }
    let whole = whole(p, steps, args.arg(2)).await?;
    let name = [args.arg(0), args.arg(1)].join(&b' ');
    let rest: Vec<&[u8]> = args.iter().skip(3).collect();
    let mut found = Vec::new();
    for at in 0..whole.segments() {
        found.push(sound(whole.on(p, at, &name, &rest).await?)?);
    }
    whole.finish();
    Ok(answer(match special {
        _ if found.len() == 1 => found.pop().unwrap_or_default(),
        Special::XinfoStream => stream(&found),
        _ => by_name(&found),
    }))
}

fn stream(found: &[Bytes]) -> Bytes {
    let all: Vec<Fields<'_>> = found.iter().map(|reply| fields(reply)).collect();
    let sum = |name: &[u8]| all.iter().map(|one| count_of(value(one, name))).sum::<i64>();
    let has_entries = |one: &&Fields<'_>| count_of(value(one, b"length")) > 0;
    let first = all.iter().find(has_entries);
    let last = all.iter().rev().find(has_entries);
    let nothing = Vec::new();
    let Some(open) = all.last() else {
        return Bytes::from_static(b"%0\r\n");
    };
    let mut out = BytesMut::new();
    encode::header(&mut out, b'%', open.len());
    for (name, of_open) in open {
        encode::bulk(&mut out, name);
        match *name {
            b"length" | b"radix-tree-keys" | b"radix-tree-nodes" => {
                out.extend_from_slice(&encode::integer(sum(name)));
            }
            // Each segment but the first began with an entry that was none.
            b"entries-added" => out.extend_from_slice(&encode::integer(sum(name) - all.len() as i64 + 1)),
            b"first-entry" => out.extend_from_slice(value(first.unwrap_or(&nothing), name)),
            b"recorded-first-entry-id" => out.extend_from_slice(value(first.unwrap_or(open), name)),
            b"last-entry" => out.extend_from_slice(value(last.unwrap_or(&nothing), name)),
            _ => out.extend_from_slice(of_open),
        }
    }
    out.freeze()
}

/// Groups, or consumers: those of one name are one.
fn by_name(found: &[Bytes]) -> Bytes {
    let all: Vec<Fields<'_>> = found
        .iter()
        .flat_map(|reply| elements(reply))
        .map(fields)
        .collect();
    let mut names: Vec<&[u8]> = all.iter().filter_map(|one| text(value(one, b"name"))).collect();
    names.sort_unstable();
    names.dedup();
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', names.len());
    for name in names {
        let same: Vec<&Fields<'_>> = all
            .iter()
            .filter(|one| text(value(one, b"name")) == Some(name))
            .collect();
        let numbers = |field: &[u8]| {
            same.iter()
                .map(|one| count_of(value(one, field)))
                .collect::<Vec<i64>>()
        };
        let Some(one) = same.first() else { continue };
        encode::header(&mut out, b'%', one.len());
        for (field, value_of_first) in *one {
            encode::bulk(&mut out, field);
            match *field {
                b"pending" => out.extend_from_slice(&encode::integer(numbers(field).iter().sum())),
                b"consumers" => {
                    out.extend_from_slice(&encode::integer(numbers(field).into_iter().max().unwrap_or(0)))
                }
                b"idle" | b"inactive" => {
                    let least = numbers(field).into_iter().filter(|n| *n >= 0).min();
                    out.extend_from_slice(&encode::integer(least.unwrap_or(-1)));
                }
                b"last-delivered-id" => {
                    let ids = same
                        .iter()
                        .filter_map(|one| StreamId::parse(text(value(one, field))?));
                    let last = ids.max().unwrap_or_default().to_string();
                    encode::bulk(&mut out, last.as_bytes());
                }
                // They count in one segment.
                b"entries-read" | b"lag" => out.extend_from_slice(b"_\r\n"),
                _ => out.extend_from_slice(value_of_first),
            }
        }
    }
    out.freeze()
}
