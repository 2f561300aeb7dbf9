//! The whole-system benchmark: ringfence beside its alternatives, with real servers, on one machine.
//!
//! Absolute rates of a shared machine drift by a third, so all contenders run side by side and take turns: a round
//! measures every cell once, each round begins with another contender, figures are medians over the rounds and ratios
//! are formed within a round. CPU per command is what holds on other machines; throughput here is that of two cores
//! shared by load generator, proxy and servers.
//!
//! `make bench` runs it (`cargo bench --bench pool -- --help` tells the options); `cargo test --bench pool` runs every
//! cell once with few commands. It needs `redis-server` and, for twemproxy, `nutcracker`. It fails if a cell fails (an
//! error reply, a lost copy) or a contender is missing, not if a goal is missed.
//!
//! The way of a cell: `args` -> `contender` (`process`) -> `rounds` -> `cell` -> `load` (`tape`, `reply`) -> `series` -> `report`, `reach`.
//! Pools that change: `args` -> `growth` (`filling`, `admin`, `load`) -> `report`, `reach`.

mod admin;
mod args;
mod cell;
mod contender;
mod filling;
mod growth;
mod idle;
mod load;
mod process;
mod reach;
mod reply;
mod report;
mod rounds;
mod series;
mod tape;
mod usage;

use crate::args::Args;
use crate::cell::Shape;
use crate::contender::{Contender, Kind};
use crate::growth::Growths;
use crate::idle::Idle;
use crate::series::Series;
use anyhow::Result;
use clap::Parser;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

/// Above this share of the machine used by others, the figures are not to be believed.
const OTHERS_MAX: f64 = 0.1;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.filtered_out() {
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = tempfile::Builder::new().prefix("ringfence-bench-").tempdir()?;
    process::end_all_when_interrupted(scratch.path().to_owned())?;
    let open_files_max = usage::raise_open_files()?;
    let programs = args::programs();
    let cells = args.cells();

    let mut contenders = Vec::new();
    let mut complaints = Vec::new();
    let mut failed = false;
    for kind in args.kinds() {
        match Contender::start(kind, &programs, scratch.path()) {
            Ok(contender) => contenders.push(contender),
            Err(error) => {
                complaints.push(format!("not available: {}: {error:#}", kind.title()));
                failed |= !args.allow_missing;
            }
        }
    }
    let series = rounds::run(&args, &cells, &contenders)?;
    let proxies = contenders
        .iter()
        .map(|contender| contender.kind)
        .filter(|kind| idle::KINDS.contains(kind));
    let proxies: Vec<Kind> = proxies.collect();
    drop(contenders);

    let mut idle = Vec::new();
    let open_files_needed = idle::open_files(args.idle_clients());
    if args.idle_clients() == 0 {
        writeln!(stderr(), "idle clients are not measured")?;
    } else if open_files_needed > open_files_max {
        complaints.push(format!(
            "idle clients skipped: {open_files_needed} open files are needed, the hard limit is {open_files_max} (ulimit -Hn)"
        ));
    } else {
        for kind in proxies {
            match idle::measure(kind, args.idle_clients(), &programs, scratch.path()) {
                Ok(measured) => idle.push((kind, measured)),
                Err(error) => {
                    complaints.push(format!("failed: {}: idle clients: {error:#}", kind.title()));
                    failed = true;
                }
            }
        }
    }

    let (rounds, filling, time) = args.growth();
    let growths = Growths::run(&args.cases(), rounds, &filling, time, &programs, scratch.path())?;
    failed |= !growths.failures.is_empty();
    complaints.extend(
        growths
            .failures
            .iter()
            .map(|failure| format!("failed: {failure}")),
    );

    for (shape, kind) in cells
        .iter()
        .flat_map(|(shape, kinds)| kinds.iter().map(move |kind| (*shape, *kind)))
    {
        if let Some(failure) = series.failure(shape, kind) {
            complaints.push(format!(
                "failed: {}: {}: {failure}",
                kind.title(),
                report::heading(shape)
            ));
            failed = true;
        }
    }
    if series.others_share > OTHERS_MAX && !args.quick() {
        let percent = series.others_share * 100.0;
        complaints.push(format!(
            "disturbed: others used {percent:.0} % of the machine in a round; repeat when it is quiet"
        ));
    }
    print(&args, &cells, &series, &idle, &growths, &complaints)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print(
    args: &Args,
    cells: &[(Shape, Vec<Kind>)],
    series: &Series,
    idle: &[(Kind, Idle)],
    growths: &Growths,
    complaints: &[String],
) -> Result<()> {
    let mut out = stdout().lock();
    let title = |text: &str| {
        if args.markdown {
            format!("### {text}\n\n")
        } else {
            format!("{text}\n")
        }
    };
    for (shape, kinds) in cells {
        let table = report::cells(series, *shape, kinds);
        writeln!(
            out,
            "{}{}",
            title(&report::heading(*shape)),
            table.text(args.markdown)
        )?;
    }
    if !idle.is_empty() {
        writeln!(
            out,
            "{}{}",
            title("Idle clients"),
            report::idle(idle).text(args.markdown)
        )?;
    }
    if !growths.is_empty() {
        for (heading, table) in [
            (
                "Pools that change: before / while / after",
                report::growth(growths),
            ),
            ("What was moved for it", report::moves(growths)),
        ] {
            writeln!(out, "{}{}", title(heading), table.text(args.markdown))?;
        }
    }
    let reach = reach::table(cells, series, idle, args.idle_clients());
    if !args.quick() && !reach.is_empty() {
        writeln!(out, "{}{}", title("Reach"), reach.text(args.markdown))?;
    }
    if !args.quick() && !growths.is_empty() {
        let reach = reach::growth(growths);
        writeln!(out, "{}{}", title("Reach"), reach.text(args.markdown))?;
    }
    for complaint in complaints {
        writeln!(out, "{complaint}")?;
    }
    Ok(())
}
