//! Scripts: known to the sidecar first, and then to every node that is to execute one.
//!
//! The cache of a Redis server is one server's; here a script may be executed on any node, at any time, also on one that
//! has just been restarted. So the sidecar keeps the texts, and a node's stream is given `SCRIPT LOAD` right before the
//! first command that needs the script there, in the same batch. A text that nobody has shown yet is first shown to one
//! node, which compiles it (or says what is wrong with it); the client's command waits for that.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha1_smol::Sha1;

use super::client::Showing;
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use crate::command::script::{ScriptTraits, analyse};
use crate::command::{Command, Flags, Special};
use crate::request::{Action, Request, Script};
use crate::resp::{Args, encode};
use crate::worker::{Core, Worker};

const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

const DIFFERS: &str = "ERR this script may have another effect on each node (it asks for the time, draws at random, \
                       writes what it read in no defined order, or computes a command's name), and cannot be mirrored \
                       yet. Pass such values as arguments instead";

const OUT_OF_BOUNDS: &str = "ERR this script uses a command that operates a server or reaches beyond its keys (SELECT, \
                             FLUSHALL, CONFIG, …), which is not possible in a pool";

/// A script that a command needs.
pub(super) struct ScriptUse {
    script: Arc<Script>,
    /// `EVAL` carries the text itself.
    by_digest: bool,
}

impl ScriptUse {
    pub(super) fn into_loads(self) -> Option<Box<[Arc<Script>]>> {
        self.by_digest.then(|| Box::from([self.script]))
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
    ) -> Result<Option<ScriptUse>, Flow> {
        let by_digest = match command.special {
            Special::Eval | Special::EvalRo => false,
            Special::Evalsha | Special::EvalshaRo => true,
            _ => return Ok(None),
        };
        let script = if by_digest {
            match parse_sha(args.arg(1)).and_then(|sha| self.shared().scripts.get(&sha)) {
                Some(script) => script,
                None => return Err(self.refuse(core, id, NOSCRIPT)),
            }
        } else {
            self.known(core, id, args.arg(1))?
        };
        if let Some(line) = script.refusal {
            return Err(self.refuse(core, id, line));
        }
        Ok(Some(ScriptUse { script, by_digest }))
    }

    /// The same for a command of a transaction that is being executed: its text has been shown when it was queued.
    pub(super) fn script_in_transaction(&self, command: &Command, args: &Args<'_>) -> Result<Option<ScriptUse>, Bytes> {
        let (by_digest, sha) = match command.special {
            Special::Eval | Special::EvalRo => (false, Some(Sha1::from(args.arg(1)).digest().bytes())),
            Special::Evalsha | Special::EvalshaRo => (true, parse_sha(args.arg(1))),
            _ => return Ok(None),
        };
        match sha.and_then(|sha| self.shared().scripts.get(&sha)) {
            Some(script) => Ok(Some(ScriptUse { script, by_digest })),
            None => Err(encode::error(NOSCRIPT)),
        }
    }

    /// The script of this text, once a node has compiled it.
    fn known(&self, core: &mut Core, id: u32, text: &[u8]) -> Result<Arc<Script>, Flow> {
        let sha = Sha1::from(text).digest().bytes();
        if let Some(script) = self.shared().scripts.get(&sha) {
            return Ok(script);
        }
        let load = encode::command_frame(&[b"SCRIPT", b"LOAD", text]);
        let Some(client) = core.clients.get_mut(id as usize) else { return Err(Flow::Leave) };
        match std::mem::take(&mut client.showing) {
            Showing::Asked => {
                client.showing = Showing::Asked;
                Err(Flow::Again)
            }
            Showing::Done(Ok(())) => {
                let script = Arc::new(Script { sha, load, refusal: self.refusal(&analyse(text)) });
                self.shared().scripts.put(script.clone());
                Ok(script)
            }
            Showing::Done(Err(error)) => Err(self.reply(core, id, error)),
            Showing::No => {
                let Some(node) = core.sequencer.any_node() else {
                    return Err(self.refuse(core, id, crate::request::Refusal::Unconfirmed.message()));
                };
                client.showing = Showing::Asked;
                let slot = client.expect_parts(Gather::new(Recipe::ScriptShown, 1), core.now_us);
                let reply_to = client.reply_to(self.id(), id, slot, 0);
                let action = Action::OnNode(node, load);
                self.submit(core, self.id(), Request { partition: 0, db: 0, action, reply_to });
                Err(Flow::Again)
            }
        }
    }

    /// Why a script is not executed, if so.
    fn refusal(&self, traits: &ScriptTraits) -> Option<&'static str> {
        let writes = |name: &str| self.shared().commands.get(name).is_none_or(|c| c.flags.contains(Flags::WRITE));
        let out_of_bounds = |name: &str| {
            matches!(name, "select" | "flushall" | "flushdb" | "script" | "function")
                || self.shared().commands.get(name).is_some_and(Command::is_refused)
        };
        if traits.commands.iter().any(|name| out_of_bounds(name)) {
            return Some(OUT_OF_BOUNDS);
        }
        let differs = traits.unclear
            || traits.names_time_or_random
            || (traits.unordered_reads && traits.commands.iter().any(|name| writes(name)));
        (differs && self.shared().config.pool.replicas > 1).then_some(DIFFERS)
    }

    /// `SCRIPT …`, `FUNCTION …`.
    pub(super) fn script_command(&self, core: &mut Core, id: u32, special: Special, args: &Args<'_>) -> Flow {
        match special {
            Special::ScriptLoad => match self.known(core, id, args.arg(2)) {
                Ok(script) => self.reply(core, id, encode::bulk_frame(hex(&script.sha).as_bytes())),
                Err(flow) => flow,
            },
            Special::ScriptExists => {
                let mut out = BytesMut::new();
                encode::header(&mut out, b'*', args.len() - 2);
                for sha in args.iter().skip(2) {
                    let known = parse_sha(sha).is_some_and(|sha| self.shared().scripts.get(&sha).is_some());
                    out.extend_from_slice(if known { b":1\r\n" } else { b":0\r\n" });
                }
                self.reply(core, id, out.freeze())
            }
            Special::ScriptFlush => {
                self.shared().scripts.clear();
                self.reply(core, id, Bytes::from_static(b"+OK\r\n"))
            }
            _ => self.refuse(core, id, "ERR functions, and stopping scripts, are not available yet"),
        }
    }
}

fn parse_sha(text: &[u8]) -> Option<[u8; 20]> {
    let mut sha = [0; 20];
    if text.len() != 40 {
        return None;
    }
    for (byte, pair) in sha.iter_mut().zip(text.chunks(2)) {
        let digit = |i: usize| pair.get(i).and_then(|&c| char::from(c).to_digit(16));
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(sha)
}

fn hex(sha: &[u8; 20]) -> String {
    sha.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_in_either_case() {
        let sha = Sha1::from("return 1").digest().bytes();
        let text = hex(&sha);
        assert_eq!(text, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(parse_sha(text.to_uppercase().as_bytes()), Some(sha));
        assert_eq!(parse_sha(b"xyz"), None);
        assert_eq!(parse_sha(&[b'g'; 40]), None);
    }
}
