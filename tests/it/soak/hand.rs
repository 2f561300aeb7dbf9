//! A client that works: it connects again when it has to, takes a rest between two commands, and knows what it was told.

use super::front::{Front, Kind};
use crate::harness::{Client, Reply, Rng, printable};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Before a command that was refused, or a connection that was not possible, is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// What a client was told.
#[derive(Debug)]
pub enum Told {
    Done(Reply),
    /// An error: nothing was done.
    Refused,
    /// The connection went away.
    Unknown,
}

impl Told {
    pub fn done(self) -> Option<Reply> {
        match self {
            Self::Done(reply) => Some(reply),
            Self::Refused | Self::Unknown => None,
        }
    }
}

#[derive(Debug)]
struct Connection {
    client: Client,
    since: Instant,
}

#[derive(Debug)]
pub struct Hand {
    pub name: String,
    pub rng: Rng,
    pub front: Arc<Front>,
    connection: Option<Connection>,
    /// Since when it has wanted what it has not got yet.
    wants_since: Option<Instant>,
}

impl Hand {
    pub fn new(name: &str, front: &Arc<Front>, rng: Rng) -> Self {
        Self {
            name: name.to_owned(),
            rng,
            front: Arc::clone(front),
            connection: None,
            wants_since: None,
        }
    }

    pub fn goes_on(&self) -> bool {
        !self.front.is_stopped()
    }

    pub fn rest(&mut self, low_ms: i64, high_ms: i64) {
        std::thread::sleep(Duration::from_millis(self.rng.between(low_ms, high_ms) as u64));
    }

    pub fn violation(&self, what: &str) {
        self.front.violation(&format!("{}: {what}", self.name));
    }

    /// As a crash: what is on its way is not waited for.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Its connection, a new one if it has none. `None` if it was told to stop before there was one.
    pub fn connected(&mut self) -> Option<&mut Client> {
        let began = Instant::now();
        let mut complained = false;
        while self.connection.is_none() {
            if !self.goes_on() {
                return None;
            }
            match Client::try_connect(&self.front.endpoint()) {
                Ok(client) => {
                    self.connection = Some(Connection {
                        client,
                        since: Instant::now(),
                    });
                }
                Err(error) => {
                    if !complained && !self.front.had(Kind::Sidecar, began) {
                        self.violation(&format!("cannot connect: {error}"));
                        complained = true;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
        self.connection.as_mut().map(|connection| &mut connection.client)
    }

    /// Sends it once. `None` if it was told to stop before it could send.
    pub fn call(&mut self, command: &[Vec<u8>]) -> Option<Told> {
        self.wants_since.get_or_insert_with(Instant::now);
        let told = self.send(command)?;
        if matches!(told, Told::Done(_)) {
            self.has_got_it();
        }
        Some(told)
    }

    /// The same for a command that may wait for data: how long that takes says nothing.
    pub fn wait(&mut self, command: &[Vec<u8>]) -> Option<Told> {
        self.send(command)
    }

    fn send(&mut self, command: &[Vec<u8>]) -> Option<Told> {
        let client = self.connected()?;
        let sent = Instant::now();
        let answer = client.try_call(command);
        Some(match answer {
            Ok(Reply::Error(text)) => self.refused(&text, command, sent),
            Ok(reply) => {
                self.front.acknowledged.fetch_add(1, Ordering::Relaxed);
                Told::Done(reply)
            }
            Err(error) => self.cut_off(&error, command, sent),
        })
    }

    /// `MULTI`, these commands, `EXEC`, in one go: what `EXEC` was answered.
    pub fn transaction(&mut self, commands: &[Vec<Vec<u8>>]) -> Option<Told> {
        self.wants_since.get_or_insert_with(Instant::now);
        let client = self.connected()?;
        let sent = Instant::now();
        let all: Vec<Vec<Vec<u8>>> = std::iter::once(crate::cmd!["MULTI"])
            .chain(commands.iter().cloned())
            .chain(std::iter::once(crate::cmd!["EXEC"]))
            .collect();
        let answers = client.pipeline(&all);
        Some(match answers {
            Ok(replies) => match replies.iter().find_map(Reply::error) {
                Some(text) => self.refused(text, &crate::cmd!["EXEC"], sent),
                None => {
                    self.front.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.has_got_it();
                    Told::Done(replies.last().cloned().expect("EXEC has a reply"))
                }
            },
            Err(error) => self.cut_off(&error, &crate::cmd!["EXEC"], sent),
        })
    }

    fn has_got_it(&mut self) {
        if let Some(since) = self.wants_since.take() {
            self.front.note_pause(&self.name, since);
        }
    }

    fn refused(&self, text: &str, command: &[Vec<u8>], sent: Instant) -> Told {
        let word = text.split(' ').next().unwrap_or_default();
        let is_allowed = ["NOREPLICAS", "EXECABORT", "PARTIAL", "LOADING"].contains(&word)
            && (self.front.had(Kind::Quorum, sent) || self.front.had(Kind::TakeOver, sent));
        if !is_allowed {
            self.violation(&format!("{} was refused: {text}", shown(command)));
        }
        std::thread::sleep(RETRY);
        // A part of it was done.
        if word == "PARTIAL" {
            self.front.unknown.fetch_add(1, Ordering::Relaxed);
            return Told::Unknown;
        }
        self.front.refused.fetch_add(1, Ordering::Relaxed);
        Told::Refused
    }

    /// The connection ended: allowed when the sidecar did, at any time since it was made, or when quorums were taken away.
    pub fn cut_off(&mut self, error: &io::Error, command: &[Vec<u8>], sent: Instant) -> Told {
        self.front.unknown.fetch_add(1, Ordering::Relaxed);
        let connected = self.connection.take().map_or(sent, |connection| connection.since);
        let in_vain = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let is_allowed = self.front.had(Kind::Sidecar, connected) || self.front.had(Kind::Quorum, sent);
        if in_vain || !is_allowed {
            self.violation(&format!(
                "{} was not answered after {} ms: {error}",
                shown(command),
                sent.elapsed().as_millis()
            ));
        }
        Told::Unknown
    }
}

fn shown(command: &[Vec<u8>]) -> String {
    let few = command.get(..command.len().min(6)).unwrap_or_default();
    printable(&few.join(&b' '))
}

/// Everybody who works.
#[derive(Debug)]
pub struct Crew {
    pub front: Arc<Front>,
    seed: u64,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    pub fn new(front: &Arc<Front>, seed: u64) -> Self {
        Self {
            front: Arc::clone(front),
            seed,
            threads: Vec::new(),
        }
    }

    pub fn hire(&mut self, name: &str, work: impl FnOnce(Hand) + Send + 'static) {
        let rng = Rng::new(self.seed.wrapping_add(7919 * (self.threads.len() as u64 + 1)));
        let hand = Hand::new(name, &self.front, rng);
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads
            .push(thread.spawn(move || work(hand)).expect("a thread"));
    }

    /// Tells all to stop, and waits for them.
    pub fn dismiss(&mut self) {
        self.front.stop();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("a worker's thread");
            }
        }
    }
}

impl Drop for Crew {
    /// When a test fails: no thread goes on against servers that are gone.
    fn drop(&mut self) {
        self.dismiss();
    }
}
