//! A connected client: its session, and the replies it still waits for.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::blocking::Blocked;
use super::gather::{Errand, Gather};
use super::notice::UNKNOWN;
use super::procedure::{Beside, PROCEDURE};
use super::subscriptions::{PublishRun, UNASKED};
use super::transaction::Transaction;
use super::watch::Watch;
use crate::command::spec::Downgrade;
use crate::library::Sha;
use crate::net::WriteHalf;
use crate::pubsub::Publication;
use crate::pubsub::Subscriptions;
use crate::request::{Outcome, PartitionId, ReplyTo};
use crate::resp::downgrade::downgrade;
use crate::resp::{OutBuf, ReplyPeak, encode};
use crate::worker::{Core, Worker};

/// What a connection has said about itself.
#[derive(Debug, Default)]
pub struct Session {
    /// Unique in this sidecar.
    pub id: u64,
    /// `CLIENT SETNAME`.
    pub name: Bytes,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Bytes,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Bytes,
    /// Where it comes from, and where it has connected to.
    pub peer: String,
    /// See `peer`.
    pub local: String,
    /// Its socket's number.
    pub fd: i32,
    /// The logical database.
    pub db: u16,
    /// Whether it has asked for RESP3.
    pub resp3: bool,
    /// Whether it may do anything.
    pub authenticated: bool,
    /// Replies are off (`CLIENT REPLY OFF`), or off for one command.
    pub silent: Silence,
    /// Between `MULTI` and `EXEC`.
    pub transaction: Option<Box<Transaction>>,
    /// What `WATCH` has named.
    pub(super) watch: Option<Box<Watch>>,
    /// When it connected, Unix ms.
    pub since_ms: u64,
    /// It is shown all commands (`MONITOR`).
    pub monitors: bool,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
}

/// What came of showing a script to a node.
#[derive(Debug)]
pub(crate) enum Shown {
    /// The node has compiled it, or this is its error.
    Answered(Result<(), Bytes>),
    /// The node has gone; so many have by now.
    Gone(u8),
}

/// `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// Every reply is sent.
    #[default]
    No,
    /// None is.
    Always,
    /// The next one is not.
    Once,
}

/// One command that has not been answered.
#[derive(Debug)]
pub(crate) struct Slot {
    state: SlotState,
    resp3: bool,
    silent: bool,
    reads: bool,
    pub(super) asked_us: u64,
    /// Its number in the table, and its bytes, should it be slow.
    pub(super) command: u16,
    pub(super) frame: Bytes,
}

#[derive(Debug)]
enum SlotState {
    /// For one reply, which is then converted like this if need be.
    Waiting(Downgrade),
    /// For the parts of a reply.
    Gathering(Box<Gather>),
    /// For the commands before it.
    Done(Bytes),
}

/// A client, as its worker has it.
#[derive(Debug)]
pub struct Client {
    pub(crate) generation: u32,
    pub(crate) session: Session,
    pub(crate) write: Rc<WriteHalf>,
    pub(crate) out: OutBuf,
    /// Bytes of `out` that say no more than that commands of a transaction are queued.
    queued_bytes: usize,
    pub(crate) slots: VecDeque<Slot>,
    /// Number of the first slot.
    pub(crate) first: u64,
    /// Reads that are not answered yet: a write to the same partition waits for them (see `sequencer::reads`).
    pub(super) pending_reads: VecDeque<(u64, PartitionId)>,
    /// How many slots wait for reads.
    pub(super) read_slots: usize,
    /// Bytes of replies that wait for earlier ones.
    pub(crate) held_bytes: usize,
    /// How large the replies of its reads are.
    pub(super) read_peak: ReplyPeak,
    /// How large its other replies are: mostly small, and telling nothing about what it reads.
    pub(super) other_peak: ReplyPeak,
    /// Its task sleeps until something is answered.
    pub(crate) wake: Rc<Notify>,
    pub(crate) waiting: bool,
    /// Queued to be written to.
    pub(crate) dirty: bool,
    /// Its socket takes no more for now.
    pub(crate) clogged: bool,
    /// It leaves when everything is answered.
    pub(crate) closing: bool,
    /// It has left, or must.
    pub(crate) gone: bool,
    /// A command of several steps is being executed, or an errand run: its slot stays the last one, the next command waits.
    pub(crate) busy: bool,
    /// Commands that it has gone on beside: how many, and of what [kind](super::procedure::Beside) they are.
    pub(super) let_go: (usize, Beside),
    /// It waits for data.
    pub(crate) blocked: Option<Rc<Blocked>>,
    /// What it has subscribed to, if anything.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// Its last publications.
    pub(crate) publishing: PublishRun,
    /// Publications of its transactions and scripts that are on their way.
    pub(crate) unasked: usize,
    /// What came of showing this script to a node: see `scripts`.
    pub(crate) shown: Option<(Sha, Shown)>,
    /// What came of looking up what its next command needs: see `stripe`.
    pub(crate) looked_up: Option<Result<(), Bytes>>,
    /// The last command's number in the table.
    pub(crate) command: u16,
    /// When it was taken up, by the worker's clock.
    pub(crate) active_us: u64,
}

impl Client {
    pub(crate) fn new(generation: u32, session: Session, write: WriteHalf) -> Self {
        Self {
            generation,
            session,
            write: Rc::new(write),
            out: OutBuf::default(),
            queued_bytes: 0,
            slots: VecDeque::new(),
            first: 0,
            pending_reads: VecDeque::new(),
            read_slots: 0,
            held_bytes: 0,
            read_peak: ReplyPeak::default(),
            other_peak: ReplyPeak::default(),
            wake: Rc::new(Notify::new()),
            waiting: false,
            dirty: false,
            clogged: false,
            closing: false,
            gone: false,
            busy: false,
            let_go: (0, None),
            blocked: None,
            subscriptions: None,
            publishing: PublishRun::default(),
            unasked: 0,
            shown: None,
            looked_up: None,
            command: UNKNOWN,
            active_us: 0,
        }
    }

    /// Number of the slot that the next command gets.
    pub(super) fn next_slot(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Says which command it is that waits in this slot, if one does.
    pub(super) fn label(&mut self, slot: u64, frame: &Bytes) {
        let command = self.command;
        let index = slot.checked_sub(self.first);
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index as usize))
            && !matches!(slot.state, SlotState::Done(_))
        {
            slot.command = command;
            slot.frame = frame.clone();
        }
    }

    /// Disconnects: its task ends and cleans up.
    pub(crate) fn leave(&mut self) {
        self.gone = true;
        self.slots.clear();
        self.read_slots = 0;
        self.held_bytes = 0;
        self.out.clear();
        self.wake.notify_one();
    }

    /// Opens a slot for one reply.
    pub(crate) fn expect_one(&mut self, rule: Downgrade, now_us: u64) -> u64 {
        self.push(SlotState::Waiting(rule), now_us)
    }

    /// Opens a slot for several parts.
    pub(crate) fn expect_parts(&mut self, gather: Gather, now_us: u64) -> u64 {
        self.push(SlotState::Gathering(Box::new(gather)), now_us)
    }

    fn push(&mut self, state: SlotState, now_us: u64) -> u64 {
        let silent = self.session.silent != Silence::No;
        if self.session.silent == Silence::Once {
            self.session.silent = Silence::No;
        }
        self.slots.push_back(Slot {
            state,
            resp3: self.session.resp3,
            silent,
            reads: false,
            asked_us: now_us,
            command: UNKNOWN,
            frame: Bytes::new(),
        });
        self.first + self.slots.len() as u64 - 1
    }

    /// Answers a command at once, in its turn.
    pub(crate) fn reply(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if self.slots.is_empty() && self.session.silent == Silence::No {
            self.out.put_shared(&bytes);
            self.first += 1;
        } else {
            self.held_bytes += bytes.len();
            self.push(SlotState::Done(bytes), 0);
            self.drain(|_, _, _| {});
        }
    }

    /// The same for `MULTI`, and what is queued behind it.
    pub(super) fn reply_queued(&mut self, bytes: Bytes) {
        let before = self.out.len();
        self.reply(bytes);
        self.queued_bytes += self.out.len() - before;
    }

    /// Whether all that there is to be written can wait for the reply to `EXEC`, which is under way: a server, too, writes them together.
    pub(crate) fn waits_for_exec(&self) -> bool {
        !self.slots.is_empty() && self.out.len() == self.queued_bytes
    }

    /// Something of `out` has been written.
    pub(crate) fn written(&mut self) {
        self.queued_bytes = 0;
    }

    /// Puts a reply, or a part of one, where it belongs: what scripts have published, when the reply is whole.
    fn fill(&mut self, slot: u64, part: u16, outcome: Outcome) -> Vec<Publication> {
        if slot == UNASKED {
            self.unasked = self.unasked.saturating_sub(1);
            return Vec::new();
        }
        let Some(index) = slot.checked_sub(self.first) else {
            return Vec::new();
        };
        let Some(entry) = self.slots.get_mut(index as usize) else {
            return Vec::new();
        };
        match &mut entry.state {
            SlotState::Done(_) => {}
            SlotState::Waiting(rule) => {
                let bytes = match outcome {
                    Outcome::Reply { frames, resp3 } => in_protocol(*rule, frames, resp3, entry.resp3),
                    Outcome::Refused(refusal) => encode::error(refusal.message()),
                    Outcome::Done | Outcome::Waits | Outcome::MayCome => return Vec::new(),
                    Outcome::Unknown => {
                        self.leave();
                        return Vec::new();
                    }
                };
                self.held_bytes += bytes.len();
                match entry.reads {
                    true => self.read_peak.note(bytes.len()),
                    false => self.other_peak.note(bytes.len()),
                }
                entry.state = SlotState::Done(bytes);
            }
            SlotState::Gathering(gather) => {
                if outcome == Outcome::Unknown {
                    self.leave();
                    return Vec::new();
                }
                let refused = matches!(outcome, Outcome::Refused(_));
                if !gather.take(part, outcome) {
                    return Vec::new();
                }
                if let Some((errand, result)) = gather.errand_done() {
                    // The command is taken up again.
                    match errand {
                        Errand::ShowScript(sha, gone) => {
                            self.busy = false;
                            let shown = match refused {
                                true => Shown::Gone(gone + 1),
                                false => Shown::Answered(result),
                            };
                            self.shown = Some((sha, shown));
                        }
                        Errand::LookUp => self.looked_up = Some(result),
                    }
                    self.slots.pop_back();
                    return Vec::new();
                }
                let bytes = gather.assemble(entry.resp3);
                let published = std::mem::take(&mut gather.published);
                self.held_bytes += bytes.len();
                match entry.reads {
                    true => self.read_peak.note(bytes.len()),
                    false => self.other_peak.note(bytes.len()),
                }
                entry.state = SlotState::Done(bytes);
                return published;
            }
        }
        Vec::new()
    }

    /// Moves finished replies at the front to the socket's queue; `released` is told of each.
    fn drain(&mut self, mut released: impl FnMut(&Slot, &[u8], &Session)) {
        while let Some(slot) = self.slots.front()
            && let SlotState::Done(bytes) = &slot.state
        {
            self.held_bytes -= bytes.len();
            if !slot.silent {
                self.out.put_shared(bytes);
            }
            released(slot, bytes, &self.session);
            self.read_slots -= usize::from(slot.reads);
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Says that the command in this slot, the last one, reads in a partition.
    pub(super) fn note_read(&mut self, slot: u64, partition: PartitionId) {
        self.forget_answered_reads();
        self.pending_reads.push_back((slot, partition));
        if let Some(slot) = self.slots.back_mut() {
            self.read_slots += usize::from(!slot.reads);
            slot.reads = true;
        }
    }

    /// Whether an earlier read of this partition is not answered yet.
    pub(crate) fn reads_pending(&mut self, partition: Option<PartitionId>) -> bool {
        self.forget_answered_reads();
        self.pending_reads
            .iter()
            .any(|(_, p)| partition.is_none_or(|wanted| *p == wanted))
    }

    /// Whether something must end first that it has gone on beside.
    pub(super) fn is_beside_others(&self, kind: Beside) -> bool {
        let (count, known) = self.let_go;
        count > 0 && (kind.is_none() || kind != known)
    }

    fn forget_answered_reads(&mut self) {
        while self
            .pending_reads
            .front()
            .is_some_and(|(slot, _)| *slot < self.first)
        {
            self.pending_reads.pop_front();
        }
    }
}

/// A node's RESP3 reply as the client's protocol has it.
pub(crate) fn in_protocol(rule: Downgrade, frames: Bytes, holds_resp3: bool, client_resp3: bool) -> Bytes {
    if client_resp3 || rule == Downgrade::AsIs || (!holds_resp3 && rule == Downgrade::Generic) {
        return frames;
    }
    let mut out = BytesMut::with_capacity(frames.len() + 64);
    match downgrade(rule, &frames, &mut out) {
        Ok(()) => out.freeze(),
        Err(_) => encode::error("ERR the reply is nested too deeply to be converted to RESP2: use HELLO 3"),
    }
}

impl Worker {
    /// Puts an outcome into its client's slot, and what has become ready into the client's queue.
    pub(crate) fn answer(&self, core: &mut Core, to: ReplyTo, outcome: Outcome) {
        let now_us = core.now_us;
        let Some(client) = core
            .clients
            .get_mut(to.client as usize)
            .filter(|c| c.generation == to.generation)
        else {
            if to.client == PROCEDURE {
                Self::inform(core, to, outcome);
            }
            return;
        };
        if matches!(outcome, Outcome::Refused(_)) {
            self.metrics().errors.add(1);
        }
        let published = client.fill(to.slot, to.part, outcome);
        client.drain(|slot, reply, session| self.released(slot, reply, session, now_us));
        if client.waiting {
            client.wake.notify_one();
        }
        if !client.dirty {
            client.dirty = true;
            core.dirty.push(to.client);
        }
        for publication in published {
            self.publish_from_script(core, to, publication);
        }
    }
}
