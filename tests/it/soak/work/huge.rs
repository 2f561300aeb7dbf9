//! A list of 100,000 elements that is pushed to and popped from all the time, while the storm wants it.

use super::Work;
use crate::cmd;
use crate::harness::Client;
use crate::soak::hand::{Crew, Hand, Told};
use std::sync::atomic::Ordering;

const LIST: &str = "huge";
const ELEMENTS: i64 = 100_000;
const CHUNK: i64 = 2_000;

struct Huge;

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    crew.hire("huge", |mut hand| {
        while hand.goes_on() {
            if hand.front.huge.load(Ordering::SeqCst) {
                work(&mut hand);
            }
            hand.rest(5, 20);
        }
    });
    Box::new(Huge)
}

/// Elements come out in the order in which they went in; after an unknown outcome that is not looked at any more.
fn work(hand: &mut Hand) {
    let mut next = 0;
    let mut is_unsure = false;
    while next < ELEMENTS && hand.goes_on() {
        let mut command = cmd!["RPUSH", LIST];
        command.extend((next..next + CHUNK).map(|at| at.to_string().into_bytes()));
        match hand.call(&command) {
            Some(Told::Done(_)) => next += CHUNK,
            Some(Told::Unknown) => is_unsure = true,
            _ => {}
        }
        hand.rest(1, 3);
    }
    let mut expected = 0;
    while hand.front.huge.load(Ordering::SeqCst) && hand.goes_on() {
        match hand.call(&cmd!["RPUSH", LIST, next]) {
            Some(Told::Done(_)) => next += 1,
            Some(Told::Unknown) => is_unsure = true,
            _ => {}
        }
        match hand.call(&cmd!["LPOP", LIST]) {
            Some(Told::Done(reply)) => {
                if !is_unsure && reply.text() != Some(expected.to_string()) {
                    hand.violation(&format!("LPOP {LIST} gave {reply} instead of {expected}"));
                }
                expected += 1;
            }
            Some(Told::Unknown) => is_unsure = true,
            _ => {}
        }
        hand.rest(1, 4);
    }
    while hand.goes_on() && !matches!(hand.call(&cmd!["DEL", LIST]), Some(Told::Done(_))) {}
}

impl Work for Huge {
    fn finish(self: Box<Self>, _client: &mut Client) -> Vec<String> {
        Vec::new()
    }
}
