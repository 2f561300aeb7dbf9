//! Which pool a seed gives.

use crate::harness::Rng;
use std::fmt;

/// The most nodes that a pool is given.
pub const NODES_MAX: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub nodes: usize,
    pub replicas: usize,
    pub threads: usize,
    /// How long a node may be away until others hold what it held.
    pub replace_after_ms: i64,
    /// How fast nodes are given copies, in KiB a second.
    pub copy_rate_kib: i64,
    /// Entries of a segment, if lists and the stream are striped.
    pub segment_len: Option<i64>,
    /// One, or several of which one serves.
    pub sidecars: usize,
}

impl Shape {
    pub fn of(rng: &mut Rng) -> Self {
        let shapes = [(3, 3), (3, 3), (4, 3), (5, 3), (6, 3), (3, 2), (4, 2)];
        let (nodes, replicas) = *rng.pick(&shapes);
        Self {
            nodes,
            replicas,
            threads: 1 + rng.below(2),
            replace_after_ms: *rng.pick(&[300, 2_000, 600_000]),
            copy_rate_kib: *rng.pick(&[512, 4_096, 65_536]),
            segment_len: *rng.pick(&[None, Some(100), Some(1_000)]),
            sidecars: *rng.pick(&[1, 3]),
        }
    }

    /// How many nodes may be away without anybody noticing: W is a majority.
    pub fn spare_nodes(&self) -> usize {
        self.replicas - (self.replicas / 2 + 1)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} nodes, R = {}, threads = {}, replace_after = {} ms, copy_rate = {} KiB/s, segment_len = {:?}, {} sidecars",
            self.nodes,
            self.replicas,
            self.threads,
            self.replace_after_ms,
            self.copy_rate_kib,
            self.segment_len,
            self.sidecars
        )
    }
}
