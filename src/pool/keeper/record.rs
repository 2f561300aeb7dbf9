//! The table's record: written to all nodes whenever it changes, and relied on when a majority has it (invariant 7).
//!
//! A record that changes which nodes are in the pool is relied on when a majority of the former nodes has it, and a majority of the
//! new ones: so who knows only the former nodes finds it, and follows it to the others. One node comes or goes in one record
//! (invariant 15).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use tracing::debug;

use super::{Keeper, PoolEvent, RETRY_PAUSE_MAX, lock};
use crate::node::ControlError;
use crate::pool::open::write_table;
use crate::pool::table::Table;
use crate::request::{Membership, NodeId, PartitionId};

impl Keeper {
    /// Writes the table whenever partitions' nodes have changed, for ever.
    pub async fn keep_record(self: Arc<Self>) {
        loop {
            self.wanted_changed.notified().await;
            let recording = self.recording.lock().await;
            let wanted = std::mem::take(&mut *lock(&self.wanted));
            if wanted.is_empty() {
                continue;
            }
            let next = self.attempt(|next| {
                for (partition, members) in &wanted {
                    if let Some(row) = next.rows.get_mut(usize::from(*partition)) {
                        row.set_members(members.clone());
                    }
                }
            });
            if self.write_everywhere(&next).await {
                debug!(
                    version = next.version,
                    partitions = wanted.len(),
                    "the table is recorded"
                );
                *lock(&self.table) = next;
                self.tell(PoolEvent::Recorded(wanted.into_iter().collect())).await;
            } else {
                // Later changes of the same partitions have precedence.
                self.want_again(wanted);
                drop(recording);
                tokio::time::sleep(RETRY_PAUSE_MAX).await;
                self.wanted_changed.notify_one();
            }
        }
    }

    /// Records another change of the table. Whether it is safe; if not, it may be found all the same by a successor.
    pub(super) async fn record_change(&self, change: impl FnOnce(&mut Table)) -> bool {
        let _recording = self.recording.lock().await;
        let next = self.attempt(change);
        if !self.write_everywhere(&next).await {
            // What it was is written again, as a later version: else the next record would bring the change along.
            let back = lock(&self.table).clone();
            let back = self.attempt(|next| {
                let version = next.version;
                *next = Table { version, ..back };
            });
            self.write_everywhere(&back).await;
            return false;
        }
        *lock(&self.table) = next;
        self.tell(PoolEvent::Changed).await;
        true
    }

    /// The next record. Every attempt has a version of its own: what a minority has of a failed one must not pass for another.
    fn attempt(&self, change: impl FnOnce(&mut Table)) -> Table {
        let mut attempted = lock(&self.attempted);
        attempted.version += 1;
        change(&mut attempted);
        attempted.clone()
    }

    async fn tell(&self, event: PoolEvent) {
        // The receiver lives as long as the pool is served.
        drop(self.events.send(event).await);
    }

    fn want_again(&self, sets: BTreeMap<PartitionId, Membership>) {
        let mut wanted = lock(&self.wanted);
        for (partition, set) in sets {
            wanted.entry(partition).or_insert(set);
        }
    }

    /// Whether more than half of the nodes have the record, of those that were in the pool and of those that are then.
    async fn write_everywhere(&self, table: &Table) -> bool {
        let record = table.to_json();
        let before = self.table();
        let all: HashSet<NodeId> = before
            .members()
            .chain(table.members())
            .map(|(id, _)| id)
            .collect();
        let writes = all.into_iter().map(|id| {
            let record = &record;
            async move {
                let mut slot = self.controls.get(usize::from(id))?.lock().await;
                let control = slot.as_mut()?;
                match write_table(control, self.config.pool.bookkeeping_db, record).await {
                    Ok(()) => Some(id),
                    // Full: the connection is as good as before.
                    Err(ControlError::Refused(_)) => None,
                    Err(_) => {
                        *slot = None;
                        // It is connected to again, and given what it has missed.
                        self.admissions.look(id);
                        None
                    }
                }
            }
        });
        let written: HashSet<NodeId> = join_all(writes).await.into_iter().flatten().collect();
        let has_majority = |of: &Table| {
            let members = of.members().filter(|(id, _)| written.contains(id));
            of.is_majority(members.count())
        };
        has_majority(&before) && has_majority(table)
    }
}
