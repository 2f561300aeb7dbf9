//! The keys of the simulated clients. Their names say their partition (`L3{…}`), and have a hash tag that is hashed to it: the
//! sequencer computes the partition of a key where a write has keys of several.

use ringfence::request::PartitionId;
use ringfence::ring;

use crate::node::Key;

#[derive(Debug)]
pub struct Keys {
    /// A hash tag of each partition.
    tags: Vec<String>,
}

impl Keys {
    pub fn new(partitions: u16) -> Self {
        let tag = |partition| {
            let mut tags = (0..).map(|n| format!("t{n}"));
            tags.find(|tag| ring::partition_of(tag.as_bytes(), partitions) == partition)
                .unwrap()
        };
        Self {
            tags: (0..partitions).map(tag).collect(),
        }
    }

    pub fn partitions(&self) -> PartitionId {
        self.tags.len() as PartitionId
    }

    fn key(&self, db: u16, letter: char, partition: PartitionId) -> Key {
        let tag = &self.tags[usize::from(partition)];
        (db, format!("{letter}{partition}{{{tag}}}").into_bytes())
    }

    /// The two lists of a partition that only grow.
    pub fn list(&self, partition: PartitionId, second: bool) -> Key {
        if second {
            self.key(1, 'M', partition)
        } else {
            self.key(0, 'L', partition)
        }
    }

    pub fn counter(&self, partition: PartitionId) -> Key {
        self.key(0, 'C', partition)
    }

    pub fn set(&self, partition: PartitionId) -> Key {
        self.key(2, 'S', partition)
    }

    /// The two lists of a partition of which elements are taken.
    pub fn queue(&self, partition: PartitionId, second: bool) -> Key {
        self.key(0, if second { 'R' } else { 'Q' }, partition)
    }
}

/// The partition that a key names.
pub fn partition_of(key: &[u8]) -> PartitionId {
    let digits = key[1..].iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |n, digit| n * 10 + PartitionId::from(digit - b'0'))
}

/// For people.
pub fn name(key: &Key) -> String {
    format!("{}/{}", key.0, String::from_utf8_lossy(&key.1))
}
