//! Commands that wait for data, on the pool and on one plain Redis side by side.

use crate::cmd;
use crate::harness::{Client, wait_until};
use crate::side_by_side::{Both, Pair};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until `count` clients of each side wait.
fn until_blocked(pair: &mut Pair, count: i64) {
    for client in [&mut pair.subject, &mut pair.reference] {
        wait_until("clients wait", PATIENCE, || blocked_clients(client) == count);
    }
}

pub fn blocked_clients(client: &mut Client) -> i64 {
    let info = client.call(cmd!["INFO", "clients"]).text().unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("blocked_clients:"));
    line.unwrap().trim().parse().unwrap()
}

/// A client waits with `command`; another one runs `lines`; the first is answered as by Redis.
#[track_caller]
fn woken(both: &Both, before: &str, command: &str, lines: &str) {
    for protocol in ["HELLO 2", "HELLO 3"] {
        let (mut waiter, mut other) = (both.client(), both.client());
        waiter.send(protocol);
        waiter.subject.recv().unwrap();
        waiter.reference.recv().unwrap();
        other.run(&before.replace(';', "\n"));
        waiter.send(command);
        until_blocked(&mut other, 1);
        other.run(&lines.replace(';', "\n"));
        waiter.receive(&format!("{command} after {lines}"));
        other.run("LRANGE l 0 -1\nLRANGE m 0 -1\nFLUSHALL");
    }
}

#[test]
fn every_way_in_which_something_comes() {
    Both::each(|both| {
        for command in [
            "BLPOP l 0",
            "BRPOP other l another 0",
            "BLMOVE l m LEFT RIGHT 0",
            "BRPOPLPUSH l m 0",
            "BLMPOP 0 2 other l LEFT COUNT 2",
        ] {
            for lines in [
                "RPUSH l a b c",
                "LPUSH l a",
                "MULTI;RPUSH l a;RPUSH l b;EXEC",
                "RPUSH m x;LMOVE m l LEFT LEFT",
                "RPUSH m x y;RENAME m l",
                "RPUSH m x y;COPY m l",
                "EVAL redis.call('RPUSH',KEYS[1],'a','b') 1 l",
                "RPUSH m 3 1 2;SORT m STORE l",
                "SET l wrong;DEL l;RPUSH l a",
                "SADD l wrong;DEL l;RPUSH l a",
                "RPUSHX l a;LPUSH l b",
                "SELECT 1;RPUSH l elsewhere;SELECT 0;RPUSH l here",
                "SELECT 1;RPUSH l there;COPY l l DB 0;SELECT 0",
            ] {
                woken(both, "PING", command, lines);
            }
        }
        for command in [
            "BZPOPMIN z 0",
            "BZPOPMAX other z 0",
            "BZMPOP 0 2 other z MIN COUNT 2",
        ] {
            for lines in [
                "ZADD z 1 a 2 b",
                "ZINCRBY z 1 a",
                "ZADD y 1 a;ZUNIONSTORE z 1 y",
                "ZADD y 1 a;ZRANGESTORE z y 0 -1",
                "ZADD y 1 a;RENAME y z",
            ] {
                woken(both, "PING", command, lines);
            }
        }
        for (before, command, lines) in [
            ("XADD s 1-1 f v", "XREAD BLOCK 0 STREAMS s $", "XADD s 2-1 f v"),
            (
                "XADD s 1-1 f v",
                "XREAD COUNT 5 BLOCK 0 STREAMS other s $ 1-1",
                "XADD s 2-1 f v",
            ),
            ("PING", "XREAD BLOCK 0 STREAMS s t 0 0", "XADD t 2-1 f v"),
            ("PING", "XREAD BLOCK 0 STREAMS s $", "XADD s 1-1 f v"),
            (
                "XGROUP CREATE s g $ MKSTREAM",
                "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
                "XADD s 2-1 f v",
            ),
            (
                "XGROUP CREATE s g $ MKSTREAM",
                "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
                "MULTI;XADD s 2-1 f v;XADD s 3-1 f v;EXEC",
            ),
            (
                "XGROUP CREATE s g $ MKSTREAM;XGROUP CREATE t g $ MKSTREAM",
                "XREADGROUP GROUP g c BLOCK 0 STREAMS t s > >",
                "XADD s 2-1 f v",
            ),
        ] {
            woken(both, before, command, lines);
        }
        both.assert_converged();
    });
}

#[test]
fn what_is_there_is_taken_at_once() {
    Both::each(|both| both.client().run(AT_ONCE));
}

const AT_ONCE: &str = "RPUSH a 1 2 3
        RPUSH b 4 5 6
        BLPOP b a 0
        BRPOP nothing a b 0
        BLMOVE a b LEFT RIGHT 0
        BLMOVE b c LEFT RIGHT 0
        BLMPOP 0 2 a b LEFT COUNT 5
        BLMPOP 0 2 a b LEFT COUNT 5
        ZADD z 1 a 2 b 3 c
        BZPOPMIN nothing z 0
        BZPOPMAX z 0
        BZMPOP 0 2 nothing z MAX COUNT 3
        SET string v
        BLPOP string 0
        BLPOP nothing string 0
        BLMOVE c string LEFT LEFT 0
        BLPOP c nonsense
        BLPOP c -1
        BLPOP c 1e100
        BLMPOP 0 0 c LEFT
        BLMPOP 0 1 c UP
        XREAD BLOCK -1 STREAMS s 0
        XREAD BLOCK x STREAMS s 0
        XREADGROUP GROUP g c BLOCK 0 STREAMS s >
        BLPOP nothing 0.01
        BLMOVE nothing c LEFT LEFT 0.01
        BRPOPLPUSH nothing c 0.01
        BLMPOP 0.01 1 nothing LEFT
        BZPOPMIN nothing 0.01
        XREAD BLOCK 10 STREAMS s 0
        XREAD BLOCK 10 STREAMS s t 0 0
        ";

/// Timeouts: fractions of a second, in both protocols, also over several partitions.
#[test]
fn waiting_ends_at_its_time() {
    Both::each(ends_at_its_time);
}

fn ends_at_its_time(both: &Both) {
    for protocol in ["HELLO 2", "HELLO 3"] {
        for command in [
            "BLPOP a 0.2",
            "BRPOP a b c d 0.2",
            "BLMOVE a b LEFT LEFT 0.2",
            "BLMPOP 0.2 2 a b LEFT",
            "BZPOPMIN a 0.2",
            "XREAD BLOCK 200 STREAMS a b 0 0",
        ] {
            let mut client = both.client();
            client.send(protocol);
            client.subject.recv().unwrap();
            client.reference.recv().unwrap();
            let start = Instant::now();
            client.line(command);
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(400), "{command}: both in {took:?}");
            assert!(took < Duration::from_secs(2), "{command}: both in {took:?}");
        }
    }
}

/// Elements go to those who wait in the order in which they came, whoever brings them and however.
#[test]
fn first_come_first_served() {
    Both::each(|both| {
        for (keys, bring) in [
            ("l", "RPUSH l 1 2 3 4"),
            ("l", "EVAL redis.call('RPUSH',KEYS[1],1,2,3,4) 1 l"),
            ("l other", "RPUSH l 1 2 3 4"),
            ("other l", "MULTI\nRPUSH l 1 2\nRPUSH l 3 4\nEXEC"),
            ("l", "RPUSH m 1 2 3 4\nRENAME m l"),
        ] {
            let mut other = both.client();
            let mut waiters: Vec<Pair> = Vec::new();
            for at in 0..5 {
                let mut waiter = both.client();
                waiter.send(&format!("BLPOP {keys} 0"));
                until_blocked(&mut other, at + 1);
                waiters.push(waiter);
            }
            other.run(bring);
            // Nobody who comes now gets anything.
            other.run("LPOP l");
            for (at, waiter) in waiters.iter_mut().take(4).enumerate() {
                waiter.receive(&format!("waiter {at} after {bring}"));
            }
            other.run("RPUSH l last");
            waiters[4].receive("the last one");
            other.run("EXISTS l\nFLUSHALL");
        }
    });
}

/// What one who waits moves serves the next one, who waits where it goes.
#[test]
fn what_is_moved_goes_on() {
    Both::each(|both| {
        for (l, m) in [("{t}l", "{t}m"), ("l", "m")] {
            for command in ["BLMOVE FROM TO LEFT RIGHT 0", "BRPOPLPUSH FROM TO 0"] {
                let (mut mover, mut taker, mut other) = (both.client(), both.client(), both.client());
                taker.send(&format!("BLPOP {m} 0"));
                until_blocked(&mut other, 1);
                mover.send(&command.replace("FROM", l).replace("TO", m));
                until_blocked(&mut other, 2);
                other.run(&format!("RPUSH {l} a"));
                mover.receive(command);
                taker.receive(&format!("BLPOP behind {command}"));
                other.run("FLUSHALL");
            }
        }
    });
}

/// Those who wait to move to each other's keys do not wake each other while there is nothing; what comes goes round once.
#[test]
fn moves_to_each_others_keys_wait() {
    Both::each(|both| {
        for (l, m) in [("{t}l", "{t}m"), ("l", "m")] {
            for command in ["BLMOVE FROM TO LEFT RIGHT 0", "BRPOPLPUSH FROM TO 0"] {
                let hop = |from, to| command.replace("FROM", from).replace("TO", to);
                let commands = [hop(l, m), hop(m, l), format!("BLPOP {l} 0")];
                let mut other = both.client();
                let mut waiters: Vec<Pair> = Vec::new();
                for (at, command) in (1..).zip(&commands) {
                    let mut waiter = both.client();
                    waiter.send(command);
                    until_blocked(&mut other, at);
                    waiters.push(waiter);
                }
                for _ in 0..50 {
                    assert_eq!(blocked_clients(&mut other.subject), 3, "somebody tries in vain");
                }
                other.run(&format!("RPUSH {l} a"));
                for (waiter, command) in waiters.iter_mut().zip(&commands) {
                    waiter.receive(command);
                }
                other.run(&format!("EXISTS {l} {m}"));
            }
        }
    });
}

/// A client that waits and goes takes nothing with it.
#[test]
fn nothing_is_taken_for_a_client_that_has_gone() {
    Both::each(nothing_is_taken_for_one_that_has_gone);
}

fn nothing_is_taken_for_one_that_has_gone(both: &Both) {
    let mut other = both.sidecar.client();
    for _ in 0..15 {
        for command in [
            cmd!["BLPOP", "l", 0],
            cmd!["BRPOP", "m", "l", 0],
            cmd!["BLMPOP", 0, 2, "m", "l", "RIGHT", "COUNT", 2],
        ] {
            let mut waiter = both.sidecar.client();
            waiter.send_raw(&crate::harness::encode(&command)).unwrap();
            wait_until("it waits", PATIENCE, || blocked_clients(&mut other) == 1);
            drop(waiter);
            other.call(cmd!["RPUSH", "l", "a", "b"]);
            wait_until("nobody waits", PATIENCE, || blocked_clients(&mut other) == 0);
            wait_until("it is there", PATIENCE, || {
                other.call(cmd!["LLEN", "l"]).int() == Some(2)
            });
            let all = other.call(cmd!["LRANGE", "l", 0, -1]).items();
            assert_eq!(
                all.iter().filter_map(|e| e.text()).collect::<Vec<_>>(),
                ["a", "b"]
            );
            other.call(cmd!["DEL", "l"]);
        }
    }
}

/// Commands behind one that waits are executed after it, and what a client asks before it goes is not lost.
#[test]
fn a_pipeline_waits_too() {
    Both::each(one_pipeline_waits_too);
}

fn one_pipeline_waits_too(both: &Both) {
    let (mut waiter, mut other) = (both.client(), both.client());
    waiter.send("BLPOP l 0");
    waiter.send("RPUSH done 1");
    waiter.send("GET nothing");
    until_blocked(&mut other, 1);
    other.run("EXISTS done\nRPUSH l x");
    for what in ["BLPOP", "RPUSH", "GET"] {
        waiter.receive(what);
    }
}

/// Many producers, many consumers at overlapping sets of keys: every element arrives once.
#[test]
fn every_element_goes_to_exactly_one() {
    Both::each(|both| {
        const EACH: usize = 400;
        let got = AtomicUsize::new(0);
        let all: BTreeSet<String> = std::thread::scope(|scope| {
            for producer in 0..4 {
                scope.spawn(move || {
                    let mut client = both.sidecar.client();
                    for at in 0..EACH {
                        let key = format!("q{}", (producer + at) % 3);
                        client.call(cmd!["LPUSH", key, format!("{producer}-{at}")]);
                    }
                });
            }
            let consumers: Vec<_> = (0..8)
                .map(|consumer| {
                    let got = &got;
                    scope.spawn(move || {
                        let mut client = both.sidecar.client();
                        let mut mine = Vec::new();
                        let keys = [["q0", "q1", "q2"], ["q2", "q1", "q0"], ["q1", "q0", "q2"]][consumer % 3];
                        while got.load(Ordering::Relaxed) < 4 * EACH {
                            let reply = match consumer {
                                0 => client.call(cmd!["BLMOVE", keys[0], "moved", "RIGHT", "LEFT", "0.05"]),
                                _ => client.call(cmd!["BRPOP", keys[0], keys[1], keys[2], "0.05"]),
                            };
                            let element = match consumer {
                                0 => reply.text(),
                                _ => reply.items().get(1).and_then(|e| e.text()),
                            };
                            if let Some(element) = element {
                                got.fetch_add(1, Ordering::Relaxed);
                                mine.push(element);
                            }
                        }
                        mine
                    })
                })
                .collect();
            consumers.into_iter().flat_map(|c| c.join().unwrap()).collect()
        });
        assert_eq!((got.into_inner(), all.len()), (4 * EACH, 4 * EACH));
        both.assert_converged();
    });
}

/// Clients that take, wait, and take again, while others bring more than they take: nobody waits beside what is there.
#[test]
fn nobody_waits_while_something_is_there() {
    for threads in [1, 2] {
        let both = Both::start(threads);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let mut client = both.sidecar.client();
                    for at in 0..300 {
                        client.call(cmd!["RPUSH", "l", at]);
                    }
                });
                scope.spawn(|| {
                    let mut client = both.sidecar.client();
                    for _ in 0..300 {
                        let start = Instant::now();
                        let reply = client.call(cmd!["BLPOP", "l", 10]);
                        assert!(!reply.is_nil(), "nothing in {:?}", start.elapsed());
                    }
                });
            }
        });
        assert_eq!(both.sidecar.client().call(cmd!["LLEN", "l"]).int(), Some(0));
    }
}
