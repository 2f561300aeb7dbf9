//! Commands about the connection and about "the server": answered here, no node is asked.

use bytes::{Bytes, BytesMut};

use super::client::Silence;
use super::dispatch::Flow;
use super::info::info;
use super::transaction::OK;
use crate::command::{Command, Special};
use crate::pubsub::Kind;
use crate::resp::{Args, encode};
use crate::shared::unix_ms;
use crate::worker::{Core, Worker};

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const SYNTAX: &str = "ERR syntax error";

impl Worker {
    /// Answers a command that needs no node.
    pub(super) fn local(&self, core: &mut Core, id: u32, command: &Command, args: &Args<'_>) -> Flow {
        if command.special == Special::Reset {
            self.end_subscriptions(core, id);
        }
        let reply = self.local_reply(core, id, command, args);
        if let Some(client) = core.clients.get_mut(id as usize)
            && command.special == Special::ClientReply
        {
            // `ON` is answered, the others are not, and `SKIP` begins with the next command.
            let word = args.arg(2).to_ascii_lowercase();
            match word.as_slice() {
                b"off" => {
                    client.session.silent = Silence::Always;
                    return Flow::Next;
                }
                b"skip" => {
                    if client.session.silent == Silence::No {
                        client.session.silent = Silence::Once;
                    }
                    return Flow::Next;
                }
                _ => {}
            }
        }
        let quits = command.special == Special::Quit;
        self.reply(core, id, reply);
        if quits {
            if let Some(client) = core.clients.get_mut(id as usize) {
                client.closing = true;
            }
            return Flow::Leave;
        }
        Flow::Next
    }

    /// The reply, in the client's protocol.
    pub(super) fn local_reply(&self, core: &mut Core, id: u32, command: &Command, args: &Args<'_>) -> Bytes {
        let shared = self.shared();
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Bytes::new();
        };
        let session = &mut client.session;
        match command.special {
            Special::Ping if args.len() > 2 => {
                encode::error("ERR wrong number of arguments for 'ping' command")
            }
            Special::Ping if client.subscriptions.is_some() && !session.resp3 => {
                let mut out = BytesMut::new();
                encode::header(&mut out, b'*', 2);
                encode::bulk(&mut out, b"pong");
                encode::bulk(&mut out, args.arg(1));
                out.freeze()
            }
            Special::Ping if args.len() == 2 => encode::bulk_frame(args.arg(1)),
            Special::Ping => Bytes::from_static(b"+PONG\r\n"),
            Special::Echo => encode::bulk_frame(args.arg(1)),
            Special::Quit => OK,
            Special::Hello => self.hello(core, id, args),
            Special::Auth => match args.len() {
                2 => self.authenticate(core, id, b"default", args.arg(1)),
                3 => self.authenticate(core, id, args.arg(1), args.arg(2)),
                _ => encode::error(SYNTAX),
            },
            Special::Select => {
                let number = number::<i64>(args.arg(1));
                match number.map(|n| u16::try_from(n).ok().filter(|&db| shared.has_database(db))) {
                    None => encode::error("ERR value is not an integer or out of range"),
                    Some(None) => encode::error("ERR DB index is out of range"),
                    Some(Some(db)) => {
                        session.db = db;
                        OK
                    }
                }
            }
            Special::Reset => {
                session.transaction = None;
                session.watch = None;
                session.resp3 = false;
                session.db = 0;
                session.name = Bytes::new();
                session.silent = Silence::No;
                session.authenticated = shared.config.listen.password.is_none();
                Bytes::from_static(b"+RESET\r\n")
            }
            Special::Time => {
                let ms = core.clock.now_ms.max(1);
                let mut out = BytesMut::new();
                encode::header(&mut out, b'*', 2);
                encode::bulk(&mut out, (ms / 1000).to_string().as_bytes());
                encode::bulk(&mut out, (ms % 1000 * 1000).to_string().as_bytes());
                out.freeze()
            }
            // Acknowledged means copied: what has been answered is already on W nodes.
            Special::Wait => encode::integer(i64::from(shared.table.load().write_quorum) - 1),
            Special::Info => {
                let wanted: Vec<String> = args
                    .iter()
                    .skip(1)
                    .map(|w| String::from_utf8_lossy(w).to_lowercase())
                    .collect();
                verbatim(&info(shared, &wanted), session.resp3)
            }
            Special::LastSave => encode::integer((shared.started_ms / 1000) as i64),
            Special::Role => Bytes::from_static(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            Special::ConfigGet => self.config_get(session.resp3, args),
            Special::AclWhoami => encode::bulk_frame(shared.config.listen.user().as_bytes()),
            _ if command.name.starts_with("client|") => self.client_command(core, id, command.special, args),
            _ => encode::error(&format!(
                "ERR the command '{}' is not available yet",
                command.name
            )),
        }
    }

    fn authenticate(&self, core: &mut Core, id: u32, user: &[u8], password: &[u8]) -> Bytes {
        let listen = &self.shared().config.listen;
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Bytes::new();
        };
        let Some(expected) = &listen.password else {
            // Redis's default user takes any password when it has none.
            return if user == b"default" {
                encode::error(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                     configuration is correct?",
                )
            } else {
                encode::error(WRONGPASS)
            };
        };
        if user == listen.user().as_bytes() && expected.matches(password) {
            client.session.authenticated = true;
            OK
        } else {
            encode::error(WRONGPASS)
        }
    }

    fn hello(&self, core: &mut Core, id: u32, args: &Args<'_>) -> Bytes {
        let resp3 = match args.get(1) {
            None => core.clients.get(id as usize).is_some_and(|c| c.session.resp3),
            Some(b"2") => false,
            Some(b"3") => true,
            Some(other) if number::<i64>(other).is_none() => {
                return encode::error("ERR Protocol version is not an integer or out of range");
            }
            Some(_) => return encode::error("NOPROTO unsupported protocol version"),
        };
        let mut at = 2;
        let mut name = None;
        while let Some(option) = args.get(at) {
            if option.eq_ignore_ascii_case(b"AUTH") && args.len() > at + 2 {
                let reply = self.authenticate(core, id, args.arg(at + 1), args.arg(at + 2));
                if reply.first() == Some(&b'-') {
                    return reply;
                }
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && args.len() > at + 1 {
                name = Some(Bytes::copy_from_slice(args.arg(at + 1)));
                at += 2;
            } else {
                let option = String::from_utf8_lossy(option).into_owned();
                return encode::error(&format!("ERR Syntax error in HELLO option '{option}'"));
            }
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Bytes::new();
        };
        if !client.session.authenticated {
            return encode::error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time",
            );
        }
        if let Some(name) = name {
            if !printable(&name) {
                return encode::error(BAD_NAME);
            }
            client.session.name = name;
        }
        client.session.resp3 = resp3;
        let client_id = client.session.id;
        let mut out = BytesMut::new();
        encode::header(
            &mut out,
            if resp3 { b'%' } else { b'*' },
            if resp3 { 7 } else { 14 },
        );
        for (key, value) in [("server", "redis"), ("version", self.shared().version.as_str())] {
            encode::bulk(&mut out, key.as_bytes());
            encode::bulk(&mut out, value.as_bytes());
        }
        encode::bulk(&mut out, b"proto");
        out.extend_from_slice(&encode::integer(if resp3 { 3 } else { 2 }));
        encode::bulk(&mut out, b"id");
        out.extend_from_slice(&encode::integer(client_id as i64));
        for (key, value) in [("mode", "standalone"), ("role", "master")] {
            encode::bulk(&mut out, key.as_bytes());
            encode::bulk(&mut out, value.as_bytes());
        }
        encode::bulk(&mut out, b"modules");
        out.extend_from_slice(b"*0\r\n");
        out.freeze()
    }

    fn client_command(&self, core: &mut Core, id: u32, special: Special, args: &Args<'_>) -> Bytes {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Bytes::new();
        };
        let session = &mut client.session;
        match special {
            Special::ClientId => encode::integer(session.id as i64),
            Special::ClientGetname if session.name.is_empty() => null(session.resp3),
            Special::ClientGetname => encode::bulk_frame(&session.name),
            Special::ClientSetname if !printable(args.arg(2)) => encode::error(BAD_NAME),
            Special::ClientSetname => {
                session.name = Bytes::copy_from_slice(args.arg(2));
                OK
            }
            Special::ClientSetinfo => {
                let value = Bytes::copy_from_slice(args.arg(3));
                match args.arg(2).to_ascii_lowercase().as_slice() {
                    b"lib-name" => session.lib_name = value,
                    b"lib-ver" => session.lib_ver = value,
                    _ => return encode::error("ERR Unrecognized option for CLIENT SETINFO"),
                }
                OK
            }
            Special::ClientInfo => verbatim(&describe(client), client.session.resp3),
            Special::ClientList => {
                let resp3 = session.resp3;
                let list: String = core.clients.iter().map(|(_, client)| describe(client)).collect();
                verbatim(&list, resp3)
            }
            Special::ClientNoEvict | Special::ClientNoTouch => OK,
            Special::ClientReply => match args.arg(2).to_ascii_lowercase().as_slice() {
                b"on" => {
                    session.silent = Silence::No;
                    OK
                }
                b"off" | b"skip" => OK,
                _ => encode::error(SYNTAX),
            },
            Special::ClientGetredir => encode::integer(-1),
            _ => encode::error("ERR this CLIENT command is not available yet"),
        }
    }

    /// What drivers ask for, and nothing else.
    fn config_get(&self, resp3: bool, args: &Args<'_>) -> Bytes {
        let config = &self.shared().config;
        let databases = self.shared().databases.to_string();
        let clients_max = config.limits.clients_max.to_string();
        let idle = config.timeouts.client_idle.as_secs().to_string();
        let known: [(&str, &str); 9] = [
            ("maxmemory", "0"),
            ("maxmemory-policy", "noeviction"),
            ("databases", &databases),
            ("maxclients", &clients_max),
            ("timeout", &idle),
            ("appendonly", "yes"),
            ("save", ""),
            ("notify-keyspace-events", ""),
            ("proto-max-bulk-len", "536870912"),
        ];
        let wanted: Vec<String> = args
            .iter()
            .skip(2)
            .map(|w| String::from_utf8_lossy(w).to_lowercase())
            .collect();
        let found: Vec<_> = known
            .iter()
            .filter(|(name, _)| wanted.iter().any(|w| w == "*" || w == name))
            .collect();
        let mut out = BytesMut::new();
        if resp3 {
            encode::header(&mut out, b'%', found.len());
        } else {
            encode::header(&mut out, b'*', 2 * found.len());
        }
        for (name, value) in found {
            encode::bulk(&mut out, name.as_bytes());
            encode::bulk(&mut out, value.as_bytes());
        }
        out.freeze()
    }
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn printable(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

fn null(resp3: bool) -> Bytes {
    Bytes::from_static(if resp3 { b"_\r\n" } else { b"$-1\r\n" })
}

/// Text as a client of either protocol gets it.
fn verbatim(text: &str, resp3: bool) -> Bytes {
    if !resp3 {
        return encode::bulk_frame(text.as_bytes());
    }
    let mut out = BytesMut::with_capacity(text.len() + 24);
    encode::header(&mut out, b'=', text.len() + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.freeze()
}

fn describe(client: &super::Client) -> String {
    let session = &client.session;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "id={} addr={} name={} age={} db={} sub={} psub={} ssub={} multi={} resp={} lib-name={} lib-ver={}\n",
        session.id,
        session.peer,
        text(&session.name),
        unix_ms().saturating_sub(session.since_ms) / 1000,
        session.db,
        client.subscribed_to(Kind::Channel),
        client.subscribed_to(Kind::Pattern),
        client.subscribed_to(Kind::Shard),
        if session.transaction.is_some() { 0 } else { -1 },
        if session.resp3 { 3 } else { 2 },
        text(&session.lib_name),
        text(&session.lib_ver),
    )
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
