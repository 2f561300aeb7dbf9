//! What is to be done next so that every partition is where it should be: a pure decision.
//!
//! Three things can be wrong, and all of them are worked off by the same few steps. A node should hold a partition and does not
//! (it is new, or another one is away): it is given a *copy*. A node of the replica set lacks more than the backlog has: a copy,
//! too. A node holds what it should not: it *leaves*, once those that should hold the partition are in sync. Safety first: sets
//! that are short of copies come before those that are merely in another place.

use std::collections::{BTreeMap, BTreeSet};

use crate::request::{NodeId, PartitionId};

/// A partition, as far as its place is concerned.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The replica set that is recorded.
    pub replicas: Vec<NodeId>,
    /// Nodes in sync that are connected and have caught up.
    pub live: Vec<NodeId>,
    /// Nodes of the set that need a copy.
    pub out: Vec<NodeId>,
    /// Nodes that are in sync by a record that a successor may find: what they have must not be touched.
    pub recorded: Vec<NodeId>,
    /// Nodes that are about to leave, but may still be found in a record.
    pub leaving: Vec<NodeId>,
    /// The nodes that should hold it.
    pub target: Vec<NodeId>,
}

impl Place {
    /// Whether what the node has of the partition counts for nobody, and will not before it has a copy.
    pub fn is_free(&self, node: NodeId) -> bool {
        (!self.replicas.contains(&node) || self.out.contains(&node)) && !self.recorded.contains(&node)
    }
}

/// A copy to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// From whom.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// Of what.
    pub partitions: Vec<PartitionId>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nodes leave replica sets.
    Leave(Vec<(PartitionId, NodeId)>),
    /// A node is given partitions.
    Copy(Copy),
}

/// What the pool is like.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// Its partitions, in their order.
    pub places: &'a [Place],
    /// Nodes that can be given something now.
    pub able: &'a BTreeSet<NodeId>,
    /// Fewest nodes in sync that may be left.
    pub min_in_sync: usize,
    /// R.
    pub replicas: usize,
    /// Most partitions in one copy.
    pub group_max: usize,
    /// Partitions that are copied by themselves: their hand-over takes longer.
    pub heavy: &'a BTreeSet<PartitionId>,
    /// Nodes that are not copied from if there are others: it has failed lately.
    pub doubtful: &'a BTreeSet<NodeId>,
    /// Only what is short of copies is looked after.
    pub paused: bool,
}

/// How many copies are missing where they should be.
pub fn open_moves(places: &[Place]) -> usize {
    let missing = |place: &Place| {
        let has = |node: &&NodeId| place.replicas.contains(node) && !place.out.contains(node);
        place.target.iter().filter(|node| !has(node)).count()
    };
    places.iter().map(missing).sum()
}

/// The next step; `None` if there is nothing that can be done now.
pub fn next(picture: &Picture<'_>) -> Option<Step> {
    let leaving = leaving(picture);
    if !leaving.is_empty() {
        return Some(Step::Leave(leaving));
    }
    let mut wanted: BTreeMap<(bool, NodeId), Vec<PartitionId>> = BTreeMap::new();
    for (partition, place) in (0..).zip(picture.places) {
        for to in recipients(picture, place) {
            let is_short = place.live.len() < picture.replicas;
            if picture.paused && !is_short {
                continue;
            }
            wanted.entry((!is_short, to)).or_default().push(partition);
        }
    }
    wanted
        .into_iter()
        .find_map(|((_, to), partitions)| copy_to(picture, to, &partitions))
        .map(Step::Copy)
}

/// A copy of as many of these partitions as have one source.
fn copy_to(picture: &Picture<'_>, to: NodeId, all: &[PartitionId]) -> Option<Copy> {
    let is_heavy = |partition: &&PartitionId| picture.heavy.contains(partition);
    let (heavy, light): (Vec<&PartitionId>, Vec<&PartitionId>) = all.iter().partition(is_heavy);
    let partitions = match light.as_slice() {
        [] => heavy.into_iter().take(1),
        _ => light.into_iter().take(usize::MAX),
    };
    let partitions: &Vec<PartitionId> = &partitions.copied().collect();
    let from = source(picture, to, partitions)?;
    let of_source = |partition: &&PartitionId| {
        let place = picture.places.get(usize::from(**partition));
        place.is_some_and(|place| place.live.contains(&from))
    };
    Some(Copy {
        from,
        to,
        partitions: partitions
            .iter()
            .filter(of_source)
            .take(picture.group_max)
            .copied()
            .collect(),
    })
}

/// Who is to be given the partition: nodes that should hold it first; a node of the set that should not only while too few
/// others are there.
fn recipients(picture: &Picture<'_>, place: &Place) -> Vec<NodeId> {
    let lacks = |node: &&NodeId| place.is_free(**node);
    let is_able = |node: &&NodeId| picture.able.contains(node);
    let wanted: Vec<NodeId> = place
        .target
        .iter()
        .filter(lacks)
        .filter(is_able)
        .copied()
        .collect();
    if !wanted.is_empty() || place.live.len() >= picture.replicas {
        return wanted;
    }
    place.out.iter().filter(lacks).filter(is_able).copied().collect()
}

/// The node that has the most of these partitions, and not the recipient itself.
fn source(picture: &Picture<'_>, to: NodeId, partitions: &[PartitionId]) -> Option<NodeId> {
    let mut has: BTreeMap<NodeId, usize> = BTreeMap::new();
    for partition in partitions {
        let place = picture.places.get(usize::from(*partition));
        for node in place.iter().flat_map(|place| &place.live) {
            if *node != to {
                *has.entry(*node).or_default() += 1;
            }
        }
    }
    let is_good = |node: &NodeId| !picture.doubtful.contains(node);
    let most = has
        .into_iter()
        .max_by_key(|(node, count)| (is_good(node), *count, *node));
    most.map(|(node, _)| node)
}

/// Nodes that can leave now: all that should hold the partition are in sync, or R others are.
fn leaving(picture: &Picture<'_>) -> Vec<(PartitionId, NodeId)> {
    let mut leaving = Vec::new();
    for (partition, place) in (0..).zip(picture.places) {
        let is_there = |node: &NodeId| place.live.contains(node);
        let surplus = place.replicas.iter().find(|node| !place.target.contains(node));
        let Some(&node) = surplus.filter(|_| !place.target.is_empty()) else {
            continue;
        };
        let others = place.live.iter().filter(|live| **live != node).count();
        let is_complete = place.target.iter().all(is_there) && others >= picture.min_in_sync;
        if is_complete || others >= picture.replicas {
            leaving.push((partition, node));
        }
    }
    leaving
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(replicas: &[NodeId], live: &[NodeId], out: &[NodeId], target: &[NodeId]) -> Place {
        Place {
            replicas: replicas.to_vec(),
            live: live.to_vec(),
            out: out.to_vec(),
            target: target.to_vec(),
            ..Place::default()
        }
    }

    fn next_of(places: &[Place], able: &[NodeId], paused: bool) -> Option<Step> {
        next(&Picture {
            places,
            able: &able.iter().copied().collect(),
            min_in_sync: 2,
            replicas: 3,
            group_max: 2,
            heavy: &BTreeSet::from([7]),
            doubtful: &BTreeSet::new(),
            paused,
        })
    }

    #[test]
    fn where_nothing_is_wrong_nothing_is_done() {
        let fine = place(&[0, 1, 2], &[0, 1, 2], &[], &[2, 0, 1]);
        assert_eq!(next_of(&[fine], &[0, 1, 2], false), None);
        // A node that is only down may come back.
        let down = place(&[0, 1, 2], &[0, 1], &[], &[2, 0, 1]);
        assert_eq!(next_of(&[down], &[0, 1], false), None);
    }

    #[test]
    fn who_should_hold_it_gets_a_copy_and_then_the_other_leaves() {
        let mut moving = place(&[0, 1, 2], &[0, 1, 2], &[], &[0, 1, 3]);
        let copy = |partitions: &[PartitionId]| {
            Some(Step::Copy(Copy {
                from: 2,
                to: 3,
                partitions: partitions.to_vec(),
            }))
        };
        let all = vec![moving.clone(); 3];
        assert_eq!(open_moves(&all), 3);
        assert_eq!(next_of(&all, &[0, 1, 2, 3], false), copy(&[0, 1]));
        assert_eq!(next_of(&all, &[0, 1, 2], false), None, "it is not there");
        assert_eq!(next_of(&all, &[0, 1, 2, 3], true), None, "paused");
        moving = place(&[0, 1, 2, 3], &[0, 1, 2, 3], &[], &[0, 1, 3]);
        assert_eq!(
            next_of(&[moving], &[0, 1, 2, 3], true),
            Some(Step::Leave(vec![(0, 2)]))
        );
    }

    #[test]
    fn what_is_short_of_copies_comes_first_even_while_paused() {
        let moving = place(&[0, 1, 2], &[0, 1, 2], &[], &[0, 1, 3]);
        let short = place(&[0, 1, 2], &[0, 1], &[2], &[0, 1, 2]);
        let step = next_of(&[moving, short], &[0, 1, 2, 3], true);
        let expected = Copy {
            from: 1,
            to: 2,
            partitions: vec![1],
        };
        assert_eq!(step, Some(Step::Copy(expected)));
    }

    #[test]
    fn who_counts_by_the_record_is_not_given_anything_yet() {
        let mut out = place(&[0, 1, 2], &[0, 1], &[2], &[0, 1, 2]);
        out.recorded = vec![0, 1, 2];
        assert_eq!(next_of(&[out.clone()], &[0, 1, 2], false), None);
        // Nor one that has left, but not by the record.
        out.replicas = vec![0, 1];
        out.out.clear();
        assert_eq!(next_of(&[out.clone()], &[0, 1, 2], false), None);
        out.recorded = vec![0, 1];
        assert!(next_of(&[out], &[0, 1, 2], false).is_some());
    }

    #[test]
    fn nobody_leaves_before_enough_others_are_in_sync() {
        let dead = place(&[0, 1, 2, 3], &[0, 3], &[], &[0, 1, 3]);
        assert_eq!(next_of(&[dead], &[0, 3], false), None);
        let away = place(&[0, 1, 2, 3], &[0, 1, 3], &[], &[0, 1, 3]);
        assert_eq!(
            next_of(&[away], &[0, 1, 3], false),
            Some(Step::Leave(vec![(0, 2)]))
        );
    }
}
