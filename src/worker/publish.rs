//! The way of a publication: from the publisher's worker to the owner of its channel, from there to every worker that has
//! receivers, and back.
//!
//! Mail between two workers arrives in the order it was sent, so each channel has one order for all. What is between
//! [`Worker::publish`] and [`Worker::order_publication`], and between that and [`Worker::deliver_publication`], may be any way that
//! keeps it.

use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use super::{Core, Worker};
use crate::ingress::Client;
use crate::pubsub::{Delivery, Kind, Publication, Subscriber, message, pattern_message};
use crate::request::{Outcome, ReplyTo};
use crate::resp::encode;
use crate::shared::Message;

impl Worker {
    /// The worker that orders a channel's publications.
    pub(crate) fn owner_of_channel(&self, channel: &[u8]) -> u16 {
        self.shared.owner_of(self.shared.keyspace.partition_of(channel))
    }

    /// Sends a publication on its way. `publisher` is answered with the number of receivers when all have it.
    pub(crate) fn publish(&self, core: &mut Core, publication: Publication, publisher: ReplyTo) {
        let owner = self.owner_of_channel(&publication.channel);
        if owner == self.id {
            self.order_publication(core, publication, publisher);
        } else {
            core.mail(owner, Message::Publish(publication, publisher));
        }
    }

    /// Gives a publication its place among those of its channel, which is this worker's.
    pub(super) fn order_publication(&self, core: &mut Core, publication: Publication, publisher: ReplyTo) {
        let receivers = self.shared.pubsub.publish(&publication);
        if receivers.workers.is_empty() {
            return self.complete(core, publisher, received_by(0));
        }
        let delivery = Arc::new(Delivery::new(publication, receivers, publisher));
        for &worker in &delivery.receivers.workers {
            if worker == self.id {
                self.deliver_publication(core, &delivery);
            } else {
                core.mail(worker, Message::Deliver(delivery.clone()));
            }
        }
    }

    /// Puts a publication into the queues of this worker's clients that get it.
    pub(super) fn deliver_publication(&self, core: &mut Core, delivery: &Delivery) {
        let Core {
            clients,
            dirty,
            subscribers,
            ..
        } = core;
        let Delivery {
            publication,
            receivers,
            publisher,
            ..
        } = delivery;
        let kind = publication.kind();
        let mut hand_out = |to: &[Subscriber], frame: &dyn Fn(bool) -> Bytes| {
            let earlier = to.iter().filter(|s| s.since < receivers.number);
            push_to_all(clients, dirty, earlier, frame);
        };
        hand_out(subscribers.of(kind, &publication.channel), &|resp3| {
            message(publication, resp3)
        });
        for pattern in &receivers.patterns {
            hand_out(subscribers.of(Kind::Pattern, pattern), &|resp3| {
                pattern_message(pattern, publication, resp3)
            });
        }
        if delivery.done_by_one() {
            self.complete(core, *publisher, received_by(receivers.count));
        }
    }
}

/// Queues a message for each of these clients, encoded once for each protocol.
fn push_to_all<'a>(
    clients: &mut Slab<Client>,
    dirty: &mut Vec<u32>,
    subscribers: impl Iterator<Item = &'a Subscriber>,
    frame: &dyn Fn(bool) -> Bytes,
) {
    let (mut resp2, mut resp3) = (None, None);
    for subscriber in subscribers {
        let Some(client) = clients
            .get_mut(subscriber.client as usize)
            .filter(|client| !client.gone && !client.closing)
        else {
            continue;
        };
        let speaks_resp3 = client.session.resp3;
        let encoded = if speaks_resp3 { &mut resp3 } else { &mut resp2 };
        client
            .out
            .put_shared(encoded.get_or_insert_with(|| frame(speaks_resp3)));
        if !client.dirty {
            client.dirty = true;
            dirty.push(subscriber.client);
        }
    }
}

fn received_by(count: u64) -> Outcome {
    Outcome::Reply {
        frames: encode::integer(count as i64),
        resp3: false,
    }
}
