//! Commands that wait for data: `BLPOP`, `BLMOVE`, `XREAD BLOCK`, …
//!
//! The [owners](crate::sequencer) of the keys know when there is something, and serve those who wait in the order in which they
//! came. Here is the waiting client's side: it asks at its keys one after the other and stays where there is nothing; then the
//! first of a reply, its deadline, `CLIENT UNBLOCK`, and the client's end decides. What was taken for a client that has gone
//! meanwhile is put back where it was.

mod waiting;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::across::{Across, Part, has_side};
use super::dispatch::Flow;
use super::procedure::{Procedure, answer};
use crate::command::parts::{Line, wait_ms};
use crate::command::spec::Timeout;
use crate::command::{Command, Special};
use crate::request::Outcome;
use crate::resp::{Args, Spans, encode};
use crate::shared::Shared;
use crate::stripe::Watch;
use crate::worker::{Core, Worker};

/// Why a client waits no more, though nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unblocking {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
    /// It has gone.
    Gone,
    /// It may have to wait elsewhere.
    Elsewhere,
}

/// The way to a client that waits.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    why: Cell<Option<Unblocking>>,
    noticed: Notify,
}

impl Blocked {
    /// Ends the waiting.
    pub(crate) fn end(&self, why: Unblocking) {
        self.why.set(Some(why));
        self.noticed.notify_one();
    }

    /// Waits for the waiting to be ended from outside: why.
    pub(super) async fn ended(&self) -> Unblocking {
        self.noticed.notified().await;
        self.why.get().unwrap_or(Unblocking::Timeout)
    }
}

const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// A client waiting.
pub(super) struct Waiting {
    special: Special,
    parts: Vec<Part>,
    line: Line,
    /// For a move from one partition to another, which the owner of the first cannot do by itself.
    across: Option<Across>,
    deadline: Option<Instant>,
    blocked: Rc<Blocked>,
    /// Of keys that clients do not know: told when others may have taken their place. Whoever waits there looks after what is taken for
    /// a client that has gone.
    moved: Option<Watch>,
}

/// When somebody has waited long enough who waits for so many ms; 0: for ever.
pub(super) fn deadline(wait_ms: u64) -> Option<Instant> {
    (wait_ms > 0)
        .then(|| Instant::now().checked_add(Duration::from_millis(wait_ms)))
        .flatten()
}

impl Worker {
    pub(super) fn block(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        timeout: Timeout,
        frame: &Bytes,
        spans: &Spans,
    ) -> Flow {
        let args = Args { bytes: frame, spans };
        let wait_ms = match wait_ms(timeout, &args) {
            Ok(ms) => ms,
            Err(error) => return self.reply(core, id, error.to_bytes()),
        };
        let blocked = Rc::<Blocked>::default();
        let waiting = match self.waiting(core, command, frame, spans, deadline(wait_ms), blocked.clone()) {
            Ok(waiting) => waiting,
            Err(error) => return self.reply(core, id, error),
        };
        let rule = command.downgrade(spans.len());
        let flow = self.proceed(core, id, rule, |mut procedure| async move {
            let outcome = waiting.execute(&mut procedure).await.unwrap_or_else(|end| end);
            procedure.with_client(|client, _| client.blocked = None);
            (procedure, outcome)
        });
        self.note_blocked(core, id, flow, blocked)
    }

    /// The client waits, if that is how its command has begun.
    pub(super) fn note_blocked(&self, core: &mut Core, id: u32, flow: Flow, blocked: Rc<Blocked>) -> Flow {
        if flow == Flow::Next
            && let Some(client) = core.clients.get_mut(id as usize)
        {
            client.blocked = Some(blocked);
        }
        flow
    }

    /// The same of a command in another form than it came in.
    pub(super) fn waiting_as(
        &self,
        frame: &Bytes,
        spans: &Spans,
        deadline: Option<Instant>,
        blocked: &Rc<Blocked>,
    ) -> Result<Waiting, Bytes> {
        let args = Args { bytes: frame, spans };
        let command = self.shared().commands.lookup(&args);
        let command = command.map_err(|error| error.to_bytes())?;
        self.with(|core| self.waiting(core, command, frame, spans, deadline, blocked.clone()))
    }

    /// What a command that waits does; or what is wrong with it.
    fn waiting(
        &self,
        core: &mut Core,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
        deadline: Option<Instant>,
        blocked: Rc<Blocked>,
    ) -> Result<Waiting, Bytes> {
        let args = Args { bytes: frame, spans };
        let keys = command.keys(&args).map_err(|error| error.to_bytes())?;
        has_side(command.special, &args, &keys)?;
        let mut parts = self.parts_of(command, &args, &keys);
        let moves = matches!(command.special, Special::Blmove | Special::Brpoplpush);
        let mut across = None;
        if moves {
            // Both keys belong to the one part that there is.
            parts.truncate(1);
            let mut of_keys = keys
                .iter()
                .map(|&key| self.shared().keyspace.partition_of(args.arg(key as usize)));
            if of_keys.next() != of_keys.next() {
                across = Some(self.across(core, command, frame, spans)?);
            }
        }
        Ok(Waiting {
            special: command.special,
            parts,
            line: command.line(&args),
            across,
            deadline,
            blocked,
            moved: None,
        })
    }
}

/// The reply to a client for whom nothing has come.
pub(super) fn nothing(p: &Procedure, why: Unblocking) -> Outcome {
    let resp3 = p
        .with_client(|client, _| client.session.resp3)
        .unwrap_or_default();
    match why {
        Unblocking::Elsewhere => Outcome::MayCome,
        Unblocking::Error => answer(encode::error(UNBLOCKED)),
        _ if resp3 => answer(&b"_\r\n"[..]),
        // Not of the command's own kind of null: every timeout is a null array.
        _ => Outcome::Reply {
            frames: Bytes::from_static(b"*-1\r\n"),
            resp3: false,
        },
    }
}

/// Whether the client is there to get what was taken for it. Its end may have come and not been read yet.
pub(super) fn is_there(p: &Procedure) -> bool {
    p.with_client(|client, _| !client.write.is_left())
        .unwrap_or(false)
}

/// Counts a client that waits.
pub(super) struct Counted(Arc<Shared>);

impl Counted {
    pub(super) fn new(p: &Procedure) -> Self {
        let shared = p.worker.shared().clone();
        shared.blocked.fetch_add(1, Relaxed);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.blocked.fetch_sub(1, Relaxed);
    }
}
