//! Markers: what stands for a rank of a queue that is cut into segments.
//!
//! A rank says how many entries are before one, and that changes whenever one of these is removed: who reads a page, and asks for the
//! next one by the rank of the last entry, misses entries, or gets some twice. So the rank that is told here is no number of
//! entries, but the entry's place, which never changes (invariant 16):
//!
//! ```text
//! 1 | partition: 12 bits | segment: 16 bits | counter: 24 bits        53 bits: every client's numbers can hold it
//! ```
//!
//! A driver adds one and asks for the range from there, which is the next place, whether that is taken or not. Ranks that a client
//! counts itself (0 is the head) are far smaller, so both can be told apart. From the other end, counters are told as what they lack
//! of the greatest one, so that adding one goes the other way.

use crate::request::PartitionId;

/// The greatest counter.
pub const COUNTER_MAX: u64 = (1 << 24) - 1;

const FLAG: u64 = 1 << 52;

// A partition's number has its place.
const _: () = assert!(crate::limits::PARTITIONS_MAX <= 1 << 12);

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// Where its segment is.
    pub partition: PartitionId,
    /// The segment's number.
    pub segment: u16,
    /// The entry's number there; its score.
    pub counter: u64,
}

impl Marker {
    /// As a client is told it.
    pub fn rank(self) -> u64 {
        FLAG | u64::from(self.partition) << 40 | u64::from(self.segment) << 24 | self.counter.min(COUNTER_MAX)
    }

    /// The same, counted from the other end.
    pub fn reverse_rank(self) -> u64 {
        Self {
            counter: COUNTER_MAX - self.counter.min(COUNTER_MAX),
            ..self
        }
        .rank()
    }

    /// What a rank says, if it is not one that a client has counted.
    pub fn of_rank(rank: i64) -> Option<Self> {
        let rank = u64::try_from(rank).ok().filter(|rank| rank >> 52 == 1)?;
        Some(Self {
            partition: ((rank >> 40) & 0xfff) as PartitionId,
            segment: (rank >> 24) as u16,
            counter: rank & COUNTER_MAX,
        })
    }

    /// The same for one that was counted from the other end.
    pub fn of_reverse_rank(rank: i64) -> Option<Self> {
        let marker = Self::of_rank(rank)?;
        Some(Self {
            counter: COUNTER_MAX - marker.counter,
            ..marker
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rank_that_was_counted_is_none() {
        for rank in [0, 1, 4_000_000_000, (1 << 52) - 1, -1, i64::MIN, i64::MAX] {
            assert_eq!(Marker::of_rank(rank), None, "{rank}");
        }
    }

    proptest! {
        #[test]
        fn a_marker_comes_back_and_one_more_is_the_next_place(partition in 0u16..4096, segment: u16, counter in 1u64..COUNTER_MAX - 1) {
            let marker = Marker { partition, segment, counter };
            let rank = marker.rank() as i64;
            prop_assert!(rank < 1 << 53);
            prop_assert_eq!(rank as f64 as i64, rank);
            prop_assert_eq!(Marker::of_rank(rank), Some(marker));
            prop_assert_eq!(Marker::of_rank(rank + 1), Some(Marker { counter: counter + 1, ..marker }));
            let reverse = marker.reverse_rank() as i64;
            prop_assert_eq!(Marker::of_reverse_rank(reverse), Some(marker));
            prop_assert_eq!(Marker::of_reverse_rank(reverse + 1), Some(Marker { counter: counter - 1, ..marker }));
        }
    }
}
