//! Scripts: known to the sidecar first, and then to every node that is to execute one.
//!
//! The cache of a Redis server is one server's; here a script may be executed on any node, at any time, also on one that
//! has just been restarted. So the sidecar keeps the texts, and a node's stream is given `SCRIPT LOAD` right before the
//! first command that needs the script there, in the same batch. A script that could have another effect on each node is
//! executed with a shim in front ([`shim`]). A text that nobody has shown yet is first shown to one
//! node, which compiles it (or says what is wrong with it); the client's command waits for that.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha1_smol::Sha1;

use super::client::Showing;
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use crate::command::script::{analyse, shim};
use crate::command::{Command, Flags, Special};
use crate::request::{Action, Commands, HoldId, Request, Script};
use crate::resp::{Args, encode};
use crate::shared::KnownScript;
use crate::worker::{Core, Worker};

const NOSCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

const DIFFERS: &str = "ERR this script may have another effect on each node, and hides how it calls Redis (_G, loadstring, …), \
                       or the nodes are older than Redis 7.0: it cannot be mirrored. Pass times and random values as \
                       arguments instead";

const OUT_OF_BOUNDS: &str = "ERR this script uses a command that operates a server or reaches beyond its keys (SELECT, \
                             FLUSHALL, CONFIG, …), which is not possible in a pool";

/// Oldest version that has what the shim uses: `PEXPIRETIME`, `XADD <ms>-*`.
const SHIM_MAJOR_MIN: u32 = 7;

/// A script that a command needs.
pub(super) struct ScriptUse {
    known: KnownScript,
    by_digest: bool,
    read_only: bool,
}

impl ScriptUse {
    /// The command as nodes get it.
    pub(super) fn frame(&self, frame: &Bytes, args: &Args<'_>, now_ms: u64) -> Bytes {
        match self.known.shimmed {
            true => shim::call(args, &hex(&self.known.script.sha), self.read_only, now_ms),
            false => frame.clone(),
        }
    }

    /// What a node must know before; `EVAL` carries its text itself.
    pub(super) fn into_loads(self) -> Option<Box<[Arc<Script>]>> {
        (self.by_digest || self.known.shimmed).then(|| Box::from([self.known.script]))
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
        let Some((by_digest, read_only)) = kind_of(command.special) else {
            return Ok(None);
        };
        let known = if by_digest {
            match parse_sha(args.arg(1)).and_then(|sha| self.shared().scripts.get(&sha)) {
                Some(script) => script,
                // In a transaction that is `EXEC`'s business.
                None if in_transaction => return Ok(None),
                None => return Err(self.refuse(core, id, NOSCRIPT)),
            }
        } else {
            self.known(core, id, args.arg(1))?
        };
        if let Some(line) = known.refusal {
            if let Some(client) = core.clients.get_mut(id as usize) {
                client.spoil_transaction();
            }
            return Err(self.refuse(core, id, line));
        }
        Ok(Some(ScriptUse {
            known,
            by_digest,
            read_only,
        }))
    }

    /// The same for a command of a transaction that is being executed: its text has been shown when it was queued.
    pub(super) fn script_in_transaction(
        &self,
        command: &Command,
        args: &Args<'_>,
    ) -> Result<Option<ScriptUse>, Bytes> {
        let Some((by_digest, read_only)) = kind_of(command.special) else {
            return Ok(None);
        };
        let sha = if by_digest {
            parse_sha(args.arg(1))
        } else {
            Some(Sha1::from(args.arg(1)).digest().bytes())
        };
        match sha.and_then(|sha| self.shared().scripts.get(&sha)) {
            Some(known) => Ok(Some(ScriptUse {
                known,
                by_digest,
                read_only,
            })),
            None => Err(encode::error(NOSCRIPT)),
        }
    }

    /// The script of this text, once a node has compiled it.
    fn known(&self, core: &mut Core, id: u32, text: &[u8]) -> Result<KnownScript, Flow> {
        let sha = Sha1::from(text).digest().bytes();
        if let Some(script) = self.shared().scripts.get(&sha) {
            return Ok(script);
        }
        let load = encode::command_frame(&[b"SCRIPT", b"LOAD", text]);
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Err(Flow::Leave);
        };
        match std::mem::take(&mut client.showing) {
            Showing::Asked => {
                client.showing = Showing::Asked;
                Err(Flow::Again)
            }
            Showing::Done(Ok(())) => {
                let known = self.examine(text, sha, load);
                self.shared().scripts.put(sha, known.clone());
                Ok(known)
            }
            Showing::Done(Err(error)) => match &mut client.session.transaction {
                // `EXEC` will say so.
                Some(transaction) => {
                    transaction.fault = Some(error);
                    Err(Flow::Next)
                }
                None => Err(self.reply(core, id, error)),
            },
            Showing::No => {
                let Some(node) = core.sequencer.any_node() else {
                    return Err(self.refuse(core, id, crate::request::Refusal::Unconfirmed.message()));
                };
                client.showing = Showing::Asked;
                let slot = client.expect_parts(Gather::new(Recipe::ScriptShown, 1), core.now_us);
                let reply_to = client.reply_to(self.id(), id, slot, 0);
                let action = Action::OnNode(node, Commands::one(load));
                self.submit(
                    core,
                    self.id(),
                    Request {
                        partition: 0,
                        db: 0,
                        under: HoldId::NONE,
                        action,
                        reply_to,
                    },
                );
                Err(Flow::Again)
            }
        }
    }

    /// In which form a script is executed, if at all.
    fn examine(&self, text: &[u8], sha: [u8; 20], load: Bytes) -> KnownScript {
        let commands = &self.shared().commands;
        let traits = analyse(text);
        let out_of_bounds = |name: &str| {
            matches!(name, "select" | "flushall" | "flushdb" | "script" | "function")
                || commands.get(name).is_some_and(Command::is_refused)
        };
        let writes = |name: &str| commands.get(name).is_none_or(|c| c.flags.contains(Flags::WRITE));
        let differs = self.shared().config.pool.replicas > 1
            && (traits.unclear
                || traits.names_time_or_random
                || traits.relative_expiry
                || (traits.unordered_reads && traits.commands.iter().any(|name| writes(name))));
        let major = self
            .shared()
            .version
            .split('.')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let refusal = if traits.commands.iter().any(|name| out_of_bounds(name)) {
            Some(OUT_OF_BOUNDS)
        } else if differs && (traits.hidden || major < SHIM_MAJOR_MIN) {
            Some(DIFFERS)
        } else {
            None
        };
        let script = if differs {
            let text = shim::shimmed(text);
            let sha = Sha1::from(&text).digest().bytes();
            Script {
                sha,
                load: encode::command_frame(&[b"SCRIPT", b"LOAD", &text]),
            }
        } else {
            Script { sha, load }
        };
        KnownScript {
            script: Arc::new(script),
            shimmed: differs,
            refusal,
        }
    }

    /// `SCRIPT …`, `FUNCTION …`.
    pub(super) fn script_command(&self, core: &mut Core, id: u32, special: Special, args: &Args<'_>) -> Flow {
        if special == Special::ScriptLoad
            && let Err(flow) = self.known(core, id, args.arg(2))
        {
            return flow;
        }
        let reply = self.script_reply(special, args);
        self.reply(core, id, reply)
    }

    /// The same in a transaction, whose texts have been shown when they were queued.
    pub(super) fn script_reply(&self, special: Special, args: &Args<'_>) -> Bytes {
        match special {
            Special::ScriptLoad => {
                encode::bulk_frame(hex(&Sha1::from(args.arg(2)).digest().bytes()).as_bytes())
            }
            Special::ScriptExists => {
                let mut out = BytesMut::new();
                encode::header(&mut out, b'*', args.len() - 2);
                for sha in args.iter().skip(2) {
                    let known = parse_sha(sha).is_some_and(|sha| self.shared().scripts.get(&sha).is_some());
                    out.extend_from_slice(if known { b":1\r\n" } else { b":0\r\n" });
                }
                out.freeze()
            }
            Special::ScriptFlush => {
                let sound = match args.get(2) {
                    None => true,
                    Some(word) => word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async"),
                };
                if !sound || args.len() > 3 {
                    return encode::error("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
                }
                self.shared().scripts.clear();
                Bytes::from_static(b"+OK\r\n")
            }
            _ => encode::error("ERR functions, and stopping scripts, are not available yet"),
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
