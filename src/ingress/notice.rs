//! What is noticed of every command, whatever it is: it is counted, shown to monitors, and looked at again when it was slow.
//!
//! A command may be taken up several times (it waits for an earlier read, for a script to be shown, for the end of a pause);
//! it is noticed once, when that is over. What its reply tells is noticed when the reply is released.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::client::{Session, Slot};
use super::dispatch::Flow;
use crate::command::Command;
use crate::resp::Spans;
use crate::worker::{Core, Worker};

/// In place of a command's number: none that is known.
pub(super) const UNKNOWN: u16 = u16::MAX;

impl Worker {
    /// Handles one command of a client.
    pub(crate) fn dispatch(self: &Rc<Self>, core: &mut Core, id: u32, frame: &Bytes, spans: &Spans) -> Flow {
        let errors = self.metrics().errors.get();
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let next_slot = client.next_slot();
        client.active_us = core.now_us;
        let flow = self.take_up(core, id, frame, spans);
        if flow == Flow::Again {
            return flow;
        }
        let metrics = self.metrics();
        metrics.commands.add(1);
        if let Some(client) = core.clients.get_mut(id as usize) {
            client.label(next_slot, frame);
            if let Some(counts) = metrics.by_command.get(usize::from(client.command)) {
                counts.calls.add(1);
                counts.rejected.add(metrics.errors.get().saturating_sub(errors));
            }
        }
        if self.shared().monitored_by.load(Relaxed) != 0 {
            self.show(core, id, frame, spans);
        }
        flow
    }

    /// Whether a command is not taken up now: it waits for the end of a pause, or its client may only watch.
    #[inline]
    pub(super) fn is_held(&self, core: &mut Core, id: u32, command: &Command) -> Option<Flow> {
        let shared = self.shared();
        if shared.pause.is_set() && self.has_to_wait(core, id, command) {
            return Some(Flow::Again);
        }
        if shared.monitored_by.load(Relaxed) != 0 && self.only_watches(core, id, command) {
            return Some(Flow::Next);
        }
        None
    }

    /// A reply is released.
    pub(super) fn released(&self, slot: &Slot, reply: &[u8], session: &Session, now_us: u64) {
        let metrics = self.metrics();
        let counts = metrics.by_command.get(usize::from(slot.command));
        if slot.asked_us > 0 {
            let took_us = now_us.saturating_sub(slot.asked_us);
            metrics.latencies.note(took_us);
            if let Some(counts) = counts {
                counts.usec.add(took_us);
            }
            let log = &self.shared().slow_log;
            if log.is_slow(took_us) && self.is_logged(slot.command) {
                log.keep(&slot.frame, took_us, session);
            }
            if reply.first() == Some(&b'-') {
                if let Some(counts) = counts {
                    counts.failed.add(1);
                }
                metrics.by_error.note(reply);
            }
        }
    }

    /// Not of commands that wait for data: that is not slow.
    fn is_logged(&self, command: u16) -> bool {
        let command = self.shared().commands.at(command);
        command.is_none_or(|command| !command.flags.contains(crate::command::Flags::BLOCKING))
    }
}
