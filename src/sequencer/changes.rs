//! Which keys of a partition writes may have changed, while somebody copies it.
//!
//! The node that is copied from tells of changed keys by itself, but not of all: what happens to a stream's consumer groups
//! (`XREADGROUP`, `XACK`, `XCLAIM`, …) is no change of the key to it. The owner knows which keys each write names.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};

use super::Sequencer;
use super::partition::Partition;
use crate::limits;
use crate::request::{Commands, Outcome, PartitionId, ReplyTo, Touched};
use crate::resp::encode;
use crate::ring::Keyspace;

/// What has been written since somebody began to ask.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    keys: HashSet<Bytes>,
    /// Something was written that does not name its keys, or too much.
    unnamed: bool,
}

impl Changes {
    /// Notes what a write may change, as far as its keys are in the partition.
    pub(super) fn note(&mut self, commands: &Commands, is_here: impl Fn(&[u8]) -> bool) {
        match &commands.touched {
            Touched::Partition => self.unnamed = true,
            Touched::Keys(keys) => {
                for span in keys {
                    let at = span.start as usize..(span.start + span.len) as usize;
                    let key = commands.frame.get(at).unwrap_or_default();
                    if is_here(key) && !self.keys.contains(key) {
                        self.keys.insert(Bytes::copy_from_slice(key));
                    }
                }
            }
        }
        if self.keys.len() > limits::CHANGES_MAX {
            self.keys.clear();
            self.unnamed = true;
        }
    }

    /// As a reply: whether something is not named, and the keys.
    fn to_frames(&self) -> Bytes {
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', 1 + self.keys.len());
        out.extend_from_slice(&encode::integer(i64::from(self.unnamed)));
        for key in &self.keys {
            encode::bulk(&mut out, key);
        }
        out.freeze()
    }
}

impl Partition {
    /// Notes a write of this partition alone.
    pub(super) fn note_write(&mut self, commands: &Commands) {
        if let Some(changes) = &mut self.changes {
            changes.note(commands, |_| true);
        }
    }

    /// Notes a write of several partitions.
    pub(super) fn note_joint(&mut self, commands: &Commands, own: PartitionId, keyspace: &Keyspace) {
        if let Some(changes) = &mut self.changes {
            changes.note(commands, |key| keyspace.partition_of(key) == own);
        }
    }
}

impl Sequencer {
    /// Begins to note changes of the partition, or ends it.
    pub(super) fn order_note_changes(&mut self, partition: PartitionId, begins: bool, to: ReplyTo) {
        if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) {
            p.changes = begins.then(Box::default);
        }
        self.effects.push(super::Effect::Complete(to, Outcome::Done));
    }

    /// Tells what has changed since that was last asked for.
    pub(super) fn order_take_changes(&mut self, partition: PartitionId, to: ReplyTo) {
        let p = self.partitions.get_mut(usize::from(partition));
        let changes = p
            .and_then(Option::as_mut)
            .and_then(|p| p.changes.as_mut())
            .map(|changes| std::mem::take(&mut **changes));
        // Nobody has noted any: all may have changed.
        let frames = changes
            .unwrap_or_else(|| Changes {
                unnamed: true,
                ..Changes::default()
            })
            .to_frames();
        let outcome = Outcome::Reply { frames, resp3: true };
        self.effects.push(super::Effect::Complete(to, outcome));
    }
}
