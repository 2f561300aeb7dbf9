//! The table's record: written to all nodes whenever it changes, and relied on when a majority has it (invariant 7).

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::debug;

use super::{Keeper, PoolEvent, RETRY_PAUSE_MAX, lock};
use crate::pool::open::write_table;
use crate::pool::table::Table;
use crate::request::PartitionId;

impl Keeper {
    /// Writes the table whenever it changes, for ever.
    pub async fn keep_record(self: Arc<Self>) {
        loop {
            self.wanted_changed.notified().await;
            let wanted = std::mem::take(&mut *lock(&self.wanted));
            if wanted.is_empty() {
                continue;
            }
            // Every attempt has a version of its own: what a minority has of a failed one must not pass for another.
            let mut next = lock(&self.attempted).clone();
            next.version += 1;
            for (partition, set) in &wanted {
                if let Some(row) = next.rows.get_mut(usize::from(*partition)) {
                    row.in_sync = *set;
                }
            }
            *lock(&self.attempted) = next.clone();
            if self.write_everywhere(&next).await {
                debug!(
                    version = next.version,
                    partitions = wanted.len(),
                    "the table is recorded"
                );
                *lock(&self.table) = next;
                // The receiver lives as long as the program.
                drop(
                    self.events
                        .send(PoolEvent::Recorded(wanted.into_iter().collect()))
                        .await,
                );
            } else {
                // Later changes of the same partitions have precedence.
                self.want_again(wanted);
                tokio::time::sleep(RETRY_PAUSE_MAX).await;
                self.wanted_changed.notify_one();
            }
        }
    }

    fn want_again(&self, sets: BTreeMap<PartitionId, u8>) {
        let mut wanted = lock(&self.wanted);
        for (partition, set) in sets {
            wanted.entry(partition).or_insert(set);
        }
    }

    /// Whether more than half of the nodes have the record.
    async fn write_everywhere(&self, table: &Table) -> bool {
        let record = table.to_json();
        let writes = self.controls.iter().map(|slot| {
            let record = &record;
            async move {
                let mut slot = slot.lock().await;
                let Some(control) = slot.as_mut() else { return 0 };
                match write_table(control, self.config.pool.bookkeeping_db, record).await {
                    Ok(()) => 1,
                    Err(_) => {
                        *slot = None;
                        0
                    }
                }
            }
        });
        let written: usize = futures::future::join_all(writes).await.into_iter().sum();
        written * 2 > self.controls.len()
    }
}
