//! Lists that are spread over nodes: side by side with a plain server, and with many who push and wait at once.

use super::*;
use crate::blocking::blocked_clients;
use crate::harness::{Client, Node, NodeOptions, Reply, wait_until};
use std::collections::BTreeMap;

/// Lists are those called `list:…`, in segments of so many elements.
pub fn lists(pool: &Pool, replicas: usize, segment_len: usize) -> SidecarConfig {
    SidecarConfig::of(pool, replicas)
        .with("pool", "profile = \"mine\"")
        .with("pool", &format!("segment_len = {segment_len}"))
        .with(
            "profiles.mine",
            "about = \"lists\"\nkey = [{ pattern = \"list:{name}\", role = \"list\" }]",
        )
}

/// A striped and a plain server, which are told the same.
pub struct Both {
    pub striped: Client,
    plain: Client,
    story: Vec<String>,
}

impl Both {
    pub fn new(striped: Client, plain: Client) -> Self {
        Self {
            striped,
            plain,
            story: Vec::new(),
        }
    }

    pub fn hello(&mut self, resp3: bool) {
        for client in [&mut self.striped, &mut self.plain].into_iter().filter(|_| resp3) {
            assert_eq!(client.call(cmd!["HELLO", 3]).error(), None);
        }
    }

    #[track_caller]
    pub fn call(&mut self, command: Vec<Vec<u8>>) -> Reply {
        self.all(&[command]).pop().unwrap()
    }

    #[track_caller]
    pub fn all(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Reply> {
        self.same(commands, |reply| reply)
    }

    /// Replies that are the same, as far as they are compared.
    #[track_caller]
    pub fn same(&mut self, commands: &[Vec<Vec<u8>>], compared: impl Fn(Reply) -> Reply) -> Vec<Reply> {
        for command in commands {
            let words = command.iter().map(|w| String::from_utf8_lossy(w).into_owned());
            self.story.push(words.collect::<Vec<_>>().join(" "));
        }
        let told = self
            .story
            .iter()
            .rev()
            .take(60)
            .rev()
            .cloned()
            .collect::<Vec<_>>();
        let mut both = [&mut self.striped, &mut self.plain].map(|client| match client.pipeline(commands) {
            Ok(replies) => replies.into_iter().map(&compared).collect::<Vec<_>>(),
            Err(error) => panic!("SEED={}: {error}\n{}", seed(), told.join("\n")),
        });
        assert_eq!(
            both[0],
            both[1],
            "SEED={}: the last is answered otherwise (striped, plain)\n{}",
            seed(),
            told.join("\n")
        );
        std::mem::take(&mut both[0])
    }
}

fn key(rng: &mut Rng) -> String {
    // One that is striped is there mostly; two others are for moves.
    (*rng.pick(&["list:a", "list:a", "list:a", "list:b", "plain", "{p}q"])).to_owned()
}

fn command(rng: &mut Rng) -> Vec<Vec<u8>> {
    let (one, other) = (key(rng), key(rng));
    let element = format!("e{}", rng.below(12));
    let (from, to) = (rng.between(-25, 25), rng.between(-25, 25));
    let side = |rng: &mut Rng| *rng.pick(&["LEFT", "RIGHT"]);
    let (here, there) = (side(rng), side(rng));
    let push = *rng.pick(&["LPUSH", "RPUSH", "RPUSH", "RPUSH"]);
    let count = 1 + rng.below(4);
    match rng.below(40) {
        0..=8 => {
            let mut words = cmd![push, one];
            words.extend(
                (0..count).map(|n| format!("e{}", (n + from.unsigned_abs() as usize) % 12).into_bytes()),
            );
            words
        }
        9 | 10 => cmd![*rng.pick(&["LPOP", "RPOP"]), one],
        11 => cmd![*rng.pick(&["LPOP", "RPOP"]), one, rng.between(-1, 9)],
        12..=14 => cmd!["LRANGE", one, from, to],
        15 => cmd!["LRANGE", one, 0, -1],
        16 => cmd!["LLEN", one],
        17 | 18 => cmd!["LINDEX", one, from],
        19 => cmd!["LSET", one, from, element],
        20 => cmd![
            "LINSERT",
            one,
            *rng.pick(&["BEFORE", "after", "beside"]),
            element,
            "new"
        ],
        21 => cmd!["LREM", one, rng.between(-3, 3), element],
        22 => cmd!["LTRIM", one, rng.between(-30, 4), rng.between(-4, 30)],
        23 => cmd!["LPOS", one, element],
        24 => cmd![
            "LPOS",
            one,
            element,
            "RANK",
            rng.between(-4, 4),
            "COUNT",
            rng.between(-1, 3)
        ],
        25 => cmd!["LPOS", one, element, "MAXLEN", rng.between(-1, 12), "COUNT", 0],
        26..=28 => cmd!["LMOVE", one, other, here, there],
        29 => cmd!["RPOPLPUSH", one, other],
        30 => cmd![*rng.pick(&["LPUSHX", "RPUSHX"]), one, element, "x"],
        31 => cmd!["LMPOP", 2, one, other, here],
        32 => cmd![
            "LMPOP",
            3,
            "list:none",
            one,
            other,
            here,
            "COUNT",
            rng.between(0, 9)
        ],
        33 => cmd!["BLPOP", one, other, "0.01"],
        34 => cmd!["BRPOP", "list:none", one, "0.01"],
        35 => cmd!["BLMOVE", one, other, here, there, "0.01"],
        36 => cmd!["BLMPOP", "0.01", 2, one, other, here, "COUNT", count],
        37 => cmd![*rng.pick(&["EXISTS", "TOUCH"]), one, other, "list:none"],
        38 => match rng.below(8) {
            0 => cmd![*rng.pick(&["DEL", "UNLINK"]), one, other],
            1 => cmd!["TTL", one],
            2 => cmd!["PERSIST", one],
            3 => cmd!["LRANGE", one, "x", 1],
            4 => cmd!["LPOP", one, 1, 2],
            5 => cmd!["LPOS", one, element, "RANK"],
            _ => cmd!["TYPE", one],
        },
        _ => cmd!["BRPOPLPUSH", one, other, "0.01"],
    }
}

fn program(both: &mut Both, rng: &mut Rng, steps: usize) {
    for _ in 0..steps {
        if rng.below(12) > 0 {
            both.call(command(rng));
            continue;
        }
        // A transaction, or commands side by side.
        let one = key(rng);
        let mut commands = vec![
            cmd!["RPUSH", one, "t1", "t2"],
            cmd!["LPUSH", "list:a", "t3"],
            cmd!["LLEN", one],
            cmd!["EXISTS", "list:a"],
        ];
        if rng.chance(20) {
            commands.push(cmd!["DEL", "list:a"]);
        }
        if rng.chance(50) {
            commands.insert(0, cmd!["MULTI"]);
            commands.push(cmd!["EXEC"]);
        }
        both.all(&commands);
    }
}

#[test]
fn a_striped_list_answers_as_one_that_is_not() {
    let mut rng = Rng::new(seed());
    for (nodes, replicas, threads, resp3) in [(3, 3, 1, false), (4, 2, 2, true), (2, 1, 1, true)] {
        let pool = Pool::start(nodes);
        let sidecar = Sidecar::start(&lists(&pool, replicas, 4).threads(threads).patient());
        let plain = Node::start("plain", NodeOptions::default());
        let mut both = Both::new(sidecar.client(), plain.client());
        both.hello(resp3);
        program(&mut both, &mut rng, 700);
        for key in ["list:a", "list:b"] {
            both.call(cmd!["LRANGE", key, 0, -1]);
            both.call(cmd!["LLEN", key]);
        }
        assert_converged(&pool, &sidecar);
        sidecar.kill9();
        sidecar.restart();
        both.striped = sidecar.client();
        if resp3 {
            both.striped.call(cmd!["HELLO", 3]);
        }
        program(&mut both, &mut rng, 60);
    }
}

/// Producers at both ends, consumers that wait, segments that come and go, a node that dies: each element is delivered once, and those of one
/// producer in order.
#[test]
fn each_element_is_taken_once_and_in_order() {
    const PRODUCERS: usize = 3;
    const EACH: usize = 400;
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&lists(&pool, 3, 7).threads(2));
    let taken: Vec<Vec<String>> = std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..4)
            .map(|n| {
                let endpoint = sidecar.endpoint();
                scope.spawn(move || {
                    let mut client = Client::connect(&endpoint);
                    let mut taken = Vec::new();
                    loop {
                        let reply = match n {
                            0 => client.call(cmd!["BLMOVE", "list:q", "list:done", "LEFT", "RIGHT", 3]),
                            1 => client.call(cmd!["BLMPOP", 3, 1, "list:q", "LEFT", "COUNT", 2]),
                            _ => client.call(cmd!["BLPOP", "list:other", "list:q", 3]),
                        };
                        if reply.is_nil() {
                            return taken;
                        }
                        assert_eq!(reply.error(), None, "{reply:?}");
                        match n {
                            0 => taken.push(reply.text().unwrap()),
                            1 => taken.extend(ids(&reply.items()[1])),
                            _ => {
                                assert_eq!(reply.items()[0].text().unwrap(), "list:q");
                                taken.push(reply.items()[1].text().unwrap());
                            }
                        }
                    }
                })
            })
            .collect();
        for producer in 0..PRODUCERS {
            let endpoint = sidecar.endpoint();
            scope.spawn(move || {
                let mut client = Client::connect(&endpoint);
                for n in 0..EACH {
                    let reply = client.call(cmd!["RPUSH", "list:q", format!("{producer}:{n}")]);
                    assert!(reply.int().is_some(), "{reply:?}");
                    if n % 100 == 50 {
                        // Consumers catch up now and then: the list becomes empty, and they wait.
                        std::thread::sleep(Duration::from_millis(30));
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        sidecar.allow_log("stream lost");
        sidecar.allow_log("cannot be reached");
        pool.nodes[1].kill9();
        consumers.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let mut all: Vec<&String> = taken.iter().flatten().collect();
    assert_eq!(all.len(), PRODUCERS * EACH);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), PRODUCERS * EACH, "each once");
    for one in &taken {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for element in one {
            let (producer, n) = element.split_once(':').unwrap();
            let n = n.parse().unwrap();
            let before = last.insert(producer, n);
            assert!(
                before.is_none_or(|before| before < n),
                "{element} behind {before:?}"
            );
        }
    }
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["LLEN", "list:q"]).int(), Some(0));
    assert_eq!(ids(&client.call(cmd!["LRANGE", "list:done", 0, -1])), taken[0]);
    assert_eq!(ids(&client.call(cmd!["KEYS", "*"])), ["list:done"]);
}

/// What becomes of other lists is nothing to who waits at this one.
#[test]
fn who_waits_is_served_in_turn() {
    let pool = Pool::start(2);
    let sidecar = Sidecar::start(&lists(&pool, 2, 3));
    let mut client = sidecar.client();
    let mut waiting: Vec<Client> = (0..6).map(|_| sidecar.client()).collect();
    for (n, one) in waiting.iter_mut().enumerate() {
        let wait = match n % 2 {
            0 => cmd!["BLPOP", "list:a", "list:none", 0],
            _ => cmd!["BLMPOP", 0, 1, "list:a", "LEFT"],
        };
        one.send_raw(&crate::harness::encode(&wait)).unwrap();
        wait_until("it waits", Duration::from_secs(5), || {
            blocked_clients(&mut client) == n as i64 + 1
        });
    }
    for n in 0..8 {
        assert_eq!(client.call(cmd!["RPUSH", "list:b", n]).int(), Some(n + 1));
    }
    assert!(segments_of(&sidecar, "list:b") > 1);
    for n in 0..6 {
        client.call(cmd!["RPUSH", "list:a", n]);
    }
    for (n, one) in waiting.iter_mut().enumerate() {
        let reply = one.recv().unwrap();
        let taken = match n % 2 {
            0 => reply.items()[1].clone(),
            _ => reply.items()[1].items()[0].clone(),
        };
        assert_eq!(taken.text().unwrap(), n.to_string());
    }
}

/// Transactions: the database is the one that was selected, a flush forgets where things were, and segments are opened as elsewhere.
#[test]
fn transactions_on_striped_lists() {
    let pool = Pool::start(2);
    let sidecar = Sidecar::start(&lists(&pool, 2, 3));
    let mut client = sidecar.client();
    let mut exec = |commands: &[Vec<Vec<u8>>]| {
        let mut all = vec![cmd!["MULTI"]];
        all.extend_from_slice(commands);
        all.push(cmd!["EXEC"]);
        client.pipeline(&all).unwrap().pop().unwrap().items()
    };
    for n in 0..12 {
        let pushed = exec(&[cmd!["RPUSH", "list:a", n], cmd!["LLEN", "list:a"]]);
        assert_eq!((pushed[0].int(), pushed[1].int()), (Some(n + 1), Some(n + 1)));
    }
    assert!(segments_of(&sidecar, "list:a") >= 4);
    let other = exec(&[
        cmd!["SELECT", 1],
        cmd!["RPUSH", "list:a", "x"],
        cmd!["SET", "plain", 1],
        cmd!["FLUSHDB"],
        cmd!["SELECT", 0],
    ]);
    assert!(other[0].is_ok() && other[2].is_ok() && other[3].is_ok());
    assert!(
        other[1].error().unwrap().contains("several steps"),
        "beside a flush: {other:?}"
    );
    assert_eq!(exec(&[cmd!["LLEN", "list:a"]])[0].int(), Some(12));
    assert_eq!(
        exec(&[cmd!["SELECT", 1], cmd!["EXISTS", "plain"], cmd!["SELECT", 0]])[1].int(),
        Some(0)
    );
    assert!(exec(&[cmd!["FLUSHALL"]])[0].is_ok());
    let mut client = sidecar.client();
    for n in 0..8 {
        assert_eq!(
            client.call(cmd!["RPUSH", "list:a", format!("n{n}")]).int(),
            Some(n + 1)
        );
    }
    assert_eq!(
        ids(&client.call(cmd!["LRANGE", "list:a", 0, -1])),
        ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"]
    );
    // Mistakes that nodes would refuse before they execute anything.
    for command in [
        cmd!["BLMPOP", "0.01", 2, "a", "b"],
        cmd!["LMPOP", 2, "a", "b"],
        cmd!["ZMPOP", 2, "a", "b"],
        cmd!["BZMPOP", "0.01", 2, "a", "b"],
        cmd!["SET", "rf@0001.0000:list:a", 1],
        cmd!["RPUSH", format!("list:{}", "k".repeat(2000)), 1],
    ] {
        let reply = client.call(command.clone());
        assert!(
            reply.error().is_some(),
            "{}: {reply:?}",
            String::from_utf8_lossy(&command[0])
        );
    }
    assert_converged(&pool, &sidecar);
}

#[test]
fn what_is_not_possible_on_a_striped_list_is_said() {
    let pool = Pool::start(2);
    let sidecar = Sidecar::start(&lists(&pool, 2, 3));
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["RPUSH", "list:a", 1, 2, 3]).int(), Some(3));
    assert_eq!(client.call(cmd!["RPUSH", "list:a", 4]).int(), Some(4));
    assert_eq!(segments_of(&sidecar, "list:a"), 2);
    for command in [
        cmd!["EXPIRE", "list:a", 10],
        cmd!["RENAME", "list:a", "b"],
        cmd!["SORT", "list:a"],
        cmd!["SET", "list:a", 1],
        cmd!["DUMP", "list:a"],
        cmd!["EVAL", "return 1", 1, "list:a"],
        cmd!["WATCH", "list:a"],
    ] {
        let words = String::from_utf8_lossy(&command[0]).into_owned();
        let reply = client.call(command);
        let error = reply.error().unwrap_or_default().to_owned();
        assert!(
            error.contains(&words) && error.contains("docs/PROFILES.md"),
            "{words}: {reply:?}"
        );
    }
    let replies = client
        .pipeline(&[cmd!["MULTI"], cmd!["LPOP", "list:a"], cmd!["EXEC"]])
        .unwrap();
    let error = replies[2].items()[0].error().unwrap().to_owned();
    assert!(error.contains("several steps"), "{error}");
    assert_eq!(
        ids(&client.call(cmd!["LRANGE", "list:a", 0, -1])),
        ["1", "2", "3", "4"]
    );
}

/// How many batches three nodes have been given, once they have been given so many writes at least.
fn batches_of(sidecar: &Sidecar, writes: usize) -> usize {
    let mut batches = 0;
    wait_until("all nodes are given them", Duration::from_secs(10), || {
        let metrics = sidecar.metrics();
        let count = |name: &str| -> usize {
            let mut counts = metrics.lines().filter_map(|line| line.strip_prefix(name));
            counts.next().unwrap().trim().parse().unwrap()
        };
        batches = count("ringfence_batches_total");
        count("ringfence_batched_writes_total") >= 3 * writes
    });
    batches
}

/// Pushes of a pipeline to a list of several segments do not wait for each other, and are answered as on a list of one.
#[test]
fn pushes_of_a_pipeline_travel_together() {
    const PUSHES: usize = 400;
    let pool = Pool::start(3);
    for threads in [1, 2] {
        let sidecar = Sidecar::start(&lists(&pool, 3, 1000).threads(threads));
        let mut client = sidecar.client();
        let key = format!("list:{threads}");
        let push = |from: usize, to: usize| -> Vec<Vec<Vec<u8>>> {
            (from..to).map(|n| cmd!["RPUSH", key, format!("{n}")]).collect()
        };
        let lengths = |replies: Vec<Reply>| -> Vec<i64> { replies.iter().filter_map(Reply::int).collect() };
        // Into its second segment.
        client.pipeline(&push(0, 1100)).unwrap();
        let batches = batches_of(&sidecar, 1100);
        let told = lengths(client.pipeline(&push(1100, 1100 + PUSHES)).unwrap());
        let expected: Vec<i64> = (1101..=1100 + PUSHES as i64).collect();
        assert_eq!(told, expected);
        let batches = batches_of(&sidecar, 1100 + PUSHES) - batches;
        // By itself each would take one of each of three nodes.
        assert!(batches < PUSHES * 3 / 2, "{batches} batches");
        // What comes behind them sees them; and two who push at once count together.
        let mut mixed = push(1100 + PUSHES, 1600);
        mixed.push(cmd!["LLEN", key]);
        mixed.push(cmd!["LINDEX", key, -1]);
        mixed.extend(push(1600, 1700));
        mixed.push(cmd!["LPOP", key]);
        let replies = client.pipeline(&mixed).unwrap();
        assert_eq!(replies[100], Reply::Int(1600));
        assert_eq!(replies[101], Reply::bulk("1599"));
        assert_eq!(replies[202], Reply::bulk("0"));
        let all: Vec<i64> = std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| lengths(sidecar.client().pipeline(&push(1700, 2700)).unwrap())))
                .collect();
            let each = pushers.into_iter().map(|pusher| pusher.join().unwrap());
            each.inspect(|told| assert!(told.is_sorted(), "{told:?}"))
                .flatten()
                .collect()
        });
        let mut all = all;
        all.sort_unstable();
        assert_eq!(all, (1700..3700).collect::<Vec<i64>>());
        assert_converged(&pool, &sidecar);
        drop(client);
        sidecar.kill9();
    }
}
