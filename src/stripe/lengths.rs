//! How long the segments of a list, or a stream, are.
//!
//! All that is done to a list that has several goes through here, with its reply, so they can be counted; and are counted anew on the
//! nodes when something has failed. Of a list with one segment, and of a stream's open one, where commands just pass, this is what
//! they have at most.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Alone, Directory, End, Segment, Stripe, lock};

/// Each segment's length, by its number: less than nothing as long as a taking is counted, and the putting is not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    by_number: BTreeMap<u16, i64>,
    sum: i64,
}

impl Lengths {
    /// One segment's; 0 if it is not known.
    pub fn of(&self, number: u16) -> u64 {
        self.by_number
            .get(&number)
            .map_or(0, |length| (*length).max(0) as u64)
    }

    /// Of the whole list.
    pub fn total(&self) -> u64 {
        self.sum.max(0) as u64
    }

    fn change(&mut self, number: u16, by: i64) {
        if let Some(length) = self.by_number.get_mut(&number) {
            *length = length.saturating_add(by);
            self.sum = self.sum.saturating_add(by);
        }
    }
}

impl FromIterator<(u16, u64)> for Lengths {
    fn from_iter<T: IntoIterator<Item = (u16, u64)>>(lengths: T) -> Self {
        let lengths = lengths
            .into_iter()
            .map(|(number, length)| (number, length as i64));
        let by_number = BTreeMap::from_iter(lengths);
        let sum = by_number.values().sum();
        Self { by_number, sum }
    }
}

impl Stripe {
    /// The segment at this end of a list for so many new elements, if there is room for them there.
    pub fn room(&self, end: End, elements: u64, segment_len: u64) -> Option<Segment> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let (directory, lengths) = (state.directory.as_ref()?, state.lengths.as_mut()?);
        let segment = directory.end(end);
        let length = lengths.of(segment.number);
        if length > 0 && length + elements > segment_len {
            return None;
        }
        if directory.is_single() {
            lengths.change(segment.number, elements as i64);
        }
        Some(segment)
    }

    /// Whether there is room for so many elements in the segment at this end, as far as that is known.
    pub fn has_room_at(&self, end: End, elements: u64, segment_len: u64) -> bool {
        let state = lock(&self.state);
        let (Some(directory), Some(lengths)) = (&state.directory, &state.lengths) else {
            return false;
        };
        let length = lengths.of(directory.end(end).number);
        length == 0 || length + elements <= segment_len
    }

    /// Whether there is room for an entry in a stream's open segment, where it is put then.
    pub fn has_room(&self, segment_len: u64) -> bool {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let (Some(directory), Some(lengths)) = (&state.directory, &mut state.lengths) else {
            return false;
        };
        let open = directory.open().number;
        let has_room = lengths.of(open) < segment_len;
        if has_room {
            lengths.change(open, 1);
        }
        has_room
    }

    /// A segment of several has become longer, or shorter: the length of the whole list, if that is known.
    pub fn count(&self, segment: Segment, by: i64) -> Option<u64> {
        let mut state = lock(&self.state);
        let lengths = state.lengths.as_mut()?;
        lengths.change(segment.number, by);
        Some(lengths.total())
    }

    /// The lengths, if they are known.
    pub fn lengths(&self) -> Option<Lengths> {
        lock(&self.state).lengths.clone()
    }

    /// Nobody has counted what is being done now.
    pub fn lose_count(&self) {
        lock(&self.state).lengths = None;
    }

    /// Nothing is known any more: something has failed, and it is not known how far it came.
    pub fn lose(&self) {
        let mut state = lock(&self.state);
        (state.directory, state.lengths) = (None, None);
        state.cursors.clear();
        state.cards.clear();
    }

    /// These are the segments of a list, or a stream, and their lengths.
    pub fn counted(&self, directory: Directory, lengths: Lengths, _alone: &Alone) {
        let mut state = lock(&self.state);
        (state.directory, state.lengths) = (Some(Arc::new(directory)), Some(lengths));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_segment_is_guessed_and_several_are_counted() {
        let queue = Arc::new(Stripe::default());
        assert_eq!(queue.room(End::Tail, 1, 3), None, "not read yet");
        let alone = queue.try_alone().unwrap();
        let mut directory = Directory::new(5);
        queue.counted(directory.clone(), Lengths::from_iter([(0, 1)]), &alone);
        assert!(queue.room(End::Tail, 2, 3).is_some());
        assert_eq!(queue.room(End::Head, 1, 3), None, "may be full now");
        directory.open_next(6, 0);
        queue.counted(directory.clone(), Lengths::from_iter([(0, 3), (1, 0)]), &alone);
        let tail = queue.room(End::Tail, 7, 3).unwrap();
        assert_eq!(tail.number, 1, "however much it is, an empty segment takes it");
        assert_eq!(queue.count(tail, 7), Some(10));
        assert_eq!(queue.room(End::Tail, 1, 3), None);
        assert_eq!(queue.room(End::Head, 1, 3), None);
        assert_eq!(queue.count(directory.end(End::Head), -1), Some(9));
        assert!(queue.room(End::Head, 1, 3).is_some());
        // Taken, and counted, before what was put there is.
        assert_eq!(queue.count(tail, -8), Some(1));
        assert_eq!(queue.count(tail, 1), Some(2));
        queue.lose_count();
        assert_eq!(queue.count(tail, -1), None);
    }
}
