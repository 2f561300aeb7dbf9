//! Writing RESP: commands for nodes, and the replies that the sidecar gives itself.

use bytes::{BufMut, Bytes, BytesMut};

/// Appends the decimal digits of `n`.
pub fn decimal(out: &mut BytesMut, n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(digits.get(at..).unwrap_or_default());
}

/// Appends a header line: `kind`, a length, CRLF (`*3\r\n`, `$5\r\n`).
pub fn header(out: &mut BytesMut, kind: u8, n: usize) {
    out.put_u8(kind);
    decimal(out, n as u64);
    out.put_slice(b"\r\n");
}

/// Appends one bulk string.
pub fn bulk(out: &mut BytesMut, payload: &[u8]) {
    header(out, b'$', payload.len());
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Appends a command: an array of bulk strings.
pub fn command(out: &mut BytesMut, args: &[&[u8]]) {
    header(out, b'*', args.len());
    for arg in args {
        bulk(out, arg);
    }
}

/// A command as a frame of its own.
pub fn command_frame(args: &[&[u8]]) -> Bytes {
    let size = args.iter().map(|arg| arg.len() + 16).sum::<usize>() + 16;
    let mut out = BytesMut::with_capacity(size);
    command(&mut out, args);
    out.freeze()
}

/// An integer reply.
pub fn integer(n: i64) -> Bytes {
    Bytes::from(format!(":{n}\r\n"))
}

/// A bulk string reply.
pub fn bulk_frame(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 16);
    bulk(&mut out, payload);
    out.freeze()
}

/// An error reply. `text` begins with the error's code (`ERR …`); line breaks in it become spaces.
pub fn error(text: &str) -> Bytes {
    let clean: String = text
        .chars()
        .map(|c| if c == '\r' || c == '\n' { ' ' } else { c })
        .collect();
    Bytes::from(format!("-{clean}\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_redis_reads() {
        assert_eq!(
            &command_frame(&[b"SET", b"k", b""])[..],
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n"
        );
        let mut out = BytesMut::new();
        decimal(&mut out, 0);
        decimal(&mut out, u64::MAX);
        assert_eq!(&out[..], b"018446744073709551615");
        assert_eq!(&error("ERR a\r\nb")[..], b"-ERR a  b\r\n");
    }
}
