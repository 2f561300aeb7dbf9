//! Publish and subscribe, as a client sees it: see [`crate::pubsub`] for the rest.
//!
//! Messages go straight into a client's outgoing queue, between replies. A confirmation has to stand in the order of the
//! client's replies and before the first message, so a command that changes subscriptions is taken up when everything
//! before it has been answered: then its confirmation can go the same straight way. So is a publication: who is told of
//! something finds it. Only publications to one owner may follow each other closely; they keep their order.
//!
//! Inside `MULTI`, all of them are carried out together, at their places, when the rest of the transaction is
//! acknowledged. A message that a transaction sends to its own client comes after the reply to `EXEC`, never inside.

use bytes::{Bytes, BytesMut};

use super::client::{Client, Silence};
use super::dispatch::Flow;
use super::exec::Assembly;
use super::procedure::answer;
use crate::command::spec::Downgrade;
use crate::command::{Command, Special};
use crate::pubsub::{HELP, Kind, Publication, Subscriber, confirmation};
use crate::request::ReplyTo;
use crate::resp::{Args, OutBuf, Spans, encode};
use crate::worker::{Core, Worker};

const TOO_MANY: &str = "ERR this connection has as many subscriptions as one may have: use patterns (PSUBSCRIBE), or \
                        several connections";

const NOT_IN_MULTI: &str = "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client";

/// In place of a slot: an answer for a publication that nobody waits for in particular.
pub(super) const UNASKED: u64 = u64::MAX;

/// Publications to one owner that are in flight, as a row of slots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PublishRun {
    owner: u16,
    first: u64,
    /// The slot after the last.
    end: u64,
}

impl Client {
    /// How many names of a kind it has subscribed to.
    pub fn subscribed_to(&self, kind: Kind) -> usize {
        self.subscriptions.as_ref().map_or(0, |mine| mine.len(kind))
    }

    /// Whether it may send only a few commands now: RESP2 cannot tell a message from a reply.
    pub(super) fn only_listens(&self) -> bool {
        self.subscriptions.is_some() && !self.session.resp3
    }

    /// Whether all it has sent is answered, and all its messages are delivered.
    pub(super) fn has_nothing_under_way(&self) -> bool {
        self.slots.is_empty() && self.unasked == 0
    }

    /// Opens a slot for a publication; `None` while it would overtake something.
    fn publish_slot(&mut self, owner: u16, now_us: u64) -> Option<u64> {
        let next = self.first + self.slots.len() as u64;
        let run = self.publishing;
        let follows = run.owner == owner && run.end == next;
        let alone = self.slots.is_empty() || (follows && run.first <= self.first);
        if !alone || self.unasked > 0 {
            return None;
        }
        self.publishing = PublishRun {
            owner,
            first: if follows { run.first } else { next },
            end: next + 1,
        };
        Some(self.expect_one(Downgrade::Generic, now_us))
    }
}

/// What a client that only listens may still send.
pub(super) fn may_listener_send(special: Special) -> bool {
    use Special::*;
    matches!(special, Ping | Quit | Reset) || change_of(special).is_some()
}

/// What a command changes: subscriptions of a kind, and whether it makes or ends them.
fn change_of(special: Special) -> Option<(Kind, bool)> {
    match special {
        Special::Subscribe => Some((Kind::Channel, true)),
        Special::Unsubscribe => Some((Kind::Channel, false)),
        Special::Psubscribe => Some((Kind::Pattern, true)),
        Special::Punsubscribe => Some((Kind::Pattern, false)),
        Special::Ssubscribe => Some((Kind::Shard, true)),
        Special::Sunsubscribe => Some((Kind::Shard, false)),
        _ => None,
    }
}

/// The client that waits for an answer, if it is still there.
fn waiting(core: &mut Core, to: ReplyTo) -> Option<&mut Client> {
    core.clients
        .get_mut(to.client as usize)
        .filter(|client| client.generation == to.generation)
}

fn swap_out(core: &mut Core, to: ReplyTo, out: OutBuf) -> OutBuf {
    match waiting(core, to) {
        Some(client) => std::mem::replace(&mut client.out, out),
        None => OutBuf::default(),
    }
}

fn publication(command: &Command, frame: &Bytes, args: &Args<'_>) -> Option<Publication> {
    matches!(command.special, Special::Publish | Special::Spublish).then(|| Publication {
        shard: command.special == Special::Spublish,
        channel: frame.slice_ref(args.arg(1)),
        message: frame.slice_ref(args.arg(2)),
    })
}

impl Worker {
    /// Handles a command of this kind outside of `MULTI`.
    pub(super) fn pubsub(
        &self,
        core: &mut Core,
        id: u32,
        command: &Command,
        frame: &Bytes,
        args: &Args<'_>,
    ) -> Flow {
        let now_us = core.now_us;
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let resp3 = client.session.resp3;
        if let Some(publication) = publication(command, frame, args) {
            let owner = self.owner_of_channel(&publication.channel);
            let Some(slot) = client.publish_slot(owner, now_us) else {
                return Flow::Again;
            };
            let publisher = client.reply_to(self.id(), id, slot, 0);
            self.publish(core, publication, publisher);
            return Flow::Next;
        }
        let Some((kind, subscribe)) = change_of(command.special) else {
            let reply = self.about_subscriptions(command, args);
            return self.reply(core, id, reply);
        };
        if !client.has_nothing_under_way() {
            return Flow::Again;
        }
        // Like messages, confirmations are sent even if replies are off.
        let silent = std::mem::take(&mut client.session.silent);
        let confirmed = self.change_subscriptions(core, id, kind, subscribe, args, resp3);
        self.reply(core, id, confirmed);
        if let Some(client) = core.clients.get_mut(id as usize)
            && silent == Silence::Always
        {
            client.session.silent = silent;
        }
        Flow::Next
    }

    /// Answers a client that may not send this while it listens.
    pub(super) fn refuse_listener(&self, core: &mut Core, id: u32, command: &Command) -> Flow {
        if let Some(client) = core.clients.get_mut(id as usize) {
            client.spoil_transaction();
        }
        let code = match command.special {
            Special::Exec => "EXECABORT Transaction discarded because of:",
            _ => "ERR",
        };
        self.refuse(
            core,
            id,
            &format!(
                "{code} Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                 this context",
                command.name
            ),
        )
    }

    /// Ends a transaction whose commands for nodes have answered: carries out what it publishes and subscribes to, and
    /// answers it.
    pub(super) fn conclude(
        &self,
        core: &mut Core,
        to: ReplyTo,
        mut assembly: Assembly,
        parts: &[Bytes],
        resp3: bool,
    ) {
        let sent_before = swap_out(core, to, OutBuf::default());
        let commands = assembly.take_pubsub();
        let replies = commands
            .iter()
            .map(|(frame, spans)| self.pubsub_in_transaction(core, to, frame, spans, resp3))
            .collect();
        assembly.pubsub_done(replies);
        // What the client itself gets of its messages comes behind.
        let messages = swap_out(core, to, sent_before);
        let mut published = Vec::new();
        let reply = assembly.assemble(parts, resp3, &mut published);
        self.answer(core, to, answer(reply));
        for publication in published {
            self.publish_from_script(core, to, publication);
        }
        if let Some(client) = waiting(core, to) {
            client.out.append(messages);
        }
    }

    fn pubsub_in_transaction(
        &self,
        core: &mut Core,
        to: ReplyTo,
        frame: &Bytes,
        spans: &Spans,
        resp3: bool,
    ) -> Bytes {
        let args = Args { bytes: frame, spans };
        let command = match self.shared().commands.lookup(&args) {
            Ok(command) => command,
            Err(error) => return error.to_bytes(),
        };
        if let Some(publication) = publication(command, frame, &args) {
            let count = self.shared().pubsub.count(&publication);
            self.publish_from_script(core, to, publication);
            return encode::integer(count as i64);
        }
        match change_of(command.special) {
            Some((Kind::Shard, true)) => encode::error(NOT_IN_MULTI),
            Some((kind, subscribe)) if waiting(core, to).is_some() => {
                self.change_subscriptions(core, to.client, kind, subscribe, &args, resp3)
            }
            Some(_) => Bytes::new(),
            None => self.about_subscriptions(command, &args),
        }
    }

    /// Publishes what a script (or a transaction) has published, once that is acknowledged. `to` is whoever waits for the
    /// script's own reply, and learns there to how many it goes: see [`crate::pubsub::Registry::count`].
    pub(crate) fn publish_from_script(&self, core: &mut Core, to: ReplyTo, publication: Publication) {
        if let Some(client) = waiting(core, to) {
            client.unasked += 1;
        }
        let publisher = ReplyTo {
            slot: UNASKED,
            part: 0,
            ..to
        };
        self.publish(core, publication, publisher);
    }

    /// Takes a client that leaves, or has sent `RESET`, out of everything.
    pub(super) fn end_subscriptions(&self, core: &mut Core, id: u32) {
        let mine = core
            .clients
            .get_mut(id as usize)
            .and_then(|c| c.subscriptions.take());
        let Some(mine) = mine else { return };
        for kind in Kind::ALL {
            for name in mine.names(kind) {
                core.subscribers.remove(kind, name, id);
                self.shared().pubsub.remove(kind, name, self.id());
            }
        }
    }

    /// Subscribes a client, or ends its subscriptions: the confirmations.
    fn change_subscriptions(
        &self,
        core: &mut Core,
        id: u32,
        kind: Kind,
        subscribe: bool,
        args: &Args<'_>,
        resp3: bool,
    ) -> Bytes {
        let Core {
            clients, subscribers, ..
        } = core;
        let Some(client) = clients.get_mut(id as usize) else {
            return Bytes::new();
        };
        let registry = &self.shared().pubsub;
        let mine = client.subscriptions.get_or_insert_default();
        // Copies: the buffer they came in is not to be kept for as long as the subscription.
        let mut names: Vec<Bytes> = args.iter().skip(1).map(Bytes::copy_from_slice).collect();
        let mut out = BytesMut::new();
        if subscribe && mine.would_be_too_many(&names) {
            out.extend_from_slice(&encode::error(TOO_MANY));
            names.clear();
        } else if names.is_empty() {
            names.extend(mine.names(kind).cloned());
            if names.is_empty() {
                confirmation(&mut out, resp3, kind, false, None, mine.counted(kind));
            }
        }
        for name in &names {
            if subscribe && mine.add(kind, name) {
                let since = registry.add(kind, name, self.id());
                subscribers.add(kind, name, Subscriber { client: id, since });
            } else if !subscribe && mine.remove(kind, name) {
                subscribers.remove(kind, name, id);
                registry.remove(kind, name, self.id());
            }
            confirmation(&mut out, resp3, kind, subscribe, Some(name), mine.counted(kind));
        }
        if mine.is_empty() {
            client.subscriptions = None;
        }
        out.freeze()
    }

    /// `PUBSUB …`.
    fn about_subscriptions(&self, command: &Command, args: &Args<'_>) -> Bytes {
        let registry = &self.shared().pubsub;
        let mut out = BytesMut::new();
        match command.special {
            Special::PubsubChannels | Special::PubsubShardchannels if args.len() > 3 => {
                return encode::error(&format!(
                    "ERR unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
                    String::from_utf8_lossy(args.arg(1))
                ));
            }
            Special::PubsubChannels | Special::PubsubShardchannels => {
                let kind = kind_asked(command);
                let names = registry.names(kind, args.get(2));
                encode::header(&mut out, b'*', names.len());
                for name in names {
                    encode::bulk(&mut out, &name);
                }
            }
            Special::PubsubNumsub | Special::PubsubShardnumsub => {
                let kind = kind_asked(command);
                encode::header(&mut out, b'*', 2 * (args.len() - 2));
                for name in args.iter().skip(2) {
                    encode::bulk(&mut out, name);
                    out.extend_from_slice(&encode::integer(registry.subscribers(kind, name) as i64));
                }
            }
            Special::PubsubNumpat => return encode::integer(registry.len(Kind::Pattern) as i64),
            _ => {
                encode::header(&mut out, b'*', HELP.len());
                for line in HELP {
                    out.extend_from_slice(b"+");
                    out.extend_from_slice(line.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        out.freeze()
    }
}

fn kind_asked(command: &Command) -> Kind {
    match command.special {
        Special::PubsubShardchannels | Special::PubsubShardnumsub => Kind::Shard,
        _ => Kind::Channel,
    }
}
