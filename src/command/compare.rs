//! Comparing what the mirrors answered to the same command.
//!
//! Nodes that hold the same data and get the same commands in the same order give the same replies, so a reply that
//! differs tells of a node that has diverged. Replies are not kept to be compared but digested as they arrive: 64 bits
//! a command. A rule per command ([`Compare`]) says what of a reply must agree; nearly always it is every byte, and then
//! the digest is one hash over the bytes.
//!
//! A digest is only ever compared with one made by the same rule, within one process. It finds accidents, not attacks.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::spec::Compare;
use crate::resp::walk::{self, Payload};

/// The digest of one whole `reply` under `rule`. Replies that the rule takes as equal have equal digests.
pub fn digest(rule: Compare, reply: &[u8]) -> u64 {
    match rule {
        Compare::Exact | Compare::Check => xxh3_64(error_code(reply).unwrap_or(reply)),
        Compare::Unordered => unordered(reply).unwrap_or_else(|| xxh3_64(reply)),
        Compare::Shape => shape(reply).unwrap_or_else(|| xxh3_64(reply)),
        Compare::Skip => 0,
    }
}

/// Of an error its code: two releases may word the same error differently.
fn error_code(reply: &[u8]) -> Option<&[u8]> {
    match reply.first() {
        Some(b'-') => reply.split(|&b| b == b' ' || b == b'\r').next(),
        _ => None,
    }
}

/// A sum over the elements, which does not depend on their order. `None` for what has no elements.
fn unordered(reply: &[u8]) -> Option<u64> {
    let body = walk::without_attributes(reply).ok()?;
    let (head, rest) = walk::frame(body).ok()?;
    let Payload::Values(values) = head.payload else {
        return None;
    };
    let together = if head.kind == b'%' { 2 } else { 1 };
    // The header seeds the elements, so that an array does not equal a set.
    let seed = xxh3_64(head.bytes);
    let mut sum = seed;
    let mut rest = rest;
    for _ in 0..values / together {
        let (element, after) = walk::split_values(rest, together).ok()?;
        sum = sum.wrapping_add(xxh3_64_with_seed(element, seed));
        rest = after;
    }
    Some(sum)
}

/// The type, and for an aggregate the number of elements. An error is of the type "error" whatever it says.
fn shape(reply: &[u8]) -> Option<u64> {
    let (head, _) = walk::frame(walk::without_attributes(reply).ok()?).ok()?;
    let (kind, len) = match head.payload {
        Payload::Null => (b'_', 0),
        Payload::Text(_) => (head.kind, 0),
        Payload::Values(values) => (head.kind, values),
    };
    Some(xxh3_64_with_seed(&[kind], len as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(rule: Compare, a: &str, b: &str) -> bool {
        digest(rule, a.as_bytes()) == digest(rule, b.as_bytes())
    }

    #[test]
    fn exact_is_the_bytes() {
        assert_eq!(digest(Compare::Exact, b"+OK\r\n"), xxh3_64(b"+OK\r\n"));
        assert!(!equal(Compare::Exact, ":1\r\n", ":2\r\n"));
        assert!(equal(Compare::Exact, "-ERR one wording\r\n", "-ERR another\r\n"));
        assert!(!equal(Compare::Exact, "-ERR x\r\n", "-OOM x\r\n"));
        assert!(!equal(Compare::Exact, "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n"));
    }

    #[test]
    fn unordered_keeps_pairs_and_multiplicity() {
        let same = |a, b| equal(Compare::Unordered, a, b);
        assert!(same(
            "~2\r\n$1\r\na\r\n$1\r\nb\r\n",
            "~2\r\n$1\r\nb\r\n$1\r\na\r\n"
        ));
        assert!(!same(
            "~2\r\n$1\r\na\r\n$1\r\nb\r\n",
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        ));
        assert!(!same("*2\r\n:1\r\n:1\r\n", "*2\r\n:2\r\n:2\r\n"));
        assert!(!same("*2\r\n:1\r\n:1\r\n", "*3\r\n:1\r\n:1\r\n:1\r\n"));
        assert!(same(
            "%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n",
            "%2\r\n+b\r\n:2\r\n+a\r\n:1\r\n"
        ));
        assert!(!same(
            "%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n",
            "%2\r\n+a\r\n:2\r\n+b\r\n:1\r\n"
        ));
        assert!(same("-ERR x\r\n", "-ERR x\r\n") && !same("-ERR x\r\n", "-ERR y\r\n"));
        assert!(
            !same("*2\r\n:1\r\n", "*2\r\n:2\r\n"),
            "what is no reply is compared by its bytes"
        );
    }

    #[test]
    fn shape_is_type_and_length() {
        let same = |a, b| equal(Compare::Shape, a, b);
        assert!(same("*1\r\n$1\r\na\r\n", "*1\r\n$2\r\nbb\r\n"));
        assert!(!same("*1\r\n$1\r\na\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"));
        assert!(!same("*1\r\n$1\r\na\r\n", "~1\r\n$1\r\na\r\n"));
        assert!(same("$1\r\na\r\n", "$2\r\nbb\r\n") && same("_\r\n", "$-1\r\n"));
        assert!(!same("$1\r\na\r\n", "_\r\n") && !same("$1\r\na\r\n", "-ERR x\r\n"));
        assert!(same(":1\r\n", ":2\r\n") && !same(":1\r\n", ",1\r\n"));
    }

    #[test]
    fn skip_is_nothing() {
        assert!(equal(Compare::Skip, ":1\r\n", "-ERR\r\n"));
    }
}
