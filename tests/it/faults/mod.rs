//! Real faults under load: nothing acknowledged is lost, nothing is invented, repeated or reordered, and the copies
//! agree afterwards.

pub mod history;
mod moves;
mod takeover;
pub mod workload;
mod wrong_nodes;

use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Client, Flow, Pool, Reply, Rng, Sidecar, SidecarConfig, seed, setting, wait_until};
use std::time::{Duration, Instant};
use workload::{Outcome, Workload};

/// How long a returned node may take until it is in sync again.
pub const RECOVERY_MAX: Duration = Duration::from_secs(15);

fn harm_time() -> Duration {
    Duration::from_secs(setting("FAULT_SECONDS", 6) as u64)
}

fn pause(rng: &mut Rng, low_ms: i64, high_ms: i64) {
    std::thread::sleep(Duration::from_millis(rng.between(low_ms, high_ms) as u64));
}

/// What a sidecar may log while its nodes come and go.
fn allow_node_trouble(sidecar: &Sidecar) {
    sidecar.allow_log("node");
}

/// Waits until the workload got something done since this call.
#[track_caller]
fn wait_progress(workload: &Workload) {
    let before = workload.acknowledged();
    wait_until("clients get work done", RECOVERY_MAX, || {
        workload.acknowledged() > before + 100
    });
}

fn finish(pool: &Pool, sidecar: &Sidecar, workload: Workload, seed: u64) -> Outcome {
    sidecar.wait_all_in_sync(pool, RECOVERY_MAX);
    wait_progress(&workload);
    let outcome = workload.finish(&sidecar.endpoint());
    outcome.check(seed);
    assert_converged(pool, sidecar);
    assert!(
        outcome.acknowledged > 200,
        "hardly anything was done: {}",
        outcome.acknowledged
    );
    outcome
}

#[test]
fn a_node_crashes_and_returns_again_and_again() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    allow_node_trouble(&sidecar);
    let workload = Workload::start(&sidecar.endpoint(), seed);
    let end = Instant::now() + harm_time();
    while Instant::now() < end {
        wait_progress(&workload);
        let node = &pool.nodes[rng.below(3)];
        node.kill9();
        pause(&mut rng, 0, 400);
        // Two of three copies are enough: clients go on while it is away.
        wait_progress(&workload);
        node.restart();
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
        pause(&mut rng, 0, 100);
    }
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert!(
        outcome.errors.is_empty(),
        "SEED={seed}: one node's death must not be seen: {:?}",
        outcome.errors
    );
    let unknown: u64 = outcome.histories.iter().map(|history| history.unknown_pops).sum();
    assert_eq!(
        unknown, 0,
        "SEED={seed}: a client was disconnected although two of three copies were there"
    );
}

#[test]
fn the_sidecar_crashes_and_returns_again_and_again() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2));
    sidecar.allow_log("took over");
    let workload = Workload::start(&sidecar.endpoint(), seed);
    let end = Instant::now() + harm_time();
    while Instant::now() < end {
        wait_progress(&workload);
        pause(&mut rng, 0, 300);
        sidecar.kill9();
        pause(&mut rng, 0, 50);
        sidecar.restart();
    }
    finish(&pool, &sidecar, workload, seed);
}

#[test]
fn a_node_hangs_and_wakes_up() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    allow_node_trouble(&sidecar);
    let workload = Workload::start(&sidecar.endpoint(), seed);
    for _ in 0..2 {
        wait_progress(&workload);
        let node = &pool.nodes[rng.below(3)];
        node.stop();
        wait_until("the hanging node is out", Duration::from_secs(5), || {
            sidecar.node_state(&node.name) != "in_sync"
        });
        wait_progress(&workload);
        node.cont();
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    }
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert!(
        outcome.errors.is_empty(),
        "SEED={seed}: one node's hang must not be seen: {:?}",
        outcome.errors
    );
    // A read that was waiting for the hanging node is asked again elsewhere after the node timeout of one second.
    assert!(
        outcome.longest_gap < Duration::from_secs(4),
        "a client waited {:?}",
        outcome.longest_gap
    );
}

#[test]
fn without_a_quorum_writes_are_refused_at_once() {
    let seed = seed();
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    allow_node_trouble(&sidecar);
    sidecar.allow_log("NOREPLICAS");
    sidecar.allow_log("quorum");
    let workload = Workload::start(&sidecar.endpoint(), seed);
    wait_progress(&workload);
    pool.nodes[0].kill9();
    pool.nodes[2].kill9();
    let refused = |client: &mut Client, at: usize| -> Option<Duration> {
        let start = Instant::now();
        match client.try_call(&cmd!["SET", format!("refused-{at}"), at]) {
            Ok(Reply::Error(text)) if text.starts_with("NOREPLICAS") => Some(start.elapsed()),
            Ok(Reply::Error(text)) => panic!("another error: {text}"),
            Ok(reply) => panic!("a write was acknowledged with one copy: {reply}"),
            // In flight when the nodes died: unknown, as it should be.
            Err(_) => None,
        }
    };
    wait_until("a write is refused", Duration::from_secs(10), || {
        refused(&mut sidecar.client(), 0).is_some()
    });
    let mut client = sidecar.client();
    for at in 1..200 {
        let took = refused(&mut client, at).expect("connections stay open while writes are refused");
        assert!(took < Duration::from_millis(500), "refused only after {took:?}");
    }
    for node in [&pool.nodes[0], &pool.nodes[2]] {
        node.restart();
    }
    wait_until("writes work again", RECOVERY_MAX, || {
        sidecar.client().call(cmd!["SET", "back", 1]).is_ok()
    });
    let outcome = finish(&pool, &sidecar, workload, seed);
    // Whoever was waiting for an answer all the time has seen no error at all.
    assert!(
        outcome.errors.iter().all(|text| text == "NOREPLICAS"),
        "SEED={seed}: {:?}",
        outcome.errors
    );
    // "Refused" is a promise: nothing was written.
    let mut client = sidecar.client();
    for at in 1..200 {
        assert!(
            client.call(cmd!["GET", format!("refused-{at}")]).is_nil(),
            "refused-{at} was written"
        );
    }
}

/// A command of several partitions, some of which have too few nodes: with one worker it is done everywhere or nowhere, with several
/// it says so if it was done in part.
#[test]
fn what_is_said_of_a_command_that_is_refused_in_part_is_true() {
    for threads in [1, 3] {
        let pool = Pool::start(4);
        let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2).threads(threads));
        allow_node_trouble(&sidecar);
        pool.nodes[0].kill9();
        let mut client = sidecar.client();
        wait_until("some partitions refuse writes", RECOVERY_MAX, || {
            let mut reply = |n| client.call(cmd!["SET", format!("{n}"), 1]);
            (0..50).filter(|&n| reply(n).error().is_some()).count() > 1
        });
        let mut in_part = 0;
        for round in 0..60 {
            let names = |of: &str| [0, 1, 2].map(|n| format!("{of}:{round}:{n}"));
            let (mset, exec) = (names("mset"), names("exec"));
            let mut all = cmd!["MSET"];
            for key in &mset {
                all.extend(cmd![key.as_str(), 1]);
            }
            let of_mset = client.call(all);
            client.call(cmd!["MULTI"]);
            for key in &exec {
                client.call(cmd!["SET", key.as_str(), 1]);
            }
            let of_exec = client.call(cmd!["EXEC"]);
            for (reply, keys) in [(of_mset, mset), (of_exec, exec)] {
                let Some(words) = reply.error() else { continue };
                assert!(words.starts_with("NOREPLICAS"), "{words}");
                let mut has = |key: &&String| client.call(cmd!["GET", key.as_str()]).bytes().is_some();
                let written = keys.iter().filter(|key| has(key)).count();
                in_part += usize::from(written > 0);
                assert_eq!(
                    words.contains("Nothing was written"),
                    written == 0,
                    "{written}: {words}"
                );
            }
        }
        assert_eq!(in_part > 0, threads > 1, "{in_part}");
    }
}

#[test]
fn links_are_cut_hang_and_slow_down() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let pool = Pool::start(3);
    let (relays, config) = SidecarConfig::of(&pool, 3).behind_relays(&pool);
    let sidecar = Sidecar::start(&config);
    allow_node_trouble(&sidecar);
    let workload = Workload::start(&sidecar.endpoint(), seed);
    let end = Instant::now() + harm_time();
    while Instant::now() < end {
        wait_progress(&workload);
        let relay = &relays[rng.below(3)];
        let harm = *rng.pick(&[
            Flow::Cut,
            Flow::Cut,
            Flow::HangBoth,
            Flow::HangToNode,
            Flow::HangToSidecar,
            Flow::Slow(Duration::from_millis(30)),
        ]);
        relay.set(harm);
        pause(&mut rng, 10, 1500);
        wait_progress(&workload);
        relay.set(Flow::Pass);
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    }
    assert!(
        relays.iter().all(|relay| relay.bytes() > 10_000),
        "the relays were not in the way"
    );
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert!(
        outcome.errors.is_empty(),
        "SEED={seed}: one bad link must not be seen: {:?}",
        outcome.errors
    );
}

#[test]
fn a_node_that_comes_back_empty_is_not_trusted() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    allow_node_trouble(&sidecar);
    let mut client = sidecar.client();
    for at in 0..200 {
        assert!(client.call(cmd!["SET", format!("key-{at}"), at]).is_ok());
    }
    pool.nodes[1].restart_empty();
    for _ in 0..3 {
        for at in 0..200 {
            let reply = client.call(cmd!["GET", format!("key-{at}")]);
            assert_eq!(
                reply,
                Reply::bulk(at.to_string()),
                "read from a node that lost its data"
            );
        }
    }
    assert!(client.call(cmd!["SET", "still", "writable"]).is_ok());
    // It is given copies of everything while that goes on.
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &sidecar);
    wait_until("that is said", RECOVERY_MAX, || {
        let said = "the node is in sync with all that it holds node=\"b\"";
        sidecar.log().contains(said)
    });
}
