//! The load generator: many clients on one thread and one epoll.
//!
//! A client keeps one batch of `pipeline` commands in flight (a closed loop, as redis-benchmark does) and sends the
//! next one when the last is acknowledged. It has one connection, or one to each of three servers that it writes to
//! itself; then a command is acknowledged when `quorum` of them have answered it, and a slow server may lag behind.
//!
//! It must stay light, because it shares the cores with what it measures: a batch costs one write and (mostly) one
//! read, requests lie ready on a tape, replies are counted and not kept, nothing is registered with epoll twice.
//! Every command has a latency: from the write of its batch to the read that completed its reply.

use crate::reply::Replies;
use crate::tape::Tape;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const READ_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;
/// Connections of one client: at most one to each of three servers.
const TARGETS_MAX: usize = 3;
/// Commands that a client's slowest server may be behind its own others before the client waits for it.
const LAG_COMMANDS_MAX: u64 = 1024;
/// No reply at all for so long: the cell has failed.
const STALL: Duration = Duration::from_secs(10);
const LATENCY_US_MAX: u64 = 60_000_000;

/// What a load is made of.
pub(crate) struct Spec<'a> {
    pub(crate) tape: &'a Tape,
    /// For each client, the servers that it connects to.
    pub(crate) clients: Vec<Vec<SocketAddr>>,
    /// How many of a client's servers must answer before a command counts as acknowledged.
    pub(crate) quorum: usize,
    /// Commands in one batch.
    pub(crate) pipeline: usize,
    /// Replicas that each `WAIT` on the tape must have reached.
    pub(crate) wait_copies: Option<usize>,
    /// No more commands than this are sent, whatever the time.
    pub(crate) commands_max: u64,
}

/// What one stretch of a load came to.
pub(crate) struct Stretch {
    pub(crate) commands: u64,
    pub(crate) elapsed: Duration,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The longest that a command has waited for its reply.
    pub(crate) longest_us: f64,
}

struct Client {
    /// Its connections are `first .. first + targets`.
    first: usize,
    targets: usize,
    /// Where on the tape it begins, in requests.
    start: usize,
    issued: u64,
    acked: u64,
    sent_at: Instant,
}

struct Conn {
    stream: TcpStream,
    client: usize,
    bytes_written: u64,
    replies: Replies,
}

/// Clients that are connected and what they have done so far.
pub(crate) struct Load<'a> {
    spec: Spec<'a>,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    conns: Vec<Conn>,
    issuing: bool,
    issued: u64,
    acked: u64,
    progress_at: Instant,
    stretch_from: Instant,
    stretch_acked: u64,
    latencies_us: Histogram<u32>,
}

impl<'a> Load<'a> {
    /// Connects all clients; nothing is sent yet.
    pub(crate) fn open(spec: Spec<'a>) -> Result<Load<'a>> {
        let poll = Poll::new()?;
        let now = Instant::now();
        let mut clients = Vec::new();
        let mut conns = Vec::new();
        let batches = spec.tape.requests() / spec.pipeline;
        for (number, targets) in spec.clients.iter().enumerate() {
            let start = (number * batches / spec.clients.len()) * spec.pipeline;
            let first = conns.len();
            clients.push(Client {
                first,
                targets: targets.len(),
                start,
                issued: 0,
                acked: 0,
                sent_at: now,
            });
            for target in targets {
                let stream = std::net::TcpStream::connect(target)
                    .with_context(|| format!("connecting to {target}"))?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                // Edge-triggered, so the interest in writing costs nothing until a write was cut short.
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry()
                    .register(&mut stream, Token(conns.len()), interest)?;
                let replies = Replies::new(spec.wait_copies);
                conns.push(Conn {
                    stream,
                    client: number,
                    bytes_written: 0,
                    replies,
                });
            }
        }
        Ok(Load {
            spec,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            clients,
            conns,
            issuing: false,
            issued: 0,
            acked: 0,
            progress_at: now,
            stretch_from: now,
            stretch_acked: 0,
            latencies_us: Histogram::new_with_max(LATENCY_US_MAX, 3)?,
        })
    }

    /// Runs for so long, or until the last command that may be sent is acknowledged, and tells of this stretch alone.
    pub(crate) fn drive(&mut self, time: Duration) -> Result<Stretch> {
        self.drive_until(time, || false)
    }

    /// The same, or until `is_done` says so, which is asked all the time.
    pub(crate) fn drive_until(&mut self, time: Duration, is_done: impl Fn() -> bool) -> Result<Stretch> {
        self.stretch_from = Instant::now();
        self.stretch_acked = self.acked;
        self.progress_at = self.stretch_from;
        self.latencies_us.reset();
        self.issuing = true;
        for client in 0..self.clients.len() {
            self.issue(client, Instant::now())?;
        }
        let until = self.stretch_from + time;
        let mut now = self.stretch_from;
        while now < until && !is_done() && !(self.exhausted() && self.acked == self.issued) {
            now = self.turn(until)?;
        }
        Ok(Stretch {
            commands: self.acked - self.stretch_acked,
            elapsed: now - self.stretch_from,
            p50_us: self.latencies_us.value_at_quantile(0.5) as f64,
            p99_us: self.latencies_us.value_at_quantile(0.99) as f64,
            longest_us: self.latencies_us.max() as f64,
        })
    }

    /// Sends nothing more and waits until every server has answered everything it was sent.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.issuing = false;
        self.progress_at = Instant::now();
        while !self.drained() {
            self.turn(Instant::now() + STALL)?;
        }
        if let Some(failure) = self.conns.iter().find_map(|conn| conn.replies.failure.as_ref()) {
            let failed: u64 = self.conns.iter().map(|conn| conn.replies.failed).sum();
            bail!("{failed} commands failed, the first with: {failure}");
        }
        Ok(())
    }

    /// Commands sent so far.
    pub(crate) fn issued(&self) -> u64 {
        self.issued
    }

    /// Sum of all integer replies so far.
    pub(crate) fn sum(&self) -> i64 {
        self.conns.iter().map(|conn| conn.replies.sum).sum()
    }

    fn exhausted(&self) -> bool {
        self.issued + self.spec.pipeline as u64 > self.spec.commands_max
    }

    fn drained(&self) -> bool {
        let answered = |conn: &Conn| conn.replies.count / self.spec.tape.replies;
        self.conns.iter().all(|conn| {
            self.clients
                .get(conn.client)
                .is_some_and(|of| answered(conn) == of.issued)
        })
    }

    /// One round of epoll; returns the time after it.
    fn turn(&mut self, until: Instant) -> Result<Instant> {
        let timeout = until.saturating_duration_since(Instant::now()).min(STALL);
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(timeout));
        let result = match polled {
            Ok(()) => events.iter().try_for_each(|event| {
                if event.is_writable() {
                    self.send(event.token().0)?;
                }
                if event.is_readable() {
                    self.receive(event.token().0)
                } else {
                    Ok(())
                }
            }),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        };
        self.events = events;
        result?;
        let now = Instant::now();
        if now.duration_since(self.progress_at) > STALL {
            bail!(
                "no reply for {STALL:?}; {} of {} commands were acknowledged",
                self.acked,
                self.issued
            );
        }
        Ok(now)
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let Some(conn) = self.conns.get_mut(number) else {
            return Ok(());
        };
        loop {
            match conn.stream.read(&mut self.buffer) {
                Ok(0) => bail!("a server closed its connection to a client"),
                Ok(length) => {
                    conn.replies.feed(self.buffer.get(..length).unwrap_or_default())?;
                    // A short read has emptied the socket: whatever comes next is a new edge.
                    if length < self.buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading replies"),
            }
        }
        let client = conn.client;
        let now = Instant::now();
        self.progress_at = now;
        self.acknowledge(client, now);
        self.issue(client, now)
    }

    fn acknowledge(&mut self, number: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(number) else {
            return;
        };
        let mut answered = [0; TARGETS_MAX];
        let conns = self.conns.iter().skip(client.first).take(client.targets);
        for (slot, conn) in answered.iter_mut().zip(conns) {
            *slot = conn.replies.count / self.spec.tape.replies;
        }
        answered.sort_unstable_by(|a, b| b.cmp(a));
        let acked = answered.get(self.spec.quorum - 1).copied().unwrap_or(0);
        let new = acked - client.acked;
        if new > 0 {
            let latency_us = now.duration_since(client.sent_at).as_micros() as u64;
            self.latencies_us
                .saturating_record_n(latency_us, u32::try_from(new).unwrap_or(u32::MAX));
            client.acked = acked;
            self.acked += new;
        }
    }

    /// Sends the client's next batch if its last is acknowledged.
    fn issue(&mut self, number: usize, now: Instant) -> Result<()> {
        if !self.issuing || self.exhausted() {
            return Ok(());
        }
        let Some(client) = self.clients.get_mut(number) else {
            return Ok(());
        };
        let conns = client.first..client.first + client.targets;
        if client.acked < client.issued {
            return Ok(());
        }
        let slowest = self
            .conns
            .iter()
            .skip(client.first)
            .take(client.targets)
            .map(|conn| conn.replies.count)
            .min();
        if client.issued - slowest.unwrap_or(0) / self.spec.tape.replies >= LAG_COMMANDS_MAX {
            return Ok(());
        }
        client.issued += self.spec.pipeline as u64;
        client.sent_at = now;
        self.issued += self.spec.pipeline as u64;
        for conn in conns {
            self.send(conn)?;
        }
        Ok(())
    }

    /// Writes what the connection still owes its server, as far as the socket takes it.
    fn send(&mut self, number: usize) -> Result<()> {
        let Some(conn) = self.conns.get_mut(number) else {
            return Ok(());
        };
        let Some(client) = self.clients.get(conn.client) else {
            return Ok(());
        };
        let goal = self.spec.tape.bytes_of(client.start, client.issued);
        while conn.bytes_written < goal {
            match conn
                .stream
                .write(self.spec.tape.slice(client.start, conn.bytes_written, goal))
            {
                Ok(length) => conn.bytes_written += length as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending commands"),
            }
        }
        Ok(())
    }
}
