//! From a client's command to requests for owners.

use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::client::Client;
use super::gather::{Gather, Recipe};
use super::notice::UNKNOWN;
use super::scripts::ScriptUse;
use super::stripe::{Guards, Taken};
use super::subscriptions::may_listener_send;
use super::touched::{databases_named, touched_as, touched_by};
use crate::command::decide::Decision;
use crate::command::rewrite::{Form, RewriteRule, deterministic};
use crate::command::spec::{Compare, Flags, Merge};
use crate::command::{Command, Special};
use crate::request::{Action, Brings, Commands, Decide, HoldId, PartitionId, ReplyTo, Request, Touched};
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

/// A command in the form in which nodes get it.
pub(super) enum Prepared {
    Commands(Commands),
    Decide(Box<Decide>),
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

    /// A writing command for one partition.
    pub(super) fn action_of(
        &self,
        core: &mut Core,
        partition: PartitionId,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
    ) -> Action {
        match self.prepare(&mut core.clock, command, frame, spans) {
            Prepared::Decide(decide) => Action::Decide(decide),
            Prepared::Commands(commands) => {
                self.write_action(partition, command, &Args { bytes: frame, spans }, commands)
            }
        }
    }

    /// A write; with an `EXISTS` before it if its reply would not tell that its key has just expired on one node and not
    /// yet on another (time stands still inside a batch). A difference then shows, and the key is repaired.
    fn write_action(
        &self,
        partition: PartitionId,
        command: &Command,
        args: &Args<'_>,
        commands: Commands,
    ) -> Action {
        self.note_expiry(partition, command, args);
        let silent = match command.special {
            Special::Hset
            | Special::Hmset
            | Special::Sadd
            | Special::Zadd
            | Special::Pfadd
            | Special::Setrange => true,
            Special::Set => args
                .iter()
                .skip(3)
                .any(|word| word.eq_ignore_ascii_case(b"KEEPTTL")),
            _ => false,
        };
        if !silent || self.shared().config.pool.replicas == 1 || !self.shared().may_expire(partition) {
            return Action::Write(commands);
        }
        let exists = encode::command_frame(&[b"EXISTS", args.arg(1)]);
        Action::Probed(Commands {
            count: 2,
            ..commands.behind(&exists)
        })
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

    #[allow(
        clippy::too_many_arguments,
        reason = "a command and where it goes; bundling them would only rename it"
    )]
    fn send_one(
        &self,
        core: &mut Core,
        id: u32,
        command: &Command,
        partition: PartitionId,
        write: bool,
        frame: &Bytes,
        spans: &Spans,
        script: Option<ScriptUse>,
    ) -> Flow {
        let Core {
            clients,
            clock,
            now_us,
            ..
        } = core;
        let Some(client) = clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if write && client.reads_pending(Some(partition)) {
            return Flow::Again;
        }
        let args = Args { bytes: frame, spans };
        let mut finish = None;
        let prepared = match (script, write) {
            (Some(script), _) => {
                let (commands, to_finish) = script.prepare(command, frame, &args, clock.now_ms);
                finish = to_finish;
                Prepared::Commands(commands)
            }
            (None, true) => self.prepare(clock, command, frame, spans),
            (None, false) => Prepared::Commands(Commands::one(frame.clone())),
        };
        let slot = match finish {
            Some(finish) => client.expect_parts(Gather::new(Recipe::Script(finish), 1), *now_us),
            None => client.expect_one(command.downgrade(spans.len()), *now_us),
        };
        if !write {
            client.note_read(slot, partition);
        }
        let request = Request {
            partition,
            db: client.session.db,
            under: HoldId::NONE,
            reply_to: client.reply_to(self.id(), id, slot, 0),
            action: match prepared {
                Prepared::Decide(decide) => Action::Decide(decide),
                Prepared::Commands(commands) => match write {
                    true => self.write_action(partition, command, &args, commands),
                    false => Action::Read(commands),
                },
            },
        };
        self.submit(core, self.shared().owner_of(partition), request);
        Flow::Next
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a command and where it goes; bundling them would only rename it"
    )]
    fn send_several(
        &self,
        core: &mut Core,
        id: u32,
        command: &Command,
        merge: Merge,
        write: bool,
        parts: &[(PartitionId, Vec<u32>)],
        step: usize,
        args: &Args<'_>,
    ) -> Flow {
        // As far as can be seen from here, all parts are done or none.
        let mut written = parts.iter().filter(|_| write);
        if let Some(refusal) = written.find_map(|(p, _)| core.sequencer.refusal_of_write(*p)) {
            return self.refuse(core, id, refusal.message());
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if write
            && parts
                .iter()
                .any(|(partition, _)| client.reads_pending(Some(*partition)))
        {
            return Flow::Again;
        }
        let place_of = |key: u32| (key - 1) / step as u32;
        let order = parts
            .iter()
            .map(|(_, keys)| keys.iter().map(|&key| place_of(key)).collect())
            .collect();
        let keys = parts.iter().map(|(_, keys)| keys.len()).sum();
        let gather = Gather::new(Recipe::Split { merge, order, keys }, parts.len());
        let slot = client.expect_parts(gather, core.now_us);
        let db = client.session.db;
        let mut requests = Vec::with_capacity(parts.len());
        for (part, (partition, keys)) in parts.iter().enumerate() {
            if !write {
                client.note_read(slot, *partition);
            }
            let commands = part_of(args, keys, step, command.compare);
            let reply_to = client.reply_to(self.id(), id, slot, part as u16);
            let action = if write {
                Action::Write(commands)
            } else {
                Action::Read(commands)
            };
            requests.push(Request {
                partition: *partition,
                db,
                under: HoldId::NONE,
                reply_to,
                action,
            });
        }
        for request in requests {
            self.submit(core, self.shared().owner_of(request.partition), request);
        }
        Flow::Next
    }

    /// Puts a write into the form that has the same effect on every node.
    pub(super) fn prepare(
        &self,
        clock: &mut crate::command::rewrite::PoolClock,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
    ) -> Prepared {
        let args = Args { bytes: frame, spans };
        if let Some(rule) = command.rewrite
            && self.shared().config.pool.replicas > 1
        {
            match deterministic(rule, &args, clock) {
                Form::AsIs => {}
                Form::Decide(decision) => return Prepared::Decide(decide(decision, frame, spans)),
                Form::Rewritten(rewritten) => {
                    let second_chance =
                        (rule == RewriteRule::Add).then(|| decide(Decision::Add, frame, spans));
                    let touched = touched_as(command, &rewritten);
                    return Prepared::Commands(Commands {
                        frame: rewritten,
                        count: 1,
                        compare: command.compare,
                        touched,
                        scripts: None,
                        brings: command.brings(&args),
                        in_multi: false,
                        second_chance,
                    });
                }
            }
        }
        Prepared::Commands(Commands {
            frame: frame.clone(),
            count: 1,
            compare: command.compare,
            touched: touched_by(command, &args),
            scripts: None,
            brings: command.brings(&args),
            in_multi: command.timeout(&args).is_some(),
            second_chance: None,
        })
    }
}

pub(super) const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const DB_RANGE: &str = "ERR DB index is out of range";
const NOAUTH: &str = "NOAUTH Authentication required.";

impl Client {
    /// Where an answer for one of its commands goes.
    pub(super) fn reply_to(&self, worker: u16, id: u32, slot: u64, part: u16) -> ReplyTo {
        ReplyTo {
            worker,
            part,
            client: id,
            generation: self.generation,
            slot,
        }
    }
}

fn decide(decision: Decision, frame: &Bytes, spans: &Spans) -> Box<Decide> {
    Box::new(Decide {
        decision,
        frame: frame.clone(),
        spans: spans.clone(),
    })
}

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

/// A split command's part for one partition: its name, and `step` arguments from each of its keys on.
pub(super) fn part_of(args: &Args<'_>, keys: &[u32], step: usize, compare: Compare) -> Commands {
    let mut all: Vec<&[u8]> = Vec::with_capacity(1 + keys.len() * step);
    all.push(args.arg(0));
    for &key in keys {
        all.extend((key as usize..key as usize + step).map(|i| args.arg(i)));
    }
    let (frame, spans) = crate::resp::frame_of(&all);
    let touched: SmallVec<_> = spans.iter().skip(1).step_by(step).copied().collect();
    Commands {
        frame,
        count: 1,
        compare,
        touched: Touched::Keys(touched),
        scripts: None,
        brings: Brings::Unknown,
        in_multi: false,
        second_chance: None,
    }
}
