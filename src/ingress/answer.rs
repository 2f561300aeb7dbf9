//! Replies that the sidecar makes itself, in the client's protocol.

use bytes::{Bytes, BytesMut};

use crate::resp::{Args, encode};

pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// Nothing.
pub(super) fn null(resp3: bool) -> Bytes {
    Bytes::from_static(if resp3 { b"_\r\n" } else { b"$-1\r\n" })
}

/// Text to be read by people.
pub(super) fn verbatim(text: &str, resp3: bool) -> Bytes {
    if !resp3 {
        return encode::bulk_frame(text.as_bytes());
    }
    let mut out = BytesMut::with_capacity(text.len() + 24);
    encode::header(&mut out, b'=', text.len() + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.freeze()
}

/// Begins a map of so many pairs.
pub(super) fn map(out: &mut BytesMut, pairs: usize, resp3: bool) {
    match resp3 {
        true => encode::header(out, b'%', pairs),
        false => encode::header(out, b'*', 2 * pairs),
    }
}

/// Appends an integer.
pub(super) fn integer(out: &mut BytesMut, n: i64) {
    out.extend_from_slice(&encode::integer(n));
}

/// A subcommand with more arguments than it has a meaning for, where its arity does not say so.
pub(super) fn wrong_subcommand(args: &Args<'_>) -> Bytes {
    encode::error(&format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try {} HELP.",
        String::from_utf8_lossy(args.arg(1)),
        String::from_utf8_lossy(args.arg(0)).to_uppercase(),
    ))
}

/// An argument as text.
pub(super) fn word(arg: &[u8]) -> String {
    String::from_utf8_lossy(arg).into_owned()
}
