//! Queues that are spread over nodes, with a driver that knows nothing of it.

mod crashes;
mod driver;
mod lists;
mod same;
mod scatter;
mod streams;
mod walk;

use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Pool, Rng, Sidecar, SidecarConfig, seed, wait_until};
use driver::{Driver, ids, new_id};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const QUEUE: &str = "p.q";
const INDEX: &str = "p.q.messages";
const LONG_MS: u64 = 3_600_000;

fn striped(pool: &Pool, replicas: usize, segment_len: usize) -> SidecarConfig {
    SidecarConfig::of(pool, replicas)
        .with("pool", "profile = \"zaqar\"")
        .with("pool", &format!("segment_len = {segment_len}"))
}

fn new_ids(rng: &mut Rng, count: usize) -> Vec<String> {
    (0..count).map(|_| new_id(rng)).collect()
}

/// How many segments the queue has.
fn segments(sidecar: &Sidecar) -> usize {
    segments_of(sidecar, INDEX)
}

fn segments_of(sidecar: &Sidecar, key: &str) -> usize {
    let queues = sidecar.admin("/v1/queues");
    let queue = queues
        .as_array()
        .unwrap()
        .iter()
        .find(|queue| queue["key"] == key);
    queue.map_or(0, |queue| queue["segments"].as_array().unwrap().len())
}

/// All is found again: by a sidecar that starts anew after a kill, and without the messages that had been deleted.
#[test]
fn a_new_sidecar_finds_everything() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&striped(&pool, 2, 5).threads(2));
    let mut driver = Driver::connect(&sidecar.endpoint());
    let mut all = Vec::new();
    for _ in 0..15 {
        let some = new_ids(&mut rng, 2);
        assert!(driver.post(QUEUE, &some, LONG_MS).is_ok());
        all.extend(some);
    }
    for id in all.drain(..12) {
        assert_eq!(driver.delete(QUEUE, &id).items().len(), 2);
    }
    sidecar.kill9();
    sidecar.restart();
    let mut driver = Driver::connect(&sidecar.endpoint());
    // An id that nobody has seen yet is looked for.
    assert_eq!(driver.bodies(&all[3..5]), all[3..5]);
    assert_eq!(driver.page(QUEUE, Some(&all[4]), 4), all[5..9]);
    assert_eq!(driver.page(QUEUE, None, 100), all);
    assert_eq!(ids(&driver.claim(QUEUE, 7, &new_id(&mut rng))), all[..7]);
    let more = new_ids(&mut rng, 3);
    assert!(driver.post(QUEUE, &more, LONG_MS).is_ok());
    all.extend(more);
    assert_eq!(driver.page(QUEUE, None, 100), all);
    assert_eq!(
        driver.client.call(cmd!["ZCARD", INDEX]).int(),
        Some(all.len() as i64)
    );
    assert_converged(&pool, &sidecar);
}

/// What nodes call a message, each for itself.
fn names_on_nodes(pool: &Pool, id: &str) -> Vec<String> {
    let names = |node: &crate::harness::Node| ids(&node.client().call(cmd!["KEYS", format!("*{id}")]));
    pool.nodes.iter().flat_map(names).collect()
}

/// A message that is put into another queue (a dead letter) is there whole, and no more where it was.
#[test]
fn a_message_moves_to_another_queue() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&striped(&pool, 2, 3));
    let mut driver = Driver::connect(&sidecar.endpoint());
    let all = new_ids(&mut rng, 9);
    for some in all.chunks(3) {
        assert!(driver.post(QUEUE, some, LONG_MS).is_ok());
    }
    // Not if the script fails: then it is where it was, and nowhere else.
    let before = names_on_nodes(&pool, &all[0]);
    assert_eq!(before.len(), 2, "R copies");
    let failed = driver.index_as("p.dead", "no number", &all[..1]);
    assert!(failed.error().is_some(), "{failed:?}");
    assert_eq!(driver.bodies(&all[..1]), all[..1]);
    assert_eq!(names_on_nodes(&pool, &all[0]), before);
    for (n, id) in all.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        assert!(driver.index("p.dead", std::slice::from_ref(id)).is_ok());
        let commands = [
            cmd!["MULTI"],
            cmd!["HMSET", id, "t", n],
            cmd!["ZREM", INDEX, id],
            cmd!["EXEC"],
        ];
        let reply = driver.client.pipeline(&commands).unwrap().pop().unwrap();
        assert_eq!(reply.items()[1].int(), Some(1), "{reply:?}");
        let ttl = driver.client.call(cmd!["PTTL", id]).int().unwrap();
        assert!((1..=LONG_MS as i64).contains(&ttl), "{ttl}");
    }
    let dead: Vec<String> = all.iter().step_by(2).cloned().collect();
    let left: Vec<String> = all.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(driver.page("p.dead", None, 100), dead);
    assert_eq!(driver.page(QUEUE, None, 100), left);
    for id in &dead {
        assert_eq!(driver.client.call(cmd!["HEXISTS", id, "t"]).int(), Some(1));
        assert_eq!(
            driver.client.call(cmd!["HGET", id, "b"]).text().unwrap(),
            format!("body of {id}")
        );
    }
    assert_eq!(ids(&driver.claim("p.dead", 100, &new_id(&mut rng))), dead);
    assert_converged(&pool, &sidecar);
}

/// A new message is held until its queue is named; if it never is, or something else wants it first, it is there all the same.
#[test]
fn a_message_of_no_queue_is_a_key_like_any_other() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&striped(&pool, 3, 5));
    let mut driver = Driver::connect(&sidecar.endpoint());
    let [never, late, read]: [String; 3] = new_ids(&mut rng, 3).try_into().unwrap();
    driver.create(&[never.clone(), late.clone()], LONG_MS);
    let mut node = pool.nodes[0].client();
    assert_eq!(node.call(cmd!["EXISTS", never, late]).int(), Some(0), "held");
    wait_until("it is written", Duration::from_secs(5), || {
        node.call(cmd!["EXISTS", never, late]).int() == Some(2)
    });
    assert_eq!(driver.bodies(std::slice::from_ref(&never)).len(), 1);
    assert!(driver.index(QUEUE, std::slice::from_ref(&late)).is_ok());
    // This node may be the last to hear of it.
    wait_until("it has moved to its queue", Duration::from_secs(5), || {
        node.call(cmd!["EXISTS", late]).int() == Some(0)
    });
    driver.create(std::slice::from_ref(&read), LONG_MS);
    assert_eq!(driver.bodies(std::slice::from_ref(&read)).len(), 1);
    assert!(driver.index(QUEUE, std::slice::from_ref(&read)).is_ok());
    assert_eq!(driver.page(QUEUE, None, 10), [late.clone(), read.clone()]);
    assert_eq!(driver.bodies(&[late, read]).len(), 2);
    assert_converged(&pool, &sidecar);
}

/// What is not possible says so, and changes nothing.
#[test]
fn what_is_not_possible_is_said() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&striped(&pool, 3, 5));
    let mut driver = Driver::connect(&sidecar.endpoint());
    let all = new_ids(&mut rng, 7);
    for some in all.chunks(1) {
        assert!(driver.post(QUEUE, some, LONG_MS).is_ok());
    }
    for call in [
        cmd!["ZADD", INDEX, 1, "x"],
        cmd!["ZPOPMIN", INDEX],
        cmd!["RENAME", INDEX, "other"],
        cmd!["ZUNIONSTORE", "other", 1, INDEX],
        cmd!["ZRANGE", INDEX, 0, 5, "BYSCORE"],
        cmd!["EVAL", "return redis.call('ZCARD', KEYS[1])", 2, INDEX, "x"],
        cmd!["DEL", "p.q.rank_counter"],
    ] {
        let name = String::from_utf8_lossy(&call[0]).into_owned();
        let reply = driver.client.call(call);
        let error = reply.error().unwrap_or_else(|| panic!("{name}: {reply:?}"));
        assert!(error.contains("spread over nodes"), "{name}: {error}");
    }
    let replies = driver
        .client
        .pipeline(&[
            cmd!["MULTI"],
            cmd!["ZRANGE", INDEX, 0, -1],
            cmd!["SET", "k", 1],
            cmd!["EXEC"],
        ])
        .unwrap();
    let exec = replies[3].items();
    // More than can be remembered at once is not looked for: it would be for ever.
    let mut many = cmd!["EXISTS"];
    many.extend((0..100_000).map(|n| format!("00000000-0000-0000-0000-{n:012}").into_bytes()));
    let reply = driver.client.call(many);
    assert!(
        reply.error().is_some_and(|error| error.contains("too many")),
        "{reply}"
    );
    assert!(exec[0].error().unwrap().contains("several steps"), "{exec:?}");
    assert!(exec[1].is_ok());
    assert_eq!(driver.page(QUEUE, None, 100), all);
}

/// An emptied queue has one segment again, and goes on.
#[test]
fn segments_come_and_go() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&striped(&pool, 2, 4).threads(2));
    let mut driver = Driver::connect(&sidecar.endpoint());
    for round in 0..3 {
        let all = new_ids(&mut rng, 22);
        for some in all.chunks(2) {
            assert!(driver.post(QUEUE, some, LONG_MS).is_ok());
        }
        assert!(segments(&sidecar) >= 5, "round {round}");
        assert_eq!(driver.page(QUEUE, None, 100), all);
        for id in &all {
            driver.delete(QUEUE, id);
        }
        assert_eq!(driver.page(QUEUE, None, 100), [""; 0]);
        assert_eq!(segments(&sidecar), 1, "round {round}");
    }
    let replies = driver
        .client
        .pipeline(&[cmd!["FLUSHDB"], cmd!["DBSIZE"]])
        .unwrap();
    assert_eq!(replies[1].int(), Some(0));
    // The first segment again, where a sidecar that knows nothing looks for it.
    let few = new_ids(&mut rng, 2);
    assert!(driver.post(QUEUE, &few, LONG_MS).is_ok());
    sidecar.restart();
    let mut driver = Driver::connect(&sidecar.endpoint());
    assert_eq!(driver.page(QUEUE, None, 100), few);
    assert!(driver.client.call(cmd!["FLUSHDB"]).is_ok());
    let all = new_ids(&mut rng, 9);
    for some in all.chunks(3) {
        assert!(driver.post(QUEUE, some, LONG_MS).is_ok());
    }
    assert_eq!(driver.page(QUEUE, None, 100), all);
    assert_eq!(driver.client.call(cmd!["DEL", INDEX]).int(), Some(1));
    assert_eq!(driver.client.call(cmd!["EXISTS", INDEX]).int(), Some(0));
}

/// Queues are emptied while others post to them and take from them: nobody waits for ever, and what is acknowledged after the last flush
/// is there.
#[test]
fn a_flush_while_others_work() {
    let seed = seed();
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&striped(&pool, 2, 5).threads(2).patient());
    let (flushed, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let posted: Vec<String> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|n| {
                let (flushed, over, endpoint) = (&flushed, &over, sidecar.endpoint());
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + n);
                    let mut driver = Driver::connect(&endpoint);
                    let mut posted = Vec::new();
                    while !over.load(Relaxed) {
                        let counts = flushed.load(Relaxed);
                        let some = new_ids(&mut rng, 2);
                        assert!(driver.post(QUEUE, &some, LONG_MS).is_ok());
                        if counts {
                            posted.extend(some);
                        }
                    }
                    posted
                })
            })
            .collect();
        let mut client = sidecar.client();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(30));
            assert!(client.call(cmd!["FLUSHALL"]).is_ok());
        }
        flushed.store(true, Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        over.store(true, Relaxed);
        producers
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    });
    let mut driver = Driver::connect(&sidecar.endpoint());
    let there: HashSet<String> = driver.page(QUEUE, None, 1 << 20).into_iter().collect();
    assert!(posted.len() > 20, "hardly anything was done");
    assert!(posted.iter().all(|id| there.contains(id)), "SEED={seed}");
    assert_eq!(driver.bodies(&posted), posted, "SEED={seed}");
    assert_converged(&pool, &sidecar);
}

/// A message that is about to expire has expired for every node that executes a script: else one that is a moment later would see another
/// queue.
#[test]
fn a_message_about_to_expire_is_not_claimed() {
    let mut rng = Rng::new(seed());
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&striped(&pool, 3, 5));
    let mut driver = Driver::connect(&sidecar.endpoint());
    let [soon, late]: [String; 2] = new_ids(&mut rng, 2).try_into().unwrap();
    assert!(driver.post(QUEUE, std::slice::from_ref(&soon), 150).is_ok());
    assert!(driver.post(QUEUE, std::slice::from_ref(&late), LONG_MS).is_ok());
    assert_eq!(ids(&driver.claim(QUEUE, 2, &new_id(&mut rng))), [late]);
    assert_eq!(driver.client.call(cmd!["EXISTS", soon]).int(), Some(0));
    assert_converged(&pool, &sidecar);
}
