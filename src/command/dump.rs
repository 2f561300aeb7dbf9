//! A key's whole value and its deadline, read on one node and made on others.

use bytes::Bytes;

use crate::resp::{ReplyScanner, Span, encode, frame_of};

/// The commands that ask for a key, to be executed together.
pub fn ask(key: &[u8]) -> Bytes {
    [
        encode::command_frame(&[b"DUMP", key]),
        encode::command_frame(&[b"PEXPIRETIME", key]),
    ]
    .concat()
    .into()
}

/// How many commands, and replies, these are.
pub const ASK_COUNT: u32 = 2;

/// Whether the replies say that there is such a key.
pub fn exists(frames: &[u8]) -> bool {
    !frames.starts_with(b"_") && !frames.starts_with(b"$-1")
}

/// The command that makes a key what the replies say, and where in it the key is; `None` if they say nothing (an error).
pub fn restore(key: &[u8], frames: &[u8]) -> Option<(Bytes, Span)> {
    let (dump_len, _) = ReplyScanner::default().scan(frames, 1).ok()??;
    let (dump, expiry) = frames.split_at_checked(dump_len)?;
    let deadline = std::str::from_utf8(expiry.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?;
    let frame_and_spans = if !exists(dump) {
        frame_of(&[b"DEL".as_slice(), key])
    } else {
        let header_len = dump.iter().position(|&b| b == b'\n')? + 1;
        let payload = dump.get(header_len..dump.len().checked_sub(2)?)?;
        if deadline.starts_with('-') {
            frame_of(&[b"RESTORE".as_slice(), key, b"0", payload, b"REPLACE"])
        } else {
            frame_of(&[
                b"RESTORE".as_slice(),
                key,
                deadline.as_bytes(),
                payload,
                b"REPLACE",
                b"ABSTTL",
            ])
        }
    };
    let (frame, spans) = frame_and_spans;
    Some((frame, *spans.get(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_is_made_of() {
        let text = |frames: &[u8]| {
            restore(b"k", frames).map(|(frame, _)| String::from_utf8_lossy(&frame).replace("\r\n", " "))
        };
        assert_eq!(text(b"_\r\n:-2\r\n").unwrap(), "*2 $3 DEL $1 k ");
        assert_eq!(
            text(b"$4\r\nab\r\n\r\n:-1\r\n").unwrap(),
            "*5 $7 RESTORE $1 k $1 0 $4 ab  $7 REPLACE "
        );
        assert!(
            text(b"$1\r\nx\r\n:1900000000000\r\n")
                .unwrap()
                .ends_with("$6 ABSTTL ")
        );
        assert_eq!(text(b"$1\r\nx\r\n-ERR unknown command\r\n"), None);
        let (frame, span) = restore(b"key", b"_\r\n:-2\r\n").unwrap();
        assert_eq!(&frame[span.start as usize..][..span.len as usize], b"key");
    }
}
