//! Readers that walk a sorted set and a list page by page, while others add and remove elements: none that was there all the time is
//! missed, and all come in order.

use super::{Work, named};
use crate::cmd;
use crate::harness::{Client, Reply};
use crate::soak::hand::{Crew, Hand, Told};

const STAYING: i64 = 400;
/// Scores of what stays are this far apart; what comes and goes is in between.
const STEP: i64 = 10;
const PAGE: i64 = 37;

struct Pages;

pub(super) fn start(crew: &mut Crew) -> Box<dyn Work> {
    let mut client = Client::connect(&crew.front.endpoint());
    for at in 0..STAYING {
        let score = at * STEP;
        let added = client.call(cmd!["ZADD", "pages", score, format!("stays-{score}")]);
        assert!(added.int() == Some(1), "{added}");
        assert!(client.call(cmd!["RPUSH", "page-list", at]).int() == Some(at + 1));
    }
    crew.hire("pages writer", |mut hand| {
        while hand.goes_on() {
            let score = hand.rng.between(0, STAYING * STEP);
            let score = score - score % STEP + hand.rng.between(1, STEP - 1);
            let comes = hand.rng.chance(50);
            let name = format!("comes-{score}");
            if comes {
                hand.call(&cmd!["ZADD", "pages", score, name]);
                hand.call(&cmd!["RPUSH", "page-list", -1]);
            } else {
                hand.call(&cmd!["ZREM", "pages", name]);
                // What stays is in front, and is never at the end.
                pop_one_of_those(&mut hand);
            }
            hand.rest(2, 10);
        }
    });
    crew.hire("pages reader", |mut hand| {
        while hand.goes_on() {
            walk_set(&mut hand);
            walk_list(&mut hand);
        }
    });
    Box::new(Pages)
}

fn pop_one_of_those(hand: &mut Hand) {
    hand.call(&cmd!["LREM", "page-list", -1, -1]);
}

fn walk_set(hand: &mut Hand) {
    let mut from = "-inf".to_owned();
    let mut next = 0;
    let mut last = f64::NEG_INFINITY;
    while hand.goes_on() {
        let command = cmd![
            "ZRANGEBYSCORE",
            "pages",
            from,
            "+inf",
            "WITHSCORES",
            "LIMIT",
            0,
            PAGE
        ];
        hand.rest(1, 6);
        let reply = match hand.call(&command) {
            Some(Told::Done(reply)) => reply,
            Some(_) => continue,
            None => return,
        };
        let items = reply.items();
        if items.is_empty() {
            if next != STAYING * STEP {
                hand.violation(&format!("a walk ended before stays-{next}"));
            }
            return;
        }
        for pair in items.chunks(2) {
            let (name, score) = (pair[0].text().unwrap_or_default(), number(&pair[1]));
            if score <= last {
                hand.violation(&format!("{name} ({score}) came after {last}"));
            }
            last = score;
            if name.starts_with("stays") {
                if name != format!("stays-{next}") {
                    hand.violation(&format!("{name} came where stays-{next} was to come"));
                }
                next = score as i64 + STEP;
            }
        }
        from = format!("({last}");
    }
}

fn number(reply: &Reply) -> f64 {
    reply
        .text()
        .and_then(|text| text.parse().ok())
        .unwrap_or(f64::NAN)
}

fn walk_list(hand: &mut Hand) {
    let mut at = 0;
    while at < STAYING && hand.goes_on() {
        hand.rest(1, 6);
        let reply = match hand.call(&cmd!["LRANGE", "page-list", at, at + PAGE - 1]) {
            Some(Told::Done(reply)) => reply,
            Some(_) => continue,
            None => return,
        };
        for (expected, item) in (at..STAYING).zip(reply.items()) {
            if item.text() != Some(expected.to_string()) {
                hand.violation(&format!("element {expected} of the list is {item}"));
            }
        }
        let got = reply.items().len() as i64;
        if got == 0 {
            hand.violation(&format!("the list ended at {at}"));
        }
        at += got.max(1);
    }
}

impl Work for Pages {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let mut wrong = Vec::new();
        for at in 0..STAYING {
            let score = client.call(cmd!["ZSCORE", "pages", format!("stays-{}", at * STEP)]);
            if score.is_nil() {
                wrong.push(format!("stays-{} is gone", at * STEP));
            }
        }
        named("pages", wrong)
    }
}
