//! Striped queues: what a driver's cycle of post, claim and delete costs beside one plain server, and whether a queue that is larger than
//! a node stays as fast as a small one.
//!
//! `cargo bench --bench striped` (some minutes; `-- --help` tells the options). Contenders take turns, figures are medians of rounds, and the
//! ratio is formed within a round. `cargo test --bench striped` runs everything once with few messages.

mod client;
mod servers;

use crate::client::Driver;
use crate::servers::Server;
use anyhow::Result;
use clap::Parser;
use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Messages that are posted, and claimed, at once.
const BATCH: usize = 10;
const PAGE: i64 = 20;

#[derive(Debug, Parser)]
#[command(name = "striped")]
struct Args {
    /// Clients, each with a queue of its own in the cycles, all with one in the large queue
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Rounds of cycles
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a round, for each contender
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Messages in the large queue, over 4 nodes
    #[arg(long, default_value_t = 2_000_000)]
    messages: usize,
    /// Copies of the large queue's messages
    #[arg(long, default_value_t = 2)]
    replicas: usize,
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
        (args.rounds, args.seconds, args.messages, args.clients) = (1, 0.2, 2_000, 2);
    }
    cycles(&args)?;
    large(&args)
}

/// Post, claim, delete: messages a second through whole cycles.
fn cycles(args: &Args) -> Result<()> {
    let plain = Server::plain()?;
    let pool = Server::pool(3, 3)?;
    let time = Duration::from_secs_f64(args.seconds);
    let mut rows = Vec::new();
    for round in 0..args.rounds {
        let mut rates = [0.0; 2];
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let address = if which == 0 { plain.address } else { pool.address };
            if let Some(rate) = rates.get_mut(which) {
                *rate = cycle_rate(address, args.clients, time)?;
            }
        }
        rows.push(rates);
    }
    let median_of = |figure: &dyn Fn(&[f64; 2]) -> f64| {
        let mut all: Vec<f64> = rows.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    writeln!(
        stdout(),
        "cycles of post, claim, delete ({} clients, {BATCH} messages at once): plain Redis {:.0} messages/s, ringfence R=3 {:.0}: {:.2}x",
        args.clients,
        median_of(&|[plain, _]| *plain),
        median_of(&|[_, pool]| *pool),
        median_of(&|[plain, pool]| pool / plain)
    )?;
    Ok(())
}

fn cycle_rate(address: SocketAddr, clients: usize, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let done = each_client(clients, |number| {
        let queue = format!("bench.q{number}");
        let mut driver = Driver::connect(address, seed(number))?;
        let mut done = 0;
        while began.elapsed() < time {
            driver.post(&queue, BATCH)?;
            let (ids, claim) = driver.claim(&queue, BATCH)?;
            for id in &ids {
                driver.delete(&queue, id, &claim)?;
            }
            done += ids.len() as u64;
        }
        Ok(done)
    })?;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// One queue grows over four nodes: what it costs to post to it, to read it page by page, and to take from its head, by its length.
fn large(args: &Args) -> Result<()> {
    let pool = Server::pool(4, args.replicas)?;
    let queue = "bench.large";
    writeln!(
        stdout(),
        "one queue over 4 nodes, R = {} ({} clients): messages/s",
        args.replicas,
        args.clients
    )?;
    writeln!(
        stdout(),
        "{:>10} {:>10} {:>10} {:>10}",
        "length",
        "post",
        "page",
        "drain"
    )?;
    let slice = (args.messages / 200).max(BATCH * args.clients);
    let mut length = 0;
    for percent in [1, 5, 25, 50, 100] {
        let target = args.messages * percent / 100;
        fill(&pool, queue, target.saturating_sub(length), args.clients)?;
        length = target.max(length);
        let post = fill(&pool, queue, slice, args.clients)?;
        let page = read(&pool, queue, slice, args.clients)?;
        let drain = drain(&pool, queue, slice, args.clients)?;
        writeln!(stdout(), "{length:>10} {post:>10.0} {page:>10.0} {drain:>10.0}")?;
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
