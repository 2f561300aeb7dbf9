//! Keys that live for a short time: there until then, and not a moment longer.

use super::Work;
use crate::cmd;
use crate::harness::Client;
use crate::soak::hand::{Crew, Hand, Told};
use std::time::{Duration, Instant};

/// The nodes' clock and the sidecar's are one, and tick in ms.
const TICK: Duration = Duration::from_millis(5);

struct Expiring;

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    for at in 0..2 {
        crew.hire(&format!("expiring {at}"), move |mut hand| {
            for number in 0.. {
                if !hand.goes_on() {
                    return;
                }
                one(&mut hand, &format!("short-{at}-{}", number % 50), number);
            }
        });
    }
    Box::new(Expiring)
}

fn one(hand: &mut Hand, key: &str, value: i64) {
    let lives_ms = hand.rng.between(20, 400);
    let asked = Instant::now();
    let Some(Told::Done(reply)) = hand.call(&cmd!["SET", key, value, "PX", lives_ms]) else {
        hand.rest(1, 5);
        return;
    };
    if !reply.is_ok() {
        hand.violation(&format!("SET was answered {reply}"));
    }
    let lives = Duration::from_millis(lives_ms as u64);
    // Its time began between the two.
    let (first, last) = (asked + lives, Instant::now() + lives);
    for _ in 0..4 {
        hand.rest(1, 120);
        let sent = Instant::now();
        let Some(Told::Done(reply)) = hand.call(&cmd!["GET", key]) else {
            continue;
        };
        let is_there = reply.text() == Some(value.to_string());
        if !is_there && !reply.is_nil() {
            hand.violation(&format!("{key} is {reply} instead of {value}"));
        }
        if !is_there && Instant::now() + TICK < first {
            hand.violation(&format!("{key} is gone {:?} too early", first - Instant::now()));
        }
        if is_there && sent > last + TICK {
            hand.violation(&format!("{key} is there {:?} too long", sent - last));
        }
    }
}

impl Work for Expiring {
    fn finish(self: Box<Self>, _client: &mut Client) -> Vec<String> {
        Vec::new()
    }
}
