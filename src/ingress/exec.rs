//! `EXEC`: what was queued becomes groups, one a partition, and each is executed as one unit.
//!
//! A group is executed at one place of its partition's order, in one batch of each node: all or nothing, whatever dies. When
//! there are several, or keys are watched, all the partitions are held until the last one is executed, so nobody sees half of
//! it; but when a sidecar dies between them, one may have been executed and the other not (see README, "What it does not
//! guarantee"). What is not one command for one partition (an element that moves between two, `SPOP`, which one node decides
//! first) is executed by itself between the groups, under the same hold.

mod assembly;
mod piece;
mod plan;

use std::rc::Rc;

use bytes::Bytes;

pub(crate) use self::assembly::Assembly;
use self::assembly::Piece;
use self::plan::{Plan, Unit};
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use super::procedure::{Procedure, Step, answer};
use super::stripe::Guards;
use super::watch::Watch;
use crate::command::spec::Downgrade;
use crate::request::{Action, HoldId, Outcome, PartitionId, Request, WhereParted};
use crate::worker::{Core, Worker};

impl Worker {
    pub(super) fn exec(self: &Rc<Self>, core: &mut Core, id: u32) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        // Its reads may concern any of the partitions.
        if client.reads_pending(None) || client.is_beside_others(None) {
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
