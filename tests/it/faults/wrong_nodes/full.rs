//! Nodes whose memory is full.

use super::*;
use crate::harness::{NodeOptions, Reply, seed, wait_until};

fn set_maxmemory(node: &Node, bytes: &str) {
    assert!(
        node.client()
            .call(cmd!["CONFIG", "SET", "maxmemory", bytes])
            .is_ok()
    );
}

/// Clients are told before a node would have to refuse anything; what frees memory goes on.
#[test]
fn one_of_them() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let mut client = sidecar.client();
    for _ in 0..500 {
        client.call(cmd!["RPUSH", "full", "x"]);
    }
    set_maxmemory(&pool.nodes[1], "1mb");
    wait_until("growing writes are refused", NOTICE_MAX, || {
        let reply = client.call(cmd!["SET", "more", 1]);
        reply.error().is_some_and(|text| text.starts_with("OOM"))
    });
    // It may also have refused a batch before that was noticed.
    let state = sidecar.node_state("b");
    assert!(state == "full" || state == "refusing", "{}", sidecar.node("b"));
    for _ in 0..100 {
        let reply = client.call(cmd!["LPOP", "full"]);
        assert_eq!(reply, Reply::bulk("x"));
    }
    assert_eq!(warnings(&sidecar, "memory is nearly full"), 1);
    set_maxmemory(&pool.nodes[1], "0");
    wait_until("growing writes are taken", NOTICE_MAX, || {
        client.call(cmd!["SET", "more", 1]).is_ok()
    });
    let outcome = finish(&pool, &sidecar, workload, seed);
    let other = outcome.errors.iter().find(|word| *word != "OOM");
    assert_eq!(other, None, "SEED={seed}");
    let unknown: u64 = outcome.histories.iter().map(|history| history.unknown_pops).sum();
    assert_eq!(unknown, 0, "SEED={seed}: a client was disconnected");
}

#[test]
fn all_of_them() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let mut client = sidecar.client();
    assert!(client.call(cmd!["SET", "kept", 1]).is_ok());
    for node in &pool.nodes {
        set_maxmemory(node, "1mb");
    }
    // Where they ran full at different writes, what was ordered in between has an unknown end.
    wait_until("growing writes are refused", NOTICE_MAX, || {
        let reply = sidecar.client().try_call(&cmd!["SET", "more", 1]);
        reply.is_ok_and(|reply| reply.error().is_some_and(|text| text.starts_with("OOM")))
    });
    let read = client.call(cmd!["GET", "kept"]);
    let refused = read.error().is_some_and(|text| text.starts_with("NOREPLICAS"));
    assert!(refused || read == Reply::bulk("1"), "{read}");
    for node in &pool.nodes {
        set_maxmemory(node, "0");
    }
    wait_until("growing writes are taken", NOTICE_MAX, || {
        client.call(cmd!["SET", "more", 1]).is_ok()
    });
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("errors: {:?}", outcome.errors);
}

#[test]
fn one_that_is_to_be_given_copies() {
    let seed = seed();
    let mut pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    fill(&sidecar, 3000);
    let options = NodeOptions::default().with("maxmemory", "2mb");
    let small = pool.start_another_with(options);
    add(&sidecar, small);
    let waiting = wait_ring(&sidecar, "waiting for memory", |ring| {
        ring["state"] == "waiting" && ring["reason"].as_str().is_some_and(|why| why.contains("memory"))
    });
    eprintln!("{waiting}");
    wait_progress(&workload);
    assert!(warnings(&sidecar, "not moved yet") <= 1, "said again and again");
    set_maxmemory(pool.node("d"), "0");
    sidecar.wait_settled(super::super::RECOVERY_MAX * 2);
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("errors: {:?}", outcome.errors);
    let other = outcome.errors.iter().find(|word| *word != "OOM");
    assert_eq!(other, None, "SEED={seed}");
}
