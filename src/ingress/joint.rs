//! Commands and scripts whose keys are in several partitions, where these live on the same nodes: one write, executed natively.

use std::rc::Rc;

use bytes::Bytes;

use super::Client;
use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use super::scripts::ScriptUse;
use super::send::Prepared;
use crate::command::Command;
use crate::request::{Action, HoldId, PartitionId, Request, WhereParted};
use crate::resp::{Args, Spans};
use crate::worker::{Core, Worker};

impl Worker {
    /// The partitions that a command writes at once, if one owner has all of them and they live on the same nodes.
    pub(super) fn together(
        &self,
        command: &Command,
        args: &Args<'_>,
        everywhere: bool,
    ) -> Option<Box<[PartitionId]>> {
        let table = self.shared().table.load();
        let mut partitions: Vec<PartitionId> = match everywhere {
            true => (0..table.partitions()).collect(),
            false => {
                let keys = command.keys(args).ok()?;
                let partition = |key: &u32| self.shared().keyspace.partition_of(args.arg(*key as usize));
                keys.iter().map(partition).collect()
            }
        };
        partitions.sort_unstable();
        partitions.dedup();
        let owner = self.shared().owner_of(*partitions.first()?);
        let nodes_of = |partition: PartitionId| {
            let mut nodes = table.rows.get(usize::from(partition))?.replicas.clone();
            nodes.sort_unstable();
            Some(nodes)
        };
        let nodes = nodes_of(*partitions.first()?)?;
        let is_there =
            |&p: &PartitionId| self.shared().owner_of(p) == owner && nodes_of(p).as_ref() == Some(&nodes);
        partitions
            .iter()
            .all(is_there)
            .then(|| partitions.into_boxed_slice())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a command and where it goes; bundling them would only rename it"
    )]
    pub(super) fn send_joint(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        partitions: Box<[PartitionId]>,
        frame: &Bytes,
        spans: &Spans,
        script: Option<ScriptUse>,
    ) -> Flow {
        let is_everywhere = script.as_ref().is_some_and(ScriptUse::is_everywhere);
        // Where it has to wait in one partition, the client's next command must not be earlier in another one.
        let at_once = partitions.iter().all(|&partition| self.is_free(core, partition));
        // Or its partitions have parted, for a moment or for good: then it is done in steps.
        if !is_everywhere && (!at_once || !core.sequencer.is_together(&partitions)) {
            return match script {
                Some(script) => self.send_script_across(core, id, command, frame, spans, script),
                None => self.send_across(core, id, command, frame, spans),
            };
        }
        let Core {
            clients,
            clock,
            now_us,
            ..
        } = core;
        let Some(client) = clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if client.reads_pending(None) {
            return Flow::Again;
        }
        let args = Args { bytes: frame, spans };
        let mut finish = None;
        let commands = match script {
            Some(script) => {
                let (commands, to_finish) = script.prepare(command, frame, &args, clock.now_ms);
                finish = to_finish;
                commands
            }
            None => match self.prepare(clock, command, frame, spans) {
                Prepared::Commands(commands) => commands,
                // Not a command that is sent here: see `dispatch`.
                Prepared::Decide(_) => return Flow::Next,
            },
        };
        let rule = command.downgrade(spans.len());
        let open = |client: &mut Client, now_us| match finish {
            Some(finish) => client.expect_parts(Gather::new(Recipe::Script(finish), 1), now_us),
            None => client.expect_one(rule, now_us),
        };
        for &partition in &partitions {
            self.note_expiry(partition, command, &args);
        }
        let first = partitions.first().copied().unwrap_or_default();
        let parted = match is_everywhere {
            true => WhereParted::Expel,
            false => WhereParted::Refuse,
        };
        let action = Action::Joint(partitions, commands, parted);
        if !at_once {
            return self.proceed_in(core, id, open, move |procedure| async move {
                let outcome = procedure.ask(first, procedure.db, action).await;
                (procedure, outcome)
            });
        }
        let slot = open(client, *now_us);
        let request = Request {
            partition: first,
            db: client.session.db,
            under: HoldId::NONE,
            reply_to: client.reply_to(self.id(), id, slot, 0),
            action,
        };
        self.submit(core, self.id(), request);
        Flow::Next
    }
}
