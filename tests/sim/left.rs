//! What is left when everything is still; and what of two partitions must never be seen of one alone.

use std::collections::{BTreeMap, BTreeSet};

use ringfence::request::PartitionId;

use crate::history::History;
use crate::keys::{name, partition_of};
use crate::node::{Key, Value};
use crate::ops::{End, Kind, Op};

impl History {
    /// What was pushed to both lists is in both, or in none. `reader` holds their partitions: so nobody is half done, but who
    /// will never be done.
    pub fn check_whole(
        &self,
        reader: Option<u64>,
        lists: [&Key; 2],
        values: [&[Vec<u8>]; 2],
    ) -> Result<(), String> {
        let [one, other] = lists.map(|list| partition_of(&list.1));
        let torn = self.uneven.contains(&(one.min(other), one.max(other)));
        for (id, op) in self.ops.iter().enumerate() {
            if !op.kind.pushes() || !lists.iter().all(|list| op.lists.contains(list)) {
                continue;
            }
            let text = id.to_string().into_bytes();
            let [here, there] = values.map(|values| values.contains(&text));
            let owner = reader.map(|reader| self.ops[reader as usize].owner);
            let excused = match op.kind {
                // Its steps are writes of their own; a successor sees what was done of them.
                Kind::PushInTurn => {
                    op.end == Some(End::Unknown) || (op.end.is_none() && owner != Some(op.owner))
                }
                _ => torn && op.end != Some(End::Done),
            };
            if here != there && !excused {
                return Err(format!(
                    "{id} ({:?}, {:?}) is in one of {} and {} only",
                    op.kind,
                    op.end,
                    name(lists[0]),
                    name(lists[1])
                ));
            }
        }
        Ok(())
    }

    /// What is there when everything is still.
    pub fn check_final(
        &mut self,
        partition: PartitionId,
        found: &BTreeMap<Key, Value>,
    ) -> Result<(), String> {
        for second in [false, true] {
            let key = self.keys.list(partition, second);
            self.lists.check_final(&self.ops, &key, &elements(found, &key))?;
        }
        let n = match found.get(&self.keys.counter(partition)) {
            Some(Value::Int(n)) => *n,
            _ => 0,
        };
        let counter = self.counters.entry(partition).or_default();
        let floor = counter.floor.max(counter.done);
        self.learn_count(partition, n, floor)
            .map_err(|why| format!("counter of partition {partition}: {why}"))?;
        let members = match found.get(&self.keys.set(partition)) {
            Some(Value::Set(members)) => members.clone(),
            _ => BTreeSet::new(),
        };
        let mut missing = 0;
        let mut open_pops = 0;
        for (id, op) in self
            .ops
            .iter()
            .enumerate()
            .filter(|(_, op)| op.partition == partition)
        {
            let there = members.contains(id.to_string().as_bytes());
            let popped = self.popped.contains_key(&(id as u64));
            match (op.kind, &op.end) {
                (Kind::Add, _) if there && popped => return Err(format!("{id} was popped and is there")),
                (Kind::Add, Some(End::NotDone)) if there => {
                    return Err(format!("{id} was refused and is there"));
                }
                (Kind::Add, Some(End::Done)) => missing += usize::from(!there && !popped),
                (Kind::Pop, Some(End::Unknown)) => open_pops += 1,
                _ => {}
            }
        }
        if missing > open_pops {
            return Err(format!(
                "{missing} members are lost in partition {partition}, and {open_pops} may be popped"
            ));
        }
        Ok(())
    }

    /// The same of what concerns several partitions.
    pub fn check_final_all(&self, found: &BTreeMap<Key, Value>) -> Result<(), String> {
        let partitions = self.keys.partitions();
        for second in [false, true] {
            for one in 0..partitions {
                for other in one + 1..partitions {
                    let lists = [one, other].map(|p| self.keys.list(p, second));
                    let values = [0, 1].map(|i| elements(found, &lists[i]));
                    self.check_whole(None, [&lists[0], &lists[1]], [&values[0], &values[1]])?;
                }
            }
        }
        let queues = (0..partitions).flat_map(|p| [false, true].map(|second| self.keys.queue(p, second)));
        let queued: Vec<Vec<u8>> = queues.flat_map(|queue| elements(found, &queue)).collect();
        let torn = |op: &&Op| {
            let (one, other) = (op.partition, op.other.unwrap_or(op.partition));
            op.kind == Kind::Move
                && op.end == Some(End::Unknown)
                && self.uneven.contains(&(one.min(other), one.max(other)))
        };
        let torn = self.ops.iter().filter(torn).count();
        self.queues.check_final(&self.ops, &queued, torn)
    }
}

/// The elements of a list.
pub fn elements(found: &BTreeMap<Key, Value>, key: &Key) -> Vec<Vec<u8>> {
    match found.get(key) {
        Some(Value::List(values)) => values.clone(),
        _ => Vec::new(),
    }
}
