//! Counts by command and by kind of error: what `INFO commandstats` and `errorstats` show.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Count, WorkerMetrics};

/// Kinds of errors that are told apart. A script can make up any number of them.
const ERROR_KINDS_MAX: usize = 128;

/// What one worker counts of one command.
#[derive(Debug, Default)]
pub struct CommandCounts {
    /// Taken up.
    pub calls: Count,
    /// From there to their replies, together, in microseconds.
    pub usec: Count,
    /// Answered with an error at once.
    pub rejected: Count,
    /// Answered with an error later.
    pub failed: Count,
}

/// How often each kind of error was answered.
#[derive(Debug, Default)]
pub struct ErrorCounts(Mutex<BTreeMap<String, u64>>);

impl ErrorCounts {
    /// Notes an error reply, `-KIND …`.
    pub fn note(&self, reply: &[u8]) {
        let kind = reply.split(|byte| matches!(byte, b' ' | b'\r' | b'\n')).next();
        let kind = String::from_utf8_lossy(kind.and_then(|k| k.get(1..)).unwrap_or_default()).into_owned();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() < ERROR_KINDS_MAX || kinds.contains_key(&kind) {
            *kinds.entry(kind).or_default() += 1;
        }
    }

    fn read(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all workers have counted together, at one time.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Of each command: calls, microseconds, rejected, failed.
    pub commands: Vec<[u64; 4]>,
    /// Of each kind of error.
    pub errors: BTreeMap<String, u64>,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Clients that have connected.
    pub connections: u64,
}

impl Totals {
    /// Adds the workers' counts up.
    pub fn of<'a>(workers: impl Iterator<Item = &'a WorkerMetrics>, connections: u64) -> Self {
        let mut all = Self {
            connections,
            ..Self::default()
        };
        for worker in workers {
            all.bytes_in += worker.bytes_in.get();
            all.bytes_out += worker.bytes_out.get();
            all.commands
                .resize(worker.by_command.len().max(all.commands.len()), [0; 4]);
            for (sum, counts) in all.commands.iter_mut().zip(&worker.by_command) {
                let counts = [&counts.calls, &counts.usec, &counts.rejected, &counts.failed];
                sum.iter_mut()
                    .zip(counts)
                    .for_each(|(sum, count)| *sum += count.get());
            }
            for (kind, count) in worker.by_error.read() {
                *all.errors.entry(kind).or_default() += count;
            }
        }
        all
    }

    /// What has been counted since `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (now, then) in self.commands.iter_mut().zip(&before.commands) {
            now.iter_mut()
                .zip(then)
                .for_each(|(now, then)| *now = now.saturating_sub(*then));
        }
        for (kind, count) in &mut self.errors {
            *count = count.saturating_sub(before.errors.get(kind).copied().unwrap_or_default());
        }
        self.errors.retain(|_, count| *count > 0);
        self.bytes_in = self.bytes_in.saturating_sub(before.bytes_in);
        self.bytes_out = self.bytes_out.saturating_sub(before.bytes_out);
        self.connections = self.connections.saturating_sub(before.connections);
        self
    }

    /// Commands that were executed.
    pub fn calls(&self) -> u64 {
        self.commands.iter().map(|[calls, ..]| calls).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_does_not_count() {
        let worker = WorkerMetrics::new(2);
        worker.by_command[1].calls.add(3);
        worker.by_error.note(b"-ERR one\r\n");
        let before = Totals::of([&worker, &worker].into_iter(), 5);
        assert_eq!((before.calls(), before.errors["ERR"]), (6, 2));
        worker.by_command[1].calls.add(1);
        worker.by_error.note(b"-WRONGTYPE\r\n");
        let now = Totals::of([&worker].into_iter(), 6).since(&Totals::of([&worker].into_iter(), 6));
        assert_eq!((now.calls(), now.errors.len()), (0, 0));
        let now = Totals::of([&worker, &worker].into_iter(), 6).since(&before);
        assert_eq!((now.calls(), now.errors.len(), now.connections), (2, 1, 1));
        assert_eq!(now.errors["WRONGTYPE"], 2);
    }

    #[test]
    fn nobody_can_make_up_kinds_for_ever() {
        let errors = ErrorCounts::default();
        for n in 0..1000 {
            errors.note(format!("-KIND{n} x\r\n").as_bytes());
        }
        errors.note(b"-KIND1 x\r\n");
        let read = errors.read();
        assert_eq!((read.len(), read["KIND1"]), (ERROR_KINDS_MAX, 2));
    }
}
