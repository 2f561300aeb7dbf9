//! The segments of a queue: found, opened and dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Steps;
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step};
use crate::ingress::stripe::errand;
use crate::request::{NodeId, PartitionId};
use crate::resp::walk::text;
use crate::stripe::{Directory, Id, Inside, Segment, Stripe, Stripes, Turn, names};

/// Partitions that are looked at for a new segment.
const LOOKED_AT: u16 = 16;

/// From one partition of the cycle to the next, where there are more than that: consecutive segments should not be neighbours.
const STRIDE: u16 = 7;

/// The segments in which a member's entry may be.
pub(super) fn candidates<'a>(
    stripes: &Stripes,
    db: u16,
    index: &[u8],
    directory: &'a Directory,
    member: &[u8],
) -> Box<dyn Iterator<Item = Segment> + 'a> {
    let id = Id::of(member);
    if let Some(marker) = id.and_then(|id| stripes.entry(db, index, id)) {
        return Box::new(directory.segments().filter(move |s| s.number == marker.segment));
    }
    let known = id.and_then(|id| match stripes.place(db, id) {
        Some(crate::stripe::Place::Segment(partition)) => Some(partition),
        _ => None,
    });
    match known {
        Some(partition) => Box::new(directory.segments().filter(move |s| s.partition == partition)),
        None => Box::new(directory.segments()),
    }
}

/// The directory of an index, which is read if it was not yet.
pub(super) async fn directory(p: &Procedure, steps: &Steps, index: &[u8]) -> Step<Arc<Directory>> {
    Ok(queue(p, steps, index).await?.1)
}

/// A queue, and its directory, which is read if it was not yet.
pub(super) async fn queue(p: &Procedure, steps: &Steps, index: &[u8]) -> Step<(Arc<Stripe>, Arc<Directory>)> {
    let queue = steps.stripes.queue(steps.db, index);
    loop {
        if let Some(directory) = queue.directory() {
            return Ok((queue, directory));
        }
        errand::load(p, &steps.stripes, &queue, index).await?;
    }
}

/// The segment that entries are to be appended to, when it is our turn, which lasts until what comes with it is dropped.
pub(super) async fn turn(
    p: &Procedure,
    steps: &Steps,
    index: &[u8],
    entries: u64,
) -> Step<(Segment, Inside)> {
    loop {
        let (queue, _) = queue(p, steps, index).await?;
        match queue.turn(entries, steps.stripes.profile.segment_len).await {
            Turn::Append(segment, inside) => return Ok((segment, inside)),
            Turn::Seal(segment, appended, alone) => {
                if let Some(directory) = queue.directory() {
                    let mut next = Directory::clone(&directory);
                    next.open_next(
                        next_partition(p, &next, segment),
                        segment.base + u128::from(appended),
                    );
                    record(p, steps.db, index, &next).await?;
                    queue.sealed(next, &alone);
                }
            }
            Turn::Unread => {}
        }
    }
}

/// Writes the directory's record.
pub(super) async fn record(p: &Procedure, db: u16, index: &[u8], directory: &Directory) -> Step<()> {
    let home = p.worker.shared().keyspace.partition_of(index);
    let name = names::directory(home, index);
    let text = directory.to_text();
    p.write(home, db, &[b"SET", &name, text.as_bytes()], 1).await?;
    Ok(())
}

/// Where the next segment is opened: on the nodes that have the fewest segments of this queue. A node that is new has none.
pub(super) fn next_partition(p: &Procedure, directory: &Directory, open: Segment) -> PartitionId {
    let table = p.worker.shared().table.load();
    let partitions = table.partitions().max(1);
    let nodes_of = |partition: PartitionId| {
        let row = table.rows.get(usize::from(partition));
        row.map(|row| row.replicas.clone()).unwrap_or_default()
    };
    let mut load: BTreeMap<NodeId, u64> = BTreeMap::new();
    for segment in directory.segments() {
        for node in nodes_of(segment.partition) {
            *load.entry(node).or_default() += 2;
        }
    }
    // Not the nodes of the one before, if there are others.
    for node in nodes_of(open.partition) {
        *load.entry(node).or_default() += 1;
    }
    let stride = if partitions > STRIDE * LOOKED_AT {
        STRIDE
    } else {
        1
    };
    let around = (1..=LOOKED_AT.min(partitions)).map(|n| (open.partition + n * stride) % partitions);
    let cost = |partition: &PartitionId| {
        nodes_of(*partition)
            .iter()
            .map(|node| load.get(node).copied().unwrap_or(0))
            .sum::<u64>()
    };
    around.min_by_key(cost).unwrap_or(open.partition)
}

/// Takes sealed segments that are empty out of the directory.
pub(super) async fn drop_empty(p: &Procedure, steps: &Steps, index: &[u8], empty: &[Segment]) {
    let queue = steps.stripes.queue(steps.db, index);
    let Some(alone) = queue.try_alone() else {
        return;
    };
    let Some(before) = queue.directory() else {
        return;
    };
    let mut after = Directory::clone(&before);
    let dropped: Vec<Segment> = empty
        .iter()
        .copied()
        .filter(|segment| after.drop_sealed(segment.number))
        .collect();
    if after != *before && record(p, steps.db, index, &after).await.is_ok() {
        queue.directory_changed(after, &alone);
        for segment in dropped {
            // If its counter stays, it is found again when the queue is removed; nobody reads it.
            let counter = counter_name(&steps.stripes, index, segment);
            drop(p.write(segment.partition, steps.db, &[b"DEL", &counter], 1).await);
        }
    }
}

/// What a segment's counter is called: as the profile calls the index's counter.
pub(super) fn counter_name(stripes: &Stripes, index: &[u8], segment: Segment) -> Bytes {
    let profile = &stripes.profile;
    let key = profile.role(crate::profile::Role::Index).and_then(|rule| {
        let caught = rule.pattern.fit(index)?;
        let counter = profile.role(crate::profile::Role::Counter)?;
        Some(counter.pattern.fill(&rule.pattern, &caught))
    });
    names::segment(segment, key.as_deref().unwrap_or(index))
}

/// The texts of an array's elements.
pub(super) fn texts(reply: &Bytes) -> Vec<Bytes> {
    elements(reply)
        .filter_map(text)
        .map(|element| reply.slice_ref(element))
        .collect()
}
