//! Walking over whole replies without building them.
//!
//! Some replies must be looked into: to turn RESP3 into RESP2, to compare what two mirrors said, to read a probe's
//! answer. All three only ever go forward, so a reply is walked as the flat sequence of frames that it is on the wire:
//! an aggregate is a header that says how many values follow. That needs neither a tree nor recursion, and whatever
//! the nesting, the work is bounded by the length of the bytes.
//!
//! The bytes are those of complete replies, as [`ReplyScanner`](super::ReplyScanner) found them. Malformed bytes are
//! an error all the same, never a panic. Streamed types (`$?`, `*?`) do not occur: no server sends them.

use thiserror::Error;

/// Fewest bytes any value has on the wire (`_\r\n`, `+\r\n`): bounds what an aggregate can promise.
const VALUE_BYTES_MIN: usize = 3;

/// What was walked over is not a reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WalkError {
    /// The bytes end inside a value.
    #[error("a reply ends in the middle of a value")]
    Truncated,
    /// A frame of an unknown kind.
    #[error("a reply has a frame that begins with byte {0:#04x}")]
    Kind(u8),
    /// A length that is no number, or a payload that is not followed by a line end.
    #[error("a reply has a malformed length")]
    Length,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The text of a line (`+ - : , # (`) or the body of a bulk (`$ = !`; a verbatim string keeps its `txt:`).
    Text(&'a [u8]),
    /// `_`, `$-1` or `*-1`.
    Null,
    /// An aggregate: so many values follow (twice the number of pairs for a map).
    Values(usize),
}

/// One frame: a scalar, or the header of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first byte, which says what it is.
    pub kind: u8,
    /// What it carries.
    pub payload: Payload<'a>,
    /// The frame's own bytes; of an aggregate only the header.
    pub bytes: &'a [u8],
}

/// The frame at the start of `bytes`, and what follows it.
pub fn frame(bytes: &[u8]) -> Result<(Frame<'_>, &[u8]), WalkError> {
    let (&kind, after_kind) = bytes.split_first().ok_or(WalkError::Truncated)?;
    let line_len = after_kind
        .iter()
        .position(|&b| b == b'\r')
        .ok_or(WalkError::Truncated)?;
    let (line, after_line) = after_kind
        .split_at_checked(line_len)
        .ok_or(WalkError::Truncated)?;
    let rest = match after_line {
        [b'\r', b'\n', rest @ ..] => rest,
        [_] | [] => return Err(WalkError::Truncated),
        _ => return Err(WalkError::Length),
    };
    let (payload, rest) = match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' => (Payload::Text(line), rest),
        b'_' => (Payload::Null, rest),
        b'$' | b'=' | b'!' => match length(line)? {
            None => (Payload::Null, rest),
            Some(len) => {
                let (body, after_body) = rest.split_at_checked(len).ok_or(WalkError::Truncated)?;
                match after_body {
                    [b'\r', b'\n', rest @ ..] => (Payload::Text(body), rest),
                    [b'\r'] | [] => return Err(WalkError::Truncated),
                    _ => return Err(WalkError::Length),
                }
            }
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => match length(line)? {
            None => (Payload::Null, rest),
            Some(len) => {
                let pairs = matches!(kind, b'%' | b'|');
                let values = len
                    .checked_mul(if pairs { 2 } else { 1 })
                    .ok_or(WalkError::Length)?;
                if values > rest.len() / VALUE_BYTES_MIN {
                    return Err(WalkError::Truncated);
                }
                (Payload::Values(values), rest)
            }
        },
        other => return Err(WalkError::Kind(other)),
    };
    let own = bytes
        .get(..bytes.len() - rest.len())
        .ok_or(WalkError::Truncated)?;
    Ok((
        Frame {
            kind,
            payload,
            bytes: own,
        },
        rest,
    ))
}

/// Splits `bytes` behind its first `count` values.
pub fn split_values(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8]), WalkError> {
    let mut left = count;
    let mut rest = bytes;
    while left > 0 {
        let (frame, after) = frame(rest)?;
        rest = after;
        if frame.kind != b'|' {
            left -= 1;
        }
        if let Payload::Values(values) = frame.payload {
            left = left.checked_add(values).ok_or(WalkError::Length)?;
        }
    }
    bytes
        .split_at_checked(bytes.len() - rest.len())
        .ok_or(WalkError::Truncated)
}

/// `bytes` without the attributes in front of its first value.
pub fn without_attributes(bytes: &[u8]) -> Result<&[u8], WalkError> {
    let mut rest = bytes;
    while rest.first() == Some(&b'|') {
        let (attribute, after) = frame(rest)?;
        let Payload::Values(values) = attribute.payload else {
            return Err(WalkError::Length);
        };
        rest = split_values(after, values)?.1;
    }
    Ok(rest)
}

/// The text of a scalar reply: `None` for a null, an aggregate, or what is no reply.
pub fn text(reply: &[u8]) -> Option<&[u8]> {
    match frame(without_attributes(reply).ok()?).ok()?.0.payload {
        Payload::Text(text) => Some(text),
        _ => None,
    }
}

/// Whether a reply is an error.
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// The values directly inside an aggregate, each as its own bytes, without attributes. A map yields key, value, key, …
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// The elements of `reply`, or `None` if it is not an aggregate.
    pub fn of(reply: &'a [u8]) -> Result<Option<Self>, WalkError> {
        let (head, rest) = frame(without_attributes(reply)?)?;
        match head.payload {
            Payload::Values(left) => Ok(Some(Self { left, rest })),
            _ => Ok(None),
        }
    }

    /// How many are still to come.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    fn step(&mut self) -> Result<&'a [u8], WalkError> {
        let (value, rest) = split_values(without_attributes(self.rest)?, 1)?;
        self.left -= 1;
        self.rest = rest;
        Ok(value)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

/// The number on a header line; `None` for -1.
fn length(line: &[u8]) -> Result<Option<usize>, WalkError> {
    if line == b"-1" {
        return Ok(None);
    }
    if line.is_empty() {
        return Err(WalkError::Length);
    }
    let mut n = 0usize;
    for &digit in line {
        if !digit.is_ascii_digit() {
            return Err(WalkError::Length);
        }
        n = n
            .checked_mul(10)
            .and_then(|n| n.checked_add(usize::from(digit - b'0')))
            .ok_or(WalkError::Length)?;
    }
    Ok(Some(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &[u8] = b"*8\r\n+OK\r\n$3\r\na\r\n\r\n|1\r\n+ttl\r\n:9\r\n%1\r\n$1\r\nk\r\n,1.5\r\n_\r\n$-1\r\n*-1\r\n=7\r\ntxt:a\r\r\r\n~2\r\n#t\r\n(12\r\n";

    #[test]
    fn elements_are_whole_values_without_attributes() {
        let elements: Vec<_> = Elements::of(WIRE).unwrap().unwrap().map(Result::unwrap).collect();
        let want: [&[u8]; 8] = [
            b"+OK\r\n",
            b"$3\r\na\r\n\r\n",
            b"%1\r\n$1\r\nk\r\n,1.5\r\n",
            b"_\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"=7\r\ntxt:a\r\r\r\n",
            b"~2\r\n#t\r\n(12\r\n",
        ];
        assert_eq!(elements, want);
        assert_eq!(Elements::of(b":1\r\n").unwrap().map(|e| e.len()), None);
        assert_eq!(text(b"|1\r\n+a\r\n+b\r\n$1\r\nx\r\n"), Some(&b"x"[..]));
    }

    #[test]
    fn every_cut_is_an_error_and_every_changed_byte_ends() {
        assert_eq!(split_values(WIRE, 1), Ok((WIRE, &b""[..])));
        for cut in 0..WIRE.len() {
            assert_eq!(
                split_values(&WIRE[..cut], 1),
                Err(WalkError::Truncated),
                "cut at {cut}"
            );
        }
        for at in 0..WIRE.len() {
            for byte in 0..=255 {
                let mut wire = WIRE.to_vec();
                wire[at] = byte;
                if let Ok((value, rest)) = split_values(&wire, 1) {
                    assert_eq!(value.len() + rest.len(), wire.len());
                }
            }
        }
    }

    #[test]
    fn depth_and_promises_are_bounded_by_the_bytes() {
        let mut deep = b"*1\r\n".repeat(1_000_000);
        deep.extend_from_slice(b":1\r\n");
        assert_eq!(split_values(&deep, 1), Ok((&deep[..], &b""[..])));
        for promise in [
            "*9999999999999999999\r\n:1\r\n",
            "%9223372036854775807\r\n:1\r\n",
            "*?\r\n",
            "$5\r\nab\r\n",
        ] {
            assert!(split_values(promise.as_bytes(), 1).is_err(), "{promise:?}");
        }
        assert_eq!(split_values(b"?\r\n", 1), Err(WalkError::Kind(b'?')));
    }
}
