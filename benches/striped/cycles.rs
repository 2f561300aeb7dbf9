//! Cycles of post, claim and delete: how many messages a second go through them, beside one plain server, and what processors have to do
//! for each.
//!
//! Three times: all on the same processors, with clients that cost little, so that it is the servers that are measured, with few of them and
//! with more; the same where each server has its own part of the processors, as a pool's servers have their own machines; and with Zaqar's
//! own driver.

use crate::client::Driver;
use crate::servers::Server;
use crate::zaqar::Workers;
use crate::{Args, BATCH, each_client, seed};
use anyhow::Result;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

/// Who takes part.
struct Contender {
    name: String,
    server: Server,
    clients: Clients,
}

enum Clients {
    /// So many threads, which wait for so many replicas to have what they wrote.
    Light {
        count: usize,
        wait: usize,
    },
    Zaqar(Workers),
}

/// What one has done in one round.
#[derive(Clone, Copy, Default)]
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

/// Threads of a sidecar that has processors of its own: it needs more than one, as a plain server could not make use of them.
const OWN_THREADS: usize = 3;

pub(crate) fn cycles(args: &Args) -> Result<()> {
    for &clients in &args.clients {
        compete(args, &format!("{clients} clients"), light(args, clients)?)?;
        if args.processor > 0.0 {
            let title = format!(
                "{clients} clients, {} of a processor for each server",
                args.processor
            );
            match confined(args, clients) {
                Ok(contenders) => compete(args, &title, contenders)?,
                Err(why) => writeln!(stdout(), "{title}: left out, {why}")?,
            }
        }
    }
    if args.zaqar > 0 {
        let title = format!("{} processes with Zaqar's own driver", args.zaqar);
        compete(args, &title, zaqar(args)?)?;
    }
    Ok(())
}

/// All on the same processors.
fn light(args: &Args, clients: usize) -> Result<Vec<Contender>> {
    let mut contenders = vec![
        Contender::light(clients, "plain Redis", Server::plain()?),
        Contender::light(clients, "plain Redis, 2 replicas, WAIT 2", Server::replicated(2)?).waiting_for(2),
        Contender::light(clients, "ringfence R=1", Server::pool(1, 1)?),
        Contender::light(clients, "ringfence R=3", Server::pool(3, 3)?),
    ];
    for program in &args.against {
        let server = Server::pool_of(program.clone(), 3, 3, 1)?;
        contenders.push(Contender::light(
            clients,
            &format!("{} R=3", program.display()),
            server,
        ));
    }
    Ok(contenders)
}

/// The same where each server has a processor of its own, if a slow one, and a sidecar one for each thread.
fn confined(args: &Args, clients: usize) -> Result<Vec<Contender>> {
    let (one, threads) = (args.processor, OWN_THREADS);
    let pool = |nodes| -> Result<Server> {
        let server = Server::pool_of(Server::built(), nodes, nodes, threads)?;
        server.with_processors(threads as f64 * one, one)
    };
    let replicated = Server::replicated(2)?.with_processors(one, one)?;
    Ok(vec![
        Contender::light(
            clients,
            "plain Redis",
            Server::plain()?.with_processors(one, one)?,
        ),
        Contender::light(clients, "plain Redis, 2 replicas, WAIT 2", replicated).waiting_for(2),
        Contender::light(clients, "ringfence R=1", pool(1)?),
        Contender::light(clients, "ringfence R=3", pool(3)?),
    ])
}

fn zaqar(args: &Args) -> Result<Vec<Contender>> {
    let servers = [
        ("plain Redis", Server::plain()?),
        ("ringfence R=1", Server::pool(1, 1)?),
        ("ringfence R=3", Server::pool(3, 3)?),
    ];
    let contender = |(name, server): (&str, Server)| {
        Ok(Contender {
            name: name.to_owned(),
            clients: Clients::Zaqar(Workers::start(&server, args.zaqar)?),
            server,
        })
    };
    servers.into_iter().map(contender).collect()
}

impl Contender {
    fn light(clients: usize, name: &str, server: Server) -> Contender {
        Contender {
            name: name.to_owned(),
            server,
            clients: Clients::Light {
                count: clients,
                wait: 0,
            },
        }
    }

    /// Its clients wait until so many replicas have what they wrote.
    fn waiting_for(mut self, replicas: usize) -> Contender {
        if let Clients::Light { wait, .. } = &mut self.clients {
            *wait = replicas;
        }
        self
    }
}

/// Rounds in which all take turns, and what came of it.
fn compete(args: &Args, title: &str, mut contenders: Vec<Contender>) -> Result<()> {
    let time = Duration::from_secs_f64(args.seconds);
    let mut rounds: Vec<Vec<Figures>> = Vec::new();
    for round in 0..args.rounds {
        let mut figures = vec![Figures::default(); contenders.len()];
        for turn in 0..contenders.len() {
            let which = (round + turn) % contenders.len();
            if let (Some(place), Some(one)) = (figures.get_mut(which), contenders.get_mut(which)) {
                *place = measure(one, time)?;
            }
        }
        let first = figures.first().map_or(1.0, |first| first.rate);
        for one in &mut figures {
            one.ratio = one.rate / first;
        }
        rounds.push(figures);
    }
    let mut out = stdout();
    writeln!(
        out,
        "cycles of post, claim, delete ({title}, {BATCH} messages at once)\n{:32} {:>10} {:>6}   us of processors for a message: {:>6} {:>6} {:>7}",
        "", "messages/s", "ratio", "front", "behind", "clients"
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

fn measure(contender: &mut Contender, time: Duration) -> Result<Figures> {
    let (before, clients_before) = (contender.server.cpu()?, contender.clients.cpu()?);
    let began = Instant::now();
    let done = match &mut contender.clients {
        Clients::Light { count, wait } => go_round(&contender.server, *count, *wait, time)?,
        Clients::Zaqar(workers) => workers.work(time)?,
    } as f64;
    let seconds = began.elapsed().as_secs_f64();
    let (after, clients_after) = (contender.server.cpu()?, contender.clients.cpu()?);
    let us = |before: f64, after: f64| (after - before) * 1e6 / done;
    Ok(Figures {
        rate: done / seconds,
        ratio: 1.0,
        front_us: us(before.front, after.front),
        behind_us: us(before.behind, after.behind),
        clients_us: us(clients_before, clients_after),
    })
}

/// Messages that went through the cycles of so many clients.
fn go_round(server: &Server, clients: usize, wait: usize, time: Duration) -> Result<u64> {
    let began = Instant::now();
    each_client(clients, |number| {
        let queue = format!("bench.q{number}");
        let mut driver = Driver::connect(server.address, seed(number))?.waiting_for(wait);
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
    })
}

impl Clients {
    /// What they have used so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        match self {
            Clients::Light { .. } => own_cpu(),
            Clients::Zaqar(workers) => workers.cpu(),
        }
    }
}

fn own_cpu() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    Ok(times
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum())
}
