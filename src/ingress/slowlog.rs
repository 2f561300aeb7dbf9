//! `SLOWLOG`: commands whose replies took longer than `limits.slowlog_slower_than`.
//!
//! What is measured is what the client waits for: from the time a command is taken up until its reply is released, so with
//! the nodes' acknowledgements and everything it had to wait behind. Only a slow command costs anything: its bytes are
//! still there, and only then are they looked at again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::answer::{integer, wrong_subcommand};
use super::client::Session;
use super::transaction::OK;
use crate::command::{Special, number};
use crate::resp::{Args, CommandScanner, Scanned, encode};
use crate::shared::unix_ms;

/// Arguments of a command that are kept, and bytes of each. Redis: `SLOWLOG_ENTRY_MAX_ARGC`, `SLOWLOG_ENTRY_MAX_STRING`.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

/// How many entries `SLOWLOG GET` shows unless told.
const SHOWN: usize = 10;

/// The slow commands of all threads, the latest first.
#[derive(Debug)]
pub struct SlowLog {
    slower_than_us: u64,
    entries_max: usize,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Entry>,
    next_id: i64,
}

#[derive(Debug)]
struct Entry {
    id: i64,
    unix_s: i64,
    took_us: u64,
    args: Vec<Bytes>,
    peer: String,
    name: Bytes,
}

impl SlowLog {
    /// One that keeps the last `entries_max` commands that took longer than `slower_than`.
    pub fn new(slower_than: Duration, entries_max: usize) -> Self {
        let slower_than_us = match entries_max {
            0 => u64::MAX,
            _ => slower_than.as_micros() as u64,
        };
        Self {
            slower_than_us,
            entries_max,
            log: Mutex::default(),
        }
    }

    /// Whether a command that took so long is to be kept.
    #[inline]
    pub fn is_slow(&self, took_us: u64) -> bool {
        took_us >= self.slower_than_us
    }

    /// Keeps a command.
    pub(super) fn keep(&self, frame: &Bytes, took_us: u64, session: &Session) {
        let Ok(Scanned::Command { spans, .. }) = CommandScanner::new(usize::MAX).scan(frame) else {
            return;
        };
        let args = shortened(&Args {
            bytes: frame,
            spans: &spans,
        });
        let mut log = self.lock();
        let entry = Entry {
            id: log.next_id,
            unix_s: (unix_ms() / 1000) as i64,
            took_us,
            args,
            peer: session.peer.clone(),
            name: session.name.clone(),
        };
        log.next_id += 1;
        log.entries.push_front(entry);
        log.entries.truncate(self.entries_max);
    }

    /// `SLOWLOG GET`, `LEN`, `RESET`.
    pub(super) fn command(&self, special: Special, args: &Args<'_>) -> Bytes {
        match special {
            Special::SlowlogLen => encode::integer(self.lock().entries.len() as i64),
            Special::SlowlogReset => {
                self.lock().entries.clear();
                OK
            }
            _ if args.len() > 3 => wrong_subcommand(args),
            _ => match args.get(2).map(number::integer) {
                None => self.get(SHOWN),
                Some(Some(-1)) => self.get(usize::MAX),
                Some(Some(count @ 0..)) => self.get(count as usize),
                _ => encode::error("ERR count should be greater than or equal to -1"),
            },
        }
    }

    fn get(&self, count: usize) -> Bytes {
        let log = self.lock();
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', log.entries.len().min(count));
        for entry in log.entries.iter().take(count) {
            encode::header(&mut out, b'*', 6);
            integer(&mut out, entry.id);
            integer(&mut out, entry.unix_s);
            integer(&mut out, entry.took_us as i64);
            encode::header(&mut out, b'*', entry.args.len());
            for arg in &entry.args {
                encode::bulk(&mut out, arg);
            }
            encode::bulk(&mut out, entry.peer.as_bytes());
            encode::bulk(&mut out, &entry.name);
        }
        out.freeze()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The arguments as they are kept: not all of many, not all of a long one.
fn shortened(args: &Args<'_>) -> Vec<Bytes> {
    let kept = match args.len() {
        many if many > ARGS_MAX => ARGS_MAX - 1,
        few => few,
    };
    let mut all: Vec<Bytes> = args
        .iter()
        .take(kept)
        .map(|arg| match arg.split_at_checked(ARG_BYTES_MAX) {
            Some((begin, rest)) if !rest.is_empty() => {
                let more = format!("... ({} more bytes)", rest.len());
                [begin, more.as_bytes()].concat().into()
            }
            _ => Bytes::copy_from_slice(arg),
        })
        .collect();
    if kept < args.len() {
        all.push(format!("... ({} more arguments)", args.len() - kept).into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testserver::{Sent, Server, words};

    /// What Redis itself keeps of the same commands.
    #[test]
    fn arguments_are_shortened_as_in_redis() {
        let server = Server::start();
        let mut client = server.client(2);
        let many = |count: usize| format!("DEL {}", vec!["k"; count].join(" "));
        let long = |bytes: usize| format!("SET k {}", "v".repeat(bytes));
        for command in [
            many(30),
            many(31),
            many(32),
            many(40),
            long(128),
            long(129),
            long(500),
        ] {
            client.line("CONFIG SET slowlog-log-slower-than 0");
            client.line("SLOWLOG RESET");
            client.line(&command);
            client.line("CONFIG SET slowlog-log-slower-than 1000000");
            let said = client.line("SLOWLOG GET 2");
            let command = words(&command);
            let sent = Sent::new(&command);
            let mut ours = BytesMut::new();
            let args = shortened(&sent.args());
            encode::header(&mut ours, b'*', args.len());
            args.iter().for_each(|arg| encode::bulk(&mut ours, arg));
            assert!(
                said.windows(ours.len()).any(|part| part == &ours[..]),
                "{:?} is not in {:?}",
                ours,
                Bytes::from(said)
            );
        }
    }

    #[test]
    fn the_oldest_entries_go() {
        let log = SlowLog::new(Duration::from_millis(1), 2);
        assert!(log.is_slow(1000) && !log.is_slow(999));
        for name in [b"one", b"two", b"six"] {
            log.keep(&encode::command_frame(&[name]), 2000, &Session::default());
        }
        let shown = String::from_utf8(log.get(10).to_vec()).unwrap();
        assert!(
            shown.starts_with("*2\r\n*6\r\n:2\r\n") && !shown.contains("one"),
            "{shown}"
        );
        assert!(!SlowLog::new(Duration::ZERO, 0).is_slow(u64::MAX - 1));
    }
}
