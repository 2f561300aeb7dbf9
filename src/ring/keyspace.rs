//! The key space of a pool: into how many partitions it is cut, and which keys a profile keeps together.
//!
//! Fixed when the pool is made, and kept with its table: every sidecar, and every release, must find a key where another one has
//! put it.

use std::sync::Arc;

use super::partition::partition_of_route;
use super::{partition_of, pinned_to, routing_key};
use crate::profile::{Caught, KeyRule};
use crate::request::PartitionId;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Keyspace {
    /// P.
    pub partitions: u16,
    /// The profile's rules: the first one that fits a key counts. Without one: hash tag, or the whole key.
    pub rules: Arc<[KeyRule]>,
}

impl Keyspace {
    /// One in which only hash tags keep keys together.
    pub fn plain(partitions: u16) -> Self {
        Self {
            partitions,
            rules: Arc::default(),
        }
    }

    /// The partition that the key belongs to.
    #[inline]
    pub fn partition_of(&self, key: &[u8]) -> PartitionId {
        match self.rules.is_empty() || pinned_to(key).is_some() {
            true => partition_of(key, self.partitions),
            false => self.by_rules(key),
        }
    }

    fn by_rules(&self, key: &[u8]) -> PartitionId {
        match self.route_of(key) {
            Some((_, route)) => partition_of_route(&route, self.partitions),
            None => partition_of(key, self.partitions),
        }
    }

    /// The rule that decides about the key, and the text that it is decided by.
    pub fn route_of(&self, key: &[u8]) -> Option<(&KeyRule, Vec<u8>)> {
        let (rule, caught) = self.rule_of(key)?;
        Some((rule, rule.route.as_ref()?.fill(&rule.pattern, &caught)))
    }

    /// What says that other keys live where this one does: a rule, or its hash tag.
    pub fn shared_by(&self, key: &[u8]) -> Option<Vec<u8>> {
        if let Some((_, route)) = self.route_of(key) {
            return Some(route);
        }
        let tag = routing_key(key);
        (tag.len() < key.len()).then(|| tag.to_vec())
    }

    /// The rule that fits the key, and what its places have caught.
    pub fn rule_of<'k>(&self, key: &'k [u8]) -> Option<(&KeyRule, Caught<'k>)> {
        self.rules
            .iter()
            .find_map(|rule| Some((rule, rule.pattern.fit(key)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_rule_live_where_their_route_says() {
        let rule = KeyRule::together("bull:{queue}:{rest}", "bull:{queue}").unwrap();
        let space = Keyspace {
            partitions: 4096,
            rules: Arc::from([rule]),
        };
        let here = space.partition_of(b"bull:mail:wait");
        assert_eq!(space.partition_of(b"bull:mail:active"), here);
        assert_eq!(here, partition_of(b"bull:mail", 4096));
        assert_ne!(space.partition_of(b"bull:post:wait"), here);
        assert_eq!(space.partition_of(b"other"), partition_of(b"other", 4096));
        // What is pinned stays so, whatever rule would fit it.
        assert_eq!(space.partition_of(b"rf@0007:bull:mail:wait"), 7);
    }
}
