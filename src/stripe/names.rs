//! What the parts of a striped queue are called on the nodes. All names are [pinned](crate::ring::pinned_to) to their partition, so
//! whoever copies, sweeps or compares keys needs to know nothing of queues.
//!
//! ```text
//! rf@<partition>:<id>                 an item
//! rf@<partition>.<segment>:<key>      a segment of an index, or its counter
//! rf@<partition>.dir:<key>            the directory of an index, on its home partition
//! rf@<partition>.new:<key>            a value that is put together (`node::copy`)
//! ```
//! Numbers are four hexadecimal digits.

use bytes::Bytes;

use super::{Segment, hex_digit};
use crate::request::PartitionId;
use crate::ring::{PIN, pinned_to};

/// `rf@0123:<id>`.
pub fn item(partition: PartitionId, id: &[u8]) -> Bytes {
    named(partition, &[b":", id])
}

/// `rf@0123.0001:<key>`.
pub fn segment(segment: Segment, key: &[u8]) -> Bytes {
    named(segment.partition, &[b".", &digits(segment.number), b":", key])
}

/// `rf@0123.dir:<key>`.
pub fn directory(home: PartitionId, key: &[u8]) -> Bytes {
    named(home, &[b".dir:", key])
}

/// What clients call a key of the nodes; `None`: it is ours alone.
pub fn of_client(name: &[u8]) -> Option<&[u8]> {
    if pinned_to(name).is_none() {
        return Some(name);
    }
    let rest = name.get(PIN.len() + 4..)?;
    match rest.first() {
        Some(b':') => rest.get(1..),
        Some(b'.') if rest.starts_with(b".dir:") || rest.starts_with(b".new:") => None,
        _ => rest.get(6..),
    }
}

/// A name of this partition. Most commands of a striped queue need one.
fn named(partition: PartitionId, rest: &[&[u8]]) -> Bytes {
    let len = rest.iter().map(|part| part.len()).sum::<usize>();
    let mut name = Vec::with_capacity(PIN.len() + 4 + len);
    name.extend_from_slice(PIN);
    name.extend_from_slice(&digits(partition));
    for part in rest {
        name.extend_from_slice(part);
    }
    name.into()
}

fn digits(number: u16) -> [u8; 4] {
    [12, 8, 4, 0].map(|shift| hex_digit(u32::from(number) >> shift))
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
            (Bytes::from_static(b"rf@004d.new:p.q.messages"), None),
        ] {
            assert_eq!(pinned_to(&name), Some(77));
            assert_eq!(of_client(&name), told);
        }
        assert_eq!(&segment(part, b"k")[..], b"rf@004d.0102:k");
        assert_eq!(of_client(b"plain"), Some(&b"plain"[..]));
    }
}
