//! Cuts a failing program down to something a person can read: by halves, then command by command.

use super::run::{Mismatch, Program, Sides, Step, related, run};
use crate::cmd;
use crate::convergence::BOOKKEEPING_DB;
use crate::harness::{Client, Reply};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Empties both sides, so that a program always starts from nothing.
pub fn reset(sides: &Sides) {
    for side in [&sides.subject, &sides.reference] {
        let mut client = Client::connect(side);
        for db in 0..BOOKKEEPING_DB {
            assert!(client.call(cmd!["SELECT", db]).is_ok());
            let keys = client.call(cmd!["KEYS", "*"]);
            assert_eq!(keys.error(), None, "cannot start from an empty pool");
            for chunk in keys.items().chunks(500) {
                let names = chunk.iter().filter_map(Reply::bytes).map(<[u8]>::to_vec);
                let reply = client.call(cmd!["UNLINK"].into_iter().chain(names).collect());
                assert!(reply.int().is_some(), "cannot start from an empty pool: {reply}");
            }
        }
        assert!(client.call(cmd!["SCRIPT", "FLUSH"]).is_ok(), "SCRIPT FLUSH");
    }
}

fn attempt(sides: &Sides, resp3: bool, steps: &[Step]) -> Option<Mismatch> {
    reset(sides);
    run(
        sides,
        &Program {
            resp3,
            steps: steps.to_vec(),
        },
    )
    .err()
}

/// The smallest program found that still fails, with its mismatch; the related prefix if it fails only in context.
pub fn shrink(sides: &Sides, program: &Program, mismatch: &Mismatch) -> (Vec<Step>, Mismatch) {
    let end = Instant::now() + Duration::from_secs(20);
    let narrow = related(program, mismatch);
    let whole = program.steps[..=mismatch.step].to_vec();
    let start = [narrow.clone(), whole]
        .into_iter()
        .find_map(|steps| Some((attempt(sides, program.resp3, &steps)?, steps)));
    let Some((mut failure, mut steps)) = start else {
        return (narrow, mismatch.clone());
    };
    // A pipeline or a transaction is cut command by command too; a MULTI without its EXEC fails in ways of its own,
    // but in the same ones on both sides.
    let mut chunk = steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < steps.len() && Instant::now() < end {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + chunk).min(fewer.len()));
            match attempt(sides, program.resp3, &fewer) {
                Some(smaller) if smaller.command.name() == failure.command.name() => {
                    (steps, failure) = (fewer, smaller)
                }
                _ => at += chunk,
            }
        }
        if chunk == 1 {
            break;
        }
        chunk = chunk.div_ceil(2);
    }
    for at in (0..steps.len()).rev() {
        for inner in (0..steps[at].len()).rev() {
            if Instant::now() > end || steps[at].len() == 1 {
                break;
            }
            let mut fewer = steps.clone();
            fewer[at].remove(inner);
            if let Some(smaller) = attempt(sides, program.resp3, &fewer) {
                (steps, failure) = (fewer, smaller);
            }
        }
    }
    (steps, failure)
}

/// For the test's failure message.
pub fn report(seed: u64, resp3: bool, steps: &[Step], mismatch: &Mismatch) -> String {
    const SHOWN_MAX: usize = 60;
    let mut out = format!("replay with SEED={seed} PROGRAMS=1; the smallest program found:\n");
    if resp3 {
        out.push_str("  HELLO 3\n");
    }
    for step in steps.iter().skip(steps.len().saturating_sub(SHOWN_MAX)) {
        for (at, command) in step.iter().enumerate() {
            let _ = writeln!(out, "  {}{command}", if at == 0 { "" } else { "  | " });
        }
    }
    let _ = write!(out, "at: {}\n{}", mismatch.command, mismatch.what);
    out
}
