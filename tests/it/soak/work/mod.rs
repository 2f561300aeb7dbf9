//! What clients do all the time: each kind of work is some threads and, at the end, a list of what must not be.

mod bank;
mod blocking;
mod counters;
mod expiring;
mod huge;
mod jobs;
mod messages;
mod pages;
mod scripts;
mod streams;

use super::hand::{Crew, Hand, Told};
use super::ledger::Ledger;
use crate::faults::history::{Message, Sent};
use crate::harness::{Client, Reply};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub trait Work {
    /// Everybody has stopped and everything has healed: takes what is left, and tells everything that must not be.
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String>;
}

/// All of it, at work.
pub fn start_all(crew: &mut Crew) -> Vec<Box<dyn Work>> {
    vec![
        jobs::start(crew, "jobs"),
        jobs::start(crew, "{jobs}"),
        blocking::start(crew),
        counters::start(crew),
        bank::start(crew, "bank"),
        bank::start(crew, "{bank}"),
        streams::start(crew),
        pages::start(crew),
        scripts::start(crew, "script"),
        scripts::start(crew, "{script}"),
        expiring::start(crew),
        messages::start(crew),
        huge::start(crew),
    ]
}

/// A ledger that several threads write.
type SharedLedger = Arc<Mutex<Ledger>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts in one message after the other, each until it knows that it is in, or gives it up after an unknown outcome.
fn produce(
    hand: &mut Hand,
    ledger: &SharedLedger,
    producer: usize,
    rest_ms: i64,
    put: impl Fn(&Message) -> Vec<Vec<u8>>,
) {
    for counter in 1.. {
        let message = Message { producer, counter };
        let mut known = Sent::default();
        while let Some(told) = hand.call(&put(&message)) {
            match told {
                Told::Done(Reply::Int(length)) if length > 0 => known.acknowledged = true,
                Told::Done(other) => hand.violation(&format!("putting {message} was answered {other}")),
                Told::Refused => continue,
                Told::Unknown => {
                    known.unknown += 1;
                    if hand.rng.chance(50) {
                        continue;
                    }
                }
            }
            break;
        }
        lock(ledger).sent.insert(message, known);
        if !hand.goes_on() {
            return;
        }
        hand.rest(1, rest_ms);
    }
}

fn message_of(hand: &Hand, reply: &Reply) -> Option<Message> {
    let message = reply.text().as_deref().and_then(Message::parse);
    if message.is_none() {
        hand.violation(&format!("a message was expected, not {reply}"));
    }
    message
}

/// Takes all that a list still has.
fn drain(client: &mut Client, key: &str) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let reply = client.call(crate::cmd!["LPOP", key, 500]);
        if reply.is_nil() {
            return all;
        }
        assert!(reply.error().is_none(), "cannot drain {key}: {reply}");
        let texts = reply.items().into_iter().filter_map(|item| item.text());
        all.extend(texts.map(|text| Message::parse(&text).expect("a message")));
    }
}

fn named(name: &str, wrong: Vec<String>) -> Vec<String> {
    wrong.into_iter().map(|line| format!("{name}: {line}")).collect()
}
