//! Finding commands in what a client sends.
//!
//! A command is an array of bulk strings, or a line (*inline*). [`CommandScanner::scan`] looks at the bytes from the
//! command's first one on and says: complete and so long, or more is needed, or this is not the protocol. It keeps its
//! place, so each byte of a header is read once however the bytes arrive, and payloads are jumped over.
//!
//! Every declared length is checked against its bound the moment it is read: a client that announces 2^62 bytes is
//! told so at once, and nothing is reserved for it.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use thiserror::Error;

use super::{Span, encode};
use crate::limits;

/// The arguments' places; most commands have no more than six.
pub type Spans = SmallVec<[Span; 6]>;

/// What is not the protocol. The texts are Redis's own; the connection is closed after them.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*<n>` that is no number or too large.
    #[error("Protocol error: invalid multibulk length")]
    ArrayLength,
    /// `$<n>` that is no number, negative or too large.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// An argument that does not begin with `$`.
    #[error("Protocol error: expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// A payload that is not followed by CRLF.
    #[error("Protocol error: expected CRLF after an argument")]
    ExpectedLineEnd,
    /// A header line without an end.
    #[error("Protocol error: too big count string")]
    HeaderTooLong,
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// An inline command with an open quote.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A whole command that is larger than `limits.command_max`.
    #[error("Protocol error: command larger than the limit of {0} bytes (setting limits.command_max)")]
    CommandTooLong(usize),
}

/// What a scan found at the start of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Not all there yet.
    Incomplete,
    /// A command of `len` bytes, its arguments at `spans`.
    Command {
        /// Bytes of the command, headers included.
        len: usize,
        /// Where the arguments are, from the command's first byte.
        spans: Spans,
    },
    /// A line of `len` bytes, turned into the command `frame`.
    Inline {
        /// Bytes of the line, its end included.
        len: usize,
        /// The same command as an array of bulk strings.
        frame: Bytes,
        /// Where the arguments are in `frame`.
        spans: Spans,
    },
    /// `len` bytes that mean nothing (an empty line, an empty array): skip them.
    Nothing {
        /// Bytes to skip.
        len: usize,
    },
}

/// Scans one client's commands. Holds the place in a command that is not complete yet.
#[derive(Debug)]
pub struct CommandScanner {
    command_bytes_max: usize,
    pos: usize,
    args_left: usize,
    started: bool,
    /// Payload length of the argument whose header was read last, its payload still to come.
    payload: Option<usize>,
    spans: Spans,
}

impl CommandScanner {
    /// A scanner that refuses commands of more than `command_bytes_max` bytes.
    pub fn new(command_bytes_max: usize) -> Self {
        let command_bytes_max = command_bytes_max.min(u32::MAX as usize);
        Self {
            command_bytes_max,
            pos: 0,
            args_left: 0,
            started: false,
            payload: None,
            spans: Spans::new(),
        }
    }

    /// How many bytes the command needs at least, from its first one, as far as is known.
    pub fn needed_bytes(&self) -> usize {
        self.pos + self.payload.map_or(1, |len| len + 2)
    }

    /// Looks at `buf`, whose first byte is the first of a command. After anything but `Incomplete` the caller drops
    /// `len` bytes; after `Incomplete` it calls again with the same bytes and more.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scanned, ProtocolError> {
        if !self.started {
            match buf.first() {
                None => return Ok(Scanned::Incomplete),
                Some(b'*') => {}
                Some(_) => return self.scan_inline(buf),
            }
            let Some((n, pos)) = header(buf, 1, ProtocolError::ArrayLength)? else {
                return Ok(Scanned::Incomplete);
            };
            if n <= 0 {
                return Ok(Scanned::Nothing { len: pos });
            }
            if n as u64 > limits::COMMAND_ARGS_MAX as u64 {
                return Err(ProtocolError::ArrayLength);
            }
            self.args_left = n as usize;
            self.pos = pos;
            self.started = true;
        }
        while self.args_left > 0 {
            let len = match self.payload {
                Some(len) => len,
                None => match buf.get(self.pos) {
                    None => return Ok(Scanned::Incomplete),
                    Some(b'$') => {
                        let Some((n, pos)) = header(buf, self.pos + 1, ProtocolError::BulkLength)? else {
                            return Ok(Scanned::Incomplete);
                        };
                        if n < 0 || n as u64 > limits::BULK_BYTES_MAX as u64 {
                            return Err(ProtocolError::BulkLength);
                        }
                        let len = n as usize;
                        if pos + len + 2 > self.command_bytes_max {
                            return Err(ProtocolError::CommandTooLong(self.command_bytes_max));
                        }
                        self.pos = pos;
                        self.payload = Some(len);
                        len
                    }
                    Some(&other) => return Err(ProtocolError::ExpectedBulk(char::from(other))),
                },
            };
            let end = self.pos + len;
            match buf.get(end..end + 2) {
                None => return Ok(Scanned::Incomplete),
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::ExpectedLineEnd),
            }
            self.spans.push(Span {
                start: self.pos as u32,
                len: len as u32,
            });
            self.pos = end + 2;
            self.payload = None;
            self.args_left -= 1;
        }
        self.started = false;
        Ok(Scanned::Command {
            len: std::mem::take(&mut self.pos),
            spans: std::mem::take(&mut self.spans),
        })
    }

    /// A line: `pos` remembers how far it was searched for its end.
    fn scan_inline(&mut self, buf: &[u8]) -> Result<Scanned, ProtocolError> {
        let Some(found) = buf
            .get(self.pos..)
            .and_then(|rest| rest.iter().position(|&b| b == b'\n'))
        else {
            if buf.len() > limits::INLINE_BYTES_MAX {
                return Err(ProtocolError::InlineTooLong);
            }
            self.pos = buf.len();
            return Ok(Scanned::Incomplete);
        };
        let end = self.pos + found;
        self.pos = 0;
        if end > limits::INLINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = buf.get(..end).unwrap_or_default();
        let args = split_line(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        if args.is_empty() {
            return Ok(Scanned::Nothing { len: end + 1 });
        }
        let (frame, spans) = frame_of(&args);
        Ok(Scanned::Inline {
            len: end + 1,
            frame,
            spans,
        })
    }
}

/// Builds a command's frame from its arguments, with their places.
pub(crate) fn frame_of<A: AsRef<[u8]>>(args: &[A]) -> (Bytes, Spans) {
    let mut out = BytesMut::new();
    let mut spans = Spans::with_capacity(args.len());
    encode::header(&mut out, b'*', args.len());
    for arg in args {
        let arg = arg.as_ref();
        encode::bulk(&mut out, arg);
        spans.push(Span {
            start: (out.len() - 2 - arg.len()) as u32,
            len: arg.len() as u32,
        });
    }
    (out.freeze(), spans)
}

/// Reads the number of a header line whose digits begin at `at`: the number and the position after the line's end.
fn header(buf: &[u8], at: usize, bad: ProtocolError) -> Result<Option<(i64, usize)>, ProtocolError> {
    let rest = buf.get(at..).unwrap_or_default();
    let mut n: i64 = 0;
    let mut digits = 0usize;
    let mut negative = false;
    for (i, &byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                n = match n
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(i64::from(byte - b'0')))
                {
                    Some(n) => n,
                    None => return Err(bad),
                };
                digits += 1;
            }
            b'-' if i == 0 => negative = true,
            b'\r' if digits > 0 => {
                return match rest.get(i + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((if negative { -n } else { n }, at + i + 2))),
                    Some(_) => Err(bad),
                };
            }
            _ => return Err(bad),
        }
        if i > limits::HEADER_BYTES_MAX {
            return Err(ProtocolError::HeaderTooLong);
        }
    }
    Ok(None)
}

/// Splits a line as `redis-cli` would: blanks separate, `"…"` with escapes and `'…'` group. `None`: an open quote.
fn split_line(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    loop {
        while bytes.next_if(|b| b.is_ascii_whitespace() || *b == 0).is_some() {}
        if bytes.peek().is_none() {
            return Some(args);
        }
        let mut arg = Vec::new();
        while let Some(byte) = bytes.next_if(|b| !b.is_ascii_whitespace() && *b != 0) {
            match byte {
                b'"' => {
                    loop {
                        match bytes.next()? {
                            b'"' => break,
                            b'\\' => arg.push(unescape(&mut bytes)?),
                            other => arg.push(other),
                        }
                    }
                    closed(&mut bytes)?;
                }
                b'\'' => {
                    loop {
                        match bytes.next()? {
                            b'\'' => break,
                            b'\\' if bytes.peek() == Some(&b'\'') => {
                                bytes.next();
                                arg.push(b'\'');
                            }
                            other => arg.push(other),
                        }
                    }
                    closed(&mut bytes)?;
                }
                other => arg.push(other),
            }
        }
        args.push(arg);
    }
}

/// A closing quote must end its argument.
fn closed(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> Option<()> {
    bytes.peek().is_none_or(|b| b.is_ascii_whitespace()).then_some(())
}

fn unescape(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>) -> Option<u8> {
    let escaped = bytes.next()?;
    if escaped == b'x' {
        let mut ahead = bytes.clone();
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        if let (Some(high), Some(low)) = (hex(ahead.next()), hex(ahead.next())) {
            bytes.next();
            bytes.next();
            return Some((high * 16 + low) as u8);
        }
    }
    Some(match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Args;

    fn args(bytes: &[u8], spans: &Spans) -> Vec<Vec<u8>> {
        Args { bytes, spans }.iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_pipeline_arrives_byte_by_byte() {
        let wire = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n";
        let mut scanner = CommandScanner::new(1 << 20);
        let mut buf = Vec::new();
        let mut found = Vec::new();
        for &byte in wire {
            buf.push(byte);
            if let Scanned::Command { len, spans } = scanner.scan(&buf).unwrap() {
                found.push(args(&buf, &spans));
                buf.drain(..len);
            }
        }
        assert_eq!(
            found,
            [vec![b"GET".to_vec(), b"k".to_vec()], vec![b"PING".to_vec()]]
        );
        assert!(buf.is_empty());
    }

    #[test]
    fn bad_lengths_are_refused_at_once() {
        let scan = |wire: &[u8]| CommandScanner::new(1 << 20).scan(wire);
        assert_eq!(scan(b"*4611686018427387904\r\n"), Err(ProtocolError::ArrayLength));
        assert_eq!(
            scan(b"*99999999999999999999\r\n"),
            Err(ProtocolError::ArrayLength)
        );
        assert_eq!(
            scan(b"*1\r\n$4611686018427387904\r\n"),
            Err(ProtocolError::BulkLength)
        );
        assert_eq!(scan(b"*1\r\n$-1\r\n"), Err(ProtocolError::BulkLength));
        assert_eq!(scan(b"*1\r\n*1\r\n"), Err(ProtocolError::ExpectedBulk('*')));
        assert_eq!(
            scan(b"*1\r\n$2000000\r\n"),
            Err(ProtocolError::CommandTooLong(1 << 20))
        );
        assert_eq!(scan(b"*1\r\n$1\r\nabc"), Err(ProtocolError::ExpectedLineEnd));
        assert_eq!(scan(&[b'x'; 70_000]), Err(ProtocolError::InlineTooLong));
        assert_eq!(scan(b"*0\r\n"), Ok(Scanned::Nothing { len: 4 }));
        let zeros = [b"*".as_slice(), &[b'0'; 64]].concat();
        assert_eq!(scan(&zeros), Err(ProtocolError::HeaderTooLong));
    }

    #[test]
    fn lines_are_commands_too() {
        let mut scanner = CommandScanner::new(1 << 20);
        let Scanned::Inline { len, frame, spans } =
            scanner.scan(b"set k \"a\\x41\\n\" 'b c'\r\nrest").unwrap()
        else {
            panic!("not a line")
        };
        assert_eq!(len, 23);
        assert_eq!(args(&frame, &spans), [&b"set"[..], b"k", b"aA\n", b"b c"]);
        assert_eq!(scanner.scan(b"\r\n"), Ok(Scanned::Nothing { len: 2 }));
        assert_eq!(scanner.scan(b"get \"k\r\n"), Err(ProtocolError::UnbalancedQuotes));
    }
}
