//! What the clients send, made before the clock starts.
//!
//! The load generator shares two cores with what it measures, so it must not build requests while it runs. A tape is
//! a run of ready requests, all of one length and in a shuffled order of keys, that every client reads as a ring from
//! a place of its own: what a connection has still to send is a slice of the tape, and nothing is ever copied.
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

/// A ring of ready requests of one length.
pub(crate) struct Tape {
    bytes: Vec<u8>,
    request_bytes: usize,
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
        let mut bytes = Vec::new();
        let mut request_bytes = 0;
        for (place, number) in numbers.iter().enumerate() {
            write(&mut bytes, *number);
            if let Some(args) = then {
                request(&mut bytes, args);
            }
            if place == 0 {
                request_bytes = bytes.len();
                bytes.reserve(request_bytes * numbers.len());
            }
        }
        debug_assert_eq!(
            bytes.len(),
            request_bytes * numbers.len(),
            "all requests of a tape have one length"
        );
        Tape {
            bytes,
            request_bytes,
            replies: if then.is_some() { 2 } else { 1 },
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.bytes.len() / self.request_bytes
    }

    pub(crate) fn request_bytes(&self) -> u64 {
        self.request_bytes as u64
    }

    /// What stands on the ring from byte `from` to byte `to` (both counted from `start`, in requests), up to its end.
    pub(crate) fn slice(&self, start: usize, from: u64, to: u64) -> &[u8] {
        let ring = self.bytes.len() as u64;
        let begin = (start as u64 * self.request_bytes() + from) % ring;
        let end = (begin + (to - from)).min(ring);
        self.bytes.get(begin as usize..end as usize).unwrap_or_default()
    }
}

fn key(number: usize) -> String {
    format!("bench:key:{:08}", number % KEYS)
}

fn list(number: usize) -> String {
    format!("bench:list:{:08}", number % LISTS)
}

fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// 0..n in an order that is the same in every run, so that contenders are given the same work.
fn shuffled(n: usize) -> Vec<usize> {
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
