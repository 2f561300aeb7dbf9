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
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Messages that are posted, and claimed, at once.
const BATCH: usize = 10;
const PAGE: i64 = 20;

/// Messages of the large queue that a figure is measured with, at most.
const SLICE_MAX: usize = 10_000;

#[derive(Debug, Parser)]
#[command(name = "striped")]
struct Args {
    /// Clients, each with a queue of its own in the cycles, all with one in the large queue
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Rounds of cycles; 0: there are none
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a round, for each contender
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
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
        (args.rounds, args.seconds, args.messages, args.clients) = (1, 0.2, 2_000, 2);
    }
    if args.rounds > 0 {
        cycles(&args)?;
    }
    if args.messages > 0 {
        large(&args)?;
    }
    Ok(())
}

/// Who takes part in the cycles.
struct Contender {
    name: String,
    server: Server,
    /// Replicas that its clients wait for.
    wait: usize,
}

/// What one has done in one round.
#[derive(Clone, Copy)]
struct Figures {
    /// Messages a second.
    rate: f64,
    /// The same as a part of what the first contender has done in this round.
    ratio: f64,
    /// Processor time for a message in us.
    front_us: f64,
    behind_us: f64,
    clients_us: f64,
}

/// Post, claim, delete: messages a second through whole cycles, and what processors had to do for each.
fn cycles(args: &Args) -> Result<()> {
    let contender = |name: &str, server, wait| Contender {
        name: name.to_owned(),
        server,
        wait,
    };
    let mut contenders = vec![
        contender("plain Redis", Server::plain()?, 0),
        contender("plain Redis, 2 replicas, WAIT 2", Server::replicated(2)?, 2),
        contender("ringfence R=1", Server::pool(1, 1)?, 0),
        contender("ringfence R=3", Server::pool(3, 3)?, 0),
    ];
    for program in &args.against {
        let name = format!("{} R=3", program.display());
        contenders.push(contender(&name, Server::pool_of(program.clone(), 3, 3)?, 0));
    }
    let time = Duration::from_secs_f64(args.seconds);
    let mut rounds: Vec<Vec<Figures>> = Vec::new();
    for round in 0..args.rounds {
        let mut figures = vec![None; contenders.len()];
        for turn in 0..contenders.len() {
            let which = (round + turn) % contenders.len();
            if let (Some(place), Some(one)) = (figures.get_mut(which), contenders.get(which)) {
                *place = Some(measure(one, args.clients, time)?);
            }
        }
        let mut figures: Vec<Figures> = figures.into_iter().flatten().collect();
        let first = figures.first().map_or(1.0, |first| first.rate);
        for one in &mut figures {
            one.ratio = one.rate / first;
        }
        rounds.push(figures);
    }
    let mut out = stdout();
    writeln!(
        out,
        "cycles of post, claim, delete ({} clients, {BATCH} messages at once)\n{:32} {:>10} {:>6}   us of processors for a message: {:>6} {:>6} {:>7}",
        args.clients, "", "messages/s", "ratio", "front", "behind", "clients"
    )?;
    for (which, contender) in contenders.iter().enumerate() {
        let median = |figure: fn(&Figures) -> f64| {
            let mut all: Vec<f64> = rounds
                .iter()
                .filter_map(|round| round.get(which))
                .map(figure)
                .collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(0.0)
        };
        writeln!(
            out,
            "{:32} {:>10.0} {:>5.2}x   {:>39.1} {:>6.1} {:>7.1}",
            contender.name,
            median(|one| one.rate),
            median(|one| one.ratio),
            median(|one| one.front_us),
            median(|one| one.behind_us),
            median(|one| one.clients_us),
        )?;
    }
    Ok(())
}

fn measure(contender: &Contender, clients: usize, time: Duration) -> Result<Figures> {
    let (before, own_before) = (contender.server.cpu()?, own_cpu()?);
    let began = Instant::now();
    let done = each_client(clients, |number| {
        let queue = format!("bench.q{number}");
        let mut driver = Driver::connect(contender.server.address, seed(number))?.waiting_for(contender.wait);
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
    })? as f64;
    let seconds = began.elapsed().as_secs_f64();
    let (after, own_after) = (contender.server.cpu()?, own_cpu()?);
    let us = |before: f64, after: f64| (after - before) * 1e6 / done;
    Ok(Figures {
        rate: done / seconds,
        ratio: 1.0,
        front_us: us(before.front, after.front),
        behind_us: us(before.behind, after.behind),
        clients_us: us(own_before, own_after),
    })
}

/// What the clients have used so far, in seconds.
fn own_cpu() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    Ok(times
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum())
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
        args.replicas, args.clients
    )?;
    writeln!(
        out,
        "{:>10} {:>18} {:>18} {:>18}",
        "length", "post", "page", "drain"
    )?;
    let slice = (args.messages / 200).clamp(BATCH * args.clients, SLICE_MAX);
    let mut length = 0;
    for percent in [1, 5, 25, 50, 100] {
        let target = args.messages * percent / 100;
        fill(&pool, queue, target.saturating_sub(length), args.clients)?;
        length = target.max(length);
        write!(out, "{length:>10}")?;
        let mut rates = [const { Vec::new() }; 3];
        for _ in 0..TIMES {
            for (rates, act) in rates.iter_mut().zip([fill as Act, read, drain]) {
                let short = act(&pool, beside, slice, args.clients)?;
                let large = act(&pool, queue, slice, args.clients)?;
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
