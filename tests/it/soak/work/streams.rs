//! Streams with a consumer group: every acknowledged entry is delivered, as new exactly once, and again only while it is pending;
//! ids grow.

use super::{Work, lock, message_of, named};
use crate::cmd;
use crate::faults::history::Message;
use crate::harness::{Client, Reply};
use crate::soak::hand::{Crew, Hand, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const STREAM: &str = "stream";
const GROUP: &str = "group";

/// `<ms>-<number>`.
type Id = (u64, u64);

#[derive(Default)]
struct Seen {
    /// What was acknowledged, with the ids that producers were told.
    added: BTreeMap<Id, Message>,
    /// Additions of unknown outcome.
    unsure: BTreeSet<Message>,
    /// Delivered as new.
    delivered: BTreeMap<Id, Message>,
    /// Deliveries of unknown outcome: each may have delivered to nobody.
    unsure_deliveries: u64,
    claimed: u64,
    /// Acknowledged by consumers, and when that was known.
    done: BTreeMap<Id, Instant>,
    wrong: Vec<String>,
}

struct Streams {
    seen: Arc<Mutex<Seen>>,
}

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    let streams = Streams { seen: Arc::default() };
    let mut client = Client::connect(&crew.front.endpoint());
    let made = client.call(cmd!["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]);
    assert!(made.is_ok(), "{made}");
    for producer in 0..2 {
        let seen = Arc::clone(&streams.seen);
        crew.hire(&format!("stream producer {producer}"), move |mut hand| {
            add(&mut hand, producer, &seen);
        });
    }
    for at in 0..2 {
        let seen = Arc::clone(&streams.seen);
        crew.hire(&format!("stream consumer {at}"), move |mut hand| {
            while hand.goes_on() {
                read(&mut hand, &format!("consumer-{at}"), &seen);
                hand.rest(2, 10);
            }
        });
    }
    let seen = Arc::clone(&streams.seen);
    crew.hire("stream claimer", move |mut hand| {
        while hand.goes_on() {
            hand.rest(20, 60);
            claim(&mut hand, &seen);
        }
    });
    Box::new(streams)
}

fn id_of(reply: &Reply) -> Option<Id> {
    let text = reply.text()?;
    let (ms, number) = text.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}

fn add(hand: &mut Hand, producer: usize, seen: &Mutex<Seen>) {
    let mut last = (0, 0);
    for counter in 1.. {
        if !hand.goes_on() {
            return;
        }
        let message = Message { producer, counter };
        match hand.call(&cmd!["XADD", STREAM, "*", "job", message.to_string()]) {
            Some(Told::Done(reply)) => match id_of(&reply) {
                Some(id) if id > last => {
                    last = id;
                    lock(seen).added.insert(id, message);
                }
                _ => hand.violation(&format!("XADD was answered {reply} after {last:?}")),
            },
            Some(Told::Unknown) => drop(lock(seen).unsure.insert(message)),
            Some(Told::Refused) | None => {}
        }
        hand.rest(2, 15);
    }
}

/// Entries `[id, [field, value]]`.
fn entries(hand: &Hand, list: &Reply) -> Vec<(Id, Message)> {
    let one = |entry: Reply| {
        let parts = entry.items();
        let id = parts.first().and_then(id_of);
        let value = parts.get(1).and_then(|fields| fields.items().into_iter().nth(1));
        let found = id.zip(value.as_ref().and_then(|value| message_of(hand, value)));
        if found.is_none() {
            hand.violation(&format!("an entry was expected, not {entry}"));
        }
        found
    };
    list.items().into_iter().filter_map(one).collect()
}

fn read(hand: &mut Hand, consumer: &str, seen: &Mutex<Seen>) {
    let mut command = cmd!["XREADGROUP", "GROUP", GROUP, consumer, "COUNT", 5];
    let waits = hand.rng.chance(50);
    if waits {
        command.extend(cmd!["BLOCK", 200]);
    }
    command.extend(cmd!["STREAMS", STREAM, ">"]);
    let told = if waits {
        hand.wait(&command)
    } else {
        hand.call(&command)
    };
    let reply = match told {
        Some(Told::Done(reply)) if !reply.is_nil() => reply,
        Some(Told::Unknown) => {
            lock(seen).unsure_deliveries += 1;
            return;
        }
        _ => return,
    };
    let of_stream = reply.items().into_iter().next().map(|stream| stream.items());
    let list = of_stream
        .and_then(|parts| parts.into_iter().nth(1))
        .unwrap_or(reply);
    let entries = entries(hand, &list);
    for (id, message) in &entries {
        if let Some(before) = lock(seen).delivered.insert(*id, *message) {
            hand.violation(&format!(
                "{id:?} ({message}) was new twice; before it was {before}"
            ));
        }
    }
    hand.rest(1, 8);
    if hand.rng.chance(5) {
        // What it has got stays pending.
        hand.hang_up();
        return;
    }
    acknowledge(hand, &entries, seen);
}

fn claim(hand: &mut Hand, seen: &Mutex<Seen>) {
    let asked = Instant::now();
    let command = cmd!["XAUTOCLAIM", STREAM, GROUP, "claimer", 300, "0", "COUNT", 10];
    let Some(Told::Done(reply)) = hand.call(&command) else {
        return;
    };
    let list = reply.items().into_iter().nth(1).unwrap_or(reply);
    let entries = entries(hand, &list);
    for (id, message) in &entries {
        let mut seen = lock(seen);
        seen.claimed += 1;
        if seen.done.get(id).is_some_and(|done| *done < asked) {
            seen.wrong.push(format!(
                "{id:?} ({message}) was claimed after it was acknowledged"
            ));
        }
    }
    acknowledge(hand, &entries, seen);
}

fn acknowledge(hand: &mut Hand, entries: &[(Id, Message)], seen: &Mutex<Seen>) {
    for ((ms, number), _) in entries {
        if let Some(Told::Done(_)) = hand.call(&cmd!["XACK", STREAM, GROUP, format!("{ms}-{number}")]) {
            lock(seen).done.entry((*ms, *number)).or_insert_with(Instant::now);
        }
    }
}

impl Work for Streams {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let mut seen = lock(&self.seen);
        let all = client.call(cmd!["XRANGE", STREAM, "-", "+"]).items();
        let mut held: BTreeMap<Id, String> = BTreeMap::new();
        let mut wrong = std::mem::take(&mut seen.wrong);
        for entry in &all {
            let parts = entry.items();
            let id = parts.first().and_then(id_of).expect("an id");
            if held.last_key_value().is_some_and(|(last, _)| *last >= id) {
                wrong.push(format!("ids do not grow at {id:?}"));
            }
            held.insert(id, parts[1].items()[1].text().expect("text"));
        }
        for (id, message) in &seen.added {
            if held.get(id) != Some(&message.to_string()) {
                wrong.push(format!("lost: {id:?} ({message}) is {:?}", held.get(id)));
            }
        }
        for (id, text) in &held {
            let message = Message::parse(text).expect("a message");
            if !seen.added.contains_key(id) && !seen.unsure.contains(&message) {
                wrong.push(format!("invented: {id:?} ({text})"));
            }
        }
        // What nobody has got yet, and what somebody has got and not acknowledged.
        let command = cmd![
            "XREADGROUP",
            "GROUP",
            GROUP,
            "last",
            "COUNT",
            1_000_000,
            "STREAMS",
            STREAM,
            ">"
        ];
        let rest = client.call(command);
        let rest_of = |stream: Reply| stream.items().into_iter().nth(1).unwrap_or(Reply::Null).items();
        let rest: Vec<Reply> = rest.items().into_iter().flat_map(rest_of).collect();
        let pending = client
            .call(cmd!["XPENDING", STREAM, GROUP, "-", "+", 1_000_000])
            .items();
        let pending: BTreeSet<Id> = pending
            .iter()
            .filter_map(|row| id_of(row.items().first()?))
            .collect();
        let fresh: BTreeSet<Id> = rest
            .iter()
            .filter_map(|entry| id_of(entry.items().first()?))
            .collect();
        for id in &fresh {
            if seen.delivered.contains_key(id) {
                wrong.push(format!("{id:?} was new twice, the last time at the end"));
            }
        }
        for id in held.keys() {
            let known = seen.delivered.contains_key(id) || fresh.contains(id) || pending.contains(id);
            // A delivery that nobody heard of, claimed and done since.
            if !known && !seen.done.contains_key(id) {
                wrong.push(format!("never delivered: {id:?}"));
            }
        }
        for id in seen.done.keys().filter(|id| pending.contains(id)) {
            wrong.push(format!("{id:?} was acknowledged, and is pending"));
        }
        eprintln!(
            "  stream: {} entries, {} claimed, {} pending at the end, {} additions and {} deliveries unknown",
            held.len(),
            seen.claimed,
            pending.len(),
            seen.unsure.len(),
            seen.unsure_deliveries
        );
        wrong.truncate(10);
        named("stream", wrong)
    }
}
