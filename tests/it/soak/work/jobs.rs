//! The reliable queue: a worker moves a job to a list of its own, does it, and removes it there. What a worker leaves when it crashes,
//! a reaper puts back. Every acknowledged job is done at least once, and more than once only where somebody crashed or an outcome
//! was unknown.

use super::{SharedLedger, Work, drain, lock, message_of, named, produce};
use crate::cmd;
use crate::faults::history::Message;
use crate::harness::{Client, Reply};
use crate::soak::hand::{Crew, Hand, Told};
use std::sync::{Arc, Mutex};

const WORKERS: usize = 2;

struct Jobs {
    queue: &'static str,
    ledger: SharedLedger,
    /// Lists of workers that have crashed.
    left: Arc<Mutex<Vec<String>>>,
}

/// With a `{hash tag}` as `queue` all of its lists are in one partition, without they are not.
pub(super) fn start(crew: &mut Crew, queue: &'static str) -> Box<dyn Work> {
    let jobs = Jobs {
        queue,
        ledger: SharedLedger::default(),
        left: Arc::default(),
    };
    let ledger = Arc::clone(&jobs.ledger);
    crew.hire(&format!("{queue} producer"), move |mut hand| {
        produce(&mut hand, &ledger, 1, 12, |job| {
            cmd!["LPUSH", queue, job.to_string()]
        });
    });
    for at in 0..WORKERS {
        let (ledger, left) = (Arc::clone(&jobs.ledger), Arc::clone(&jobs.left));
        crew.hire(&format!("{queue} worker {at}"), move |mut hand| {
            let mut taken = Vec::new();
            for life in 0.. {
                if !hand.goes_on() {
                    break;
                }
                let own = format!("{queue}:doing:{at}:{life}");
                work(&mut hand, queue, &own, &ledger, &mut taken);
                lock(&left).push(own);
            }
            lock(&ledger).taken.push(taken);
        });
    }
    let (ledger, left) = (Arc::clone(&jobs.ledger), Arc::clone(&jobs.left));
    crew.hire(&format!("{queue} reaper"), move |mut hand| {
        reap(&mut hand, queue, &ledger, &left)
    });
    Box::new(jobs)
}

/// One life of a worker: until it crashes, does not know what it has, or is told to stop.
fn work(hand: &mut Hand, queue: &str, own: &str, ledger: &SharedLedger, taken: &mut Vec<Message>) {
    while hand.goes_on() {
        let told = if hand.rng.chance(30) {
            hand.wait(&cmd!["BLMOVE", queue, own, "RIGHT", "LEFT", 0.2])
        } else {
            hand.call(&cmd!["LMOVE", queue, own, "RIGHT", "LEFT"])
        };
        let reply = match told {
            None => return,
            Some(Told::Done(reply)) => reply,
            Some(Told::Refused) => continue,
            Some(Told::Unknown) => {
                may_double(queue, ledger);
                return;
            }
        };
        if reply.is_nil() {
            hand.rest(2, 10);
            continue;
        }
        let Some(job) = message_of(hand, &reply) else {
            return;
        };
        taken.push(job);
        hand.rest(1, 8);
        if hand.rng.chance(2) {
            lock(ledger).excuse(job);
            hand.hang_up();
            return;
        }
        if !remove(hand, own, job) {
            lock(ledger).excuse(job);
            return;
        }
    }
}

/// A move between partitions that was cut short may have left its job in both places; within one it is whole.
fn may_double(queue: &str, ledger: &SharedLedger) {
    lock(ledger).doubled_max += u64::from(!queue.starts_with('{'));
}

/// Takes a job that is done off the worker's list. Whether that is certain.
fn remove(hand: &mut Hand, own: &str, job: Message) -> bool {
    let mut is_unsure = false;
    while let Some(told) = hand.call(&cmd!["LREM", own, 1, job.to_string()]) {
        match told {
            Told::Done(Reply::Int(1)) => return true,
            Told::Done(Reply::Int(0)) if is_unsure => return true,
            Told::Done(other) => {
                hand.violation(&format!("LREM {own} {job} was answered {other}"));
                return true;
            }
            Told::Refused => {}
            Told::Unknown => is_unsure = true,
        }
    }
    false
}

fn reap(hand: &mut Hand, queue: &str, ledger: &SharedLedger, left: &Mutex<Vec<String>>) {
    while hand.goes_on() {
        hand.rest(20, 60);
        // All of them, again and again: what a worker had sent when it crashed may be executed later.
        let lists = lock(left).clone();
        let first = lists.len().saturating_sub(4);
        for list in &lists[first..] {
            match hand.call(&cmd!["LMOVE", list, queue, "LEFT", "RIGHT"]) {
                Some(Told::Done(reply)) if !reply.is_nil() => drop(message_of(hand, &reply)),
                Some(Told::Unknown) => may_double(queue, ledger),
                _ => {}
            }
        }
    }
}

impl Work for Jobs {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let mut ledger = lock(&self.ledger);
        for list in std::iter::once(self.queue.to_owned()).chain(lock(&self.left).iter().cloned()) {
            let rest = drain(client, &list);
            ledger.taken.push(rest);
        }
        eprintln!(
            "  {}: {} jobs, {} crashes, {} moves unknown",
            self.queue,
            ledger.sent.len(),
            ledger.excused.len(),
            ledger.doubled_max
        );
        named(self.queue, ledger.violations())
    }
}
