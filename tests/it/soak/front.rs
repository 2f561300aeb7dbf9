//! What clients see of the pool: where it is at the moment, what may go wrong at the moment, and what did.
//!
//! Harm opens a [`Window`] before it is done and closes it when everything has healed. What a client is told is judged by the
//! windows that its command touched; so is how long it had to wait.

use crate::harness::{Endpoint, wait_until};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shorter pauses are not looked at closer.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// What is done to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node is killed and comes back, with its data or without.
    Death,
    /// A node is stopped for a while.
    Hang,
    /// A link is cut, swallows bytes, or is slow.
    Link,
    /// Nodes come, go, or get another share.
    Ring,
    /// The sidecar is killed, or another one takes over: all connections end.
    Sidecar,
    /// It is another one that takes over: the first may see its nodes go before it sees why.
    TakeOver,
    /// Too few nodes are left on purpose: commands may be refused, or their outcome be unknown.
    Quorum,
    /// A huge value changes all the time.
    Huge,
    /// A database that nobody uses is emptied.
    Flush,
}

#[derive(Debug)]
struct Window {
    kind: Kind,
    from: Instant,
    to: Option<Instant>,
}

impl Window {
    fn touches(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

/// How long somebody waited for one command, the tries that were refused or cut off with it.
#[derive(Clone, Debug)]
pub struct Pause {
    pub took: Duration,
    /// When it began, after the start.
    pub at: Duration,
    pub who: String,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ms ({}, at {:.1} s)",
            self.took.as_millis(),
            self.who,
            self.at.as_secs_f64()
        )
    }
}

#[derive(Debug)]
pub struct Front {
    began: Instant,
    stop: AtomicBool,
    /// Whether the huge value is to be worked on.
    pub huge: AtomicBool,
    endpoints: Mutex<Vec<Endpoint>>,
    connected: AtomicUsize,
    windows: Mutex<Vec<Window>>,
    violations: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
    /// By what was going on.
    pauses: Mutex<BTreeMap<Vec<Kind>, Pause>>,
    pub acknowledged: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Front {
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            huge: AtomicBool::new(false),
            endpoints: Mutex::new(endpoints),
            connected: AtomicUsize::new(0),
            windows: Mutex::default(),
            violations: Mutex::default(),
            events: Mutex::default(),
            pauses: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// One after the other.
    pub fn endpoint(&self) -> Endpoint {
        let at = self.connected.fetch_add(1, Ordering::Relaxed);
        let endpoints = lock(&self.endpoints);
        endpoints[at % endpoints.len()].clone()
    }

    /// The pool is served elsewhere from now on.
    pub fn move_to(&self, endpoint: Endpoint) {
        *lock(&self.endpoints) = vec![endpoint];
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub fn open(&self, kind: Kind) {
        let window = Window {
            kind,
            from: Instant::now(),
            to: None,
        };
        lock(&self.windows).push(window);
    }

    pub fn close(&self, kind: Kind) {
        let now = Instant::now();
        for window in lock(&self.windows).iter_mut() {
            if window.kind == kind {
                window.to.get_or_insert(now);
            }
        }
    }

    /// Whether such a thing was going on at some time between then and now.
    pub fn had(&self, kind: Kind, since: Instant) -> bool {
        let now = Instant::now();
        let windows = lock(&self.windows);
        windows
            .iter()
            .any(|window| window.kind == kind && window.touches(since, now))
    }

    fn kinds_since(&self, since: Instant) -> Vec<Kind> {
        let now = Instant::now();
        let windows = lock(&self.windows);
        let touched = windows.iter().filter(|window| window.touches(since, now));
        let mut kinds: Vec<Kind> = touched.map(|window| window.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn clock(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Something that must not be.
    pub fn violation(&self, what: &str) {
        let line = format!("{:8.3} s: {what}", self.clock());
        eprintln!("VIOLATION {line}");
        lock(&self.violations).push(line);
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// For the account of the run.
    pub fn event(&self, what: &str) {
        let line = format!("{:8.3} s: {what}", self.clock());
        eprintln!("{line}");
        lock(&self.events).push(line);
    }

    pub fn events(&self) -> Vec<String> {
        lock(&self.events).clone()
    }

    /// Somebody's command was answered; it wanted that since then.
    pub fn note_pause(&self, who: &str, since: Instant) {
        let took = since.elapsed();
        if took < PAUSE_MIN {
            return;
        }
        let pause = Pause {
            took,
            at: since.duration_since(self.began),
            who: who.to_owned(),
        };
        let mut pauses = lock(&self.pauses);
        let longest = pauses
            .entry(self.kinds_since(since))
            .or_insert_with(|| pause.clone());
        if longest.took < took {
            *longest = pause;
        }
    }

    /// The longest pauses, by what was going on.
    pub fn pauses(&self) -> BTreeMap<Vec<Kind>, Pause> {
        lock(&self.pauses).clone()
    }

    /// Waits until clients got something done since this call.
    #[track_caller]
    pub fn wait_progress(&self) {
        let done = || self.acknowledged.load(Ordering::Relaxed);
        let before = done();
        wait_until("clients get work done", Duration::from_secs(20), || {
            done() > before + 100
        });
    }
}
