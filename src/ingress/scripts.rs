//! Scripts and functions being called: known to the sidecar first, and then to every node that is to execute one.
//!
//! The [library](crate::library) says in which form nodes execute a script. A text that nobody has shown yet is first shown to
//! one node, which compiles it (or says what is wrong with it); the client's command waits for that.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::task::spawn_local;

use super::client::Shown;
use super::dispatch::Flow;
use super::finish::Finish;
use super::gather::{Errand, Gather, Recipe};
use crate::command::script::prelude::{self, Parts};
use crate::command::spec::Downgrade;
use crate::command::{Command, Special};
use crate::library::{KnownScript, Sha, hex, parse_sha, sha_of};
use crate::limits;
use crate::pool::shelf::script_field;
use crate::request::{Action, Brings, Commands, HoldId, Request, Script, Touched};
use crate::resp::{Args, CommandScanner, Scanned, encode};
use crate::ring::Keyspace;
use crate::worker::{Core, Worker};

const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";
const NO_FUNCTION: &str = "ERR Function not found";

/// Said when fewer than a majority of the nodes can keep a script or a function.
pub(super) const NOT_KEPT: &str =
    "NOREPLICAS Not enough nodes answer to keep this with the pool. See /v1/nodes on the admin port.";

/// A script, or a function, that a command needs.
pub(super) struct ScriptUse {
    script: Arc<Script>,
    parts: Parts,
    only_declared: bool,
    may_write: bool,
    /// It may touch any key of the pool.
    everywhere: bool,
    /// How nodes are asked to execute it; `None`: as the client has asked.
    call: Option<Call>,
    /// Whether a node must be given it first; `EVAL` carries its text itself.
    is_given: bool,
}

struct Call {
    command: &'static str,
    name: String,
    finish: Finish,
}

impl ScriptUse {
    /// Whether it may touch any key of the pool.
    pub(super) fn is_everywhere(&self) -> bool {
        self.everywhere
    }

    /// Whether it touches the keys that it declares, and no others.
    pub(super) fn keeps_to_its_keys(&self) -> bool {
        self.only_declared
    }

    fn of_script(known: KnownScript, sha: &Sha, by_digest: bool, read_only: bool, tagged: bool) -> Self {
        // A driver that tags its keys keeps to them: then the script is for their partition alone, with the guard.
        let (script, parts, everywhere) = match known.free {
            Some((script, parts)) if !tagged => (script, parts, true),
            _ => (known.script, known.parts, false),
        };
        let call = parts.any().then(|| {
            let on_nodes = hex(&script.sha);
            Call {
                command: if read_only { "EVALSHA_RO" } else { "EVALSHA" },
                name: on_nodes.clone(),
                finish: Finish {
                    publishes: parts.publish,
                    on_nodes,
                    original: hex(sha),
                },
            }
        });
        Self {
            is_given: by_digest || call.is_some(),
            script,
            parts,
            everywhere,
            only_declared: known.only_declared,
            may_write: known.may_write,
            call,
        }
    }

    /// The commands that nodes are sent, and what is to be done to their reply.
    pub(super) fn prepare(
        self,
        command: &Command,
        frame: &Bytes,
        args: &Args<'_>,
        now_ms: u64,
    ) -> (Commands, Option<Box<Finish>>) {
        let moment = self.parts.moment.then(|| prelude::moment(now_ms, rand::random()));
        let (frame, finish) = match self.call {
            Some(call) => (
                prelude::call(args, call.command, call.name.as_bytes(), moment.as_deref()),
                Some(Box::new(call.finish)),
            ),
            None => (frame.clone(), None),
        };
        // Every script is told by this, also one that needs nothing: it may take long.
        let scripts: Box<[Arc<Script>]> = match self.is_given {
            true => Box::from([self.script]),
            false => Box::from([]),
        };
        let commands = Commands {
            touched: match (self.may_write, self.only_declared) {
                (false, _) => Touched::Keys(SmallVec::new()),
                (true, true) => declared(command, &frame, args),
                (true, false) => Touched::Partition,
            },
            compare: command.compare,
            scripts: Some(scripts),
            brings: Brings::Unknown,
            ..Commands::one(frame)
        };
        (commands, finish)
    }
}

/// Whether the declared keys all have one hash tag, or one route.
fn are_tagged(keyspace: &Keyspace, command: &Command, args: &Args<'_>) -> bool {
    let Ok(keys) = command.keys(args) else {
        return false;
    };
    let mut tags = keys.iter().map(|&key| keyspace.shared_by(args.arg(key as usize)));
    let first = tags.next().flatten();
    first.is_some() && tags.all(|tag| tag == first)
}

/// The declared keys, as places in a frame that has its arguments where the client's command has them.
fn declared(command: &Command, frame: &Bytes, args: &Args<'_>) -> Touched {
    match (CommandScanner::new(usize::MAX).scan(frame), command.keys(args)) {
        (Ok(Scanned::Command { spans, .. }), Ok(keys)) => Touched::Keys(
            keys.iter()
                .filter_map(|&key| spans.get(key as usize).copied())
                .collect(),
        ),
        _ => Touched::Partition,
    }
}

impl Worker {
    /// The script that a command needs; or what becomes of the command if it cannot be had (yet).
    pub(super) fn script_of(
        &self,
        core: &mut Core,
        id: u32,
        command: &Command,
        args: &Args<'_>,
        in_transaction: bool,
    ) -> Result<Option<ScriptUse>, Flow> {
        if command.special == Special::ScriptLoad && in_transaction {
            self.known(core, id, args.arg(2))?;
            return Ok(None);
        }
        // What is executed by a name is looked for when it is executed.
        let by_text = matches!(command.special, Special::Eval | Special::EvalRo);
        if in_transaction && !by_text {
            return Ok(None);
        }
        let found = match kind_of(command.special) {
            Some((false, read_only)) => {
                let known = self.known(core, id, args.arg(1))?;
                self.usable(known, &sha_of(args.arg(1)), (false, read_only), command, args)
            }
            _ => self.script_in_transaction(command, args),
        };
        found.map_err(|error| {
            if let Some(client) = core.clients.get_mut(id as usize) {
                client.spoil_transaction();
            }
            self.reply(core, id, error)
        })
    }

    /// The same for a command of a transaction that is being executed: its text has been shown when it was queued.
    pub(super) fn script_in_transaction(
        &self,
        command: &Command,
        args: &Args<'_>,
    ) -> Result<Option<ScriptUse>, Bytes> {
        if matches!(command.special, Special::Fcall | Special::FcallRo) {
            return self
                .function_of(args, command.special == Special::FcallRo)
                .map(Some);
        }
        let Some((by_digest, read_only)) = kind_of(command.special) else {
            return Ok(None);
        };
        let sha = match by_digest {
            true => parse_sha(args.arg(1)),
            false => Some(sha_of(args.arg(1))),
        };
        let known = sha.and_then(|sha| Some((self.shared().library.script(&sha)?, sha)));
        match known {
            Some((known, sha)) => self.usable(known, &sha, (by_digest, read_only), command, args),
            None => Err(encode::error(NOSCRIPT)),
        }
    }

    fn usable(
        &self,
        known: KnownScript,
        sha: &Sha,
        (by_digest, read_only): (bool, bool),
        command: &Command,
        args: &Args<'_>,
    ) -> Result<Option<ScriptUse>, Bytes> {
        let is_given_few = || {
            command
                .keys(args)
                .is_ok_and(|keys| keys.len() < known.keys_needed)
        };
        let known = match &known.otherwise {
            Some(otherwise) if is_given_few() => KnownScript::clone(otherwise),
            _ => known,
        };
        if let Some(line) = known.refusal {
            return Err(encode::error(line));
        }
        let tagged = are_tagged(&self.shared().keyspace, command, args);
        Ok(Some(ScriptUse::of_script(
            known, sha, by_digest, read_only, tagged,
        )))
    }

    /// The function that `FCALL` names.
    fn function_of(&self, args: &Args<'_>, read_only: bool) -> Result<ScriptUse, Bytes> {
        let functions = self.shared().library.functions();
        let Some(library) = functions.find(args.arg(1)) else {
            return Err(encode::error(NO_FUNCTION));
        };
        let name = format!("{}{}", library.prefix, String::from_utf8_lossy(args.arg(1)));
        Ok(ScriptUse {
            script: library.script.clone(),
            parts: library.parts,
            only_declared: false,
            may_write: true,
            everywhere: self.shared().library.judge.is_one_place() && !library.parts.guard,
            call: Some(Call {
                command: if read_only { "FCALL_RO" } else { "FCALL" },
                name,
                finish: Finish {
                    publishes: library.parts.publish,
                    on_nodes: library.prefix.clone(),
                    original: String::new(),
                },
            }),
            is_given: true,
        })
    }

    /// The script of this text, once a node has compiled it.
    fn known(&self, core: &mut Core, id: u32, text: &[u8]) -> Result<KnownScript, Flow> {
        let sha = sha_of(text);
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Err(Flow::Leave);
        };
        let shown = client.shown.take().filter(|(of, _)| *of == sha);
        // Somebody else may have shown it meanwhile.
        if let Some(script) = self.shared().library.script(&sha) {
            return Ok(script);
        }
        let gone = match shown.map(|(_, shown)| shown) {
            Some(Shown::Answered(Ok(()))) => {
                let text = Bytes::copy_from_slice(text);
                let known = self.shared().library.judge.script(&text);
                if self.shared().library.put(sha, known.clone()) {
                    self.shelve_scripts();
                } else {
                    self.shared().keeper.keep_soon(script_field(&sha), text);
                }
                return Ok(known);
            }
            Some(Shown::Answered(Err(error))) => match &mut client.session.transaction {
                // `EXEC` will say so.
                Some(transaction) => {
                    transaction.fault = Some(error);
                    return Err(Flow::Next);
                }
                None => return Err(self.reply(core, id, error)),
            },
            Some(Shown::Gone(gone)) => gone,
            None => 0,
        };
        let node = core.sequencer.any_node();
        let Some(node) = node.filter(|_| gone <= limits::READ_MOVES_MAX) else {
            client.spoil_transaction();
            return Err(self.refuse(core, id, crate::request::Refusal::Unconfirmed.message()));
        };
        client.busy = true;
        let errand = Recipe::Errand(Errand::ShowScript(sha, gone));
        let slot = client.expect_parts(Gather::new(errand, 1), core.now_us);
        let reply_to = client.reply_to(self.id(), id, slot, 0);
        let load = encode::command_frame(&[b"SCRIPT", b"LOAD", text]);
        let action = Action::OnNode(node, Commands::one(load));
        self.submit(
            core,
            self.id(),
            Request {
                partition: 0,
                db: 0,
                action,
                under: HoldId::NONE,
                reply_to,
            },
        );
        Err(Flow::Again)
    }

    /// Some scripts have been forgotten: what is kept with the pool becomes what is known now.
    fn shelve_scripts(&self) {
        let shared = self.shared().clone();
        spawn_local(async move {
            shared.keeper.keep_no_more();
            let texts = shared.library.texts();
            let now = |shelf: &crate::pool::shelf::Shelf| {
                let known = texts
                    .iter()
                    .map(|(sha, text)| (script_field(sha), Some(text.clone())));
                shelf.without(b's').into_iter().chain(known).collect()
            };
            // If it cannot be kept now, the next sidecar knows some scripts more, or fewer: clients load them again.
            shared.keeper.keep(now).await;
        });
    }

    /// `SCRIPT …`, `FUNCTION …`.
    pub(super) fn script_command(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        special: Special,
        args: &Args<'_>,
    ) -> Flow {
        match special {
            Special::ScriptLoad => self.load_script(core, id, args),
            Special::ScriptFlush if is_flush(args, 2) => {
                self.proceed(core, id, Downgrade::Generic, |procedure| async {
                    let shared = procedure.worker.shared().clone();
                    shared.library.forget_scripts();
                    shared.keeper.keep_no_more();
                    let safe = shared.keeper.keep(|shelf| shelf.without(b's')).await;
                    (procedure, said(if safe { Ok(OK) } else { Err(NOT_KEPT.into()) }))
                })
            }
            Special::FunctionLoad
            | Special::FunctionDelete
            | Special::FunctionFlush
            | Special::FunctionRestore => self.change_functions(core, id, special, args),
            Special::ScriptKill | Special::FunctionKill => self.kill_script(core, id, special),
            _ => {
                let resp3 = core.clients.get(id as usize).is_some_and(|c| c.session.resp3);
                let reply = self.script_reply(special, args, resp3);
                self.reply(core, id, reply)
            }
        }
    }

    /// `SCRIPT LOAD`: answered when a majority of the nodes keeps the text.
    fn load_script(self: &Rc<Self>, core: &mut Core, id: u32, args: &Args<'_>) -> Flow {
        let sha = sha_of(args.arg(2));
        let digest = encode::bulk_frame(hex(&sha).as_bytes());
        match self.known(core, id, args.arg(2)) {
            Err(flow) => flow,
            Ok(known) if known.kept => self.reply(core, id, digest),
            Ok(known) => self.proceed(core, id, Downgrade::Generic, move |procedure| async move {
                let shared = procedure.worker.shared().clone();
                let field = (script_field(&sha), Some(known.text));
                let safe = shared.keeper.keep(|_| vec![field]).await;
                if safe {
                    shared.library.set_kept(&sha);
                }
                (
                    procedure,
                    said(if safe { Ok(digest) } else { Err(NOT_KEPT.into()) }),
                )
            }),
        }
    }

    /// What is answered at once, also in a transaction, whose texts have been shown when they were queued.
    pub(super) fn script_reply(&self, special: Special, args: &Args<'_>, resp3: bool) -> Bytes {
        match special {
            Special::ScriptLoad => {
                let sha = sha_of(args.arg(2));
                self.shared().library.set_kept(&sha);
                self.shared()
                    .keeper
                    .keep_soon(script_field(&sha), Bytes::copy_from_slice(args.arg(2)));
                encode::bulk_frame(hex(&sha).as_bytes())
            }
            Special::ScriptExists => {
                let mut out = BytesMut::new();
                encode::header(&mut out, b'*', args.len() - 2);
                for sha in args.iter().skip(2) {
                    let known =
                        parse_sha(sha).is_some_and(|sha| self.shared().library.script(&sha).is_some());
                    out.extend_from_slice(if known { b":1\r\n" } else { b":0\r\n" });
                }
                out.freeze()
            }
            Special::ScriptFlush if !is_flush(args, 2) => {
                encode::error("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
            }
            _ => self.function_reply(special, args, resp3),
        }
    }
}

pub(super) use super::transaction::OK;

/// The reply of a procedure: what it says, or an error line.
pub(super) fn said(reply: Result<Bytes, String>) -> crate::request::Outcome {
    super::procedure::answer(reply.unwrap_or_else(|line| encode::error(&line)))
}

/// Whether the arguments from `at` on are those of a `FLUSH`: `SYNC`, `ASYNC`, or none.
pub(super) fn is_flush(args: &Args<'_>, at: usize) -> bool {
    match args.get(at) {
        None => true,
        Some(word) => {
            args.len() == at + 1
                && (word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async"))
        }
    }
}

/// For the commands that execute a script: whether by its digest, and whether only to read.
fn kind_of(special: Special) -> Option<(bool, bool)> {
    match special {
        Special::Eval => Some((false, false)),
        Special::EvalRo => Some((false, true)),
        Special::Evalsha => Some((true, false)),
        Special::EvalshaRo => Some((true, true)),
        _ => None,
    }
}
