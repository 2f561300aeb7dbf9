//! What the parts of a striped queue are called on the nodes. All names are [pinned](crate::ring::pinned_to) to their partition, so
//! whoever copies, sweeps or compares keys needs to know nothing of queues.
//!
//! ```text
//! rf@<partition>:<id>                 an item
//! rf@<partition>.<segment>:<key>      a segment of an index, or its counter
//! rf@<partition>.dir:<key>            the directory of an index, on its home partition
//! ```
//! Numbers are four hexadecimal digits.

use bytes::Bytes;

use super::Segment;
use crate::request::PartitionId;
use crate::ring::{PIN, pinned_to};

/// `rf@0123:<id>`.
pub fn item(partition: PartitionId, id: &[u8]) -> Bytes {
    named(format!("{}:", pin(partition)), id)
}

/// `rf@0123.0001:<key>`.
pub fn segment(segment: Segment, key: &[u8]) -> Bytes {
    named(format!("{}.{:04x}:", pin(segment.partition), segment.number), key)
}

/// `rf@0123.dir:<key>`.
pub fn directory(home: PartitionId, key: &[u8]) -> Bytes {
    named(format!("{}.dir:", pin(home)), key)
}

/// What clients call a key of the nodes; `None`: it is ours alone.
pub fn of_client(name: &[u8]) -> Option<&[u8]> {
    if pinned_to(name).is_none() {
        return Some(name);
    }
    let rest = name.get(PIN.len() + 4..)?;
    match rest.first() {
        Some(b':') => rest.get(1..),
        Some(b'.') if rest.starts_with(b".dir:") => None,
        _ => rest.get(6..),
    }
}

fn pin(partition: PartitionId) -> String {
    format!("{}{partition:04x}", String::from_utf8_lossy(PIN))
}

fn named(mut prefix: String, key: &[u8]) -> Bytes {
    prefix.reserve(key.len());
    let mut name = prefix.into_bytes();
    name.extend_from_slice(key);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pinned_and_are_told_as_the_client_knows_them() {
        let part = Segment {
            number: 258,
            partition: 77,
            base: 0,
        };
        for (name, told) in [
            (item(77, b"id"), Some(&b"id"[..])),
            (segment(part, b"p.q.messages"), Some(b"p.q.messages")),
            (directory(77, b"p.q.messages"), None),
        ] {
            assert_eq!(pinned_to(&name), Some(77));
            assert_eq!(of_client(&name), told);
        }
        assert_eq!(&segment(part, b"k")[..], b"rf@004d.0102:k");
        assert_eq!(of_client(b"plain"), Some(&b"plain"[..]));
    }
}
