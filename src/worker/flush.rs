//! The flush: effects become replies, waiting commands become batches, and everything goes out.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tracing::warn;

use super::{Core, StreamSlot, Worker};
use crate::limits;
use crate::request::{NodeId, Outcome, ReplyTo};
use crate::sequencer::{Effect, Sequencer};
use crate::shared::Message;

impl Worker {
    pub(super) async fn flush_for_ever(self: Rc<Self>) {
        loop {
            self.flush.notified().await;
            self.flush_wanted.set(false);
            self.note_time();
            let mut core = self.core.borrow_mut();
            self.deliver(&mut core);
            self.send_batches(&mut core);
            // Ordering may have refused something at once.
            self.deliver(&mut core);
            self.record(&mut core);
            self.write_clients(&mut core);
        }
    }

    /// Hands out what has followed from events.
    fn deliver(&self, core: &mut Core) {
        while !core.sequencer.effects().is_empty() {
            let effects = std::mem::take(core.sequencer.effects());
            self.deliver_these(core, effects);
        }
    }

    fn deliver_these(&self, core: &mut Core, mut effects: Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Complete(to, outcome) if Sequencer::is_attempt(to) => {
                    core.sequencer.attempted(to, outcome)
                }
                Effect::Complete(to, outcome) => self.complete(core, to, outcome),
                Effect::InSync { partition, .. } => {
                    core.unrecorded.insert(partition);
                }
                Effect::Mismatch { node, partition } => self.note_mismatch(core.now_us, node, partition),
                Effect::Expelled { node, partition } if self.shared.keeper.is_news(node, "expelled") => {
                    warn!(
                        node = self.shared.node_name(node),
                        partition,
                        "the node lacks more than the backlog holds: it is out of sync (for this partition, and maybe others)"
                    );
                }
                Effect::Expelled { .. } => {}
                Effect::Differs { db, key } => self.shared.verifier.differs(db, key.to_vec()),
                Effect::Hung(node) => Self::close_stream(core, node),
            }
        }
        // Kept for its memory; completing may have caused new effects, which are then in the sequencer's own list.
        if core.sequencer.effects().is_empty() {
            *core.sequencer.effects() = effects;
        }
    }

    /// Answers a request: to a client of this worker, or of another one.
    pub(crate) fn complete(&self, core: &mut Core, to: ReplyTo, outcome: Outcome) {
        if to.worker == self.id {
            self.answer(core, to, outcome);
        } else {
            core.mail(to.worker, Message::Outcome(to, outcome));
        }
    }

    fn send_batches(self: &Rc<Self>, core: &mut Core) {
        let Core {
            sequencer, streams, ..
        } = core;
        for (node, slot) in streams.iter_mut().enumerate() {
            let node = node as NodeId;
            if slot.blocked || slot.write.is_none() || !sequencer.has_work(node) {
                continue;
            }
            if sequencer.next_batch(node, &mut slot.out) {
                self.write_stream(node, slot);
            }
        }
        sequencer.end_round();
    }

    fn write_stream(self: &Rc<Self>, node: NodeId, slot: &mut StreamSlot) {
        let Some(write) = &slot.write else { return };
        match slot.out.write_with(|slices| write.try_write_vectored(slices)) {
            Ok(true) => {}
            Ok(false) => {
                slot.blocked = true;
                spawn_local(self.clone().unblock_stream(node, write.clone()));
            }
            // The reading side learns of it and tells why.
            Err(_) => slot.closed.notify_one(),
        }
    }

    async fn unblock_stream(self: Rc<Self>, node: NodeId, write: Rc<crate::net::WriteHalf>) {
        if write.writable().await.is_err() {
            return;
        }
        let mut core = self.core.borrow_mut();
        let Some(slot) = core.streams.get_mut(usize::from(node)) else {
            return;
        };
        // Another stream may have taken the place meanwhile.
        if slot
            .write
            .as_ref()
            .is_some_and(|current| Rc::ptr_eq(current, &write))
        {
            slot.blocked = false;
            self.write_stream(node, slot);
            drop(core);
            self.want_flush();
        }
    }

    fn write_clients(self: &Rc<Self>, core: &mut Core) {
        let mut dirty = std::mem::take(&mut core.dirty);
        let output_max = self.shared.config.limits.client_output_max.as_u64() as usize;
        for id in dirty.drain(..) {
            let Some(client) = core.clients.get_mut(id as usize) else {
                continue;
            };
            client.dirty = false;
            if client.has_too_much(output_max) {
                warn!(
                    client = client.session.id,
                    "a client does not read its replies (or asks for too much at once, setting limits.client_output_max): disconnected"
                );
                client.leave();
            }
            if client.clogged || client.gone || client.waits_for_exec() {
                continue;
            }
            let before = client.out.len();
            client.written();
            match client
                .out
                .write_with(|slices| client.write.try_write_vectored(slices))
            {
                Ok(true) => {
                    if client.closing && client.slots.is_empty() {
                        client.leave();
                    }
                }
                Ok(false) => {
                    client.clogged = true;
                    spawn_local(
                        self.clone()
                            .unblock_client(id, client.generation, client.write.clone()),
                    );
                }
                Err(_) => client.leave(),
            }
            // Its task may be waiting for this room, and no reply will wake it.
            if client.waiting && client.slots.is_empty() {
                client.wake.notify_one();
            }
            self.metrics.bytes_out.add((before - client.out.len()) as u64);
        }
        core.dirty = dirty;
    }

    async fn unblock_client(self: Rc<Self>, id: u32, generation: u32, write: Rc<crate::net::WriteHalf>) {
        let stall = Duration::from_millis(limits::CLIENT_STALL_MS);
        let writable: io::Result<()> = loop {
            match tokio::time::timeout(stall, write.writable()).await {
                Ok(writable) => break writable,
                Err(_) if self.is_stalled(id, generation) => break Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
        };
        self.with(|core| {
            let Some(client) = core
                .clients
                .get_mut(id as usize)
                .filter(|c| c.generation == generation)
            else {
                return;
            };
            client.clogged = false;
            if writable.is_err() {
                client.leave();
            } else if !client.dirty {
                client.dirty = true;
                core.dirty.push(id);
            }
        });
    }

    /// Whether a client that takes nothing should be given up: its commands are not taken up any more. `true` if it has gone.
    fn is_stalled(&self, id: u32, generation: u32) -> bool {
        let limits = &self.shared.config.limits;
        let core = self.core.borrow();
        let client = core.clients.get(id as usize);
        let Some(client) = client.filter(|c| c.generation == generation) else {
            return true;
        };
        let stalls = client.has_enough(
            limits.client_pending_max,
            limits.client_output_max.as_u64() as usize,
        );
        if stalls {
            warn!(
                client = client.session.id,
                "a client does not read its replies, and has not for a while: disconnected"
            );
        }
        stalls
    }
}
