//! Keys that somebody else changes while they are copied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::*;
use crate::testserver::Client;

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Makes a key something else, or more, or less.
fn disturb(client: &mut Client, state: &mut u64) {
    let mut random = |n: u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % n
    };
    let key = KEYS[random(KEYS.len() as u64) as usize];
    let (n, id) = (random(3000), random(1 << 40));
    let script = match random(20) {
        0 => "redis.call('DEL', k)".to_owned(),
        1 => "redis.call('PEXPIRE', k, 3)".to_owned(),
        2 => format!(
            "redis.call('DEL', k) redis.call('SET', k, string.rep('x', {}))",
            n * 400
        ),
        3 => "redis.call('RPOP', k)".to_owned(),
        4 => "redis.call('SPOP', k, 100)".to_owned(),
        5 => "redis.call('XTRIM', k, 'MAXLEN', 700)".to_owned(),
        6 => "redis.call('XGROUP', 'DESTROY', k, 'g')".to_owned(),
        7 => "redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', 900, 'STREAMS', k, '>')".to_owned(),
        8 => "redis.call('XGROUP', 'CREATE', k, 'g', '0')".to_owned(),
        9 => format!("redis.call('RENAME', k, '{}')", KEYS[id as usize % KEYS.len()]),
        10 | 11 => format!("for i = 1, {n} do redis.call('RPUSH', k, i, 'x') end"),
        12 | 13 => format!("for i = 1, {n} do redis.call('HSET', k, {id} + i, string.rep('y', i % 100)) end"),
        14 | 15 => format!("for i = 1, {n} do redis.call('SADD', k, {id} + i) end"),
        16 | 17 => format!("for i = 1, {n} do redis.call('ZADD', k, i, {id} + i) end"),
        _ => format!("for i = 1, {n} do redis.call('XADD', k, '*', 'a', i) end"),
    };
    // Where the key is of another type, nothing happens; or it is removed first.
    let first = if random(3) == 0 {
        "redis.call('DEL', k) "
    } else {
        ""
    };
    let script = format!("local k = KEYS[1] {first}{script}");
    let args = ["EVAL", &script, "1", key].map(|arg| arg.as_bytes().to_vec());
    client.call(&args);
}

/// Somebody who changes keys until told to stop; how often.
fn disturber(mut client: Client, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut changes = 0;
        while !stop.load(Ordering::Relaxed) {
            disturb(&mut client, &mut state);
            changes += 1;
        }
        changes
    })
}

#[tokio::test]
async fn what_changes_meanwhile_is_no_failure_and_the_next_copy_replaces_it() {
    let mut two = Two::start().await;
    let keys = KEYS.map(|key| key.as_bytes().to_vec());
    for way in [Way::Any, Way::Ranges] {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = disturber(two.servers[0].client(2), stop.clone());
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut left = 0;
        while Instant::now() < deadline {
            left += two.copy(way, 0, &keys).await.left;
        }
        stop.store(true, Ordering::Relaxed);
        let changes = writer.join().unwrap();
        assert!(changes > 50, "{changes} changes, {left} keys left");
        assert_eq!(two.copy(way, 0, &keys).await.left, 0);
        two.compare(way, 0, &keys).await;
    }
}

/// As fast as it is read, it grows.
#[tokio::test]
async fn a_list_that_is_pushed_to_for_ever_ends() {
    let mut two = Two::start().await;
    fill(&mut two.source, &[b"RPUSH", b"list"], 5000, |i| vec![binary(i)]).await;
    let seen = look(&mut two.source, &[b"list"]).await.unwrap().pop().unwrap();
    fill(&mut two.source, &[b"RPUSH", b"list"], 50_000, |i| vec![binary(i)]).await;
    let pace = Pace::new(0);
    let mut copy = Copy {
        building: Building::InPlace,
        source: &mut two.source,
        target: &mut two.target,
        pace: &pace,
        way: Way::Any,
        copied: Copied::default(),
    };
    assert!(copy.ranges(b"list", &seen, Building::InPlace).await.is_ok());
    let len = text_of(&two.target.call(&[b"LLEN", b"list"]).await.unwrap());
    assert!((5000..=15_000).contains(&len.parse().unwrap()), "{len}");
}
