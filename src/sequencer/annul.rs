//! Annulment: a write that every node refuses is answered with the error, and its place in the order stays empty.
//!
//! A node that alone refuses a write is at fault, and is given it again. One that all refuse (each has it by its own judgement:
//! all disks are full, or the nodes do not know the command) would stop its partition for ever. Since nobody has executed it
//! and nobody is about to, it can be taken out: what was the command becomes nothing, under the same seq.
//!
//! Nobody has it, so nobody has anything that comes after it in its partition either. An answer that was seen all the same
//! came from a node that has since lost what it had executed, and is void.

use bytes::Bytes;
use smallvec::SmallVec;

use super::Sequencer;
use super::acks::release;
use super::log::LogPos;
use super::node::Item;
use crate::request::{NodeId, PartitionId, Touched};

impl Sequencer {
    /// The node has refused to queue the write at `pos`, in these words.
    pub(super) fn write_refused(&mut self, id: NodeId, pos: LogPos, text: Vec<u8>) {
        let Some(entry) = self.log.get_mut(pos) else {
            return;
        };
        let Some(Some(p)) = self.partitions.get(usize::from(entry.partition)) else {
            return;
        };
        let Some((_, bit)) = p.bit_of(id) else { return };
        entry.refused |= bit;
        entry.sent &= !bit;
        let (refused, may_execute) = (p.nodes_of(entry.refused), entry.sent & p.streaming);
        let sent = p.nodes_of(entry.sent);
        // Whoever a successor may find in sync must have refused it.
        let all_refuse = entry.parts().all(|(partition, seq)| {
            let Some(Some(p)) = self.partitions.get(usize::from(partition)) else {
                return true;
            };
            let must_have = p.in_sync | p.recorded | p.recording.unwrap_or(0);
            !p.has_executed(seq) && p.nodes_of(must_have).iter().all(|node| refused.contains(node))
        });
        if !all_refuse || may_execute != 0 || entry.is_flush() {
            return;
        }
        for (partition, seq) in entry.parts() {
            if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) {
                p.suspect(p.set_of(&sent), seq);
            }
        }
        entry.commands.frame = Bytes::new();
        entry.commands.count = 0;
        entry.commands.touched = Touched::Keys(SmallVec::new());
        entry.conclusion = None;
        // Its account goes with what follows, so that this is asked for, too.
        entry.refused = 0;
        if !entry.released {
            entry.reply = Some((Bytes::from(text), false));
            release(entry, &mut self.effects, &mut self.again);
        }
        let parts: Vec<(PartitionId, u64)> = entry.parts().collect();
        for (partition, seq) in parts {
            self.void_answers(partition, pos, seq);
        }
    }

    /// Forgets what was answered to anything behind the annulled write.
    fn void_answers(&mut self, partition: PartitionId, pos: LogPos, seq: u64) {
        for later in pos + 1..self.log.end() {
            if let Some(entry) = self.log.get_mut(later)
                && entry.seq_in(partition).is_some()
                && !entry.released
            {
                entry.reply = None;
                entry.digest = None;
            }
        }
        let void: Vec<u32> = self
            .parked
            .iter()
            .copied()
            .filter(|&id| self.saw(id, partition, seq))
            .collect();
        for id in void {
            if let Some(read) = self.reads.get_mut(id as usize) {
                read.reply = None;
                let item = Item::Read(id, read.generation);
                self.reroute(std::iter::once(item));
            }
        }
    }

    /// Whether a parked read's answer may show the write `seq` of the partition.
    fn saw(&self, id: u32, partition: PartitionId, seq: u64) -> bool {
        self.reads
            .get(id as usize)
            .is_some_and(|r| r.partition == partition && r.after >= seq)
    }
}
