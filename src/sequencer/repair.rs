//! Repair: a key on which mirrors have answered differently is made on all nodes what it is on the primary.
//!
//! The usual cause is a key that expired between two mirrors: one executed a write just before the deadline, one just
//! after. The partition is held for the moment, the primary is asked for the value (`DUMP`) and its deadline, and what it
//! says is written to all nodes at the next place of the order, where nothing can come between.

use bytes::Bytes;
use smallvec::smallvec;

use super::reads::Purpose;
use super::{Sequencer, log::LogPos};
use crate::command::dump;
use crate::command::spec::Compare;
use crate::request::{Action, Commands, HoldId, NodeId, PartitionId, ReplyTo, Request, Touched};

/// Nobody waits for a repair.
pub(super) const NOBODY: ReplyTo = ReplyTo {
    worker: u16::MAX,
    part: 0,
    client: u32::MAX,
    generation: 0,
    slot: 0,
};

impl Sequencer {
    /// Notes that mirrors differ in what the write at `pos` did.
    pub(super) fn differs(&mut self, pos: LogPos) {
        let Some(entry) = self.log.get_mut(pos) else {
            return;
        };
        let Touched::Keys(keys) = &entry.commands.touched else {
            return;
        };
        for span in keys {
            let at = span.start as usize..(span.start + span.len) as usize;
            let key = Bytes::copy_from_slice(entry.commands.frame.get(at).unwrap_or_default());
            let partition = match &entry.joint {
                Some(_) => self.settings.keyspace.partition_of(&key),
                None => entry.partition,
            };
            let db = entry.db;
            let known = |r: &Request| matches!(&r.action, Action::Repair(k) if *k == key && r.db == db);
            if !self.again.iter().any(known) {
                self.again.push(Request {
                    partition,
                    db,
                    action: Action::Repair(key),
                    under: HoldId::NONE,
                    reply_to: NOBODY,
                });
            }
        }
    }

    /// A node has answered a write otherwise than others, and nobody can say which keys it changed: a script that found a key on one
    /// node that had just expired on another, as happens where one is late. Whoever answered otherwise than the client is told is given
    /// nothing more, until it has been given a copy. `counts`: what this node answered is what the client is told.
    pub(super) fn part(&mut self, node: NodeId, pos: LogPos, counts: bool) {
        let Some(entry) = self.log.get(pos) else { return };
        if !matches!(entry.commands.touched, Touched::Partition) || entry.is_flush() {
            return;
        }
        let parts: Vec<(PartitionId, u64)> = entry.parts().collect();
        for (partition, seq) in parts {
            let Some(Some(p)) = self.partitions.get(usize::from(partition)) else {
                continue;
            };
            let is_other = |r: &&super::Replica| r.node != node && r.acked >= seq;
            let odd: Vec<NodeId> = match counts {
                true => p.replicas.iter().filter(is_other).map(|r| r.node).collect(),
                false => vec![node],
            };
            for node in odd {
                self.expel(node, partition);
            }
        }
    }

    /// Holds the partition and asks the primary.
    pub(super) fn order_repair(&mut self, partition: PartitionId, db: u16, key: Bytes) {
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(primary) = p.primary() else { return };
        self.hold_unless_held(partition);
        let commands = Commands {
            count: self.settings.question.count(),
            ..Commands::one(self.settings.question.about(&key))
        };
        self.ask_of(partition, db, commands, Purpose::Repair(key), primary);
    }

    /// The primary has said what the key is.
    pub(super) fn repaired(&mut self, partition: PartitionId, db: u16, key: &[u8], frames: Bytes) {
        if let Some((frame, span)) = dump::restore(key, &self.settings.question.value(frames)) {
            let commands = Commands {
                compare: Compare::Skip,
                touched: Touched::Keys(smallvec![span]),
                ..Commands::one(frame)
            };
            self.counters.repairs += 1;
            self.order_write(partition, db, commands, NOBODY, None);
        }
        self.let_go(partition, HoldId::OWNER);
    }
}
