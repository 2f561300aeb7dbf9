//! Nodes whose disks are full: what they cannot write to their append-only file they refuse (`MISCONF`).

use super::*;
use crate::harness::{Reply, seed, wait_until};

#[test]
fn one_of_them() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    pool.nodes[1].fill_disk();
    wait_said(&sidecar, "b", "refusing", "MISCONF");
    wait_progress(&workload);
    // Looked at again many times meanwhile.
    std::thread::sleep(Duration::from_secs(1));
    wait_progress(&workload);
    assert_warned_once(&sidecar, "MISCONF");
    pool.nodes[1].limit_files(None);
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    assert_unseen(&outcome, seed);
}

#[test]
fn all_of_them() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let mut client = sidecar.client();
    assert!(client.call(cmd!["SET", "kept", 1]).is_ok());
    for node in &pool.nodes {
        node.fill_disk();
    }
    // The third one is given nothing any more.
    wait_until("two of three are said to refuse", NOTICE_MAX, || {
        let refuses = |node: &&&str| {
            let reason = sidecar.node(node)["reason"].to_string();
            sidecar.node_state(node) == "refusing" && reason.contains("MISCONF")
        };
        ["a", "b", "c"].iter().filter(refuses).count() >= 2
    });
    for at in 0..50 {
        let reply = client.call(cmd!["SET", format!("refused-{at}"), 1]);
        let error = reply.error().unwrap_or_else(|| panic!("acknowledged: {reply}"));
        assert!(error.starts_with("MISCONF"), "{error}");
        // Reads are answered between two attempts to write.
        let read = client.call(cmd!["GET", "kept"]);
        let refused = read.error().is_some_and(|text| text.starts_with("NOREPLICAS"));
        assert!(refused || read == Reply::bulk("1"), "{read}");
    }
    for node in &pool.nodes {
        node.limit_files(None);
    }
    wait_until("writes are taken again", NOTICE_MAX, || {
        client.call(cmd!["SET", "more", 1]).is_ok()
    });
    for at in 0..50 {
        let reply = client.call(cmd!["GET", format!("refused-{at}")]);
        assert!(reply.is_nil(), "refused-{at} was written");
    }
    let outcome = finish(&pool, &sidecar, workload, seed);
    let other = outcome
        .errors
        .iter()
        .find(|word| !["MISCONF", "NOREPLICAS"].contains(&word.as_str()));
    assert_eq!(other, None, "SEED={seed}");
}

#[test]
fn one_that_is_being_given_copies() {
    let seed = seed();
    let mut pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).with("limits", "copy_rate = \"1MiB\"");
    let (sidecar, workload) = under_load(&pool, &config, seed);
    fill(&sidecar, 2000);
    let node = pool.start_another();
    add(&sidecar, node);
    wait_ring(&sidecar, "moving", |ring| ring["keys_copied"].as_u64() > Some(0));
    node.fill_disk();
    wait_ring(&sidecar, "waiting for room", |ring| {
        ring["reason"].as_str().is_some_and(|why| why.contains("MISCONF"))
    });
    wait_progress(&workload);
    node.limit_files(None);
    sidecar.wait_settled(RECOVERY_MAX * 2);
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert_unseen(&outcome, seed);
}
