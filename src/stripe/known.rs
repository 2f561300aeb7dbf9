//! What is remembered of ids that have been seen, within bounds: the latest half is kept for sure.

use std::collections::HashMap;
use std::hash::Hash;

/// A map that forgets what has not been used for long. Two generations: what is used comes into the young one, and when that is full,
/// it becomes the old one, and the old one is forgotten.
#[derive(Debug)]
pub struct Known<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Eq + Hash + Copy, V: Copy> Known<K, V> {
    /// One that remembers at most so many.
    pub fn new(max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max: (max / 2).max(1),
        }
    }

    /// What is known.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let value = self.old.remove(key)?;
        self.put(*key, value);
        Some(value)
    }

    /// Learns something.
    pub fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets it.
    pub fn forget(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut known = Known::new(100);
        known.put(0, 'a');
        for n in 1..1000 {
            known.put(n, 'b');
            assert_eq!(known.get(&0), Some('a'));
            assert!(known.young.len() + known.old.len() <= 101);
        }
        assert_eq!(known.get(&1), None);
        assert_eq!(known.get(&960), Some('b'));
        known.forget(&0);
        assert_eq!(known.get(&0), None);
        known.clear();
        assert_eq!(known.get(&999), None);
    }
}
