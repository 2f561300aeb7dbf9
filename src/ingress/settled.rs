//! Asking nodes about all their keys, when every thread has sent them writes of its own.
//!
//! A node's answer must show every write that was acknowledged before. What this thread has ordered is on the stream that the
//! question takes, before it. Other threads have other streams, and a write that W nodes have acknowledged may still be on
//! its way to this one. So each of those streams is sent a sign first, and the node is asked when it has answered all of them.

use std::rc::Rc;

use bytes::Bytes;

use super::dispatch::Flow;
use super::gather::{Gather, Recipe};
use super::procedure::{Procedure, answer};
use crate::command::spec::Downgrade;
use crate::request::{Action, Commands, NodeId, Outcome, PartitionId};
use crate::resp::encode;
use crate::worker::{Core, Worker};

impl Worker {
    /// Asks these nodes when they have executed everything that has been acknowledged.
    pub(super) fn ask_settled(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        nodes: &[NodeId],
        frame: &Bytes,
        recipe: Recipe,
    ) -> Flow {
        if self.shared().workers.len() == 1 {
            return self.ask_nodes(core, id, nodes, frame, recipe);
        }
        let (nodes, frame) = (nodes.to_vec(), frame.clone());
        self.proceed(core, id, Downgrade::Generic, |procedure| async move {
            let reply = procedure.gather_settled(&nodes, frame, recipe).await;
            (procedure, answer(reply))
        })
    }
}

impl Procedure {
    async fn gather_settled(&self, nodes: &[NodeId], frame: Bytes, recipe: Recipe) -> Bytes {
        let ping = encode::command_frame(&[b"PING"]);
        let workers = self.worker.shared().workers.len() as PartitionId;
        let on = |node: NodeId, frame: &Bytes| Action::OnNode(node, Commands::one(frame.clone()));
        // The first partitions belong to the workers one by one.
        let others = (0..workers).filter(|&worker| worker != self.worker.id());
        let signs = others.flat_map(|worker| nodes.iter().map(move |&node| (worker, node)));
        let signs = signs.map(|(worker, node)| (worker, 0, on(node, &ping))).collect();
        let failed = self
            .ask_all(signs)
            .await
            .into_iter()
            .find(|outcome| !matches!(outcome, Outcome::Reply { .. }));
        let outcomes = match failed {
            Some(failed) => vec![failed; nodes.len()],
            None => {
                let own = self.worker.own_partition();
                let asked = nodes
                    .iter()
                    .map(|&node| (own, self.db, on(node, &frame)))
                    .collect();
                self.ask_all(asked).await
            }
        };
        let mut gather = Gather::new(recipe, nodes.len());
        for (part, outcome) in outcomes.into_iter().enumerate() {
            gather.take(part as u16, outcome);
        }
        gather.assemble(true)
    }
}
