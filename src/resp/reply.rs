//! Finding replies in what a node sends.
//!
//! Nested replies need no stack: an aggregate of n elements only adds n to the number of frames still to come. So the
//! scanner is a loop with a counter, resumable at any frame, and a deeply nested reply costs no more than a long one.

use thiserror::Error;

use crate::limits;

/// A node sent what is not a reply: the connection cannot be trusted any more.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReplyError {
    /// A frame of an unknown kind.
    #[error("a reply begins with byte {0:#04x}")]
    Kind(u8),
    /// A length that is no number.
    #[error("a reply has a length that is no number")]
    Length,
    /// A line or a payload that does not end in CRLF.
    #[error("a reply does not end where it should")]
    End,
    /// More than [`limits::REPLY_BYTES_MAX`].
    #[error("a reply is larger than {} bytes", limits::REPLY_BYTES_MAX)]
    TooLong,
}

/// Scans replies: `count` of them as one unit, since a transaction's replies lie side by side.
#[derive(Debug, Default)]
pub struct ReplyScanner {
    pos: usize,
    frames_left: u64,
    started: bool,
    resp3: bool,
    needed: usize,
    /// So far there is no end of the line that begins at `pos`.
    no_end_before: usize,
}

impl ReplyScanner {
    /// How many bytes the unit that is being scanned needs at least, from its first one, as far as is known.
    pub fn needed_bytes(&self) -> usize {
        if self.started { self.needed } else { 0 }
    }
}

impl ReplyScanner {
    /// The length in bytes of `count` whole replies at the start of `buf`, and whether a RESP3 type is among them; or
    /// `None` if more bytes are needed (then call again with the same bytes, more, and the same `count`).
    pub fn scan(&mut self, buf: &[u8], count: u32) -> Result<Option<(usize, bool)>, ReplyError> {
        if !self.started {
            *self = Self {
                frames_left: u64::from(count),
                started: true,
                ..Self::default()
            };
        }
        while self.frames_left > 0 {
            let Some(&kind) = buf.get(self.pos) else {
                return more(buf);
            };
            let Some(line_len) = self.line_len(buf)? else {
                return more(buf);
            };
            let after = self.pos + 1 + line_len + 2;
            match kind {
                b'+' | b'-' | b':' => {}
                b'$' | b'=' | b'!' => {
                    self.resp3 |= kind != b'$';
                    // `$-1`: the null of RESP2.
                    if let Some(len) = self.length(buf, line_len)? {
                        let end = after + len + 2;
                        if buf.len() < end {
                            self.needed = end;
                            return more(buf);
                        }
                        if buf.get(end - 2..end) != Some(b"\r\n") {
                            return Err(ReplyError::End);
                        }
                        self.pos = end;
                        self.frames_left -= 1;
                        continue;
                    }
                }
                b'*' => self.frames_left += self.length(buf, line_len)?.unwrap_or(0) as u64,
                b'~' | b'>' => {
                    self.resp3 = true;
                    self.frames_left += self.length(buf, line_len)?.unwrap_or(0) as u64;
                }
                b'%' => {
                    self.resp3 = true;
                    self.frames_left += 2 * self.length(buf, line_len)?.unwrap_or(0) as u64;
                }
                b'|' => {
                    // An attribute stands before the reply it belongs to.
                    self.resp3 = true;
                    self.frames_left += 2 * self.length(buf, line_len)?.unwrap_or(0) as u64 + 1;
                }
                b'_' | b',' | b'#' | b'(' => self.resp3 = true,
                other => return Err(ReplyError::Kind(other)),
            }
            self.pos = after;
            self.frames_left -= 1;
        }
        if self.pos > limits::REPLY_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        self.started = false;
        Ok(Some((self.pos, self.resp3)))
    }

    /// Bytes of the line at `pos` between its first one and its CRLF; `None` if its end is not there yet. What has been looked
    /// through is not looked through again.
    fn line_len(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        let line = self.pos + 1;
        let from = self.no_end_before.max(line);
        let Some(len) = buf
            .get(from..)
            .unwrap_or_default()
            .iter()
            .position(|&b| b == b'\r')
        else {
            self.no_end_before = buf.len();
            return Ok(None);
        };
        let end = from + len;
        self.no_end_before = end;
        match buf.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(end - line)),
            Some(_) => Err(ReplyError::End),
        }
    }

    /// The number on the header line at `pos`; `None` for -1.
    fn length(&self, buf: &[u8], line_len: usize) -> Result<Option<usize>, ReplyError> {
        let digits = buf.get(self.pos + 1..self.pos + 1 + line_len).unwrap_or_default();
        if digits == b"-1" {
            return Ok(None);
        }
        if digits.is_empty() || digits.len() > 19 {
            return Err(ReplyError::Length);
        }
        let mut n = 0usize;
        for &digit in digits {
            if !digit.is_ascii_digit() {
                return Err(ReplyError::Length);
            }
            n = n * 10 + usize::from(digit - b'0');
        }
        if self.pos + n > limits::REPLY_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        Ok(Some(n))
    }
}

/// The unit needs more bytes than these, if it may have them.
fn more(buf: &[u8]) -> Result<Option<(usize, bool)>, ReplyError> {
    match buf.len() > limits::REPLY_BYTES_MAX {
        true => Err(ReplyError::TooLong),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_several_replies_at_every_cut() {
        let wire = b"+OK\r\n*2\r\n$3\r\na\r\n\r\n*-1\r\n%1\r\n+k\r\n,1.5\r\n$-1\r\n:7\r\n";
        for cut in 0..wire.len() {
            let mut scanner = ReplyScanner::default();
            assert_eq!(scanner.scan(&wire[..cut], 5), Ok(None), "cut at {cut}");
            assert_eq!(scanner.scan(wire, 5), Ok(Some((wire.len(), true))));
        }
        let mut scanner = ReplyScanner::default();
        assert_eq!(scanner.scan(wire, 1), Ok(Some((5, false))));
    }

    #[test]
    fn deep_nesting_is_only_long() {
        let mut wire = b"*1\r\n".repeat(100_000);
        wire.extend_from_slice(b":1\r\n");
        assert_eq!(
            ReplyScanner::default().scan(&wire, 1),
            Ok(Some((wire.len(), false)))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(
            ReplyScanner::default().scan(b"?x\r\n", 1),
            Err(ReplyError::Kind(b'?'))
        );
        assert_eq!(
            ReplyScanner::default().scan(b"$x\r\n", 1),
            Err(ReplyError::Length)
        );
        assert_eq!(
            ReplyScanner::default().scan(b"$999999999999\r\n", 1),
            Err(ReplyError::TooLong)
        );
    }

    #[test]
    fn every_line_and_every_payload_ends_in_crlf() {
        for wire in [
            &b"+OK\rX+OK\r\n"[..],
            b"$1\r\na\nX",
            b"$1\rXa\r\n",
            b"*1\rX:1\r\n",
            b"$1\r\na\rX",
        ] {
            assert_eq!(ReplyScanner::default().scan(wire, 1), Err(ReplyError::End));
            let mut scanner = ReplyScanner::default();
            let ends = (0..=wire.len()).map(|end| scanner.scan(&wire[..end], 1));
            assert_eq!(ends.last(), Some(Err(ReplyError::End)), "in pieces");
        }
    }

    #[test]
    fn what_never_ends_is_not_waited_for() {
        // Never touched: only its length counts, since all but the end has been looked through.
        let line = vec![0; limits::REPLY_BYTES_MAX + 1];
        let mut scanner = ReplyScanner {
            frames_left: 1,
            started: true,
            no_end_before: limits::REPLY_BYTES_MAX - 1,
            ..ReplyScanner::default()
        };
        assert_eq!(scanner.scan(&line[..limits::REPLY_BYTES_MAX], 1), Ok(None));
        assert_eq!(scanner.scan(&line, 1), Err(ReplyError::TooLong));
    }
}
