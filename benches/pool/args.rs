//! The command line, and which cells it asks for.
//!
//! By default exactly what the goals (`reach.rs`) need: the cells in less than four minutes, and pools that change in two more. Naming commands, clients,
//! pipelines or payloads gives their product instead; `--full` is the whole matrix. Run by `cargo test` (without
//! `--bench`, as cargo does it) everything is run once with few commands, so that the benchmark never rots.

use crate::cell::{Length, Shape};
use crate::contender::{Kind, Programs};
use crate::filling::Filling;
use crate::growth::{CASES, Case, Change};
use crate::tape::Command;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

const QUICK_COMMANDS: u64 = 800;
const QUICK_CLIENTS: usize = 10;
const QUICK_IDLE_CLIENTS: usize = 100;
const IDLE_CLIENTS: usize = 10_000;
const QUICK_GROWTH: Duration = Duration::from_millis(100);
const MINUTES_MAX: f64 = 3.7;
const MINUTES_MAX_FULL: f64 = 60.0;

/// Ringfence beside its alternatives: throughput, latency, CPU and memory, interleaved in one run.
#[derive(Debug, Parser)]
#[command(name = "pool")]
pub(crate) struct Args {
    /// Rounds; each measures every cell once, medians are reported
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of a cell, besides a tenth of that to warm up
    #[arg(long, default_value_t = 1.8)]
    seconds: f64,
    /// No further round is begun that would end later than this
    #[arg(long)]
    minutes: Option<f64>,
    /// Only these contenders
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Commands to measure
    #[arg(long, value_enum, value_delimiter = ',')]
    command: Vec<Command>,
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=15_000))]
    clients: Vec<u32>,
    /// Commands that a client sends at once
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=512))]
    pipeline: Vec<u32>,
    /// Payload bytes of a command
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    payload: Vec<u32>,
    /// The whole matrix: SET, LPUSH, GET; 1, 50, 500 clients; pipeline 1, 16; 256 B, 16 KiB
    #[arg(long)]
    full: bool,
    /// Idle clients whose memory is measured; 0 leaves this out
    #[arg(long)]
    idle: Option<usize>,
    /// Rounds of pools that change while they are used; 0 leaves them out
    #[arg(long)]
    growth: Option<usize>,
    /// Only pools that change, and nothing of the above
    #[arg(long)]
    only_growth: bool,
    /// Only pools that change in this way
    #[arg(long, value_enum)]
    change: Option<Change>,
    /// Everything once, with few commands
    #[arg(long)]
    quick: bool,
    /// A contender whose program is missing is no failure
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Write a Markdown table
    #[arg(long)]
    pub(crate) markdown: bool,

    // What cargo says: `cargo bench` gives --bench, `cargo test` nothing, either a filter and options of libtest.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(hide = true)]
    filter: Option<String>,
}

impl Args {
    /// Cargo's filter is meant for another benchmark.
    pub(crate) fn filtered_out(&self) -> bool {
        self.filter
            .as_ref()
            .is_some_and(|filter| !"pool".contains(filter.as_str()))
    }

    /// Too short for figures that mean anything.
    pub(crate) fn quick(&self) -> bool {
        self.quick || self.test || !self.bench
    }

    fn narrowed(&self) -> bool {
        let lists = [&self.clients, &self.pipeline, &self.payload];
        !self.command.is_empty() || lists.iter().any(|list| !list.is_empty())
    }

    pub(crate) fn rounds(&self) -> usize {
        match (self.only_growth, self.quick()) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => self.rounds.max(1),
        }
    }

    pub(crate) fn time_max(&self) -> Duration {
        let default = if self.full { MINUTES_MAX_FULL } else { MINUTES_MAX };
        Duration::from_secs_f64(self.minutes.unwrap_or(default).clamp(0.0, 10_000.0) * 60.0)
    }

    pub(crate) fn length(&self) -> Length {
        let time = Duration::from_secs_f64(self.seconds.clamp(0.1, 600.0));
        match self.quick() {
            false => Length {
                warm_up: time / 10,
                time,
                commands_max: u64::MAX,
            },
            true => Length {
                warm_up: Duration::ZERO,
                time: 10 * time,
                commands_max: QUICK_COMMANDS,
            },
        }
    }

    pub(crate) fn idle_clients(&self) -> usize {
        let by_default = match (self.quick(), self.narrowed() || self.only_growth) {
            (true, _) => QUICK_IDLE_CLIENTS,
            (false, true) => 0,
            (false, false) => IDLE_CLIENTS,
        };
        self.idle.unwrap_or(by_default)
    }

    /// Which pools that change are measured.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let is_asked = |case: &Case| {
            self.change.is_none_or(|change| change == case.change)
                && (self.pipeline.is_empty() || self.pipeline.contains(&(case.pipeline as u32)))
        };
        CASES.into_iter().filter(is_asked).collect()
    }

    /// Rounds of pools that change, what they are filled with, and how long they are measured before and after.
    pub(crate) fn growth(&self) -> (usize, Filling, Duration) {
        if self.quick() {
            return (1, Filling::QUICK, QUICK_GROWTH);
        }
        let others_only = self.narrowed() || self.full || !self.only.is_empty();
        let by_default = usize::from(!others_only);
        let time = Duration::from_secs_f64(self.seconds.clamp(0.1, 600.0));
        (self.growth.unwrap_or(by_default), Filling::FULL, 2 * time)
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        if self.only_growth {
            return Vec::new();
        }
        let mut kinds = if self.only.is_empty() {
            Kind::value_variants().to_vec()
        } else {
            self.only.clone()
        };
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// What is measured, each shape with its contenders.
    pub(crate) fn cells(&self) -> Vec<(Shape, Vec<Kind>)> {
        let kinds = self.kinds();
        let named = |list: &[u32]| list.iter().map(|number| *number as usize).collect::<Vec<usize>>();
        let or = |list: Vec<usize>, default: &[usize]| if list.is_empty() { default.to_vec() } else { list };
        let (commands, clients, payloads) = match (self.quick(), self.full) {
            (true, _) => (
                Command::value_variants(),
                [QUICK_CLIENTS].as_slice(),
                [256].as_slice(),
            ),
            (false, true) => (
                Command::value_variants(),
                [1, 50, 500].as_slice(),
                [256, 16 * 1024].as_slice(),
            ),
            (false, false) => ([Command::Lpush].as_slice(), [50].as_slice(), [256].as_slice()),
        };
        let commands = if self.command.is_empty() {
            commands.to_vec()
        } else {
            self.command.clone()
        };
        let mut cells = Vec::new();
        if self.only_growth {
            return cells;
        }
        for command in commands {
            for payload_bytes in or(named(&self.payload), payloads) {
                for clients in or(named(&self.clients), clients) {
                    for pipeline in or(named(&self.pipeline), &[1, 16]) {
                        cells.push((
                            Shape {
                                command,
                                payload_bytes,
                                clients,
                                pipeline,
                            },
                            kinds.clone(),
                        ));
                    }
                }
            }
        }
        if !self.quick() && !self.full && !self.narrowed() {
            // The goals for SET are about one copy.
            let one_copy = [Kind::Direct, Kind::One, Kind::Twemproxy];
            let kinds: Vec<Kind> = kinds.into_iter().filter(|kind| one_copy.contains(kind)).collect();
            for pipeline in [1, 16] {
                let shape = Shape {
                    command: Command::Set,
                    payload_bytes: 256,
                    clients: 50,
                    pipeline,
                };
                cells.push((shape, kinds.clone()));
            }
        }
        cells
    }
}

/// The programs: those of the system, and the ringfence that cargo has just built, unless the environment names one.
pub(crate) fn programs() -> Programs {
    let ringfence = std::env::var_os("RINGFENCE_BIN").map(PathBuf::from);
    let built = option_env!("CARGO_BIN_EXE_ringfence").unwrap_or("target/release/ringfence");
    Programs {
        ringfence: ringfence.unwrap_or_else(|| PathBuf::from(built)),
        redis: PathBuf::from("redis-server"),
        twemproxy: PathBuf::from("nutcracker"),
    }
}
