//! Who has subscribed to what, as one worker has it: by name its clients, and by client the names.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::{Kind, PerKind};
use crate::limits;

/// One of a worker's clients that has subscribed to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Which.
    pub client: u32,
    /// It gets publications with higher numbers.
    pub since: u64,
}

/// A worker's subscribers by name, in the order of their numbers.
#[derive(Debug, Default)]
pub struct Subscribers {
    names: PerKind<HashMap<Bytes, Vec<Subscriber>>>,
}

impl Subscribers {
    /// Takes one in.
    pub fn add(&mut self, kind: Kind, name: &Bytes, subscriber: Subscriber) {
        let all = self.names.of_mut(kind).entry(name.clone()).or_default();
        match all.binary_search_by_key(&subscriber.client, |s| s.client) {
            Ok(_) => {}
            Err(place) => all.insert(place, subscriber),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, kind: Kind, name: &[u8], client: u32) {
        let names = self.names.of_mut(kind);
        let Some(all) = names.get_mut(name) else {
            return;
        };
        if let Ok(place) = all.binary_search_by_key(&client, |s| s.client) {
            all.remove(place);
        }
        if all.is_empty() {
            names.remove(name);
        }
    }

    /// Those of one name.
    pub fn of(&self, kind: Kind, name: &[u8]) -> &[Subscriber] {
        self.names.of(kind).get(name).map_or(&[], Vec::as_slice)
    }
}

/// What one client has subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    names: PerKind<BTreeSet<Bytes>>,
    bytes: usize,
}

/// What a subscription takes besides its name, in the three tables together, in bytes.
const BYTES_EACH: usize = 256;

impl Subscriptions {
    /// Whether it would have more than one client may, with these names.
    pub fn would_be_too_many(&self, names: &[Bytes]) -> bool {
        let more: usize = names.iter().map(|name| name.len() + BYTES_EACH).sum();
        self.bytes + more > limits::SUBSCRIPTIONS_BYTES_MAX
    }

    /// Adds a name; `false` if it was there.
    pub fn add(&mut self, kind: Kind, name: &Bytes) -> bool {
        let new = self.names.of_mut(kind).insert(name.clone());
        if new {
            self.bytes += name.len() + BYTES_EACH;
        }
        new
    }

    /// Removes a name; `false` if it was not there.
    pub fn remove(&mut self, kind: Kind, name: &[u8]) -> bool {
        let found = self.names.of_mut(kind).remove(name);
        if found {
            self.bytes -= name.len() + BYTES_EACH;
        }
        found
    }

    /// How many names.
    pub fn len(&self, kind: Kind) -> usize {
        self.names.of(kind).len()
    }

    /// What confirmations count: channels and patterns together, shard channels for themselves.
    pub fn counted(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.len(Kind::Shard),
            Kind::Channel | Kind::Pattern => self.len(Kind::Channel) + self.len(Kind::Pattern),
        }
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.len(kind) == 0)
    }

    /// The names.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &Bytes> {
        self.names.of(kind).iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_come_and_go() {
        let name = Bytes::from_static(b"c");
        let mut subscribers = Subscribers::default();
        for client in [7, 3, 5, 3] {
            let since = u64::from(client) * 10;
            subscribers.add(Kind::Channel, &name, Subscriber { client, since });
        }
        let clients = |s: &Subscribers| {
            s.of(Kind::Channel, b"c")
                .iter()
                .map(|s| s.client)
                .collect::<Vec<_>>()
        };
        assert_eq!(clients(&subscribers), [3, 5, 7]);
        subscribers.remove(Kind::Channel, b"c", 5);
        subscribers.remove(Kind::Channel, b"c", 6);
        subscribers.remove(Kind::Pattern, b"c", 7);
        assert_eq!(clients(&subscribers), [3, 7]);
        subscribers.remove(Kind::Channel, b"c", 3);
        subscribers.remove(Kind::Channel, b"c", 7);
        assert!(subscribers.names.channels.is_empty());
    }

    #[test]
    fn a_client_counts_channels_and_patterns_together() {
        let name = Bytes::from_static(b"c");
        let mut mine = Subscriptions::default();
        assert!(mine.add(Kind::Channel, &name) && !mine.add(Kind::Channel, &name));
        assert!(mine.add(Kind::Pattern, &name) && mine.add(Kind::Shard, &name));
        assert_eq!(Kind::ALL.map(|kind| mine.counted(kind)), [2, 2, 1]);
        assert!(mine.remove(Kind::Channel, b"c") && !mine.remove(Kind::Channel, b"c"));
        assert_eq!(Kind::ALL.map(|kind| mine.counted(kind)), [1, 1, 1]);
        assert!(!mine.is_empty());
    }

    #[test]
    fn there_is_a_limit() {
        let mut mine = Subscriptions::default();
        let full = [Bytes::from(vec![
            b'x';
            limits::SUBSCRIPTIONS_BYTES_MAX - BYTES_EACH
        ])];
        assert!(!mine.would_be_too_many(&full));
        mine.add(Kind::Channel, &Bytes::from_static(b"c"));
        assert!(mine.would_be_too_many(&full));
        mine.remove(Kind::Channel, b"c");
        assert!(!mine.would_be_too_many(&full));
    }
}
