//! What a process has used: CPU time to the nanosecond, resident memory.
//!
//! The kernel's CPU clock of a process counts all its threads, also those that have ended, and is exact at the moment
//! it is read; `utime` and `stime` in `/proc/<pid>/stat` move in steps of 10 ms.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// `/proc/stat` counts in hundredths of a second on every Linux.
const TICK_NS: u64 = 10_000_000;

/// CPU time of all threads of these processes together.
pub(crate) fn cpu_ns(pids: &[u32]) -> Result<u64> {
    let mut total_ns = 0;
    for pid in pids {
        let clock =
            clock_getcpuclockid(Pid::from_raw(i32::try_from(*pid)?)).context("CPU clock of a process")?;
        let time = clock_gettime(clock).context("CPU time of a process")?;
        total_ns += u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?;
    }
    Ok(total_ns)
}

/// CPU time that the whole machine has spent on anything, also on other guests of its host.
pub(crate) fn machine_cpu_ns() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat").context("CPU time of the machine")?;
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .context("no line of all CPUs")?;
    let ticks = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of the first two.
    let busy_ticks: u64 = ticks
        .iter()
        .take(8)
        .enumerate()
        .filter(|(field, _)| ![3, 4].contains(field))
        .map(|of| of.1)
        .sum();
    Ok(busy_ticks * TICK_NS)
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("memory of a process")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .context("VmRSS")?;
    Ok(kib * 1024)
}

/// Raises the limit of open files as far as it may be raised; the processes started later inherit it.
pub(crate) fn raise_open_files() -> Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}
