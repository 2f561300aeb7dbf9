//! Striped queues: what a driver's cycle of post, claim and delete costs beside one plain server, and whether a queue that is larger than
//! a node stays as fast as a small one.
//!
//! `cargo bench --bench striped` (some minutes; `-- --help` tells the options). Contenders take turns, figures are medians of rounds, and the
//! ratio is formed within a round. `cargo test --bench striped` runs everything once with few messages.

mod client;
mod cycles;
mod processor;
mod servers;
mod zaqar;

use crate::client::Driver;
use crate::cycles::cycles;
use crate::servers::Server;
use anyhow::Result;
use clap::Parser;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Messages that are posted, and claimed, at once.
const BATCH: usize = 10;
const PAGE: i64 = 20;

/// Messages of the large queue that a figure is measured with, at most.
const SLICE_MAX: usize = 10_000;

#[derive(Debug, Parser)]
#[command(name = "striped")]
struct Args {
    /// Clients of the cycles, each with a queue of its own: one measurement for each number
    #[arg(long, default_value = "8,50", value_delimiter = ',')]
    clients: Vec<usize>,
    /// Clients of the large queue
    #[arg(long, default_value_t = 8)]
    large_clients: usize,
    /// Processes with Zaqar's own driver, each with a queue of its own; 0: it takes no part
    #[arg(long, default_value_t = 4)]
    zaqar: usize,
    /// Rounds of cycles; 0: there are none
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a round, for each contender
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// The part of a processor that each server has for itself in rounds of their own, and each of a sidecar's threads (needs root); 0: there
    /// are none
    #[arg(long, default_value_t = 0.2)]
    processor: f64,
    /// Messages in the large queue, over 4 nodes; 0: there is none
    #[arg(long, default_value_t = 2_000_000)]
    messages: usize,
    /// Copies of the large queue's messages
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// Another build of ringfence that takes part in the cycles (may be given several times)
    #[arg(long)]
    against: Vec<PathBuf>,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
    #[arg(hide = true)]
    filter: Option<String>,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args
        .filter
        .as_ref()
        .is_some_and(|filter| !"striped".contains(filter.as_str()))
    {
        return Ok(());
    }
    if args.test || !args.bench {
        (args.rounds, args.seconds, args.messages) = (1, 0.2, 2_000);
        (args.clients, args.zaqar, args.processor) = (vec![2], 1, 0.0);
        args.large_clients = 2;
    }
    if args.rounds > 0 {
        cycles(&args)?;
    }
    if args.messages > 0 {
        large(&args)?;
    }
    Ok(())
}

/// Does something to so many messages of a queue, with so many clients: messages a second.
type Act = fn(&Server, &str, usize, usize) -> Result<f64>;

/// Measurements of each figure of the large queue.
const TIMES: usize = 9;

/// One queue grows over four nodes: what it costs to post to it, to read it page by page, and to take from its head, by its length. Beside
/// it, in turns, the same is done to a queue that stays short: what others do to the machine meanwhile is the same for both.
fn large(args: &Args) -> Result<()> {
    let pool = Server::pool(4, args.replicas)?;
    pool.rewrite_nothing()?;
    let (queue, beside) = ("bench.large", "bench.short");
    let mut out = stdout();
    writeln!(
        out,
        "one queue over 4 nodes, R = {} ({} clients): messages/s, and of that beside it in a queue that stays short",
        args.replicas, args.large_clients
    )?;
    writeln!(
        out,
        "{:>10} {:>18} {:>18} {:>18}",
        "length", "post", "page", "drain"
    )?;
    let slice = (args.messages / 200).clamp(BATCH * args.large_clients, SLICE_MAX);
    let mut length = 0;
    for percent in [1, 5, 25, 50, 100] {
        let target = args.messages * percent / 100;
        fill(&pool, queue, target.saturating_sub(length), args.large_clients)?;
        length = target.max(length);
        write!(out, "{length:>10}")?;
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..TIMES {
            for (rates, act) in rates.iter_mut().zip([fill as Act, read, drain]) {
                let short = act(&pool, beside, slice, args.large_clients)?;
                let large = act(&pool, queue, slice, args.large_clients)?;
                rates.push((large, large / short));
            }
        }
        for rates in &mut rates {
            rates.sort_by(|(_, one), (_, other)| one.total_cmp(other));
            let (rate, ratio) = rates.get(TIMES / 2).copied().unwrap_or_default();
            write!(out, " {rate:>10.0} ({ratio:.2}x)")?;
        }
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

fn fill(pool: &Server, queue: &str, count: usize, clients: usize) -> Result<f64> {
    let began = Instant::now();
    let left = AtomicU64::new((count / BATCH) as u64);
    let posted = each_client(clients, |number| {
        let mut driver = Driver::connect(pool.address, seed(number))?;
        let mut posted = 0;
        while take_one(&left) {
            posted += driver.post(queue, BATCH)?.len() as u64;
        }
        Ok(posted)
    })?;
    Ok(posted as f64 / began.elapsed().as_secs_f64())
}

/// Each client walks from the head.
fn read(pool: &Server, queue: &str, count: usize, clients: usize) -> Result<f64> {
    let began = Instant::now();
    let read = each_client(clients, |number| {
        let mut driver = Driver::connect(pool.address, seed(number))?;
        let mut seen = 0;
        let mut last: Option<String> = None;
        while seen < (count / clients) as u64 {
            let page = driver.page(queue, last.as_deref(), PAGE)?;
            let Some(end) = page.last() else { break };
            seen += page.len() as u64;
            last = Some(end.clone());
        }
        Ok(seen)
    })?;
    Ok(read as f64 / began.elapsed().as_secs_f64())
}

fn drain(pool: &Server, queue: &str, count: usize, clients: usize) -> Result<f64> {
    let began = Instant::now();
    let left = AtomicU64::new((count / BATCH) as u64);
    let taken = each_client(clients, |number| {
        let mut driver = Driver::connect(pool.address, seed(number))?;
        let mut taken = 0;
        while take_one(&left) {
            let (ids, claim) = driver.claim(queue, BATCH)?;
            for id in &ids {
                driver.delete(queue, id, &claim)?;
            }
            taken += ids.len() as u64;
        }
        Ok(taken)
    })?;
    Ok(taken as f64 / began.elapsed().as_secs_f64())
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

/// Numbers that no two connections share.
fn seed(number: usize) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed) << 8 | number as u64
}

/// The sum of what the clients have done, each on a thread.
fn each_client(clients: usize, work: impl Fn(usize) -> Result<u64> + Sync) -> Result<u64> {
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..clients)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let ended = running.into_iter().map(|client| {
            client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.sum()
    })
}
