//! The directory of a striped queue: its live segments, in their order.
//!
//! Entries are appended to the last one, the *open* segment. When it is long enough it is sealed, and the next one is opened in a
//! partition on other nodes. A sealed segment that is empty is dropped. A queue that has never had a second segment has no record:
//! its only segment is on its home partition.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::request::PartitionId;

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number: the one before it, and 1; after the greatest comes 0.
    pub number: u16,
    /// Where it is.
    pub partition: PartitionId,
    /// What comes before it: of an index, how many entries were appended to the segments before; of a stream, the last id of these, as a
    /// number.
    pub base: u128,
}

/// An end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Where it is read from.
    Head,
    /// Where it is appended to.
    Tail,
}

/// See the module. There is always an open segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    segments: VecDeque<Segment>,
}

impl Directory {
    /// That of a queue that nothing is known of.
    pub fn new(home: PartitionId) -> Self {
        Self {
            segments: VecDeque::from([Segment {
                number: 0,
                partition: home,
                base: 0,
            }]),
        }
    }

    /// The segments, the head first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = Segment> + ExactSizeIterator + Clone {
        self.segments.iter().copied()
    }

    /// The segment that entries are appended to.
    pub fn open(&self) -> Segment {
        // There is always one.
        self.segments.back().copied().unwrap_or(Segment {
            number: 0,
            partition: 0,
            base: 0,
        })
    }

    /// Seals the open segment, and opens the next one, before which all that is.
    pub fn open_next(&mut self, partition: PartitionId, base: u128) {
        let open = self.open();
        self.segments.push_back(Segment {
            number: open.number.wrapping_add(1),
            partition,
            base,
        });
    }

    /// The segment at this end.
    pub fn end(&self, end: End) -> Segment {
        match end {
            End::Head => self.segments.front().copied().unwrap_or(self.open()),
            End::Tail => self.open(),
        }
    }

    /// Whether there is only one.
    pub fn is_single(&self) -> bool {
        self.segments.len() == 1
    }

    /// Opens another segment at this end of a list.
    pub fn open_at(&mut self, end: End, partition: PartitionId) {
        match end {
            End::Tail => self.open_next(partition, 0),
            End::Head => {
                let number = self.end(End::Head).number.wrapping_sub(1);
                self.segments.push_front(Segment {
                    number,
                    partition,
                    base: 0,
                });
            }
        }
    }

    /// Takes out all but these, and the last one if these are none.
    pub fn keep(&mut self, mut is_kept: impl FnMut(Segment) -> bool) {
        let open = self.open();
        self.segments.retain(|segment| is_kept(*segment));
        if self.segments.is_empty() {
            self.segments.push_back(open);
        }
    }

    /// Takes a sealed segment out. Whether it was there.
    pub fn drop_sealed(&mut self, number: u16) -> bool {
        let sealed = self.segments.len() - 1;
        let at = self.segments.iter().take(sealed).position(|s| s.number == number);
        at.and_then(|at| self.segments.remove(at)).is_some()
    }

    /// The place of the segment with that entry of a stream, if it is there.
    pub fn place_of(&self, id: u128) -> usize {
        self.segments
            .partition_point(|segment| segment.base < id)
            .saturating_sub(1)
    }

    /// The segments from that number on, though it may have been dropped.
    pub fn from(&self, number: u16) -> impl Iterator<Item = Segment> {
        // Numbers wrap; live ones are less than half the circle apart.
        let is_before = move |s: &Segment| s.number.wrapping_sub(number) >= 1 << 15;
        self.segments().skip_while(move |s| is_before(s))
    }

    /// The segments from that number back to the head.
    pub fn back_from(&self, number: u16) -> impl Iterator<Item = Segment> {
        let is_behind = move |s: &Segment| s.number != number && s.number.wrapping_sub(number) < 1 << 15;
        self.segments().rev().skip_while(move |s| is_behind(s))
    }

    /// Writes the record: `number:partition:base` of each segment.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for segment in &self.segments {
            let comma = if text.is_empty() { "" } else { "," };
            let Segment {
                number,
                partition,
                base,
            } = segment;
            // Writing to a string cannot fail.
            let _ok = write!(text, "{comma}{number}:{partition}:{base}");
        }
        text
    }

    /// Reads a record.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let segment = |text: &str| {
            let mut fields = text.splitn(3, ':');
            Some(Segment {
                number: fields.next()?.parse().ok()?,
                partition: fields.next()?.parse().ok()?,
                base: fields.next()?.parse().ok()?,
            })
        };
        let segments: VecDeque<Segment> = text.split(',').map(segment).collect::<Option<_>>()?;
        (!segments.is_empty()).then_some(Self { segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(segments: impl Iterator<Item = Segment>) -> Vec<u16> {
        segments.map(|s| s.number).collect()
    }

    #[test]
    fn segments_come_and_go_in_order() {
        let mut directory = Directory::new(7);
        assert!(!directory.drop_sealed(0), "the open one stays");
        directory.open_next(9, 100);
        directory.open_next(3, 150);
        assert_eq!(numbers(directory.segments()), [0, 1, 2]);
        assert_eq!(directory.open().base, 150);
        assert_eq!(
            Directory::parse(directory.to_text().as_bytes()),
            Some(directory.clone())
        );
        assert!(directory.drop_sealed(1));
        assert!(!directory.drop_sealed(1));
        // A marker in the dropped one leads to what comes after it, or before it.
        assert_eq!(numbers(directory.from(1)), [2]);
        assert_eq!(numbers(directory.back_from(1)), [0]);
        assert_eq!(numbers(directory.from(0)), [0, 2]);
        assert_eq!(numbers(directory.back_from(2)), [2, 0]);
        assert_eq!(numbers(directory.from(3)), [0u16; 0]);
    }

    #[test]
    fn entries_of_a_stream_are_found_by_their_ids() {
        let mut directory = Directory::new(7);
        directory.open_next(1, 100);
        directory.open_next(2, u128::MAX - 5);
        let places = [0, 1, 100, 101, u128::MAX - 5, u128::MAX].map(|id| directory.place_of(id));
        assert_eq!(places, [0, 0, 0, 1, 1, 2]);
        assert_eq!(Directory::parse(directory.to_text().as_bytes()), Some(directory));
    }

    #[test]
    fn a_list_grows_at_both_ends() {
        let mut directory = Directory::new(7);
        assert!(directory.is_single());
        directory.open_at(End::Head, 1);
        directory.open_at(End::Tail, 2);
        assert_eq!(numbers(directory.segments()), [65535, 0, 1]);
        assert_eq!(directory.end(End::Head).partition, 1);
        assert_eq!(directory.end(End::Tail).partition, 2);
        directory.keep(|segment| segment.number == 0);
        assert_eq!(numbers(directory.segments()), [0]);
        directory.keep(|_| false);
        assert!(directory.is_single(), "there is always one");
    }

    #[test]
    fn numbers_wrap() {
        let mut directory = Directory::parse(b"65534:1:10").unwrap();
        directory.open_next(2, 1);
        directory.open_next(3, 1);
        assert_eq!(numbers(directory.segments()), [65534, 65535, 0]);
        assert_eq!(numbers(directory.from(65535)), [65535, 0]);
        assert_eq!(numbers(directory.back_from(65535)), [65535, 65534]);
    }

    #[test]
    fn nonsense_is_no_record() {
        for text in ["", "1:2", "a:b:c", "1:2:3,", "70000:1:1"] {
            assert_eq!(Directory::parse(text.as_bytes()), None, "{text}");
        }
    }
}
