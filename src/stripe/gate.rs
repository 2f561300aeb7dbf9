//! Who may work on a queue: many at once, or one alone.
//!
//! Most commands are about one segment, and any number of them may be under way. Who changes which segments there are, or looks at
//! several of them at one moment, is alone. A command is *inside* from when it looks at the directory until its requests have their
//! places in their partitions' orders: what is asked of these segments later comes behind it (invariant 18).
//!
//! Gates come before holds: nobody waits for a gate while holding partitions, and who needs several takes them in the order of their
//! queues' names. So nobody waits in a circle.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::Stripe;

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// Somebody has left, or it is open again.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    /// Somebody is alone, or will be when all have left.
    closed: bool,
}

/// Somebody who works on a queue, with others.
#[derive(Debug)]
pub struct Inside(Arc<Stripe>);

/// Somebody who is alone.
#[derive(Debug)]
pub struct Alone(Arc<Stripe>);

impl Gate {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stripe {
    /// Goes in, if nobody is alone there, or waits to be.
    pub fn enter(self: &Arc<Self>) -> Option<Inside> {
        let entered = self.gate.change(|state| {
            state.inside += usize::from(!state.closed);
            !state.closed
        });
        entered.then(|| Inside(self.clone()))
    }

    /// Goes in when that is possible.
    pub async fn entered(self: &Arc<Self>) -> Inside {
        loop {
            let news = self.gate.news.notified();
            if let Some(inside) = self.enter() {
                return inside;
            }
            news.await;
        }
    }

    /// Closes the gate, and waits until all others have left.
    pub async fn alone(self: &Arc<Self>) -> Alone {
        let alone = loop {
            let news = self.gate.news.notified();
            if let Some(alone) = self.close() {
                break alone;
            }
            news.await;
        };
        loop {
            let news = self.gate.news.notified();
            if self.gate.change(|state| state.inside) == 0 {
                return alone;
            }
            news.await;
        }
    }

    /// The same if nobody is there.
    pub fn try_alone(self: &Arc<Self>) -> Option<Alone> {
        let is_free = self.gate.change(|state| {
            let is_free = !state.closed && state.inside == 0;
            state.closed |= is_free;
            is_free
        });
        is_free.then(|| Alone(self.clone()))
    }

    fn close(self: &Arc<Self>) -> Option<Alone> {
        let was_closed = self
            .gate
            .change(|state| std::mem::replace(&mut state.closed, true));
        (!was_closed).then(|| Alone(self.clone()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.gate.change(|state| state.inside -= 1);
        self.0.gate.news.notify_waiters();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.gate.change(|state| state.closed = false);
        self.0.gate.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn is_pending<T>(future: impl Future<Output = T> + Unpin) -> bool {
        tokio::time::timeout(Duration::from_millis(20), future)
            .await
            .is_err()
    }

    #[tokio::test]
    async fn many_are_inside_or_one_is_alone() {
        let queue = Arc::new(Stripe::default());
        let (one, other) = (queue.enter().unwrap(), queue.entered().await);
        let mut alone = Box::pin(queue.alone());
        assert!(is_pending(&mut alone).await, "two are inside");
        assert!(queue.enter().is_none(), "who waits to be alone comes first");
        drop(one);
        assert!(is_pending(&mut alone).await, "one is inside");
        drop(other);
        let alone = alone.await;
        let (mut next, mut second) = (Box::pin(queue.entered()), Box::pin(queue.alone()));
        assert!(is_pending(&mut next).await && is_pending(&mut second).await);
        assert!(queue.try_alone().is_none());
        drop(alone);
        drop(second.await);
        drop(next.await);
        assert!(queue.try_alone().is_some());
    }
}
