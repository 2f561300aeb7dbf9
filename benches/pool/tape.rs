//! What the clients send, made before the clock starts.
//!
//! The load generator shares two cores with what it measures, so it must not build requests while it runs. A tape is
//! a run of ready requests in a shuffled order of keys, that every client reads as a ring from a place of its own: what
//! a connection has still to send is a slice of the tape, and nothing is ever copied.
//!
//! Invariant: the number of requests is a multiple of the pipeline, so that a batch never wraps around the end.

use clap::ValueEnum;

/// Keys that SET and GET are spread over.
pub(crate) const KEYS: usize = 10_000;
/// Lists that LPUSH is spread over.
pub(crate) const LISTS: usize = 100;
/// An LPUSH tape names each list more than once, so that many clients do not march through the lists in step.
const LIST_ROUNDS: usize = 16;
/// How long a primary may take to reach its replicas before `WAIT` gives up (and the cell fails).
const WAIT_MS_MAX: &str = "5000";

/// A command that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Command {
    /// `SET` over 10,000 keys.
    Set,
    /// `LPUSH` on 100 lists, which are emptied after each cell.
    Lpush,
    /// `GET` over 10,000 keys, which are filled before each cell.
    Get,
}

impl Command {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Command::Set => "SET",
            Command::Lpush => "LPUSH",
            Command::Get => "GET",
        }
    }

    pub(crate) fn writes(self) -> bool {
        self != Command::Get
    }
}

/// A ring of ready requests.
pub(crate) struct Tape {
    bytes: Vec<u8>,
    /// Where each request ends.
    ends: Vec<u64>,
    /// Replies the server gives to one request: 2 where a `WAIT` follows the write.
    pub(crate) replies: u64,
}

impl Tape {
    /// The requests of one measured cell. With `wait_copies`, each write is followed by a `WAIT` for that many.
    pub(crate) fn of(
        command: Command,
        payload_bytes: usize,
        pipeline: usize,
        wait_copies: Option<usize>,
    ) -> Tape {
        let payload = vec![b'x'; payload_bytes];
        let wait = wait_copies.map(|copies| copies.to_string());
        let wait = wait
            .as_deref()
            .map(|copies| [b"WAIT", copies.as_bytes(), WAIT_MS_MAX.as_bytes()]);
        let keys = match command {
            Command::Set | Command::Get => KEYS,
            Command::Lpush => LISTS * LIST_ROUNDS,
        };
        let order = shuffled(keys.next_multiple_of(pipeline));
        Tape::build(
            order,
            wait.as_ref().map(|args| args.as_slice()),
            |out, number| match command {
                Command::Set => request(out, &[b"SET", key(number).as_bytes(), &payload]),
                Command::Get => request(out, &[b"GET", key(number).as_bytes()]),
                Command::Lpush => request(out, &[b"LPUSH", list(number).as_bytes(), &payload]),
            },
        )
    }

    /// Each list once: how long is it?
    pub(crate) fn lengths() -> Tape {
        Tape::build((0..LISTS).collect(), None, |out, number| {
            request(out, &[b"LLEN", list(number).as_bytes()])
        })
    }

    /// Each list once: empty it.
    pub(crate) fn emptying() -> Tape {
        Tape::build((0..LISTS).collect(), None, |out, number| {
            request(out, &[b"DEL", list(number).as_bytes()])
        })
    }

    fn build(
        numbers: Vec<usize>,
        then: Option<&[&[u8]]>,
        mut write: impl FnMut(&mut Vec<u8>, usize),
    ) -> Tape {
        Tape::written(numbers.len(), if then.is_some() { 2 } else { 1 }, |out, place| {
            write(out, numbers.get(place).copied().unwrap_or(0));
            if let Some(args) = then {
                request(out, args);
            }
        })
    }

    /// `requests` of them, each as it is written for its place, with so many replies.
    pub(crate) fn written(requests: usize, replies: u64, mut write: impl FnMut(&mut Vec<u8>, usize)) -> Tape {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(requests);
        for place in 0..requests {
            write(&mut bytes, place);
            ends.push(bytes.len() as u64);
        }
        Tape { bytes, ends, replies }
    }

    pub(crate) fn requests(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes of so many requests, read from request `start` on.
    pub(crate) fn bytes_of(&self, start: usize, requests: u64) -> u64 {
        let until = start as u64 + requests;
        let ring = self.requests() as u64;
        until / ring * self.bytes() + self.begin_of((until % ring) as usize) - self.begin_of(start)
    }

    /// What stands on the ring from byte `from` to byte `to` (both counted from request `start`), up to its end.
    pub(crate) fn slice(&self, start: usize, from: u64, to: u64) -> &[u8] {
        let ring = self.bytes();
        let begin = (self.begin_of(start) + from) % ring;
        let end = (begin + (to - from)).min(ring);
        self.bytes.get(begin as usize..end as usize).unwrap_or_default()
    }

    fn begin_of(&self, request: usize) -> u64 {
        match request.checked_sub(1) {
            Some(last) => self.ends.get(last).copied().unwrap_or_default(),
            None => 0,
        }
    }
}

fn key(number: usize) -> String {
    format!("bench:key:{:08}", number % KEYS)
}

fn list(number: usize) -> String {
    format!("bench:list:{:08}", number % LISTS)
}

/// Writes one command.
pub(crate) fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// 0..n in an order that is the same in every run, so that contenders are given the same work.
pub(crate) fn shuffled(n: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..n).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for place in (1..n).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(place, (state % (place as u64 + 1)) as usize);
    }
    numbers
}
