//! Commands whose keys are in several partitions.
//!
//! All of them are held, so that nobody sees what is between the steps. An element that moves is put where it goes before it is
//! taken from where it was: whatever dies in between, it is there. Other commands are executed as they are, on copies: the
//! values of their keys are read where they are, put side by side into a corner of one node's bookkeeping database, the command
//! is executed there (in one transaction that also clears up), and what it has made of its keys is written to their partitions.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::SYNTAX;
use super::dispatch::{Flow, Prepared};
use super::gather::{Gather, Recipe};
use super::procedure::{Procedure, Step, answer, replies, reply, write_of};
use super::scripts::ScriptUse;
use crate::command::{Command, KeyPositions, Special, dump};
use crate::request::{Action, Brings, Commands, Outcome, PartitionId, Refusal, Script, Touched, WhereParted};
use crate::resp::walk::is_error;
use crate::resp::{Args, Spans, encode};
use crate::ring::Keyspace;
use crate::router::CROSSSLOT;
use crate::worker::{Core, Worker};

/// What a key that is called like ours is called first where a command is executed on copies.
const SCRATCH: &str = "rf:scratch";

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

/// Several `XREAD`s' replies as one; those without news are left out.
pub(super) fn one_map(replies: &[Bytes]) -> Bytes {
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

    async fn move_element(&self, p: &Procedure, from: Side, to: Side) -> Step<Outcome> {
        let end: &[u8] = match from {
            Side::Left => b"0",
            Side::Right => b"-1",
        };
        let found = p.read(self.at(1), &[&[b"LINDEX", self.arg(1), end]]).await?;
        let Some(element) = found.first().and_then(|f| crate::resp::walk::text(f)) else {
            return Ok(answer(NULL));
        };
        let (push, pop): (&[u8], &[u8]) = (
            match to {
                Side::Left => b"LPUSH",
                Side::Right => b"RPUSH",
            },
            match from {
                Side::Left => b"LPOP",
                Side::Right => b"RPOP",
            },
        );
        p.write(self.at(2), p.db, &[push, self.arg(2), element], 1)
            .await?;
        p.write(self.at(1), p.db, &[pop, self.arg(1)], 1).await?;
        Ok(answer(encode::bulk_frame(element)))
    }

    async fn move_member(&self, p: &Procedure) -> Step<Outcome> {
        let found = p
            .read(
                self.at(1),
                &[
                    &[b"EXISTS", self.arg(1)],
                    &[b"SISMEMBER", self.arg(1), self.arg(3)],
                ],
            )
            .await?;
        if found.first().is_some_and(|exists| exists.starts_with(b":0")) {
            return Ok(answer(encode::integer(0)));
        }
        // Only to be told of a wrong type, as the server would.
        p.read(self.at(2), &[&[b"SCARD", self.arg(2)]]).await?;
        if found.get(1).is_some_and(|is_member| is_member.starts_with(b":0")) {
            return Ok(answer(encode::integer(0)));
        }
        p.write(self.at(2), p.db, &[b"SADD", self.arg(2), self.arg(3)], 1)
            .await?;
        p.write(self.at(1), p.db, &[b"SREM", self.arg(1), self.arg(3)], 1)
            .await?;
        Ok(answer(encode::integer(1)))
    }

    async fn rename(&self, p: &Procedure, only_if_new: bool) -> Step<Outcome> {
        let value = self.value(p, 1).await?;
        if !dump::exists(&value) {
            return Ok(answer(encode::error("ERR no such key")));
        }
        if only_if_new && self.is_there(p, 2, p.db).await? {
            return Ok(answer(encode::integer(0)));
        }
        self.put(p, 2, p.db, &value).await?;
        p.write(self.at(1), p.db, &[b"DEL", self.arg(1)], 1).await?;
        Ok(match only_if_new {
            true => answer(encode::integer(1)),
            false => answer(&b"+OK\r\n"[..]),
        })
    }

    async fn copy(&self, p: &Procedure) -> Step<Outcome> {
        let mut db = p.db;
        let mut replace = false;
        let mut words = self.args.iter().skip(3);
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case(b"replace") {
                replace = true;
            } else if word.eq_ignore_ascii_case(b"db")
                && let Some(number) = words.next()
            {
                let number = std::str::from_utf8(number)
                    .ok()
                    .and_then(|n| n.parse::<i64>().ok());
                db = match number {
                    None => {
                        return Ok(answer(encode::error(
                            "ERR value is not an integer or out of range",
                        )));
                    }
                    Some(n) => match u16::try_from(n).ok().filter(|&n| n < self.databases_max) {
                        Some(n) => n,
                        None => return Ok(answer(encode::error("ERR DB index is out of range"))),
                    },
                };
            } else {
                return Ok(answer(encode::error(SYNTAX)));
            }
        }
        let value = self.value(p, 1).await?;
        if !dump::exists(&value) || (!replace && self.is_there(p, 2, db).await?) {
            return Ok(answer(encode::integer(0)));
        }
        self.put(p, 2, db, &value).await?;
        Ok(answer(encode::integer(1)))
    }

    /// `MSETNX`: all or none.
    async fn set_all(&self, p: &Procedure) -> Step<Outcome> {
        for &key in &self.keys {
            if self.is_there(p, key as usize, p.db).await? {
                return Ok(answer(encode::integer(0)));
            }
        }
        let sets = self.keys.iter().map(|&key| {
            let key = key as usize;
            let set = write_of(&[b"SET", self.arg(key), self.arg(key + 1)], &[1]);
            (self.at(key), p.db, Action::Write(set))
        });
        for outcome in p.ask_all(sets.collect()).await {
            reply(outcome)?;
        }
        Ok(answer(encode::integer(1)))
    }

    /// `LMPOP`, `ZMPOP`: from the first key that has something.
    async fn pop_first(&self, p: &Procedure) -> Step<Outcome> {
        for part in &self.parts {
            let popped = reply(p.ask(part.partition, p.db, part.action.clone()).await)?;
            if popped != NULL {
                return Ok(answer(popped));
            }
        }
        Ok(answer(NULL))
    }

    /// `XREAD`, `XREADGROUP`: what is new in each of the streams.
    async fn read_streams(&self, p: &Procedure) -> Step<Outcome> {
        let asked = self
            .parts
            .iter()
            .map(|part| (part.partition, p.db, part.action.clone()));
        let mut news = Vec::new();
        for outcome in p.ask_all(asked.collect()).await {
            news.push(reply(outcome)?);
        }
        Ok(answer(one_map(&news)))
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

    async fn on_copies(&self, p: &Procedure) -> Step<Outcome> {
        let mut keys: Vec<usize> = Vec::new();
        for &key in &self.keys {
            if !keys
                .iter()
                .any(|&known| self.arg(known) == self.arg(key as usize))
            {
                keys.push(key as usize);
            }
        }
        let asked = keys.iter().map(|&key| (self.at(key), p.db, self.ask_for(key)));
        let mut values: Vec<Bytes> = Vec::with_capacity(keys.len());
        for outcome in p.ask_all(asked.collect()).await {
            values.push(self.question.value(replies(outcome)?.concat()));
        }
        let written: Vec<usize> = keys
            .iter()
            .copied()
            .filter(|&key| {
                self.written
                    .iter()
                    .any(|&w| self.arg(w as usize) == self.arg(key))
            })
            .collect();
        let (commands, restored) = self.scratch(&keys, &values, &written);
        let wanted = commands.count as usize;
        let replies = p.on_any_node(commands).await?;
        // Refused as a whole: one error.
        if replies.len() != wanted {
            return Ok(answer(replies.into_iter().next().unwrap_or_default()));
        }
        // Not all of the copies are there: a value of another version of Redis.
        if let Some(error) = replies.iter().take(restored).find(|reply| is_error(reply)) {
            return Ok(answer(error.clone()));
        }
        let mut found = replies.into_iter().skip(restored);
        // An error, too: what a script has done before it stays done.
        let reply = found.next().unwrap_or_default();
        let mut changed: Vec<(i64, usize, Bytes)> = Vec::new();
        for key in written {
            let value: Vec<Bytes> = found.by_ref().take(self.question.count() as usize).collect();
            let value = self.question.value(value.concat());
            let before = keys.iter().zip(&values).find(|(known, _)| **known == key);
            let before = before.map_or(&b""[..], |(_, before)| &before[..]);
            if before != value {
                changed.push((before.len() as i64 - value.len() as i64, key, value));
            }
        }
        // What has grown comes first: what a script moves is in both places rather than in none if there is no going on.
        changed.sort_by_key(|(shrunk_by, ..)| *shrunk_by);
        for (_, key, value) in changed {
            self.put(p, key, p.db, &value).await?;
        }
        Ok(answer(reply))
    }

    /// The command on copies of its keys' values; and how many replies come before its own.
    fn scratch(&self, keys: &[usize], values: &[Bytes], written: &[usize]) -> (Commands, usize) {
        // By their own names, which a script may use as data; but for one that would be in the way there.
        let name = |key: usize| match self.arg(key) {
            key if key.starts_with(b"rf:") => [SCRATCH.as_bytes(), b":", key].concat(),
            key => key.to_vec(),
        };
        let mut frames: Vec<Bytes> = Vec::new();
        for (&key, value) in keys.iter().zip(values) {
            if dump::exists(value)
                && let Some((frame, _)) = dump::restore(&name(key), value)
            {
                frames.push(frame);
            }
        }
        let restored = frames.len();
        let names: Vec<Vec<u8>> = self.keys.iter().map(|&key| name(key as usize)).collect();
        let mut args: Vec<&[u8]> = self.args.iter().map(|arg| &arg[..]).collect();
        for (&key, name) in self.keys.iter().zip(&names) {
            if let Some(arg) = args.get_mut(key as usize) {
                *arg = name;
            }
        }
        frames.push(encode::command_frame(&args));
        let mut count = restored as u32 + 1;
        for &key in written {
            frames.push(self.question.about(&name(key)));
            count += self.question.count();
        }
        let mut clear: Vec<&[u8]> = vec![b"UNLINK"];
        clear.extend(names.iter().map(|name| &name[..]));
        frames.push(encode::command_frame(&clear));
        let commands = Commands {
            scripts: self.scripts.clone(),
            count: count + 1,
            ..Commands::one(frames.concat().into())
        };
        (commands, restored)
    }
}

impl Procedure {
    /// The replies to commands that any node may execute, in its bookkeeping database.
    async fn on_any_node(&self, commands: Commands) -> Step<Vec<Bytes>> {
        let mut last = Outcome::Refused(crate::request::Refusal::Unconfirmed);
        // A second node, if the first one dies over it.
        for _ in 0..2 {
            let Some(node) = self.worker.core_mut().sequencer.any_node() else {
                break;
            };
            let db = self.worker.shared().config.pool.bookkeeping_db;
            let here = self.worker.own_partition();
            last = self.ask(here, db, Action::OnNode(node, commands.clone())).await;
            if let Outcome::Reply { frames, .. } = last {
                return Ok(super::gather::cut(&frames));
            }
        }
        Err(last)
    }
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn side(word: &[u8]) -> Option<Side> {
    if word.eq_ignore_ascii_case(b"left") {
        Some(Side::Left)
    } else if word.eq_ignore_ascii_case(b"right") {
        Some(Side::Right)
    } else {
        None
    }
}
