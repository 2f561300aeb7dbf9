//! `WATCH`, and transactions over several partitions.

use crate::cmd;
use crate::harness::{Client, Reply, wait_until};
use crate::side_by_side::{Both, Pair};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a transaction of a client that watches `key` is executed after `change`, on both sides.
#[track_caller]
fn executed(both: &Both, before: &str, watch: &str, change: &str) {
    let (mut watcher, mut other) = (both.client(), both.client());
    for line in before.split(';') {
        other.line(line);
    }
    watcher.line(watch);
    for line in change.split(';').filter(|line| !line.trim().is_empty()) {
        other.line(line);
    }
    watcher.line("MULTI");
    watcher.line("SET done 1");
    watcher.line("INCR counter");
    watcher.line("EXEC");
    other.line("FLUSHALL");
}

#[test]
fn what_counts_as_a_change() {
    Both::each(|both| {
        for (before, watch, change) in [
            ("SET k v", "WATCH k", ""),
            ("SET k v", "WATCH k", "GET k"),
            ("SET k v", "WATCH k", "SET k v"),
            ("SET k v", "WATCH k", "SET other v"),
            ("PING", "WATCH k", "SET k v"),
            ("PING", "WATCH k", "DEL k"),
            ("SADD k a", "WATCH k", "SADD k a"),
            ("SADD k a", "WATCH k", "SADD k b"),
            ("SADD k a", "WATCH k", "SADD k b;SREM k b"),
            ("RPUSH k a", "WATCH j k l", "RPOP k"),
            ("RPUSH k a", "WATCH j k l", "RPOP l"),
            ("RPUSH k a", "WATCH k", "LMOVE k j LEFT LEFT"),
            ("RPUSH k a", "WATCH j", "RENAME k j"),
            ("SET k v", "WATCH k", "EXPIRE k 100"),
            ("SET k v", "WATCH k", "FLUSHALL"),
            ("SET k v", "WATCH nothing", "FLUSHALL"),
            ("SET k v", "WATCH k", "EVAL redis.call('SET',KEYS[1],1) 1 k"),
            ("SET k v", "WATCH k", "SELECT 2;SET k v;SELECT 0"),
            ("SET k v", "WATCH k", "MULTI;SET j 1;SET k 2;EXEC"),
        ] {
            executed(both, before, watch, change);
        }
        both.assert_converged();
    });
}

/// A key that expires between `WATCH` and `EXEC` has changed; one that was gone before has not.
#[test]
fn expiry_is_a_change() {
    Both::each(one_expiry_is_a_change);
}

fn one_expiry_is_a_change(both: &Both) {
    let expired = |client: &mut Client| {
        wait_until("the key expires", PATIENCE, || {
            client.call(cmd!["EXISTS", "k"]).int() == Some(0)
        });
    };
    let (mut watcher, mut other) = (both.client(), both.client());
    other.line("SET k v PX 400");
    watcher.line("WATCH k");
    expired(&mut other.subject);
    expired(&mut other.reference);
    let transaction = |watcher: &mut Pair| watcher.run("MULTI\nSET done 1\nEXEC");
    transaction(&mut watcher);
    watcher.line("EXISTS done");
    watcher.line("WATCH k");
    transaction(&mut watcher);
    watcher.line("EXISTS done");
}

#[test]
fn watching_ends_where_it_ends_in_redis() {
    Both::each(one_watching_ends);
}

fn one_watching_ends(both: &Both) {
    let (mut watcher, mut other) = (both.client(), both.client());
    for end in [
        "UNWATCH",
        "MULTI\nDISCARD",
        "MULTI\nEXEC",
        "RESET",
        "MULTI\nNONSENSE\nEXEC",
    ] {
        watcher.line("WATCH a b c");
        watcher.run(end);
        other.run("INCR a\nINCR b\nINCR c");
        watcher.run("MULTI\nINCR done\nEXEC\nGET done");
    }
    watcher.run("WATCH a\nMULTI\nWATCH b\nGET a\nEXEC");
    watcher.run("WATCH a\nINCR a\nMULTI\nGET a\nEXEC\nGET a");
}

/// Ten clients count to five hundred by reading, adding one in their heads, and writing.
/// `UNWATCH` in a transaction is a part of it: it comes too late for what was changed. And however wrong an `EXEC` is, it ends the
/// transaction.
#[test]
fn what_is_queued_and_what_ends_a_transaction() {
    Both::each(|both| {
        let (mut watcher, mut other) = (both.client(), both.client());
        watcher.line("SET w 0");
        watcher.line("WATCH w");
        watcher.line("MULTI");
        watcher.line("SET mine 1");
        watcher.line("UNWATCH");
        other.line("SET w theirs");
        watcher.line("EXEC");
        watcher.line("GET mine");
        for line in [
            "MULTI", "SET x 1", "UNWATCH", "GET x", "EXEC", "WATCH w", "UNWATCH", "MULTI", "SET q 1",
            "EXEC x", "EXEC", "GET q", "EXEC x", "MULTI", "GET q", "EXEC",
        ] {
            watcher.line(line);
        }
    });
}

#[test]
fn optimistic_counters_count_right() {
    Both::each(counters_count_right);
}

fn counters_count_right(both: &Both) {
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = both.sidecar.client();
                for _ in 0..50 {
                    loop {
                        client.call(cmd!["WATCH", "counter", "other"]);
                        let n = client
                            .call(cmd!["GET", "counter"])
                            .text()
                            .map_or(0, |n| n.parse().unwrap());
                        client.call(cmd!["MULTI"]);
                        client.call(cmd!["SET", "counter", n + 1]);
                        if !client.call(cmd!["EXEC"]).is_nil() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(
        both.sidecar.client().call(cmd!["GET", "counter"]),
        Reply::bulk("500")
    );
    both.assert_converged();
}

/// The node that watches dies: the transaction may be given up, but never go ahead over a change.
#[test]
fn a_dead_node_cannot_hide_a_change() {
    let both = Both::start(1);
    both.sidecar.allow_log("stream lost");
    both.sidecar.allow_log("cannot be reached");
    both.sidecar.allow_log("still loading");
    for node in ["a", "b", "c"] {
        let (mut watcher, mut other) = (both.sidecar.client(), both.sidecar.client());
        other.call(cmd!["SET", "k", "before"]);
        watcher.call(cmd!["WATCH", "k"]);
        both.pool.node(node).kill9();
        other.call(cmd!["SET", "k", "changed"]);
        watcher.call(cmd!["MULTI"]);
        watcher.call(cmd!["SET", "k", "overwritten"]);
        let outcome = watcher.call(cmd!["EXEC"]);
        assert!(outcome.is_nil(), "{outcome}");
        both.pool.node(node).restart();
        both.sidecar.wait_all_in_sync(&both.pool, PATIENCE);
    }
}

const TRANSACTION: &str = "
    RPUSH l1 a b c
    SADD s a b c d e
    MULTI
    SET a 1
    LMOVE l1 l2 LEFT LEFT
    INCR a
    GET a
    LRANGE l2 0 -1
    MSET x 1 y 2 z 3
    MGET x y z a
    RENAME a b
    GET b
    SCARD s
    BLPOP l1 0
    BRPOP l1 l2 nothing 0
    BLPOP nothing nothing2 0
    BLMOVE l1 l3 LEFT RIGHT 0
    BRPOPLPUSH nothing l3 0
    BLMPOP 0 2 l3 l1 LEFT
    BZPOPMIN nothing 0
    XREAD BLOCK 0 STREAMS nothing 0
    XREAD BLOCK 0 STREAMS nothing nothing2 0 0
    LLEN l1
    SINTERCARD 2 s nothing
    EXEC
    MULTI
    SADD t one
    SPOP t
    SCARD t
    SADD t two
    SPOP t 5
    EXISTS t
    EXEC
    MULTI
    SET f 1
    FLUSHALL
    EXISTS f
    SET f 2
    EXEC
    GET f
    DBSIZE
    MULTI
    LMOVE l1 string LEFT LEFT
    LMOVE x l1 LEFT LEFT
    INCR a
    EXEC
";

#[test]
fn anything_can_be_in_a_transaction() {
    Both::each(|both| {
        for protocol in [2, 3] {
            let mut client = both.client();
            if protocol == 3 {
                client.subject.call(cmd!["HELLO", 3]);
                client.reference.call(cmd!["HELLO", 3]);
            }
            client.run(TRANSACTION);
            client.line("FLUSHALL");
        }
        both.assert_converged();
    });
}

/// What is queued is told with the reply to `EXEC`, if that came with it; else at once.
#[test]
fn a_transaction_that_came_at_once_is_answered_at_once() {
    let both = Both::start(1);
    let mut client = both.sidecar.client();
    client.call(cmd!["SET", "k", 1]);
    let soon = Duration::from_millis(100);
    client.send_raw(b"MULTI\r\nINCR k\r\n").unwrap();
    assert!(client.has_something(PATIENCE).unwrap());
    assert_eq!(
        [client.recv().unwrap(), client.recv().unwrap()].map(|reply| reply.to_string()),
        ["+OK", "+QUEUED"]
    );
    client.send_raw(b"EXEC\r\n").unwrap();
    client.recv().unwrap();
    let nodes = ["a", "b", "c"].map(|node| both.pool.node(node));
    for node in &nodes {
        node.stop();
    }
    client.send_raw(b"MULTI\r\nINCR k\r\nEXEC\r\n").unwrap();
    assert!(!client.has_something(soon).unwrap());
    for node in &nodes {
        node.cont();
    }
    let replies = [(); 3].map(|()| client.recv().unwrap());
    assert_eq!(replies.map(|reply| reply.to_string()), ["+OK", "+QUEUED", "[:3]"]);
}
