//! Who waits at segments, and is told when they are not the ones to wait at any more.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Directory, Stripe};

/// Looks out for changes of queues, as somebody has seen them.
#[derive(Clone, Debug)]
pub struct Watch {
    changes: watch::Receiver<()>,
    seen: Vec<(Arc<Stripe>, Arc<Directory>)>,
}

impl Watch {
    pub(super) fn new(changes: watch::Receiver<()>) -> Self {
        Self {
            changes,
            seen: Vec::new(),
        }
    }

    /// From now on also for this one's.
    pub fn see(&mut self, queue: &Arc<Stripe>, directory: &Arc<Directory>) {
        self.seen.push((queue.clone(), directory.clone()));
    }

    /// What was seen.
    pub fn seen(&self) -> &[(Arc<Stripe>, Arc<Directory>)] {
        &self.seen
    }

    /// Whether a queue has other segments now, or is not known any more.
    pub fn has_changed(&self) -> bool {
        let is_other = |(queue, directory): &(Arc<Stripe>, Arc<Directory>)| {
            queue.directory().is_none_or(|now| *now != **directory)
        };
        self.seen.iter().any(is_other)
    }

    /// Waits for that.
    pub async fn changed(&mut self) {
        while !self.has_changed() {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use crate::stripe::{End, Lengths, Stripes};
    use std::time::Duration;

    #[tokio::test]
    async fn changes_of_others_are_none() {
        let stripes = Stripes::new(Profile::default());
        let put = |queue: &Arc<Stripe>, directory: &Directory| {
            queue.counted(directory.clone(), Lengths::default(), &queue.try_alone().unwrap());
            stripes.tell_of_changes();
        };
        let (queue, other) = (stripes.queue(0, b"a"), stripes.queue(0, b"b"));
        let mut directory = Directory::new(1);
        put(&queue, &directory);
        let mut watch = stripes.changes();
        watch.see(&queue, &queue.directory().unwrap());
        let waits = |mut watch: Watch| async move {
            tokio::time::timeout(Duration::from_millis(20), watch.changed())
                .await
                .is_err()
        };
        put(&other, &directory);
        put(&queue, &directory);
        assert!(waits(watch.clone()).await, "another queue, and the same segments");
        directory.open_at(End::Tail, 2);
        put(&queue, &directory);
        watch.changed().await;
        assert!(!waits(watch).await, "it stays told");
    }
}
