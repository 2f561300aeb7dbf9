//! After whatever a test did: do the copies agree?
//!
//! Asked of the nodes themselves, behind the sidecar's back: for every key of every database that clients can reach,
//! its digest, its deadline, and for streams their consumer groups (which `DEBUG DIGEST-VALUE` leaves out). Where a key
//! should be is not computed here, it would only repeat the program's own mistakes: a key must be on exactly the
//! in-sync nodes of *some* partition.

use crate::cmd;
use crate::harness::{Client, Pool, Reply, Sidecar, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The database that holds the sidecar's own account of a node.
pub const BOOKKEEPING_DB: usize = 15;

/// A key of one database.
pub type Place = (usize, Vec<u8>);

/// What is compared of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub digest: String,
    /// Unix time in ms; -1 for none.
    pub expires_ms: i64,
    /// A stream's groups and ids without its clocks.
    pub stream: Option<Reply>,
}

/// Everything a server holds, but for the bookkeeping.
pub fn contents(client: &mut Client) -> BTreeMap<Place, Value> {
    let mut all = BTreeMap::new();
    for db in 0..BOOKKEEPING_DB {
        assert!(client.call(cmd!["SELECT", db]).is_ok());
        let keys = scan(client);
        for chunk in keys.chunks(200) {
            let ask = chunk.iter().flat_map(|key| {
                [
                    cmd!["DEBUG", "DIGEST-VALUE", key],
                    cmd!["PEXPIRETIME", key],
                    cmd!["TYPE", key],
                ]
            });
            let replies = client.pipeline(&ask.collect::<Vec<_>>()).expect("a node answers");
            for (key, reply) in chunk.iter().zip(replies.chunks(3)) {
                let is_stream = reply[2].bytes() == Some(b"stream");
                let stream = is_stream
                    .then(|| without_clocks(&client.call(cmd!["XINFO", "STREAM", key, "FULL", "COUNT", 0])));
                let digest = reply[0]
                    .items()
                    .first()
                    .map_or_else(|| reply[0].to_string(), Reply::to_string);
                let value = Value {
                    digest,
                    expires_ms: match reply[1].int() {
                        Some(deadline_ms) => deadline_ms,
                        None => deadline_before_7_ms(client, key),
                    },
                    stream,
                };
                all.insert((db, key.clone()), value);
            }
        }
    }
    all
}

/// When a key expires, of a server that knows no `PEXPIRETIME`: at a moment in which its clock has not gone on.
fn deadline_before_7_ms(client: &mut Client, key: &Vec<u8>) -> i64 {
    loop {
        let ask = [cmd!["TIME"], cmd!["PTTL", key], cmd!["TIME"]];
        let replies = client.pipeline(&ask).expect("a node answers");
        let millis = |time: &Reply| {
            let number = |part: &Reply| part.text().and_then(|text| text.parse::<i64>().ok());
            let parts: Vec<i64> = time.items().iter().filter_map(number).collect();
            parts[0] * 1000 + parts[1] / 1000
        };
        let left_ms = replies[1].int().expect("PTTL");
        if left_ms < 0 {
            return left_ms;
        }
        if millis(&replies[0]) == millis(&replies[2]) {
            return millis(&replies[0]) + left_ms;
        }
    }
}

fn scan(client: &mut Client) -> Vec<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.call(cmd!["SCAN", cursor, "COUNT", 1000]).items();
        keys.extend(
            reply[1]
                .items()
                .iter()
                .filter_map(|key| key.bytes().map(<[u8]>::to_vec)),
        );
        cursor = reply[0].text().expect("a cursor");
        if cursor == "0" {
            return keys.into_iter().collect();
        }
    }
}

/// `XINFO STREAM FULL` (RESP2) without entries, delivery times and the shape of the radix tree: two nodes deliver the
/// same entry some microseconds apart. Nor with how many entries a group has read: Redis before 7.2.4 does not write that to its
/// append-only file, so a node that has been restarted counts on from an older number.
fn without_clocks(reply: &Reply) -> Reply {
    const LEFT_OUT: [&[u8]; 7] = [
        b"entries-read",
        b"lag",
        b"seen-time",
        b"active-time",
        b"entries",
        b"radix-tree-keys",
        b"radix-tree-nodes",
    ];
    let Reply::Array(items) = reply else {
        return reply.clone();
    };
    // A pending entry: [id, consumer, delivery time, count] of a group, [id, delivery time, count] of a consumer.
    let is_pending = matches!(items.as_slice(), [Reply::Bulk(_), .., Reply::Int(time), Reply::Int(_)] if *time > 1_000_000_000_000);
    if is_pending {
        let time_at = items.len() - 2;
        return Reply::Array(
            items
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != time_at)
                .map(|(_, item)| item.clone())
                .collect(),
        );
    }
    let mut out = Vec::new();
    let mut rest = items.iter();
    while let Some(item) = rest.next() {
        if item.bytes().is_some_and(|name| LEFT_OUT.contains(&name)) {
            rest.next();
        } else {
            out.push(without_clocks(item));
        }
    }
    Reply::Array(out)
}

/// Which nodes hold which partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holders {
    pub replicas: BTreeSet<String>,
    pub in_sync: BTreeSet<String>,
}

fn names(list: &serde_json::Value) -> BTreeSet<String> {
    let list = list.as_array().expect("an array of node names");
    list.iter()
        .map(|name| name.as_str().expect("a node name").to_owned())
        .collect()
}

/// The distinct replica sets of the pool, from the admin port.
pub fn holders(sidecar: &Sidecar) -> BTreeSet<Holders> {
    let partitions = sidecar.admin("/v1/partitions");
    let all = partitions.as_array().expect("/v1/partitions is an array");
    assert!(!all.is_empty(), "/v1/partitions is empty");
    all.iter()
        .map(|row| Holders {
            replicas: names(&row["replicas"]),
            in_sync: names(&row["in_sync"]),
        })
        .collect()
}

/// What is wrong with these contents of the nodes, one line per key.
pub fn differences(
    nodes: &BTreeMap<String, BTreeMap<Place, Value>>,
    sets: &BTreeSet<Holders>,
) -> Vec<String> {
    let in_sync_somewhere: BTreeSet<&String> = sets.iter().flat_map(|set| &set.in_sync).collect();
    let mut by_key: BTreeMap<&Place, BTreeMap<&String, &Value>> = BTreeMap::new();
    for (name, content) in nodes.iter().filter(|(name, _)| in_sync_somewhere.contains(name)) {
        for (place, value) in content {
            by_key.entry(place).or_default().insert(name, value);
        }
    }
    let mut wrong = Vec::new();
    for ((db, key), holding) in by_key {
        let shown = String::from_utf8_lossy(key);
        let fits = |set: &Holders| {
            set.in_sync.iter().all(|name| holding.contains_key(name))
                && holding.keys().all(|name| set.replicas.contains(*name))
        };
        let mut possible = sets.iter().filter(|set| fits(set)).peekable();
        if possible.peek().is_none() {
            wrong.push(format!(
                "db {db} {shown}: held by {:?}, which is no replica set",
                holding.keys()
            ));
            continue;
        }
        let agrees = |set: &Holders| {
            let mut values = set.in_sync.iter().map(|name| holding[name]);
            let first = values.next();
            values.all(|value| Some(value) == first)
        };
        if !possible.any(agrees) {
            wrong.push(format!("db {db} {shown}: copies differ: {holding:?}"));
        }
    }
    wrong
}

/// Waits until all in-sync copies agree (a slow mirror may still be behind), and returns the pool's contents.
#[track_caller]
pub fn assert_converged(pool: &Pool, sidecar: &Sidecar) -> BTreeMap<Place, Value> {
    let mut wrong = Vec::new();
    let converged = wait_for(Duration::from_secs(10), || {
        let sets = holders(sidecar);
        assert!(
            sets.iter().all(|set| !set.in_sync.is_empty()),
            "a partition without a node in sync: {sets:?}"
        );
        let wanted: BTreeSet<&String> = sets.iter().flat_map(|set| &set.in_sync).collect();
        let nodes: BTreeMap<String, _> = wanted
            .into_iter()
            .map(|name| (name.clone(), contents(&mut pool.node(name).client())))
            .collect();
        wrong = differences(&nodes, &sets);
        wrong.is_empty().then(|| nodes.into_values().flatten().collect())
    });
    converged.unwrap_or_else(|| {
        let shown = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        panic!("{} keys have not converged:\n{shown}", wrong.len())
    })
}

/// The checker itself must see a difference.
mod checks_that_it {
    use super::*;

    fn two_nodes() -> (Pool, BTreeSet<Holders>) {
        let pool = Pool::start(2);
        let both: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        (
            pool,
            BTreeSet::from([Holders {
                replicas: both.clone(),
                in_sync: both,
            }]),
        )
    }

    fn wrong_after(pool: &Pool, sets: &BTreeSet<Holders>) -> Vec<String> {
        let all = pool
            .nodes
            .iter()
            .map(|node| (node.name.clone(), contents(&mut node.client())));
        differences(&all.collect(), sets)
    }

    #[test]
    fn accepts_equal_copies_and_catches_every_kind_of_difference() {
        let (pool, sets) = two_nodes();
        let mut clients: Vec<Client> = pool.nodes.iter().map(|node| node.client()).collect();
        let equal = [
            cmd!["SET", "s", "1", "PXAT", 4_000_000_000_000_i64],
            cmd!["SADD", "set", "a", "b", "c"],
            cmd!["XADD", "x", "1-1", "f", "v"],
            cmd!["XGROUP", "CREATE", "x", "g", "0"],
            cmd!["XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", ">"],
        ];
        for client in &mut clients {
            for command in &equal {
                assert_eq!(client.call(command.clone()).error(), None);
            }
        }
        assert_eq!(wrong_after(&pool, &sets), Vec::<String>::new());
        let harm = [
            (cmd!["SET", "only-here", "1"], cmd!["DEL", "only-here"]),
            (cmd!["SADD", "set", "d"], cmd!["SREM", "set", "d"]),
            (
                cmd!["PERSIST", "s"],
                cmd!["PEXPIREAT", "s", 4_000_000_000_000_i64],
            ),
            (
                cmd!["PEXPIREAT", "s", 4_000_000_000_001_i64],
                cmd!["PEXPIREAT", "s", 4_000_000_000_000_i64],
            ),
            (
                cmd!["XGROUP", "CREATE", "x", "g2", "0"],
                cmd!["XGROUP", "DESTROY", "x", "g2"],
            ),
            (cmd!["XACK", "x", "g", "1-1"], cmd!["PING"]),
        ];
        for (command, undo) in harm {
            clients[1].call(command.clone());
            assert_eq!(wrong_after(&pool, &sets).len(), 1, "not seen: {command:?}");
            clients[1].call(undo);
        }
    }

    #[test]
    fn catches_a_key_on_the_wrong_nodes() {
        let (pool, _) = two_nodes();
        let one = |name: &str| BTreeSet::from([name.to_owned()]);
        let sets = BTreeSet::from([
            Holders {
                replicas: one("a"),
                in_sync: one("a"),
            },
            Holders {
                replicas: one("b"),
                in_sync: one("b"),
            },
        ]);
        pool.nodes[0].client().call(cmd!["SET", "k", "1"]);
        assert_eq!(wrong_after(&pool, &sets), Vec::<String>::new());
        pool.nodes[1].client().call(cmd!["SET", "k", "1"]);
        assert_eq!(wrong_after(&pool, &sets).len(), 1);
    }
}
