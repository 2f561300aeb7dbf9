//! A known address where suddenly an empty server listens: it is given copies of everything while clients work.

use super::*;
use crate::convergence::assert_converged;
use crate::harness::{seed, wait_until};

#[test]
fn it_is_given_everything_again() {
    let seed = seed();
    let pool = Pool::start(3);
    // The backlog alone must not do.
    let config = SidecarConfig::of(&pool, 3)
        .threads(2)
        .with("limits", "backlog = \"1MiB\"");
    let (sidecar, workload) = under_load(&pool, &config, seed);
    fill(&sidecar, 2000);
    for node in &pool.nodes {
        node.restart_empty();
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
        wait_progress(&workload);
    }
    assert_eq!(
        warnings(&sidecar, "until it has been given copies"),
        3,
        "one of each node"
    );
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    assert_unseen(&outcome, seed);
}

/// With R = W = 2 nothing can be acknowledged on what only one node has: that is said, and ends with the copy.
#[test]
fn it_is_given_its_share_in_a_larger_pool() {
    let seed = seed();
    let pool = Pool::start(5);
    let config = SidecarConfig::of(&pool, 2).with("limits", "backlog = \"1MiB\"");
    let (sidecar, workload) = under_load(&pool, &config, seed);
    fill(&sidecar, 2000);
    for node in &pool.nodes[..2] {
        node.restart_empty();
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
        wait_progress(&workload);
    }
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    let other = outcome.errors.iter().find(|word| *word != "NOREPLICAS");
    assert_eq!(other, None, "SEED={seed}");
}

/// Until that is noticed, what is asked of it is not there: nobody else may write to a node. So no workload.
#[test]
fn one_that_somebody_empties_in_service() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    allow_node_trouble(&sidecar);
    fill(&sidecar, 300);
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    let mut node = pool.nodes[1].client();
    assert!(node.call(cmd!["FLUSHALL"]).is_ok());
    // The account speaks of this key's partition as if nothing were missing.
    fill(&sidecar, 1);
    wait_until("it has everything again", RECOVERY_MAX, || {
        node.call(cmd!["DBSIZE"]).int() == Some(300)
    });
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &sidecar);
}

/// Where nothing was ever written, an emptied node lacks nothing, and tells of no position: others can be given copies of its partitions
/// all the same.
#[test]
fn it_is_a_source_of_what_nothing_was_written_to() {
    let mut pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2));
    allow_node_trouble(&sidecar);
    for node in &pool.nodes {
        node.restart_empty();
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    }
    let node = pool.start_another();
    let body = json!({"name": node.name, "address": node.endpoint().to_string()});
    let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
    assert_eq!(status, 200, "{answer}");
    sidecar.wait_settled(RECOVERY_MAX);
    let mut client = sidecar.client();
    for i in 0..500 {
        assert_eq!(client.call(cmd!["RPUSH", format!("q{i}"), i]).error(), None);
    }
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &sidecar);
}
