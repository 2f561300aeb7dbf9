//! A key's whole value and its deadline, read on one node and made on others.

use bytes::Bytes;

use crate::resp::walk::{Elements, text};
use crate::resp::{ReplyScanner, Span, encode, frame_of};

/// How nodes are asked for a key: those before Redis 7.0 do not tell deadlines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    before_7: bool,
}

impl Question {
    /// For nodes of this version, or newer.
    pub fn to(version: &str) -> Self {
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        Self {
            before_7: major.is_some_and(|major| major < 7),
        }
    }

    /// The commands that ask, to be executed together.
    pub fn about(self, key: &[u8]) -> Bytes {
        let dump = encode::command_frame(&[b"DUMP", key]);
        let deadline = match self.before_7 {
            false => encode::command_frame(&[b"PEXPIRETIME", key]),
            true => [
                encode::command_frame(&[b"PTTL", key]),
                encode::command_frame(&[b"TIME"]),
            ]
            .concat()
            .into(),
        };
        [dump, deadline].concat().into()
    }

    /// How many commands, and replies, these are.
    pub fn count(self) -> u32 {
        2 + u32::from(self.before_7)
    }

    /// The replies in the form that the rest of this file reads: the payload, and the deadline (to about a ms, where it is not told).
    pub fn value(self, replies: impl Into<Bytes>) -> Bytes {
        let replies = replies.into();
        match self.before_7 {
            true => self.with_deadline(&replies).unwrap_or(replies),
            false => replies,
        }
    }

    fn with_deadline(self, replies: &[u8]) -> Option<Bytes> {
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        let (dump_len, _) = ReplyScanner::default().scan(replies, 1).ok()??;
        let (dump, rest) = replies.split_at_checked(dump_len)?;
        let (left_len, _) = ReplyScanner::default().scan(rest, 1).ok()??;
        let (left, time) = rest.split_at_checked(left_len)?;
        let left_ms = number(left.strip_prefix(b":")?.strip_suffix(b"\r\n")?)?;
        let mut parts = Elements::of(time).ok()??.filter_map(Result::ok).filter_map(text);
        let now_ms = number(parts.next()?)? * 1000 + number(parts.next()?)? / 1000;
        let deadline_ms = if left_ms < 0 { left_ms } else { now_ms + left_ms };
        Some([dump, &encode::integer(deadline_ms)].concat().into())
    }
}

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
    fn who_does_not_tell_deadlines_tells_what_is_left() {
        let old = Question::to("6.2.14");
        let asked = String::from_utf8_lossy(&old.about(b"k")).into_owned();
        assert_eq!(asked.matches('*').count() as u32, old.count(), "{asked}");
        let time = "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n";
        let value = |left: &str| old.value(format!("$1\r\nx\r\n:{left}\r\n{time}"));
        assert_eq!(value("1000"), "$1\r\nx\r\n:1700000001123\r\n");
        assert_eq!(value("-1"), "$1\r\nx\r\n:-1\r\n");
        assert_eq!(old.value(format!("_\r\n:-2\r\n{time}")), "_\r\n:-2\r\n");
        let new = Question::to("7.0.15");
        assert_eq!(
            (new.count(), new.value("_\r\n:-2\r\n")),
            (2, Bytes::from("_\r\n:-2\r\n"))
        );
    }

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
