//! Publish and subscribe, in memory: no node is asked.
//!
//! One sidecar serves the pool, so every subscriber is its own client. A message then needs no node: the death of one ends
//! no subscription and loses no message, and the number of receivers is exact. Each worker thread has its own clients,
//! so the question is only how workers agree:
//!
//! - the [`Registry`], which all share, knows for each name how many subscribers each worker has. It counts receivers,
//!   answers `PUBSUB`, and tells which workers get mail at all;
//! - each worker's [`Subscribers`] know which of its clients they are;
//! - each client's [`Subscriptions`] know what it has to be taken out of when it leaves.
//!
//! A [`Publication`] goes to the owner of its channel's partition, so all subscribers of a channel see its messages in
//! one order. The owner numbers it and sends a [`Delivery`] to each worker that has a receiver; the last of them to
//! have put it into its clients' queues answers the publisher. So the publisher's reply means what it means in Redis,
//! its next message to whatever channel comes later everywhere, and what is under way is bounded by what a client may
//! have pending.
//!
//! A subscriber that came after a message was numbered does not get it, though it may be there when the mail comes.
//!
//! Here is no socket and no task; the client's side is in `ingress::subscriptions`, the way between workers in
//! `worker::publish`.

mod frames;
pub mod pattern;
mod registry;
mod tables;

use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

use bytes::Bytes;
use smallvec::SmallVec;

pub use frames::{HELP, confirmation, message, pattern_message};
pub use registry::Registry;
pub use tables::{Subscriber, Subscribers, Subscriptions};

use crate::request::ReplyTo;

/// What can be subscribed to. Each kind has its own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel: `SUBSCRIBE`.
    Channel,
    /// All channels whose names match: `PSUBSCRIBE`.
    Pattern,
    /// A shard channel, which patterns do not see: `SSUBSCRIBE`.
    Shard,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];
}

/// One value for each [`Kind`].
#[derive(Clone, Debug, Default)]
struct PerKind<T> {
    channels: T,
    patterns: T,
    shards: T,
}

impl<T> PerKind<T> {
    fn of(&self, kind: Kind) -> &T {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }
}

/// What somebody publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// `SPUBLISH`: to a shard channel.
    pub shard: bool,
    /// Where.
    pub channel: Bytes,
    /// What.
    pub message: Bytes,
}

impl Publication {
    /// What its direct receivers have subscribed to.
    pub fn kind(&self) -> Kind {
        if self.shard { Kind::Shard } else { Kind::Channel }
    }
}

/// Who gets a publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    /// Its number. Who has subscribed under this number or a later one came too late.
    pub number: u64,
    /// How many subscriptions get it: a client counts once for the channel and once for each of its patterns.
    pub count: u64,
    /// The workers whose clients they are.
    pub workers: SmallVec<[u16; 4]>,
    /// The patterns that match.
    pub patterns: Vec<Bytes>,
}

/// A publication on its way to the workers whose clients get it.
#[derive(Debug)]
pub struct Delivery {
    /// What is delivered.
    pub publication: Publication,
    /// To whom.
    pub receivers: Receivers,
    /// The publisher, who is answered when all have it.
    pub publisher: ReplyTo,
    workers_left: AtomicUsize,
}

impl Delivery {
    /// A delivery to `receivers`, none of whom has it yet.
    pub fn new(publication: Publication, receivers: Receivers, publisher: ReplyTo) -> Self {
        Self {
            workers_left: AtomicUsize::new(receivers.workers.len()),
            publication,
            receivers,
            publisher,
        }
    }

    /// Notes that one worker's clients have it; whether they were the last.
    pub fn done_by_one(&self) -> bool {
        self.workers_left.fetch_sub(1, AcqRel) == 1
    }
}
