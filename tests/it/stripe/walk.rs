//! A walk over a queue, page by page, while others post, claim and delete, messages expire, segments roll, a node dies and another one
//! comes: no message that was there throughout is missed, and none is told twice. The same walk on one plain server, with the same
//! driver and without any fault, does both.

use super::*;
use crate::faults::RECOVERY_MAX;
use crate::harness::{Client, Endpoint, Node, NodeOptions};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PAGE: i64 = 7;
const MESSAGES: usize = 600;

/// What a walk has seen.
#[derive(Debug)]
struct Walked {
    pages: usize,
    /// Messages that were there throughout, and that it went past.
    passed_over: usize,
    /// Those of them that it has not seen at all.
    missed: usize,
    repeated: usize,
    in_order: bool,
}

/// Posts, claims and deletes until it is told to end.
fn keep_busy(to: &Endpoint, mut rng: Rng, over: &AtomicBool) {
    let mut driver = Driver::connect(to);
    let mut own: Vec<String> = Vec::new();
    while !over.load(Relaxed) {
        let some = new_ids(&mut rng, 3);
        assert!(driver.post(QUEUE, &some, LONG_MS).is_ok());
        own.extend(some);
        if own.len() > 30 {
            for id in own.drain(..10) {
                driver.delete(QUEUE, &id);
            }
        }
        ids(&driver.claim(QUEUE, 2, &new_id(&mut rng)));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What happens to the messages that pages end with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// They stay.
    Stay,
    /// They are deleted, or expire, like any other.
    Go,
}

/// Walks over a queue that others work on. `harm` is told of each page.
fn walk(to: &Endpoint, rng: &mut Rng, ends: Ends, mut harm: impl FnMut(usize)) -> Walked {
    let mut driver = Driver::connect(to);
    let mut other = Driver::connect(to);
    // Of five messages one is deleted while the walk goes on, and one expires.
    let all = new_ids(rng, MESSAGES);
    for (n, id) in all.iter().enumerate() {
        let ttl_ms = if n % 5 == 1 && ends == Ends::Go {
            100 + 4 * n as u64
        } else {
            LONG_MS
        };
        assert!(driver.post(QUEUE, std::slice::from_ref(id), ttl_ms).is_ok());
    }
    let there = all.iter().enumerate().filter(|(n, _)| !matches!(n % 5, 1 | 3));
    let there: Vec<&String> = there.map(|(_, id)| id).collect();
    let mut doomed: Vec<&String> = all.iter().skip(3).step_by(5).rev().collect();
    let over = AtomicBool::new(false);
    let mut seen: Vec<String> = Vec::new();
    let mut pages = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let rng = Rng::new(rng.next());
                scope.spawn(|| keep_busy(to, rng, &over))
            })
            .collect();
        let oldest: HashSet<&String> = all.iter().collect();
        loop {
            let behind = seen.last().cloned();
            // What others delete between the two questions of a page moves everything behind it, on one server.
            let page = driver.page_with(QUEUE, behind.as_deref(), PAGE, || {
                doomed.retain(|id| ends == Ends::Go || Some(*id) != behind.as_ref());
                if let Some(id) = doomed.pop() {
                    other.delete(QUEUE, id);
                }
            });
            let is_over = !page.iter().any(|id| oldest.contains(id)) || pages > 3 * MESSAGES / PAGE as usize;
            seen.extend(page);
            pages += 1;
            harm(pages);
            if is_over {
                break;
            }
            // The last one of the page may go as well.
            if let Some(last) = seen.last()
                && ends == Ends::Go
                && doomed.contains(&last)
            {
                doomed.retain(|id| *id != last);
                other.delete(QUEUE, last);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Relaxed);
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let distinct: HashSet<&String> = seen.iter().collect();
    let place_of: HashMap<&String, usize> = all.iter().enumerate().map(|(n, id)| (id, n)).collect();
    let is_there = |n: &usize| !matches!(n % 5, 1 | 3);
    let places: Vec<usize> = seen.iter().filter_map(|id| place_of.get(id).copied()).collect();
    let steps = places.windows(2).map(|step| step[0] + 1..step[1]);
    let passed_over: HashSet<usize> = steps.flatten().filter(is_there).collect();
    let order: Vec<&String> = seen.iter().filter(|id| there.contains(id)).collect();
    Walked {
        pages,
        passed_over: passed_over.len(),
        missed: there.iter().filter(|id| !distinct.contains(*id)).count(),
        repeated: seen.len() - distinct.len(),
        in_order: order == there,
    }
}

#[test]
fn a_walk_misses_nothing_and_repeats_nothing() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let plain = Node::start("plain", NodeOptions::default());
    let calm = walk(&plain.endpoint(), &mut rng, Ends::Stay, |_| {});
    println!("one plain server, where the ends of pages stay: {calm:?}");
    assert!(calm.passed_over > 0, "the driver alone would do: {calm:?}");
    assert!(plain.client().call(cmd!["FLUSHALL"]).is_ok());
    let wild = walk(&plain.endpoint(), &mut rng, Ends::Go, |_| {});
    println!("one plain server, where they go: {wild:?}");
    assert!(wild.repeated > 0, "the driver alone would do: {wild:?}");

    let mut pool = Pool::start(4);
    let sidecar = Sidecar::start(&striped(&pool, 3, 20).threads(2));
    sidecar.allow_log("node");
    // What had not expired yet has on a node that is late: it is given a copy.
    sidecar.allow_log("answered otherwise");
    pool.start_another();
    let harm = |page: usize| match page {
        20 => pool.nodes[0].kill9(),
        35 => pool.nodes[0].restart(),
        45 => {
            let new = pool.nodes.last().unwrap();
            let body = json!({"name": new.name, "address": new.endpoint().to_string()});
            let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
            assert_eq!(status, 200, "{answer}");
        }
        _ => {}
    };
    let striped = walk(&sidecar.endpoint(), &mut rng, Ends::Go, harm);
    println!("striped over nodes: {striped:?}");
    let Walked {
        pages,
        passed_over,
        missed,
        repeated,
        in_order,
    } = striped;
    assert!(pages > 60, "SEED={seed}: over before all had happened");
    assert_eq!(
        (passed_over, missed, repeated, in_order),
        (0, 0, 0, true),
        "SEED={seed}"
    );
    assert!(segments(&sidecar) > 20);
    sidecar.wait_settled(2 * RECOVERY_MAX);
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    // A script may have found a message on one node that had just expired on another (README, "What it does not guarantee").
    let (status, answer) = sidecar.ask("POST", "/v1/verify", &json!({}));
    assert_eq!(status, 200, "{answer}");
    wait_until("all copies are compared", RECOVERY_MAX, || {
        sidecar.admin("/v1/verify")["state"] == "done"
    });
    assert_converged(&pool, &sidecar);
}

/// Adds entries, and deletes some of those that it has added, until it is told to end.
fn keep_adding(to: &Endpoint, mut rng: Rng, over: &AtomicBool) {
    let mut client = Client::connect(to);
    let mut own: Vec<String> = Vec::new();
    while !over.load(Relaxed) {
        let id = client.call(cmd!["XADD", STREAM, "*", "late", rng.next()]);
        own.push(id.text().unwrap_or_else(|| panic!("{id}")));
        if own.len() > 20 {
            let gone = own.swap_remove(rng.below(own.len()));
            assert_eq!(client.call(cmd!["XDEL", STREAM, gone]).int(), Some(1));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

const STREAM: &str = "stream:walked";

/// A stream from its beginning by `XRANGE` and from its end by `XREVRANGE`, while others add and delete: its ids are its markers.
#[test]
fn a_walk_over_a_stream_misses_nothing_and_repeats_nothing() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let mut pool = Pool::start(4);
    let sidecar = Sidecar::start(&super::streams::streams(&pool, 3, 20).threads(2));
    sidecar.allow_log("node");
    pool.start_another();
    let mut client = sidecar.client();
    let added = (0..MESSAGES).map(|n| client.call(cmd!["XADD", STREAM, "*", "n", n]).text().unwrap());
    let all: Vec<String> = added.collect();
    let stays = |n: &usize| n % 5 != 3;
    let there: Vec<&String> = all
        .iter()
        .enumerate()
        .filter(|(n, _)| stays(n))
        .map(|(_, id)| id)
        .collect();
    let mut doomed: Vec<&String> = all.iter().skip(3).step_by(5).collect();
    let over = AtomicBool::new(false);
    let (mut forwards, mut backwards): (Vec<String>, Vec<String>) = Default::default();
    let mut reader = sidecar.client();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let rng = Rng::new(rng.next());
            let endpoint = sidecar.endpoint();
            let over = &over;
            scope.spawn(move || keep_adding(&endpoint, rng, over));
        }
        // Far more than there are: a walk that does not end has missed something.
        for page in 1..1_000 {
            let mut read = |way: &str, seen: &mut Vec<String>, end: &str, last: &str| {
                let behind = seen.last().map_or(end.to_owned(), |id| format!("({id}"));
                let page = reader.call(cmd![way, STREAM, behind, last, "COUNT", PAGE]);
                let page: Vec<String> = page
                    .items()
                    .iter()
                    .map(|entry| entry.items()[0].text().unwrap())
                    .collect();
                seen.extend(page.iter().cloned());
                page.len()
            };
            read("XRANGE", &mut forwards, "-", "+");
            let left = read("XREVRANGE", &mut backwards, &all[MESSAGES - 1], "-");
            let (last, has_all) = (forwards.last().unwrap(), forwards.contains(&all[MESSAGES - 1]));
            if left == 0 && has_all {
                assert!(page > 60, "SEED={seed}: over before all had happened");
                break;
            }
            // What a page ends with, and something anywhere.
            let at = doomed
                .iter()
                .position(|id| *id == last)
                .unwrap_or(rng.below(doomed.len().max(1)));
            if at < doomed.len() {
                assert_eq!(
                    client.call(cmd!["XDEL", STREAM, doomed.swap_remove(at)]).int(),
                    Some(1)
                );
            }
            match page {
                15 => pool.nodes[0].kill9(),
                30 => pool.nodes[0].restart(),
                40 => {
                    let new = pool.nodes.last().unwrap();
                    let body = json!({"name": new.name, "address": new.endpoint().to_string()});
                    let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
                    assert_eq!(status, 200, "{answer}");
                }
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Relaxed);
    });
    backwards.reverse();
    for (way, seen) in [("forwards", &forwards), ("backwards", &backwards)] {
        let distinct: HashSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "SEED={seed}: repeated {way}");
        let order: Vec<&String> = seen.iter().filter(|id| there.contains(id)).collect();
        assert_eq!(order, there, "SEED={seed}: missed or out of order {way}");
    }
    println!(
        "{} entries forwards, {} backwards",
        forwards.len(),
        backwards.len()
    );
    assert!(segments_of(&sidecar, STREAM) > 20);
    sidecar.wait_settled(2 * RECOVERY_MAX);
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &sidecar);
}
