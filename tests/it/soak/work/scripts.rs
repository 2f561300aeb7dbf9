//! A script that moves tokens between lists: none is ever lost, and none is made but where a move between partitions was cut short.

use super::{Work, lock, named};
use crate::cmd;
use crate::harness::{Client, Reply};
use crate::soak::hand::{Crew, Hand, Told};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const TOKENS: usize = 20;
const LISTS: usize = 4;
const MOVE: &str =
    "local v = redis.call('RPOP', KEYS[1]); if v then redis.call('LPUSH', KEYS[2], v) end; return v";

struct Scripts {
    name: &'static str,
    unknown: Arc<Mutex<usize>>,
}

fn lists(name: &str) -> impl Iterator<Item = String> + Clone {
    (0..LISTS).map(move |at| format!("{name}:tokens-{at}"))
}

/// With a `{hash tag}` as `name` all lists are in one partition, without they are not.
pub(super) fn start(crew: &mut Crew, name: &'static str) -> Box<dyn Work> {
    let scripts = Scripts {
        name,
        unknown: Arc::default(),
    };
    let mut client = Client::connect(&crew.front.endpoint());
    for (token, list) in (0..TOKENS).zip(lists(name).cycle()) {
        assert!(client.call(cmd!["RPUSH", list, token]).int().is_some());
    }
    for at in 0..2 {
        let unknown = Arc::clone(&scripts.unknown);
        crew.hire(&format!("{name} mover {at}"), move |mut hand| {
            while hand.goes_on() {
                pass_on(&mut hand, name, &unknown);
                hand.rest(3, 15);
            }
        });
    }
    let unknown = Arc::clone(&scripts.unknown);
    crew.hire(&format!("{name} counter"), move |mut hand| {
        let ask: Vec<_> = lists(name).map(|list| cmd!["LRANGE", list, 0, -1]).collect();
        while hand.goes_on() {
            if let Some(Told::Done(reply)) = hand.transaction(&ask) {
                let lists = reply.items().into_iter();
                let tokens: Vec<Reply> = lists.flat_map(|list| list.items()).collect();
                for line in count(&tokens, *lock(&unknown), name) {
                    hand.violation(&line);
                }
            }
            hand.rest(3, 20);
        }
    });
    Box::new(scripts)
}

fn pass_on(hand: &mut Hand, name: &str, unknown: &Mutex<usize>) {
    let from = hand.rng.below(LISTS);
    let to = (from + hand.rng.between(1, LISTS as i64 - 1) as usize) % LISTS;
    let [from, to] = [from, to].map(|at| format!("{name}:tokens-{at}"));
    // Before anybody can see it.
    *lock(unknown) += 1;
    let told = hand.call(&cmd!["EVAL", MOVE, 2, from, to]);
    if !matches!(told, Some(Told::Unknown)) {
        *lock(unknown) -= 1;
    }
}

fn count(tokens: &[Reply], unknown: usize, name: &str) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for token in tokens {
        *counts.entry(token.text().unwrap_or_default()).or_default() += 1;
    }
    let missing: Vec<usize> = (0..TOKENS)
        .filter(|token| !counts.contains_key(&token.to_string()))
        .collect();
    let more: usize = counts.values().map(|count| count - 1).sum();
    let more_max = if name.starts_with('{') { 0 } else { unknown };
    let mut wrong = Vec::new();
    if !missing.is_empty() {
        wrong.push(format!("tokens {missing:?} are lost: {counts:?}"));
    }
    if more > more_max {
        wrong.push(format!(
            "{more} tokens more, {more_max} moves unknown: {counts:?}"
        ));
    }
    wrong
}

impl Work for Scripts {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let lists = lists(self.name).map(|list| client.call(cmd!["LRANGE", list, 0, -1]));
        let tokens: Vec<Reply> = lists.flat_map(|list| list.items()).collect();
        let unknown = *lock(&self.unknown);
        eprintln!("  {} scripts: {unknown} unknown", self.name);
        named(self.name, count(&tokens, unknown, self.name))
    }
}
