//! From a client's command to requests for owners.

use std::rc::Rc;

use bytes::Bytes;

use super::notice::UNKNOWN;
use super::scripts::ScriptUse;
use super::stripe::{Guards, Taken};
use super::subscriptions::may_listener_send;
use super::touched::databases_named;
use crate::command::spec::Flags;
use crate::command::{Command, Special};
use crate::request::PartitionId;
use crate::resp::{Args, Spans, encode};
use crate::ring::Keyspace;
use crate::router::{self, Route, route};
use crate::worker::{Core, Worker};

/// What the client's task does after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Goes on with the next one.
    Next,
    /// Takes up the same one again when something has been answered.
    Again,
    /// Reads no more.
    Leave,
}

impl Worker {
    /// Takes up one command of a client.
    pub(super) fn take_up(self: &Rc<Self>, core: &mut Core, id: u32, frame: &Bytes, spans: &Spans) -> Flow {
        let mut inside = Guards::new();
        let flow = self.take_up_inside(core, id, frame, spans, &mut inside);
        self.leave(core, inside);
        flow
    }

    fn take_up_inside(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        frame: &Bytes,
        spans: &Spans,
        inside: &mut Guards,
    ) -> Flow {
        let args = Args { bytes: frame, spans };
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if client.gone || client.closing {
            return Flow::Leave;
        }
        if client.busy {
            return Flow::Again;
        }
        client.command = UNKNOWN;
        let command = match self.shared().commands.lookup(&args) {
            Ok(command) => command,
            // Whatever comes with it, the transaction ends.
            Err(error) if args.arg(0).eq_ignore_ascii_case(b"EXEC") => {
                client.session.transaction = None;
                let watch = client.session.watch.take();
                self.forget_watch(watch);
                return self.reply(core, id, error.aborting().to_bytes());
            }
            Err(error) => {
                client.spoil_transaction();
                return self.reply(core, id, error.to_bytes());
            }
        };
        if !client.session.authenticated
            && !command.flags.contains(Flags::NO_AUTH)
            && command.special != Special::Quit
        {
            return self.refuse(core, id, NOAUTH);
        }
        client.command = command.index;
        if let Some(flow) = self.is_held(core, id, command) {
            return flow;
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if client.only_listens() && !may_listener_send(command.special) {
            return self.refuse_listener(core, id, command);
        }
        let in_transaction = client.session.transaction.is_some();
        let other_form;
        let (frame, spans) = match &self.shared().stripes {
            Some(stripes) if !in_transaction => {
                match self.take_up_striped(core, id, stripes, command, frame, spans) {
                    Taken::AsIs => (frame, spans),
                    Taken::As(frame, spans, guards) => {
                        *inside = guards;
                        other_form = (frame, spans);
                        (&other_form.0, &other_form.1)
                    }
                    Taken::Done(flow) => return flow,
                }
            }
            _ => (frame, spans),
        };
        let args = Args { bytes: frame, spans };
        let route = self.route(command, &args);
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if command.flags.contains(Flags::DENYOOM) && self.is_full(&route, command, &args) {
            client.spoil_transaction();
            return self.refuse(core, id, OOM);
        }
        // What is pushed to a client changes its form with it.
        if command.special == Special::Hello && client.subscriptions.is_some() && !client.slots.is_empty() {
            return Flow::Again;
        }
        if self.shared().admissions.any_busy() && self.is_busy(&route, command, &args) {
            client.spoil_transaction();
            return self.refuse(core, id, BUSY);
        }
        let script = match self.script_of(core, id, command, &args, in_transaction) {
            Ok(script) => script,
            // A script that does not compile is queued like any other command.
            Err(Flow::Next) if self.has_fault(core, id) => None,
            Err(flow) => return flow,
        };
        if in_transaction
            && (route != Route::Transaction || command.special == Special::Unwatch)
            && command.special != Special::Quit
            && command.special != Special::Reset
        {
            return self.queue(core, id, command, frame, spans, &route);
        }
        match route {
            Route::Local => self.local(core, id, command, &args),
            Route::Transaction => self.transaction(core, id, command.special, &args),
            Route::PubSub => self.pubsub(core, id, command, frame, &args),
            Route::Pool(pool) => self.pool_wide(core, id, command, pool, frame, spans),
            Route::Refused(line) | Route::Invalid(line) => self.reply(core, id, line),
            Route::One { partition, write } if keyed_scan(command.special) && !write => {
                self.scan_key(core, id, partition, &args)
            }
            Route::One { partition, write } => {
                let everywhere = script.as_ref().is_some_and(ScriptUse::is_everywhere);
                match everywhere.then(|| self.together(command, &args, true)).flatten() {
                    Some(all) => self.send_joint(core, id, command, all, frame, spans, script),
                    None => self.send_one(core, id, command, partition, write, frame, spans, script),
                }
            }
            Route::Across => {
                let everywhere = script.as_ref().is_some_and(ScriptUse::is_everywhere);
                // What one node decides first is decided for one partition.
                let joint = match command.rewrite {
                    Some(_) => None,
                    None => self.together(command, &args, everywhere),
                };
                match (joint, script) {
                    (Some(partitions), script) => {
                        self.send_joint(core, id, command, partitions, frame, spans, script)
                    }
                    (None, Some(script)) => self.send_script_across(core, id, command, frame, spans, script),
                    (None, None) => self.send_across(core, id, command, frame, spans),
                }
            }
            Route::Blocking(timeout) => self.block(core, id, command, timeout, frame, spans),
            Route::Several {
                merge,
                write,
                parts,
                step,
            } => self.send_several(core, id, command, merge, write, &parts, step, &args),
        }
    }

    /// Notes whether a write may give a key of its partition a time to live.
    pub(super) fn note_expiry(&self, partition: PartitionId, command: &Command, args: &Args<'_>) {
        use Special::*;
        let may = match command.special {
            Setex | Psetex | Expire | Pexpire | Expireat | Pexpireat | Restore | Eval | Evalsha | Fcall => {
                true
            }
            Set | Getex | Copy => args.len() > 3,
            _ => false,
        };
        if may {
            self.shared().note_expiry(partition);
        }
    }

    pub(super) fn route(&self, command: &Command, args: &Args<'_>) -> Route {
        if command.special == Special::Copy && self.copies_out_of_sight(args) {
            return Route::Invalid(encode::error(DB_RANGE));
        }
        route(command, args, &self.shared().keyspace)
    }

    /// The same for a command that must not wait, whatever it says.
    pub(super) fn route_at_once(&self, command: &Command, args: &Args<'_>) -> Route {
        if command.special == Special::Copy && self.copies_out_of_sight(args) {
            return Route::Invalid(encode::error(DB_RANGE));
        }
        router::route_at_once(command, args, &self.shared().keyspace)
    }

    fn has_fault(&self, core: &Core, id: u32) -> bool {
        let transaction = core
            .clients
            .get(id as usize)
            .and_then(|c| c.session.transaction.as_ref());
        transaction.is_some_and(|t| t.fault.is_some())
    }

    /// `COPY … DB n` to a database that clients do not have.
    fn copies_out_of_sight(&self, args: &Args<'_>) -> bool {
        let number = |n: &[u8]| std::str::from_utf8(n).ok()?.parse::<u16>().ok();
        databases_named(args)
            .filter_map(number)
            .any(|db| !self.shared().has_database(db))
    }

    /// Whether a node that the command would go to is nearly out of memory.
    fn is_full(&self, route: &Route, command: &Command, args: &Args<'_>) -> bool {
        let table = self.shared().table.load();
        any_partition(route, command, args, &self.shared().keyspace, |partition| {
            let row = table.rows.get(usize::from(partition));
            self.shared()
                .admissions
                .is_full(row.into_iter().flat_map(|row| row.replicas.iter().copied()))
        })
    }

    /// The same of one partition.
    pub(super) fn is_partition_full(&self, partition: PartitionId) -> bool {
        let table = self.shared().table.load();
        let row = table.rows.get(usize::from(partition));
        let replicas = row.into_iter().flat_map(|row| row.replicas.iter().copied());
        self.shared().admissions.is_full(replicas)
    }

    /// Whether so many nodes say that they execute a script that the command would wait for its end.
    fn is_busy(&self, route: &Route, command: &Command, args: &Args<'_>) -> bool {
        let table = self.shared().table.load();
        let needed = (table.write_quorum).max(table.replicas + 1 - table.write_quorum.min(table.replicas));
        any_partition(route, command, args, &self.shared().keyspace, |partition| {
            let row = table.rows.get(usize::from(partition));
            let replicas = row.into_iter().flat_map(|row| row.replicas.iter());
            let free = replicas.filter(|node| !self.shared().admissions.is_busy(**node));
            (free.count() as u32) < needed
        })
    }

    /// Answers at once.
    pub(super) fn reply(&self, core: &mut Core, id: u32, bytes: impl Into<Bytes>) -> Flow {
        let bytes = bytes.into();
        if bytes.first() == Some(&b'-') {
            self.metrics().errors.add(1);
            self.metrics().by_error.note(&bytes);
        }
        if let Some(client) = core.clients.get_mut(id as usize) {
            client.reply(bytes);
            if !client.dirty {
                client.dirty = true;
                core.dirty.push(id);
            }
        }
        Flow::Next
    }

    /// Answers with an error line.
    pub(crate) fn refuse(&self, core: &mut Core, id: u32, line: &str) -> Flow {
        self.reply(core, id, encode::error(line))
    }
}

pub(super) const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const DB_RANGE: &str = "ERR DB index is out of range";
const NOAUTH: &str = "NOAUTH Authentication required.";

/// Whether something is true of any of the partitions that a command would go to.
fn any_partition(
    route: &Route,
    command: &Command,
    args: &Args<'_>,
    keyspace: &Keyspace,
    is_so: impl Fn(PartitionId) -> bool,
) -> bool {
    match route {
        Route::One { partition, .. } => is_so(*partition),
        Route::Several { parts, .. } => parts.iter().any(|(partition, _)| is_so(*partition)),
        Route::Across | Route::Blocking(_) => {
            let mut keys = command.keys(args).into_iter().flatten();
            keys.any(|key| is_so(keyspace.partition_of(args.arg(key as usize))))
        }
        _ => false,
    }
}

fn keyed_scan(special: Special) -> bool {
    matches!(special, Special::Hscan | Special::Sscan | Special::Zscan)
}
