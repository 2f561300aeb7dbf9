//! Publish and subscribe: as many subscribers as the publisher was told get each message, in each publisher's order, and no
//! subscription ends but with the sidecar.

use super::{Work, lock, named};
use crate::cmd;
use crate::faults::history::Message;
use crate::harness::{Client, Reply, encode};
use crate::soak::hand::{Crew, Hand, Told};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CHANNEL: &str = "news";
const PUBLISHERS: usize = 2;
const SUBSCRIBERS: usize = 3;

/// One subscription, from its confirmation until its connection ended.
#[derive(Default)]
struct Subscription {
    received: BTreeMap<usize, Vec<u64>>,
    was_cut: bool,
}

#[derive(Default)]
struct Seen {
    /// How many receivers the publisher was told of.
    published: BTreeMap<Message, i64>,
    subscriptions: Vec<Subscription>,
}

struct Messages {
    seen: Arc<Mutex<Seen>>,
}

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    let messages = Messages { seen: Arc::default() };
    let publishing = Arc::new(AtomicUsize::new(PUBLISHERS));
    for at in 0..PUBLISHERS {
        let (seen, publishing) = (Arc::clone(&messages.seen), Arc::clone(&publishing));
        crew.hire(&format!("publisher {at}"), move |mut hand| {
            publish(&mut hand, at, &seen);
            publishing.fetch_sub(1, Ordering::SeqCst);
        });
    }
    for at in 0..SUBSCRIBERS {
        let (seen, publishing) = (Arc::clone(&messages.seen), Arc::clone(&publishing));
        crew.hire(&format!("subscriber {at}"), move |mut hand| {
            let subscribe = if at == 0 {
                cmd!["PSUBSCRIBE", "ne?s"]
            } else {
                cmd!["SUBSCRIBE", CHANNEL]
            };
            while hand.goes_on() {
                let mut subscription = Subscription::default();
                listen(&mut hand, &subscribe, &publishing, &mut subscription);
                lock(&seen).subscriptions.push(subscription);
            }
        });
    }
    Box::new(messages)
}

fn publish(hand: &mut Hand, producer: usize, seen: &Mutex<Seen>) {
    for counter in 1.. {
        if !hand.goes_on() {
            return;
        }
        let message = Message { producer, counter };
        match hand.call(&cmd!["PUBLISH", CHANNEL, message.to_string()]) {
            Some(Told::Done(Reply::Int(receivers))) => {
                lock(seen).published.insert(message, receivers);
            }
            Some(Told::Done(other)) => hand.violation(&format!("PUBLISH was answered {other}")),
            _ => {}
        }
        hand.rest(3, 20);
    }
}

/// Until the connection ends, or all have stopped and everything has come.
fn listen(hand: &mut Hand, subscribe: &[Vec<u8>], publishing: &AtomicUsize, subscription: &mut Subscription) {
    let sent = Instant::now();
    let Some(client) = hand.connected() else {
        return;
    };
    let mut asked_last = false;
    let ended = (|| -> std::io::Result<()> {
        client.send_raw(&encode(subscribe))?;
        client.recv()?;
        loop {
            if !asked_last && publishing.load(Ordering::SeqCst) == 0 {
                // What has been published stands before its answer.
                client.send_raw(&encode(&cmd!["PING"]))?;
                asked_last = true;
            }
            if !client.has_something(Duration::from_millis(100))? {
                continue;
            }
            let items = client.recv()?.items();
            let kind = items.first().and_then(Reply::text).unwrap_or_default();
            if kind == "pong" {
                return Ok(());
            }
            let text = items.last().and_then(Reply::text).unwrap_or_default();
            match Message::parse(&text) {
                Some(message) => {
                    let of_publisher = subscription.received.entry(message.producer).or_default();
                    of_publisher.push(message.counter);
                }
                None => return Err(std::io::Error::other(format!("no message: {items:?}"))),
            }
        }
    })();
    if let Err(error) = ended {
        subscription.was_cut = true;
        hand.cut_off(&error, subscribe, sent);
    }
    hand.hang_up();
}

impl Work for Messages {
    fn finish(self: Box<Self>, _client: &mut Client) -> Vec<String> {
        let seen = lock(&self.seen);
        let mut wrong = Vec::new();
        let mut receipts: BTreeMap<Message, i64> = BTreeMap::new();
        for subscription in &seen.subscriptions {
            for (producer, counters) in &subscription.received {
                if !counters.is_sorted_by(|one, next| one < next) {
                    wrong.push(format!("publisher {producer}'s messages came out of order"));
                }
                for counter in counters {
                    let message = Message {
                        producer: *producer,
                        counter: *counter,
                    };
                    *receipts.entry(message).or_default() += 1;
                }
            }
        }
        for (message, told) in &seen.published {
            let received = receipts.get(message).copied().unwrap_or(0);
            // The end of what was on its way to a connection went with the sidecar.
            let cut_before = seen.subscriptions.iter().filter(|subscription| {
                let counters = subscription.received.get(&message.producer);
                let last = counters.and_then(|counters| counters.last());
                subscription.was_cut && last.is_none_or(|last| *last < message.counter)
            });
            if received > *told || received + (cut_before.count() as i64) < *told {
                wrong.push(format!(
                    "{message} was received {received} times, {told} were told"
                ));
            }
        }
        eprintln!(
            "  messages: {} published, {} received, {} subscriptions",
            seen.published.len(),
            receipts.values().sum::<i64>(),
            seen.subscriptions.len()
        );
        wrong.truncate(10);
        named("messages", wrong)
    }
}
