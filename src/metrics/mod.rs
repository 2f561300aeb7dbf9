//! Counting: each worker writes its own numbers, the admin port adds them up.
//!
//! A worker is the only writer of its numbers, so a count is a plain load and store of an atomic; nobody waits.

mod counts;
mod export;

pub use counts::{CommandCounts, ErrorCounts, Totals};
pub use export::{NodeSample, PoolSample, render, render_standby};

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the latency histogram's buckets, in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400,
];

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; only its own thread may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets; only its own thread may.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long clients waited for their replies.
#[derive(Debug, Default)]
pub struct Latencies {
    buckets: [Count; LATENCY_BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Latencies {
    /// Notes one.
    pub fn note(&self, us: u64) {
        let bucket = LATENCY_BOUNDS_US
            .iter()
            .position(|&bound| us <= bound)
            .unwrap_or(LATENCY_BOUNDS_US.len());
        if let Some(count) = self.buckets.get(bucket) {
            count.add(1);
        }
        self.sum_us.add(us);
    }

    /// Counts by bucket, the last one without bound, and the sum in microseconds.
    pub fn read(&self) -> ([u64; LATENCY_BOUNDS_US.len() + 1], u64) {
        let mut counts = [0; LATENCY_BOUNDS_US.len() + 1];
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.get();
        }
        (counts, self.sum_us.get())
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Commands from clients.
    pub commands: Count,
    /// Errors that the sidecar itself answered.
    pub errors: Count,
    /// Bytes from clients.
    pub bytes_in: Count,
    /// Bytes to clients.
    pub bytes_out: Count,
    /// Clients connected now.
    pub clients: Count,
    /// Batches of writes sent to nodes.
    pub batches: Count,
    /// Writes in them, once for each node.
    pub batched_writes: Count,
    /// Writes ordered.
    pub writes: Count,
    /// Reads ordered.
    pub reads: Count,
    /// Replies that differed between mirrors.
    pub mismatches: Count,
    /// Keys made on all nodes what they are on the primary.
    pub repairs: Count,
    /// Writes given once more to a node that came back.
    pub resent: Count,
    /// From a command's arrival to its reply.
    pub latencies: Latencies,
    /// Clients whose command waits for the end of a pause.
    pub held_back: Count,
    /// By the command's place in the table.
    pub by_command: Box<[CommandCounts]>,
    /// Errors that clients were answered, the nodes' and the sidecar's own.
    pub by_error: ErrorCounts,
}

impl WorkerMetrics {
    /// For so many commands.
    pub fn new(commands: usize) -> Self {
        Self {
            by_command: (0..commands).map(|_| CommandCounts::default()).collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_buckets() {
        let latencies = Latencies::default();
        for us in [1, 50, 51, 10_000_000] {
            latencies.note(us);
        }
        let (counts, sum) = latencies.read();
        assert_eq!((counts[0], counts[1], counts[LATENCY_BOUNDS_US.len()]), (2, 1, 1));
        assert_eq!(sum, 10_000_102);
    }
}
