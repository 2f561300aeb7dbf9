//! Commands whose keys are in different partitions.

use crate::cmd;
use crate::harness::Client;
use crate::side_by_side::Both;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Names without a hash tag, so nearly every pair of them is in two partitions.
const COMMANDS: &str = "
    RPUSH l1 a b c d
    LMOVE l1 l2 LEFT RIGHT
    LMOVE l1 l2 RIGHT LEFT
    LMOVE l1 l2 UP LEFT
    LMOVE nothing l2 LEFT LEFT
    RPOPLPUSH l1 l3
    RPOPLPUSH l1 l3
    RPOPLPUSH l1 l3
    LRANGE l1 0 -1
    LRANGE l2 0 -1
    LRANGE l3 0 -1
    SET string v
    LMOVE l2 string LEFT LEFT
    LMOVE string l2 LEFT LEFT
    LRANGE l2 0 -1
    SADD s1 a b c
    SADD s2 c d
    SMOVE s1 s2 a
    SMOVE s1 s2 a
    SMOVE s1 s2 c
    SMOVE s1 string b
    SMOVE string s1 b
    SMOVE nothing string b
    SMOVE s1 string nobody
    SISMEMBER s1 a
    SISMEMBER s2 a
    RENAME l2 l4
    EXISTS l2 l4
    RENAME nothing l4
    PEXPIREAT l4 1999999999999
    RENAMENX l4 l3
    RENAMENX l4 l5
    PEXPIRETIME l5
    COPY l5 l6
    COPY l5 l6
    COPY l5 l3 REPLACE
    COPY l5 l7 DB 3
    COPY l5 l7 DB 99
    COPY l5 l7 DB 4 DB 15
    COPY {x}s {x}t DB 4 DB 15
    COPY l5 l7 DB x
    COPY l5 l7 FOO
    COPY nothing l7
    LRANGE l6 0 -1
    LRANGE l3 0 -1
    PEXPIRETIME l3
    MSETNX n1 1 n2 2 n3 3
    MSETNX n3 1 n4 2
    MGET n1 n2 n3 n4
    SADD u1 a b c
    SADD u2 b c d
    SINTERSTORE u3 u1 u2
    SINTERCARD 2 u1 u2
    SINTERCARD 2 u1 u2 LIMIT 1
    SINTERSTORE u3 u1 nothing
    EXISTS u3
    SUNIONSTORE u4 u1 u2
    SDIFFSTORE u5 u1 u2
    SMEMBERS u5
    SDIFF u1 u2
    SINTER u1 string
    ZADD z1 1 a 2 b 3 c
    ZADD z2 10 b 20 c 30 d
    ZUNIONSTORE z3 2 z1 z2 WEIGHTS 2 1 AGGREGATE MAX
    ZRANGE z3 0 -1 WITHSCORES
    ZINTERSTORE z4 2 z1 z2
    ZDIFFSTORE z5 2 z1 z2
    ZUNION 2 z1 z2 WITHSCORES
    ZINTER 2 z1 z2
    ZINTERCARD 2 z1 z2
    ZDIFF 2 z1 z2 WITHSCORES
    ZRANGESTORE z6 z3 0 1
    ZRANGE z6 0 -1 WITHSCORES
    ZRANGESTORE z6 nothing 0 1
    EXISTS z6
    ZMPOP 2 nothing z1 MIN COUNT 2
    ZMPOP 2 nothing nothing2 MIN
    LMPOP 3 nothing l5 l6 RIGHT COUNT 2
    LMPOP 2 nothing string LEFT
    LMPOP 2 nothing l5 UP
    LRANGE l5 0 -1
    SET b1 abc
    SET b2 xyzw
    BITOP OR b3 b1 b2
    BITOP NOT b4 b1
    GET b3
    GET b4
    PFADD p1 a b c
    PFADD p2 c d e
    PFCOUNT p1 p2
    PFMERGE p3 p1 p2
    PFCOUNT p3
    LCS b1 b2
    LCS b1 b2 LEN
    GEOADD g1 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
    GEOSEARCHSTORE g2 g1 FROMLONLAT 15 37 BYRADIUS 200 km ASC
    ZRANGE g2 0 -1 WITHSCORES
    RPUSH o1 3 1 2
    SORT o1 STORE o2
    LRANGE o2 0 -1
    SORT o1 DESC LIMIT 0 2 STORE o3
    LRANGE o3 0 -1
    XADD x1 1-1 f v
    XADD x2 2-1 f v
    XREAD STREAMS x1 x2 0 0
    XREAD COUNT 1 STREAMS nothing x2 0 0
    XREAD STREAMS nothing nothing2 0 0
    XREAD STREAMS x1 x2 5 5
    XGROUP CREATE x1 g 0
    XGROUP CREATE x2 g 0
    XREADGROUP GROUP g c STREAMS x1 x2 > >
    XREADGROUP GROUP g c STREAMS x1 x2 > >
    XREADGROUP GROUP g c STREAMS x1 nothing 0 0
    ZUNIONSTORE z7 2 z1 string
    EXISTS z7
    SUNIONSTORE u9 u1 string
    EXISTS u9
";

#[test]
fn every_command_answers_as_one_server() {
    Both::each(|both| {
        for protocol in [2, 3] {
            let mut client = both.client();
            if protocol == 3 {
                client.subject.call(cmd!["HELLO", 3]);
                client.reference.call(cmd!["HELLO", 3]);
            }
            client.run(COMMANDS);
            client.line("FLUSHALL");
        }
        both.assert_converged();
    });
}

/// Elements go round and round; whoever looks at both lists at once sees all of them, none twice.
#[test]
fn nobody_sees_an_element_on_its_way() {
    Both::each(|both| nobody_sees_one_on_its_way(both, 300, || {}));
}

/// A node that stands still for a moment, so that what it was asked is asked of another one, later than the rest of the
/// transaction.
#[test]
fn nobody_sees_one_when_reads_are_taken_elsewhere() {
    for (nodes, replicas, threads) in [(3, 3, 1), (6, 3, 2)] {
        let both = Both::of(nodes, replicas, threads);
        both.sidecar.allow_log("node");
        let node = &both.pool.nodes[0];
        nobody_sees_one_on_its_way(&both, 1500, || {
            node.stop();
            std::thread::sleep(STANDSTILL);
            node.cont();
        });
    }
}

/// Longer than a sidecar waits before it asks another node, shorter than `timeouts.node`.
const STANDSTILL: Duration = Duration::from_millis(120);

/// Somebody looks so often; `trouble` is made again and again meanwhile.
fn nobody_sees_one_on_its_way(both: &Both, looks: usize, trouble: impl Fn() + Sync) {
    // Their partitions are read on three different nodes, where there are three copies.
    let mut client = both.sidecar.client();
    client.call(cmd!["RPUSH", "here", 1, 2, 3, 4, 5]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (from, to) in [("here", "beyond"), ("beyond", "here"), ("here", "beyond")] {
            let done = &done;
            scope.spawn(move || {
                let mut client = both.sidecar.client();
                while !done.load(Ordering::Relaxed) {
                    client.call(cmd!["LMOVE", from, to, "LEFT", "RIGHT"]);
                    client.call(cmd!["RENAMENX", from, "aside"]);
                    client.call(cmd!["LMOVE", "aside", from, "LEFT", "RIGHT"]);
                    client.call(cmd!["RENAMENX", "aside", from]);
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                trouble();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for _ in 0..looks {
            client.call(cmd!["MULTI"]);
            for list in ["here", "beyond", "aside"] {
                client.call(cmd!["LRANGE", list, 0, -1]);
            }
            let mut seen: Vec<String> = client
                .call(cmd!["EXEC"])
                .items()
                .iter()
                .flat_map(|list| list.items())
                .filter_map(|element| element.text())
                .collect();
            seen.sort();
            if seen != ["1", "2", "3", "4", "5"] {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(seen, ["1", "2", "3", "4", "5"]);
        }
        done.store(true, Ordering::Relaxed);
    });
    both.assert_converged();
}

/// A client's own next commands come after the one that takes several steps.
#[test]
fn a_pipeline_keeps_its_order() {
    Both::each(one_pipeline_keeps_its_order);
}

/// Others hold some of its partitions again and again.
fn one_pipeline_keeps_its_order(both: &Both) {
    let mut client = both.sidecar.client();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for key in ["a", "b", "c"] {
            let done = &done;
            scope.spawn(move || {
                let mut client = both.sidecar.client();
                while !done.load(Ordering::Relaxed) {
                    client.call(cmd!["WATCH", key]);
                    client.call(cmd!["MULTI"]);
                    client.call(cmd!["EXEC"]);
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| in_order(&mut client)));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn in_order(client: &mut Client) {
    for round in 0..100 {
        let replies = client
            .pipeline(&[
                cmd!["SET", "a", round],
                cmd!["RENAME", "a", "b"],
                cmd!["GET", "b"],
                cmd!["EXISTS", "a"],
                cmd!["COPY", "b", "c", "REPLACE"],
                cmd!["APPEND", "b", "x"],
                cmd!["GET", "c"],
            ])
            .unwrap();
        let text: Vec<String> = replies.iter().map(ToString::to_string).collect();
        assert_eq!(replies[2].text(), Some(round.to_string()), "{text:?}");
        assert_eq!(replies[3].int(), Some(0), "{text:?}");
        assert_eq!(replies[6].text(), Some(round.to_string()), "{text:?}");
    }
}

/// Scripts over keys of several partitions, as drivers have them: what the text proves, and what a loop hides.
#[test]
fn scripts_over_several_partitions() {
    for threads in [1, 3] {
        let both = Both::start(threads);
        let mut client = both.client();
        let script = |text: &str, rest: &str| {
            let mut words = vec![b"EVAL".to_vec(), text.as_bytes().to_vec()];
            words.extend(crate::side_by_side::words(rest));
            words
        };
        for (text, rest) in [
            (
                "redis.call('SADD', KEYS[1], ARGV[1]) return redis.call('ZADD', KEYS[2], 1, ARGV[1])",
                "2 s z one",
            ),
            (
                "for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3]}) do redis.call('EXPIRE', key, 1000) end return redis.call('TTL', KEYS[1])",
                "3 s z nothing",
            ),
            (
                "return {redis.call('SCARD', KEYS[1]), redis.call('ZCARD', KEYS[2]), redis.call('EXISTS', KEYS[3])}",
                "3 s z nothing",
            ),
            ("redis.call('DEL', unpack(KEYS)) return #KEYS", "3 s z nothing"),
            (
                "return redis.call('EXISTS', KEYS[1]) + redis.call('EXISTS', KEYS[2])",
                "2 s z",
            ),
            (
                "redis.call('RPUSH', KEYS[1], 1) return redis.call('INCR', KEYS[1])",
                "2 l other",
            ),
            ("return KEYS", "2 a b"),
            ("return redis.error_reply('MINE it is')", "2 a b"),
        ] {
            let found = client.subject.call(script(text, rest));
            let expected = client.reference.call(script(text, rest));
            assert_eq!(found, expected, "{text}");
        }
        client.run("LRANGE l 0 -1");
        both.assert_converged();
    }
}

/// With one thread, and every key on every node, a script may touch what it likes; else it is told what it may not.
#[test]
fn keys_that_a_script_builds_itself() {
    let sweep = "local n = 0 for _, name in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do n = n + redis.call('DEL', ARGV[1] .. name) end return n";
    for (threads, allowed) in [(1, true), (2, false)] {
        let both = Both::start(threads);
        let mut client = both.sidecar.client();
        client.call(cmd!["RPUSH", "names", "a", "b", "c"]);
        client.call(cmd!["MSET", "binding.a", 1, "binding.b", 2]);
        let reply = client.call(cmd!["EVAL", sweep, 1, "names", "binding."]);
        match allowed {
            true => assert_eq!(reply.int(), Some(2), "{reply}"),
            false => assert!(
                reply.error().is_some_and(|e| e.starts_with("CROSSSLOT")),
                "{reply}"
            ),
        }
        let left = if allowed { 0 } else { 2 };
        assert_eq!(
            client.call(cmd!["EXISTS", "binding.a", "binding.b"]).int(),
            Some(left)
        );
        both.assert_converged();
    }
}
