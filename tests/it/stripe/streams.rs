//! Streams that are spread over nodes: side by side with a plain server, and with many who add and read at once.

use super::lists::Both;
use super::*;
use crate::harness::{Client, Node, NodeOptions, Reply};

/// Streams are those called `stream:…`, in segments of so many entries.
pub fn streams(pool: &Pool, replicas: usize, segment_len: usize) -> SidecarConfig {
    SidecarConfig::of(pool, replicas)
        .with("pool", "profile = \"mine\"")
        .with("pool", &format!("segment_len = {segment_len}"))
        .with(
            "profiles.mine",
            "about = \"streams\"\nkey = [{ pattern = \"stream:{name}\", role = \"stream\" }]",
        )
}

/// Ids that a program may name: mostly of entries that were there.
struct Ids {
    last: u64,
}

impl Ids {
    fn any(&self, rng: &mut Rng) -> String {
        let ms = rng.between(0, self.last as i64 + 2);
        match rng.below(6) {
            0 => format!("{ms}"),
            1 => format!("{ms}-{}", rng.below(3)),
            _ => format!("{ms}-1"),
        }
    }

    fn bound(&self, rng: &mut Rng) -> String {
        match rng.below(6) {
            0 => "-".into(),
            1 => "+".into(),
            2 => format!("({}", self.any(rng)),
            _ => self.any(rng),
        }
    }
}

/// A reply without what depends on the moment: how long entries have been pending.
fn timeless(mut reply: Reply, is_pending: bool) -> Reply {
    if is_pending && let Reply::Array(entries) = &mut reply {
        for entry in entries {
            if let Reply::Array(fields) = entry
                && fields.len() == 4
                && fields[2].int().is_some()
            {
                fields[2] = Reply::Int(0);
            }
        }
    }
    reply
}

fn command(rng: &mut Rng, ids: &mut Ids) -> Vec<Vec<u8>> {
    let key = *rng.pick(&["stream:a", "stream:a", "stream:a", "stream:b", "plain"]);
    let other = *rng.pick(&["stream:a", "stream:b", "plain", "stream:none"]);
    let group = *rng.pick(&["g", "g", "h", "nobody"]);
    let consumer = *rng.pick(&["one", "two"]);
    let count = 1 + rng.below(7);
    let (one, two) = (ids.any(rng), ids.any(rng));
    match rng.below(44) {
        0..=11 => {
            ids.last += 1;
            let id = match rng.below(8) {
                0 => format!("{}-*", ids.last),
                1 => ids.any(rng),
                _ => format!("{}-1", ids.last),
            };
            cmd!["XADD", key, id, "f", ids.last]
        }
        12 => {
            ids.last += 1;
            let most = rng.between(0, 15);
            cmd![
                "XADD",
                key,
                "NOMKSTREAM",
                "MAXLEN",
                "=",
                most,
                format!("{}-1", ids.last),
                "f",
                1
            ]
        }
        13 => cmd!["XLEN", key],
        14..=16 => cmd!["XRANGE", key, ids.bound(rng), ids.bound(rng)],
        17 => cmd!["XRANGE", key, "-", "+", "COUNT", rng.between(-1, 12)],
        18 => cmd!["XREVRANGE", key, ids.bound(rng), ids.bound(rng), "COUNT", count],
        19 => cmd!["XREVRANGE", key, "+", "-"],
        20 | 21 => cmd!["XDEL", key, one, two],
        22 if rng.chance(30) => cmd!["XTRIM", key, "MAXLEN", rng.between(0, 20)],
        22 => cmd!["XTRIM", key, "MINID", one],
        23 | 24 => cmd!["XREAD", "COUNT", count, "STREAMS", key, one],
        25 => cmd!["XREAD", "STREAMS", key, other, one, two],
        26 => cmd![
            "XREAD", "BLOCK", 10, "COUNT", count, "STREAMS", other, key, "$", one
        ],
        27 => cmd!["XREAD", "BLOCK", 10, "STREAMS", key, "$"],
        28 => cmd!["XGROUP", "CREATE", key, group, one],
        29 => cmd!["XGROUP", "CREATE", key, "g", *rng.pick(&["0", "$"]), "MKSTREAM"],
        30 if rng.chance(30) => cmd!["XGROUP", "SETID", key, group, one],
        30 if rng.chance(20) => cmd!["XGROUP", "DESTROY", key, group],
        30 => cmd!["XGROUP", "DELCONSUMER", key, group, consumer],
        31..=33 => cmd![
            "XREADGROUP",
            "GROUP",
            group,
            consumer,
            "COUNT",
            count,
            "STREAMS",
            key,
            ">"
        ],
        34 => cmd![
            "XREADGROUP",
            "GROUP",
            "g",
            consumer,
            "STREAMS",
            "stream:a",
            "stream:b",
            ">",
            ">"
        ],
        35 => cmd![
            "XREADGROUP",
            "GROUP",
            group,
            consumer,
            "BLOCK",
            10,
            "STREAMS",
            key,
            ">"
        ],
        36 => cmd![
            "XREADGROUP",
            "GROUP",
            group,
            consumer,
            "COUNT",
            count,
            "STREAMS",
            key,
            one
        ],
        37 => cmd!["XACK", key, group, one, two],
        38 => cmd!["XPENDING", key, group],
        39 => cmd!["XPENDING", key, group, ids.bound(rng), ids.bound(rng), count],
        40 => cmd!["XCLAIM", key, group, consumer, 0, one, two, "JUSTID"],
        41 => cmd![
            "XAUTOCLAIM",
            key,
            group,
            consumer,
            0,
            one,
            "COUNT",
            1000,
            "JUSTID"
        ],
        42 if rng.chance(10) => cmd!["DEL", key, other],
        42 => cmd!["EXISTS", key, other],
        _ => cmd!["TYPE", key],
    }
}

fn program(both: &mut Both, rng: &mut Rng, ids: &mut Ids, steps: usize) {
    for _ in 0..steps {
        if rng.below(15) > 0 {
            let command = command(rng, ids);
            let is_pending = command[0] == b"XPENDING" && command.len() > 3;
            both.same(&[command], |reply| timeless(reply, is_pending));
            continue;
        }
        ids.last += 2;
        let mut commands = vec![
            cmd!["XADD", "stream:a", format!("{}-1", ids.last), "f", "tx"],
            cmd!["XLEN", "stream:a"],
            cmd![
                "XACK",
                "stream:a",
                "g",
                format!("{}-1", ids.last.saturating_sub(3))
            ],
            cmd!["XDEL", "stream:a", format!("{}-1", ids.last.saturating_sub(9))],
        ];
        if rng.chance(50) {
            commands.insert(0, cmd!["MULTI"]);
            commands.push(cmd!["EXEC"]);
        }
        both.all(&commands);
    }
}

#[test]
fn a_striped_stream_answers_as_one_that_is_not() {
    let mut rng = Rng::new(seed());
    for (nodes, replicas, threads, resp3) in [(3, 3, 1, false), (4, 2, 2, true), (2, 1, 1, true)] {
        let pool = Pool::start(nodes);
        let sidecar = Sidecar::start(&streams(&pool, replicas, 4).threads(threads).patient());
        let plain = Node::start("plain", NodeOptions::default());
        let mut both = Both::new(sidecar.client(), plain.client());
        both.hello(resp3);
        let mut ids = Ids { last: 0 };
        program(&mut both, &mut rng, &mut ids, 700);
        for key in ["stream:a", "stream:b"] {
            both.call(cmd!["XRANGE", key, "-", "+"]);
            both.call(cmd!["XLEN", key]);
        }
        assert_converged(&pool, &sidecar);
        sidecar.kill9();
        sidecar.restart();
        both.striped = sidecar.client();
        if resp3 {
            both.striped.call(cmd!["HELLO", 3]);
        }
        program(&mut both, &mut rng, &mut ids, 60);
    }
}

/// What the random programs do not come to.
#[test]
fn corners_of_striped_streams() {
    let pool = Pool::start(2);
    let sidecar = Sidecar::start(&streams(&pool, 2, 3));
    let plain = Node::start("plain", NodeOptions::default());
    let mut both = Both::new(sidecar.client(), plain.client());
    for n in 1..=8 {
        both.call(cmd!["XADD", "stream:a", format!("{n}-1"), "f", n]);
    }
    both.call(cmd!["XACK", "stream:a", "g", "abc"]);
    both.call(cmd!["XADD", "stream:a", "MAXLEN", 5, "NOMKSTREAM", "9-1", "f", 1]);
    both.call(cmd!["XRANGE", "stream:a", "-", "+"]);
    both.call(cmd![
        "XADD", "stream:a", "MAXLEN", "~", 5, "LIMIT", "abc", "10-1", "f", 1
    ]);
    both.call(cmd!["XGROUP", "CREATE", "stream:a", "count", "0"]);
    both.call(cmd![
        "XREADGROUP",
        "GROUP",
        "count",
        "count",
        "STREAMS",
        "stream:a",
        ">"
    ]);
    both.call(cmd![
        "XAUTOCLAIM",
        "stream:a",
        "count",
        "count",
        0,
        "0",
        "COUNT",
        100,
        "JUSTID"
    ]);
    // Removed, and begun anew: with ids from the start, groups from the start.
    both.call(cmd!["DEL", "stream:a"]);
    for n in 1..=9 {
        both.call(cmd!["XADD", "stream:a", format!("{n}-1"), "f", n]);
    }
    both.call(cmd!["XGROUP", "CREATE", "stream:a", "count", "0"]);
    for _ in 0..3 {
        both.call(cmd![
            "XREADGROUP",
            "GROUP",
            "count",
            "c",
            "COUNT",
            4,
            "STREAMS",
            "stream:a",
            ">"
        ]);
    }
    both.call(cmd![
        "XADD",
        "stream:a",
        "18446744073709551615-18446744073709551615",
        "f",
        1
    ]);
    both.call(cmd!["XADD", "stream:a", "*", "f", 1]);
    both.call(cmd![
        "XAUTOCLAIM",
        "stream:a",
        "count",
        "c",
        0,
        "0",
        "COUNT",
        100,
        "JUSTID"
    ]);
    both.call(cmd![
        "XREADGROUP",
        "GROUP",
        "count",
        "c",
        "STREAMS",
        "stream:a",
        ">"
    ]);
    // All ten, and behind the greatest id there is nothing.
    both.call(cmd![
        "XAUTOCLAIM",
        "stream:a",
        "count",
        "c",
        0,
        "0",
        "COUNT",
        10,
        "JUSTID"
    ]);
    both.call(cmd!["XRANGE", "stream:a", "(8", "+"]);
    both.call(cmd!["XREAD", "STREAMS", "stream:a", "9-1"]);
    assert_converged(&pool, &sidecar);
}

/// Producers, a group whose consumers wait, a reader that only waits for news, segments that come and go, a node that dies: each entry is
/// delivered once in the group, and in order to the reader, who misses none.
#[test]
fn each_entry_is_delivered_once_and_readers_miss_none() {
    const PRODUCERS: usize = 3;
    const EACH: usize = 300;
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&streams(&pool, 3, 7).threads(2));
    let mut client = sidecar.client();
    assert!(
        client
            .call(cmd!["XGROUP", "CREATE", "stream:q", "g", "0", "MKSTREAM"])
            .is_ok()
    );
    let (delivered, read) = std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..3)
            .map(|n| {
                let endpoint = sidecar.endpoint();
                scope.spawn(move || {
                    let mut client = Client::connect(&endpoint);
                    let mut taken = Vec::new();
                    loop {
                        let read = cmd![
                            "XREADGROUP",
                            "GROUP",
                            "g",
                            format!("c{n}"),
                            "COUNT",
                            3,
                            "BLOCK",
                            3000,
                            "STREAMS",
                            "stream:q",
                            ">"
                        ];
                        let reply = client.call(read);
                        if reply.is_nil() {
                            return taken;
                        }
                        for (id, _) in entries(&reply) {
                            assert_eq!(client.call(cmd!["XACK", "stream:q", "g", id]).int(), Some(1));
                            if n == 0 {
                                assert_eq!(client.call(cmd!["XDEL", "stream:q", id]).int(), Some(1));
                            }
                            taken.push(id);
                        }
                    }
                })
            })
            .collect();
        let reader = {
            let endpoint = sidecar.endpoint();
            scope.spawn(move || {
                let mut client = Client::connect(&endpoint);
                let mut last = "0-0".to_owned();
                let mut read = Vec::new();
                loop {
                    let reply = client.call(cmd![
                        "XREAD",
                        "BLOCK",
                        3000,
                        "COUNT",
                        5,
                        "STREAMS",
                        "stream:kept",
                        last
                    ]);
                    if reply.is_nil() {
                        return read;
                    }
                    for (id, value) in entries(&reply) {
                        last = id;
                        read.push(value);
                    }
                }
            })
        };
        for producer in 0..PRODUCERS {
            let endpoint = sidecar.endpoint();
            scope.spawn(move || {
                let mut client = Client::connect(&endpoint);
                for n in 0..EACH {
                    for key in ["stream:q", "stream:kept"] {
                        let reply = client.call(cmd!["XADD", key, "*", "v", format!("{producer}:{n}")]);
                        assert_eq!(reply.error(), None, "{reply:?}");
                    }
                    if n % 100 == 50 {
                        std::thread::sleep(Duration::from_millis(30));
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        sidecar.allow_log("stream lost");
        sidecar.allow_log("cannot be reached");
        pool.nodes[1].kill9();
        let delivered: Vec<String> = consumers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        (delivered, reader.join().unwrap())
    });
    let different: HashSet<&String> = delivered.iter().collect();
    assert_eq!(
        (delivered.len(), different.len()),
        (PRODUCERS * EACH, PRODUCERS * EACH)
    );
    for producer in 0..PRODUCERS {
        let of_one: Vec<&String> = read
            .iter()
            .filter(|v| v.starts_with(&format!("{producer}:")))
            .collect();
        let expected: Vec<String> = (0..EACH).map(|n| format!("{producer}:{n}")).collect();
        assert!(of_one.into_iter().eq(&expected), "producer {producer}");
    }
    assert_eq!(
        client.call(cmd!["XLEN", "stream:kept"]).int(),
        Some((PRODUCERS * EACH) as i64)
    );
    assert!(segments_of(&sidecar, "stream:kept") > 20);
    assert_eq!(
        client.call(cmd!["XPENDING", "stream:q", "g"]).items()[0].int(),
        Some(0)
    );
}

/// The ids of the entries in a reply for one stream, and the first value of each.
fn entries(reply: &Reply) -> Vec<(String, String)> {
    let of_stream = reply.items()[0].items()[1].items();
    let entry = |entry: &Reply| {
        (
            entry.items()[0].text().unwrap(),
            entry.items()[1].items()[1].text().unwrap(),
        )
    };
    of_stream.iter().map(entry).collect()
}
