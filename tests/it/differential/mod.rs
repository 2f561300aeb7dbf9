//! Random programs of commands give the same replies on the pool as on one plain Redis, and leave the same data.

mod account;
mod command;
mod coverage;
mod data;
mod events;
mod generate;
mod keys;
mod odd;
mod run;
mod shrink;

use crate::cmd;
use crate::convergence::{BOOKKEEPING_DB, Place, Value, assert_converged, contents};
use crate::harness::{Endpoint, Node, NodeOptions, Pool, Sidecar, SidecarConfig, seed, setting};
use generate::{Shape, program};
use run::{Program, Sides, run};
use std::collections::BTreeMap;

/// The reference has as many databases as clients of the pool can reach.
fn reference() -> Node {
    Node::start(
        "reference",
        NodeOptions::default().with("databases", &BOOKKEEPING_DB.to_string()),
    )
}

/// Runs one program after the other, each from an empty pool, one client at a time.
fn one_client(sides: &Sides, flush: bool, after_each: &mut dyn FnMut(u64)) {
    let commands = setting("COMMANDS", 400);
    let first = seed();
    for at in 0..setting("PROGRAMS", 20) as u64 {
        let seed = first + at;
        let shape = Shape {
            client: 0,
            commands,
            resp3: seed.is_multiple_of(2),
            alone: true,
            flush,
        };
        let program = program(seed, shape);
        shrink::reset(sides);
        if let Err(mismatch) = run(sides, &program) {
            let (steps, mismatch) = shrink::shrink(sides, &program, &mismatch);
            panic!("{}", shrink::report(seed, program.resp3, &steps, &mismatch));
        }
        after_each(seed);
    }
}

/// Several clients at once, each on keys of its own.
fn many_clients(sides: &Sides, clients: usize) {
    let commands = setting("COMMANDS", 400);
    let seed = seed();
    shrink::reset(sides);
    let make = |client| {
        program(
            seed,
            Shape {
                client,
                commands,
                resp3: client % 2 == 1,
                alone: false,
                flush: false,
            },
        )
    };
    let programs: Vec<Program> = (0..clients).map(make).collect();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = programs
            .iter()
            .map(|program| scope.spawn(|| run(sides, program)))
            .collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().expect("a client's thread"));
        let failed = ended
            .zip(&programs)
            .filter_map(|(result, program)| result.err().map(|mismatch| (program, mismatch)));
        let shown = failed.map(|(program, mismatch)| {
            shrink::report(seed, program.resp3, &run::related(program, &mismatch), &mismatch)
        });
        shown.collect()
    });
    assert!(
        failures.is_empty(),
        "{clients} clients at once:\n{}",
        failures.join("\n\n")
    );
}

/// The pool holds what the reference holds: same keys, same digests, deadlines within the time a command takes.
fn assert_same_contents(seed: u64, pool: &BTreeMap<Place, Value>, reference: &BTreeMap<Place, Value>) {
    const DEADLINE_TOLERANCE_MS: i64 = 5_000;
    let keys = |all: &BTreeMap<Place, Value>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(pool),
        keys(reference),
        "SEED={seed}: the pool's keys (left) and the reference's differ"
    );
    for ((db, key), value) in pool {
        let expected = &reference[&(*db, key.clone())];
        let shown = String::from_utf8_lossy(key);
        let near = (value.expires_ms - expected.expires_ms).abs() <= DEADLINE_TOLERANCE_MS;
        assert!(
            near,
            "SEED={seed}: db {db} {shown}: deadlines differ: {value:?} and {expected:?}"
        );
        // Streams whose ids the servers choose hold different ids.
        if !shown.contains(":y") {
            let same = value.digest == expected.digest && value.stream == expected.stream;
            assert!(
                same,
                "SEED={seed}: db {db} {shown}: contents differ:\n  pool: {value:?}\n  reference: {expected:?}"
            );
        }
    }
}

fn against_the_pool(nodes: usize, replicas: usize, threads: usize) {
    let pool = Pool::start(nodes);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, replicas).threads(threads).patient());
    // Emptying a database at once is only offered with one thread.
    against(&pool, &sidecar, sidecar.endpoint(), threads == 1);
}

/// The pool that `sidecar` serves, by clients of `subject`.
fn against(pool: &Pool, sidecar: &Sidecar, subject: Endpoint, flush: bool) {
    let reference = reference();
    let sides = Sides {
        subject,
        reference: reference.endpoint(),
    };
    one_client(&sides, flush, &mut |seed| {
        let contents_of_pool = assert_converged(pool, sidecar);
        assert_same_contents(seed, &contents_of_pool, &contents(&mut reference.client()));
    });
    many_clients(&sides, 6);
    let contents_of_pool = assert_converged(pool, sidecar);
    assert_same_contents(seed(), &contents_of_pool, &contents(&mut reference.client()));
}

#[test]
fn three_copies_on_three_nodes() {
    against_the_pool(3, 3, 1);
}

#[test]
fn two_copies_on_four_nodes() {
    against_the_pool(4, 2, 1);
}

#[test]
fn one_copy_on_three_nodes() {
    against_the_pool(3, 1, 1);
}

#[test]
fn three_copies_and_two_threads() {
    against_the_pool(3, 3, 2);
}

#[test]
fn through_a_sidecar_that_stands_by() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).patient().standing_by();
    let (active, other) = (Sidecar::start(&config), Sidecar::start(&config));
    against(&pool, &active, other.endpoint(), true);
    assert!(active.serves());
}

/// The comparison itself must accept a second plain Redis, and catch a server that is only a little wrong.
mod checks_that_it {
    use super::*;

    /// Two commands of this server have each other's meaning.
    fn swapped(one: &str, other: &str) -> Node {
        let options = NodeOptions::default()
            .with("databases", &BOOKKEEPING_DB.to_string())
            .with("rename-command", &format!("{one} HIDDEN"))
            .with("rename-command", &format!("{other} {one}"))
            .with("rename-command", &format!("HIDDEN {other}"));
        Node::start("wrong", options)
    }

    #[test]
    fn accepts_a_second_plain_redis() {
        let (left, right) = (reference(), reference());
        let sides = Sides {
            subject: left.endpoint(),
            reference: right.endpoint(),
        };
        one_client(&sides, true, &mut |seed| {
            assert_same_contents(
                seed,
                &contents(&mut left.client()),
                &contents(&mut right.client()),
            );
        });
        many_clients(&sides, 6);
        assert_same_contents(
            seed(),
            &contents(&mut left.client()),
            &contents(&mut right.client()),
        );
    }

    #[test]
    fn catches_a_server_that_pushes_at_the_wrong_end_or_answers_another_nil() {
        for (one, other) in [
            ("LPUSH", "RPUSH"),
            ("GETEX", "GETDEL"),
            ("ZREVRANK", "ZRANK"),
            ("SINTER", "SUNION"),
        ] {
            let (wrong, right) = (swapped(one, other), reference());
            let sides = Sides {
                subject: wrong.endpoint(),
                reference: right.endpoint(),
            };
            let caught = (1..60).any(|seed| {
                let shape = Shape {
                    client: 0,
                    commands: 500,
                    resp3: false,
                    alone: true,
                    flush: true,
                };
                shrink::reset(&sides);
                run(&sides, &program(seed, shape)).is_err()
            });
            assert!(caught, "{one} and {other} swapped, and no difference seen");
        }
    }

    #[test]
    fn cuts_a_failing_program_down_to_the_commands_that_matter() {
        let (wrong, right) = (swapped("LPUSH", "RPUSH"), reference());
        let sides = Sides {
            subject: wrong.endpoint(),
            reference: right.endpoint(),
        };
        for seed in 1..20 {
            let shape = Shape {
                client: 0,
                commands: 500,
                resp3: false,
                alone: true,
                flush: true,
            };
            let program = program(seed, shape);
            shrink::reset(&sides);
            let Err(mismatch) = run(&sides, &program) else {
                continue;
            };
            let (steps, mismatch) = shrink::shrink(&sides, &program, &mismatch);
            let commands: usize = steps.iter().map(Vec::len).sum();
            assert!(
                commands <= 12,
                "{}",
                shrink::report(seed, false, &steps, &mismatch)
            );
            return;
        }
        panic!("no difference seen in 20 programs");
    }

    #[test]
    fn sees_other_data_behind_equal_replies() {
        let (left, right) = (reference(), reference());
        left.client().call(cmd!["SADD", "{t}:e1", "a"]);
        right.client().call(cmd!["SADD", "{t}:e1", "b"]);
        let (left, right) = (contents(&mut left.client()), contents(&mut right.client()));
        let differs = std::panic::catch_unwind(|| assert_same_contents(0, &left, &right));
        assert!(differs.is_err());
    }

    /// A generator whose commands all fail would agree with anything.
    #[test]
    fn has_programs_that_succeed_with_every_command_they_use() {
        let (left, right) = (reference(), reference());
        let sides = Sides {
            subject: left.endpoint(),
            reference: right.endpoint(),
        };
        for at in 0..30 {
            let shape = Shape {
                client: 0,
                commands: 500,
                resp3: at % 2 == 0,
                alone: true,
                flush: true,
            };
            shrink::reset(&sides);
            run(&sides, &program(at, shape)).expect("two plain servers agree");
        }
        let stats = right
            .client()
            .call(cmd!["INFO", "commandstats"])
            .text()
            .expect("INFO");
        let mut used = 0;
        for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
            let (name, numbers) = line.split_once(':').expect("name:numbers");
            let number = |wanted: &str| -> u64 {
                let found = numbers
                    .split(',')
                    .find_map(|part| part.strip_prefix(wanted)?.strip_prefix('='));
                found.and_then(|number| number.parse().ok()).expect("a number")
            };
            // A container such as XGROUP is only ever refused; its subcommands have lines of their own.
            if number("calls") == 0 {
                continue;
            }
            assert!(
                number("calls") > number("failed_calls"),
                "{name} never succeeds: {numbers}"
            );
            used += 1;
        }
        assert!(used > 140, "only {used} different commands");
    }
}
