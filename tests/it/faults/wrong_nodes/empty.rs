//! A known address where suddenly an empty server listens: it is given copies of everything while clients work.

use super::*;
use crate::harness::seed;

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
    println!("longest pause of a client: {:?}", outcome.longest_gap);
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
    println!("longest pause of a client: {:?}", outcome.longest_gap);
    let other = outcome.errors.iter().find(|word| *word != "NOREPLICAS");
    assert_eq!(other, None, "SEED={seed}");
}
