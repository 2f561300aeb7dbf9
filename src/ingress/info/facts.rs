//! What the sections are written from, taken once for each `INFO`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::metrics::{Totals, WorkerMetrics};
use crate::pool::NodeInfo;
use crate::shared::{Shared, unix_ms};

/// How things are.
pub(super) struct Facts<'a> {
    pub(super) shared: &'a Shared,
    pub(super) nodes: NodeInfo,
    /// Since the start, or since `CONFIG RESETSTAT`.
    pub(super) totals: Totals,
    /// Commands, and bytes in and out, in a second, lately.
    pub(super) rates: [f64; 3],
    pub(super) now_us: u64,
    /// CPU time of this process: in the system, and its own.
    pub(super) cpu: (Duration, Duration),
}

impl<'a> Facts<'a> {
    pub(super) fn of(shared: &'a Shared) -> Self {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let time = |value: nix::sys::time::TimeVal| {
            Duration::new(value.tv_sec().max(0) as u64, value.tv_usec().max(0) as u32 * 1000)
        };
        let cpu = usage.map(|usage| (time(usage.system_time()), time(usage.user_time())));
        Self {
            shared,
            nodes: shared.keeper.pool_info(),
            totals: shared.counts(),
            rates: shared.rates(),
            now_us: unix_ms() * 1000,
            cpu: cpu.unwrap_or_default(),
        }
    }

    /// The sum of a number of all workers.
    pub(super) fn sum(&self, of: fn(&WorkerMetrics) -> u64) -> u64 {
        self.shared.metrics.iter().map(|worker| of(worker)).sum()
    }

    pub(super) fn clients(&self) -> usize {
        self.shared.clients.load(Relaxed)
    }

    /// Those that wait for data, and those that wait for the end of a pause.
    pub(super) fn blocked(&self) -> u64 {
        self.shared.blocked.load(Relaxed) as u64 + self.sum(|worker| worker.held_back.get())
    }

    pub(super) fn uptime_s(&self) -> u64 {
        (self.now_us / 1000).saturating_sub(self.shared.started_ms) / 1000
    }
}
