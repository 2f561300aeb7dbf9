//! From partitions to the replica sets that should hold them.
//!
//! **Problem.** Every partition needs `R` distinct nodes, in distinct zones where there are enough. Each node should hold
//! its share, a node more or less should move little else, and two sidecars that never spoke must get the same answer.
//! A plain walk round a hash ring moves little but balances badly: 256 partitions are few, and with 12 nodes some node
//! held 36 % more or less than its share, no matter how many points a node has. Skipping nodes that are full (bounded
//! loads) still left 27 %, because it takes from the full and forgets the empty.
//!
//! **Idea.** Nodes have `POINTS` points each on one circle, partitions one. The distance from a partition clockwise to
//! a node's next point, times the node's *cost*, is the node's score for it; the replica set is the `R` nodes with the
//! lowest scores. With equal costs that is exactly the walk round the ring. A cost of 1/weight is the same as points in
//! proportion to weight, but without the points: a change of one weight leaves every point where it is. Then the costs
//! are tuned: a node with too much becomes a little dearer, one with too little cheaper, until all are close to their
//! share (`TOLERANCE`). Since only ratios of costs matter, and all of them shift together when a node joins, little
//! moves beyond what must. The primaries are spread among the chosen in the same way, by costs of their own.
//!
//! **Measured** (256 partitions, equal weights, up to 12 nodes, 40 families of names; the tests hold the bounds):
//!
//! | replicas | copies of a node | primaries of a node | copies moved by a join or leave, of the least possible |
//! |---|---|---|---|
//! | 3 | share +- 6.2 % | share +- 8.6 % | 1.09 on average, 1.40 at worst |
//! | 2 | share +- 6.8 % | share +- 8.6 % | 1.13 on average, 1.42 at worst |
//! | 1 | share +- 8.6 % | share +- 8.6 % | 1.22 on average, 1.76 at worst |
//!
//! Over 6000 random pools with weights and zones: share +- (1 copy + 5 %), moved at most 1.5 of the least and 12 copies.
//!
//! **Invariants.** The nodes of a set are distinct. No zone has two copies of a partition while a zone has none (more
//! generally: two more than another that has room). The answer depends on names, weights and zones only, not on the
//! order of the list, nor on platform or release: hashes are of explicit little-endian bytes, there are no floats. It
//! must never change, or an upgrade would move data: the golden test pins it.
//!
//! What it does not do: it knows nothing of what nodes hold now. Differences are worked off elsewhere.

use super::share::{Claim, PARTS, shares};
use hashring::HashRing;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use xxhash_rust::xxh3::{Xxh3DefaultBuilder, xxh3_64};

/// What the ring knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingNode<'a> {
    /// Unique in the pool. It alone decides where the node stands on the ring: a renamed node is another node.
    pub name: &'a str,
    /// Copies are held in proportion to it. A node of weight 0 gets none: that is what draining a node asks for.
    pub weight: u32,
    /// What fails together (a rack, a power feed). A node without a zone is a zone of its own.
    pub zone: Option<&'a str>,
}

/// The nodes that should hold a partition, as indexes into the list given to [`place`]. The first is the primary.
pub type ReplicaSet = SmallVec<[u16; 4]>;

/// Points of one node on the circle. With 64 a join moved 5 % more; with 4096 nothing was gained.
const POINTS: u32 = 256;

/// Cost of a node of weight 1 before tuning. Leaves 14 bits to a node of weight 1000.
const COST_UNIT: u64 = 1 << 24;

/// Costs stay within this factor of where they began, so that a score fits in 64 bits.
const COST_FACTOR_MAX: u64 = 16;

/// Low bits of a distance that are dropped. The 32 that stay, times a cost (24 bits, and 4 for each of the two tunings),
/// are a score of 64.
const DISTANCE_DROPPED_BITS: u32 = 32;

/// Most rounds of tuning. A few are enough; pools where a share is only a few copies may never be within the tolerance,
/// and get the best that was found.
const ROUNDS_MAX: usize = 64;

/// So many rounds are done with one step size before a smaller one is tried.
const CAUTIOUS_AFTER_ROUNDS: u64 = 8;

/// Tuning ends when every node is within one copy plus 5 % of its share. Tighter would move more on a change.
const TOLERANCE: u64 = PARTS / 20;

/// The replica set that should hold each partition, `0..partitions`.
///
/// A set has `replicas` nodes, or all nodes of weight above 0 if there are fewer. The names must be unique, and
/// the nodes at most [`NODES_MAX`](crate::limits::NODES_MAX).
pub fn place(nodes: &[RingNode<'_>], partitions: u16, replicas: usize) -> Vec<ReplicaSet> {
    let circle = Circle::new(nodes, partitions);
    if circle.seats.is_empty() || replicas == 0 {
        return vec![ReplicaSet::new(); usize::from(partitions)];
    }
    let claims: Vec<Claim> = circle.seats.iter().map(|seat| seat.claim).collect();
    let copies = shares(&claims, partitions, replicas);
    let by_weight: Vec<u64> = claims
        .iter()
        .map(|claim| (COST_UNIT / u64::from(claim.weight)).max(1))
        .collect();

    let costs = tune(by_weight, &copies, |costs, load| {
        for distances in circle.rows() {
            for seat in choose(distances, costs, &circle.seats, replicas) {
                load(seat);
            }
        }
    });
    let sets: Vec<ReplicaSet> = circle
        .rows()
        .map(|distances| choose(distances, &costs, &circle.seats, replicas))
        .collect();

    let set_len = replicas.min(claims.len()) as u64;
    let primaries: Vec<u64> = copies.iter().map(|share| share / set_len).collect();
    let primary_costs = tune(costs, &primaries, |costs, load| {
        for (distances, set) in circle.rows().zip(&sets) {
            if let Some(seat) = cheapest(distances, costs, |seat| set.contains(&seat)) {
                load(seat);
            }
        }
    });
    circle
        .rows()
        .zip(&sets)
        .map(|(distances, set)| {
            let primary = cheapest(distances, &primary_costs, |seat| set.contains(&seat));
            let others = set.iter().copied().filter(|seat| Some(*seat) != primary);
            primary
                .into_iter()
                .chain(others)
                .filter_map(|seat| circle.caller_index(seat))
                .collect()
        })
        .collect()
}

/// A node that takes part. Seats are in the order of the names, so that ties do not depend on the caller's order.
struct Seat {
    /// Where the node stands in the caller's list.
    caller_index: u16,
    claim: Claim,
}

/// The circle, reduced to what placement needs: how far it is from each partition to each node.
struct Circle {
    seats: Vec<Seat>,
    /// One row per partition, one distance per seat.
    distances: Vec<u32>,
}

impl Circle {
    fn new(nodes: &[RingNode<'_>], partitions: u16) -> Self {
        let mut sorted: Vec<(u16, &RingNode<'_>)> =
            (0..).zip(nodes).filter(|(_, node)| node.weight > 0).collect();
        sorted.sort_by_key(|(_, node)| node.name);

        let mut zones = BTreeMap::new();
        let mut seats = Vec::with_capacity(sorted.len());
        for (seat, (caller_index, node)) in (0..).zip(&sorted) {
            // A zone is known by the first seat in it.
            let zone = node.zone.map_or(seat, |name| *zones.entry(name).or_insert(seat));
            seats.push(Seat {
                caller_index: *caller_index,
                claim: Claim {
                    weight: node.weight,
                    zone,
                },
            });
        }
        // One ring per node, all on the same circle: `get` finds the node's next point in a few nanoseconds, and no
        // walk over other nodes' points is needed to find the second and third copy's node.
        let rings: Vec<HashRing<Point, Xxh3DefaultBuilder>> =
            sorted.iter().map(|(_, node)| ring_of(node.name)).collect();
        let distances = (0..partitions)
            .flat_map(|partition| rings.iter().map(move |ring| distance(Start { partition }, ring)))
            .collect();
        Circle { seats, distances }
    }

    /// For each partition, the distances to the seats.
    fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.distances.chunks_exact(self.seats.len().max(1))
    }

    fn caller_index(&self, seat: u16) -> Option<u16> {
        self.seats.get(usize::from(seat)).map(|seat| seat.caller_index)
    }
}

/// One of a node's points on the circle.
///
/// `hashring` places what it is given by its `Hash`, and the one that `derive` writes depends on the platform (byte order,
/// width of `usize`) and on how the standard library ends a string. So this one writes its bytes itself.
#[derive(Debug, Clone, Copy)]
struct Point {
    name_hash: u64,
    number: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.name_hash.to_le_bytes());
        state.write(&self.number.to_le_bytes());
    }
}

/// Where a partition stands on the circle. It does not depend on how many partitions there are.
#[derive(Debug, Clone, Copy)]
struct Start {
    partition: u16,
}

impl Hash for Start {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"partition");
        state.write(&self.partition.to_le_bytes());
    }
}

fn ring_of(name: &str) -> HashRing<Point, Xxh3DefaultBuilder> {
    let name_hash = xxh3_64(name.as_bytes());
    let mut ring = HashRing::with_hasher(Xxh3DefaultBuilder);
    ring.batch_add((0..POINTS).map(|number| Point { name_hash, number }).collect());
    ring
}

/// From a partition clockwise to the node's next point, without the low bits.
fn distance(start: Start, ring: &HashRing<Point, Xxh3DefaultBuilder>) -> u32 {
    let from = Xxh3DefaultBuilder.hash_one(start);
    let to = ring
        .get(&start)
        .map_or(from, |point| Xxh3DefaultBuilder.hash_one(point));
    (to.wrapping_sub(from) >> DISTANCE_DROPPED_BITS) as u32
}

/// The `replicas` seats with the lowest scores, lowest first; but no second from a zone before every zone has one that
/// can, no third before every zone has two, and so on.
fn choose(distances: &[u32], costs: &[u64], seats: &[Seat], replicas: usize) -> ReplicaSet {
    let zone_of = |seat: u16| seats.get(usize::from(seat)).map(|seat| seat.claim.zone);
    let mut chosen = ReplicaSet::new();
    let mut per_zone = 1;
    while chosen.len() < replicas.min(seats.len()) {
        let next = cheapest(distances, costs, |seat| {
            let zone = zone_of(seat);
            !chosen.contains(&seat)
                && chosen.iter().filter(|other| zone_of(**other) == zone).count() < per_zone
        });
        match next {
            Some(seat) => chosen.push(seat),
            None => per_zone += 1,
        }
    }
    chosen
}

/// The seat with the lowest score among those that may be taken.
fn cheapest(distances: &[u32], costs: &[u64], may_be_taken: impl Fn(u16) -> bool) -> Option<u16> {
    let mut best = None;
    for (seat, (distance, cost)) in (0..).zip(distances.iter().zip(costs)) {
        let score = u64::from(*distance) * cost;
        if best.is_none_or(|(_, lowest)| score < lowest) && may_be_taken(seat) {
            best = Some((seat, score));
        }
    }
    best.map(|(seat, _)| seat)
}

/// Adjusts `costs` until what `assign` gives to each seat is close to its share. `assign` is given costs, and calls back
/// once for each copy with the seat that gets it. Returns the costs of the best round.
fn tune(mut costs: Vec<u64>, shares: &[u64], assign: impl Fn(&[u64], &mut dyn FnMut(u16))) -> Vec<u64> {
    let bounds: Vec<(u64, u64)> = costs
        .iter()
        .map(|cost| ((cost / COST_FACTOR_MAX).max(1), cost * COST_FACTOR_MAX))
        .collect();
    let mut best = costs.clone();
    let mut best_deviation = u64::MAX;
    for round in 0..ROUNDS_MAX {
        let mut loads = vec![0; costs.len()];
        assign(&costs, &mut |seat| {
            if let Some(load) = loads.get_mut(usize::from(seat)) {
                *load += PARTS;
            }
        });
        let worst = loads
            .iter()
            .zip(shares)
            .map(|(load, share)| deviation(*load, *share))
            .max()
            .unwrap_or(0);
        if worst < best_deviation {
            best_deviation = worst;
            best.clone_from(&costs);
        }
        if worst <= TOLERANCE {
            break;
        }
        // A half of the relative error at first (the whole would overshoot), a third, a quarter ... when that circles.
        let caution = 1 + round as u64 / CAUTIOUS_AFTER_ROUNDS;
        for (((cost, load), share), (least, most)) in costs.iter_mut().zip(&loads).zip(shares).zip(&bounds) {
            let share = *share.max(&1);
            *cost = (*cost * (load + caution * share) / ((caution + 1) * share)).clamp(*least, *most);
        }
    }
    best
}

/// How far a load is from its share beyond the one copy that rounding may cost, in [`PARTS`] of the share.
fn deviation(load: u64, share: u64) -> u64 {
    load.abs_diff(share).saturating_sub(PARTS) * PARTS / share.max(1)
}

#[cfg(test)]
#[path = "placement_test.rs"]
mod tests;
