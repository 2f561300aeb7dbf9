//! Procedures: commands of a client that take several steps.
//!
//! Most commands are one request to one owner. Some are not: an element that moves between two partitions, a transaction
//! that watches keys, a client that waits for data. Such a command is a task of its own that asks owners one thing after the
//! other, under a [hold](Procedure::hold) of the partitions that nobody should see in between, and answers the client at its
//! end. Meanwhile the client's next commands wait, as they would on a server that executes one command at a time; unless all that
//! is left is to [hear](Procedure::ask_and_let_go) what has come of a request that has its place in the order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::dispatch::Flow;
use crate::command::spec::Downgrade;
use crate::request::{Action, Brings, Commands, HoldId, Outcome, PartitionId, ReplyTo, Request, Touched};
use crate::resp::walk::is_error;
use crate::resp::{encode, frame_of};
use crate::worker::{Core, Worker};

/// In place of a client's number: the answer is for the procedure of number [`ReplyTo::slot`].
pub(crate) const PROCEDURE: u32 = u32::MAX - 1;

/// Commands of a client that may be under way together, each having [let go](Procedure::ask_and_let_go), are answered in their order: they have
/// the same number. `None`: one that may not.
pub(super) type Beside = Option<u64>;

/// A step's result; or, if there is no going on, the command's end.
pub(super) type Step<T> = Result<T, Outcome>;

/// Answers that a procedure has not looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    generation: u32,
    outcomes: RefCell<VecDeque<(u16, Outcome)>>,
    arrived: Notify,
}

/// Requests whose answers are waited for by a task.
pub(crate) struct Inquiry {
    worker: Rc<Worker>,
    number: usize,
    inbox: Rc<Inbox>,
}

impl Inquiry {
    /// One that has asked nothing yet.
    pub(crate) fn open(worker: Rc<Worker>) -> Self {
        let mut core = worker.core_mut();
        let inquiry = Self::open_in(&worker, &mut core);
        drop(core);
        inquiry
    }

    fn open_in(worker: &Rc<Worker>, core: &mut Core) -> Self {
        core.generation = core.generation.wrapping_add(1);
        let inbox = Rc::new(Inbox {
            generation: core.generation,
            ..Inbox::default()
        });
        Self {
            worker: worker.clone(),
            number: core.procedures.insert(inbox.clone()),
            inbox,
        }
    }

    /// Where its answers go.
    pub(crate) fn reply_to(&self, part: u16) -> ReplyTo {
        ReplyTo {
            worker: self.worker.id(),
            part,
            client: PROCEDURE,
            generation: self.inbox.generation,
            slot: self.number as u64,
        }
    }

    /// The next answer, and the part that it is for.
    pub(crate) async fn next(&self) -> (u16, Outcome) {
        loop {
            if let Some(outcome) = self.inbox.outcomes.borrow_mut().pop_front() {
                return outcome;
            }
            self.inbox.arrived.notified().await;
        }
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.worker.core_mut().procedures.try_remove(self.number);
    }
}

/// A command being executed in steps.
pub(super) struct Procedure {
    pub(super) worker: Rc<Worker>,
    /// Its client's slot.
    client: ReplyTo,
    /// The client's database.
    pub(super) db: u16,
    inquiry: Inquiry,
    hold: HoldId,
    held: Vec<PartitionId>,
    /// Something has been written.
    wrote: Cell<bool>,
    /// What may be under way beside it.
    beside: Beside,
    /// The client's next commands do not wait for its end.
    has_let_go: Cell<bool>,
    /// How it has ended.
    outcome: Outcome,
}

/// Said when a step is refused that comes after one that has written.
const PARTIAL: &str = "PARTIAL Of this command a part was executed, and then too few nodes of a replica set were in sync for the \
                       rest (setting min_in_sync). Look at its keys. See /v1/nodes on the admin port.";

impl Worker {
    /// Opens a slot for a command of this client, and executes `steps` as its procedure.
    pub(super) fn proceed<Steps>(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        rule: Downgrade,
        steps: impl FnOnce(Procedure) -> Steps + 'static,
    ) -> Flow
    where
        Steps: Future<Output = (Procedure, Outcome)> + 'static,
    {
        self.proceed_in(core, id, |client, now_us| client.expect_one(rule, now_us), steps)
    }

    /// The same with a slot of another kind.
    pub(super) fn proceed_in<Steps>(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        open: impl FnOnce(&mut super::Client, u64) -> u64,
        steps: impl FnOnce(Procedure) -> Steps + 'static,
    ) -> Flow
    where
        Steps: Future<Output = (Procedure, Outcome)> + 'static,
    {
        self.proceed_beside(core, id, None, open, steps)
    }

    /// The same of a command that others of its kind may be under way beside.
    pub(super) fn proceed_beside<Steps>(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        beside: Beside,
        open: impl FnOnce(&mut super::Client, u64) -> u64,
        steps: impl FnOnce(Procedure) -> Steps + 'static,
    ) -> Flow
    where
        Steps: Future<Output = (Procedure, Outcome)> + 'static,
    {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if client.reads_pending(None) || client.is_beside_others(beside) {
            return Flow::Again;
        }
        client.busy = true;
        let slot = open(client, core.now_us);
        let to = client.reply_to(self.id(), id, slot, 0);
        let db = client.session.db;
        core.holds += 1;
        let procedure = Procedure {
            worker: self.clone(),
            client: to,
            db,
            inquiry: Inquiry::open_in(self, core),
            hold: HoldId::new(self.id(), core.holds),
            held: Vec::new(),
            wrote: Cell::new(false),
            beside,
            has_let_go: Cell::new(false),
            outcome: Outcome::Unknown,
        };
        let steps = steps(procedure);
        spawn_local(async move {
            let (mut procedure, outcome) = steps.await;
            procedure.outcome = outcome;
        });
        Flow::Next
    }

    /// Hands an outcome to the procedure that waits for it.
    pub(crate) fn inform(core: &mut Core, to: ReplyTo, outcome: Outcome) {
        let inbox = core.procedures.get(to.slot as usize);
        if let Some(inbox) = inbox.filter(|inbox| inbox.generation == to.generation) {
            inbox.outcomes.borrow_mut().push_back((to.part, outcome));
            inbox.arrived.notify_one();
        }
    }
}

impl Procedure {
    /// Where answers to this procedure go.
    pub(super) fn reply_to(&self, part: u16) -> ReplyTo {
        self.inquiry.reply_to(part)
    }

    /// Is not told any more of what it has asked so far.
    pub(super) fn forget_asked(&mut self) {
        self.inquiry = Inquiry::open(self.worker.clone());
    }

    /// Where the client waits.
    pub(super) fn client(&self) -> ReplyTo {
        self.client
    }

    /// Sends a request, under the procedure's hold if it has one there.
    pub(super) fn send(&self, partition: PartitionId, db: u16, action: Action, reply_to: ReplyTo) {
        let under = match action {
            Action::Hold => self.hold,
            _ if self.held.contains(&partition) => self.hold,
            _ => HoldId::NONE,
        };
        let owner = self.worker.shared().owner_of(partition);
        let request = Request {
            partition,
            db,
            action,
            under,
            reply_to,
        };
        self.worker.with(|core| self.worker.submit(core, owner, request));
    }

    /// The next answer, and the part that it is for.
    pub(super) async fn next(&self) -> (u16, Outcome) {
        self.inquiry.next().await
    }

    /// Asks several things at once.
    pub(super) async fn ask_all(&self, asked: Vec<(PartitionId, u16, Action)>) -> Vec<Outcome> {
        let writes = asked.iter().any(|(_, _, action)| is_write(action));
        let outcomes = self.ask_in_order(asked).await;
        let replied = |outcome: &Outcome| matches!(outcome, Outcome::Reply { .. });
        if writes && outcomes.iter().any(replied) {
            self.wrote.set(true);
        }
        outcomes
    }

    /// The same of what changes nothing, though it takes its place among the writes.
    pub(super) async fn ask_in_order(&self, asked: Vec<(PartitionId, u16, Action)>) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Done; asked.len()];
        for (part, (partition, db, action)) in asked.into_iter().enumerate() {
            self.send(partition, db, action, self.reply_to(part as u16));
        }
        for _ in 0..outcomes.len() {
            let (part, outcome) = self.next().await;
            if let Some(place) = outcomes.get_mut(usize::from(part)) {
                *place = outcome;
            }
        }
        outcomes
    }

    /// Asks one thing.
    pub(super) async fn ask(&self, partition: PartitionId, db: u16, action: Action) -> Outcome {
        let writes = is_write(&action);
        self.send(partition, db, action, self.reply_to(0));
        self.hear(writes).await
    }

    async fn hear(&self, writes: bool) -> Outcome {
        let outcome = self.next().await.1;
        if writes && matches!(outcome, Outcome::Reply { .. }) {
            self.wrote.set(true);
        }
        outcome
    }

    /// The same of the last thing that it asks, as far as can be told: the client goes on meanwhile. Whatever its next commands ask of
    /// that partition comes behind it.
    pub(super) async fn ask_and_let_go(&self, partition: PartitionId, db: u16, action: Action) -> Outcome {
        let writes = is_write(&action);
        self.send(partition, db, action, self.reply_to(0));
        self.with_client(|client, _| {
            client.busy = false;
            client.let_go = (client.let_go.0 + 1, self.beside);
            self.has_let_go.set(true);
            if client.waiting {
                client.wake.notify_one();
            }
        });
        self.hear(writes).await
    }

    /// Keeps the client's next commands waiting again; `false` if some have been taken up meanwhile.
    pub(super) fn keep_waiting(&self) -> bool {
        let is_last = self.with_client(|client, to| {
            let is_last = client.next_slot() == to.slot + 1;
            if is_last && self.has_let_go.replace(false) {
                client.busy = true;
                client.let_go.0 -= 1;
            }
            is_last
        });
        is_last.unwrap_or(true)
    }

    /// The replies to some reading commands; an error among them ends the procedure.
    pub(super) async fn read(&self, partition: PartitionId, commands: &[&[&[u8]]]) -> Step<Vec<Bytes>> {
        let frames: Vec<Bytes> = commands.iter().map(|args| encode::command_frame(args)).collect();
        let commands = Commands {
            count: frames.len() as u32,
            ..Commands::one(frames.concat().into())
        };
        let outcome = self.ask(partition, self.db, Action::Read(commands)).await;
        replies(outcome)
    }

    /// The replies to reading commands, each of a partition, that are asked at once; an error among them ends the procedure.
    pub(super) async fn read_all(
        &self,
        commands: impl Iterator<Item = (PartitionId, Bytes)>,
    ) -> Step<Vec<Bytes>> {
        let read = |(partition, frame)| (partition, self.db, Action::Read(Commands::one(frame)));
        let outcomes = self.ask_all(commands.map(read).collect()).await;
        outcomes.into_iter().map(reply).collect()
    }

    /// The reply to a writing command whose key is argument `key`; an error ends the procedure.
    pub(super) async fn write(
        &self,
        partition: PartitionId,
        db: u16,
        args: &[&[u8]],
        key: usize,
    ) -> Step<Bytes> {
        let outcome = self
            .ask(partition, db, Action::Write(write_of(args, &[key])))
            .await;
        reply(outcome)
    }

    /// Holds these partitions: what others ask of them waits until the procedure's end.
    pub(super) async fn hold(&mut self, mut partitions: Vec<PartitionId>) -> Step<()> {
        // In one order for everybody, so that no two procedures wait for each other.
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            if self.held.contains(&partition) {
                continue;
            }
            match self.ask(partition, self.db, Action::Hold).await {
                Outcome::Done => self.held.push(partition),
                failed => return Err(failed),
            }
        }
        Ok(())
    }

    /// Makes sure, as far as can be told, that none of the writes to these partitions is refused after others have been executed.
    pub(super) async fn make_sure(&self, partitions: &[PartitionId]) -> Step<()> {
        let asked = partitions
            .iter()
            .map(|&p| (p, self.db, Action::Writable))
            .collect();
        match self
            .ask_all(asked)
            .await
            .into_iter()
            .find(|o| *o != Outcome::Done)
        {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// Lets others go on with what is held.
    pub(super) fn release(&mut self) {
        for partition in std::mem::take(&mut self.held) {
            let owner = self.worker.shared().owner_of(partition);
            let request = Request {
                partition,
                db: self.db,
                action: Action::Release,
                under: self.hold,
                reply_to: self.reply_to(0),
            };
            self.worker.with(|core| self.worker.submit(core, owner, request));
        }
    }

    /// Changes the client's slot, and what else there is of the client, if it is still there.
    pub(super) fn with_client<T>(&self, change: impl FnOnce(&mut super::Client, ReplyTo) -> T) -> Option<T> {
        let mut core = self.worker.core_mut();
        let client = core.clients.get_mut(self.client.client as usize)?;
        (client.generation == self.client.generation && !client.gone).then(|| change(client, self.client))
    }
}

/// However it ends: nothing stays held, and the client is answered.
impl Drop for Procedure {
    fn drop(&mut self) {
        self.release();
        let outcome = match std::mem::replace(&mut self.outcome, Outcome::Done) {
            Outcome::Refused(_) if self.wrote.get() => answer(encode::error(PARTIAL)),
            outcome => outcome,
        };
        self.worker.with(|core| {
            let to = self.client;
            if let Some(client) = core
                .clients
                .get_mut(to.client as usize)
                .filter(|c| c.generation == to.generation)
            {
                match self.has_let_go.get() {
                    true => client.let_go.0 -= 1,
                    false => client.busy = false,
                }
            }
            // `Done`: its reply is on its way already.
            self.worker.answer(core, to, outcome);
        });
    }
}

fn is_write(action: &Action) -> bool {
    use Action::*;
    matches!(
        action,
        Write(_) | Probed(_) | Decide(_) | Joint(..) | Everywhere(..)
    )
}

/// A write, and which of its arguments are the keys that it may change.
pub(super) fn write_of(args: &[&[u8]], keys: &[usize]) -> Commands {
    let (frame, spans) = frame_of(args);
    let touched = keys.iter().filter_map(|&key| spans.get(key).copied()).collect();
    Commands {
        touched: Touched::Keys(touched),
        brings: Brings::Unknown,
        ..Commands::one(frame)
    }
}

/// The replies of an outcome; an error among them, or no reply at all, is the end.
pub(super) fn replies(outcome: Outcome) -> Step<Vec<Bytes>> {
    match outcome {
        Outcome::Reply { frames, .. } => {
            let all = super::gather::cut(&frames);
            match all.iter().find(|reply| is_error(reply)) {
                Some(error) => Err(answer(error.clone())),
                None => Ok(all),
            }
        }
        other => Err(other),
    }
}

/// The same of a single command.
pub(super) fn reply(outcome: Outcome) -> Step<Bytes> {
    Ok(replies(outcome)?.into_iter().next().unwrap_or_default())
}

/// A RESP3 reply as the end of a procedure.
pub(super) fn answer(frames: impl Into<Bytes>) -> Outcome {
    Outcome::Reply {
        frames: frames.into(),
        resp3: true,
    }
}
