//! Commands on striped queues: see [`crate::stripe`] for what these are.
//!
//! A command that names an item, or an index, is put into the form in which the nodes have it, before anything else is done with it:
//! most become one command for one partition, and go on as any other. What cannot be told from what is remembered is looked up
//! first ([`errand`]); then the command is taken up again. What takes several steps is a [procedure](super::procedure): a script that
//! appends ([`append`]), one that looks at a queue from its head ([`visit`]), and whatever reads an index ([`index`]).

mod append;
mod errand;
mod index;
mod keys;
mod known;
mod list;
mod score;
mod segments;
mod stage;
mod stream;
mod transaction;
mod translate;
mod visit;
mod whole;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use stage::write_old_items;
use translate::When;
pub(super) use translate::{Form, Guards};

use super::dispatch::{Flow, OOM};
use super::procedure::{Procedure, Step, answer};
use crate::command::number::integer;
use crate::command::{Class, Command, Flags};
use crate::profile::{Does, Profile, Role, ScriptRule};
use crate::request::{Action, Commands, Outcome, PartitionId};
use crate::resp::walk::{is_error, text};
use crate::resp::{Args, Spans, encode};
use crate::ring::Keyspace;
use crate::shared::Message;
use crate::stripe::Stripes;
use crate::worker::{Core, Worker};

/// What became of a command before it was routed.
pub(super) enum Taken {
    /// It is as it was.
    AsIs,
    /// It goes on in this form.
    As(Bytes, Spans, Guards),
    /// It is under way, or answered, or has to wait.
    Done(Flow),
}

/// What a command on striped queues is answered with if it is not possible there, whatever they are like.
pub fn refusal(profile: &Profile, keyspace: &Keyspace, command: &Command, args: &Args<'_>) -> Option<Bytes> {
    let nobodys = Stripes::new(profile.clone());
    match translate::form(&nobodys, keyspace, 0, command, args, When::Now) {
        Form::Reply(reply) => Some(reply).filter(|reply| is_error(reply)),
        _ => None,
    }
}

impl Worker {
    /// Leaves, when all requests that were made inside have been sent: of those to another worker, when that one has them.
    pub(super) fn leave(&self, core: &mut Core, inside: Guards) {
        for (partition, guard) in inside {
            let owner = self.shared().owner_of(partition);
            if owner != self.id() {
                core.mail(owner, Message::Leave(guard));
            }
        }
    }

    /// Takes up a command outside of a transaction.
    pub(super) fn take_up_striped(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        stripes: &Arc<Stripes>,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
    ) -> Taken {
        let args = Args { bytes: frame, spans };
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Taken::Done(Flow::Leave);
        };
        if let Some(Err(error)) = client.looked_up.take() {
            return Taken::Done(self.reply(core, id, error));
        }
        let db = client.session.db;
        match translate::form(stripes, &self.shared().keyspace, db, command, &args, When::Now) {
            Form::AsIs => Taken::AsIs,
            Form::One(frame, spans, inside) => Taken::As(frame, spans, inside),
            Form::Reply(reply) => Taken::Done(self.reply(core, id, reply)),
            Form::Needs(needs) => Taken::Done(self.look_up(core, id, stripes, needs, spans.len())),
            Form::Stage(item, replies) => {
                let now_ms = core.clock.now_ms;
                if !stripes.stage(db, item, vec![(frame.clone(), spans.clone())], now_ms) {
                    stripes.put_place(db, item, crate::stripe::Place::Own);
                    return Taken::AsIs;
                }
                Taken::Done(self.reply(core, id, replies))
            }
            Form::Script(rule) => {
                Taken::Done(self.run_script(core, id, stripes, command, &rule, frame, spans))
            }
            Form::Each(parts, merge, inside) => {
                let (steps, special) = (Steps::of(stripes, frame, spans, db), command.special);
                let rule = command.downgrade(spans.len());
                Taken::Done(self.proceed(core, id, rule, move |mut p| async move {
                    let result = index::each(&mut p, &steps, special, parts, merge, inside).await;
                    (p, result.unwrap_or_else(|end| end))
                }))
            }
            Form::OnLists => Taken::Done(self.on_lists(core, id, stripes, command, frame, spans)),
            Form::OnStreams => Taken::Done(self.on_streams(core, id, stripes, command, frame, spans)),
            Form::OnKeys => {
                let (steps, special) = (Steps::of(stripes, frame, spans, db), command.special);
                let rule = command.downgrade(spans.len());
                Taken::Done(self.proceed(core, id, rule, move |p| async move {
                    let result = keys::execute(&p, &steps, special).await;
                    (p, result.unwrap_or_else(|end| end))
                }))
            }
            Form::Steps => {
                let steps = Steps::of(stripes, frame, spans, db);
                Taken::Done(self.proceed(
                    core,
                    id,
                    command.downgrade(spans.len()),
                    move |mut p| async move {
                        let outcome = index::execute(&mut p, &steps).await.unwrap_or_else(|end| end);
                        (p, outcome)
                    },
                ))
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a command and where it goes; bundling them would only rename it"
    )]
    fn run_script(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        stripes: &Arc<Stripes>,
        command: &Command,
        rule: &ScriptRule,
        frame: &Bytes,
        spans: &Spans,
    ) -> Flow {
        let args = Args { bytes: frame, spans };
        // Known to the sidecar, or shown to a node first; or nobody knows it, which is said now.
        match self.script_of(core, id, command, &args, false) {
            Ok(Some(_)) => {}
            Ok(None) => return Flow::Next,
            Err(flow) => return flow,
        }
        let db = core.clients.get(id as usize).map_or(0, |c| c.session.db);
        let steps = Steps::of(stripes, frame, spans, db);
        let rule = rule.clone();
        self.proceed(
            core,
            id,
            crate::command::spec::Downgrade::Generic,
            move |mut p| async move {
                let result = match rule.does {
                    Does::Append => append::execute(&mut p, &steps, &rule).await,
                    Does::Visit => visit::execute(&mut p, &steps, &rule).await,
                };
                (p, result.unwrap_or_else(|end| end))
            },
        )
    }
}

/// A command that takes several steps.
struct Steps {
    stripes: Arc<Stripes>,
    frame: Bytes,
    spans: Spans,
    db: u16,
}

impl Steps {
    fn of(stripes: &Arc<Stripes>, frame: &Bytes, spans: &Spans, db: u16) -> Self {
        Self {
            stripes: stripes.clone(),
            frame: frame.clone(),
            spans: spans.clone(),
            db,
        }
    }

    fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.frame,
            spans: &self.spans,
        }
    }
}

/// A list or a stream of a command, for which the command waits to be alone.
async fn whole(p: &Procedure, steps: &Steps, key: &[u8]) -> Step<whole::Whole> {
    whole::Whole::open(p, &steps.stripes, steps.db, key).await
}

const NULL: Bytes = Bytes::from_static(b"_\r\n");

/// A reply that is no error.
fn sound(reply: Bytes) -> Step<Bytes> {
    match is_error(&reply) {
        true => Err(answer(reply)),
        false => Ok(reply),
    }
}

/// A number in a reply.
fn count_of(reply: &[u8]) -> i64 {
    text(reply).and_then(integer).unwrap_or(0)
}

/// The role of a key.
fn role_of(keyspace: &crate::ring::Keyspace, key: &[u8]) -> Role {
    keyspace.rule_of(key).map_or(Role::Plain, |(rule, _)| rule.role)
}

/// The command with other words in the places of some.
fn with_words(args: &Args<'_>, other: &[(usize, Bytes)]) -> (Bytes, Spans) {
    let words: Vec<&[u8]> = (0..args.len())
        .map(|at| match other.iter().find(|(place, _)| *place == at) {
            Some((_, word)) => word,
            None => args.arg(at),
        })
        .collect();
    crate::resp::frame_of(&words)
}

/// Executes one command of one partition, in its form for nodes: its reply, which may be an error.
async fn native(p: &Procedure, partition: PartitionId, command: &(Bytes, Spans)) -> Step<Bytes> {
    let action = action_of(p, partition, command)?;
    frames(p.ask(partition, p.db, action).await)
}

/// The same as a procedure's last step: see [`Procedure::ask_and_let_go`].
async fn native_at_last(p: &Procedure, partition: PartitionId, command: &(Bytes, Spans)) -> Step<Bytes> {
    let action = action_of(p, partition, command)?;
    frames(p.ask_and_let_go(partition, p.db, action).await)
}

fn frames(outcome: Outcome) -> Step<Bytes> {
    match outcome {
        Outcome::Reply { frames, .. } => Ok(frames),
        other => Err(other),
    }
}

fn action_of(p: &Procedure, partition: PartitionId, command: &(Bytes, Spans)) -> Step<Action> {
    let (frame, spans) = command;
    let args = Args { bytes: frame, spans };
    let shared = p.worker.shared().clone();
    let command = shared
        .commands
        .lookup(&args)
        .map_err(|error| answer(error.to_bytes()))?;
    if command.flags.contains(Flags::DENYOOM) && p.worker.is_partition_full(partition) {
        return Err(answer(encode::error(OOM)));
    }
    Ok(match command.class(&args) {
        Class::Read => Action::Read(Commands::one(frame.clone())),
        _ => p
            .worker
            .with(|core| p.worker.action_of(core, partition, command, frame, spans)),
    })
}

/// Executes commands of one partition, in their form for nodes, as one unit: the reply to the last one.
async fn at_once(p: &Procedure, partition: PartitionId, commands: &[(Bytes, Spans)]) -> Step<Bytes> {
    let client = p.client().client;
    let (action, mut assembly) = p
        .worker
        .with(|core| p.worker.one_unit(core, client, p.db, commands))?;
    match p.ask(partition, p.db, action).await {
        Outcome::Reply { frames, .. } => {
            let mut published = Vec::new();
            let replies = assembly.assemble(&[frames], true, &mut published);
            let to = p.client();
            p.worker.with(|core| {
                for publication in published {
                    p.worker.publish_from_script(core, to, publication);
                }
            });
            let last = super::gather::elements(&replies).last();
            Ok(last.map(|reply| replies.slice_ref(reply)).unwrap_or_default())
        }
        other => Err(other),
    }
}
