//! What nodes have executed: whose acknowledgement makes a write safe (invariant 3), and what its client is answered.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::log::{Entry, LogPos};
use super::partition::Partition;
use super::{Effect, Sequencer, links};
use crate::command::rewrite::{RewriteRule, second_chance};
use crate::command::spec::Compare;
use crate::request::{Action, HoldId, NodeId, Outcome, Request, Touched};
use crate::resp::ReplyScanner;

impl Sequencer {
    /// A node has executed the write at `pos`; whether it answered otherwise than the first one.
    pub(super) fn write_acked(
        &mut self,
        node: NodeId,
        pos: LogPos,
        chunk: &Bytes,
        at: Range<usize>,
        resp3: bool,
    ) -> bool {
        let write_quorum = self.settings.write_quorum;
        let mut differs = false;
        let mut parted = None;
        let Some(entry) = self.log.get_mut(pos) else {
            return false;
        };
        if self.settings.replicas > 1 && entry.commands.count > 0 {
            let digest = crate::command::compare::digest(
                entry.commands.compare,
                chunk.get(at.clone()).unwrap_or_default(),
            );
            match entry.digest {
                None => {
                    entry.digest = Some(digest);
                    entry.reply = Some((chunk.slice(at), resp3));
                }
                Some(first) if first != digest => {
                    differs = true;
                    self.counters.mismatches += 1;
                    self.effects.push(Effect::Mismatch {
                        node,
                        partition: entry.partition,
                    });
                    if entry.commands.compare == Compare::Check
                        && let Touched::Keys(keys) = &entry.commands.touched
                        && let Some(span) = keys.first()
                    {
                        let at = span.start as usize..(span.start + span.len) as usize;
                        let key = entry.commands.frame.get(at).unwrap_or_default();
                        let (db, key) = (entry.db, Bytes::copy_from_slice(key));
                        self.effects.push(Effect::Differs { db, key });
                    }
                    let p = self
                        .partitions
                        .get(usize::from(entry.partition))
                        .and_then(Option::as_ref);
                    let counts = !entry.released && p.and_then(Partition::primary) == Some(node);
                    if counts {
                        entry.reply = Some((chunk.slice(at), resp3));
                        entry.digest = Some(digest);
                    }
                    parted = Some(counts);
                }
                Some(_) => {}
            }
        } else if entry.reply.is_none() {
            entry.reply = Some((chunk.slice(at), resp3));
        }
        if let Some(counts) = parted {
            // Before anybody's acknowledgement counts.
            self.part(node, pos, counts);
        }
        let Some(entry) = self.log.get_mut(pos) else {
            return differs;
        };
        let mut safe = true;
        for i in 0..entry.partitions() {
            let Some((partition, seq)) = entry.part(i) else {
                continue;
            };
            let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
                continue;
            };
            if let Some((i, bit)) = p.bit_of(node)
                && p.streaming & bit != 0
                && let Some(replica) = p.replicas.get_mut(i)
            {
                replica.acked = replica.acked.max(seq);
                if p.live & bit == 0 && seq >= p.committed {
                    self.effects.extend(p.go_live(partition, bit));
                }
            }
            safe &= p.settle(seq, write_quorum);
        }
        if safe && !entry.released {
            release(entry, &mut self.effects, &mut self.again);
        }
        differs
    }

    /// Orders what has followed from replies: stream entries whose ids were already in the past, and repairs.
    pub(super) fn order_again(&mut self) {
        for request in std::mem::take(&mut self.again) {
            self.order(request);
        }
    }

    /// Looks through the log for writes that have become safe without an acknowledgement: after a change of a set.
    pub(super) fn release_all_safe(&mut self) {
        let write_quorum = self.settings.write_quorum;
        for p in self.partitions.iter_mut().flatten() {
            p.raise_committed(write_quorum);
        }
        // All before the first one that is not answered are.
        let open = self.log.first_open().unwrap_or(LogPos::MAX);
        for pos in open..self.log.end() {
            let Some(entry) = self.log.get_mut(pos) else {
                continue;
            };
            if entry.released || entry.reply.is_none() {
                continue;
            }
            if links::is_safe(&self.partitions, entry) {
                release(entry, &mut self.effects, &mut self.again);
            }
        }
        self.order_again();
    }
}
/// Answers the client of a safe write; or, if all nodes have refused a form of ours, has it ordered again in another one.
pub(super) fn release(entry: &mut Entry, effects: &mut Vec<Effect>, again: &mut Vec<Request>) {
    entry.released = true;
    let Some((frames, resp3)) = entry.reply.take() else {
        return;
    };
    if let Some(chance) = entry.commands.second_chance.take()
        && second_chance(RewriteRule::Add, &chance.args(), &frames).is_some()
    {
        return again.push(Request {
            partition: entry.partition,
            db: entry.db,
            action: Action::Decide(chance),
            under: HoldId::NONE,
            reply_to: entry.reply_to,
        });
    }
    let outcome = match entry.conclusion.take() {
        None => Outcome::Reply { frames, resp3 },
        Some(conclusion) => {
            let mut rest = &frames[..];
            let mut replies: SmallVec<[&[u8]; 2]> = SmallVec::new();
            while !rest.is_empty()
                && let Ok(Some((len, _))) = ReplyScanner::default().scan(rest, 1)
                && let Some((reply, after)) = rest.split_at_checked(len)
            {
                replies.push(reply);
                rest = after;
            }
            Outcome::Reply {
                frames: conclusion.finish(replies.iter().copied()),
                resp3: true,
            }
        }
    };
    effects.push(Effect::Complete(entry.reply_to, outcome));
}
