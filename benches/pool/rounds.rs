//! The rounds: every cell once in each, contenders taking turns, until the rounds or the time are used up.
//!
//! It also watches the machine: what neither the contenders nor the load generator have used was used by others, and a
//! run beside a compiler is worth nothing.

use crate::args::Args;
use crate::cell::{self, Shape};
use crate::contender::{Contender, Kind};
use crate::series::{Entry, Series};
use crate::usage;
use anyhow::Result;
use std::io::{Write, stderr};
use std::time::{Duration, Instant};

/// Measures all cells; tells of each round on standard error.
pub(crate) fn run(args: &Args, cells: &[(Shape, Vec<Kind>)], contenders: &[Contender]) -> Result<Series> {
    let cores = std::thread::available_parallelism()?.get() as f64;
    let started = Instant::now();
    let mut series = Series::default();
    let mut longest = Duration::ZERO;
    for round in 0..args.rounds() {
        if started.elapsed() + longest > args.time_max() {
            writeln!(stderr(), "no time for more than {round} rounds")?;
            break;
        }
        let round_started = Instant::now();
        let others_before_ns = others_cpu_ns(contenders)?;
        for (shape, kinds) in cells {
            // Another one begins each round, so that none always follows the same one.
            let turn = contenders.iter().cycle().skip(round).take(contenders.len());
            for contender in turn.filter(|contender| kinds.contains(&contender.kind)) {
                let result = cell::measure(contender, *shape, args.length());
                let result = result.map_err(|error| format!("{error:#}"));
                series.entries.push(Entry {
                    shape: *shape,
                    kind: contender.kind,
                    round,
                    result,
                });
            }
        }
        let elapsed = round_started.elapsed();
        let others_ns = others_cpu_ns(contenders)?.saturating_sub(others_before_ns) as f64;
        let others_share = others_ns / elapsed.as_nanos() as f64 / cores;
        let (number, rounds, percent) = (round + 1, args.rounds(), others_share * 100.0);
        writeln!(
            stderr(),
            "round {number} of {rounds}: {elapsed:.0?}, others used {percent:.0} % of the machine"
        )?;
        series.others_share = series.others_share.max(others_share);
        longest = longest.max(elapsed);
    }
    Ok(series)
}

/// CPU time that neither the contenders nor the load generator have used.
fn others_cpu_ns(contenders: &[Contender]) -> Result<u64> {
    let of = |contender: &Contender| [contender.proxy_pids(), contender.server_pids()].concat();
    let mut ours: Vec<u32> = contenders.iter().flat_map(of).collect();
    ours.push(std::process::id());
    Ok(usage::machine_cpu_ns()?.saturating_sub(usage::cpu_ns(&ours)?))
}
