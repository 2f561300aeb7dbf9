//! How many copies each node should hold.
//!
//! Copies go by weight, but not simply in proportion: a node cannot hold one partition twice, and a zone must not hold
//! two copies while another zone holds none. A node that weighs more than it can use, or that stands alone in its zone,
//! has its share bounded, and the rest goes to the others. Placement is balanced against these shares, so they must be
//! reachable: towards a goal that cannot be met it would pull for ever, and unbalance what could be even.
//!
//! Everything is in integers, so that every platform agrees.

use std::collections::BTreeMap;

/// Shares are counted in this many parts of one copy.
pub(super) const PARTS: u64 = 1024;

/// What the share of a node depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// At least 1.
    pub(super) weight: u32,
    /// Nodes with the same number are in the same zone.
    pub(super) zone: u16,
}

/// The copies each node should hold, in [`PARTS`] of a copy, in the order of `claims`.
pub(super) fn shares(claims: &[Claim], partitions: u16, replicas: usize) -> Vec<u64> {
    let whole = u64::from(partitions) * PARTS;
    let mut members: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        members.entry(claim.zone).or_default().push(index);
    }
    let weight_of = |index: &usize| claims.get(*index).map_or(0, |claim| u64::from(claim.weight));

    let (full_levels, spare) = levels(members.values().map(Vec::len), replicas);
    let zones: Vec<Bounded> = members
        .values()
        .map(|nodes| {
            let low = nodes.len().min(full_levels);
            let high = if spare {
                nodes.len().min(full_levels + 1)
            } else {
                low
            };
            Bounded {
                weight: nodes.iter().map(weight_of).sum(),
                low: low as u64 * whole,
                high: high as u64 * whole,
            }
        })
        .collect();
    let total = whole * replicas.min(claims.len()) as u64;

    let mut result = vec![0; claims.len()];
    for (nodes, zone_share) in members.values().zip(divide(&zones, total)) {
        let bounded: Vec<Bounded> = nodes
            .iter()
            .map(|index| Bounded {
                weight: weight_of(index),
                low: 0,
                high: whole,
            })
            .collect();
        for (index, share) in nodes.iter().zip(divide(&bounded, zone_share)) {
            if let Some(slot) = result.get_mut(*index) {
                *slot = share;
            }
        }
    }
    result
}

/// A replica set takes one node from every zone before it takes a second one from any, and so on: each such round is a
/// level. Returns how many levels every replica set fills completely, and whether a part of one more is needed.
fn levels(zone_sizes: impl Iterator<Item = usize> + Clone, replicas: usize) -> (usize, bool) {
    let mut missing = replicas;
    let mut level = 0;
    while missing > 0 {
        let nodes = zone_sizes.clone().filter(|size| *size > level).count();
        if nodes == 0 {
            break;
        }
        if nodes > missing {
            return (level, true);
        }
        missing -= nodes;
        level += 1;
    }
    (level, false)
}

/// One of those who divide something by weight, and the least and most it may get.
#[derive(Debug, Clone, Copy)]
struct Bounded {
    weight: u64,
    low: u64,
    high: u64,
}

/// Divides `total` in proportion to the weights, except that nobody gets less than his `low` or more than his `high`.
/// The parts may miss `total` by a rounding error (less than one part each).
fn divide(among: &[Bounded], total: u64) -> Vec<u64> {
    /// Bits after the point in the part that one unit of weight gets.
    const FRACTION_BITS: u32 = 20;
    let parts = |per_weight: u64| {
        among.iter().map(move |one| {
            let part = (u128::from(one.weight) * u128::from(per_weight)) >> FRACTION_BITS;
            u64::try_from(part).unwrap_or(u64::MAX).clamp(one.low, one.high)
        })
    };
    // The sum grows with what a unit of weight gets: bisect. At `most` even a weight of 1 has its `high`.
    let (mut least, mut most) = (
        0,
        among.iter().map(|one| one.high).max().unwrap_or(0) << FRACTION_BITS,
    );
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        if parts(middle).sum::<u64>() <= total {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    parts(least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(nodes: &[(u32, u16)], replicas: usize) -> Vec<u64> {
        let claims: Vec<Claim> = nodes
            .iter()
            .map(|&(weight, zone)| Claim { weight, zone })
            .collect();
        shares(&claims, 256, replicas)
            .iter()
            .map(|share| (share + PARTS / 2) / PARTS)
            .collect()
    }

    #[test]
    fn shares_are_proportional_where_nothing_hinders() {
        assert_eq!(copies(&[(1, 0), (1, 1), (1, 2), (1, 3)], 3), [192, 192, 192, 192]);
        assert_eq!(copies(&[(2, 0), (1, 1), (1, 2)], 1), [128, 64, 64]);
        assert_eq!(copies(&[(200, 0), (100, 1), (100, 2)], 1), [128, 64, 64]);
    }

    #[test]
    fn nobody_holds_a_partition_twice() {
        assert_eq!(copies(&[(10, 0), (1, 1), (1, 2), (1, 3)], 2), [256, 85, 85, 85]);
        assert_eq!(copies(&[(1, 0), (1, 1)], 3), [256, 256]);
    }

    #[test]
    fn enough_zones_bound_each_of_them_to_one_copy() {
        // Three zones, three copies: every zone holds every partition once, however many nodes it has.
        assert_eq!(
            copies(&[(1, 0), (1, 1), (1, 2), (1, 2), (2, 2)], 3),
            [256, 256, 64, 64, 128]
        );
        // Four zones, three copies: by weight again, as far as one copy per zone goes.
        assert_eq!(
            copies(&[(1, 0), (1, 1), (1, 2), (1, 3), (1, 3)], 3),
            [171, 171, 171, 128, 128]
        );
    }

    #[test]
    fn too_few_zones_share_the_second_round() {
        // Two zones, three copies: one copy in each zone, the third where there is weight (and room).
        assert_eq!(copies(&[(1, 0), (1, 0), (1, 1), (1, 1)], 3), [192, 192, 192, 192]);
        assert_eq!(copies(&[(1, 0), (1, 1), (1, 1)], 3), [256, 256, 256]);
        assert_eq!(copies(&[(1, 0), (1, 1), (1, 1), (1, 1)], 3), [256, 171, 171, 171]);
    }

    #[test]
    fn an_empty_ring_has_no_shares() {
        assert_eq!(copies(&[], 3), [0; 0]);
    }
}
