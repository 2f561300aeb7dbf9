//! Numbers and stream ids as Redis reads them.
//!
//! A command is only rewritten if Redis would have taken its numbers, so they are read here by Redis' own rules: no
//! sign but a minus, no leading zeros, no blanks, 64 bits.

use std::fmt;

/// A signed 64-bit number (`string2ll`).
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut n = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        n = n
            .checked_mul(10)?
            .checked_add(if negative { -digit } else { digit })?;
    }
    Some(n)
}

/// The id of a stream entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds of the entry's time.
    pub ms: u64,
    /// Counter within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// Reads `<ms>` or `<ms>-<seq>`; the sequence is 0 if it is missing. Leading zeros are taken, as Redis does in ids.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match text.iter().position(|&b| b == b'-') {
            None => Some(Self {
                ms: unsigned(text)?,
                seq: 0,
            }),
            Some(dash) => Some(Self {
                ms: unsigned(text.get(..dash)?)?,
                seq: unsigned(text.get(dash + 1..)?)?,
            }),
        }
    }

    /// The next id, or `None` behind the last one.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self {
                ms: self.ms.checked_add(1)?,
                seq: 0,
            }),
        }
    }
}

impl From<StreamId> for u128 {
    fn from(id: StreamId) -> Self {
        Self::from(id.ms) << 64 | Self::from(id.seq)
    }
}

impl From<u128> for StreamId {
    fn from(number: u128) -> Self {
        Self {
            ms: (number >> 64) as u64,
            seq: number as u64,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

fn unsigned(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut n = 0u64;
    for &digit in text {
        if !digit.is_ascii_digit() {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_redis_reads() {
        for (text, want) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1.5", None),
        ] {
            assert_eq!(integer(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn ids_are_ordered_and_have_a_successor() {
        let id = |text: &str| StreamId::parse(text.as_bytes());
        assert_eq!(id("5"), Some(StreamId { ms: 5, seq: 0 }));
        assert_eq!(id("5-07"), Some(StreamId { ms: 5, seq: 7 }));
        for nonsense in [
            "",
            "-",
            "5-",
            "-5",
            "5-*",
            "*",
            "5-1-1",
            "18446744073709551616",
            "+",
            "$",
        ] {
            assert_eq!(id(nonsense), None, "{nonsense:?}");
        }
        assert!(id("5-9") < id("6-0"));
        assert_eq!(id("5-18446744073709551615").and_then(StreamId::next), id("6-0"));
        assert_eq!(
            id("18446744073709551615-18446744073709551615").and_then(StreamId::next),
            None
        );
    }
}
