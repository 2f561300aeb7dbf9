//! Lists that are only appended to, with values that are used once: the length that a push is answered with says where its
//! value stands for ever, and every list that is read must be a stretch from the start of one and the same list.

use std::collections::BTreeMap;

use crate::keys::name;
use crate::node::Key;
use crate::ops::{End, Op};

/// What is known of one list.
#[derive(Debug, Default)]
struct State {
    /// By place; `None` where nobody has been told yet.
    truth: Vec<Option<u64>>,
    /// Length that somebody has been told.
    floor: usize,
    place: BTreeMap<u64, usize>,
}

#[derive(Debug, Default)]
pub struct Lists(BTreeMap<Key, State>);

impl Lists {
    /// What the list's length must be by now.
    pub fn floor(&self, key: &Key) -> usize {
        self.0.get(key).map_or(0, |list| list.floor)
    }

    /// Whether somebody has been told that the list has the value.
    pub fn has(&self, key: &Key, value: u64) -> bool {
        self.0
            .get(key)
            .is_some_and(|list| list.place.contains_key(&value))
    }

    /// Somebody was told that the list has `value` at `place`.
    pub fn learn(&mut self, ops: &[Op], key: &Key, place: usize, value: u64) -> Result<(), String> {
        let list = self.0.entry(key.clone()).or_default();
        if list.truth.len() <= place {
            list.truth.resize(place + 1, None);
        }
        match list.truth[place] {
            Some(other) if other != value => {
                return Err(format!(
                    "{value} stands at place {place} of {}, where {other} stood",
                    name(key)
                ));
            }
            Some(_) => {}
            None => {
                let op = ops
                    .get(value as usize)
                    .ok_or_else(|| format!("{value} was never pushed"))?;
                if !op.kind.pushes() || !op.lists.contains(key) {
                    return Err(format!("{value} was never pushed to {}", name(key)));
                }
                if op.end == Some(End::NotDone) {
                    return Err(format!("{value} was refused, and yet stands in {}", name(key)));
                }
                if let Some(other) = list.place.insert(value, place) {
                    return Err(format!(
                        "{value} stands twice in {}, at {other} and {place}",
                        name(key)
                    ));
                }
                list.truth[place] = Some(value);
            }
        }
        list.floor = list.floor.max(place + 1);
        Ok(())
    }

    /// Somebody has read all of the list.
    pub fn learn_all(&mut self, ops: &[Op], key: &Key, values: &[Vec<u8>]) -> Result<(), String> {
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for (place, value) in values.iter().enumerate() {
            let value: u64 = String::from_utf8_lossy(value)
                .parse()
                .map_err(|_| "a value nobody has pushed")?;
            self.learn(ops, key, place, value)?;
            let op = &ops[value as usize];
            // What takes several steps is not kept in the order of its beginnings.
            if !op.kind.is_procedure()
                && last
                    .insert(op.producer, value)
                    .is_some_and(|before| before > value)
            {
                return Err(format!(
                    "{value} of producer {} stands behind what he pushed later",
                    op.producer
                ));
            }
        }
        Ok(())
    }

    /// All that is there when everything is still.
    pub fn check_final(&mut self, ops: &[Op], key: &Key, values: &[Vec<u8>]) -> Result<(), String> {
        let floor = self.floor(key);
        if values.len() < floor {
            let truth = &self.0[key].truth;
            let lost: Vec<u64> = truth.iter().skip(values.len()).copied().flatten().collect();
            return Err(format!(
                "{} has {} values of {floor}; {lost:?} are lost",
                name(key),
                values.len()
            ));
        }
        self.learn_all(ops, key, values)?;
        for (id, op) in ops.iter().enumerate() {
            let acknowledged = op.kind.pushes() && op.end == Some(End::Done) && op.lists.contains(key);
            if acknowledged && !self.has(key, id as u64) {
                return Err(format!("{id} was acknowledged and is not in {}", name(key)));
            }
        }
        Ok(())
    }
}
