//! A command in the form in which nodes get it, and as requests to the owners of its keys.

use bytes::Bytes;
use smallvec::SmallVec;

use super::client::Client;
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use super::scripts::ScriptUse;
use super::touched::{touched_as, touched_by};
use crate::command::decide::Decision;
use crate::command::rewrite::{Form, PoolClock, RewriteRule, deterministic};
use crate::command::spec::{Compare, Merge};
use crate::command::{Command, Special};
use crate::request::{Action, Brings, Commands, Decide, HoldId, PartitionId, ReplyTo, Request, Touched};
use crate::resp::{Args, Spans, encode, frame_of};
use crate::worker::{Core, Worker};

/// A command in the form in which nodes get it.
pub(super) enum Prepared {
    Commands(Commands),
    Decide(Box<Decide>),
}

impl Worker {
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

    #[allow(
        clippy::too_many_arguments,
        reason = "a command and where it goes; bundling them would only rename it"
    )]
    pub(super) fn send_one(
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
    pub(super) fn send_several(
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
        clock: &mut PoolClock,
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

/// A split command's part for one partition: its name, and `step` arguments from each of its keys on.
pub(super) fn part_of(args: &Args<'_>, keys: &[u32], step: usize, compare: Compare) -> Commands {
    let mut all: Vec<&[u8]> = Vec::with_capacity(1 + keys.len() * step);
    all.push(args.arg(0));
    for &key in keys {
        all.extend((key as usize..key as usize + step).map(|i| args.arg(i)));
    }
    let (frame, spans) = frame_of(&all);
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
