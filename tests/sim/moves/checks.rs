//! Where things must be: at any moment, and at the end.

use super::*;

impl World {
    /// Every partition is where it should be, and nothing is left elsewhere.
    pub fn check_places(&mut self) -> Result<(), String> {
        let places = self.places(0);
        let table = self.serving(0).map(|serving| serving.keeper.table.clone());
        let sorted = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
        for (p, place) in places.iter().enumerate() {
            let row = table.as_ref().map(|table| &table.rows[p]);
            let target = sorted(&place.target);
            let recorded = row.map_or_else(BTreeSet::new, |row| sorted(&row.replicas));
            if sorted(&place.replicas) != target || sorted(&place.live) != target || recorded != target {
                return Err(format!("partition {p} is at {place:?}, recorded at {recorded:?}"));
            }
            let partition = p as PartitionId;
            for (n, node) in self.nodes.iter().enumerate() {
                if node.repair.contains_key(&partition) {
                    return Err(format!("node {n} has a mark of partition {p} left"));
                }
                let is_stranger = !target.contains(&(n as NodeId));
                if is_stranger
                    && (!node.keys_of(partition).is_empty()
                        || node.position(partition) != Position::default())
                {
                    return Err(format!(
                        "node {n} has something of partition {p}: {:?}, {:?}",
                        node.position(partition),
                        node.keys_of(partition)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whatever a successor would find at this moment: all that clients were told is on W nodes in sync (or on all, if fewer are left),
    /// and their accounts say so.
    pub fn check_promise(&self) -> Result<(), String> {
        if self.damaged {
            return Ok(());
        }
        let keys = &self.history.keys;
        for partition in 0..self.plan.partitions {
            for list in [false, true].map(|second| keys.list(partition, second)) {
                let floor = self.history.lists.floor(&list);
                if floor == 0 {
                    continue;
                }
                let has = |n: &&NodeId| {
                    let node = &self.nodes[usize::from(**n)];
                    let len = match node.data.get(&list) {
                        Some(Value::List(values)) => values.len(),
                        _ => 0,
                    };
                    len >= floor
                        && (self.plan.replicas == 1 || node.position(partition) != Position::default())
                };
                for record in self.findable() {
                    let set = record.rows[usize::from(partition)].nodes_in_sync();
                    let holders = set.iter().filter(has).count();
                    // Where fewer are left at all, on each of them.
                    if holders < (self.plan.settings.write_quorum as usize).min(set.len()).max(1) {
                        let found = |n: &NodeId| {
                            let node = &self.nodes[usize::from(*n)];
                            (*n, node.position(partition), node.data.get(&list))
                        };
                        return Err(format!(
                            "partition {partition}: {floor} values of {} were told of, and {holders} of those in sync by record {:?} \
                             have them: {:?}",
                            name(&list),
                            record.stamp,
                            set.iter().map(found).collect::<Vec<_>>(),
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
