//! Scripts and functions, kept with the pool: on all nodes, and relied on when a majority has them.

use std::sync::Arc;

use crate::library::functions::Function;
use crate::node::{Control, ControlError, libraries};
use crate::pool::shelf::{Change, Shelf};
use crate::request::NodeId;

use super::{Keeper, RETRY_PAUSE_MAX, lock};

impl Keeper {
    /// Gives the node all that is kept of scripts and functions, if it does not have it.
    pub(super) async fn shelve_all(
        &self,
        id: NodeId,
        shelf: &Shelf,
        control: &mut Control,
    ) -> Result<(), ControlError> {
        if Shelf::read_stamp(control).await?.unwrap_or_default() != shelf.stamp {
            shelf
                .write(control, self.config.pool.bookkeeping_db, None)
                .await?;
        }
        if let Some(shelved) = self.shelved.get(usize::from(id)) {
            *lock(shelved) = shelf.stamp;
        }
        Ok(())
    }

    /// Keeps a change of scripts or functions with the pool. Whether more than half of the nodes have it; if not, it is taken
    /// back.
    pub async fn keep(&self, change: impl FnOnce(&Shelf) -> Change) -> bool {
        let mut shelf = self.shelf.lock().await;
        let change = change(&shelf);
        let before = shelf.stamp;
        let undo = shelf.apply(&change);
        shelf.stamp = (self.claim.term, before.1 + 1);
        let now = &*shelf;
        let writes = self
            .controls
            .iter()
            .zip(&self.shelved)
            .enumerate()
            .map(|(node, (slot, shelved))| {
                let change = &change;
                async move {
                    let mut slot = slot.lock().await;
                    let Some(control) = slot.as_mut() else {
                        return false;
                    };
                    let has_former = *lock(shelved) == before;
                    match now
                        .write(
                            control,
                            self.config.pool.bookkeeping_db,
                            has_former.then_some(change),
                        )
                        .await
                    {
                        Ok(()) => {
                            *lock(shelved) = now.stamp;
                            true
                        }
                        // Busy, or full: the connection is as good as before.
                        Err(ControlError::Refused(_)) => {
                            *lock(shelved) = (0, 0);
                            false
                        }
                        Err(_) => {
                            *slot = None;
                            self.admissions.look(node as NodeId);
                            false
                        }
                    }
                }
            });
        let written = futures::future::join_all(writes)
            .await
            .into_iter()
            .filter(|&ok| ok)
            .count();
        let safe = self.table().is_majority(written);
        if !safe {
            // Who has it will be given everything the next time.
            shelf.apply(&undo);
            shelf.stamp.1 += 1;
        }
        safe
    }

    /// Has a script kept with the pool some time soon.
    pub fn keep_soon(&self, field: bytes::Bytes, text: bytes::Bytes) {
        lock(&self.unshelved).push((field, Some(text)));
        self.unshelved_changed.notify_one();
    }

    /// Forgets what was to be kept soon.
    pub fn keep_no_more(&self) {
        lock(&self.unshelved).clear();
    }

    /// Keeps what is to be kept soon, for ever.
    pub async fn keep_library(self: Arc<Self>) {
        loop {
            self.unshelved_changed.notified().await;
            let change = std::mem::take(&mut *lock(&self.unshelved));
            if !change.is_empty() && !self.keep(|_| change.clone()).await {
                lock(&self.unshelved).splice(0..0, change);
                tokio::time::sleep(RETRY_PAUSE_MAX).await;
                self.unshelved_changed.notify_one();
            }
        }
    }

    /// Has a node compile a function library: what it registers.
    ///
    /// # Errors
    /// What is wrong with the library; or `None`, if no node could be asked.
    pub async fn compile(&self, text: &[u8]) -> Result<Vec<Function>, Option<String>> {
        for (node, slot) in self.controls.iter().enumerate() {
            let mut slot = slot.lock().await;
            let Some(control) = slot.as_mut() else { continue };
            match libraries::compile(control, text).await {
                Ok(functions) => return Ok(functions),
                Err(ControlError::Refused(why)) if !why.starts_with("BUSY") => return Err(Some(why)),
                Err(ControlError::Refused(_)) => {}
                Err(_) => {
                    *slot = None;
                    self.admissions.look(node as NodeId);
                }
            }
        }
        Err(None)
    }
}
