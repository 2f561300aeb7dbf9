//! A node that comes and goes several times a second.

use super::*;
use crate::harness::{Rng, seed};
use std::time::Instant;

const FLAPPING: Duration = Duration::from_secs(4);

/// Lines of the log in a second, at most: a few of each life of the node.
const LINES_PER_S_MAX: usize = 20;

fn flap(node: &Node, rng: &mut Rng) {
    let end = Instant::now() + FLAPPING;
    while Instant::now() < end {
        node.restart();
        std::thread::sleep(Duration::from_millis(rng.between(100, 300) as u64));
        node.kill9();
        std::thread::sleep(Duration::from_millis(rng.between(0, 100) as u64));
    }
    node.restart();
}

fn lines(sidecar: &Sidecar) -> usize {
    sidecar.log().lines().count()
}

#[track_caller]
fn assert_no_flood(sidecar: &Sidecar, before: usize) {
    let written = lines(sidecar) - before;
    eprintln!("{written} lines, {} of them warnings", warnings(sidecar, ""));
    assert!(
        written < LINES_PER_S_MAX * FLAPPING.as_secs() as usize,
        "{written} lines:\n{}",
        sidecar.log()
    );
}

#[test]
fn in_service() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3).threads(2), seed);
    let before = lines(&sidecar);
    flap(&pool.nodes[1], &mut rng);
    assert_no_flood(&sidecar, before);
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    assert_unseen(&outcome, seed);
}

#[test]
fn as_the_recipient_of_a_copy() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let mut pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).with("limits", "copy_rate = \"1MiB\"");
    let (sidecar, workload) = under_load(&pool, &config, seed);
    fill(&sidecar, 1000);
    let node = pool.start_another();
    add(&sidecar, node);
    wait_ring(&sidecar, "copying", |ring| ring["keys_copied"].as_u64() > Some(0));
    let before = lines(&sidecar);
    flap(node, &mut rng);
    assert_no_flood(&sidecar, before);
    sidecar.wait_settled(RECOVERY_MAX * 2);
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    assert_unseen(&outcome, seed);
}
