//! A striped queue gives the replies of one that is not: random programs, side by side with one plain server. Ranks are told apart: what
//! a rank is good for, the page behind it, must be the same.

use super::*;
use crate::harness::{Node, NodeOptions, Reply};

struct Both {
    striped: Driver,
    plain: Driver,
    story: Vec<String>,
}

impl Both {
    /// Has both do the same: their reply.
    #[track_caller]
    fn same(&mut self, what: String, act: impl Fn(&mut Driver) -> Reply) -> Reply {
        let (one, other) = (act(&mut self.striped), act(&mut self.plain));
        self.story.push(what);
        assert_eq!(
            one,
            other,
            "SEED={}: the last is answered otherwise (striped, plain)\n{}",
            seed(),
            self.story.join("\n")
        );
        one
    }

    fn call(&mut self, command: Vec<Vec<u8>>) -> Reply {
        let words: Vec<String> = command
            .iter()
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect();
        self.same(words.join(" "), |driver| driver.client.call(command.clone()))
    }
}

fn program(both: &mut Both, rng: &mut Rng, steps: usize) {
    let mut all: Vec<String> = vec![new_id(rng)];
    for _ in 0..steps {
        let queue = *rng.pick(&["p.q", "p.q", "p.r"]);
        let index = format!("{queue}.messages");
        let id = rng.pick(&all).clone();
        let from = rng.between(-12, 30);
        let to = rng.between(-12, 30);
        match rng.below(17) {
            0..=3 => {
                let count = 1 + rng.below(4);
                let some = new_ids(rng, count);
                all.extend(some.clone());
                both.same(format!("post {queue} {some:?}"), |driver| {
                    driver.post(queue, &some, LONG_MS)
                });
            }
            4 | 5 => drop(both.call(cmd!["ZRANGE", index, from, to])),
            6 => drop(both.call(cmd!["ZREVRANGE", index, from, to, "WITHSCORES"])),
            7 => drop(both.call(cmd!["ZRANGE", index, from, to, "REV"])),
            8 => drop(both.call(cmd!["ZRANGE", index, 0, -1, "WITHSCORES"])),
            9 => drop(both.call(cmd!["ZCARD", index])),
            10 => drop(both.call(cmd!["ZSCORE", index, id])),
            11 => drop(both.call(cmd!["ZREM", index, id, "nobody"])),
            12 => drop(both.same(format!("delete {queue} {id}"), |driver| driver.delete(queue, &id))),
            13 => {
                let (limit, claim) = (1 + rng.below(5), new_id(rng));
                both.same(format!("claim {queue} {limit}"), |driver| {
                    driver.claim(queue, limit, &claim)
                });
            }
            14 => drop(both.call(cmd!["HGETALL", id])),
            15 => {
                // The page behind a message: on the plain server the rank of the first one is taken for none.
                let there = both.call(cmd!["ZSCORE", index, id]);
                let first = both.call(cmd!["ZRANGE", index, 0, 0]);
                if !there.is_nil() && first.items()[0].text().as_ref() != Some(&id) {
                    let page = |driver: &mut Driver| {
                        let page = driver.page(queue, Some(&id), 3);
                        Reply::Array(page.into_iter().map(Reply::bulk).collect())
                    };
                    both.same(format!("page of {queue} behind {id}"), page);
                }
            }
            _ => {
                let reply = both.call(cmd!["GET", format!("{queue}.rank_counter")]);
                assert_eq!(reply.error(), None);
                both.call(cmd!["EXISTS", index]);
                both.call(cmd!["ZCOUNT", index, "-inf", "+inf"]);
                if rng.chance(10) {
                    both.call(cmd!["DEL", index]);
                }
            }
        }
    }
}

#[test]
fn a_striped_queue_answers_as_one_that_is_not() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    for (nodes, replicas, threads, resp3) in [(3, 3, 1, false), (4, 2, 2, true), (2, 1, 1, true)] {
        let pool = Pool::start(nodes);
        let sidecar = Sidecar::start(&striped(&pool, replicas, 4).threads(threads).patient());
        let plain = Node::start("plain", NodeOptions::default());
        let mut both = Both {
            striped: Driver::connect(&sidecar.endpoint()),
            plain: Driver::connect(&plain.endpoint()),
            story: Vec::new(),
        };
        if resp3 {
            for driver in [&mut both.striped, &mut both.plain] {
                assert_eq!(driver.client.call(cmd!["HELLO", 3]).error(), None);
            }
        }
        program(&mut both, &mut rng, 400);
        assert_converged(&pool, &sidecar);
    }
}
