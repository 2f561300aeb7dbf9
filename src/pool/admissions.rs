//! What streams are told of nodes: which ones have been claimed, which are full, which execute a script for long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::{Notify, watch};

use crate::request::NodeId;

/// Which nodes have been claimed, and how often: a stream logs in when the number is not 0.
#[derive(Debug)]
pub struct Admissions {
    pub(super) claimed: Vec<watch::Sender<u64>>,
    pub(super) lost: Vec<Notify>,
    full: Vec<AtomicBool>,
    any_full: AtomicBool,
    /// Nodes that say that they execute a script.
    busy: Vec<AtomicBool>,
    any_busy: AtomicBool,
    /// Workers, by bit, whose scripts a node executes.
    scripts: Vec<AtomicU64>,
    /// Nodes have, or may have, keys of partitions that they do not hold (any more, or yet).
    strangers: AtomicBool,
}

impl Admissions {
    /// For so many nodes, none of them claimed.
    pub fn new(nodes: usize) -> Self {
        Self {
            claimed: (0..nodes).map(|_| watch::Sender::new(0)).collect(),
            lost: (0..nodes).map(|_| Notify::new()).collect(),
            full: (0..nodes).map(|_| AtomicBool::new(false)).collect(),
            any_full: AtomicBool::new(false),
            busy: (0..nodes).map(|_| AtomicBool::new(false)).collect(),
            any_busy: AtomicBool::new(false),
            scripts: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
            strangers: AtomicBool::new(true),
        }
    }

    /// Follows a node's admissions.
    pub fn watch(&self, node: NodeId) -> Option<watch::Receiver<u64>> {
        self.claimed.get(usize::from(node)).map(watch::Sender::subscribe)
    }

    /// Whether one of these nodes has no memory left for growing writes.
    pub fn is_full(&self, nodes: impl Iterator<Item = NodeId>) -> bool {
        if !self.any_full.load(Relaxed) {
            return false;
        }
        let mut nodes = nodes;
        nodes.any(|node| {
            self.full
                .get(usize::from(node))
                .is_some_and(|full| full.load(Relaxed))
        })
    }

    /// Whether a node may have keys of partitions that it does not hold, so that its own word of what it has does not do.
    pub fn may_have_strangers(&self) -> bool {
        self.strangers.load(Relaxed)
    }

    /// Notes that.
    pub fn set_strangers(&self, may_be: bool) {
        self.strangers.store(may_be, Relaxed);
    }

    /// Whether any node says that it executes a script.
    pub fn any_busy(&self) -> bool {
        self.any_busy.load(Relaxed)
    }

    /// Whether the node says that it executes a script.
    pub fn is_busy(&self, node: NodeId) -> bool {
        self.any_busy()
            && self
                .busy
                .get(usize::from(node))
                .is_some_and(|busy| busy.load(Relaxed))
    }

    /// Notes whether a node says that it executes a script.
    pub fn set_busy(&self, node: NodeId, is_busy: bool) {
        if let Some(busy) = self.busy.get(usize::from(node)) {
            busy.store(is_busy, Relaxed);
        }
        self.any_busy
            .store(self.busy.iter().any(|busy| busy.load(Relaxed)), Relaxed);
    }

    /// Notes whether a node executes a script of this worker; whether it executes one of any.
    pub fn executes_script(&self, node: NodeId, worker: u16, is_mine: bool) -> bool {
        let Some(scripts) = self.scripts.get(usize::from(node)) else {
            return false;
        };
        let bit = 1u64 << (worker % 64);
        let before = scripts.load(Relaxed);
        if (before & bit != 0) != is_mine {
            match is_mine {
                true => scripts.fetch_or(bit, Relaxed),
                false => scripts.fetch_and(!bit, Relaxed),
            };
        }
        is_mine || before & !bit != 0
    }

    /// Notes whether a node has no memory left for growing writes; whether that is news.
    pub(super) fn set_full(&self, node: NodeId, is_full: bool) -> bool {
        let before = self
            .full
            .get(usize::from(node))
            .is_some_and(|full| full.swap(is_full, Relaxed));
        self.any_full
            .store(self.full.iter().any(|full| full.load(Relaxed)), Relaxed);
        before != is_full
    }

    /// A stream has lost the node, or was not let in: look at it now.
    pub fn look(&self, node: NodeId) {
        if let Some(lost) = self.lost.get(usize::from(node)) {
            lost.notify_one();
        }
    }
}
