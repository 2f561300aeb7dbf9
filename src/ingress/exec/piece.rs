//! What each command of a transaction contributes: work to the plan, and a piece to the reply.

use bytes::Bytes;

use super::assembly::{Assembly, Piece};
use super::plan::{Plan, Unit};
use crate::command::spec::Pool;
use crate::command::{Command, Special};
use crate::ingress::flush::Flush;
use crate::ingress::gather::{Gather, Recipe};
use crate::ingress::procedure::answer;
use crate::ingress::scripts::ScriptUse;
use crate::ingress::send::{Prepared, part_of};
use crate::ingress::stripe::Form;
use crate::ingress::transaction::OK;
use crate::request::{Action, Outcome, PartitionId};
use crate::resp::{Args, Spans, encode};
use crate::router::{CROSSSLOT, Route};
use crate::worker::{Core, Worker};

impl Worker {
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
    pub(super) fn piece_in_form(
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
    pub(in crate::ingress) fn one_unit(
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
