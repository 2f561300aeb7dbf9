//! A node that loads a large file: it answers, but not yet with data.

use super::*;
use crate::harness::seed;

#[test]
fn it_is_waited_for() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    fill(&sidecar, 3000);
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    pool.nodes[1].rewrite_file();
    // So many us for each key or command of the file; in between it answers.
    pool.nodes[1].launch(&[
        ("key-load-delay", "500"),
        ("loading-process-events-interval-bytes", "1024"),
    ]);
    wait_said(&sidecar, "b", "connecting", "loading");
    wait_progress(&workload);
    assert_eq!(
        sidecar.node_state("b"),
        "connecting",
        "it was used, or taken for lost"
    );
    // Seen: the rest of it as fast as it can.
    let mut node = pool.nodes[1].client();
    node.call(cmd!["CONFIG", "SET", "key-load-delay", 0]);
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert_unseen(&outcome, seed);
    assert_warned_once(&sidecar, "loading");
}
