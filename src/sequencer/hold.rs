//! Commands that one node decides first: `SPOP`, claims by idle time, `SORT … BY … STORE`.
//!
//! Executed as they are they would differ from node to node. So the partition is held (later requests wait in line),
//! one node is asked with a command that changes nothing, what follows from the answer is written to all at the next
//! place of the order, and the partition is let go. A crash in between has changed nothing.

use std::collections::VecDeque;

use bytes::Bytes;

use super::reads::Purpose;
use super::{Effect, Sequencer};
use crate::command::spec::Compare;
use crate::request::{Commands, Decide, Outcome, PartitionId, Refusal, ReplyTo, Touched};

impl Sequencer {
    pub(super) fn order_decide(&mut self, partition: PartitionId, db: u16, decide: Box<Decide>, to: ReplyTo) {
        let min = self.settings.min_in_sync;
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        if p.available() < min {
            return self.refuse(to, Refusal::TooFewNodes);
        }
        p.held = Some(VecDeque::new());
        let probe = decide.decision.probe(&decide.args());
        self.ask(partition, db, Commands::one(probe), Purpose::Probe(decide, to), 0);
    }

    /// The probe has been answered.
    pub(super) fn decided(
        &mut self,
        partition: PartitionId,
        db: u16,
        decide: Decide,
        to: ReplyTo,
        reply: &Bytes,
    ) {
        let conclusion = decide.decision.conclude(&decide.args(), reply, self.pool_ms);
        let frame = match conclusion.write.as_slice() {
            [] => {
                let frames = conclusion.finish([]);
                self.effects
                    .push(Effect::Complete(to, Outcome::Reply { frames, resp3: true }));
                return self.let_go(partition);
            }
            [one] => one.clone(),
            several => several.concat().into(),
        };
        let commands = Commands {
            frame,
            count: conclusion.write.len() as u32,
            compare: Compare::Exact,
            // Rare enough that the account may name the whole partition rather than the key.
            touched: Touched::Partition,
            scripts: None,
            second_chance: None,
        };
        self.order_write(partition, db, commands, to, Some(Box::new(conclusion)));
        self.let_go(partition);
    }

    /// Orders what has waited, up to the next command that has to be decided.
    pub(super) fn let_go(&mut self, partition: PartitionId) {
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(mut waiting) = p.held.take() else { return };
        while let Some(request) = waiting.pop_front() {
            self.order(request);
            if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition))
                && let Some(held) = &mut p.held
            {
                held.append(&mut waiting);
            }
        }
    }
}
