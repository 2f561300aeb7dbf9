//! Error replies that the proxy gives in place of a node, byte for byte as Redis 7.0 words them.
//!
//! A driver may match on these texts, and an application must not be able to tell that nobody was asked. The texts of
//! the proxy's own refusals are in `annotations.rs`.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::resp::Args;

/// Most bytes of a command's name, and of its arguments together, that an error repeats.
const REPEATED_BYTES_MAX: usize = 128;

/// The line of an error reply, without the leading `-` and the trailing CRLF: `ERR syntax error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply(Cow<'static, [u8]>);

impl ErrorReply {
    /// An error line known beforehand. It starts with a prefix (`ERR`) and holds no line break.
    pub const fn fixed(line: &'static str) -> Self {
        ErrorReply(Cow::Borrowed(line.as_bytes()))
    }

    /// An error line made now; line breaks become spaces, as in Redis, so that what a client sent cannot forge a reply.
    pub fn new(line: impl Into<Vec<u8>>) -> Self {
        let mut line = line.into();
        for byte in &mut line {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        ErrorReply(Cow::Owned(line))
    }

    /// The same as the end of a transaction.
    pub fn aborting(&self) -> Self {
        let why = self.0.strip_prefix(b"ERR ").unwrap_or(&self.0);
        Self::new([b"EXECABORT Transaction discarded because of: ", why].concat())
    }

    /// The line.
    pub fn line(&self) -> &[u8] {
        &self.0
    }

    /// The reply as it is sent; the same in RESP2 and RESP3.
    pub fn to_bytes(&self) -> Bytes {
        let mut reply = BytesMut::with_capacity(self.0.len() + 3);
        reply.put_u8(b'-');
        reply.put_slice(&self.0);
        reply.put_slice(b"\r\n");
        reply.freeze()
    }

    /// A command that has no such name.
    pub(super) fn unknown_command(args: &Args<'_>) -> Self {
        let mut line = b"ERR unknown command '".to_vec();
        line.extend_from_slice(c_string(args.arg(0), REPEATED_BYTES_MAX));
        line.extend_from_slice(b"', with args beginning with: ");
        let start = line.len();
        for arg in args.iter().skip(1) {
            let used = line.len() - start;
            if used >= REPEATED_BYTES_MAX {
                break;
            }
            line.push(b'\'');
            line.extend_from_slice(c_string(arg, REPEATED_BYTES_MAX - used));
            line.extend_from_slice(b"' ");
        }
        ErrorReply::new(line)
    }

    /// A command that exists, but not with this subcommand.
    pub(super) fn unknown_subcommand(args: &Args<'_>) -> Self {
        let mut line = b"ERR unknown subcommand '".to_vec();
        line.extend_from_slice(c_string(args.arg(1), REPEATED_BYTES_MAX));
        line.extend_from_slice(b"'. Try ");
        line.extend(
            c_string(args.arg(0), usize::MAX)
                .iter()
                .map(u8::to_ascii_uppercase),
        );
        line.extend_from_slice(b" HELP.");
        ErrorReply::new(line)
    }

    /// Too few or too many arguments. `name` is the command's full name in lower case.
    pub fn wrong_arity(name: &str) -> Self {
        ErrorReply::new(format!("ERR wrong number of arguments for '{name}' command"))
    }
}

/// What C's `%.*s` shows of an argument: at most `max` bytes, and none from a NUL on.
fn c_string(arg: &[u8], max: usize) -> &[u8] {
    let shown = arg.split_at_checked(max).map_or(arg, |(shown, _)| shown);
    shown.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_cannot_end_the_reply() {
        let reply = ErrorReply::new("ERR a\r\n+OK\r\n");
        assert_eq!(&reply.to_bytes()[..], b"-ERR a  +OK  \r\n");
        assert_eq!(reply.line(), b"ERR a  +OK  ");
    }

    #[test]
    fn strings_end_as_they_do_in_c() {
        assert_eq!(c_string(b"abc\0def", 10), b"abc");
        assert_eq!(c_string(b"abcdef", 4), b"abcd");
        assert_eq!(c_string(b"", 4), b"");
    }
}
