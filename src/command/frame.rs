//! Writing commands of our own for the nodes, argument by argument.
//!
//! A command's header counts its arguments, and who rewrites a command knows the count only at the end. So room for the
//! header is left in front and filled in last: one allocation a command, nothing moved.

use bytes::{Buf, Bytes};

use super::number::StreamId;

/// Room for `*<20 digits>\r\n`.
const HEADER_ROOM: usize = 24;
/// The longest of the short arguments is a stream id: two 20-digit numbers and a dash.
const SHORT_BYTES_MAX: usize = 41;

/// A command being written.
#[derive(Debug)]
pub(super) struct FrameWriter {
    bytes: Vec<u8>,
    args: usize,
}

impl FrameWriter {
    /// A command called `name`, with room for about `payload_bytes` of arguments.
    pub(super) fn new(name: &[u8], payload_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_ROOM + name.len() + 16 + payload_bytes);
        bytes.resize(HEADER_ROOM, 0);
        let mut frame = Self { bytes, args: 0 };
        frame.arg(name);
        frame
    }

    /// Appends one argument.
    pub(super) fn arg(&mut self, arg: &[u8]) -> &mut Self {
        let mut header = Short::default();
        header.line_end();
        header.number(arg.len() as u64);
        header.byte(b'$');
        self.bytes.extend_from_slice(header.bytes());
        self.bytes.extend_from_slice(arg);
        self.bytes.extend_from_slice(b"\r\n");
        self.args += 1;
        self
    }

    /// Appends a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        let mut text = Short::default();
        text.number(number);
        self.arg(text.bytes())
    }

    /// Appends a stream id.
    pub(super) fn id(&mut self, id: StreamId) -> &mut Self {
        let mut text = Short::default();
        text.number(id.seq);
        text.byte(b'-');
        text.number(id.ms);
        self.arg(text.bytes())
    }

    /// Appends several arguments.
    pub(super) fn args<'a>(&mut self, args: impl IntoIterator<Item = &'a [u8]>) -> &mut Self {
        for arg in args {
            self.arg(arg);
        }
        self
    }

    /// The whole command.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut header = Short::default();
        header.line_end();
        header.number(self.args as u64);
        header.byte(b'*');
        let mut bytes = std::mem::take(&mut self.bytes);
        let unused = HEADER_ROOM.saturating_sub(header.bytes().len());
        if let Some(room) = bytes.get_mut(unused..HEADER_ROOM) {
            room.copy_from_slice(header.bytes());
        }
        let mut bytes = Bytes::from(bytes);
        bytes.advance(unused);
        bytes
    }
}

/// A short text, written from its end to its beginning, without an allocation.
struct Short {
    text: [u8; SHORT_BYTES_MAX],
    start: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self {
            text: [0; SHORT_BYTES_MAX],
            start: SHORT_BYTES_MAX,
        }
    }
}

impl Short {
    /// Puts a byte in front.
    fn byte(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(at) = self.text.get_mut(self.start) {
            *at = byte;
        }
    }

    fn line_end(&mut self) {
        self.byte(b'\n');
        self.byte(b'\r');
    }

    /// Puts the digits of a number in front.
    fn number(&mut self, number: u64) {
        let mut rest = number;
        loop {
            self.byte(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                return;
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prepends() {
        let mut frame = FrameWriter::new(b"SET", 0);
        frame.arg(b"k").number(u64::MAX);
        assert_eq!(
            &frame.finish()[..],
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n18446744073709551615\r\n"
        );
        let last = StreamId {
            ms: u64::MAX,
            seq: u64::MAX,
        };
        let longest = FrameWriter::new(b"X", 0).id(last).finish();
        assert!(longest.ends_with(b"\r\n$41\r\n18446744073709551615-18446744073709551615\r\n"));
        let mut long = FrameWriter::new(b"DEL", 0);
        for n in 0..100_000u64 {
            long.number(n);
        }
        assert!(long.finish().starts_with(b"*100001\r\n$3\r\nDEL\r\n$1\r\n0\r\n"));
    }
}
