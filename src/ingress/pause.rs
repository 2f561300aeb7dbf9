//! `CLIENT PAUSE`: commands wait where they are read, until a time or `CLIENT UNPAUSE`.
//!
//! All threads look at one number before each command, 0 when there is no pause. A client whose command waits is noted by
//! its worker, whose tick wakes it when the pause is over; it then takes the same command up again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::transaction::OK;
use crate::command::{Command, Special, number};
use crate::resp::{Args, encode};
use crate::shared::unix_ms;
use crate::worker::{Core, Worker};

/// The pause, if there is one: until when (Unix ms), shifted by one, and whether reads wait too.
#[derive(Debug, Default)]
pub struct Pause(AtomicU64);

impl Pause {
    /// Whether there is one, or was one until lately.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Whether reads wait too; `None` if nothing waits. Forgets a pause whose time is over.
    pub fn now(&self) -> Option<bool> {
        let pause = self.0.load(Relaxed);
        if pause >> 1 > unix_ms() {
            return Some(pause & 1 == 1);
        }
        // Another thread may have begun a new one meanwhile; then that one holds.
        let _changed = self.0.compare_exchange(pause, 0, Relaxed, Relaxed);
        None
    }

    /// Begins one, or makes the present one longer and wider, never shorter.
    fn extend(&self, until_ms: u64, all: bool) {
        let present = self.now();
        let until_ms = until_ms.min(u64::MAX >> 1);
        let longer = |pause: u64| {
            let (end, was_all) = match present {
                Some(was_all) => ((pause >> 1).max(until_ms), was_all),
                None => (until_ms, false),
            };
            Some((end << 1) | u64::from(all || was_all))
        };
        // The closure never declines.
        let _before = self.0.fetch_update(Relaxed, Relaxed, longer);
    }

    fn end(&self) {
        self.0.store(0, Relaxed);
    }
}

impl Worker {
    /// `CLIENT PAUSE timeout [WRITE|ALL]`.
    pub(super) fn pause(&self, args: &Args<'_>) -> bytes::Bytes {
        let all = match args.arg(3).to_ascii_lowercase().as_slice() {
            _ if args.len() > 4 => return super::answer::wrong_subcommand(args),
            b"" if args.len() == 3 => true,
            b"all" => true,
            b"write" => false,
            _ => return encode::error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
        };
        match number::integer(args.arg(2)) {
            None => encode::error("ERR timeout is not an integer or out of range"),
            Some(ms) => match u64::try_from(ms) {
                Err(_) => encode::error("ERR timeout is negative"),
                Ok(ms) => {
                    self.shared().pause.extend(unix_ms().saturating_add(ms), all);
                    OK
                }
            },
        }
    }

    /// `CLIENT UNPAUSE`.
    pub(super) fn unpause(&self) -> bytes::Bytes {
        self.shared().pause.end();
        OK
    }

    /// Whether the client's command has to wait; it is woken when it has not any more.
    pub(super) fn has_to_wait(&self, core: &mut Core, id: u32, command: &Command) -> bool {
        let Some(all) = self.shared().pause.now() else {
            return false;
        };
        if !(all || self.may_write(core, id, command)) {
            return false;
        }
        core.held_back.insert(id);
        true
    }

    fn may_write(&self, core: &Core, id: u32, command: &Command) -> bool {
        if command.special != Special::Exec {
            return command.is_write() || matches!(command.special, Special::Publish | Special::Spublish);
        }
        let transaction = core
            .clients
            .get(id as usize)
            .and_then(|c| c.session.transaction.as_ref());
        transaction
            .into_iter()
            .flat_map(|t| &t.commands)
            .any(|(frame, spans)| {
                let queued = self.shared().commands.lookup(&Args { bytes: frame, spans });
                queued.is_ok_and(|queued| self.may_write(core, id, queued) && queued.special != Special::Exec)
            })
    }

    /// Lets the clients that wait go on, once nothing has to wait any more.
    pub(crate) fn end_of_pause(&self, core: &mut Core) {
        if core.held_back.is_empty() || self.shared().pause.now().is_some() {
            return;
        }
        for id in std::mem::take(&mut core.held_back) {
            // One of the same number that has come since looks around once more than it must.
            if let Some(client) = core.clients.get(id as usize) {
                client.wake.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_made_shorter_or_narrower() {
        let pause = Pause::default();
        assert_eq!(pause.now(), None);
        pause.extend(unix_ms() + 60_000, true);
        pause.extend(unix_ms() + 1, false);
        assert_eq!(pause.now(), Some(true));
        pause.end();
        pause.extend(unix_ms() + 60_000, false);
        assert_eq!(pause.now(), Some(false));
    }

    #[test]
    fn a_pause_that_is_over_leaves_nothing() {
        let pause = Pause::default();
        pause.extend(unix_ms(), true);
        assert!(pause.is_set());
        assert_eq!(pause.now(), None);
        assert!(!pause.is_set());
        pause.extend(u64::MAX, false);
        assert_eq!(pause.now(), Some(false));
    }
}
