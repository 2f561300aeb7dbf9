//! What a node has of partitions that it does not hold (any more) is removed from it.
//!
//! Its account says what it has: a position, or the mark of a copy that was begun. It is looked through whenever the node has
//! been claimed anew, and whenever it has left a replica set. Nothing is removed before the table's record is safe in which the
//! node does not hold the partition, nor before its streams have come to rest; and the mark goes first and is taken away last: so a
//! position never speaks of keys that are gone.

use std::collections::{BTreeSet, HashSet};

use tracing::{debug, info};

use super::plan::Place;
use super::progress::{JobView, Phase};
use super::{Mover, ROLE, job};
use crate::account;
use crate::node::{ControlError, Scope, pairs_of, remove_partitions, text_of};
use crate::request::{HoldId, NodeId, PartitionId};

impl Mover {
    /// Looks through a node that was not looked through in this life of it. Whether there was one.
    pub(super) async fn sweep(&mut self, able: &BTreeSet<NodeId>, places: &[Place]) -> bool {
        let table = self.shared.table.load_full();
        let life = |node: NodeId| self.shared.keeper.health(node).claims;
        let mut open = table.members().map(|(node, _)| (node, life(node)));
        let Some((node, claims)) = open.find(|(node, claims)| self.swept.get(node) != Some(claims)) else {
            self.shared.admissions.set_strangers(false);
            return false;
        };
        // As long as a record may have a node where it is about to leave, nothing can be removed there, and it would pass for looked
        // through.
        let is_leaving = |node: NodeId| {
            table.partitions_of(node).any(|(partition, _)| {
                let place = places.get(usize::from(partition));
                place.is_some_and(|place| !place.replicas.contains(&node))
            }) || places.iter().any(|place| place.leaving.contains(&node))
        };
        let due = table.members().map(|(node, _)| node).find(|node| {
            able.contains(node) && self.swept.get(node) != Some(&life(*node)) && !is_leaving(*node)
        });
        let Some(node) = due else {
            // Those that are left cannot be asked now.
            debug!(node, claims, "a node cannot be looked through yet");
            return false;
        };
        let claims = life(node);
        let holds: HashSet<PartitionId> = table
            .partitions_of(node)
            .map(|(partition, _)| partition)
            .collect();
        let stays = |partition: &PartitionId| {
            let place = places.get(usize::from(*partition));
            holds.contains(partition) || place.is_some_and(|place| place.replicas.contains(&node))
        };
        // What was sent before the node left has been executed when it has answered this, and its account tells of it.
        if !job::come_to_rest(&self.shared, HoldId::NONE, &[node]).await {
            // It is just being connected to, or has just gone.
            return false;
        }
        match self.sweep_node(node, stays).await {
            Ok(()) => {
                self.swept.insert(node, claims);
            }
            Err(why) => self.failed(node, format!("looking for what it should not have: {why}")),
        }
        true
    }

    async fn sweep_node(&self, node: NodeId, stays: impl Fn(&PartitionId) -> bool) -> Result<(), String> {
        let said = |error: ControlError| error.to_string();
        let bookkeeping_db = self.shared.config.pool.bookkeeping_db;
        let mut control = self.shared.keeper.connect_alone(node, ROLE).await.map_err(said)?;
        control.select(bookkeeping_db).await.map_err(said)?;
        let mut strangers: BTreeSet<PartitionId> = BTreeSet::new();
        for hash in [account::APPLIED, account::REPAIR] {
            let fields = pairs_of(control.call(&[b"HGETALL", hash]).await.map_err(said)?);
            strangers.extend(
                fields
                    .iter()
                    .filter_map(|(field, _)| text_of(field).parse::<u16>().ok()),
            );
        }
        let partitions = self.shared.table.load().partitions();
        strangers.retain(|partition| *partition < partitions && !stays(partition));
        if strangers.is_empty() {
            return Ok(());
        }
        let name = self.shared.node_name(node);
        self.shared.progress.begin(JobView {
            from: name.clone(),
            to: name.clone(),
            partitions: strangers.len(),
            keys: 0,
            bytes: 0,
            phase: Phase::Sweep,
        });
        let strangers: Vec<PartitionId> = strangers.into_iter().collect();
        let result = async {
            job::mark(&mut control, bookkeeping_db, &strangers)
                .await
                .map_err(said)?;
            job::forget(&mut control, bookkeeping_db, &strangers)
                .await
                .map_err(said)?;
            let wanted: HashSet<PartitionId> = strangers.iter().copied().collect();
            let scope = Scope {
                keyspace: &self.shared.keyspace,
                wanted: &wanted,
                bookkeeping_db,
            };
            let removed = remove_partitions(&mut control, &scope, &self.pace)
                .await
                .map_err(|error| error.to_string())?;
            job::unmark(&mut control, bookkeeping_db, &strangers)
                .await
                .map_err(said)?;
            Ok::<u64, String>(removed)
        }
        .await;
        self.shared.progress.end();
        let removed: u64 = result?;
        self.shared.progress.lock().keys_removed += removed;
        info!(
            node = name,
            partitions = strangers.len(),
            keys = removed,
            "removed what the node does not hold any more"
        );
        Ok(())
    }
}
