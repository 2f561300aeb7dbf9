//! The goals, as data, and how far this run reaches them.
//!
//! Each compares a figure of two contenders of the same round (256 B, 50 clients); goals are judged by the median ratio,
//! and its spread over the rounds is shown beside it. A goal whose cells were not measured is neither met nor missed.

use crate::cell::Shape;
use crate::contender::Kind;
use crate::growth::{Grown, Growths};
use crate::idle::Idle;
use crate::report::{Table, mib};
use crate::series::{Figure, Series};
use crate::tape::Command;

const IDLE_CLIENTS: usize = 10_000;
const IDLE_MIB_MAX: f64 = 100.0;
/// Throughput while copies are made, of what it was before.
const DURING_MIN: f64 = 0.7;
/// The longest that a client may wait for a reply meanwhile.
const PAUSE_MS_MAX: f64 = 50.0;
const NOT_MEASURED: [&str; 4] = ["-", "-", "-", "not measured"];

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

struct Goal {
    what: &'static str,
    unit: &'static str,
    figure: Figure,
    command: Command,
    pipeline: usize,
    of: Kind,
    to: Kind,
    bound: Bound,
}

/// The table of those goals that this run asks about.
pub(crate) fn table(
    cells: &[(Shape, Vec<Kind>)],
    series: &Series,
    idle: &[(Kind, Idle)],
    idle_clients: usize,
) -> Table {
    let head = [
        "goal (256 B, 50 clients)",
        "pipeline",
        "target",
        "measured",
        "least - greatest",
        "values",
        "",
    ];
    let mut table = Table::new(&head, 1);
    for goal in goals() {
        let (command, pipeline) = (goal.command, goal.pipeline);
        let shape = Shape {
            command,
            payload_bytes: 256,
            clients: 50,
            pipeline,
        };
        let asked = |(of, kinds): &(Shape, Vec<Kind>)| {
            *of == shape && kinds.contains(&goal.of) && kinds.contains(&goal.to)
        };
        if !cells.iter().any(asked) {
            continue;
        }
        let name = format!(
            "{} {}: {} / {}",
            command.name(),
            goal.what,
            goal.of.title(),
            goal.to.title()
        );
        let mut row = vec![name, pipeline.to_string(), goal.bound.text("x")];
        match series.ratio(shape, goal.of, goal.to, goal.figure) {
            Some(ratio) => {
                let value = |kind| {
                    series
                        .spread(shape, kind, goal.figure)
                        .map_or(f64::NAN, |of| of.median)
                };
                row.push(format!("{:.2} x", ratio.median));
                row.push(format!("{:.2} - {:.2}", ratio.least, ratio.greatest));
                row.push(format!(
                    "{:.2} / {:.2} {}",
                    value(goal.of),
                    value(goal.to),
                    goal.unit
                ));
                row.push(goal.bound.verdict(ratio.median));
            }
            None => row.extend(NOT_MEASURED.map(str::to_owned)),
        }
        table.push(row);
    }
    if idle_clients == IDLE_CLIENTS {
        for kind in [Kind::One, Kind::Three]
            .into_iter()
            .filter(|kind| cells.iter().any(|(_, of)| of.contains(kind)))
        {
            let bound = Bound::AtMost(IDLE_MIB_MAX);
            let mut row = vec![format!(
                "memory with {IDLE_CLIENTS} idle clients: {}",
                kind.title()
            )];
            row.extend(["-".to_owned(), bound.text("MiB")]);
            match idle.iter().find(|(of, _)| *of == kind) {
                Some((_, idle)) => {
                    let resident_mib = mib(idle.resident_bytes as f64);
                    row.push(format!("{resident_mib:.1} MiB"));
                    row.extend(["-", "-"].map(str::to_owned));
                    row.push(bound.verdict(resident_mib));
                }
                None => row.extend(NOT_MEASURED.map(str::to_owned)),
            }
            table.push(row);
        }
    }
    table
}

/// The goals of pools that change while they are used.
pub(crate) fn growth(growths: &Growths) -> Table {
    let head = ["goal (50 clients)", "target", "measured", "least - greatest", ""];
    let mut table = Table::new(&head, 1);
    type Of = fn(&Grown) -> f64;
    let goals: [(&str, &str, Of, Bound); 3] = [
        (
            "throughput while / before",
            "x",
            |of| of.during.commands_per_s / of.before.commands_per_s,
            Bound::AtLeast(DURING_MIN),
        ),
        (
            "longest pause",
            "ms",
            |of| of.during.longest_us / 1000.0,
            Bound::AtMost(PAUSE_MS_MAX),
        ),
        (
            "copies / fewest",
            "x",
            |of| of.moves / of.ideal_moves,
            Bound::AtMost(1.0),
        ),
    ];
    for case in growths.cases() {
        for (what, unit, figure, bound) in goals {
            let mut row = vec![format!("{}: {what}", case.title()), bound.text(unit)];
            match growths.spread(case, figure) {
                Some(of) => {
                    row.push(format!("{:.2} {unit}", of.median));
                    row.push(format!("{:.2} - {:.2}", of.least, of.greatest));
                    row.push(bound.verdict(of.median));
                }
                None => row.extend(["-", "-", "not measured"].map(str::to_owned)),
            }
            table.push(row);
        }
    }
    table
}

fn goals() -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    use Command::{Lpush, Set};
    let cpu = |command, pipeline, of, to, bound| Goal {
        what: "proxy CPU per command",
        unit: "us",
        figure: |sample| sample.proxy_cpu_us,
        command,
        pipeline,
        of,
        to,
        bound,
    };
    let throughput = |command, pipeline, of, to, bound| Goal {
        what: "throughput",
        unit: "k/s",
        figure: |sample| Some(sample.commands_per_s / 1000.0),
        command,
        pipeline,
        of,
        to,
        bound,
    };
    let p99 = |command, pipeline, of, to, bound| Goal {
        what: "p99",
        unit: "us",
        figure: |sample| Some(sample.p99_us),
        command,
        pipeline,
        of,
        to,
        bound,
    };
    vec![
        cpu(Lpush, 1, Kind::One, Kind::Twemproxy, AtMost(1.0)),
        cpu(Set, 1, Kind::One, Kind::Twemproxy, AtMost(1.0)),
        cpu(Lpush, 16, Kind::One, Kind::Twemproxy, AtMost(0.83)),
        cpu(Set, 16, Kind::One, Kind::Twemproxy, AtMost(0.83)),
        throughput(Lpush, 1, Kind::One, Kind::Twemproxy, AtLeast(1.0)),
        throughput(Set, 1, Kind::One, Kind::Twemproxy, AtLeast(1.0)),
        throughput(Lpush, 1, Kind::Three, Kind::Wait, AtLeast(1.0)),
        throughput(Lpush, 16, Kind::Three, Kind::Wait, AtLeast(2.0)),
        cpu(Lpush, 1, Kind::Three, Kind::One, AtMost(1.4)),
        cpu(Lpush, 16, Kind::Three, Kind::One, AtMost(2.0)),
        p99(Lpush, 1, Kind::Three, Kind::Wait, AtMost(1.0)),
    ]
}

impl Bound {
    fn text(self, unit: &str) -> String {
        match self {
            Bound::AtMost(bound) => format!("<= {bound} {unit}"),
            Bound::AtLeast(bound) => format!(">= {bound} {unit}"),
        }
    }

    fn verdict(self, value: f64) -> String {
        let met = match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        };
        if met {
            "met".to_owned()
        } else {
            "NOT MET".to_owned()
        }
    }
}
