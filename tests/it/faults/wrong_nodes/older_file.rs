//! A node that is started with an older append-only file than it had: its account says how old.
//!
//! The other way round, a node that is ahead of what was acknowledged, is met whenever the sidecar is killed under load:
//! `the_sidecar_crashes_and_returns_again_and_again`, and the simulation.

use super::*;
use crate::harness::seed;

/// More is written meanwhile than the backlog holds if `filler` is large.
fn with_an_older_file(filler: usize, backlog: &str) -> (Sidecar, usize) {
    let seed = seed();
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).with("limits", &format!("backlog = \"{backlog}\""));
    let (sidecar, workload) = under_load(&pool, &config, seed);
    let node = &pool.nodes[1];
    node.kill9();
    let older = node.keep_files();
    node.restart();
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    fill(&sidecar, filler);
    wait_progress(&workload);
    node.put_files(&older);
    node.restart();
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert_unseen(&outcome, seed);
    let copied = warnings(&sidecar, "until it has been given copies");
    (sidecar, copied)
}

#[test]
fn it_is_caught_up_by_the_backlog() {
    let (_sidecar, copied) = with_an_older_file(10, "64MiB");
    assert_eq!(copied, 0, "the backlog would have done");
}

#[test]
fn it_is_given_copies_where_the_backlog_does_not_reach() {
    let (_sidecar, copied) = with_an_older_file(3000, "1MiB");
    assert_eq!(copied, 1);
}
