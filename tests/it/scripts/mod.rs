//! Scripts and functions: known to the whole pool, executed alike everywhere, and answered as Redis answers.

mod functions;
mod long;

use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Client, Pool, Reply, Sidecar, SidecarConfig, encode};
use crate::side_by_side::{Both, Pair};
use std::time::Duration;

type Line = Vec<Vec<u8>>;

/// Sends a command to both; the replies are compared, and returned.
#[track_caller]
fn same(pair: &mut Pair, command: Line) -> Reply {
    let found = pair.subject.call(command.clone());
    let expected = pair.reference.call(command.clone());
    let text = crate::harness::printable(&command.join(&b' '));
    assert_eq!(found, expected, "{text}\n  pool: {found}\n  Redis: {expected}");
    found
}

fn hello(pair: &mut Pair, protocol: u16) {
    for client in [&mut pair.subject, &mut pair.reference] {
        assert!(client.call(cmd!["HELLO", protocol]).error().is_none());
    }
}

const PLAIN: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";

#[test]
fn scripts_answer_as_those_of_redis() {
    let both = Both::start(4);
    let mut pair = both.client();
    for protocol in [2, 3] {
        hello(&mut pair, protocol);
        same(&mut pair, cmd!["FLUSHALL"]);
        same(&mut pair, cmd!["SCRIPT", "FLUSH"]);
        let digest = same(&mut pair, cmd!["SCRIPT", "LOAD", PLAIN])
            .text()
            .expect("a digest");
        same(
            &mut pair,
            cmd![
                "SCRIPT",
                "EXISTS",
                digest.to_uppercase(),
                "x",
                "ffffffffffffffffffffffffffffffffffffffff"
            ],
        );
        for command in [
            cmd!["EVALSHA", digest, 1, "n", 5],
            cmd!["EVALSHA", digest, 1, "n", "x"],
            cmd!["EVALSHA_RO", digest, 1, "n", 5],
            cmd!["EVALSHA", "x", 0],
            cmd!["EVALSHA", digest, 2, "n"],
            cmd!["EVALSHA", digest, "x", "n"],
            cmd!["EVALSHA", digest, -1, "n"],
            cmd!["EVAL_RO", "return redis.call('GET', KEYS[1])", 1, "n"],
            cmd!["EVAL_RO", "return redis.call('SET', KEYS[1], 1)", 1, "n"],
            cmd!["EVAL", "return {1, 2.9, 'x', true, false, nil, 7}", 0],
            cmd!["EVAL", "return {err='MINE not good'}", 0],
            cmd!["EVAL", "return {ok='FINE'}", 0],
            cmd!["EVAL", "redis.setresp(3) return {double=1.5}", 0],
            cmd!["EVAL", "redis.setresp(3) return {map={a=1}}", 0],
            cmd![
                "EVAL",
                "redis.setresp(3) return {true, false, {big_number='123'}}",
                0
            ],
            cmd![
                "EVAL",
                "return redis.sha1hex('x') .. cjson.encode({1, 2}) .. bit.tohex(255)",
                0
            ],
            cmd!["EVAL", "return cmsgpack.unpack(cmsgpack.pack({1, 'a'}))", 0],
            cmd!["EVAL", "return struct.unpack('>I2', struct.pack('>I2', 513))", 0],
            cmd!["EVAL", "return redis.error_reply('OWN error')", 0],
            cmd!["EVAL", "return redis.status_reply('STATUS')", 0],
            cmd![
                "EVAL",
                "redis.log(redis.LOG_NOTICE, 'said') return redis.breakpoint()",
                0
            ],
            cmd!["EVAL", "local x =", 0],
            cmd!["EVAL", "return nosuch", 0],
            cmd!["EVAL", "\n\nerror('here')", 0],
            cmd!["EVAL", "return redis.call('LPUSH', KEYS[1], 1)", 1, "n"],
            cmd!["EVAL", "return redis.pcall('LPUSH', KEYS[1], 1)", 1, "n"],
            cmd![
                "EVAL",
                "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)",
                1,
                "n"
            ],
            cmd!["SCRIPT", "FLUSH", "now"],
            cmd!["SCRIPT", "KILL"],
            cmd!["SCRIPT", "HELP"],
            cmd!["SCRIPT", "NOSUCH"],
            cmd!["FUNCTION", "KILL"],
            cmd!["SCRIPT", "FLUSH", "ASYNC"],
            cmd!["SCRIPT", "EXISTS", digest],
            cmd!["EVALSHA", digest, 1, "n", 5],
        ] {
            same(&mut pair, command);
        }
    }
    both.assert_converged();
}

/// Scripts that run with something in front answer as if they did not.
#[test]
fn a_prelude_is_not_seen() {
    let both = Both::start(1);
    let mut pair = both.client();
    for protocol in [2, 3] {
        hello(&mut pair, protocol);
        for (script, keys) in [
            ("return {#KEYS, #ARGV, KEYS[1], redis.call('TIME')[1] > '1'}", 1),
            (
                "local t = redis.call('TIME') return {#t, 'x', 1.5, false, true}",
                1,
            ),
            (
                "redis.call('SET', KEYS[1], 'v', 'EX', 100) return redis.call('TTL', KEYS[1])",
                1,
            ),
            ("redis.call('PUBLISH', 'c', 'm') return nil", 1),
            ("redis.call('PUBLISH', 'c', 'm') return false", 1),
            ("return redis.call('PUBLISH', 'c', 'm')", 1),
            ("redis.call('PUBLISH', 'c', 'm') return true", 1),
            (
                "redis.call('PUBLISH', 'c', 'm') redis.setresp(3) return {1, {double=2.5}, true, {map={a=false}}}",
                1,
            ),
            ("redis.call('PUBLISH', 'c', 'm') return {err='OWN thing'}", 1),
            ("redis.call('PUBLISH', 'c', 'm') return {ok='WELL'}", 1),
            ("redis.call('PUBLISH', 'c', 'm') return {1, 2, nil, 4}", 1),
            ("redis.call('SPUBLISH', 'c', 'm') return 3.99", 1),
            (
                "return redis.call('SET', KEYS[1] .. ':x', redis.call('TIME')[1] and 1)",
                1,
            ),
            ("return nosuch or redis.call('TIME')", 1),
            ("redis.call('TIME') error('here')", 1),
            ("redis.call('TIME') return redis.call('LPUSH', KEYS[1])", 1),
            ("redis.call('TIME') return redis.pcall('NOSUCH')", 1),
            ("redis.call('TIME') return {redis.pcall('GET', KEYS[1], 1)}", 1),
            ("redis.call('TIME') redis.x = 1", 1),
            ("redis.call('TIME') return redis.nosuch", 1),
            (
                "redis.call('TIME') return type(redis.sha1hex('')) .. redis.LOG_WARNING",
                1,
            ),
            ("return redis.call('GET', '{t}undeclared')", 1),
        ] {
            same(&mut pair, cmd!["DEL", "{t}k", "{t}k:x"]);
            same(&mut pair, cmd!["EVAL", script, keys, "{t}k", "one", "two"]);
            let digest = same(&mut pair, cmd!["SCRIPT", "LOAD", script])
                .text()
                .expect("a digest");
            same(&mut pair, cmd!["EVALSHA", digest, keys, "{t}k", "one", "two"]);
            same(&mut pair, cmd!["MULTI"]);
            same(&mut pair, cmd!["EVALSHA", digest, keys, "{t}k", "one"]);
            same(&mut pair, cmd!["PING"]);
            same(&mut pair, cmd!["EXEC"]);
        }
    }
    both.assert_converged();
}

#[test]
fn keys_that_are_not_declared_are_told_apart() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2));
    let mut client = sidecar.client();
    // As BullMQ does: all keys are made of a declared prefix that has a hash tag.
    let job = "local id = redis.call('INCR', KEYS[1] .. 'id') redis.call('HSET', KEYS[1] .. id, 'data', ARGV[1]) \
               redis.call('LPUSH', KEYS[1] .. 'wait', id) return id";
    for n in 1..=5 {
        assert_eq!(client.call(cmd!["EVAL", job, 1, "{bull}:", "x"]), Reply::Int(n));
    }
    assert_eq!(client.call(cmd!["LLEN", "{bull}:wait"]), Reply::Int(5));
    let in_table = "local add = {'SADD', KEYS[2]} for i = 1, #ARGV do add[#add + 1] = ARGV[i] end if #ARGV == 0 then return 'none' end \
                    return redis.call(unpack(add))";
    for (keys, expected) in [
        (cmd![2, "{a}1", "{a}2", "x", "y"], Reply::Int(2)),
        (cmd![1, "{a}1"], Reply::bulk("none")),
    ] {
        assert_eq!(client.call([cmd!["EVAL", in_table], keys].concat()), expected);
    }
    for (script, keys) in [
        (job, cmd![1, "bull:"]),
        ("return redis.call('SET', 'literal', 1)", cmd![0]),
        ("return redis.call('SET', ARGV[1], 1)", cmd![0, "given"]),
        ("return redis.call('DEL', KEYS[1], ARGV[1])", cmd![1, "a", "b"]),
        // Not given its second key, the command has another one.
        (in_table, cmd![1, "a", "other", "b"]),
    ] {
        let reply = client.call([cmd!["EVAL", script], keys].concat());
        let error = reply.error().unwrap_or_default();
        assert!(
            error.starts_with("CROSSSLOT") && error.contains("KEYS"),
            "{script}: {reply}"
        );
    }
    assert_eq!(
        client.call(cmd!["EXISTS", "literal", "given", "bull:id", "other"]),
        Reply::Int(0)
    );
    let keys = client.call(cmd!["EVAL", "return redis.call('KEYS', '*')", 0]);
    assert!(
        keys.error()
            .is_some_and(|text| text.contains("not possible in a script")),
        "{keys}"
    );
    assert_converged(&pool, &sidecar);
}

/// A sidecar that has just been started knows what the last one knew.
#[test]
fn scripts_outlive_the_sidecar_and_the_nodes() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2));
    let mut client = sidecar.client();
    let loaded = client
        .call(cmd!["SCRIPT", "LOAD", PLAIN])
        .text()
        .expect("a digest");
    let shown = client
        .call(cmd!["EVAL", "return redis.sha1hex('return ARGV[1]')", 0])
        .text()
        .expect("a digest");
    assert_eq!(
        client
            .call(cmd!["EVAL", "return ARGV[1]", 0, "x"])
            .text()
            .as_deref(),
        Some("x")
    );
    // What was only run is kept in the background.
    let is_kept = |node: &crate::harness::Node| {
        let mut direct = node.client();
        direct.call(cmd!["SELECT", 15]);
        direct.call(cmd!["HEXISTS", "rf:library", format!("s{shown}")]) == Reply::Int(1)
    };
    crate::harness::wait_until("the script is kept", Duration::from_secs(5), || {
        pool.nodes.iter().filter(|node| is_kept(node)).count() >= 2
    });
    sidecar.restart();
    let mut client = sidecar.client();
    assert_eq!(
        client.call(cmd!["SCRIPT", "EXISTS", loaded, shown]).items(),
        [Reply::Int(1), Reply::Int(1)]
    );
    assert_eq!(client.call(cmd!["EVALSHA", loaded, 1, "n", 5]), Reply::Int(5));
    sidecar.allow_log("node");
    pool.nodes[1].restart_empty();
    assert_eq!(client.call(cmd!["EVALSHA", loaded, 1, "n", 5]), Reply::Int(10));
    crate::harness::wait_until("the emptied node keeps it again", Duration::from_secs(10), || {
        is_kept(&pool.nodes[1])
    });
    assert!(client.call(cmd!["SCRIPT", "FLUSH"]).is_ok());
    let refused = client.call(cmd!["EVALSHA", loaded, 1, "n", 5]);
    assert!(
        refused.error().is_some_and(|text| text.starts_with("NOSCRIPT")),
        "{refused}"
    );
    sidecar.restart();
    assert_eq!(
        sidecar.client().call(cmd!["SCRIPT", "EXISTS", loaded]).items(),
        [Reply::Int(0)]
    );
}

/// While a script of a client is shown to a node that hangs, somebody else shows it to another one, and then the client is woken by
/// the reply to its command before: the script is answered all the same, and what comes behind it.
#[test]
fn a_script_that_several_show_at_once_is_answered_to_each() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).patient());
    let (mut client, mut observer) = (sidecar.client(), sidecar.client());
    let (script, mut others) = ("return redis.call('INCR', KEYS[1])", Vec::new());
    pool.nodes[0].stop();
    pool.nodes[1].stop();
    for command in [cmd!["INCR", "n"], cmd!["EVAL", script, 1, "n"]] {
        client.send_raw(&encode(&command)).expect("sent");
    }
    // The first ones ask the same node, until that is known to be slow.
    let digest = sha1_smol::Sha1::from(script).digest().to_string();
    crate::harness::wait_until("the script is known", Duration::from_secs(10), || {
        let mut other = sidecar.client();
        other
            .send_raw(&encode(&cmd!["EVAL", script, 1, "m"]))
            .expect("sent");
        others.push(other);
        observer.call(cmd!["SCRIPT", "EXISTS", digest]).items() == [Reply::Int(1)]
    });
    pool.nodes[1].cont();
    assert_eq!(client.recv().ok(), Some(Reply::Int(1)));
    pool.nodes[0].cont();
    assert_eq!(client.recv().ok(), Some(Reply::Int(2)));
    assert_eq!(client.call(cmd!["INCR", "n"]), Reply::Int(3));
    for mut other in others {
        assert!(other.recv().is_ok_and(|reply| reply.int().is_some()));
    }
    assert_converged(&pool, &sidecar);
}

#[test]
fn a_script_that_is_shown_to_a_dying_node_is_shown_to_another() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).patient());
    sidecar.allow_log("node");
    let mut client = sidecar.client();
    // The one that is asked, unless it has been slow on a busy machine.
    pool.nodes[0].stop();
    client
        .send_raw(&encode(&cmd!["EVAL", PLAIN, 1, "n", 5]))
        .expect("sent");
    client
        .has_something(Duration::from_millis(200))
        .expect("connected");
    pool.nodes[0].kill9();
    assert_eq!(client.recv().ok(), Some(Reply::Int(5)));
    pool.nodes[0].restart();
    sidecar.wait_all_in_sync(&pool, Duration::from_secs(20));
    assert_converged(&pool, &sidecar);
}

/// What `math.random` gives goes on from script to script on each server; here it is the same on all.
#[test]
fn chance_is_the_same_on_a_node_that_has_seen_less() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    pool.nodes[0]
        .client()
        .call(cmd!["EVAL", "return math.random()", 0]);
    let mut seen = Vec::new();
    for n in 0..20 {
        let reply = client.call(cmd![
            "EVAL",
            "redis.call('SET', KEYS[1], tostring(math.random()) .. math.random(1000)) return redis.call('GET', KEYS[1])",
            1,
            format!("k{n}")
        ]);
        seen.push(reply.text().expect("a number"));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20, "chance repeats itself");
    assert_converged(&pool, &sidecar);
}

fn client_of(sidecar: &Sidecar, timeout: Duration) -> Client {
    let mut client = sidecar.client();
    client.set_timeout(timeout).expect("a timeout");
    client
}

/// What scripts and functions publish reaches those who have subscribed, once each, and the publisher gets its reply first.
#[test]
fn messages_of_scripts_reach_subscribers() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2));
    let mut subscriber = sidecar.client();
    subscriber.call(cmd!["SUBSCRIBE", "c"]);
    let mut client = sidecar.client();
    let script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('PUBLISH', 'c', ARGV[1]) return redis.call('GET', KEYS[1])";
    let library = "#!lua name=l\nredis.register_function('say', function(keys, args) redis.call('PUBLISH', 'c', args[1]) error('after') end)";
    let digest = client
        .call(cmd!["SCRIPT", "LOAD", script])
        .text()
        .expect("a digest");
    assert!(client.call(cmd!["FUNCTION", "LOAD", library]).error().is_none());
    assert_eq!(
        client
            .call(cmd!["EVALSHA", digest, 1, "k", "one"])
            .text()
            .as_deref(),
        Some("one")
    );
    let failed = client.call(cmd!["FCALL", "say", 1, "k", "two"]);
    assert!(
        failed.error().is_some_and(|text| text.contains("after")),
        "{failed}"
    );
    for threads_apart in ["k", "other-key"] {
        client.call(cmd!["MULTI"]);
        client.call(cmd!["EVALSHA", digest, 1, "k", "three"]);
        client.call(cmd!["INCR", format!("n{threads_apart}")]);
        assert_eq!(
            client.call(cmd!["EXEC"]).items(),
            [Reply::bulk("three"), Reply::Int(1)]
        );
    }
    for expected in ["one", "two", "three", "three"] {
        let message = subscriber.recv().expect("a message");
        assert_eq!(message.items()[2], Reply::bulk(expected), "{message}");
    }
    assert_converged(&pool, &sidecar);
}
