//! Functions: libraries are the pool's, whatever its nodes have been through.

use super::{hello, same};
use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Node, NodeOptions, Pool, Reply, Sidecar, SidecarConfig};
use crate::side_by_side::Both;

const LIBRARY: &str = "#!lua name=mylib
local function add(keys, args) return redis.call('INCRBY', keys[1], args[1]) end
redis.register_function('add', add)
redis.register_function{function_name='get', callback=function(keys) return redis.call('GET', keys[1]) end,
  flags={'no-writes'}, description='reads'}
redis.register_function('stamp', function(keys) redis.call('SET', keys[1], redis.call('TIME')[2] .. math.random()) return 'OK' end)
redis.register_function('bad', function(keys) return nosuch end)";

fn version(n: usize) -> String {
    format!(
        "#!lua name=versions\nredis.register_function('version', function(keys) redis.call('RPUSH', keys[1], {n}) return {n} end)"
    )
}

/// `FUNCTION LIST` has no order; here there is one function a library.
#[test]
fn functions_answer_as_those_of_redis() {
    let both = Both::start(4);
    let mut pair = both.client();
    for protocol in [2, 3] {
        hello(&mut pair, protocol);
        same(&mut pair, cmd!["FLUSHALL"]);
        let other = "#!lua name=other\nredis.register_function{function_name='one', callback=function() return 1 end, flags={'no-writes'}, description='d'}";
        for command in [
            cmd!["FUNCTION", "FLUSH"],
            cmd!["FUNCTION", "STATS"],
            cmd!["FUNCTION", "LIST"],
            cmd!["FCALL", "add", 1, "n", 2],
            cmd!["FUNCTION", "LOAD", other],
            cmd!["FUNCTION", "LIST"],
            cmd!["FUNCTION", "LIST", "WITHCODE", "LIBRARYNAME", "OTH*"],
            cmd!["FUNCTION", "LIST", "LIBRARYNAME", "x?"],
            cmd!["FUNCTION", "LIST", "LIBRARYNAME"],
            cmd!["FUNCTION", "LIST", "WITHCODE", "WITHCODE"],
            cmd!["FUNCTION", "LOAD", LIBRARY],
            cmd!["FUNCTION", "LOAD", LIBRARY],
            cmd!["FUNCTION", "LOAD", "REPLACE", LIBRARY],
            cmd!["FUNCTION", "LOAD", "FOO", LIBRARY],
            cmd!["FUNCTION", "LOAD", "nothing"],
            cmd!["FUNCTION", "LOAD", "#!lua name=x\nreturn 1"],
            cmd!["FUNCTION", "LOAD", "#!lua name=x\nsyntax error"],
            cmd!["FUNCTION", "LOAD", "#!lua name=x\nlocal a = redis.call('PING')"],
            cmd!["FUNCTION", "LOAD", "#!js name=x\nreturn 1"],
            cmd!["FUNCTION", "LOAD", "#!lua name=bad-name\nreturn 1"],
            cmd![
                "FUNCTION",
                "LOAD",
                "#!lua name=x\nredis.register_function('one', function() end)"
            ],
            cmd!["FUNCTION", "STATS"],
            cmd!["FCALL", "add", 1, "n", 2],
            cmd!["FCALL", "add", 1, "n", "x"],
            cmd!["FCALL", "add", "x", "n"],
            cmd!["FCALL", "add", 9, "n"],
            cmd!["FCALL", "nosuch", "x", "n"],
            cmd!["FCALL_RO", "get", 1, "n"],
            cmd!["FCALL_RO", "add", 1, "n", 1],
            cmd!["FCALL", "stamp", 1, "s"],
            cmd!["FCALL", "bad", 1, "s"],
            cmd!["MULTI"],
            cmd!["FCALL", "add", 1, "n", 2],
            cmd!["FCALL", "nosuch", 1, "n", 2],
            cmd!["INCR", "n"],
            cmd!["EXEC"],
            cmd!["FUNCTION", "DELETE", "nosuch"],
            cmd!["FUNCTION", "DELETE", "mylib"],
            cmd!["FCALL", "add", 1, "n", 2],
            cmd!["FUNCTION", "FLUSH", "later"],
            cmd!["FUNCTION", "FLUSH", "SYNC", "x"],
            cmd!["FUNCTION", "RESTORE", "nothing"],
            cmd!["FUNCTION", "HELP"],
        ] {
            same(&mut pair, command);
        }
        // What one dumps the other restores.
        let ours = pair
            .subject
            .call(cmd!["FUNCTION", "DUMP"])
            .bytes()
            .expect("a payload")
            .to_vec();
        let theirs = pair
            .reference
            .call(cmd!["FUNCTION", "DUMP"])
            .bytes()
            .expect("a payload")
            .to_vec();
        for payload in [ours, theirs] {
            same(&mut pair, cmd!["FUNCTION", "RESTORE", payload]);
            same(&mut pair, cmd!["FUNCTION", "RESTORE", payload, "SOMEHOW"]);
            same(&mut pair, cmd!["FUNCTION", "RESTORE", payload, "REPLACE"]);
            same(&mut pair, cmd!["FUNCTION", "RESTORE", payload, "FLUSH"]);
            same(&mut pair, cmd!["FUNCTION", "LIST", "WITHCODE"]);
            same(&mut pair, cmd!["FUNCTION", "FLUSH"]);
            same(&mut pair, cmd!["FUNCTION", "RESTORE", payload]);
            same(&mut pair, cmd!["FCALL_RO", "one", 0]);
        }
    }
    pair.subject.call(cmd!["DEL", "s"]);
    both.assert_converged();
}

/// Each client sees the version that it has loaded, or a later one, whichever worker and node executes it.
#[test]
fn versions_do_not_come_back() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(4));
    let mut client = sidecar.client();
    let done = std::sync::atomic::AtomicBool::new(false);
    let done = &done;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|reader| {
                let mut client = sidecar.client();
                scope.spawn(move || {
                    let mut last = -1;
                    let mut seen = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) || seen < 10 {
                        let reply =
                            client.call(cmd!["FCALL", "version", 1, format!("list{reader}-{}", seen % 50)]);
                        let Reply::Int(n) = reply else {
                            assert!(
                                last < 0 && reply.error() == Some("ERR Function not found"),
                                "{reply}"
                            );
                            continue;
                        };
                        assert!(n >= last, "version {n} after {last}");
                        (last, seen) = (n, seen + 1);
                    }
                })
            })
            .collect();
        for n in 0..30 {
            let loaded = client.call(cmd!["FUNCTION", "LOAD", "REPLACE", version(n)]);
            assert_eq!(loaded.text().as_deref(), Some("versions"), "{loaded}");
            for key in 0..8 {
                let reply = client.call(cmd!["FCALL", "version", 1, format!("mine{key}")]);
                assert_eq!(reply, Reply::Int(n as i64));
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("a reader");
        }
    });
    assert_converged(&pool, &sidecar);
}

#[test]
fn nodes_and_sidecars_that_come_back_have_the_functions() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2));
    sidecar.allow_log("node");
    let mut client = sidecar.client();
    client.call(cmd!["FUNCTION", "LOAD", version(0)]);
    pool.nodes[2].kill9();
    assert_eq!(
        client.call(cmd!["FUNCTION", "LOAD", LIBRARY]).text().as_deref(),
        Some("mylib")
    );
    assert_eq!(
        client.call(cmd!["FUNCTION", "DELETE", "versions"]),
        Reply::Simple("OK".into())
    );
    assert_eq!(client.call(cmd!["FCALL", "add", 1, "n", 2]), Reply::Int(2));
    pool.nodes[2].restart();
    sidecar.wait_all_in_sync(&pool, std::time::Duration::from_secs(15));
    assert_eq!(client.call(cmd!["FCALL", "add", 1, "n", 2]), Reply::Int(4));
    sidecar.restart();
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["FCALL", "add", 1, "n", 2]), Reply::Int(6));
    assert_eq!(
        client.call(cmd!["FCALL", "version", 1, "n"]).error(),
        Some("ERR Function not found")
    );
    // One that has lost everything serves again after a restart of the sidecar.
    pool.nodes[0].restart_empty();
    sidecar.restart();
    sidecar.wait_all_in_sync(&pool, std::time::Duration::from_secs(15));
    let mut client = sidecar.client();
    for n in 0..20 {
        assert_eq!(
            client.call(cmd!["FCALL", "add", 1, format!("m{n}"), 2]),
            Reply::Int(2)
        );
        assert_eq!(
            client
                .call(cmd!["FCALL_RO", "get", 1, format!("m{n}")])
                .text()
                .as_deref(),
            Some("2")
        );
    }
    assert_converged(&pool, &sidecar);
}

/// A pool made of servers that all have the same libraries has them too.
#[test]
fn libraries_that_all_nodes_have_had_are_taken_over() {
    let pool = Pool::start(3);
    for node in &pool.nodes {
        assert!(
            node.client()
                .call(cmd!["FUNCTION", "LOAD", LIBRARY])
                .error()
                .is_none()
        );
    }
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["FCALL", "add", 1, "n", 3]), Reply::Int(3));
    let replaced = LIBRARY.replace("args[1])", "10)");
    assert_eq!(
        client
            .call(cmd!["FUNCTION", "LOAD", "REPLACE", replaced])
            .text()
            .as_deref(),
        Some("mylib")
    );
    assert_eq!(client.call(cmd!["FCALL", "add", 1, "n", 3]), Reply::Int(13));
    assert_converged(&pool, &sidecar);
    // And back to a server of its own.
    let payload = client
        .call(cmd!["FUNCTION", "DUMP"])
        .bytes()
        .expect("a payload")
        .to_vec();
    let plain = Node::start("plain", NodeOptions::default());
    assert!(plain.client().call(cmd!["FUNCTION", "RESTORE", payload]).is_ok());
    assert_eq!(
        plain.client().call(cmd!["FCALL", "add", 1, "n", 3]),
        Reply::Int(10)
    );
}
