//! Producers, consumers, a counter and a register, which work until they are told to stop, whatever breaks.
//!
//! A client is told one of three things: done (a reply), not done (an error), unknown (the connection went away). What
//! it does then is what a careful application does: after an error it tries again, after an unknown outcome it
//! sometimes tries again and sometimes goes on.

use super::history::{History, Message, Sent};
use crate::cmd;
use crate::harness::{Client, Endpoint, Reply, Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const QUEUES: usize = 2;
const PRODUCERS_PER_QUEUE: usize = 2;

/// What all workers share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    histories: Mutex<Vec<History>>,
    /// First words of the errors seen.
    errors: Mutex<BTreeSet<String>>,
    violations: Mutex<Vec<String>>,
    acknowledged: AtomicU64,
    /// The register's last acknowledged and last attempted value.
    register_acknowledged: AtomicU64,
    register_attempted: AtomicU64,
    /// Longest time between two acknowledged writes of a client.
    longest_gap_ms: AtomicU64,
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What it saw.
#[derive(Debug)]
pub struct Outcome {
    pub histories: Vec<History>,
    pub errors: BTreeSet<String>,
    pub violations: Vec<String>,
    pub acknowledged: u64,
    pub longest_gap: Duration,
}

fn queue(at: usize) -> String {
    format!("queue-{at}")
}

/// A client that connects again when it has to.
struct Worker {
    to: Endpoint,
    client: Option<Client>,
    shared: Arc<Shared>,
    last_success: Instant,
}

/// What a client was told.
enum Told {
    Done(Reply),
    NotDone,
    Unknown,
}

impl Worker {
    fn new(to: &Endpoint, shared: &Arc<Shared>) -> Self {
        Self {
            to: to.clone(),
            client: None,
            shared: Arc::clone(shared),
            last_success: Instant::now(),
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Sends it once. `None` if it was told to stop before it could send.
    fn call(&mut self, command: &[Vec<u8>]) -> Option<Told> {
        const RETRY: Duration = Duration::from_millis(3);
        let client = loop {
            if self.stopped() {
                return None;
            }
            match self
                .client
                .take()
                .map_or_else(|| Client::try_connect(&self.to), Ok)
            {
                Ok(client) => break self.client.insert(client),
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        let answer = client.try_call(command);
        Some(match answer {
            Ok(Reply::Error(text)) => {
                let word = text.split(' ').next().unwrap_or_default().to_owned();
                self.shared.errors.lock().expect("errors").insert(word);
                std::thread::sleep(RETRY);
                Told::NotDone
            }
            Ok(reply) => {
                let gap = self.last_success.elapsed().as_millis() as u64;
                self.shared.longest_gap_ms.fetch_max(gap, Ordering::Relaxed);
                self.last_success = Instant::now();
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                Told::Done(reply)
            }
            Err(e) => {
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                    self.violation(format!(
                        "no answer and no hang-up for too long: {:?}",
                        command.first()
                    ));
                }
                self.client = None;
                Told::Unknown
            }
        })
    }

    fn violation(&self, what: String) {
        self.shared.violations.lock().expect("violations").push(what);
    }

    fn produce(mut self, queue_at: usize, producer: usize, mut rng: Rng) {
        let mut sent: BTreeMap<Message, Sent> = BTreeMap::new();
        let mut counter = 0;
        while !self.stopped() {
            counter += 1;
            let message = Message { producer, counter };
            let mut known = Sent::default();
            while let Some(told) = self.call(&cmd!["RPUSH", queue(queue_at), message.to_string()]) {
                match told {
                    Told::Done(Reply::Int(length)) if length > 0 => known.acknowledged = true,
                    Told::Done(other) => self.violation(format!("RPUSH answered {other}")),
                    Told::NotDone => continue,
                    Told::Unknown => {
                        known.unknown += 1;
                        if rng.chance(50) {
                            continue;
                        }
                    }
                }
                break;
            }
            sent.insert(message, known);
        }
        self.shared.histories.lock().expect("histories")[queue_at]
            .sent
            .extend(sent);
    }

    fn consume(mut self, queue_at: usize) {
        let mut received = Vec::new();
        let mut unknown = 0;
        while let Some(told) = self.call(&cmd!["LPOP", queue(queue_at)]) {
            match told {
                Told::Done(reply) if reply.is_nil() => std::thread::sleep(Duration::from_millis(1)),
                Told::Done(reply) => match reply.text().as_deref().and_then(Message::parse) {
                    Some(message) => received.push(message),
                    None => self.violation(format!("LPOP answered {reply}")),
                },
                Told::NotDone => {}
                Told::Unknown => unknown += 1,
            }
        }
        let mut histories = self.shared.histories.lock().expect("histories");
        histories[queue_at].received = received;
        histories[queue_at].unknown_pops = unknown;
    }

    /// `INCR`: every acknowledged value is new and larger than the one before.
    fn count(mut self) {
        let (mut last, mut acknowledged, mut unknown) = (0, 0, 0);
        while let Some(told) = self.call(&cmd!["INCR", "counter"]) {
            match told {
                Told::Done(Reply::Int(value)) => {
                    acknowledged += 1;
                    if value <= last || value < acknowledged || value > acknowledged + unknown {
                        self.violation(format!(
                            "INCR answered {value} after {last}, {acknowledged} done, {unknown} unknown"
                        ));
                    }
                    last = value;
                }
                Told::Done(other) => self.violation(format!("INCR answered {other}")),
                Told::NotDone => {}
                Told::Unknown => unknown += 1,
            }
        }
    }

    fn write_register(mut self) {
        for value in 1.. {
            self.shared.register_attempted.store(value, Ordering::SeqCst);
            match self.call(&cmd!["SET", "register", value]) {
                None => return,
                Some(Told::Done(reply)) if reply.is_ok() => {
                    self.shared.register_acknowledged.store(value, Ordering::SeqCst)
                }
                Some(Told::Done(other)) => self.violation(format!("SET answered {other}")),
                Some(Told::NotDone | Told::Unknown) => {}
            }
        }
    }

    /// A read sees every write acknowledged before it began, and never less than the read before it.
    fn read_register(mut self) {
        let mut seen = 0;
        loop {
            let acknowledged = self.shared.register_acknowledged.load(Ordering::SeqCst);
            let Some(told) = self.call(&cmd!["GET", "register"]) else {
                return;
            };
            let Told::Done(reply) = told else { continue };
            let value: u64 = reply.text().and_then(|text| text.parse().ok()).unwrap_or(0);
            let attempted = self.shared.register_attempted.load(Ordering::SeqCst);
            if value < acknowledged || value < seen || value > attempted {
                self.violation(format!(
                    "stale or invented read: {value}, acknowledged before {acknowledged}, seen before {seen}, attempted {attempted}"
                ));
            }
            seen = value;
        }
    }
}

impl Workload {
    pub fn start(to: &Endpoint, seed: u64) -> Self {
        Self::start_at(std::slice::from_ref(to), seed)
    }

    /// Each worker has one of the endpoints.
    pub fn start_at(endpoints: &[Endpoint], seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        *shared.histories.lock().expect("histories") = vec![History::default(); QUEUES];
        let mut workload = Self {
            shared,
            threads: Vec::new(),
        };
        for at in 0..QUEUES {
            for producer in 0..PRODUCERS_PER_QUEUE {
                let producer = at * PRODUCERS_PER_QUEUE + producer;
                let rng = Rng::new(seed ^ producer as u64);
                workload.spawn(endpoints, move |worker| worker.produce(at, producer, rng));
            }
            workload.spawn(endpoints, move |worker| worker.consume(at));
        }
        workload.spawn(endpoints, Worker::count);
        workload.spawn(endpoints, Worker::write_register);
        workload.spawn(endpoints, Worker::read_register);
        workload.spawn(endpoints, Worker::read_register);
        workload
    }

    fn spawn(&mut self, endpoints: &[Endpoint], work: impl FnOnce(Worker) + Send + 'static) {
        let to = &endpoints[self.threads.len() % endpoints.len()];
        let worker = Worker::new(to, &self.shared);
        self.threads.push(std::thread::spawn(move || work(worker)));
    }

    /// Commands answered without an error so far, by all workers.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops all workers and drains the queues through `drain`.
    pub fn finish(mut self, drain: &Endpoint) -> Outcome {
        self.stop();
        let mut histories = std::mem::take(&mut *self.shared.histories.lock().expect("histories"));
        let mut client = Client::connect(drain);
        for (at, history) in histories.iter_mut().enumerate() {
            loop {
                let reply = client.call(cmd!["LPOP", queue(at), 500]);
                if reply.is_nil() {
                    break;
                }
                assert!(reply.error().is_none(), "cannot drain {}: {reply}", queue(at));
                let texts = reply.items().into_iter().filter_map(|item| item.text());
                history
                    .received
                    .extend(texts.map(|text| Message::parse(&text).expect("a message")));
            }
        }
        let violations = std::mem::take(&mut *self.shared.violations.lock().expect("violations"));
        Outcome {
            histories,
            errors: self.shared.errors.lock().expect("errors").clone(),
            violations,
            acknowledged: self.shared.acknowledged.load(Ordering::Relaxed),
            longest_gap: Duration::from_millis(self.shared.longest_gap_ms.load(Ordering::Relaxed)),
        }
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("a worker's thread");
            }
        }
    }
}

impl Drop for Workload {
    /// When a test fails before `finish`: no thread goes on against servers that are gone.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Outcome {
    /// Fails the test with everything that must not be.
    #[track_caller]
    pub fn check(&self, seed: u64) {
        let mut wrong = self.violations.clone();
        for (at, history) in self.histories.iter().enumerate() {
            wrong.extend(
                history
                    .violations()
                    .into_iter()
                    .map(|line| format!("{}: {line}", queue(at))),
            );
        }
        wrong.truncate(20);
        assert!(
            wrong.is_empty(),
            "SEED={seed}: {} commands done; errors seen {:?}\n{}",
            self.acknowledged,
            self.errors,
            wrong.join("\n")
        );
    }
}

/// The workload itself must accept a plain Redis, also one that crashes, and catch one that forgets.
mod checks_that_it {
    use super::*;
    use crate::harness::{Node, NodeOptions, wait_until};

    /// Harms a plain Redis under load again and again until `enough`, at least three times.
    fn run(harm: impl Fn(&Node), enough: impl Fn(&[String]) -> bool) -> Outcome {
        let node = Node::start(
            "plain",
            NodeOptions {
                fsync: "always",
                ..NodeOptions::default()
            },
        );
        let workload = Workload::start(&node.endpoint(), 1);
        for times in 0..40 {
            if times >= 3 && enough(&workload.shared.violations.lock().unwrap()) {
                break;
            }
            let before = workload.acknowledged();
            wait_until("some work", Duration::from_secs(10), || {
                workload.acknowledged() > before + 500
            });
            harm(&node);
        }
        workload.finish(&node.endpoint())
    }

    fn is_said(what: &str, by: &[String]) -> bool {
        by.iter().any(|line| line.contains(what))
    }

    #[test]
    fn accepts_a_plain_redis_that_crashes_and_returns() {
        run(Node::restart, |_| true).check(1);
    }

    /// A read is stale only if it comes before the first write to the empty server, which is not so each time.
    #[test]
    fn catches_a_server_that_forgets() {
        let outcome = run(Node::restart_empty, |seen| {
            is_said("stale", seen) && is_said("INCR", seen)
        });
        let wrong: Vec<String> = outcome.histories.iter().flat_map(History::violations).collect();
        assert!(is_said("lost", &wrong), "loss not seen: {wrong:?}");
        assert!(is_said("stale", &outcome.violations), "{:?}", outcome.violations);
        assert!(is_said("INCR", &outcome.violations), "{:?}", outcome.violations);
    }
}
