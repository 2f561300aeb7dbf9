//! Consumers that wait: `BLPOP` of two queues, with a plain `LPOP` now and then, and some that hang up while they wait. Nothing is
//! lost but what went to somebody who has gone; each consumer gets each producer's messages in their order.

use super::{SharedLedger, Work, drain, lock, message_of, named, produce};
use crate::cmd;
use crate::faults::history::Message;
use crate::harness::Client;
use crate::harness::encode;
use crate::soak::hand::{Crew, Hand, Told};
use std::sync::Arc;

const QUEUES: [&str; 2] = ["waiting-a", "waiting-b"];
const CONSUMERS: usize = 3;

struct Blocking {
    ledger: SharedLedger,
}

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    let ledger = SharedLedger::default();
    lock(&ledger).is_ordered = true;
    for (producer, queue) in QUEUES.into_iter().enumerate() {
        let ledger = Arc::clone(&ledger);
        crew.hire(&format!("{queue} producer"), move |mut hand| {
            produce(&mut hand, &ledger, producer, 15, |message| {
                cmd!["RPUSH", queue, message.to_string()]
            });
        });
    }
    for at in 0..CONSUMERS {
        let ledger = Arc::clone(&ledger);
        crew.hire(&format!("waiting consumer {at}"), move |mut hand| {
            let taken = consume(&mut hand, &ledger);
            lock(&ledger).taken.push(taken);
        });
    }
    Box::new(Blocking { ledger })
}

fn consume(hand: &mut Hand, ledger: &SharedLedger) -> Vec<Message> {
    let mut taken = Vec::new();
    while hand.goes_on() {
        let is_plain = hand.rng.chance(20);
        let told = if is_plain {
            let queue = *hand.rng.pick(&QUEUES);
            hand.call(&cmd!["LPOP", queue])
        } else if hand.rng.chance(1) {
            // What is answered now goes to nobody.
            if let Some(client) = hand.connected() {
                let _ = client.send_raw(&encode(&cmd!["BLPOP", QUEUES[0], QUEUES[1], 1]));
                lock(ledger).lost_max += 1;
                hand.rest(0, 3);
                hand.hang_up();
            }
            continue;
        } else {
            hand.wait(&cmd!["BLPOP", QUEUES[0], QUEUES[1], 0.3])
        };
        match told {
            Some(Told::Done(reply)) if reply.is_nil() => {}
            Some(Told::Done(reply)) => {
                let message = if is_plain {
                    reply
                } else {
                    reply.items().into_iter().nth(1).unwrap_or(reply)
                };
                taken.extend(message_of(hand, &message));
            }
            Some(Told::Unknown) => lock(ledger).lost_max += 1,
            Some(Told::Refused) | None => {}
        }
        hand.rest(1, 6);
    }
    taken
}

impl Work for Blocking {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let mut ledger = lock(&self.ledger);
        for queue in QUEUES {
            let rest = drain(client, queue);
            ledger.taken.push(rest);
        }
        eprintln!(
            "  waiting: {} messages, {} takes unknown",
            ledger.sent.len(),
            ledger.lost_max
        );
        named("waiting", ledger.violations())
    }
}
