//! Commands whose keys are in several partitions.
//!
//! All of them are held, so that nobody sees what is between the steps. An element that moves is put where it goes before it is
//! taken from where it was: whatever dies in between, it is there. Other commands are executed as they are, on copies: the
//! values of their keys are read where they are, put side by side into a corner of one node's bookkeeping database, the command
//! is executed there (in one transaction that also clears up), and what it has made of its keys is written to their partitions.

mod copies;
mod steps;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use self::steps::{Side, side};
use super::answer::SYNTAX;
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use super::procedure::{Procedure, Step, answer, replies, reply, write_of};
use super::scripts::ScriptUse;
use super::send::Prepared;
use crate::command::{Command, KeyPositions, Special, dump};
use crate::request::{Action, Brings, Commands, Outcome, PartitionId, Refusal, Script, Touched, WhereParted};
use crate::resp::{Args, Spans, encode};
use crate::ring::Keyspace;
use crate::router::CROSSSLOT;
use crate::worker::{Core, Worker};

const NULL: &[u8] = b"_\r\n";

/// One command across partitions.
pub(super) struct Across {
    special: Special,
    args: Vec<Bytes>,
    /// Positions of its keys, and of those that it may change.
    keys: KeyPositions,
    written: KeyPositions,
    /// For a command that looks at its keys in turn: what is asked for each.
    parts: Vec<Part>,
    /// What a node must know to execute it.
    scripts: Option<Box<[Arc<Script>]>>,
    /// As one write of these partitions, if they live on the same nodes.
    joint: Option<(Box<[PartitionId]>, Commands)>,
    /// Whether there is another way.
    can_be_in_steps: bool,
    keyspace: Arc<Keyspace>,
    databases_max: u16,
    question: dump::Question,
}

/// What is asked for one of a command's keys.
pub(super) struct Part {
    pub(super) partition: PartitionId,
    pub(super) key: Bytes,
    pub(super) action: Action,
}

impl Worker {
    /// Executes a command whose keys are in several partitions.
    pub(super) fn send_across(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
    ) -> Flow {
        let across = match self.across(core, command, frame, spans) {
            Ok(across) => across,
            Err(error) => return self.reply(core, id, error),
        };
        let rule = command.downgrade(spans.len());
        self.proceed(core, id, rule, |mut procedure| async move {
            let outcome = across.execute(&mut procedure).await.unwrap_or_else(|end| end);
            (procedure, outcome)
        })
    }

    /// The same of a script that keeps to the keys which it declares: its text proves it, or the guard in front sees to it.
    pub(super) fn send_script_across(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
        script: ScriptUse,
    ) -> Flow {
        let args = Args { bytes: frame, spans };
        let keys = match command.keys(&args) {
            Ok(keys) => keys,
            Err(error) => return self.reply(core, id, error.to_bytes()),
        };
        // The guard lets a script touch what lives with a declared key, by its hash tag or a rule, and of that there are no copies.
        let keyspace = &self.shared().keyspace;
        let is_tagged = |&key: &u32| keyspace.shared_by(args.arg(key as usize)).is_some();
        let can_be_in_steps = script.keeps_to_its_keys() || !keys.iter().any(is_tagged);
        let together = self.together(command, &args, false);
        if !can_be_in_steps && together.is_none() {
            return self.refuse(core, id, CROSSSLOT);
        }
        let (commands, finish) = script.prepare(command, frame, &args, core.clock.now_ms);
        let words = super::gather::words_of(&commands.frame);
        let across = Across {
            special: command.special,
            args: words,
            parts: Vec::new(),
            written: keys.clone(),
            keys,
            scripts: commands.scripts.clone(),
            joint: together.map(|partitions| (partitions, commands)),
            can_be_in_steps,
            keyspace: self.shared().keyspace.clone(),
            databases_max: self.shared().databases,
            question: self.shared().question(),
        };
        let open = |client: &mut super::Client, now_us| match finish {
            Some(finish) => client.expect_parts(Gather::new(Recipe::Script(finish), 1), now_us),
            None => client.expect_one(command.downgrade(spans.len()), now_us),
        };
        self.proceed_in(core, id, open, |mut procedure| async move {
            let outcome = across.execute(&mut procedure).await.unwrap_or_else(|end| end);
            (procedure, outcome)
        })
    }

    /// The command, taken apart; or what is wrong with it.
    pub(super) fn across(
        &self,
        core: &mut Core,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
    ) -> Result<Across, Bytes> {
        let args = &Args { bytes: frame, spans };
        let keys = command.keys(args).map_err(|error| error.to_bytes())?;
        has_side(command.special, args, &keys)?;
        // What one node decides first is decided for one partition.
        let joint = match command.rewrite {
            Some(_) => None,
            None => self.together(command, args, false),
        };
        let joint = joint.and_then(
            |partitions| match self.prepare(&mut core.clock, command, frame, spans) {
                Prepared::Commands(commands) => Some((partitions, commands)),
                Prepared::Decide(_) => None,
            },
        );
        let written = command.keys_written(args).map_err(|error| error.to_bytes())?;
        Ok(Across {
            special: command.special,
            args: args.iter().map(|arg| frame.slice_ref(arg)).collect(),
            parts: self.parts_of(command, args, &keys),
            keys,
            written,
            scripts: None,
            joint,
            can_be_in_steps: true,
            keyspace: self.shared().keyspace.clone(),
            databases_max: self.shared().databases,
            question: self.shared().question(),
        })
    }
}

/// Commands that take from one side of the first key that has anything must say which: nodes would refuse their parts before they
/// execute anything.
pub(super) fn has_side(special: Special, args: &Args<'_>, keys: &KeyPositions) -> Result<(), Bytes> {
    let takes = matches!(
        special,
        Special::Lmpop | Special::Blmpop | Special::Zmpop | Special::Bzmpop
    );
    let behind = keys.last().map_or(0, |&key| key as usize + 1);
    match takes && args.len() <= behind {
        true => Err(encode::error(SYNTAX)),
        false => Ok(()),
    }
}

impl Worker {
    /// A command that looks at its keys in turn, key by key.
    pub(super) fn parts_of(&self, command: &Command, args: &Args<'_>, keys: &KeyPositions) -> Vec<Part> {
        if !matches!(
            command.special,
            Special::Lmpop | Special::Zmpop | Special::Xread | Special::Xreadgroup
        ) && command.timeout(args).is_none()
        {
            return Vec::new();
        }
        let part = |i: usize| {
            let (part, keys) = command.part(args, keys, i);
            let keys: Vec<usize> = keys.iter().map(|&key| key as usize).collect();
            let commands = Commands {
                brings: command.brings(args),
                in_multi: true,
                ..write_of(&part, &keys)
            };
            let key = keys.first().and_then(|&key| part.get(key)).copied();
            let key = Bytes::copy_from_slice(key.unwrap_or_default());
            Part {
                partition: self.shared().keyspace.partition_of(&key),
                key,
                action: match command.special {
                    Special::Xread => Action::Read(commands),
                    _ => Action::Write(commands),
                },
            }
        };
        (0..keys.len()).map(part).collect()
    }
}

/// What is new in each of several streams, asked at once, as one reply.
pub(super) async fn news_of(p: &Procedure, parts: &[Part]) -> Step<Bytes> {
    let asked = parts
        .iter()
        .map(|part| (part.partition, p.db, part.action.clone()));
    let outcomes = p.ask_all(asked.collect()).await;
    let news: Step<Vec<Bytes>> = outcomes.into_iter().map(reply).collect();
    Ok(one_map(&news?))
}

/// Several `XREAD`s' replies as one; those without news are left out.
fn one_map(replies: &[Bytes]) -> Bytes {
    let streams: Vec<&[u8]> = replies
        .iter()
        .flat_map(|reply| super::gather::elements(reply))
        .collect();
    if streams.is_empty() {
        return Bytes::from_static(NULL);
    }
    let mut out = bytes::BytesMut::new();
    encode::header(&mut out, b'%', streams.len() / 2);
    streams.iter().for_each(|part| out.extend_from_slice(part));
    out.freeze()
}

impl Across {
    fn arg(&self, i: usize) -> &[u8] {
        self.args.get(i).map(|arg| &arg[..]).unwrap_or_default()
    }

    fn at(&self, key: usize) -> PartitionId {
        self.keyspace.partition_of(self.arg(key))
    }

    /// The partitions that it needs.
    pub(super) fn held(&self) -> Vec<PartitionId> {
        self.keys.iter().map(|&key| self.at(key as usize)).collect()
    }

    pub(super) async fn execute(&self, p: &mut Procedure) -> Step<Outcome> {
        p.hold(self.held()).await?;
        if let Some((partitions, commands)) = &self.joint
            && let Some(&first) = partitions.first()
        {
            // Once ordered it passes for something that may have come where it goes: two who wait to move to each other's keys, and find
            // nothing, would try for ever. (Within one partition: `Sequencer::brought`. In steps it looks first in any case.)
            if matches!(self.special, Special::Blmove | Special::Brpoplpush) && self.is_empty(p, 1).await? {
                return Ok(answer(NULL));
            }
            let joint = Action::Joint(partitions.clone(), commands.clone(), WhereParted::Refuse);
            match p.ask(first, p.db, joint).await {
                Outcome::Refused(Refusal::Parted) if self.can_be_in_steps => {}
                outcome => return Ok(outcome),
            }
        }
        let mut written: Vec<PartitionId> = self.written.iter().map(|&key| self.at(key as usize)).collect();
        written.sort_unstable();
        written.dedup();
        if written.len() > 1 {
            p.make_sure(&written).await?;
        }
        match self.special {
            Special::Lmove | Special::Blmove => match (side(self.arg(3)), side(self.arg(4))) {
                (Some(from), Some(to)) => self.move_element(p, from, to).await,
                _ => Ok(answer(encode::error(SYNTAX))),
            },
            Special::Rpoplpush | Special::Brpoplpush => self.move_element(p, Side::Right, Side::Left).await,
            Special::Smove => self.move_member(p).await,
            Special::Rename => self.rename(p, false).await,
            Special::Renamenx => self.rename(p, true).await,
            Special::Copy => self.copy(p).await,
            Special::Msetnx => self.set_all(p).await,
            Special::Xread | Special::Xreadgroup => self.read_streams(p).await,
            _ if !self.parts.is_empty() => self.pop_first(p).await,
            _ => self.on_copies(p).await,
        }
    }

    async fn value(&self, p: &Procedure, key: usize) -> Step<Bytes> {
        let outcome = p.ask(self.at(key), p.db, self.ask_for(key)).await;
        Ok(self.question.value(replies(outcome)?.concat()))
    }

    fn ask_for(&self, key: usize) -> Action {
        Action::Read(Commands {
            count: self.question.count(),
            ..Commands::one(self.question.about(self.arg(key)))
        })
    }

    async fn is_there(&self, p: &Procedure, key: usize, db: u16) -> Step<bool> {
        let exists = Commands::one(encode::command_frame(&[b"EXISTS", self.arg(key)]));
        let there = reply(p.ask(self.at(key), db, Action::Read(exists)).await)?;
        Ok(there.starts_with(b":1"))
    }

    /// Whether there is no element in a list.
    async fn is_empty(&self, p: &Procedure, key: usize) -> Step<bool> {
        let length = p.read(self.at(key), &[&[b"LLEN", self.arg(key)]]).await?;
        Ok(length.first().is_some_and(|length| length.starts_with(b":0")))
    }

    /// Makes a key what a value that was read says.
    async fn put(&self, p: &Procedure, key: usize, db: u16, value: &[u8]) -> Step<()> {
        let Some((frame, span)) = dump::restore(self.arg(key), value) else {
            return Err(answer(encode::error("ERR the node's answer was not understood")));
        };
        p.worker.shared().note_expiry(self.at(key));
        let commands = Commands {
            touched: Touched::Keys(smallvec::smallvec![span]),
            brings: Brings::Unknown,
            ..Commands::one(frame)
        };
        reply(p.ask(self.at(key), db, Action::Write(commands)).await)?;
        Ok(())
    }
}
