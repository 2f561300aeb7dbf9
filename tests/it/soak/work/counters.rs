//! Numbers: `INCR` by several clients counts exactly, up to unknown outcomes; a register is never read older than what was
//! acknowledged before.

use super::{Work, lock, named};
use crate::cmd;
use crate::harness::{Client, Reply};
use crate::soak::hand::{Crew, Hand, Told};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

const COUNTERS: usize = 6;

#[derive(Default)]
struct Counter {
    /// The values that clients were told.
    told: BTreeSet<i64>,
    unknown: i64,
}

#[derive(Default)]
struct Register {
    acknowledged: AtomicI64,
    attempted: AtomicI64,
}

struct Counters {
    counters: Arc<Mutex<Vec<Counter>>>,
}

fn name(at: usize) -> String {
    format!("counter-{at}")
}

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    let counters: Arc<Mutex<Vec<Counter>>> = Arc::default();
    lock(&counters).extend((0..COUNTERS).map(|_| Counter::default()));
    for at in 0..2 {
        let counters = Arc::clone(&counters);
        crew.hire(&format!("counter {at}"), move |mut hand| {
            count(&mut hand, &counters)
        });
    }
    let register = Arc::new(Register::default());
    let of_writer = Arc::clone(&register);
    crew.hire("register writer", move |mut hand| write(&mut hand, &of_writer));
    for at in 0..2 {
        let register = Arc::clone(&register);
        crew.hire(&format!("register reader {at}"), move |mut hand| {
            read(&mut hand, &register);
        });
    }
    Box::new(Counters { counters })
}

fn count(hand: &mut Hand, counters: &Mutex<Vec<Counter>>) {
    let mut last = [0; COUNTERS];
    while hand.goes_on() {
        let at = hand.rng.below(COUNTERS);
        match hand.call(&cmd!["INCR", name(at)]) {
            Some(Told::Done(Reply::Int(value))) => {
                let is_new = lock(counters)[at].told.insert(value);
                if !is_new || value <= last[at] {
                    hand.violation(&format!("INCR {} gave {value} after {}", name(at), last[at]));
                }
                last[at] = value;
            }
            Some(Told::Done(other)) => hand.violation(&format!("INCR was answered {other}")),
            Some(Told::Unknown) => lock(counters)[at].unknown += 1,
            Some(Told::Refused) | None => {}
        }
        hand.rest(1, 6);
    }
}

fn write(hand: &mut Hand, register: &Register) {
    for value in 1.. {
        if !hand.goes_on() {
            return;
        }
        register.attempted.store(value, Ordering::SeqCst);
        if let Some(Told::Done(reply)) = hand.call(&cmd!["SET", "register", value]) {
            if !reply.is_ok() {
                hand.violation(&format!("SET was answered {reply}"));
            }
            register.acknowledged.store(value, Ordering::SeqCst);
        }
        hand.rest(1, 6);
    }
}

fn read(hand: &mut Hand, register: &Register) {
    let mut seen = 0;
    while hand.goes_on() {
        let acknowledged = register.acknowledged.load(Ordering::SeqCst);
        if let Some(Told::Done(reply)) = hand.call(&cmd!["GET", "register"]) {
            let value = reply.text().and_then(|text| text.parse().ok()).unwrap_or(0);
            let attempted = register.attempted.load(Ordering::SeqCst);
            if value < acknowledged || value < seen || value > attempted {
                hand.violation(&format!(
                    "stale or invented: {value}, acknowledged before {acknowledged}, seen before {seen}, attempted {attempted}"
                ));
            }
            seen = value;
        }
        hand.rest(1, 6);
    }
}

impl Work for Counters {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let mut wrong = Vec::new();
        for (at, counter) in lock(&self.counters).iter().enumerate() {
            let reply = client.call(cmd!["GET", name(at)]);
            let value: i64 = reply.text().and_then(|text| text.parse().ok()).unwrap_or(0);
            let told = counter.told.len() as i64;
            if value < told || value > told + counter.unknown {
                wrong.push(format!(
                    "{} is {value}, {told} times acknowledged, {} unknown",
                    name(at),
                    counter.unknown
                ));
            }
        }
        named("counters", wrong)
    }
}
