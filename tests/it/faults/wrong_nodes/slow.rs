//! A node behind a slow link.

use super::*;
use crate::harness::{Flow, seed};
use std::time::Instant;

/// What clients get done in half a second, of which nobody waits longer than he must.
fn work(workload: &Workload) -> u64 {
    let before = workload.acknowledged();
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let done = workload.acknowledged() - before;
    done * 1000 / began.elapsed().as_millis() as u64
}

#[test]
fn service_goes_on_at_the_speed_of_the_others() {
    let seed = seed();
    let pool = Pool::start(3);
    let (relays, config) = SidecarConfig::of(&pool, 3).behind_relays(&pool);
    let (sidecar, workload) = under_load(&pool, &config, seed);
    let before = work(&workload);
    for ms in [30, 100] {
        relays[2].set(Flow::Slow(Duration::from_millis(ms)));
        let slow = work(&workload);
        eprintln!("{before} commands/s before, {slow} with {ms} ms to one node");
        assert!(slow > before / 4, "{slow} commands/s, {before} before");
    }
    relays[2].set(Flow::Pass);
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    assert!(outcome.longest_gap < PAUSE_MAX, "{:?}", outcome.longest_gap);
    assert_unseen(&outcome, seed);
}

#[test]
fn a_copy_to_it_takes_long_but_ends() {
    let seed = seed();
    let mut pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    fill(&sidecar, 300);
    let relay = Relay::start(&pool.start_another().endpoint());
    relay.set(Flow::Slow(Duration::from_millis(50)));
    add_at(&sidecar, "d", &relay.endpoint().to_string());
    let began = Instant::now();
    sidecar.wait_settled(RECOVERY_MAX * 2);
    eprintln!(
        "settled after {:?}; longest hold {}",
        began.elapsed(),
        sidecar.admin("/v1/ring")["longest_hold_us"]
    );
    relay.set(Flow::Pass);
    let outcome = finish(&pool, &sidecar, workload, seed);
    eprintln!("longest pause of a client: {:?}", outcome.longest_gap);
    assert!(outcome.longest_gap < PAUSE_MAX, "{:?}", outcome.longest_gap);
    assert_unseen(&outcome, seed);
}
