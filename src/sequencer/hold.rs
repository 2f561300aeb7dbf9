//! Holds: while a partition is held, later requests wait in line, but for those of the hold.
//!
//! A command that takes several steps, or several partitions, holds what it needs (in the order of the partitions' numbers,
//! so that two never wait for each other), and nobody sees what is between its steps.
//!
//! The owner itself holds a partition for commands that one node decides first: `SPOP`, claims by idle time,
//! `SORT … BY … STORE`. Executed as they are they would differ from node to node. So one node is asked with a command that
//! changes nothing, what follows from the answer is written to all at the next place of the order, and the partition is let
//! go. A crash in between has changed nothing.

use std::collections::VecDeque;

use bytes::Bytes;

use super::reads::Purpose;
use super::{Effect, Sequencer};
use crate::command::decide::Decision;
use crate::command::spec::Compare;
use crate::request::{
    Action, Brings, Commands, Decide, HoldId, Outcome, PartitionId, Refusal, ReplyTo, Request, Touched,
};

/// A partition that is held.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) by: HoldId,
    /// What has come since.
    pub(super) waiting: VecDeque<Request>,
}

impl Sequencer {
    /// Whether what comes now for the partition has to wait.
    pub fn is_held(&self, partition: PartitionId) -> bool {
        let p = self.partitions.get(usize::from(partition));
        p.and_then(Option::as_ref).is_some_and(|p| p.held.is_some())
    }

    /// Holds the partition, which nobody does.
    pub(super) fn hold(&mut self, partition: PartitionId, by: HoldId) {
        if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) {
            p.held = Some(Hold {
                by,
                waiting: VecDeque::new(),
            });
        }
    }

    /// Holds the partition for the owner, or stays under the hold that the request came with.
    pub(super) fn hold_unless_held(&mut self, partition: PartitionId) {
        if !self.is_held(partition) {
            self.hold(partition, HoldId::OWNER);
        }
    }

    pub(super) fn order_decide(&mut self, partition: PartitionId, db: u16, decide: Box<Decide>, to: ReplyTo) {
        let min = self.settings.min_in_sync;
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        if p.available() < min {
            return self.refuse(to, Refusal::TooFewNodes);
        }
        self.hold_unless_held(partition);
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
                return self.let_go(partition, HoldId::OWNER);
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
            brings: match decide.decision {
                Decision::Pop | Decision::Claim | Decision::AutoClaim => Brings::Nothing,
                Decision::SortStore | Decision::Add => Brings::Unknown,
            },
            in_multi: false,
            second_chance: None,
        };
        self.order_write(partition, db, commands, to, Some(Box::new(conclusion)));
        self.let_go(partition, HoldId::OWNER);
    }

    /// Somebody does not want to hold the partition any more, before his turn has come.
    fn withdraw(&mut self, partition: PartitionId, by: HoldId) {
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(hold) = &mut p.held else { return };
        let is_it = |request: &Request| matches!(request.action, Action::Hold) && request.under == by;
        if let Some(at) = hold.waiting.iter().position(is_it)
            && let Some(request) = hold.waiting.remove(at)
        {
            self.refuse(request.reply_to, Refusal::Unconfirmed);
        }
    }

    /// Ends a hold, and orders what has waited, up to the next hold.
    pub(super) fn let_go(&mut self, partition: PartitionId, by: HoldId) {
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(hold) = p.held.take_if(|hold| hold.by == by) else {
            return self.withdraw(partition, by);
        };
        let mut waiting = hold.waiting;
        self.serve_unserved(partition);
        loop {
            if let Some(Some(p)) = self.partitions.get_mut(usize::from(partition))
                && let Some(next) = &mut p.held
            {
                return next.waiting.append(&mut waiting);
            }
            let Some(request) = waiting.pop_front() else {
                return;
            };
            self.order(request);
        }
    }
}
