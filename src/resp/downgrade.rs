//! RESP3 to RESP2: what a client that never said `HELLO 3` would have got.
//!
//! Streams to the nodes speak RESP3, because it says more (a set is not an array). Most replies look the same in both
//! protocols and are forwarded as they are ([`needs_downgrade`]). Of the others nearly all follow from the type alone: a map
//! becomes a flat array, a double a bulk string, and so on. What does not follow is a rule per command, kept in the
//! command table: RESP2 knows two nulls where RESP3 has one, and some commands answer in pairs in one protocol and
//! flat in the other.
//!
//! The reply is rewritten frame by frame, in one pass and without recursion. What Redis says differently for another
//! reason than the protocol (the `proto` field of `HELLO`, `CLIENT INFO`) is not for here.

use bytes::{BufMut, BytesMut};

use super::encode;
use super::walk::{self, Payload, WalkError};
use crate::command::spec::Downgrade;

const NULL_BULK: &[u8] = b"$-1\r\n";
const NULL_ARRAY: &[u8] = b"*-1\r\n";

/// Whether [`downgrade`] would change `reply`. Looks at every frame of an array, at one byte of anything else.
pub fn needs_downgrade(rule: Downgrade, reply: &[u8]) -> bool {
    match reply.first() {
        Some(b'*') => {}
        Some(b'+' | b'-' | b':' | b'$') | None => return false,
        Some(_) => return true,
    }
    // Pairs look the same in both protocols and are laid out differently.
    if rule == Downgrade::FlattenPairs {
        return true;
    }
    let mut rest = reply;
    while !rest.is_empty() {
        match walk::frame(rest) {
            Ok((frame, after)) if matches!(frame.kind, b'+' | b'-' | b':' | b'$' | b'*') => rest = after,
            _ => return true,
        }
    }
    false
}

/// Appends to `out` the RESP2 form of `reply`. Whatever stands behind the first value of `reply` is left out. On an
/// error `out` is as before.
pub fn downgrade(rule: Downgrade, reply: &[u8], out: &mut BytesMut) -> Result<(), WalkError> {
    let start = out.len();
    out.reserve(reply.len());
    let done = convert_reply(rule, reply, out);
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn convert_reply(rule: Downgrade, reply: &[u8], out: &mut BytesMut) -> Result<(), WalkError> {
    let start = out.len();
    let (head, rest) = walk::frame(walk::without_attributes(reply)?)?;
    match (rule, head.kind, head.payload) {
        (Downgrade::FlattenPairs, b'*', Payload::Values(pairs)) => {
            if flatten(pairs, rest, out)? {
                return Ok(());
            }
            out.truncate(start);
        }
        (Downgrade::MapToPairs, b'%', Payload::Values(values)) => return split(values / 2, rest, out),
        (Downgrade::MapToPairs | Downgrade::NullArray, b'_', _) => {
            out.put_slice(NULL_ARRAY);
            return Ok(());
        }
        (Downgrade::NullArrayItems, b'*', Payload::Values(items)) => return null_items(items, 0, rest, out),
        (Downgrade::NullArrayLast, b'*', Payload::Values(items)) => {
            return null_items(items, items.saturating_sub(1), rest, out);
        }
        _ => {}
    }
    convert(1, reply, NULL_BULK, out).map(|_| ())
}

/// Turns `[[a, 1], [b, 2]]` into `[a, 1, b, 2]`; `false` if the reply is not made of pairs.
fn flatten(pairs: usize, bytes: &[u8], out: &mut BytesMut) -> Result<bool, WalkError> {
    encode::header(out, b'*', pairs.saturating_mul(2));
    let mut rest = bytes;
    for _ in 0..pairs {
        let (pair, after) = walk::frame(walk::without_attributes(rest)?)?;
        if (pair.kind, pair.payload) != (b'*', Payload::Values(2)) {
            return Ok(false);
        }
        rest = convert(2, after, NULL_BULK, out)?;
    }
    Ok(true)
}

/// Turns `{a: 1, b: 2}` into `[[a, 1], [b, 2]]`.
fn split(pairs: usize, bytes: &[u8], out: &mut BytesMut) -> Result<(), WalkError> {
    encode::header(out, b'*', pairs);
    let mut rest = bytes;
    for _ in 0..pairs {
        encode::header(out, b'*', 2);
        rest = convert(2, rest, NULL_ARRAY, out)?;
    }
    Ok(())
}

/// Converts an array whose items from `from` on are null arrays where they are null.
fn null_items(items: usize, from: usize, bytes: &[u8], out: &mut BytesMut) -> Result<(), WalkError> {
    encode::header(out, b'*', items);
    let mut rest = bytes;
    for item in 0..items {
        let here = walk::without_attributes(rest)?;
        rest = match walk::frame(here)? {
            (null, after) if null.kind == b'_' && item >= from => {
                out.put_slice(NULL_ARRAY);
                after
            }
            _ => convert(1, here, NULL_BULK, out)?,
        };
    }
    Ok(())
}

/// Converts the first `count` values of `bytes` and returns what follows them.
fn convert<'a>(
    count: usize,
    bytes: &'a [u8],
    nulls: &[u8],
    out: &mut BytesMut,
) -> Result<&'a [u8], WalkError> {
    let mut left = count;
    let mut rest = bytes;
    while left > 0 {
        rest = walk::without_attributes(rest)?;
        let (frame, after) = walk::frame(rest)?;
        rest = after;
        left -= 1;
        match (frame.kind, frame.payload) {
            (_, Payload::Values(values)) => {
                left = left.checked_add(values).ok_or(WalkError::Length)?;
                if frame.kind == b'*' {
                    out.put_slice(frame.bytes);
                } else {
                    encode::header(out, b'*', values);
                }
            }
            (b'_', Payload::Null) => out.put_slice(nulls),
            (b',' | b'(', Payload::Text(number)) => encode::bulk(out, number),
            // A verbatim string names its format in four bytes (`txt:`).
            (b'=', Payload::Text(text)) => encode::bulk(out, text.get(4..).unwrap_or_default()),
            (b'#', Payload::Text(truth)) => out.put_slice(if truth == b"t" { b":1\r\n" } else { b":0\r\n" }),
            (b'!', Payload::Text(error)) => {
                out.put_u8(b'-');
                out.extend(
                    error
                        .iter()
                        .map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }),
                );
                out.put_slice(b"\r\n");
            }
            (_, Payload::Text(_) | Payload::Null) => out.put_slice(frame.bytes),
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests;
