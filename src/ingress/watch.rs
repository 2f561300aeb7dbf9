//! `WATCH`: a node says whether a key has changed.
//!
//! What counts as a change (a write that did something, an expiry, a `FLUSHDB`, a script's side effect) is known best by a
//! server that executes it. So the key is watched on a node of its partition, over a connection of the client's own, behind
//! everything that was ordered for the partition before. `EXEC` holds the partitions, waits until that node has executed all
//! that was ordered meanwhile, and asks it with an empty transaction. A node that was lost, or is not given the partition's
//! writes any more, cannot tell, and then the transaction is not executed: the client tries again, as after any change.

use std::rc::Rc;

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use tokio::task::spawn_local;

use super::dispatch::Flow;
use super::procedure::{Procedure, Step, answer};
use super::transaction::OK;
use crate::command::spec::Downgrade;
use crate::node::{Control, ControlError};
use crate::request::{Action, NodeId, Outcome, PartitionId, Refusal};
use crate::resp::{Args, encode};
use crate::worker::{Core, Worker};

/// Connections to nodes that are kept for the next client that watches something.
const IDLE_MAX: usize = 64;

/// What a client watches.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watchers: Vec<Watcher>,
}

/// A node that is asked about some partitions.
#[derive(Debug)]
pub(crate) struct Watcher {
    node: NodeId,
    control: Control,
    /// The database in which the connection stands.
    db: u16,
    partitions: Vec<PartitionId>,
}

impl Watch {
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.watchers
            .iter()
            .flat_map(|watcher| watcher.partitions.iter().copied())
    }

    /// Whether some key may have changed. The partitions are held.
    pub(super) async fn has_changed(&mut self, p: &Procedure) -> bool {
        for watcher in &mut self.watchers {
            for &partition in &watcher.partitions {
                if p.ask(partition, 0, Action::Settled(watcher.node)).await != Outcome::Done {
                    return true;
                }
            }
            let ask: [&[&[u8]]; 3] = [&[b"MULTI"], &[b"PING"], &[b"EXEC"]];
            match watcher.control.call_all(ask).await.as_deref() {
                Ok([.., BytesFrame::Array { .. }]) => watcher.partitions.clear(),
                Ok([.., BytesFrame::Null]) => {
                    watcher.partitions.clear();
                    return true;
                }
                _ => return true,
            }
        }
        false
    }

    async fn add(&mut self, p: &Procedure, key: &[u8], partition: PartitionId) -> Step<()> {
        let table = p.worker.shared().table.load_full();
        let row = table.rows.get(usize::from(partition));
        let mut nodes: Vec<NodeId> = row
            .map(|row| row.replicas.iter().copied().collect())
            .unwrap_or_default();
        // One node for all keys, if possible.
        nodes.sort_by_key(|node| !self.watchers.iter().any(|watcher| watcher.node == *node));
        for node in nodes {
            if p.ask(partition, p.db, Action::Settled(node)).await != Outcome::Done {
                continue;
            }
            if self.add_on(p, key, partition, node).await.is_ok() {
                return Ok(());
            }
        }
        Err(Outcome::Refused(Refusal::Unconfirmed))
    }

    async fn add_on(
        &mut self,
        p: &Procedure,
        key: &[u8],
        partition: PartitionId,
        node: NodeId,
    ) -> Result<(), ControlError> {
        let at = match self.watchers.iter().position(|watcher| watcher.node == node) {
            Some(at) => at,
            None => {
                self.watchers.push(p.worker.watcher(node).await?);
                self.watchers.len() - 1
            }
        };
        let Some(watcher) = self.watchers.get_mut(at) else {
            return Err(ControlError::Protocol);
        };
        if watcher.db != p.db {
            watcher
                .control
                .call(&[b"SELECT", p.db.to_string().as_bytes()])
                .await?;
            watcher.db = p.db;
        }
        watcher.control.call(&[b"WATCH", key]).await?;
        if !watcher.partitions.contains(&partition) {
            watcher.partitions.push(partition);
        }
        Ok(())
    }
}

impl Worker {
    /// `WATCH key …`.
    pub(super) fn watch(self: &Rc<Self>, core: &mut Core, id: u32, args: &Args<'_>) -> Flow {
        let keys: Vec<Bytes> = args.iter().skip(1).map(Bytes::copy_from_slice).collect();
        let keyspace = self.shared().keyspace.clone();
        self.proceed(core, id, Downgrade::Generic, move |procedure| async move {
            let mut watch = procedure
                .with_client(|client, _| client.session.watch.take())
                .flatten()
                .unwrap_or_default();
            let mut outcome = answer(OK);
            for key in keys {
                let added = watch.add(&procedure, &key, keyspace.partition_of(&key)).await;
                if let Err(refused) = added {
                    outcome = match refused {
                        Outcome::Refused(_) => answer(encode::error(WATCHED_NOWHERE)),
                        other => other,
                    };
                    break;
                }
            }
            procedure.with_client(|client, _| client.session.watch = Some(watch));
            (procedure, outcome)
        })
    }

    /// Gives up watching; the connections are kept for others.
    pub(super) fn forget_watch(self: &Rc<Self>, watch: Option<Box<Watch>>) {
        let Some(watch) = watch else { return };
        let worker = self.clone();
        spawn_local(async move {
            for mut watcher in watch.watchers {
                let unwatched =
                    watcher.partitions.is_empty() || watcher.control.call(&[b"UNWATCH"]).await.is_ok();
                let mut core = worker.core_mut();
                if unwatched && core.watchers.len() < IDLE_MAX {
                    watcher.partitions.clear();
                    core.watchers.push(watcher);
                }
            }
        });
    }

    async fn watcher(&self, node: NodeId) -> Result<Watcher, ControlError> {
        loop {
            let idle = {
                let mut core = self.core_mut();
                let at = core.watchers.iter().rposition(|watcher| watcher.node == node);
                at.map(|at| core.watchers.swap_remove(at))
            };
            let Some(mut watcher) = idle else { break };
            // It may have died meanwhile.
            if watcher.control.call(&[b"PING"]).await.is_ok() {
                return Ok(watcher);
            }
        }
        let shared = self.shared();
        let address = shared
            .table
            .load()
            .nodes
            .get(usize::from(node))
            .map(|n| n.address.clone());
        let user = shared.instance.user("c");
        let login = Some((user.as_str(), shared.instance.secret.as_str()));
        let address = address.ok_or(ControlError::Protocol)?;
        Ok(Watcher {
            node,
            control: Control::connect(&address, login, shared.config.timeouts.connect).await?,
            db: 0,
            partitions: Vec::new(),
        })
    }
}

const WATCHED_NOWHERE: &str = "NOREPLICAS No node of this key's replica set can say whether the key changes. See /v1/nodes on \
                               the admin port.";
