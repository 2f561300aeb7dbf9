//! Who has subscribed to what, as far as all workers must know it: numbers, by worker.
//!
//! Publishing only looks, so publishers do not wait for each other; subscribing waits for all. That, and one counter,
//! gives each publication a number, and each subscription the number of the last publication it came too late for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use smallvec::SmallVec;

use super::pattern::matches;
use super::{Kind, PerKind, Publication, Receivers};

/// How many subscribers a name has: workers that have some, with their numbers.
type Workers = SmallVec<[(u16, u32); 2]>;

type Names = HashMap<Bytes, Workers>;

/// The subscriptions of all workers.
#[derive(Debug, Default)]
pub struct Registry {
    names: RwLock<PerKind<Names>>,
    published: AtomicU64,
}

impl Registry {
    /// Notes one more subscriber of a worker: the number of the last publication that it does not get.
    pub fn add(&self, kind: Kind, name: &Bytes, worker: u16) -> u64 {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let workers = names.of_mut(kind).entry(name.clone()).or_default();
        match workers.iter_mut().find(|(w, _)| *w == worker) {
            Some((_, count)) => *count += 1,
            None => workers.push((worker, 1)),
        }
        self.published.load(Relaxed)
    }

    /// Notes one subscriber of a worker less.
    pub fn remove(&self, kind: Kind, name: &[u8], worker: u16) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let names = names.of_mut(kind);
        let Some(workers) = names.get_mut(name) else {
            return;
        };
        workers.retain(|(w, count)| {
            *count -= u32::from(*w == worker);
            *count > 0
        });
        if workers.is_empty() {
            names.remove(name);
        }
    }

    /// Finds who gets a publication, and gives it its number.
    pub fn publish(&self, publication: &Publication) -> Receivers {
        let names = self.read();
        let mut receivers = find(&names, publication);
        if receivers.count > 0 {
            // The lock is held: nobody subscribes between the look and the number.
            receivers.number = self.published.fetch_add(1, Relaxed) + 1;
        }
        receivers
    }

    /// How many subscriptions would get a publication now.
    pub fn count(&self, publication: &Publication) -> u64 {
        find(&self.read(), publication).count
    }

    /// How many subscribers a name has: `PUBSUB NUMSUB`.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> u64 {
        self.read().of(kind).get(name).map_or(0, total)
    }

    /// The names that have subscribers, those that match a pattern if one is given: `PUBSUB CHANNELS`.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let names = self.read();
        let wanted = |name: &&Bytes| pattern.is_none_or(|pattern| matches(pattern, name));
        names.of(kind).keys().filter(wanted).cloned().collect()
    }

    /// How many names have subscribers: `pubsub_channels`, `pubsub_patterns`, `pubsubshard_channels` of `INFO`.
    pub fn len(&self, kind: Kind) -> usize {
        self.read().of(kind).len()
    }

    /// Whether nobody has subscribed to anything of this kind.
    pub fn is_empty(&self, kind: Kind) -> bool {
        self.len(kind) == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, PerKind<Names>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn total(workers: &Workers) -> u64 {
    workers.iter().map(|(_, count)| u64::from(*count)).sum()
}

fn find(names: &PerKind<Names>, publication: &Publication) -> Receivers {
    let mut receivers = Receivers::default();
    if let Some(workers) = names.of(publication.kind()).get(&publication.channel) {
        receivers.add(workers);
    }
    if !publication.shard {
        for (pattern, workers) in &names.patterns {
            if matches(pattern, &publication.channel) {
                receivers.add(workers);
                receivers.patterns.push(pattern.clone());
            }
        }
    }
    receivers
}

impl Receivers {
    fn add(&mut self, workers: &Workers) {
        self.count += total(workers);
        for (worker, _) in workers {
            if !self.workers.contains(worker) {
                self.workers.push(*worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn to(channel: &'static str, shard: bool) -> Publication {
        Publication {
            shard,
            channel: name(channel),
            message: Bytes::new(),
        }
    }

    #[test]
    fn each_subscription_counts_and_each_worker_gets_one_mail() {
        let registry = Registry::default();
        registry.add(Kind::Channel, &name("news"), 0);
        registry.add(Kind::Channel, &name("news"), 0);
        registry.add(Kind::Channel, &name("news"), 3);
        registry.add(Kind::Pattern, &name("n*"), 3);
        registry.add(Kind::Pattern, &name("x*"), 1);
        registry.add(Kind::Shard, &name("news"), 2);
        let receivers = registry.publish(&to("news", false));
        assert_eq!((receivers.count, receivers.workers.as_slice()), (4, &[0, 3][..]));
        assert_eq!(receivers.patterns, [name("n*")]);
        let receivers = registry.publish(&to("news", true));
        assert_eq!((receivers.count, receivers.workers.as_slice()), (1, &[2][..]));
        assert!(receivers.patterns.is_empty());
        assert_eq!(registry.subscribers(Kind::Channel, b"news"), 3);
        assert_eq!(registry.len(Kind::Pattern), 2);
        assert_eq!(registry.names(Kind::Pattern, Some(b"x?")), [name("x*")]);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let registry = Registry::default();
        for worker in [1, 1, 2] {
            registry.add(Kind::Channel, &name("c"), worker);
        }
        registry.remove(Kind::Channel, b"c", 1);
        registry.remove(Kind::Channel, b"c", 2);
        registry.remove(Kind::Channel, b"other", 2);
        assert_eq!(registry.publish(&to("c", false)).workers.as_slice(), [1]);
        registry.remove(Kind::Channel, b"c", 1);
        assert!(registry.is_empty(Kind::Channel));
        assert_eq!(registry.publish(&to("c", false)), Receivers::default());
    }

    #[test]
    fn a_subscription_is_younger_than_what_was_published_before() {
        let registry = Registry::default();
        let first = registry.add(Kind::Channel, &name("c"), 0);
        let message = registry.publish(&to("c", false)).number;
        let second = registry.add(Kind::Channel, &name("c"), 0);
        assert!(first < message && message <= second);
        assert!(second < registry.publish(&to("c", false)).number);
    }
}
