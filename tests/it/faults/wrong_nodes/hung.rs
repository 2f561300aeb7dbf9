//! Nodes that hang (SIGSTOP), at every stage: what a client waits is bounded by `timeouts.node`.

use super::super::pause;
use super::*;
use crate::harness::{Flow, Rng, seed, wait_until};

#[track_caller]
fn assert_short(outcome: &Outcome, what: &str, seed: u64) {
    eprintln!("{what}: longest pause of a client {:?}", outcome.longest_gap);
    assert!(
        outcome.longest_gap < PAUSE_MAX,
        "SEED={seed}: {what}: a client waited {:?}",
        outcome.longest_gap
    );
    assert_unseen(outcome, seed);
}

/// Waits until the hang has been noticed, and ends it.
#[track_caller]
fn wake_once_noticed(sidecar: &Sidecar, node: &Node, workload: &Workload) {
    wait_until("the hang is noticed", NOTICE_MAX, || {
        sidecar.node_state(&node.name) == "connecting"
    });
    wait_progress(workload);
    node.cont();
}

#[test]
fn in_service() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3).threads(2), seed);
    for node in &pool.nodes {
        node.stop();
        wake_once_noticed(&sidecar, node, &workload);
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    }
    assert_short(&finish(&pool, &sidecar, workload, seed), "in service", seed);
}

/// The node at that end of a copy hangs in the middle of it.
fn while_copying(end: &str) {
    let seed = seed();
    let mut pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).with("limits", "copy_rate = \"2MiB\"");
    let (sidecar, workload) = under_load(&pool, &config, seed);
    fill(&sidecar, 2000);
    let node = pool.start_another();
    add(&sidecar, node);
    let ring = wait_ring(&sidecar, "copying", |ring| {
        ring["jobs"][0]["phase"] == "scan" && ring["jobs"][0]["keys"].as_u64() > Some(0)
    });
    let name = ring["jobs"][0][end].as_str().expect("a name");
    pool.node(name).stop();
    wake_once_noticed(&sidecar, pool.node(name), &workload);
    sidecar.wait_settled(RECOVERY_MAX * 2);
    let what = format!("copying, the {end} end");
    assert_short(&finish(&pool, &sidecar, workload, seed), &what, seed);
}

#[test]
fn as_the_source_of_a_copy() {
    while_copying("from");
}

#[test]
fn as_the_recipient_of_a_copy() {
    while_copying("to");
}

/// The recipient is behind a slow link, so that a hand-over takes long enough to be met.
#[test]
fn in_the_middle_of_a_hand_over() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let mut pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let node = pool.start_another();
    let relay = Relay::start(&node.endpoint());
    relay.set(Flow::Slow(Duration::from_millis(10)));
    add_at(&sidecar, "d", &relay.endpoint().to_string());
    let mut ends = Vec::new();
    for weight in [100, 1, 100, 1, 100, 1] {
        let ring = wait_ring(&sidecar, "handing over, or done with it", |ring| {
            ring["jobs"][0]["phase"] == "hand_over" || ring["state"] == "settled"
        });
        if ring["jobs"][0]["phase"] == "hand_over" {
            let end = *rng.pick(&["from", "to"]);
            let name = ring["jobs"][0][end].as_str().expect("a name");
            pause(&mut rng, 0, 30);
            pool.node(name).stop();
            pause(&mut rng, 100, 1300);
            pool.node(name).cont();
            ends.push(end);
        }
        sidecar.wait_settled(RECOVERY_MAX * 2);
        wait_progress(&workload);
        let (status, answer) = sidecar.ask("PATCH", "/v1/nodes/d", &json!({"weight": weight}));
        assert_eq!(status, 200, "{answer}");
        wait_ring(&sidecar, "moving", |ring| ring["state"] != "settled");
    }
    relay.set(Flow::Pass);
    sidecar.wait_settled(RECOVERY_MAX * 2);
    assert!(!ends.is_empty(), "no hand-over was met");
    let what = format!("handing over, ends {ends:?}");
    assert_short(&finish(&pool, &sidecar, workload, seed), &what, seed);
}
