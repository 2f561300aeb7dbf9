//! `EXEC`: what was queued becomes groups, one a partition, and each is executed as one unit.
//!
//! A group is executed at one place of its partition's order, in one batch of each node: all or nothing, whatever dies. When
//! there are several, or keys are watched, all the partitions are held until the last one is executed, so nobody sees half of
//! it; but when a sidecar dies between them, one may have been executed and the other not (see README, "What it does not
//! guarantee"). What is not one command for one partition (an element that moves between two, `SPOP`, which one node decides
//! first) is executed by itself between the groups, under the same hold.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::across::Across;
use super::client::in_protocol;
use super::dispatch::{Flow, Prepared, part_of};
use super::finish::Finish;
use super::flush::Flush;
use super::gather::{Gather, Recipe, cut};
use super::procedure::{Procedure, Step, answer};
use super::scripts::ScriptUse;
use super::stripe::{Form, Guards};
use super::transaction::OK;
use super::watch::Watch;
use crate::command::spec::{Compare, Downgrade, Pool};
use crate::command::{Command, Special};
use crate::pubsub::Publication;
use crate::request::{
    Action, Brings, Commands, Decide, HoldId, Outcome, PartitionId, Request, Script, Touched, WhereParted,
};
use crate::resp::{Args, Span, Spans, encode};
use crate::router::{CROSSSLOT, Route};
use crate::worker::{Core, Worker};

/// How the groups' replies become the reply to `EXEC`.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    replies: Vec<Piece>,
    /// Publishing and subscribing, done when the rest is acknowledged.
    pubsub: Vec<(Bytes, Spans)>,
}

#[derive(Debug)]
enum Piece {
    /// Known already.
    Literal(Bytes),
    /// The next reply of a group.
    Of { group: usize, rule: Downgrade },
    /// The same of a script.
    OfScript { group: usize, finish: Box<Finish> },
    /// One next reply of each of these groups, merged.
    Merged { gather: Box<Gather>, groups: Vec<usize> },
    /// Of the next command in `Assembly::pubsub`.
    PubSub,
}

impl Assembly {
    pub(super) fn take_pubsub(&mut self) -> Vec<(Bytes, Spans)> {
        std::mem::take(&mut self.pubsub)
    }

    pub(super) fn pubsub_done(&mut self, replies: Vec<Bytes>) {
        let open = self.replies.iter_mut().filter(|p| matches!(p, Piece::PubSub));
        for (piece, reply) in open.zip(replies) {
            *piece = Piece::Literal(reply);
        }
    }

    pub(super) fn assemble(
        &mut self,
        parts: &[Bytes],
        client_resp3: bool,
        published: &mut Vec<Publication>,
    ) -> Bytes {
        let mut groups: Vec<std::vec::IntoIter<Bytes>> = parts.iter().map(|p| cut(p).into_iter()).collect();
        let mut next = |group: usize| groups.get_mut(group).and_then(Iterator::next).unwrap_or_default();
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', self.replies.len());
        for piece in &mut self.replies {
            let bytes = match piece {
                Piece::Literal(bytes) => bytes.clone(),
                Piece::PubSub => Bytes::new(),
                Piece::Of { group, rule } => in_protocol(*rule, next(*group), true, client_resp3),
                Piece::OfScript { group, finish } => finish.apply(&next(*group), client_resp3, published),
                Piece::Merged { gather, groups } => {
                    for (part, group) in groups.iter().enumerate() {
                        let frames = next(*group);
                        gather.take(
                            part as u16,
                            crate::request::Outcome::Reply { frames, resp3: true },
                        );
                    }
                    gather.assemble(client_resp3)
                }
            };
            out.extend_from_slice(&bytes);
        }
        out.freeze()
    }
}

/// The commands of one partition, becoming one unit.
struct Group {
    partition: PartitionId,
    db: u16,
    frame: BytesMut,
    count: u32,
    write: bool,
    touched: Touched,
    compare: Compare,
    scripts: Option<Vec<std::sync::Arc<Script>>>,
    brings: Brings,
    in_multi: bool,
}

impl Group {
    /// One of several is a write even if it only reads: a read that is asked of another node comes to a later place of the order,
    /// and the transaction would see two moments. (Under a hold there is nothing in between.)
    fn into_action(self, is_alone: bool) -> Action {
        let commands = Commands {
            frame: self.frame.freeze(),
            count: self.count,
            compare: self.compare,
            touched: self.touched,
            brings: self.brings,
            in_multi: self.in_multi,
            scripts: self.scripts.map(Vec::into_boxed_slice),
            second_chance: None,
        };
        match self.write || !is_alone {
            true => Action::Write(commands),
            false => Action::Read(commands),
        }
    }

    fn add(&mut self, commands: Commands, write: bool) {
        let offset = self.frame.len() as u32;
        self.frame.extend_from_slice(&commands.frame);
        self.count += commands.count;
        self.write |= write;
        // One rule for the unit: exact if that holds for all, else types and lengths.
        if commands.compare != Compare::Exact {
            self.compare = Compare::Shape;
        }
        match (&mut self.touched, commands.touched) {
            (Touched::Keys(all), Touched::Keys(keys)) if write => {
                all.extend(keys.iter().map(|key| Span {
                    start: key.start + offset,
                    len: key.len,
                }));
            }
            (touched, Touched::Partition) if write => *touched = Touched::Partition,
            _ => {}
        }
        if commands.brings != Brings::Nothing {
            self.brings = Brings::Unknown;
        }
        self.in_multi |= commands.in_multi;
        if let Some(scripts) = commands.scripts {
            self.scripts.get_or_insert_default().extend(scripts);
        }
    }
}

/// What is executed, in this order.
enum Unit {
    Group(Group),
    /// In this database.
    Across(u16, Box<Across>),
    Decide(PartitionId, u16, Box<Decide>),
    Joint(Box<[PartitionId]>, u16, Box<Commands>),
    Flush(u16, Flush),
}

impl Unit {
    fn partitions(&self, partitions: u16) -> Vec<PartitionId> {
        match self {
            Self::Group(group) => vec![group.partition],
            Self::Across(_, across) => across.held(),
            Self::Decide(partition, ..) => vec![*partition],
            Self::Joint(partitions, ..) => partitions.to_vec(),
            Self::Flush(..) => (0..partitions).collect(),
        }
    }

    /// Those of them that it may write.
    fn written(&self, partitions: u16) -> Vec<PartitionId> {
        match self {
            Self::Group(group) if !group.write => Vec::new(),
            _ => self.partitions(partitions),
        }
    }
}

/// All of a transaction.
#[derive(Default)]
struct Plan {
    units: Vec<Unit>,
    /// Nothing is added to a group before this one: something is executed in between.
    open_from: usize,
}

impl Plan {
    /// Puts commands into the group of their partition and database: its number.
    fn put(&mut self, partition: PartitionId, db: u16, commands: Commands, write: bool) -> usize {
        let is_it = |unit: &Unit| matches!(unit, Unit::Group(g) if g.partition == partition && g.db == db);
        let open = self.units.iter().skip(self.open_from).position(is_it);
        let at = open.map_or(self.units.len(), |at| at + self.open_from);
        if at == self.units.len() {
            self.units.push(Unit::Group(Group {
                partition,
                db,
                frame: BytesMut::new(),
                count: 0,
                write: false,
                touched: Touched::Keys(SmallVec::new()),
                compare: Compare::Exact,
                scripts: None,
                brings: Brings::Nothing,
                in_multi: false,
            }));
        }
        if let Some(Unit::Group(group)) = self.units.get_mut(at) {
            group.add(commands, write);
        }
        at
    }

    /// Adds something that is executed by itself, behind all before it: its number.
    fn alone(&mut self, unit: Unit) -> usize {
        self.units.push(unit);
        self.open_from = self.units.len();
        self.units.len() - 1
    }
}

impl Worker {
    pub(super) fn exec(self: &Rc<Self>, core: &mut Core, id: u32) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        // Its reads may concern any of the partitions.
        if client.reads_pending(None) {
            return Flow::Again;
        }
        let inside = match self.exec_striped(core, id) {
            Ok(inside) => inside,
            Err(flow) => return flow,
        };
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let pubsub = client.session.transaction.as_ref().is_some_and(|t| t.pubsub);
        if pubsub && !client.has_nothing_under_way() {
            return Flow::Again;
        }
        let watch = client.session.watch.take();
        let Some(transaction) = client.session.transaction.take() else {
            return Flow::Next;
        };
        if transaction.spoilt {
            self.forget_watch(watch);
            return self.refuse(
                core,
                id,
                "EXECABORT Transaction discarded because of previous errors.",
            );
        }
        let mut plan = Plan::default();
        let mut assembly = Assembly::default();
        let flushes = self.flushes(&transaction);
        self.show_queued(core, id, &transaction);
        for (i, (frame, spans)) in transaction.commands.iter().enumerate() {
            let piece = match transaction.faults.iter().find(|(at, _)| *at == i) {
                Some((_, fault)) => Piece::Literal(fault.clone()),
                None => self.piece_in_form(core, id, frame, spans, &mut plan, flushes),
            };
            if matches!(piece, Piece::PubSub) {
                assembly.pubsub.push((frame.clone(), spans.clone()));
            }
            assembly.replies.push(piece);
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if let Some(watch) = watch {
            return self.exec_in_steps(core, id, plan.units, assembly, Some(watch), inside);
        }
        if plan.units.is_empty() {
            let resp3 = client.session.resp3;
            let slot = client.expect_one(Downgrade::AsIs, core.now_us);
            let to = client.reply_to(self.id(), id, slot, 0);
            self.conclude(core, to, assembly, &[], resp3);
            return Flow::Next;
        }
        let is_group = |unit: &Unit| matches!(unit, Unit::Group(_));
        // Of several groups each must be ordered now: who holds some of their partitions would see half of the transaction.
        let is_free = |unit: &Unit| matches!(unit, Unit::Group(group) if self.is_free(core, group.partition));
        let at_once = match plan.units.as_slice() {
            [one] => is_group(one),
            all => all.iter().all(is_free),
        };
        match at_once && !pubsub {
            true => {
                let flow = self.exec_at_once(core, id, plan.units, assembly);
                self.leave(core, inside);
                flow
            }
            false => self.exec_in_steps(core, id, plan.units, assembly, None, inside),
        }
    }

    /// Whether what is submitted now for a partition takes its place in the order at once.
    pub(super) fn is_free(&self, core: &Core, partition: PartitionId) -> bool {
        self.shared().owner_of(partition) == self.id() && !core.sequencer.is_held(partition)
    }

    /// There is nothing between the groups.
    fn exec_at_once(&self, core: &mut Core, id: u32, units: Vec<Unit>, assembly: Assembly) -> Flow {
        // Of several groups all are done or none.
        let mut partitions = units.iter().filter_map(|unit| match unit {
            Unit::Group(group) if units.len() > 1 => Some(group.partition),
            _ => None,
        });
        if let Some(refusal) = partitions.find_map(|p| core.sequencer.refusal_of_write(p)) {
            return self.refuse(core, id, refusal.message());
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let gather = Gather::new(Recipe::Exec(Box::new(assembly)), units.len());
        let slot = client.expect_parts(gather, core.now_us);
        let is_alone = units.len() == 1;
        let mut requests = Vec::with_capacity(units.len());
        for (part, unit) in units.into_iter().enumerate() {
            let Unit::Group(group) = unit else { continue };
            if !group.write && is_alone {
                client.note_read(slot, group.partition);
            }
            requests.push(Request {
                partition: group.partition,
                db: group.db,
                under: HoldId::NONE,
                reply_to: client.reply_to(self.id(), id, slot, part as u16),
                action: group.into_action(is_alone),
            });
        }
        for request in requests {
            self.submit(core, self.shared().owner_of(request.partition), request);
        }
        Flow::Next
    }

    /// Everything is held, unless it is one unit, and executed if nothing that was watched has changed.
    fn exec_in_steps(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        units: Vec<Unit>,
        assembly: Assembly,
        watch: Option<Box<Watch>>,
        inside: Guards,
    ) -> Flow {
        let resp3 = core.clients.get(id as usize).is_some_and(|c| c.session.resp3);
        // The reply is in the client's protocol already, but for a `nil`.
        let rule = Downgrade::AsIs;
        self.proceed(core, id, rule, move |mut procedure| async move {
            let _inside = inside;
            let worker = procedure.worker.clone();
            let mut flushed = Vec::new();
            for unit in &units {
                if let Unit::Flush(db, flush) = unit {
                    flushed.extend(flush.databases(&worker, *db));
                }
            }
            let _alone = match &worker.shared().stripes {
                Some(stripes) => stripes.alone(&flushed).await,
                None => Vec::new(),
            };
            let outcome = match in_steps(&mut procedure, units, watch).await {
                Ok(Some(parts)) => {
                    let (worker, to) = (procedure.worker.clone(), procedure.client());
                    worker.with(|core| worker.conclude(core, to, assembly, &parts, resp3));
                    Outcome::Done
                }
                Ok(None) => answer(Bytes::from_static(if resp3 { b"_\r\n" } else { b"*-1\r\n" })),
                Err(end) => end,
            };
            (procedure, outcome)
        })
    }

    /// A script of several partitions.
    #[allow(
        clippy::too_many_arguments,
        reason = "a command and where it goes; bundling them would only rename it"
    )]
    fn joint_piece(
        &self,
        core: &mut Core,
        command: &Command,
        partitions: Box<[PartitionId]>,
        db: u16,
        frame: &Bytes,
        spans: &Spans,
        script: Option<ScriptUse>,
        plan: &mut Plan,
    ) -> Piece {
        let rule = command.downgrade(spans.len());
        let Some(script) = script else {
            return Piece::Literal(encode::error(CROSSSLOT));
        };
        let args = Args { bytes: frame, spans };
        let (commands, finish) = script.prepare(command, frame, &args, core.clock.now_ms);
        let group = plan.alone(Unit::Joint(partitions, db, Box::new(commands)));
        match finish {
            Some(finish) => Piece::OfScript { group, finish },
            None => Piece::Of { group, rule },
        }
    }

    /// The same of a command that may be on a striped queue.
    fn piece_in_form(
        &self,
        core: &mut Core,
        id: u32,
        frame: &Bytes,
        spans: &Spans,
        plan: &mut Plan,
        flushes: bool,
    ) -> Piece {
        // As the `SELECT`s before it have left it.
        let db = core.clients.get(id as usize).map_or(0, |c| c.session.db);
        match self.form_in_transaction(db, frame, spans, flushes) {
            Form::One(frame, spans, _) => self.piece(core, id, db, &frame, &spans, plan),
            Form::Reply(reply) => Piece::Literal(reply),
            Form::Each(parts, merge, _) => {
                let mut groups = Vec::with_capacity(parts.len());
                for (frame, spans) in &parts {
                    match self.piece(core, id, db, frame, spans, plan) {
                        Piece::Of { group, .. } => groups.push(group),
                        other => return other,
                    }
                }
                let order = vec![vec![0]; groups.len()];
                let gather = Gather::new(
                    Recipe::Split {
                        merge,
                        order,
                        keys: 1,
                    },
                    groups.len(),
                );
                Piece::Merged {
                    gather: Box::new(gather),
                    groups,
                }
            }
            _ => self.piece(core, id, db, frame, spans, plan),
        }
    }

    /// Commands of one partition as one write, or read; and how its replies become one each.
    pub(super) fn one_unit(
        &self,
        core: &mut Core,
        id: u32,
        db: u16,
        commands: &[(Bytes, Spans)],
    ) -> Result<(Action, Assembly), Outcome> {
        let mut plan = Plan::default();
        let mut assembly = Assembly::default();
        for (frame, spans) in commands {
            match self.piece(core, id, db, frame, spans, &mut plan) {
                // Known before anything is done: then nothing is.
                Piece::Literal(reply) => return Err(answer(reply)),
                piece => assembly.replies.push(piece),
            }
        }
        match plan.units.pop() {
            Some(Unit::Group(group)) if plan.units.is_empty() => Ok((group.into_action(true), assembly)),
            _ => Err(answer(encode::error(CROSSSLOT))),
        }
    }

    /// What one command of a transaction contributes to its reply; its work goes into the groups.
    fn piece(
        &self,
        core: &mut Core,
        id: u32,
        db: u16,
        frame: &Bytes,
        spans: &Spans,
        plan: &mut Plan,
    ) -> Piece {
        let args = Args { bytes: frame, spans };
        let command = match self.shared().commands.lookup(&args) {
            Ok(command) => command,
            Err(error) => return Piece::Literal(error.to_bytes()),
        };
        match self.route_at_once(command, &args) {
            Route::One { partition, write } => {
                let script = match self.script_in_transaction(command, &args) {
                    Ok(script) => script,
                    Err(error) => return Piece::Literal(error),
                };
                if write {
                    self.note_expiry(partition, command, &args);
                }
                let rule = command.downgrade(spans.len());
                if let Some(all) = script
                    .as_ref()
                    .filter(|script| script.is_everywhere())
                    .and_then(|_| self.together(command, &args, true))
                {
                    return self.joint_piece(core, command, all, db, frame, spans, script, plan);
                }
                if let Some(script) = script {
                    let (commands, finish) = script.prepare(command, frame, &args, core.clock.now_ms);
                    let group = plan.put(partition, db, commands, write);
                    return match finish {
                        Some(finish) => Piece::OfScript { group, finish },
                        None => Piece::Of { group, rule },
                    };
                }
                let commands = match self.prepare(&mut core.clock, command, frame, spans) {
                    Prepared::Commands(commands) => commands,
                    Prepared::Decide(decide) => {
                        return Piece::Of {
                            group: plan.alone(Unit::Decide(partition, db, decide)),
                            rule,
                        };
                    }
                };
                Piece::Of {
                    group: plan.put(partition, db, commands, write),
                    rule,
                }
            }
            Route::Several {
                merge,
                write,
                parts,
                step,
            } => {
                let order: Vec<Vec<u32>> = parts
                    .iter()
                    .map(|(_, keys)| keys.iter().map(|&key| (key - 1) / step as u32).collect())
                    .collect();
                let keys = order.iter().map(Vec::len).sum();
                let groups = parts
                    .iter()
                    .map(|(partition, keys)| {
                        plan.put(*partition, db, part_of(&args, keys, step, command.compare), write)
                    })
                    .collect::<Vec<_>>();
                let gather = Box::new(Gather::new(Recipe::Split { merge, order, keys }, groups.len()));
                Piece::Merged { gather, groups }
            }
            Route::PubSub => Piece::PubSub,
            Route::Local => Piece::Literal(self.local_reply(core, id, command, &args)),
            Route::Refused(line) | Route::Invalid(line) => Piece::Literal(line),
            Route::Across if kind_of_script(command.special) => {
                let script = match self.script_in_transaction(command, &args) {
                    Ok(script) => script,
                    Err(error) => return Piece::Literal(error),
                };
                let everywhere = script.as_ref().is_some_and(ScriptUse::is_everywhere);
                match self.together(command, &args, everywhere) {
                    Some(partitions) => {
                        self.joint_piece(core, command, partitions, db, frame, spans, script, plan)
                    }
                    None => Piece::Literal(encode::error(CROSSSLOT)),
                }
            }
            Route::Across => match self.across(core, command, frame, spans) {
                Ok(across) => Piece::Of {
                    group: plan.alone(Unit::Across(db, Box::new(across))),
                    rule: command.downgrade(spans.len()),
                },
                Err(error) => Piece::Literal(error),
            },
            Route::Pool(Pool::Flush) => match Flush::of(command.special, &args) {
                Ok(flush) => Piece::Of {
                    group: plan.alone(Unit::Flush(db, flush)),
                    rule: command.downgrade(spans.len()),
                },
                Err(error) => Piece::Literal(error),
            },
            Route::Pool(Pool::Scripts) => {
                let resp3 = core.clients.get(id as usize).is_some_and(|c| c.session.resp3);
                Piece::Literal(self.script_reply(command.special, &args, resp3))
            }
            // What was watched has been looked at by now.
            Route::Transaction if command.special == Special::Unwatch => Piece::Literal(OK),
            Route::Transaction | Route::Pool(_) | Route::Blocking(_) => {
                Piece::Literal(encode::error("ERR not possible in a transaction"))
            }
        }
    }
}

fn kind_of_script(special: Special) -> bool {
    use Special::*;
    matches!(special, Eval | EvalRo | Evalsha | EvalshaRo | Fcall | FcallRo)
}

/// The replies of all units; `None` if something that was watched has changed.
async fn in_steps(
    p: &mut Procedure,
    units: Vec<Unit>,
    mut watch: Option<Box<Watch>>,
) -> Step<Option<Vec<Bytes>>> {
    let watched = watch.iter().flat_map(|watch| watch.partitions());
    let all = p.worker.shared().table.load().partitions();
    let needed = units.iter().flat_map(|unit| unit.partitions(all)).chain(watched);
    let needed = needed.collect();
    if watch.is_some() || units.len() > 1 {
        p.hold(needed).await?;
    }
    let changed = match &mut watch {
        Some(watch) => watch.has_changed(p).await,
        None => false,
    };
    p.worker.forget_watch(watch);
    if changed {
        return Ok(None);
    }
    let mut written: Vec<PartitionId> = units.iter().flat_map(|unit| unit.written(all)).collect();
    written.sort_unstable();
    written.dedup();
    if written.len() > 1 {
        p.make_sure(&written).await?;
    }
    let mut parts = Vec::with_capacity(units.len());
    let mut together = Vec::new();
    for unit in units {
        match unit {
            Unit::Group(group) => together.push((group.partition, group.db, group.into_action(true))),
            Unit::Across(db, across) => {
                parts.extend(frames(p.ask_all(std::mem::take(&mut together)).await)?);
                p.db = db;
                parts.extend(frames(vec![across.execute(p).await.unwrap_or_else(|end| end)])?);
            }
            Unit::Flush(db, flush) => {
                parts.extend(frames(p.ask_all(std::mem::take(&mut together)).await)?);
                p.db = db;
                parts.extend(frames(vec![flush.execute(p).await.unwrap_or_else(|end| end)])?);
            }
            Unit::Joint(partitions, db, commands) => {
                parts.extend(frames(p.ask_all(std::mem::take(&mut together)).await)?);
                let first = partitions.first().copied().unwrap_or_default();
                // Scripts that may touch any key name all partitions: there is no other way to execute them.
                let parted = match partitions.len() == usize::from(all) {
                    true => WhereParted::Expel,
                    false => WhereParted::Refuse,
                };
                let joint = Action::Joint(partitions, *commands, parted);
                parts.extend(frames(vec![p.ask(first, db, joint).await])?);
            }
            Unit::Decide(partition, db, decide) => {
                parts.extend(frames(p.ask_all(std::mem::take(&mut together)).await)?);
                parts.extend(frames(vec![p.ask(partition, db, Action::Decide(decide)).await])?);
            }
        }
    }
    parts.extend(frames(p.ask_all(together).await)?);
    Ok(Some(parts))
}

fn frames(outcomes: Vec<Outcome>) -> Step<Vec<Bytes>> {
    let frames = |outcome| match outcome {
        Outcome::Reply { frames, .. } => Ok(frames),
        end => Err(end),
    };
    outcomes.into_iter().map(frames).collect()
}
