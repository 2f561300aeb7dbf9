//! Each command against a sidecar that answers from a script: what it asks, what it prints, how it ends.

mod mock;
mod nodes;
mod reaching;
mod ring;
mod usage;
mod verify;

use std::time::Duration;

use clap::Parser;
use serde_json::Value;

use super::{Cli, Command, Pace, Screen, run};
use mock::Mock;

/// A watch that does not dawdle, and is patient beyond the length of any test.
fn pace() -> Pace {
    Pace {
        poll: Duration::from_millis(1),
        gone_max: Duration::from_secs(600),
        stalled_max: Duration::from_secs(600),
        quiet: Duration::from_secs(600),
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: u8,
    out: String,
    err: String,
}

/// Runs `words` against the admin port at `admin`.
fn run_at(admin: &str, words: &str, pace: &Pace) -> Ended {
    let line = format!("ringfence {words} --admin {admin}");
    let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
    let Command::Operate(operate) = cli.command else {
        panic!("{words} does not operate a sidecar");
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&operate, &mut Screen::new(&mut out, &mut err), pace);
    Ended {
        code,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

/// Runs a command that is to end well.
fn well(mock: &Mock, words: &str) -> String {
    let ended = run_at(mock.admin(), words, &pace());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{words}: {ended:?}");
    ended.out
}

/// A status of the moves: `changes` on top of one that is moving.
fn moves(changes: &Value) -> Value {
    merged(
        serde_json::json!({
            "state": "moving", "reason": null, "moves_total": 8, "moves_done": 3, "keys_copied": 12_345,
            "bytes_copied": 1_288_490_189_u64, "bytes_estimated": 3_328_599_655_u64, "bytes_per_s": 89_128_960, "eta_s": 83,
            "longest_hold_us": 850,
            "jobs": [{"from": "node1", "to": "node4", "partitions": 2, "keys": 700, "bytes": 73_400_320, "phase": "scan"}],
            "nodes": [{"name": "node1", "holds": 8, "wanted": 6}, {"name": "node4", "holds": 1, "wanted": 6}],
        }),
        changes,
    )
}

/// One that is settled.
fn settled() -> Value {
    moves(&serde_json::json!({
        "state": "settled", "moves_done": 8, "eta_s": null, "jobs": [], "bytes_copied": 3_328_599_655_u64,
        "nodes": [{"name": "node1", "holds": 6, "wanted": 6}, {"name": "node4", "holds": 6, "wanted": 6}],
    }))
}

fn merged(mut of: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        of[key] = value.clone();
    }
    of
}
