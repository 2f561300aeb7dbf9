//! What placement promises: golden values, properties for any pool, and bounds on balance and movement.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A node as the tests make it: name, weight, zone.
type Plan = (String, u32, Option<String>);

fn ring_nodes(plan: &[Plan]) -> Vec<RingNode<'_>> {
    plan.iter()
        .map(|(name, weight, zone)| RingNode {
            name,
            weight: *weight,
            zone: zone.as_deref(),
        })
        .collect()
}

fn equal_nodes(family: usize, count: usize) -> Vec<Plan> {
    (0..count)
        .map(|index| (format!("redis-{family}-{index}"), 1, None))
        .collect()
}

fn copies_per_node(sets: &[ReplicaSet], nodes: usize) -> Vec<usize> {
    let mut copies = vec![0; nodes];
    sets.iter()
        .flatten()
        .for_each(|node| copies[usize::from(*node)] += 1);
    copies
}

fn primaries_per_node(sets: &[ReplicaSet], nodes: usize) -> Vec<usize> {
    let mut primaries = vec![0; nodes];
    sets.iter().for_each(|set| primaries[usize::from(set[0])] += 1);
    primaries
}

/// The largest relative distance from the mean.
fn spread(loads: &[usize]) -> f64 {
    let mean = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
    loads
        .iter()
        .map(|load| (*load as f64 - mean).abs() / mean)
        .fold(0.0, f64::max)
}

/// Replica sets by node name.
fn named(plan: &[Plan], partitions: u16, replicas: usize) -> Vec<Vec<String>> {
    let nodes = ring_nodes(plan);
    let name = |index: &u16| nodes[usize::from(*index)].name.to_owned();
    place(&nodes, partitions, replicas)
        .iter()
        .map(|set| set.iter().map(name).collect())
        .collect()
}

/// Copies that have to be made to get from one placement to the other.
fn copies_to_make(before: &[Vec<String>], after: &[Vec<String>]) -> usize {
    let pairs = before.iter().zip(after);
    pairs
        .map(|(old, new)| new.iter().filter(|node| !old.contains(node)).count())
        .sum()
}

#[test]
fn a_weighted_pool_with_zones_is_placed_as_in_the_first_release() {
    let nodes = [
        RingNode {
            name: "a",
            weight: 1,
            zone: Some("z1"),
        },
        RingNode {
            name: "b",
            weight: 2,
            zone: Some("z1"),
        },
        RingNode {
            name: "c",
            weight: 1,
            zone: Some("z2"),
        },
        RingNode {
            name: "d",
            weight: 3,
            zone: Some("z2"),
        },
        RingNode {
            name: "e",
            weight: 2,
            zone: None,
        },
    ];
    let place_as_text = |partitions, replicas| -> Vec<String> {
        let letter = |index: &u16| nodes[usize::from(*index)].name;
        place(&nodes, partitions, replicas)
            .iter()
            .map(|set| set.iter().map(letter).collect())
            .collect()
    };
    assert_eq!(place_as_text(32, 3).join(" "), GOLDEN_32);
    // All of a pool of the default size, as one number.
    let whole = place_as_text(256, 3).join(" ");
    assert_eq!(
        (&whole[..31], xxh3_64(whole.as_bytes())),
        (GOLDEN_256_START, GOLDEN_256_HASH)
    );
}

const GOLDEN_32: &str = "bde eac ade bce bed cbe edb ead dbe ade bce bde ebd edb eac dea deb dae ebd dae dae ade \
                         ebd aed ecb bde ebd dbe ebd bed cbe dbe";
const GOLDEN_256_START: &str = "bde ace ade bce bed cbe ebd bed";
const GOLDEN_256_HASH: u64 = 6978602766604253107;

#[test]
fn weights_and_zones_decide_the_shares() {
    let plan: Vec<Plan> = [
        ("a", 1, "z1"),
        ("b", 2, "z1"),
        ("c", 1, "z2"),
        ("d", 3, "z2"),
        ("e", 7, "z3"),
    ]
    .map(|(name, weight, zone)| (name.to_owned(), weight, Some(zone.to_owned())))
    .into();
    let sets = place(&ring_nodes(&plan), 256, 3);
    // One copy in each zone, whatever the zone weighs; inside a zone by weight.
    for (copies, expected) in copies_per_node(&sets, 5)
        .into_iter()
        .zip([85.3, 170.7, 64.0, 192.0, 256.0])
    {
        assert!(
            (copies as f64 - expected).abs() <= 1.0 + 0.05 * expected,
            "{copies} for {expected}"
        );
    }
}

#[test]
fn a_node_of_weight_0_is_drained() {
    let mut plan = equal_nodes(0, 5);
    plan[2].1 = 0;
    let drained = named(&plan, 256, 3);
    plan.remove(2);
    assert_eq!(drained, named(&plan, 256, 3));
}

#[test]
fn small_and_empty_pools() {
    assert_eq!(place(&[], 4, 3), vec![ReplicaSet::new(); 4]);
    let one = [RingNode {
        name: "a",
        weight: 1,
        zone: None,
    }];
    assert_eq!(place(&one, 2, 3), vec![ReplicaSet::from_slice(&[0]); 2]);
    assert_eq!(place(&one, 2, 0), vec![ReplicaSet::new(); 2]);
    assert_eq!(place(&one, 0, 1), Vec::<ReplicaSet>::new());
}

#[test]
fn the_largest_pool_is_placed() {
    let plan: Vec<Plan> = (0..256)
        .map(|index| (format!("n{index}"), 1 + index % 3 * 499, None))
        .collect();
    let sets = place(&ring_nodes(&plan), 4096, 7);
    assert!(
        sets.iter()
            .all(|set| set.iter().collect::<BTreeSet<_>>().len() == 7)
    );
}

/// The bounds of the module comment, over pools of up to 12 nodes with 6 families of names each. (Its figures are from 40,
/// which take too long in a debug build.)
#[test]
fn balance_and_movement_stay_within_the_stated_bounds() {
    for replicas in 1..=3 {
        let mut worst_spread: f64 = 0.0;
        let mut worst_primaries: f64 = 0.0;
        let mut worst_movement: f64 = 0.0;
        let mut movement_sum = 0.0;
        let mut changes = 0;
        for count in replicas + 1..=12 {
            for family in 0..6 {
                let plan = equal_nodes(family, count);
                let before = place(&ring_nodes(&plan), 256, replicas);
                worst_spread = worst_spread.max(spread(&copies_per_node(&before, count)));
                worst_primaries = worst_primaries.max(spread(&primaries_per_node(&before, count)));

                let smaller = named(&plan, 256, replicas);
                let larger = named(&equal_nodes(family, count + 1), 256, replicas);
                let ideal = (256 * replicas) as f64 / (count + 1) as f64;
                for moved in [
                    copies_to_make(&smaller, &larger),
                    copies_to_make(&larger, &smaller),
                ] {
                    worst_movement = worst_movement.max(moved as f64 / ideal);
                    movement_sum += moved as f64 / ideal;
                    changes += 1;
                }
            }
        }
        println!(
            "{replicas} replicas: copies within {worst_spread:.3}, primaries within {worst_primaries:.3}, \
             movement {:.2} (mean) {worst_movement:.2} (worst) of ideal",
            movement_sum / f64::from(changes),
        );
        // With one replica a share is few partitions, so the one that rounding costs weighs more.
        let (spread_max, movement_max) = if replicas == 1 { (0.12, 1.8) } else { (0.08, 1.45) };
        assert!(worst_spread <= spread_max && worst_primaries <= 0.12);
        assert!(worst_movement <= movement_max && movement_sum <= 1.25 * f64::from(changes));
    }
}

prop_compose! {
    /// Any pool, with what it is asked for: up to 12 nodes of weight 1 to 8, none to all of them in one of 4 zones.
    fn any_pool()(
        nodes in proptest::collection::btree_map("[a-z]{1,8}", (1_u32..=8, proptest::option::of(0_u8..4)), 1..=12),
        replicas in 1_usize..=7,
    ) -> (Vec<Plan>, usize) {
        let plan = nodes.into_iter().map(|(name, (weight, zone))| (name, weight, zone.map(|zone| format!("z{zone}"))));
        (plan.collect(), replicas)
    }
}

/// How many copies of a partition each zone holds, and how many nodes the zone has.
fn copies_and_nodes_by_zone(plan: &[Plan], set: &[String]) -> BTreeMap<String, (usize, usize)> {
    let mut zones = BTreeMap::new();
    for (name, _, zone) in plan {
        let own = || format!("own zone of {name}");
        let (copies, nodes) = zones.entry(zone.clone().unwrap_or_else(own)).or_insert((0, 0));
        *nodes += 1;
        *copies += usize::from(set.contains(name));
    }
    zones
}

/// What each node of a pool of 256 partitions should hold, in [`PARTS`] of a copy.
fn shares_by_name(plan: &[Plan], replicas: usize) -> BTreeMap<String, u64> {
    let nodes = ring_nodes(plan);
    let circle = Circle::new(&nodes, 256);
    let claims: Vec<Claim> = circle.seats.iter().map(|seat| seat.claim).collect();
    let names = circle
        .seats
        .iter()
        .map(|seat| nodes[usize::from(seat.caller_index)].name.to_owned());
    names.zip(shares(&claims, 256, replicas)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_nodes_of_a_set_are_distinct((plan, replicas) in any_pool()) {
        for set in place(&ring_nodes(&plan), 64, replicas) {
            let distinct: BTreeSet<u16> = set.iter().copied().collect();
            prop_assert_eq!(distinct.len(), set.len());
            prop_assert_eq!(set.len(), replicas.min(plan.len()));
            prop_assert!(distinct.iter().all(|node| usize::from(*node) < plan.len()));
        }
    }

    #[test]
    fn no_zone_has_two_copies_more_than_another_with_room((plan, replicas) in any_pool()) {
        for set in named(&plan, 64, replicas) {
            let zones = copies_and_nodes_by_zone(&plan, &set);
            let most = zones.values().map(|(copies, _)| *copies).max().unwrap_or(0);
            for (copies, nodes) in zones.values() {
                prop_assert!(copies + 1 >= most || copies == nodes, "{zones:?}");
            }
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        (plan, shuffled, replicas) in any_pool().prop_flat_map(|(plan, replicas)| {
            (Just(plan.clone()), Just(plan).prop_shuffle(), Just(replicas))
        }),
    ) {
        prop_assert_eq!(named(&plan, 64, replicas), named(&shuffled, 64, replicas));
    }

    #[test]
    fn every_node_holds_about_its_share((plan, replicas) in any_pool()) {
        let held = copies_per_node(&place(&ring_nodes(&plan), 256, replicas), plan.len());
        let shares = shares_by_name(&plan, replicas);
        for ((name, ..), held) in plan.iter().zip(held) {
            let (held, share) = (held as f64, shares[name] as f64 / PARTS as f64);
            // Found over 6000 pools: never more than one copy and 6 %.
            prop_assert!((held - share).abs() <= 2.0 + 0.08 * share, "{held} copies for a share of {share}");
        }
    }

    #[test]
    fn a_node_more_or_less_moves_little_else((plan, replicas) in any_pool()) {
        let fewer = &plan[1..];
        let (with, without) = (named(&plan, 256, replicas), named(fewer, 256, replicas));
        let (shares_with, shares_without) = (shares_by_name(&plan, replicas), shares_by_name(fewer, replicas));
        let gained = |from: &BTreeMap<String, u64>, to: &BTreeMap<String, u64>| -> u64 {
            to.iter().map(|(name, share)| share.saturating_sub(*from.get(name).unwrap_or(&0))).sum()
        };
        for (ideal, moved) in [
            (gained(&shares_without, &shares_with), copies_to_make(&without, &with)),
            (gained(&shares_with, &shares_without), copies_to_make(&with, &without)),
        ] {
// Found over 6000 pools: at most half more, and 12 copies. With a share of a few copies the noise counts.
            let ideal = ideal as f64 / PARTS as f64;
            prop_assert!(moved as f64 <= 1.5 * ideal + 24.0, "{moved} copies moved where {ideal} would do");
        }
    }
}
