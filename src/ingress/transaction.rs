//! `MULTI` and what follows it, up to `EXEC` (`exec`); `WATCH` (`watch`).

use std::rc::Rc;

use bytes::Bytes;

use super::client::Client;
use super::dispatch::Flow;
use crate::command::spec::Pool;
use crate::command::{Command, Special};
use crate::limits;
use crate::resp::{Args, Spans, encode};
use crate::router::Route;
use crate::worker::{Core, Worker};

/// What is between `MULTI` and `EXEC`.
#[derive(Debug, Default)]
pub struct Transaction {
    pub(super) commands: Vec<(Bytes, Spans)>,
    /// What is known to be wrong with the command that comes next: a script that does not compile.
    pub(super) fault: Option<Bytes>,
    /// The same for commands that are queued, by their number.
    pub(super) faults: Vec<(usize, Bytes)>,
    pub(super) bytes: usize,
    /// A command was refused, so `EXEC` will be.
    pub(super) spoilt: bool,
    /// It publishes or subscribes.
    pub(super) pubsub: bool,
}

impl Client {
    /// Notes that a command of an open transaction was refused.
    pub(super) fn spoil_transaction(&mut self) {
        if let Some(transaction) = &mut self.session.transaction {
            transaction.spoilt = true;
        }
    }
}

impl Worker {
    /// `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.
    pub(super) fn transaction(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        special: Special,
        args: &Args<'_>,
    ) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let open = client.session.transaction.is_some();
        match special {
            Special::Multi if open => self.refuse(core, id, "ERR MULTI calls can not be nested"),
            Special::Multi => {
                client.session.transaction = Some(Box::default());
                self.reply_queued(core, id, OK)
            }
            Special::Discard if !open => self.refuse(core, id, "ERR DISCARD without MULTI"),
            Special::Discard => {
                client.session.transaction = None;
                let watch = client.session.watch.take();
                self.forget_watch(watch);
                self.reply(core, id, OK)
            }
            Special::Exec if !open => self.refuse(core, id, "ERR EXEC without MULTI"),
            Special::Exec => self.exec(core, id),
            Special::Watch if open => self.refuse(core, id, "ERR WATCH inside MULTI is not allowed"),
            Special::Unwatch => {
                let watch = client.session.watch.take();
                self.forget_watch(watch);
                self.reply(core, id, OK)
            }
            _ => self.watch(core, id, args),
        }
    }

    /// Keeps a command for `EXEC`.
    pub(super) fn queue(
        &self,
        core: &mut Core,
        id: u32,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
        route: &Route,
    ) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let refusal = match route {
            Route::Refused(line) => Some(line.clone()),
            Route::Pool(Pool::Scripts) if changes_library(command.special) => Some(encode::error(
                "ERR what changes functions, or forgets scripts, cannot be part of a transaction: send it before",
            )),
            Route::Pool(Pool::Scripts | Pool::Flush) => None,
            Route::Pool(_) => Some(encode::error(
                "ERR a command about the whole pool (SCAN, KEYS, FLUSHDB, SCRIPT, …) cannot be part of a transaction",
            )),
            _ if command.flags.contains(crate::command::Flags::NO_MULTI) => {
                Some(encode::error("ERR Command not allowed inside a transaction"))
            }
            _ => None,
        };
        if let Some(line) = refusal {
            client.spoil_transaction();
            return self.reply(core, id, line);
        }
        let bytes_max = self.shared().config.limits.command_max.as_u64() as usize;
        if let Some(transaction) = &mut client.session.transaction {
            transaction.bytes += frame.len();
            if transaction.commands.len() >= limits::TRANSACTION_COMMANDS_MAX || transaction.bytes > bytes_max
            {
                transaction.spoilt = true;
                transaction.commands.clear();
                return self.refuse(
                    core,
                    id,
                    "ERR the transaction is larger than the limit for one command (setting limits.command_max)",
                );
            }
            if let Some(fault) = transaction.fault.take() {
                transaction.faults.push((transaction.commands.len(), fault));
            }
            transaction.pubsub |= *route == Route::PubSub;
            transaction.commands.push((frame.clone(), spans.clone()));
        }
        self.reply_queued(core, id, Bytes::from_static(b"+QUEUED\r\n"))
    }

    fn reply_queued(&self, core: &mut Core, id: u32, bytes: Bytes) -> Flow {
        if let Some(client) = core.clients.get_mut(id as usize) {
            client.reply_queued(bytes);
            if !client.dirty {
                client.dirty = true;
                core.dirty.push(id);
            }
        }
        Flow::Next
    }
}

fn changes_library(special: Special) -> bool {
    use Special::*;
    matches!(
        special,
        ScriptFlush | FunctionLoad | FunctionDelete | FunctionFlush | FunctionRestore
    )
}

pub(super) const OK: Bytes = Bytes::from_static(b"+OK\r\n");
