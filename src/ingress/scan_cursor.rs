//! Cursors that name the node they walk.
//!
//! A server's own cursor means something on that server only, so ours carries the node. It also carries a print of how
//! things stood when the walk began: if which node lists which partition has changed since, the walk starts over, for
//! `SCAN` may show a key twice but must not miss one.
//!
//! ```text
//! bits   | 63 … 16             | 15 … 8          | 7 … 0 |
//!        | the node's cursor   | view, never 0   | node  |
//! ```
//!
//! A server's cursor has as many bits as its largest table's size, so 2^48 keys on one node fit.

use crate::request::NodeId;

/// A place in a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanCursor {
    /// The node's own cursor; 0: from its beginning.
    pub(super) at: u64,
    /// Print of who lists what.
    pub(super) view: u8,
    /// The node.
    pub(super) node: NodeId,
}

impl ScanCursor {
    /// The number a client is given; never 0.
    pub(super) fn to_number(self) -> u64 {
        (self.at << 16) | (u64::from(self.view.max(1)) << 8) | u64::from(self.node & 0xff)
    }

    /// Reads a client's number; `None` for 0, the beginning.
    pub(super) fn of_number(number: u64) -> Option<Self> {
        (number != 0).then_some(Self {
            at: number >> 16,
            view: ((number >> 8) & 0xff) as u8,
            node: (number & 0xff) as NodeId,
        })
    }
}

/// A print of who lists what, 1 to 255.
pub(super) fn print_of(listers: &[Option<NodeId>]) -> u8 {
    let mut bytes = Vec::with_capacity(listers.len() * 2);
    for lister in listers {
        bytes.extend_from_slice(&lister.unwrap_or(NodeId::MAX).to_le_bytes());
    }
    (xxhash_rust::xxh3::xxh3_64(&bytes) % 255) as u8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        for cursor in [
            ScanCursor {
                at: 0,
                view: 1,
                node: 0,
            },
            ScanCursor {
                at: (1 << 48) - 1,
                view: 255,
                node: 255,
            },
            ScanCursor {
                at: 17,
                view: 9,
                node: 2,
            },
        ] {
            assert_eq!(ScanCursor::of_number(cursor.to_number()), Some(cursor));
        }
        assert_eq!(ScanCursor::of_number(0), None);
        assert_ne!(print_of(&[Some(0), Some(1)]), 0);
    }
}
