//! Commands about the connection and about "the server" that need no node: here is who answers each of them.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use super::account::account;
use super::answer::verbatim;
use super::config_get::config_get;
use super::dispatch::Flow;
use super::info::info;
use super::latency::latency;
use super::monitor;
use super::transaction::OK;
use crate::command::{Command, Special};
use crate::resp::{Args, encode};
use crate::shared::Shared;
use crate::worker::{Core, Worker};

impl Worker {
    /// Answers a command that needs no node.
    pub(super) fn local(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        args: &Args<'_>,
    ) -> Flow {
        match command.special {
            Special::ClientReply => return self.client_reply(core, id, args),
            Special::Monitor => return self.monitor(core, id),
            Special::Wait => return self.wait(core, id, args),
            _ => {}
        }
        if command.special == Special::Reset {
            self.end_subscriptions(core, id);
        }
        let reply = self.local_reply(core, id, command, args);
        self.reply(core, id, reply);
        if command.special != Special::Quit {
            return Flow::Next;
        }
        if let Some(client) = core.clients.get_mut(id as usize) {
            client.closing = true;
        }
        Flow::Leave
    }

    /// The reply, in the client's protocol; also as a part of a transaction's.
    pub(super) fn local_reply(&self, core: &mut Core, id: u32, command: &Command, args: &Args<'_>) -> Bytes {
        let shared = self.shared();
        let config = &shared.config;
        let Some(client) = core.clients.get(id as usize) else {
            return Bytes::new();
        };
        if let Some(reply) = self.client_command(core, client, command.special) {
            return reply;
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Bytes::new();
        };
        let session = &mut client.session;
        use Special::*;
        match command.special {
            Ping if args.len() > 2 => encode::error("ERR wrong number of arguments for 'ping' command"),
            Ping if client.subscriptions.is_some() && !session.resp3 => {
                let mut out = BytesMut::new();
                encode::header(&mut out, b'*', 2);
                encode::bulk(&mut out, b"pong");
                encode::bulk(&mut out, args.arg(1));
                out.freeze()
            }
            Ping if args.len() == 2 => encode::bulk_frame(args.arg(1)),
            Ping => Bytes::from_static(b"+PONG\r\n"),
            Echo => encode::bulk_frame(args.arg(1)),
            Quit => OK,
            Hello => session.hello(shared, args),
            Auth => session.auth(shared, args),
            Select => session.select(shared, args),
            Reset => session.reset(shared),
            ClientPause => self.pause(args),
            // In a transaction, as from Redis there.
            Monitor => monitor::in_transaction(),
            ClientReply => OK,
            Time => time(shared),
            Wait => self.wait_at_once(args),
            Info => verbatim(&info(shared, args), session.resp3),
            // Until the nodes have been asked, a server that has just started.
            LastSave => match shared.keeper.pool_info().last_save_s {
                0 => encode::integer((shared.started_ms / 1000) as i64),
                at => encode::integer(at),
            },
            Role => Bytes::from_static(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            ConfigGet => config_get(shared, args, session.resp3),
            ConfigResetstat => {
                shared.reset_counts();
                OK
            }
            SlowlogGet | SlowlogLen | SlowlogReset => shared.slow_log.command(command.special, args),
            AclWhoami | AclUsers | AclList | AclGetuser => {
                account(&config.listen, command.special, args, session.resp3)
            }
            LatencyLatest | LatencyHistory | LatencyHistogram | LatencyGraph | LatencyReset
            | LatencyDoctor => latency(command.special, args, session.resp3),
            _ if command.name.starts_with("client|") => session.client_setting(command.special, args),
            _ => encode::error(&format!(
                "ERR the command '{}' is not available yet",
                command.name
            )),
        }
    }
}

/// `TIME`: the pool's clock.
fn time(shared: &Shared) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let us = now.as_micros() as i64 + shared.clock_offset_us();
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', 2);
    encode::bulk(&mut out, (us / 1_000_000).to_string().as_bytes());
    encode::bulk(&mut out, (us % 1_000_000).to_string().as_bytes());
    out.freeze()
}
