//! A connection of a sidecar's stream to a node: bytes under way in both directions, each cut anywhere.

use std::collections::HashMap;

use bytes::BytesMut;
use ringfence::account::Position;
use ringfence::request::PartitionId;
use ringfence::resp::OutBuf;

use crate::node::{Node, Session};
use crate::rng::Rng;

#[derive(Debug, Default)]
pub struct Link {
    /// On the way to the node.
    pub up: Vec<u8>,
    /// On the way to the sidecar.
    pub down: Vec<u8>,
    session: Session,
    /// The node has closed its end: nothing more is executed, and after `down` comes the end.
    pub closed: bool,
    /// Nothing moves before, in us.
    pub frozen_until_us: u64,
}

/// A connection that no sidecar listens to any more, but whose bytes the node may still get.
#[derive(Debug)]
pub struct Orphan {
    pub owner: u32,
    pub node: usize,
    pub link: Link,
}

/// The sidecar's side.
#[derive(Debug, Default)]
pub struct Stream {
    pub link: Option<Link>,
    /// The account that the node gave at login; not yet told to the sequencer.
    pub greeting: Option<HashMap<PartitionId, Position>>,
    /// Received, not yet understood.
    pub received: BytesMut,
    /// Not yet written.
    pub out: OutBuf,
    pub blocked: bool,
    pub down_since_us: u64,
    pub pause_until_us: u64,
}

/// How many of `len` bytes arrive together: mostly all.
fn some(rng: &mut Rng, len: usize) -> usize {
    if rng.percent(60) { len } else { rng.between(1, len) }
}

impl Link {
    /// The node gets some of what is under way.
    pub fn deliver_up(&mut self, node: &mut Node, rng: &mut Rng, all: bool) {
        if self.closed || !node.up || self.up.is_empty() {
            return;
        }
        let n = if all {
            self.up.len()
        } else {
            some(rng, self.up.len())
        };
        let bytes: Vec<u8> = self.up.drain(..n).collect();
        node.feed(&mut self.session, &bytes, &mut self.down);
    }

    /// Bytes for the sidecar.
    pub fn deliver_down(&mut self, rng: &mut Rng, all: bool) -> Vec<u8> {
        let n = if all || self.down.is_empty() {
            self.down.len()
        } else {
            some(rng, self.down.len())
        };
        self.down.drain(..n).collect()
    }

    /// The node's end is gone, and what it has not read with it.
    pub fn close(&mut self) {
        self.closed = true;
        self.up.clear();
        self.session = Session::default();
    }
}

impl Stream {
    /// Writes what the socket takes: all, or some.
    pub fn write(&mut self, rng: &mut Rng, all: bool) {
        let Some(link) = &mut self.link else { return };
        let mut room = if all || rng.percent(80) {
            usize::MAX
        } else {
            rng.between(1, 200)
        };
        let done = self.out.write_with(|slices| {
            let mut n = 0;
            for slice in slices {
                let take = slice.len().min(room);
                if !link.closed {
                    link.up.extend_from_slice(&slice[..take]);
                }
                room -= take;
                n += take;
            }
            if n == 0 {
                Err(std::io::ErrorKind::WouldBlock.into())
            } else {
                Ok(n)
            }
        });
        self.blocked = !done.expect("a fake socket does not fail");
    }
}
