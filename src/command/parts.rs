//! Commands that look at several keys in turn (`BLPOP a b`, `LMPOP`, `XREAD`), cut into one command a key.
//!
//! Such a command takes what it finds at the first key that has something, or, of streams, at every key. So it can be executed
//! key by key, wherever the keys are. A part never waits: its timeout is 0, and it is executed inside `MULTI`, where 0 means
//! "at once".

use smallvec::smallvec;

use super::keys::{KeyPositions, xread_block};
use super::number::integer;
use super::spec::{Command, Special, Timeout};
use super::{Class, ErrorReply};
use crate::resp::Args;

/// Who competes for what a write brings to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// One element serves one of those who wait for elements of this type.
    Elements(ElementType),
    /// One entry serves one of the consumers of this group.
    Group(Box<[u8]>),
    /// Every entry serves everybody.
    Readers,
}

/// What waits there is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// Elements of a list.
    List,
    /// Members of a sorted set.
    SortedSet,
}

/// How much a write brings that serves clients who wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// Nothing.
    Nothing,
    /// So many elements, or entries, where there was nothing.
    Some(u32),
    /// Perhaps an element, to the last of its keys.
    Moved,
    /// Perhaps something.
    Unknown,
    /// Nothing; it takes away what some may wait at.
    Removal,
}

impl Brings {
    /// Whether there may be something for those who wait.
    pub(crate) fn may_serve(self) -> bool {
        matches!(self, Self::Some(_) | Self::Moved | Self::Unknown)
    }
}

/// How long a command waits, in ms; 0: for ever.
///
/// # Errors
/// In Redis's words, if the timeout is none.
pub fn wait_ms(timeout: Timeout, args: &Args<'_>) -> Result<u64, ErrorReply> {
    const NEGATIVE: ErrorReply = ErrorReply::fixed("ERR timeout is negative");
    const NO_FLOAT: ErrorReply = ErrorReply::fixed("ERR timeout is not a float or out of range");
    let at = match timeout {
        Timeout::Last => args.len() - 1,
        Timeout::First => 1,
        Timeout::Option => {
            let at = xread_block(args).unwrap_or(0);
            return match integer(args.arg(at)) {
                None => Err(ErrorReply::fixed("ERR timeout is not an integer or out of range")),
                Some(ms) => u64::try_from(ms).map_err(|_| NEGATIVE),
            };
        }
    };
    let seconds: f64 = std::str::from_utf8(args.arg(at))
        .ok()
        .filter(|text| !text.starts_with(char::is_whitespace))
        .and_then(|text| text.parse().ok())
        .filter(|seconds: &f64| seconds.is_finite())
        .ok_or(NO_FLOAT)?;
    let ms = (seconds * 1000.0).ceil();
    // What overflows Redis's number of ms is negative to it.
    if ms < 0.0 || ms > i64::MAX as f64 {
        Err(NEGATIVE)
    } else {
        Ok(ms as u64)
    }
}

impl Command {
    /// Where the timeout is, if these arguments make the command wait.
    pub fn timeout(&self, args: &Args<'_>) -> Option<Timeout> {
        match self.class(args) {
            Class::Blocking(timeout) => Some(timeout),
            _ => None,
        }
    }

    /// How much it brings to its keys.
    pub fn brings(&self, args: &Args<'_>) -> Brings {
        use Special::*;
        let behind = args.len() as u32;
        match self.special {
            Lpush | Rpush => Brings::Some(behind.saturating_sub(2)),
            // With more arguments there may be options among them, or a member twice.
            Zadd if behind == 4 => Brings::Some(1),
            Zincrby | Xadd => Brings::Some(1),
            Lmove | Rpoplpush | Blmove | Brpoplpush => Brings::Moved,
            Lpop | Rpop | Lmpop | Blpop | Brpop | Blmpop | Zpopmin | Zpopmax | Zmpop | Bzpopmin
            | Bzpopmax | Bzmpop | Spop | Xreadgroup | Xtrim | Xclaim | Xautoclaim => Brings::Nothing,
            Del | Unlink => Brings::Removal,
            _ => Brings::Unknown,
        }
    }

    /// In which line its clients wait.
    pub fn line(&self, args: &Args<'_>) -> Line {
        match self.special {
            Special::Xread => Line::Readers,
            Special::Xreadgroup => {
                let group = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"GROUP"));
                Line::Group(args.arg(group.unwrap_or(0) + 1).into())
            }
            Special::Bzpopmin | Special::Bzpopmax | Special::Bzmpop => Line::Elements(ElementType::SortedSet),
            _ => Line::Elements(ElementType::List),
        }
    }

    /// The arguments of its part for the `i`th of its keys, and the positions of the part's keys among them: that one, and, of a
    /// move, the one that the element goes to.
    pub fn part<'a>(&self, args: &Args<'a>, keys: &KeyPositions, i: usize) -> (Vec<&'a [u8]>, KeyPositions) {
        let at = keys.get(i).map_or(0, |&at| at as usize);
        let name = args.arg(0);
        let key = args.arg(at);
        let behind_keys = |first: usize| args.iter().skip(first + keys.len());
        match self.special {
            Special::Lmpop | Special::Zmpop => {
                let mut part = vec![name, b"1", key];
                part.extend(behind_keys(2));
                (part, smallvec![2])
            }
            Special::Blmpop | Special::Bzmpop => {
                let mut part = vec![name, b"0", b"1", key];
                part.extend(behind_keys(3));
                (part, smallvec![3])
            }
            Special::Xread | Special::Xreadgroup => {
                let block = xread_block(args);
                let first = keys.first().map_or(0, |&first| first as usize);
                let options = (0..first)
                    .filter(|&i| block.is_none_or(|block| i != block && i + 1 != block))
                    .map(|i| args.arg(i));
                let mut part: Vec<&[u8]> = options.collect();
                part.extend([key, args.arg(at + keys.len())]);
                let at = part.len() - 2;
                (part, smallvec![at as u32])
            }
            // Both keys belong to it.
            Special::Blmove | Special::Brpoplpush => {
                let mut part: Vec<&[u8]> = args.iter().collect();
                if let Some(timeout) = part.last_mut() {
                    *timeout = b"0";
                }
                (part, keys.clone())
            }
            _ => (vec![name, key, b"0"], smallvec![1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;
    use crate::resp::{CommandScanner, Scanned};

    fn parts(line: &str) -> Vec<String> {
        let line = format!("{line}\r\n");
        let Ok(Scanned::Inline { frame, spans, .. }) = CommandScanner::new(1 << 20).scan(line.as_bytes())
        else {
            panic!("{line}")
        };
        let args = Args {
            bytes: &frame,
            spans: &spans,
        };
        let table = CommandTable::builtin();
        let command = table.lookup(&args).unwrap();
        let keys = command.keys(&args).unwrap();
        let moves = matches!(command.special, Special::Blmove | Special::Brpoplpush);
        let part = |i| {
            let (part, of_part) = command.part(&args, &keys, i);
            let named: Vec<&[u8]> = of_part.iter().map(|&key| part[key as usize]).collect();
            let expected = if moves { &keys[..] } else { &keys[i..=i] };
            let expected: Vec<&[u8]> = expected.iter().map(|&key| args.arg(key as usize)).collect();
            assert_eq!(named, expected, "{line}");
            String::from_utf8(part.join(&b' ')).unwrap()
        };
        match moves {
            true => vec![part(0)],
            false => (0..keys.len()).map(part).collect(),
        }
    }

    #[test]
    fn one_command_a_key() {
        for (line, expected) in [
            ("BLPOP a b 1.5", &["BLPOP a 0", "BLPOP b 0"][..]),
            ("BLMOVE a b LEFT RIGHT 3", &["BLMOVE a b LEFT RIGHT 0"]),
            ("BRPOPLPUSH a b 3", &["BRPOPLPUSH a b 0"]),
            (
                "BLMPOP 1 2 a b LEFT COUNT 3",
                &["BLMPOP 0 1 a LEFT COUNT 3", "BLMPOP 0 1 b LEFT COUNT 3"],
            ),
            ("LMPOP 2 a b LEFT", &["LMPOP 1 a LEFT", "LMPOP 1 b LEFT"]),
            (
                "XREAD COUNT 2 BLOCK 0 STREAMS a b 1 2",
                &["XREAD COUNT 2 STREAMS a 1", "XREAD COUNT 2 STREAMS b 2"],
            ),
            (
                "XREADGROUP GROUP g c BLOCK 5 STREAMS a >",
                &["XREADGROUP GROUP g c STREAMS a >"],
            ),
        ] {
            assert_eq!(parts(line), expected, "{line}");
        }
    }
}
