//! Requests that come from no client: holds, and nodes that join and leave, asked for by who looks after the pool.
//!
//! They are requests like any other, with a place in the order; only their answers go another way.

use std::rc::Rc;

use tokio::task::spawn_local;

use super::Worker;
use crate::ingress::Inquiry;
use crate::request::{Action, Outcome, Request};
use crate::shared::Operation;

impl Worker {
    /// Orders what is asked, and tells what became of it.
    pub(super) fn operate(self: &Rc<Self>, operation: Operation) {
        spawn_local(self.clone().operate_to_the_end(operation));
    }

    async fn operate_to_the_end(self: Rc<Self>, operation: Operation) {
        let inquiry = Inquiry::open(self.clone());
        let mut outcomes = vec![Outcome::Done; operation.actions.len()];
        let mut open = 0;
        for (part, (partition, action)) in operation.actions.into_iter().enumerate() {
            // Given up: what is asked for now would be held for nobody.
            if operation.done.is_closed() && matches!(action, Action::Hold) {
                break;
            }
            // What is held by somebody else is waited for before more is held: so no two wait for each other.
            let waits = matches!(action, Action::Hold) && self.core.borrow().sequencer.is_held(partition);
            let is_answered = !matches!(action, Action::Release);
            let request = Request {
                partition,
                db: operation.db,
                action,
                under: operation.under,
                reply_to: inquiry.reply_to(part as u16),
            };
            self.with(|core| self.submit(core, self.id, request));
            open += usize::from(is_answered);
            if waits {
                collect(&inquiry, &mut outcomes, &mut open).await;
            }
        }
        collect(&inquiry, &mut outcomes, &mut open).await;
        // Who asked may have gone.
        drop(operation.done.send(outcomes));
    }
}

async fn collect(inquiry: &Inquiry, outcomes: &mut [Outcome], open: &mut usize) {
    while *open > 0 {
        let (part, outcome) = inquiry.next().await;
        *open -= 1;
        if let Some(place) = outcomes.get_mut(usize::from(part)) {
            *place = outcome;
        }
    }
}
