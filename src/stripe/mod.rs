//! Striped queues: one queue of a driver, cut into segments that are on different nodes.
//!
//! **Problem.** A queue lives in one key, so it is as large and as fast as one node. And the driver's messages are keys of their own,
//! called by bare ids: nothing in `HGETALL 5083c0f1-…` says which queue it is of.
//!
//! **Idea.** Entries are appended to the queue's open [segment](directory), which is sealed when it is long enough; the next one is
//! opened in another partition. An item lives in its entry's segment, under a [name](names) that says the partition; where an id was
//! put is remembered, and looked for on the nodes when it is not. Ranks in replies are [markers](marker), so a page is asked of one
//! partition.
//!
//! This is what one sidecar knows of the queues: all of it can be found again on the nodes (invariant 17). What commands do is in
//! `ingress::stripe`.

pub mod directory;
mod gate;
pub mod known;
mod lengths;
pub mod marker;
pub mod names;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch::Sender;
use xxhash_rust::xxh3::xxh3_64;

pub use directory::{Directory, End, Segment};
pub use gate::{Alone, Inside};
use known::Known;
pub use lengths::Lengths;
pub use watch::Watch;

use crate::profile::{Profile, UUID_LEN};
use crate::request::PartitionId;
use crate::resp::Spans;

/// How many ids are remembered, and how many entries' places.
const KNOWN_MAX: usize = 500_000;

/// Queues that are kept in mind; those that nobody uses at the moment are read again when they are needed.
const QUEUES_MAX: usize = 200_000;

/// Groups of a stream whose places are kept in mind.
const GROUPS_MAX: usize = 1000;

/// Bytes of new items that are kept until an index names them. Past it they are written at once, where their own hashes say.
const STAGED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A UUID, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u128);

impl Id {
    /// The id that this key is, if it is one. Upper and lower case are different keys, so only lower case is taken for an id.
    pub fn of(key: &[u8]) -> Option<Self> {
        if key.len() != UUID_LEN {
            return None;
        }
        let mut number = 0;
        for (at, &byte) in key.iter().enumerate() {
            let digit = match (at, byte) {
                (8 | 13 | 18 | 23, b'-') => continue,
                (8 | 13 | 18 | 23, _) => return None,
                (_, b'0'..=b'9') => byte - b'0',
                (_, b'a'..=b'f') => byte - b'a' + 10,
                _ => return None,
            };
            number = number << 4 | u128::from(digit);
        }
        Some(Self(number))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shift = 128;
        let text: [u8; 36] = std::array::from_fn(|at| match at {
            8 | 13 | 18 | 23 => b'-',
            _ => {
                shift -= 4;
                hex_digit((self.0 >> shift) as u32)
            }
        });
        f.write_str(std::str::from_utf8(&text).map_err(|_| std::fmt::Error)?)
    }
}

/// The last four bits as a digit.
fn hex_digit(number: u32) -> u8 {
    // Sixteen are always one.
    char::from_digit(number & 15, 16).map_or(b'0', |digit| digit as u8)
}

/// Where a key that is called by an id lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With its entry, in this partition.
    Segment(PartitionId),
    /// The same, after it was with an entry of another index: that one may still be there.
    Moved(PartitionId),
    /// Where its own hash says: it is no item, or not in an index yet.
    Own,
}

impl Place {
    /// The partition of its entry, if it is with one.
    pub fn partition(self) -> Option<PartitionId> {
        match self {
            Self::Segment(partition) | Self::Moved(partition) => Some(partition),
            Self::Own => None,
        }
    }
}

/// A new item that no index names yet: it is written together with its entry.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The commands that make it.
    pub commands: Vec<(Bytes, Spans)>,
    /// When it came, by the pool's clock.
    pub since_ms: u64,
}

/// A queue, as far as it is known here.
#[derive(Debug, Default)]
pub struct Stripe {
    gate: gate::Gate,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: not read yet, or not known any more.
    directory: Option<Arc<Directory>>,
    /// Entries appended to the open segment of an index.
    appended: u64,
    /// How many entries sealed segments of an index have, as far as nothing has changed there since they were counted.
    cards: HashMap<u16, i64>,
    /// The lengths of a list's, or a stream's, segments.
    lengths: Option<Lengths>,
    /// Of a stream's consumer groups: the segment before which there is nothing that was not delivered.
    cursors: HashMap<Bytes, u16>,
}

/// What a command is to do before it appends.
#[derive(Debug)]
pub enum Turn {
    /// Append to this segment, and stay until it has.
    Append(Segment, Inside),
    /// Seal this segment, to which so many entries were appended, and open another; then ask again.
    Seal(Segment, u64, Alone),
    /// The directory is to be read first.
    Unread,
}

impl Stripe {
    /// The directory, if it was read.
    pub fn directory(&self) -> Option<Arc<Directory>> {
        lock(&self.state).directory.clone()
    }

    /// An index's directory has been read, and so many entries have been appended to the open segment; unless somebody else was first.
    pub fn loaded(&self, directory: Directory, appended: u64) {
        let mut state = lock(&self.state);
        if state.directory.is_none() {
            state.directory = Some(Arc::new(directory));
            state.appended = appended;
        }
    }

    /// Waits for the turn to append `entries` to an index, where a segment has `segment_len`. Whoever is to seal does so when nobody
    /// appends: a reader that goes on to the next segment must not leave an entry behind.
    pub async fn turn(self: &Arc<Self>, entries: u64, segment_len: u64) -> Turn {
        let room = |state: &State| state.appended == 0 || state.appended + entries <= segment_len;
        loop {
            let inside = self.entered().await;
            {
                let mut state = lock(&self.state);
                let Some(directory) = &state.directory else {
                    return Turn::Unread;
                };
                let open = directory.open();
                if room(&state) {
                    state.appended += entries;
                    return Turn::Append(open, inside);
                }
            }
            drop(inside);
            let alone = self.alone().await;
            let state = lock(&self.state);
            if let Some(directory) = state.directory.as_ref().filter(|_| !room(&state)) {
                return Turn::Seal(directory.open(), state.appended, alone);
            }
        }
    }

    /// The open segment is sealed, and another one open, as this directory says.
    pub fn sealed(&self, directory: Directory, _alone: &Alone) {
        let mut state = lock(&self.state);
        state.directory = Some(Arc::new(directory));
        state.appended = 0;
    }

    /// How many entries this segment has, if that is known.
    pub fn card(&self, segment: Segment) -> Option<i64> {
        lock(&self.state).cards.get(&segment.number).copied()
    }

    /// Entries of this segment may be removed by somebody who is inside.
    pub fn card_changes(&self, segment: Segment) {
        lock(&self.state).cards.remove(&segment.number);
    }

    /// Sealed segments have so many entries; what else was known is forgotten.
    pub fn counted_cards(&self, cards: impl Iterator<Item = (Segment, i64)>, _alone: &Alone) {
        let cards = cards.map(|(segment, card)| (segment.number, card)).collect();
        lock(&self.state).cards = cards;
    }

    /// Other segments are there than before, as this directory says.
    pub fn directory_changed(&self, directory: Directory, _alone: &Alone) {
        lock(&self.state).directory = Some(Arc::new(directory));
    }
}

impl Stripe {
    /// The segment before which a group has nothing that was not delivered, if that is known.
    pub fn cursor(&self, group: &[u8]) -> Option<u16> {
        lock(&self.state).cursors.get(group).copied()
    }

    /// There is nothing for a group before this segment.
    pub fn put_cursor(&self, group: &[u8], number: u16) {
        let mut state = lock(&self.state);
        if state.cursors.len() >= GROUPS_MAX {
            state.cursors.clear();
        }
        state.cursors.insert(Bytes::copy_from_slice(group), number);
    }

    /// Groups are not where they were.
    pub fn forget_cursors(&self) {
        lock(&self.state).cursors.clear();
    }
}

type QueueKey = (u16, Bytes);

/// Everything that is known of striped queues.
#[derive(Debug)]
pub struct Stripes {
    /// The driver's keys and scripts.
    pub profile: Profile,
    queues: Mutex<HashMap<QueueKey, Arc<Stripe>>>,
    places: Mutex<Known<(u16, Id), Place>>,
    /// By queue, as a hash, and id: the entry's place, also after it was removed.
    entries: Mutex<Known<(u64, Id), marker::Marker>>,
    staged: Mutex<StagedItems>,
    /// Lists have other segments than before.
    changes: Sender<()>,
}

#[derive(Debug, Default)]
struct StagedItems {
    items: HashMap<(u16, Id), Staged>,
    bytes: usize,
}

impl StagedItems {
    fn taken(&mut self, one: &Staged) {
        self.bytes = self.bytes.saturating_sub(size_of(&one.commands));
    }
}

fn size_of(commands: &[(Bytes, Spans)]) -> usize {
    commands.iter().map(|(frame, _)| frame.len()).sum()
}

impl Stripes {
    /// Of a driver whose profile has queues that are striped.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            queues: Mutex::default(),
            places: Mutex::new(Known::new(KNOWN_MAX)),
            entries: Mutex::new(Known::new(KNOWN_MAX)),
            staged: Mutex::default(),
            changes: Sender::new(()),
        }
    }

    /// Tells who waits at the segments of a list that they may be others now.
    pub fn tell_of_changes(&self) {
        self.changes.send_replace(());
    }

    /// Is told of that.
    pub fn changes(&self) -> Watch {
        Watch::new(self.changes.subscribe())
    }

    /// Is alone at all queues of these databases that are known.
    pub async fn alone(&self, dbs: &[u16]) -> Vec<Alone> {
        let mut those: Vec<(QueueKey, Arc<Stripe>)> = {
            let queues = lock(&self.queues);
            let those = queues.iter().filter(|((db, _), _)| dbs.contains(db));
            those.map(|(key, queue)| (key.clone(), queue.clone())).collect()
        };
        those.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut alone = Vec::with_capacity(those.len());
        for (_, queue) in those {
            alone.push(queue.alone().await);
        }
        alone
    }

    /// The queue of this index.
    pub fn queue(&self, db: u16, index: &[u8]) -> Arc<Stripe> {
        let mut queues = lock(&self.queues);
        let key = (db, Bytes::copy_from_slice(index));
        if queues.len() >= QUEUES_MAX && !queues.contains_key(&key) {
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        queues.entry(key).or_default().clone()
    }

    /// The queues whose directories have been read, by their names, with the lengths of their segments as far as these are counted.
    pub fn known_queues(&self) -> Vec<(u16, Bytes, Arc<Directory>, Option<Lengths>)> {
        let queues = lock(&self.queues);
        let known = queues
            .iter()
            .filter_map(|((db, key), queue)| Some((*db, key.clone(), queue.directory()?, queue.lengths())));
        let mut known: Vec<_> = known.collect();
        known.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        known
    }

    /// Where the key of this id lives, if that is known.
    pub fn place(&self, db: u16, id: Id) -> Option<Place> {
        lock(&self.places).get(&(db, id))
    }

    /// The key of this id lives there.
    pub fn put_place(&self, db: u16, id: Id, place: Place) {
        lock(&self.places).put((db, id), place);
    }

    /// An index says that the item lives there. Where something else is known, both are doubted.
    pub fn saw_item(&self, db: u16, id: Id, partition: PartitionId) {
        let mut places = lock(&self.places);
        match places.get(&(db, id)) {
            Some(place) if place.partition() != Some(partition) => places.forget(&(db, id)),
            Some(_) => {}
            None => places.put((db, id), Place::Segment(partition)),
        }
    }

    /// The place of this id's entry in an index, or where it was, if that is known.
    pub fn entry(&self, db: u16, index: &[u8], id: Id) -> Option<marker::Marker> {
        lock(&self.entries).get(&(queue_hash(db, index), id))
    }

    /// Learns of an entry.
    pub fn put_entry(&self, db: u16, index: &[u8], id: Id, marker: marker::Marker) {
        lock(&self.entries).put((queue_hash(db, index), id), marker);
    }

    /// Keeps a new item until an index names it. Commands for one that is kept already come behind. Whether there was room.
    pub fn stage(&self, db: u16, id: Id, commands: Vec<(Bytes, Spans)>, now_ms: u64) -> bool {
        let mut staged = lock(&self.staged);
        let bytes = size_of(&commands);
        if staged.bytes + bytes > STAGED_BYTES_MAX {
            return false;
        }
        staged.bytes += bytes;
        let one = staged.items.entry((db, id)).or_insert_with(|| Staged {
            commands: Vec::new(),
            since_ms: now_ms,
        });
        one.commands.extend(commands);
        true
    }

    /// Whether a new item is kept.
    pub fn is_staged(&self, db: u16, id: Id) -> bool {
        lock(&self.staged).items.contains_key(&(db, id))
    }

    /// Takes a new item out, to write it.
    pub fn take_staged(&self, db: u16, id: Id) -> Option<Staged> {
        let mut staged = lock(&self.staged);
        let one = staged.items.remove(&(db, id))?;
        staged.taken(&one);
        Some(one)
    }

    /// Takes out new items that have been kept since before then.
    pub fn take_old(&self, before_ms: u64) -> Vec<(u16, Id, Staged)> {
        let mut staged = lock(&self.staged);
        let old = staged.items.extract_if(|_, one| one.since_ms < before_ms);
        let old: Vec<(u16, Id, Staged)> = old.map(|((db, id), one)| (db, id, one)).collect();
        for (_, _, one) in &old {
            staged.taken(one);
        }
        old
    }

    /// All keys of these databases have been removed. Who says so is [alone](Stripes::alone) at their queues.
    pub fn forget(&self, dbs: &[u16]) {
        let mut staged = lock(&self.staged);
        let removed = staged.items.extract_if(|(db, _), _| dbs.contains(db));
        for one in removed.map(|(_, one)| one).collect::<Vec<_>>() {
            staged.taken(&one);
        }
        drop(staged);
        // They are the same objects still: who waits for a queue must find the others there.
        for ((db, _), queue) in lock(&self.queues).iter() {
            if dbs.contains(db) {
                queue.lose();
            }
        }
        // Of what is only remembered nothing is missed.
        lock(&self.places).clear();
        lock(&self.entries).clear();
        self.tell_of_changes();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn queue_hash(db: u16, index: &[u8]) -> u64 {
    xxh3_64(index) ^ u64::from(db).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests;
