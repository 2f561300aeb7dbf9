//! Everything at once: all kinds of work, and all kinds of harm in random order.
//!
//! A round is one pool, one seed, and some time; a long run is one round after the other, each with a seed of its own, which is printed
//! (`SEED=n`). It gives the same pool and the same draws again; since what is drawn from depends on how far moves are, the harm may
//! become another one after some steps. `make test` runs one short round, `make soak` rounds for an hour (`SOAK_SECONDS`).

mod front;
mod hand;
mod ledger;
mod shape;
mod storm;
mod work;
mod world;

use crate::convergence::{assert_converged, holders};
use crate::harness::{Rng, seed, setting};
use front::{Front, Kind, Pause};
use hand::Crew;
use shape::Shape;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use storm::Storm;
use world::World;

/// How long harm is done in one round of a long run.
const ROUND: Duration = Duration::from_secs(60);

#[test]
fn everything_at_once() {
    let total = Duration::from_secs(setting("SOAK_SECONDS", 8) as u64);
    let first = seed();
    let end = Instant::now() + total;
    let mut round = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if round > 0 && left < Duration::from_secs(5) {
            return;
        }
        one_round(first + round, left.min(ROUND));
        round += 1;
    }
}

fn one_round(seed: u64, harm_time: Duration) {
    let mut rng = Rng::new(seed);
    let shape = Shape::of(&mut rng);
    eprintln!("SEED={seed}: {shape}");
    let mut world = World::start(shape);
    let front = std::sync::Arc::clone(&world.front);
    let mut crew = Crew::new(&front, seed);
    let works = work::start_all(&mut crew);
    front.wait_progress();
    let mut storm = Storm::new(&mut world, rng);
    storm.run(Instant::now() + harm_time);
    let counts = std::mem::take(&mut storm.counts);
    let mut wrong = front.violations();
    if wrong.is_empty() {
        world.wait_healed();
        front.wait_progress();
    }
    crew.dismiss();
    wrong.extend(front.violations().into_iter().skip(wrong.len()));
    if wrong.is_empty() {
        let mut client = world.sidecar().client();
        for work in works {
            wrong.extend(work.finish(&mut client));
        }
    }
    assert!(
        wrong.is_empty(),
        "SEED={seed}: {shape}\n{}\n--- what was done ---\n{}",
        wrong.join("\n"),
        front.events().join("\n")
    );
    let sets = holders(world.sidecar());
    assert!(
        sets.iter()
            .all(|set| set.replicas.len() == shape.replicas && set.replicas == set.in_sync),
        "SEED={seed}: not R copies everywhere: {sets:?}"
    );
    assert_converged(&world.pool, world.sidecar());
    say(&front, &counts);
}

/// Whether a pause counts, by what was going on.
type IsIt<'a> = &'a dyn Fn(&[Kind]) -> bool;

fn say(front: &Front, counts: &BTreeMap<String, u64>) {
    for (what, count) in counts {
        eprintln!("  {count:4} x {what}");
    }
    let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    eprintln!(
        "  {} commands acknowledged, {} refused, {} of unknown outcome",
        count(&front.acknowledged),
        count(&front.refused),
        count(&front.unknown)
    );
    let pauses = front.pauses();
    let longest = |is_it: IsIt<'_>| -> Option<&Pause> {
        let fitting = pauses.iter().filter(|(kinds, _)| is_it(kinds));
        fitting.map(|(_, pause)| pause).max_by_key(|pause| pause.took)
    };
    let rows: [(&str, IsIt<'_>); 7] = [
        ("nothing", &|kinds| kinds.is_empty()),
        ("a node's death", &|kinds| kinds == [Kind::Death]),
        ("a node's hang", &|kinds| kinds == [Kind::Hang]),
        ("a ring change", &|kinds| kinds == [Kind::Ring]),
        ("a node's death in a ring change", &|kinds| {
            kinds == [Kind::Death, Kind::Ring]
        }),
        ("the sidecar", &|kinds| {
            kinds.contains(&Kind::Sidecar) && !kinds.contains(&Kind::Quorum)
        }),
        ("everything", &|_| true),
    ];
    for (of, is_it) in rows {
        if let Some(pause) = longest(is_it) {
            eprintln!("  longest pause for {of}: {pause}");
        }
    }
}
