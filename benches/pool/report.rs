//! The figures as aligned tables, in plain text or Markdown.

use crate::cell::{Sample, Shape};
use crate::contender::Kind;
use crate::growth::{Figures, Grown, Growths};
use crate::idle::Idle;
use crate::series::Series;

/// A table whose first columns are text (to the left) and the others figures (to the right).
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    text_columns: usize,
}

impl Table {
    pub(crate) fn new(head: &[&str], text_columns: usize) -> Table {
        Table {
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
            text_columns,
        }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Nothing but the head.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    pub(crate) fn text(&self, markdown: bool) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|cell| self.padded(cell))
                .collect();
            match markdown {
                true => text += &format!("| {} |\n", cells.join(" | ")),
                false => text += &format!("{}\n", cells.join("  ").trim_end()),
            }
            if number == 0 {
                let rule = |(column, width): (usize, &usize)| match (markdown, column < self.text_columns) {
                    (true, false) => format!("{}:", "-".repeat(width.saturating_sub(1).max(1))),
                    _ => "-".repeat(*width),
                };
                let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
                match markdown {
                    true => text += &format!("| {} |\n", rules.join(" | ")),
                    false => text += &format!("{}\n", rules.join("  ")),
                }
            }
        }
        text
    }

    fn padded(&self, (column, (cell, width)): (usize, (&String, &usize))) -> String {
        if column < self.text_columns {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    }
}

pub(crate) fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// The table of one shape of load.
pub(crate) fn cells(series: &Series, shape: Shape, kinds: &[Kind]) -> Table {
    let head = [
        "contender",
        "k/s",
        "ratio",
        "p50 us",
        "p99 us",
        "proxy us",
        "server us",
        "RSS MiB",
        "load gen",
    ];
    let mut table = Table::new(&head, 1);
    for kind in kinds {
        let of = |figure: fn(&Sample) -> Option<f64>| series.spread(shape, *kind, figure).map(|of| of.median);
        let mut row = vec![kind.title().to_owned()];
        let ratio = series.ratio(shape, *kind, Kind::Direct, |sample| Some(sample.commands_per_s));
        row.push(figure(of(|sample| Some(sample.commands_per_s / 1000.0)), 1, ""));
        row.push(figure(ratio.map(|ratio| ratio.median), 2, ""));
        row.push(figure(of(|sample| Some(sample.p50_us)), 0, ""));
        row.push(figure(of(|sample| Some(sample.p99_us)), 0, ""));
        row.push(figure(of(|sample| sample.proxy_cpu_us), 2, ""));
        row.push(figure(of(|sample| Some(sample.server_cpu_us)), 2, ""));
        row.push(figure(of(|sample| sample.proxy_resident_bytes.map(mib)), 1, ""));
        row.push(figure(of(|sample| Some(sample.generator_busy * 100.0)), 0, "%"));
        table.push(row);
    }
    table
}

/// The heading of one shape of load.
pub(crate) fn heading(shape: Shape) -> String {
    let clients = if shape.clients == 1 { "client" } else { "clients" };
    let pipeline = if shape.pipeline == 1 {
        "no pipelining".to_owned()
    } else {
        format!("pipeline {}", shape.pipeline)
    };
    format!(
        "{}, {} B, {} {clients}, {pipeline}",
        shape.command.name(),
        shape.payload_bytes,
        shape.clients
    )
}

/// The table of idle clients' memory.
pub(crate) fn idle(measured: &[(Kind, Idle)]) -> Table {
    let mut table = Table::new(
        &[
            "proxy",
            "idle clients",
            "RSS before MiB",
            "RSS MiB",
            "KiB per client",
        ],
        1,
    );
    for (kind, idle) in measured {
        let (before, resident) = (idle.before_bytes as f64, idle.resident_bytes as f64);
        let each_kib = (resident - before) / 1024.0 / idle.clients as f64;
        table.push(vec![
            kind.title().to_owned(),
            idle.clients.to_string(),
            figure(Some(mib(before)), 1, ""),
            figure(Some(mib(resident)), 1, ""),
            figure(Some(each_kib), 2, ""),
        ]);
    }
    table
}

/// What clients notice while pools change: before / while / after.
pub(crate) fn growth(growths: &Growths) -> Table {
    let head = [
        "what changes",
        "k/s",
        "ratio",
        "p99 ms",
        "longest ms",
        "longest hold ms",
    ];
    let mut table = Table::new(&head, 1);
    for case in growths.cases() {
        let of = |figure: &dyn Fn(&Grown) -> f64| growths.spread(case, figure).map(|of| of.median);
        let three = |of_stretch: fn(Figures) -> f64, decimals| {
            let stretches: [fn(&Grown) -> Figures; 3] = [|g| g.before, |g| g.during, |g| g.after];
            let texts = stretches.map(|stretch| figure(of(&|g| of_stretch(stretch(g))), decimals, ""));
            texts.join(" / ")
        };
        let ratio = of(&|g| g.during.commands_per_s / g.before.commands_per_s);
        table.push(vec![
            case.title(),
            three(|of| of.commands_per_s / 1000.0, 0),
            figure(ratio, 2, ""),
            three(|of| of.p99_us / 1000.0, 1),
            three(|of| of.longest_us / 1000.0, 0),
            figure(of(&|g| g.longest_hold_us / 1000.0), 1, ""),
        ]);
    }
    table
}

/// What was moved for it.
pub(crate) fn moves(growths: &Growths) -> Table {
    let head = [
        "what changes",
        "copied s",
        "settled s",
        "copies",
        "fewest",
        "MiB",
        "their share MiB",
        "MiB/s",
    ];
    let mut table = Table::new(&head, 1);
    for case in growths.cases() {
        let of = |figure: &dyn Fn(&Grown) -> f64| growths.spread(case, figure).map(|of| of.median);
        table.push(vec![
            case.title(),
            figure(of(&|g| g.copied_s), 1, ""),
            figure(of(&|g| g.settled_s), 1, ""),
            figure(of(&|g| g.moves), 0, ""),
            figure(of(&|g| g.ideal_moves), 0, ""),
            figure(of(&|g| mib(g.bytes)), 0, ""),
            figure(of(&|g| mib(g.ideal_bytes)), 0, ""),
            figure(of(&|g| mib(g.bytes) / g.copied_s), 0, ""),
        ]);
    }
    table
}

fn figure(value: Option<f64>, decimals: usize, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}{unit}"))
}
