//! The clients of all threads: `CLIENT LIST`, `CLIENT KILL`, `CLIENT UNBLOCK`.
//!
//! A client is known to its worker only. So each worker is sent the question and answers for its own clients; the parts
//! become one reply as those of any command that goes to several places (`gather`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::answer::{SYNTAX, verbatim, word, wrong_subcommand};
use super::blocking::Unblocking;
use super::client::Client;
use super::client_command::client_id;
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use crate::command::{Special, number};
use crate::pubsub;
use crate::request::{Outcome, ReplyTo};
use crate::resp::{Args, encode};
use crate::shared::{Message, unix_ms};
use crate::worker::{Core, Worker};

/// What every worker is asked about its clients.
#[derive(Clone, Debug)]
pub enum RollCall {
    /// A line for each of these.
    List(Filter),
    /// These are disconnected: how many.
    Kill(Filter),
    /// This one waits no more: whether it did.
    Unblock {
        /// `CLIENT ID`.
        id: u64,
        /// Whether it is answered with an error, else as at the end of its time.
        error: bool,
    },
}

/// Which clients are meant: those for which all that is given holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    ids: Vec<u64>,
    kind: Option<Kind>,
    addr: Option<String>,
    laddr: Option<String>,
    age_s_min: u64,
    /// The one that asks, if it is not meant itself.
    except: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Master,
    Replica,
    PubSub,
}

impl Kind {
    fn of(name: &[u8]) -> Result<Self, Bytes> {
        Ok(match name.to_ascii_lowercase().as_slice() {
            b"normal" => Self::Normal,
            b"master" => Self::Master,
            b"replica" | b"slave" => Self::Replica,
            b"pubsub" => Self::PubSub,
            _ => {
                return Err(encode::error(&format!(
                    "ERR Unknown client type '{}'",
                    word(name)
                )));
            }
        })
    }

    fn of_client(client: &Client) -> Self {
        match client.subscriptions {
            None => Self::Normal,
            Some(_) => Self::PubSub,
        }
    }
}

impl Filter {
    fn takes(&self, client: &Client) -> bool {
        let session = &client.session;
        let same = |wanted: &Option<String>, address: &str| wanted.as_ref().is_none_or(|w| w == address);
        !client.gone
            && self.except != Some(session.id)
            && (self.ids.is_empty() || self.ids.contains(&session.id))
            && self.kind.is_none_or(|kind| kind == Kind::of_client(client))
            && same(&self.addr, &session.peer)
            && same(&self.laddr, &session.local)
            && session.age_s() >= self.age_s_min
    }

    /// `CLIENT LIST [TYPE type | ID id …]`.
    fn to_list(args: &Args<'_>) -> Result<Self, Bytes> {
        let mut filter = Self::default();
        match args.arg(2).to_ascii_lowercase().as_slice() {
            _ if args.len() == 2 => {}
            b"type" if args.len() == 4 => filter.kind = Some(Kind::of(args.arg(3))?),
            b"id" if args.len() > 3 => {
                for arg in args.iter().skip(3) {
                    let id = number::integer(arg).and_then(|id| u64::try_from(id).ok());
                    filter
                        .ids
                        .push(id.ok_or_else(|| encode::error("ERR Invalid client ID"))?);
                }
            }
            _ => return Err(encode::error(SYNTAX)),
        }
        Ok(filter)
    }

    /// `CLIENT KILL filter value …`, asked by client `asker`.
    fn to_kill(args: &Args<'_>, asker: u64, user: &str) -> Result<Self, Bytes> {
        let mut filter = Self {
            except: Some(asker),
            ..Self::default()
        };
        let mut at = 2;
        while at < args.len() {
            let Some(value) = args.get(at + 1) else {
                return Err(encode::error(SYNTAX));
            };
            match args.arg(at).to_ascii_lowercase().as_slice() {
                b"id" => match number::integer(value) {
                    Some(id @ 1..) => filter.ids = vec![id as u64],
                    _ => return Err(encode::error("ERR client-id should be greater than 0")),
                },
                b"type" => filter.kind = Some(Kind::of(value)?),
                b"addr" => filter.addr = Some(word(value)),
                b"laddr" => filter.laddr = Some(word(value)),
                b"user" if value == user.as_bytes() => {}
                b"user" => return Err(encode::error(&format!("ERR No such user '{}'", word(value)))),
                b"skipme" => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filter.except = Some(asker),
                    b"no" => filter.except = None,
                    _ => return Err(encode::error(SYNTAX)),
                },
                b"maxage" => match number::integer(value) {
                    Some(age @ 1..) => filter.age_s_min = age as u64,
                    _ => return Err(encode::error("ERR maxage is not an integer or out of range")),
                },
                _ => return Err(encode::error(SYNTAX)),
            }
            at += 2;
        }
        Ok(filter)
    }
}

impl Worker {
    /// A command that all workers have to be asked for.
    pub(super) fn call_roll(&self, core: &mut Core, id: u32, special: Special, args: &Args<'_>) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let (recipe, roll_call) = match self.roll_call(client, special, args) {
            Ok(question) => question,
            Err(line) => return self.reply(core, id, line),
        };
        let workers = self.shared().workers.len() as u16;
        let slot = client.expect_parts(Gather::new(recipe, usize::from(workers)), core.now_us);
        let to: Vec<ReplyTo> = (0..workers)
            .map(|worker| client.reply_to(self.id(), id, slot, worker))
            .collect();
        for (worker, to) in to.into_iter().enumerate() {
            let worker = worker as u16;
            if worker == self.id() {
                self.answer_roll(core, &roll_call, to);
            } else {
                core.mail(worker, Message::RollCall(roll_call.clone(), to));
            }
        }
        Flow::Next
    }

    fn roll_call(
        &self,
        client: &Client,
        special: Special,
        args: &Args<'_>,
    ) -> Result<(Recipe, RollCall), Bytes> {
        Ok(match special {
            Special::ClientList => {
                let filter = Filter::to_list(args)?;
                (Recipe::ClientList(filter.ids.clone()), RollCall::List(filter))
            }
            // The old form: an address, which may be the asker's own.
            Special::ClientKill if args.len() == 3 => {
                let filter = Filter {
                    addr: Some(word(args.arg(2))),
                    ..Filter::default()
                };
                (Recipe::KilledOne, RollCall::Kill(filter))
            }
            Special::ClientKill => {
                let user = self.shared().config.listen.user();
                let filter = Filter::to_kill(args, client.session.id, user)?;
                (Recipe::Sum, RollCall::Kill(filter))
            }
            _ if args.len() > 4 => return Err(wrong_subcommand(args)),
            _ => {
                let error = match args.arg(3).to_ascii_lowercase().as_slice() {
                    b"" if args.len() == 3 => false,
                    b"timeout" => false,
                    b"error" => true,
                    _ => {
                        return Err(encode::error(
                            "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
                        ));
                    }
                };
                let id = client_id(args.arg(2))?;
                (Recipe::Sum, RollCall::Unblock { id, error })
            }
        })
    }

    /// This worker's part of the answer.
    pub(crate) fn answer_roll(&self, core: &mut Core, roll_call: &RollCall, to: ReplyTo) {
        let frames = match roll_call {
            RollCall::List(filter) => self.list(core, filter),
            RollCall::Kill(filter) => self.kill(core, filter, to),
            RollCall::Unblock { id, error } => encode::integer(i64::from(self.unblock(core, *id, *error))),
        };
        self.complete(core, to, Outcome::Reply { frames, resp3: false });
    }

    fn list(&self, core: &Core, filter: &Filter) -> Bytes {
        let clients = core
            .clients
            .iter()
            .map(|(_, client)| client)
            .filter(|c| filter.takes(c));
        let lines: String = clients.map(|client| self.describe(client, core.now_us)).collect();
        Bytes::from(lines)
    }

    fn kill(&self, core: &mut Core, filter: &Filter, asker: ReplyTo) -> Bytes {
        let Core { clients, dirty, .. } = core;
        let mut killed = 0;
        for (id, client) in clients.iter_mut().filter(|(_, client)| filter.takes(client)) {
            killed += 1;
            let itself = asker.worker == self.id()
                && asker.client as usize == id
                && asker.generation == client.generation;
            if itself {
                // Answered first, and nothing that comes after is done.
                client.closing = true;
            } else {
                client.leave();
            }
            if !client.dirty {
                client.dirty = true;
                dirty.push(id as u32);
            }
        }
        encode::integer(killed)
    }

    /// Ends a client's wait for data: whether it waited.
    fn unblock(&self, core: &Core, id: u64, error: bool) -> bool {
        let mut clients = core.clients.iter().map(|(_, client)| client);
        let blocked = clients
            .find(|c| c.session.id == id)
            .and_then(|c| c.blocked.as_ref());
        if let Some(blocked) = blocked {
            blocked.end(match error {
                true => Unblocking::Error,
                false => Unblocking::Timeout,
            });
        }
        blocked.is_some()
    }

    /// A client's line in `CLIENT LIST`.
    pub(super) fn describe(&self, client: &Client, now_us: u64) -> String {
        let session = &client.session;
        let [sub, psub, ssub] = [pubsub::Kind::Channel, pubsub::Kind::Pattern, pubsub::Kind::Shard]
            .map(|kind| client.subscribed_to(kind));
        let transaction = session.transaction.as_deref();
        let multi_bytes = transaction.map_or(0, |t| t.bytes);
        let output = client.output_bytes();
        let command = self.shared().commands.at(client.command);
        let mut line = format!(
            "id={} addr={} laddr={} fd={}",
            session.id, session.peer, session.local, session.fd
        );
        // Writing to a string cannot fail.
        let _written = writeln!(
            line,
            " name={} age={} idle={} flags={} db={} sub={sub} psub={psub} ssub={ssub} multi={} qbuf=0 qbuf-free=0 \
             argv-mem=0 multi-mem={multi_bytes} rbs=0 rbp=0 obl={} oll={} omem={} tot-mem={} events={} cmd={} user={} \
             redir=-1 resp={} lib-name={} lib-ver={}",
            word(&session.name),
            session.age_s(),
            now_us.saturating_sub(client.active_us) / 1_000_000,
            flags(client),
            session.db,
            transaction.map_or(-1, |t| t.commands.len() as i64),
            client.out.len(),
            client.slots.len(),
            output,
            size_of::<Client>() + multi_bytes + output,
            if client.clogged { "rw" } else { "r" },
            command.map_or("NULL", |command| &command.name),
            self.shared().config.listen.user(),
            if session.resp3 { 3 } else { 2 },
            word(&session.lib_name),
            word(&session.lib_ver),
        );
        line
    }
}

fn flags(client: &Client) -> String {
    let session = &client.session;
    let flags = [
        (session.monitors, 'O'),
        (session.transaction.is_some(), 'x'),
        (client.subscriptions.is_some(), 'P'),
        (client.blocked.is_some(), 'b'),
        (client.closing, 'c'),
        (session.peer.ends_with(":0"), 'U'),
        (session.no_evict, 'e'),
    ];
    let set: String = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|&(_, letter)| letter)
        .collect();
    if set.is_empty() { "N".to_owned() } else { set }
}

impl super::client::Session {
    /// How long it has been connected, in s.
    fn age_s(&self) -> u64 {
        unix_ms().saturating_sub(self.since_ms) / 1000
    }

    /// Where it comes from, as `MONITOR` shows it.
    pub(super) fn monitor_peer(&self) -> String {
        match self.peer.strip_suffix(":0") {
            Some(path) => format!("unix:{path}"),
            None => self.peer.clone(),
        }
    }
}

/// The lines of all workers, in the order in which the clients came; or that of these, if some were asked for.
pub(super) fn merge(parts: &[Bytes], ids: &[u64], resp3: bool) -> Bytes {
    let mut lines: BTreeMap<u64, String> = BTreeMap::new();
    for part in parts {
        for line in String::from_utf8_lossy(part).split_inclusive('\n') {
            let id = line
                .strip_prefix("id=")
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            lines.insert(id.unwrap_or_default(), line.to_owned());
        }
    }
    let text: String = match ids {
        [] => lines.into_values().collect(),
        ids => ids
            .iter()
            .filter_map(|id| lines.get(id))
            .map(String::as_str)
            .collect(),
    };
    verbatim(&text, resp3)
}
