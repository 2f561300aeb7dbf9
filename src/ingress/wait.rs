//! `WAIT replicas timeout`: on how many further nodes all is that this client was told is written.
//!
//! W - 1 is certain without asking anybody. For more, every stream of every thread is sent a sign, behind all that it has
//! been given: a node that has answered all of them has everything, of the partitions that it is in sync with. Of which of
//! them the client has written nobody remembers, so the partition with the fewest copies counts: the answer is never too high.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::answer::NOT_AN_INTEGER;
use super::dispatch::Flow;
use super::procedure::{Procedure, answer};
use crate::command::number;
use crate::command::spec::Downgrade;
use crate::request::{Action, Commands, NodeId, Outcome, PartitionId};
use crate::resp::{Args, encode};
use crate::sequencer::PartitionView;
use crate::worker::{Core, Worker};

/// How often nodes are asked again while there are too few copies.
const INTERVAL: Duration = Duration::from_millis(50);

/// Longest wait: without a limit, or with one that no clock can hold.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Worker {
    /// `WAIT`.
    pub(super) fn wait(self: &Rc<Self>, core: &mut Core, id: u32, args: &Args<'_>) -> Flow {
        let (wanted, timeout) = match parse(args) {
            Ok(asked) => asked,
            Err(line) => return self.reply(core, id, line),
        };
        let certain = self.certain_copies();
        if wanted <= certain {
            return self.reply(core, id, encode::integer(certain));
        }
        self.proceed(core, id, Downgrade::Generic, move |procedure| async move {
            let copies = procedure.wait_for(wanted, Instant::now() + timeout).await;
            (procedure, answer(encode::integer(copies.max(certain))))
        })
    }

    /// The same in a transaction, where nothing waits.
    pub(super) fn wait_at_once(&self, args: &Args<'_>) -> Bytes {
        parse(args).map_or_else(|line| line, |_| encode::integer(self.certain_copies()))
    }

    /// Further nodes that have what is acknowledged.
    fn certain_copies(&self) -> i64 {
        i64::from(self.shared().table.load().write_quorum) - 1
    }
}

/// How many copies, and for how long.
fn parse(args: &Args<'_>) -> Result<(i64, Duration), Bytes> {
    let wanted = number::integer(args.arg(1)).ok_or_else(|| encode::error(NOT_AN_INTEGER))?;
    match number::integer(args.arg(2)) {
        None => Err(encode::error("ERR timeout is not an integer or out of range")),
        Some(..0) => Err(encode::error("ERR timeout is negative")),
        Some(0) => Ok((wanted, FOR_EVER)),
        Some(ms) => Ok((wanted, Duration::from_millis(ms.unsigned_abs()).min(FOR_EVER))),
    }
}

impl Procedure {
    /// Waits for so many further copies, until the deadline, or until nobody wants to know: how many there are.
    async fn wait_for(&self, wanted: i64, deadline: Instant) -> i64 {
        let mut copies = 0;
        loop {
            match timeout_at(deadline, self.settled_nodes()).await {
                Ok(nodes) => copies = self.copies_on(&nodes).await,
                Err(_) => return copies,
            }
            let gone = self.with_client(|_, _| ()).is_none();
            if copies >= wanted || gone {
                return copies;
            }
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = sleep_until(deadline) => return copies,
            }
        }
    }

    /// Whether each node has executed what every thread has sent it.
    async fn settled_nodes(&self) -> Vec<bool> {
        let shared = self.worker.shared();
        let nodes = shared.table.load().nodes.len();
        let workers = shared.workers.len();
        let ping = encode::command_frame(&[b"PING"]);
        let on = |node: usize| Action::OnNode(node as NodeId, Commands::one(ping.clone()));
        // The first partitions belong to the workers one by one.
        let signs = (0..workers).flat_map(|worker| (0..nodes).map(move |node| (worker, node)));
        let signs = signs
            .map(|(worker, node)| (worker as PartitionId, 0, on(node)))
            .collect();
        let outcomes = self.ask_all(signs).await;
        let answered = |outcome: &Outcome| matches!(outcome, Outcome::Reply { .. });
        let of_node = |node: usize| outcomes.iter().skip(node).step_by(nodes.max(1));
        (0..nodes).map(|node| of_node(node).all(answered)).collect()
    }

    /// Further copies of the partition that has the fewest on these nodes.
    async fn copies_on(&self, settled: &[bool]) -> i64 {
        let shared = self.worker.shared();
        let views = shared.views().await;
        let is_settled = |node: &&NodeId| settled.get(usize::from(**node)).is_some_and(|settled| *settled);
        let copies = |view: &PartitionView| view.in_sync.iter().filter(is_settled).count() as i64;
        let fewest = views.iter().flat_map(|view| &view.partitions).map(copies).min();
        fewest.unwrap_or_default() - 1
    }
}
