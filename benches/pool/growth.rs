//! Pools that change while they are used: a fourth node is added, or one of three comes back without its data.
//!
//! Each case has servers and a sidecar of its own, filled with some 200 MB. The same clients go on before, while and after it:
//! what is measured is what they notice, and what the copies took. Where the pool is small enough for that (`Filling::QUICK`),
//! the sidecar compares all copies at the end: one that loses something is not fast.

use crate::admin;
use crate::cell::{once, rest};
use crate::contender::{Programs, start_redis, start_ringfence};
use crate::filling::Filling;
use crate::load::{Load, Spec, Stretch};
use crate::process::Process;
use crate::series::Spread;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 50;
/// The fill is sent in batches of so many (see `cell::once`); what is left of the last one is not sent.
const FILLING_PIPELINE: u64 = 10;
const PARTITIONS: f64 = 256.0;
/// Longest that it may take.
const CHANGED_WITHIN: Duration = Duration::from_secs(180);
/// How often the sidecar is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Change {
    /// A fourth node is added to three.
    Added,
    /// One of three nodes is killed, and comes back without its data.
    Emptied,
}

/// A pool that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Case {
    pub(crate) change: Change,
    pub(crate) replicas: usize,
    pub(crate) pipeline: usize,
}

/// All of them. With R = 2, W = 2 and a node away, there is nothing that clients could go on with.
pub(crate) const CASES: [Case; 6] = {
    const fn case(change: Change, replicas: usize, pipeline: usize) -> Case {
        Case {
            change,
            replicas,
            pipeline,
        }
    }
    [
        case(Change::Added, 3, 1),
        case(Change::Added, 3, 16),
        case(Change::Added, 2, 1),
        case(Change::Added, 2, 16),
        case(Change::Emptied, 3, 1),
        case(Change::Emptied, 3, 16),
    ]
};

impl Case {
    pub(crate) fn title(self) -> String {
        let what = match self.change {
            Change::Added => "fourth node",
            Change::Emptied => "node without its data",
        };
        format!("{what}, R = {}, pipeline {}", self.replicas, self.pipeline)
    }
}

/// What a case came to.
#[derive(Clone, Debug)]
pub(crate) struct Grown {
    pub(crate) before: Figures,
    pub(crate) during: Figures,
    pub(crate) after: Figures,
    /// Until the last copy was made, and until all was settled, with what other nodes had to remove.
    pub(crate) copied_s: f64,
    pub(crate) settled_s: f64,
    pub(crate) moves: f64,
    pub(crate) ideal_moves: f64,
    pub(crate) bytes: f64,
    /// The share of what the pool was filled with, names and all, that goes with the fewest moves.
    pub(crate) ideal_bytes: f64,
    pub(crate) longest_hold_us: f64,
}

/// What clients noticed in one stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) commands_per_s: f64,
    pub(crate) p99_us: f64,
    pub(crate) longest_us: f64,
}

impl From<Stretch> for Figures {
    fn from(stretch: Stretch) -> Figures {
        Figures {
            commands_per_s: stretch.commands as f64 / stretch.elapsed.as_secs_f64(),
            p99_us: stretch.p99_us,
            longest_us: stretch.longest_us,
        }
    }
}

/// What the change itself took.
struct Moved {
    copied_s: f64,
    settled_s: f64,
    moves: f64,
    ideal_moves: f64,
    bytes: f64,
}

/// Measures one case; `time` before and after it.
fn measure(
    case: Case,
    filling: &Filling,
    time: Duration,
    programs: &Programs,
    scratch: &Path,
) -> Result<Grown> {
    let dir = tempfile::Builder::new()
        .prefix("growth-")
        .tempdir_in(scratch)?
        .keep();
    let mut nodes = (0..4)
        .map(|number| start_redis(&programs.redis, &dir.join(format!("node-{number}"))))
        .collect::<Result<Vec<Process>>>()?;
    let addresses: Vec<SocketAddr> = nodes.iter().take(3).map(|node| node.address).collect();
    let proxy = start_ringfence(
        &programs.ringfence,
        &dir.join("proxy"),
        &addresses,
        case.replicas,
        2,
        false,
    )?;
    let filled = filling.tape();
    let commands = filled.requests() as u64 / FILLING_PIPELINE * FILLING_PIPELINE;
    once(&filled, vec![proxy.address], commands).context("filling the pool")?;
    let mut pids: Vec<u32> = nodes.iter().map(Process::pid).collect();
    pids.push(proxy.pid());
    rest(&pids)?;

    let tape = filling.traffic();
    let mut load = Load::open(Spec {
        tape: &tape,
        clients: vec![vec![proxy.address]; CLIENTS],
        quorum: 1,
        pipeline: case.pipeline,
        wait_copies: None,
        commands_max: u64::MAX,
    })?;
    load.drive(time / 10)?;
    let before = load.drive(time)?;
    let done = AtomicBool::new(false);
    let (during, moved) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let moved = change(case, &mut nodes, proxy.admin);
            done.store(true, Ordering::Release);
            moved
        });
        let during = load.drive_until(CHANGED_WITHIN, || done.load(Ordering::Acquire));
        (during, changing.join())
    });
    let moved = moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let after = load.drive(time)?;
    load.drain()?;
    if filling.is_small() {
        compare_copies(proxy.admin)?;
    }
    Ok(Grown {
        before: before.into(),
        during: during?.into(),
        after: after.into(),
        copied_s: moved.copied_s,
        settled_s: moved.settled_s,
        moves: moved.moves,
        ideal_moves: moved.ideal_moves,
        bytes: moved.bytes,
        ideal_bytes: filled.bytes() as f64 * moved.ideal_moves / PARTITIONS,
        longest_hold_us: admin::metric(proxy.admin, "ringfence_longest_hold_microseconds")?,
    })
}

/// Makes the change, and waits until all is where it should be.
fn change(case: Case, nodes: &mut [Process], proxy: SocketAddr) -> Result<Moved> {
    let moves = || admin::metric(proxy, "ringfence_moves_total");
    let bytes = || admin::metric(proxy, "ringfence_moved_bytes_total");
    let (moves_before, bytes_before) = (moves()?, bytes()?);
    let began = Instant::now();
    let ideal_moves = match case.change {
        Change::Added => {
            let node = nodes.get(3).context("no fourth node")?;
            let body = json!({"name": "node-3", "address": node.address.to_string()});
            let answer = admin::post(proxy, "/v1/nodes", &body)?;
            admin::number(&answer, "/plan/ideal_moves")
        }
        Change::Emptied => {
            let node = nodes.get_mut(2).context("no third node")?;
            node.kill();
            wait_until(|| Ok(!all_in_sync(proxy)?))?;
            node.start_again()?;
            PARTITIONS
        }
    };
    let mut copied = None;
    wait_until(|| {
        let is_moved = all_in_sync(proxy)? && all_placed(&admin::get(proxy, "/v1/ring")?);
        if is_moved {
            copied.get_or_insert_with(Instant::now);
        }
        let is_settled = admin::get(proxy, "/v1/ring")?.pointer("/state") == Some(&json!("settled"));
        Ok(is_moved && is_settled)
    })?;
    Ok(Moved {
        copied_s: copied.map_or(0.0, |at| at.duration_since(began).as_secs_f64()),
        settled_s: began.elapsed().as_secs_f64(),
        moves: moves()? - moves_before,
        ideal_moves,
        bytes: bytes()? - bytes_before,
    })
}

fn all_in_sync(proxy: SocketAddr) -> Result<bool> {
    let document = admin::get(proxy, "/v1/nodes")?;
    let nodes = document.as_array().context("/v1/nodes is no list")?;
    Ok(nodes
        .iter()
        .all(|node| node.pointer("/state") == Some(&json!("in_sync"))))
}

/// Whether every node holds what it should, and nothing else.
fn all_placed(ring: &Value) -> bool {
    let nodes = ring.pointer("/nodes").and_then(Value::as_array);
    nodes.is_some_and(|nodes| {
        nodes
            .iter()
            .all(|node| node.pointer("/holds") == node.pointer("/wanted"))
    })
}

fn compare_copies(proxy: SocketAddr) -> Result<()> {
    // As fast as it can.
    admin::post(proxy, "/v1/verify", &json!({"keys_per_s": 10_000_000}))?;
    let mut report = Value::Null;
    wait_until(|| {
        report = admin::get(proxy, "/v1/verify")?;
        Ok(report.pointer("/state") != Some(&json!("running")))
    })?;
    if report.pointer("/state") != Some(&json!("done")) || admin::number(&report, "/different") > 0.0 {
        bail!("copies differ: {report}");
    }
    Ok(())
}

fn wait_until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + CHANGED_WITHIN;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("not within {CHANGED_WITHIN:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// All cases of all rounds.
#[derive(Default)]
pub(crate) struct Growths {
    entries: Vec<(Case, Grown)>,
    /// What failed, and why.
    pub(crate) failures: Vec<String>,
}

impl Growths {
    /// Every case once in each round; tells of each on standard error.
    pub(crate) fn run(
        cases: &[Case],
        rounds: usize,
        filling: &Filling,
        time: Duration,
        programs: &Programs,
        scratch: &Path,
    ) -> Result<Growths> {
        let mut growths = Growths::default();
        for round in 1..=rounds {
            for &case in cases {
                let began = Instant::now();
                match measure(case, filling, time, programs, scratch) {
                    Ok(grown) => {
                        writeln!(stderr(), "{grown:.0?}")?;
                        growths.entries.push((case, grown));
                    }
                    Err(error) => growths.failures.push(format!("{}: {error:#}", case.title())),
                }
                let (title, elapsed) = (case.title(), began.elapsed());
                writeln!(stderr(), "{title}, round {round} of {rounds}: {elapsed:.0?}")?;
            }
        }
        Ok(growths)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Those that were measured.
    pub(crate) fn cases(&self) -> impl Iterator<Item = Case> {
        let is_measured = |case: &Case| self.entries.iter().any(|(of, _)| of == case);
        CASES.into_iter().filter(is_measured)
    }

    /// One figure of one case over all rounds.
    pub(crate) fn spread(&self, case: Case, figure: impl Fn(&Grown) -> f64) -> Option<Spread> {
        let of_case = self.entries.iter().filter(|(of, _)| *of == case);
        Spread::of(of_case.map(|(_, grown)| figure(grown)).collect())
    }
}
