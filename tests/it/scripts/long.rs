//! Scripts that take long, or never end.

use std::time::Duration;

use super::client_of;
use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Client, NodeOptions, Pool, Reply, Sidecar, SidecarConfig, wait_until};

const LONG: Duration = Duration::from_secs(30);

/// Busy for about so many ms, then writes. (Its own clock does not advance, so it counts.)
fn busy(rounds: u64) -> String {
    format!("for i = 1, {rounds} do end redis.call('INCR', KEYS[1]) return 'done'")
}

const ENDLESS: &str = "while true do end return redis.call('INCR', KEYS[1])";
const ENDLESS_DIRTY: &str = "redis.call('INCR', KEYS[1]) while redis.call('GET', KEYS[2]) ~= 'never' do end";

fn pool_and_sidecar(threads: usize) -> (Pool, Sidecar) {
    let options = NodeOptions::default().with("busy-reply-threshold", "1000");
    let pool = Pool::with_options(3, &options);
    let config = SidecarConfig::of(&pool, 3).threads(threads);
    let sidecar = Sidecar::start(&config.with(
        "timeouts",
        "connect = \"300ms\"\nnode = \"300ms\"\nwrite = \"800ms\"",
    ));
    sidecar.allow_log("node");
    (pool, sidecar)
}

/// Sends a command that will not be answered for long. For a moment after another script the pool may still be busy.
fn begin(sidecar: &Sidecar, command: &[Vec<u8>]) -> Client {
    loop {
        let mut client = client_of(sidecar, Duration::from_millis(300));
        match client.try_call(command) {
            Ok(reply) => assert!(
                reply.error().is_some_and(|text| text.starts_with("BUSY")),
                "{reply}"
            ),
            Err(_) => {
                client.set_timeout(LONG).expect("a timeout");
                return client;
            }
        }
    }
}

#[test]
fn a_script_longer_than_a_node_may_be_silent_is_answered() {
    let (pool, sidecar) = pool_and_sidecar(4);
    let mut client = client_of(&sidecar, LONG);
    assert!(client.call(cmd!["SET", "before", 1]).is_ok());
    // How long a round takes here, when nothing disturbs it.
    let mut million = || {
        let start = std::time::Instant::now();
        let reply = client.call(cmd!["EVAL", busy(1_000_000), 1, "n"]);
        assert_eq!(reply.text().as_deref(), Some("done"));
        start.elapsed()
    };
    let fastest = (0..3).map(|_| million()).min().unwrap();
    let rounds = (2.5 * 1e6 / fastest.as_secs_f64().max(0.001)) as u64;
    for n in 4..6 {
        let start = std::time::Instant::now();
        let reply = client.call(cmd!["EVAL", busy(rounds.min(400_000_000)), 1, "n"]);
        assert_eq!(reply.text().as_deref(), Some("done"), "{reply}");
        assert!(
            start.elapsed() > Duration::from_millis(600),
            "not long: {:?}",
            start.elapsed()
        );
        assert_eq!(client.call(cmd!["GET", "n"]).text(), Some(n.to_string()));
    }
    // Also within a transaction.
    client.call(cmd!["MULTI"]);
    client.call(cmd!["EVAL", busy(rounds.min(400_000_000)), 1, "n"]);
    client.call(cmd!["INCR", "n"]);
    assert_eq!(client.call(cmd!["EXEC"]).items()[1], Reply::Int(7));
    wait_until("everything works again", Duration::from_secs(10), || {
        (0..20).all(|n| client.call(cmd!["SET", format!("k{n}"), n]).is_ok())
    });
    assert_eq!(client.call(cmd!["GET", "before"]).text().as_deref(), Some("1"));
    sidecar.wait_all_in_sync(&pool, LONG);
    assert_converged(&pool, &sidecar);
}

#[test]
fn an_endless_script_is_killed_everywhere() {
    let (pool, sidecar) = pool_and_sidecar(4);
    let mut killer = client_of(&sidecar, LONG);
    assert!(
        killer
            .call(cmd!["SCRIPT", "KILL"])
            .error()
            .is_some_and(|text| text.starts_with("NOTBUSY"))
    );
    for script in [ENDLESS, "redis.call('TIME') while true do end"] {
        let mut client = begin(&sidecar, &cmd!["EVAL", script, 1, "n"]);
        // Until the script has run for a while, nodes answer nothing, and who asks waits; then the pool says why.
        wait_until("the pool is busy", LONG, || {
            let mut other = client_of(&sidecar, Duration::from_millis(500));
            let reply = other.try_call(&cmd!["SET", "other", 1]);
            reply.is_ok_and(|reply| reply.error().is_some_and(|text| text.starts_with("BUSY")))
        });
        assert!(killer.call(cmd!["SCRIPT", "KILL"]).is_ok());
        let reply = client.recv().expect("the script's end");
        assert!(
            reply
                .error()
                .is_some_and(|text| text.contains("Script killed by user with SCRIPT KILL")),
            "{reply}"
        );
        wait_until("everything works again", Duration::from_secs(10), || {
            (0..20).all(|n| killer.call(cmd!["SET", format!("k{n}"), n]).is_ok())
        });
    }
    sidecar.wait_all_in_sync(&pool, LONG);
    assert_eq!(killer.call(cmd!["EXISTS", "n"]), Reply::Int(0));
    assert_converged(&pool, &sidecar);
}

#[test]
fn a_function_is_killed_and_what_has_written_is_not() {
    let (pool, sidecar) = pool_and_sidecar(1);
    let mut killer = client_of(&sidecar, LONG);
    let library = "#!lua name=l\nredis.register_function('forever', function() while true do end end)";
    assert!(killer.call(cmd!["FUNCTION", "LOAD", library]).error().is_none());
    let mut client = begin(&sidecar, &cmd!["FCALL", "forever", 1, "n"]);
    wait_until("the function is killed", LONG, || {
        killer.call(cmd!["FUNCTION", "KILL"]).is_ok()
    });
    let reply = client.recv().expect("the function's end");
    assert!(
        reply.error().is_some_and(|text| text.contains("killed by user")
            && text.contains("forever")
            && !text.contains("rf_")),
        "{reply}"
    );
    wait_until("everything works again", Duration::from_secs(10), || {
        killer.call(cmd!["SET", "{k}stop", "never"]).is_ok()
    });
    // What has written cannot be stopped, as in Redis: the servers must be, and the sidecar, which would send it again.
    assert!(killer.call(cmd!["SET", "{k}stop", "not yet"]).is_ok());
    drop(begin(
        &sidecar,
        &cmd!["EVAL", ENDLESS_DIRTY, 2, "{k}n", "{k}stop"],
    ));
    wait_until("it cannot be killed", LONG, || {
        killer
            .call(cmd!["SCRIPT", "KILL"])
            .error()
            .is_some_and(|text| text.starts_with("UNKILLABLE"))
    });
    sidecar.kill9();
    for node in &pool.nodes {
        node.restart();
    }
    sidecar.restart();
    let mut client = client_of(&sidecar, LONG);
    assert_eq!(client.call(cmd!["EXISTS", "{k}n"]), Reply::Int(0));
    assert!(client.call(cmd!["SET", "after", 1]).is_ok());
    assert_converged(&pool, &sidecar);
}
