//! One measurement: one contender under one shape of load, for some two seconds.
//!
//! Around the clock: keys are filled before a `GET`, the processes have come to rest, the first moments are not
//! counted. Afterwards every server must hold exactly what was sent (a proxy that loses or repeats writes is not
//! fast), and the lists are emptied through the contender's own address, so that memory stays bounded.

use crate::contender::Contender;
use crate::load::{Load, Spec};
use crate::tape::{Command, KEYS, LISTS, Tape};
use crate::usage::{cpu_ns, resident_bytes};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The payload that one cell may leave on one server; a faster cell ends before its time.
const GROWTH_BYTES_MAX: u64 = 1 << 30;
const AT_REST_WITHIN: Duration = Duration::from_secs(2);
const COPIES_WITHIN: Duration = Duration::from_secs(5);
/// Housekeeping goes in small batches, so that no server is busy for long with one of them.
const HOUSEKEEPING_PIPELINE: usize = 10;

/// A shape of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) command: Command,
    pub(crate) payload_bytes: usize,
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
}

/// How long a cell is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    pub(crate) commands_max: u64,
}

/// What a cell came to.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) commands_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU per command of the proxy (if there is one) and of all servers together.
    pub(crate) proxy_cpu_us: Option<f64>,
    pub(crate) server_cpu_us: f64,
    pub(crate) proxy_resident_bytes: Option<f64>,
    /// Share of one core that the load generator itself used: near 1 it is what was measured.
    pub(crate) generator_busy: f64,
}

/// Measures one cell and leaves the contender as it was.
pub(crate) fn measure(contender: &Contender, shape: Shape, length: Length) -> Result<Sample> {
    if shape.command == Command::Get {
        fill(contender, shape.payload_bytes).context("filling the keys")?;
    }
    come_to_rest(contender)?;
    let sample = run(contender, shape, length);
    if shape.command == Command::Lpush {
        let emptied = housekeeping(contender, &Tape::emptying()).context("emptying the lists");
        if sample.is_ok() {
            emptied?;
        }
    }
    sample
}

fn run(contender: &Contender, shape: Shape, length: Length) -> Result<Sample> {
    let wait_copies = contender.kind.wait_copies(shape.command);
    let tape = Tape::of(shape.command, shape.payload_bytes, shape.pipeline, wait_copies);
    let growth_max = match shape.command {
        Command::Lpush => GROWTH_BYTES_MAX / shape.payload_bytes.max(1) as u64,
        Command::Set | Command::Get => u64::MAX,
    };
    let mut load = Load::open(Spec {
        tape: &tape,
        clients: (0..shape.clients)
            .map(|number| contender.targets(number, shape.command))
            .collect(),
        quorum: contender.quorum(shape.command),
        pipeline: shape.pipeline,
        wait_copies,
        commands_max: length.commands_max.min(growth_max),
    })?;
    let (proxy, servers, generator) = (
        contender.proxy_pids(),
        contender.server_pids(),
        [std::process::id()],
    );
    load.drive(length.warm_up)?;
    let before = [cpu_ns(&proxy)?, cpu_ns(&servers)?, cpu_ns(&generator)?];
    let stretch = load.drive(length.time)?;
    let after = [cpu_ns(&proxy)?, cpu_ns(&servers)?, cpu_ns(&generator)?];
    let proxy_resident_bytes = proxy.first().map(|pid| resident_bytes(*pid)).transpose()?;
    load.drain()?;
    if shape.command == Command::Lpush {
        check_copies(contender, load.issued())?;
    }
    if stretch.commands == 0 {
        bail!("no command was acknowledged in {:?}", stretch.elapsed);
    }
    let commands = stretch.commands as f64;
    let [proxy_ns, server_ns, generator_ns] =
        std::array::from_fn(|of| (after.get(of).unwrap_or(&0) - before.get(of).unwrap_or(&0)) as f64);
    Ok(Sample {
        commands_per_s: commands / stretch.elapsed.as_secs_f64(),
        p50_us: stretch.p50_us,
        p99_us: stretch.p99_us,
        proxy_cpu_us: contender.proxies.last().map(|_| proxy_ns / 1000.0 / commands),
        server_cpu_us: server_ns / 1000.0 / commands,
        proxy_resident_bytes: proxy_resident_bytes.map(|bytes| bytes as f64),
        generator_busy: generator_ns / stretch.elapsed.as_nanos() as f64,
    })
}

/// Every key once, on every server.
fn fill(contender: &Contender, payload_bytes: usize) -> Result<()> {
    let tape = Tape::of(Command::Set, payload_bytes, HOUSEKEEPING_PIPELINE, None);
    once(&tape, contender.targets(0, Command::Set), KEYS as u64).map(drop)
}

fn housekeeping(contender: &Contender, tape: &Tape) -> Result<()> {
    once(tape, contender.targets(0, Command::Lpush), LISTS as u64).map(drop)
}

/// Sends each request of a tape once and returns the sum of the integers that came back.
pub(crate) fn once(tape: &Tape, targets: Vec<SocketAddr>, commands: u64) -> Result<i64> {
    let mut load = Load::open(Spec {
        tape,
        quorum: targets.len(),
        clients: vec![targets],
        pipeline: HOUSEKEEPING_PIPELINE,
        wait_copies: None,
        commands_max: commands,
    })?;
    load.drive(Duration::from_secs(60))?;
    load.drain()?;
    Ok(load.sum())
}

/// Every server holds every push; the slowest may need a moment.
fn check_copies(contender: &Contender, pushed: u64) -> Result<()> {
    let deadline = Instant::now() + COPIES_WITHIN;
    let tape = Tape::lengths();
    for (number, server) in contender.servers.iter().enumerate() {
        loop {
            let found = once(&tape, vec![server.address], LISTS as u64)?;
            if u64::try_from(found) == Ok(pushed) {
                break;
            }
            if Instant::now() > deadline {
                bail!("server {number} holds {found} of {pushed} pushes");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Waits until the processes have worked off what the last cell left them.
fn come_to_rest(contender: &Contender) -> Result<()> {
    rest(&[contender.proxy_pids(), contender.server_pids()].concat())
}

/// Waits until these processes have worked off what is left.
pub(crate) fn rest(pids: &[u32]) -> Result<()> {
    let deadline = Instant::now() + AT_REST_WITHIN;
    let pause = Duration::from_millis(20);
    while Instant::now() < deadline {
        let before = cpu_ns(pids)?;
        std::thread::sleep(pause);
        if cpu_ns(pids)? - before < pause.as_nanos() as u64 / 20 {
            break;
        }
    }
    Ok(())
}
