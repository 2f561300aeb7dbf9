//! Striped queues in transactions: what is needed is looked up before anything is executed.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;

use super::role_of;
use super::translate::{Form, Guards, Needs, When, form};
use crate::command::Special;
use crate::command::number::integer;
use crate::ingress::dispatch::Flow;
use crate::ingress::transaction::Transaction;
use crate::profile::Role;
use crate::resp::{Args, Spans, encode};
use crate::stripe::{Id, Place};
use crate::worker::{Core, Worker};

pub(super) const IN_STEPS: &str = "ERR on a queue that is spread over nodes this takes several steps, and cannot be part of a transaction: send it \
                        by itself";

impl Worker {
    /// What is to be done before a transaction is executed, or in its place, if anything; or where it is inside.
    pub(in crate::ingress) fn exec_striped(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
    ) -> Result<Guards, Flow> {
        let Some(stripes) = self.shared().stripes.as_ref() else {
            return Ok(Guards::new());
        };
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Err(Flow::Leave);
        };
        if let Some(Err(error)) = client.looked_up.take() {
            client.session.transaction = None;
            let watch = client.session.watch.take();
            self.forget_watch(watch);
            return Err(self.reply(core, id, error));
        }
        let Some(transaction) = client.session.transaction.as_ref().filter(|t| !t.spoilt) else {
            return Ok(Guards::new());
        };
        if self.flushes(transaction) {
            // What is on striped queues is refused then.
            return Ok(Guards::new());
        }
        let mut db = client.session.db;
        let mut inside = Guards::new();
        let mut needs = Needs::default();
        let mut created: HashSet<Id> = HashSet::new();
        for (frame, spans) in &transaction.commands {
            let args = Args { bytes: frame, spans };
            let Ok(command) = self.shared().commands.lookup(&args) else {
                continue;
            };
            if command.special == Special::Select
                && let Some(other) = integer(args.arg(1)).and_then(|n| u16::try_from(n).ok())
            {
                db = other;
            }
            match form(
                stripes,
                &self.shared().keyspace,
                db,
                command,
                &args,
                When::BeforeExec,
            ) {
                Form::Stage(item, _) => drop(created.insert(item)),
                Form::One(_, _, guards) | Form::Each(_, _, guards) => inside.extend(guards),
                Form::Needs(mut more) => {
                    more.ids.retain(|item| !created.contains(item));
                    needs.add(more);
                }
                _ => {}
            }
        }
        if !needs.is_empty() {
            let arguments = transaction.commands.iter().map(|(_, spans)| spans.len()).sum();
            return Err(self.look_up(core, id, stripes, needs, arguments));
        }
        if client.session.watch.is_none() && transaction.faults.is_empty() && !transaction.commands.is_empty()
        {
            let now_ms = core.clock.now_ms;
            if let Some(reply) = self.stage_transaction(stripes, client.session.db, transaction, now_ms) {
                client.session.transaction = None;
                return Err(self.reply(core, id, reply));
            }
        }
        Ok(inside)
    }

    /// Whether a transaction removes everything.
    pub(in crate::ingress) fn flushes(&self, transaction: &Transaction) -> bool {
        transaction.commands.iter().any(|(frame, spans)| {
            let command = self.shared().commands.lookup(&Args { bytes: frame, spans });
            command.is_ok_and(|command| matches!(command.special, Special::Flushall | Special::Flushdb))
        })
    }

    /// The form of a command that is being executed in a transaction, which may remove everything.
    pub(in crate::ingress) fn form_in_transaction(
        &self,
        db: u16,
        frame: &Bytes,
        spans: &Spans,
        flushes: bool,
    ) -> Form {
        let args = Args { bytes: frame, spans };
        let Some(stripes) = &self.shared().stripes else {
            return Form::AsIs;
        };
        let Ok(command) = self.shared().commands.lookup(&args) else {
            return Form::AsIs;
        };
        let keyspace = &self.shared().keyspace;
        if flushes {
            // Where its segments are is not true behind the flush.
            let keys = command.keys(&args).unwrap_or_default();
            let is_queue = |&key: &u32| !matches!(role_of(keyspace, args.arg(key as usize)), Role::Plain);
            return match keys.iter().any(is_queue) {
                true => Form::Reply(encode::error(IN_STEPS)),
                false => Form::AsIs,
            };
        }
        match form(stripes, keyspace, db, command, &args, When::InExec) {
            // With other commands, so it is written where its own hash says; an index that names it has it brought.
            Form::Stage(item, _) => {
                stripes.put_place(db, item, Place::Own);
                Form::AsIs
            }
            Form::Script(_)
            | Form::Steps
            | Form::OnLists
            | Form::OnStreams
            | Form::OnKeys
            | Form::Needs(_) => Form::Reply(encode::error(IN_STEPS)),
            other => other,
        }
    }
}
