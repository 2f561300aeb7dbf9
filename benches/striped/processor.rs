//! A part of the processors for a process, and no more.
//!
//! Problem: a pool has three servers and a sidecar where a plain server stands alone. In truth each has processors of its own; on a machine
//! with few of them they take from each other, and from their clients.
//! Idea: slow processors for everybody, by Linux's control groups: parts that together are less than the machine has.

use anyhow::{Context, Result};
use cgroups_rs::cgroup_builder::CgroupBuilder;
use cgroups_rs::{Cgroup, CgroupPid, hierarchies};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Short, so that who has used up his part does not stand still for long.
const PERIOD_US: u64 = 5_000;

/// A process is confined while this lives.
pub(crate) struct Confined {
    group: Cgroup,
    pid: u64,
}

impl Confined {
    /// Leaves a process so many processors (or such a part of one).
    pub(crate) fn to(pid: u32, processors: f64) -> Result<Confined> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "ringfence-bench-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let quota = (processors * PERIOD_US as f64) as i64;
        let group = CgroupBuilder::new(&name)
            .set_specified_controllers(vec!["cpu".to_owned()])
            .cpu()
            .period(PERIOD_US)
            .quota(quota)
            .done()
            .build(hierarchies::auto())
            .context("no control group could be made: that needs root, and Linux's cpu controller")?;
        let pid = u64::from(pid);
        group.add_task_by_tgid(CgroupPid::from(pid))?;
        Ok(Confined { group, pid })
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // A process that has ended is in no group any more.
        drop(self.group.remove_task_by_tgid(CgroupPid::from(self.pid)));
        drop(self.group.delete());
    }
}
