//! What the steps of a command's way through the proxy cost, without sockets: so that a change of one of them shows.
//!
//! Figures are a command each, also where many are handled together. `cargo bench --bench data_path -- scanner` measures
//! what has `scanner` in its name; `cargo test --bench data_path` runs everything once and checks that it does what it
//! is measured for.

#![allow(missing_docs, reason = "criterion's macros make functions without")]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that fails should stop"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringfence::account::Position;
use ringfence::command::compare::digest;
use ringfence::command::rewrite::{Form, PoolClock, deterministic};
use ringfence::command::{CommandTable, Compare, Downgrade};
use ringfence::request::{Action, Commands, HoldId, Outcome, ReplyTo, Request, Touched};
use ringfence::resp::downgrade::downgrade;
use ringfence::resp::{Args, CommandScanner, OutBuf, ReplyScanner, Scanned, Spans, encode};
use ringfence::ring::partition_of;
use ringfence::router::{Route, route};
use ringfence::sequencer::{Effect, PartitionStart, Sequencer, Settings};

/// As in production; the global allocator is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: &[u8] = b"queue:{orders}:17";
const PARTITIONS: u16 = 256;
const COMMAND_BYTES_MAX: usize = 64 << 20;

/// An `LPUSH` of `payload_bytes`.
fn lpush(payload_bytes: usize) -> Bytes {
    encode::command_frame(&[b"LPUSH", KEY, &vec![b'v'; payload_bytes]])
}

fn spans_of(frame: &[u8]) -> Spans {
    match CommandScanner::new(COMMAND_BYTES_MAX).scan(frame) {
        Ok(Scanned::Command { len, spans }) if len == frame.len() => spans,
        other => panic!("{other:?}"),
    }
}

fn command_scanner(c: &mut Criterion) {
    let mut group = c.benchmark_group("command_scanner");
    for (name, payload_bytes, commands) in [
        ("256B", 216, 1),
        ("256B_pipeline16", 216, 16),
        ("16KiB", 16384, 1),
    ] {
        let wire = lpush(payload_bytes).repeat(commands);
        let mut scanner = CommandScanner::new(COMMAND_BYTES_MAX);
        group.throughput(Throughput::Elements(commands as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut rest = &wire[..];
                while let Ok(Scanned::Command { len, spans }) = scanner.scan(black_box(rest)) {
                    black_box(spans);
                    rest = &rest[len..];
                }
                assert!(rest.is_empty());
            });
        });
    }
}

fn reply_scanner(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply_scanner");
    let list = [&b"*10\r\n"[..], &b"$16\r\n0123456789abcdef\r\n".repeat(10)].concat();
    let value = encode::bulk_frame(&[b'v'; 256]);
    for (name, reply) in [
        ("integer", &b":1234\r\n"[..]),
        ("bulk_256B", &value),
        ("list_of_10", &list),
    ] {
        let mut scanner = ReplyScanner::default();
        group.bench_function(name, |b| {
            b.iter(|| {
                let found = scanner.scan(black_box(reply), 1);
                assert!(matches!(found, Ok(Some((len, false))) if len == reply.len()));
            });
        });
    }
}

fn lookup_and_route(c: &mut Criterion) {
    let mut group = c.benchmark_group("router");
    let keyspace = ringfence::ring::Keyspace::plain(PARTITIONS);
    let table = CommandTable::builtin();
    let two: [&[u8]; 5] = [b"MSET", b"{q}a", b"1", b"{q}b", b"2"];
    for (name, frame) in [
        ("lookup_route_lpush", lpush(64)),
        ("lookup_route_mset", encode::command_frame(&two)),
    ] {
        let spans = spans_of(&frame);
        group.bench_function(name, |b| {
            b.iter(|| {
                let args = Args {
                    bytes: black_box(&frame),
                    spans: &spans,
                };
                let command = table.lookup(&args).unwrap();
                assert!(matches!(
                    route(command, &args, &keyspace),
                    Route::One { write: true, .. }
                ));
            });
        });
    }
    group.bench_function("keys_written_lpush", |b| {
        let frame = lpush(64);
        let spans = spans_of(&frame);
        let args = Args {
            bytes: &frame,
            spans: &spans,
        };
        let command = table.lookup(&args).unwrap();
        b.iter(|| {
            assert_eq!(
                command.keys_written(black_box(&args)).map(|keys| keys.len()),
                Ok(1)
            )
        });
    });
    group.bench_function("partition_of", |b| {
        b.iter(|| partition_of(black_box(KEY), PARTITIONS))
    });
}

fn forms(c: &mut Criterion) {
    let mut group = c.benchmark_group("forms");
    let table = CommandTable::builtin();
    let frame = encode::command_frame(&[b"SET", KEY, &[b'v'; 64], b"EX", b"60"]);
    let spans = spans_of(&frame);
    let args = Args {
        bytes: &frame,
        spans: &spans,
    };
    let rule = table.lookup(&args).unwrap().rewrite.unwrap();
    let mut clock = PoolClock {
        now_ms: 1_700_000_000_000,
        ..PoolClock::default()
    };
    group.bench_function("rewrite_set_ex", |b| {
        b.iter(|| {
            assert!(matches!(
                deterministic(rule, black_box(&args), &mut clock),
                Form::Rewritten(_)
            ))
        });
    });
    let value = encode::bulk_frame(&[b'v'; 256]);
    let set = [&b"~10\r\n"[..], &b"$16\r\n0123456789abcdef\r\n".repeat(10)].concat();
    group.bench_function("digest_integer", |b| {
        b.iter(|| digest(Compare::Exact, black_box(b":1234\r\n")))
    });
    group.bench_function("digest_bulk_256B", |b| {
        b.iter(|| digest(Compare::Exact, black_box(&value)))
    });
    group.bench_function("digest_set_of_10", |b| {
        b.iter(|| digest(Compare::Unordered, black_box(&set)))
    });
    let map = [&b"%10\r\n"[..], &b"$5\r\nfield\r\n,1.5\r\n".repeat(10)].concat();
    group.bench_function("downgrade_map_of_10", |b| {
        let mut out = BytesMut::with_capacity(1024);
        b.iter(|| {
            out.clear();
            downgrade(Downgrade::Generic, black_box(&map), &mut out).unwrap();
            assert_eq!(out.first(), Some(&b'*'));
        });
    });
}

/// A sequencer with `replicas` nodes that are all there, and what these answer.
struct Pool {
    sequencer: Sequencer,
    /// As a worker has them.
    outs: Vec<OutBuf>,
    /// To be received by each node.
    answer: Bytes,
    bufs: Vec<BytesMut>,
    requests: Vec<Request>,
}

impl Pool {
    fn new(replicas: u16, write_quorum: u32, pipeline: usize) -> Self {
        let settings = Settings {
            worker: 0,
            keyspace: ringfence::ring::Keyspace::plain(PARTITIONS),
            replicas: replicas.into(),
            write_quorum,
            min_in_sync: write_quorum,
            backlog_bytes: 64 << 20,
            batch_commands_max: 1024,
            batch_bytes_max: 1 << 20,
            question: ringfence::command::dump::Question::default(),
            bookkeeping_db: 15,
            read_any: true,
            linearizable: true,
            write_timeout_ms: 5000,
            node_timeout_ms: 1000,
            read_patience_ms: 30,
        };
        let start = |partition| PartitionStart {
            partition,
            position: Position::default(),
            since: 0,
            replicas: (0..replicas).collect(),
            in_sync: (1 << replicas) - 1,
        };
        let starts: Vec<_> = (0..PARTITIONS).map(start).collect();
        let mut sequencer = Sequencer::new(settings, replicas.into(), &starts);
        for node in 0..replicas {
            sequencer.link_up(node, &HashMap::new());
        }
        let frame = lpush(216);
        let key = spans_of(&frame)[1];
        // A batch is for few keys when one client pipelines, for many when many clients do; here sixteen.
        let requests = (0..pipeline)
            .map(|slot| Request {
                partition: (slot % 16) as u16,
                db: 0,
                under: HoldId::NONE,
                action: Action::Write(Commands {
                    touched: Touched::Keys([key].into_iter().collect()),
                    ..Commands::one(frame.clone())
                }),
                reply_to: ReplyTo {
                    worker: 0,
                    part: 0,
                    client: 0,
                    generation: 1,
                    slot: slot as u64,
                },
            })
            .collect();
        let mut pool = Self {
            sequencer,
            outs: (0..replicas).map(|_| OutBuf::default()).collect(),
            answer: Bytes::new(),
            bufs: (0..replicas).map(|_| BytesMut::new()).collect(),
            requests,
        };
        // The first batch after the link is up selects no database; the second one is like all others.
        for first in [true, false] {
            pool.answer = answer(replicas > 1, pipeline, first);
            pool.prepare_answers();
            pool.round();
        }
        pool
    }

    fn prepare_answers(&mut self) {
        for buf in &mut self.bufs {
            *buf = BytesMut::from(&self.answer[..]);
        }
    }

    /// What a flush does, then what follows when the nodes have answered.
    fn round(&mut self) {
        for request in &self.requests {
            self.sequencer.order(request.clone());
        }
        for (node, out) in self.outs.iter_mut().enumerate() {
            assert!(self.sequencer.next_batch(node as u16, out));
            assert!(
                out.write_with(|slices| Ok(slices.iter().map(|s| s.len()).sum()))
                    .unwrap()
            );
        }
        self.sequencer.end_round();
        for (node, buf) in self.bufs.iter_mut().enumerate() {
            assert_eq!(self.sequencer.receive(node as u16, buf), Ok(()));
        }
        let effects = self.sequencer.effects();
        assert_eq!(effects.len(), self.requests.len());
        assert!(matches!(
            effects.first(),
            Some(Effect::Complete(_, Outcome::Reply { .. }))
        ));
        effects.clear();
    }
}

/// A node's answer to a batch of `LPUSH`es, with the account of it or without.
fn answer(account: bool, commands: usize, first: bool) -> Bytes {
    let replies = b":1234\r\n".repeat(commands);
    if !account {
        return replies.into();
    }
    // Back from the account's database, the commands, there again, and two times HSET.
    let selected = usize::from(!first);
    let queued = selected + commands + 3;
    let mut out = BytesMut::from(&b"+OK\r\n"[..]);
    out.extend_from_slice(&b"+QUEUED\r\n".repeat(queued));
    encode::header(&mut out, b'*', queued);
    out.extend_from_slice(&b"+OK\r\n".repeat(selected));
    out.extend_from_slice(&replies);
    out.extend_from_slice(b"+OK\r\n:0\r\n:0\r\n");
    out.freeze()
}

fn sequencer(c: &mut Criterion) {
    let mut group = c.benchmark_group("sequencer");
    for (replicas, write_quorum) in [(1, 1), (3, 2)] {
        for pipeline in [1, 16, 256] {
            let mut pool = Pool::new(replicas, write_quorum, pipeline);
            group.throughput(Throughput::Elements(pipeline as u64));
            group.bench_function(format!("lpush_r{replicas}_batch{pipeline}"), |b| {
                b.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        pool.prepare_answers();
                        let begun = Instant::now();
                        pool.round();
                        time += begun.elapsed();
                    }
                    time
                });
            });
        }
    }
}

criterion_group!(
    benches,
    command_scanner,
    reply_scanner,
    lookup_and_route,
    forms,
    sequencer
);
criterion_main!(benches);
