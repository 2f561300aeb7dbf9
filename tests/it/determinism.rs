//! Same bytes, same effect: whatever could differ between two nodes must not. Replies are by chance here, so only the
//! copies are compared, after every command that plain mirroring would get wrong.

use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Client, Pool, Reply, Sidecar, SidecarConfig, wait_until};
use std::time::Duration;

/// Runs the commands; none may fail; then the copies must agree.
#[track_caller]
fn agree_after(commands: &[Vec<Vec<u8>>]) {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    for command in commands {
        let reply = client.call(command.clone());
        assert!(
            reply.error().is_none(),
            "{}: {reply}",
            crate::harness::printable(&command.join(&b' '))
        );
    }
    assert_converged(&pool, &sidecar);
}

fn members(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| format!("member-{at}").into_bytes()).collect()
}

#[test]
fn random_members_are_removed_alike() {
    let mut commands = vec![[cmd!["SADD", "set"], members(300)].concat()];
    commands.extend((0..50).map(|_| cmd!["SPOP", "set"]));
    commands.extend((0..10).map(|_| cmd!["SPOP", "set", 7]));
    agree_after(&commands);
}

#[test]
fn deadlines_and_ids_are_the_same_to_the_millisecond() {
    let mut commands = Vec::new();
    for at in 0..40 {
        commands.push(cmd!["SET", format!("a{at}"), "v", "EX", 1000]);
        commands.push(cmd!["SETEX", format!("b{at}"), 1000, "v"]);
        commands.push(cmd!["SET", format!("c{at}"), "v"]);
        commands.push(cmd!["PEXPIRE", format!("c{at}"), 1_000_000]);
        commands.push(cmd!["SET", format!("d{at}"), "v"]);
        commands.push(cmd!["GETEX", format!("d{at}"), "PX", 1_000_000]);
        commands.push(cmd!["XADD", "stream", "*", "f", at]);
        commands.push(cmd!["XADD", "trimmed", "MAXLEN", "~", 10, "*", "f", at]);
    }
    commands.push(cmd!["MULTI"]);
    commands.push(cmd!["XADD", "stream", "*", "f", "v"]);
    commands.push(cmd!["SET", "in-multi", "v", "EX", 500]);
    commands.push(cmd!["EXEC"]);
    agree_after(&commands);
}

#[test]
fn claims_of_stream_entries_are_the_same() {
    let mut commands = vec![cmd!["XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"]];
    commands.extend((0..30).map(|at| cmd!["XADD", "s", "*", "f", at]));
    commands.push(cmd![
        "XREADGROUP",
        "GROUP",
        "g",
        "alice",
        "COUNT",
        20,
        "STREAMS",
        "s",
        ">"
    ]);
    commands.push(cmd!["XAUTOCLAIM", "s", "g", "bob", 1, "0", "COUNT", 5]);
    commands.push(cmd![
        "XAUTOCLAIM",
        "s",
        "g",
        "carol",
        0,
        "0",
        "COUNT",
        5,
        "JUSTID"
    ]);
    commands.push(cmd!["XREADGROUP", "GROUP", "g", "bob", "STREAMS", "s", ">"]);
    agree_after(&commands);
}

#[test]
fn ties_are_sorted_alike() {
    agree_after(&[
        [cmd!["SADD", "{t}set"], members(200)].concat(),
        cmd!["SORT", "{t}set", "BY", "nosort", "STORE", "{t}list"],
        cmd!["SORT", "{t}set", "ALPHA", "STORE", "{t}sorted"],
    ]);
}

#[test]
fn scripts_that_could_differ_do_not() {
    let scripts = [
        "redis.call('SET', KEYS[1], redis.call('TIME')[2])",
        "return redis.call('SPOP', KEYS[2])",
        "redis.call('SET', KEYS[1], redis.call('SRANDMEMBER', KEYS[2]))",
        "for _, m in ipairs(redis.call('SMEMBERS', KEYS[2])) do redis.call('RPUSH', KEYS[3], m) end",
        "redis.call('SET', KEYS[1], tostring({}))",
        "redis.call('XADD', KEYS[4], '*', 'f', 'v')",
        "redis.call('SET', KEYS[1], 'v', 'EX', 1000)",
        "redis.call('SET', KEYS[1], math.random())",
        "local t = {} for i = 1, 50 do t['k' .. i] = i end for k in pairs(t) do redis.call('RPUSH', KEYS[3], k) end",
    ];
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    client.call([cmd!["SADD", "{t}set"], members(200)].concat());
    for (at, script) in scripts.iter().enumerate() {
        let keys = cmd![
            format!("{{t}}s{at}"),
            "{t}set",
            format!("{{t}}l{at}"),
            format!("{{t}}x{at}")
        ];
        let reply = client.call([cmd!["EVAL", script, 4], keys].concat());
        // Mirrored, or refused with a sentence that says why; never a difference.
        let refused = reply
            .error()
            .is_none_or(|text| text.contains("cannot be mirrored"));
        assert!(refused, "{script}: {reply}");
    }
    assert_converged(&pool, &sidecar);
}

#[test]
fn transactions_that_could_differ_do_not() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    client.call([cmd!["SADD", "set"], members(200)].concat());
    assert!(client.call(cmd!["MULTI"]).is_ok());
    let queued = client.call(cmd!["SPOP", "set", 3]);
    client.call(cmd!["SADD", "set", "new"]);
    let done = client.call(cmd!["EXEC"]);
    match queued.error() {
        None => assert_eq!(done.items().len(), 2, "{done}"),
        Some(_) => {
            assert!(
                done.error().is_some_and(|text| text.starts_with("EXECABORT")),
                "{done}"
            );
            assert_eq!(
                client.call(cmd!["SCARD", "set"]),
                Reply::Int(200),
                "an aborted transaction did something"
            );
        }
    }
    assert_converged(&pool, &sidecar);
}

#[test]
fn scripts_known_by_their_digest_work_in_transactions() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    let digest = client.call(cmd![
        "SCRIPT",
        "LOAD",
        "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    ]);
    let digest = digest.text().expect("a digest");
    for round in 1..=20 {
        assert!(client.call(cmd!["MULTI"]).is_ok());
        client.call(cmd!["EVALSHA", digest, 1, "n", 2]);
        client.call(cmd!["INCR", "n"]);
        let done = client.call(cmd!["EXEC"]);
        assert_eq!(
            done.items(),
            [Reply::Int(round * 3 - 1), Reply::Int(round * 3)],
            "{done}"
        );
        // A node that has just started does not know the script.
        if round == 10 {
            sidecar.allow_log("node");
            pool.nodes[2].restart();
            sidecar.wait_all_in_sync(&pool, Duration::from_secs(15));
        }
    }
    assert_converged(&pool, &sidecar);
}

#[test]
fn keys_that_expire_are_gone_everywhere_for_every_reader() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    for at in 0..50 {
        assert!(
            client
                .call(cmd!["SET", format!("k{at}"), "v", "PX", 30 + at])
                .is_ok()
        );
        assert!(
            client
                .call(cmd!["SET", format!("past{at}"), "v", "EXAT", 1])
                .is_ok()
        );
    }
    for at in 0..50 {
        assert!(client.call(cmd!["GET", format!("past{at}")]).is_nil());
        let key = format!("k{at}");
        wait_until("a key expires", Duration::from_secs(5), || {
            client.call(cmd!["GET", key]).is_nil()
        });
        // Gone on one node is gone on all: no later read may find it again.
        for _ in 0..6 {
            assert!(client.call(cmd!["GET", key]).is_nil(), "{key} came back");
        }
    }
    assert!(assert_converged(&pool, &sidecar).is_empty());
}

/// Commands that do not tell by their reply whether the key was still there, on keys that expire all the time.
#[test]
fn writes_in_the_moment_a_key_expires_do_not_part_the_copies() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    // Seen by the comparison of the mirrors' replies, which is what has it repaired.
    sidecar.allow_log("answered otherwise");
    let write = |client: &mut Client, key: &str, at: usize| {
        let commands = [
            cmd!["HSET", format!("{key}h"), format!("f{at}"), at],
            cmd!["PEXPIRE", format!("{key}h"), 5],
            cmd!["SADD", format!("{key}s"), at],
            cmd!["PEXPIRE", format!("{key}s"), 5],
            cmd!["ZADD", format!("{key}z"), at, at],
            cmd!["PEXPIRE", format!("{key}z"), 5],
            cmd!["INCR", format!("{key}n")],
            cmd!["PEXPIRE", format!("{key}n"), 5],
        ];
        let replies = client.pipeline(&commands).expect("replies");
        assert!(
            replies.iter().all(|reply| matches!(reply, Reply::Int(_))),
            "{replies:?}"
        );
    };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let sidecar = &sidecar;
            scope.spawn(move || {
                let mut client = sidecar.client();
                for at in 0..1500 {
                    write(&mut client, &format!("k{thread}-{}", at % 10), at);
                }
            });
        }
    });
    // What is left is written once more and kept.
    let mut client = sidecar.client();
    for thread in 0..3 {
        for at in 0..10 {
            for (kind, command) in [("h", cmd!["HSET"]), ("s", cmd!["SADD"]), ("z", cmd!["ZADD"])] {
                let key = format!("k{thread}-{at}{kind}");
                let rest = if kind == "s" {
                    cmd![key, "last"]
                } else {
                    cmd![key, 1, "last"]
                };
                assert!(client.call([command, rest].concat()).error().is_none());
                assert!(client.call(cmd!["PERSIST", key]).error().is_none());
            }
        }
    }
    assert_converged(&pool, &sidecar);
}
