//! Commands on keys as such, whatever they hold: deleting, expiring, renaming, copying.

use super::command::{Chance, Cmd, Rule};
use super::data::many;
use super::generate::Gen;
use crate::cmd;

pub fn keys(g: &mut Gen) -> Cmd {
    let k = g.any_key();
    let c = Cmd::new;
    let kind = *g.rng.pick(&['s', 'l', 'e', 'h', 'z']);
    let pair = g.keys_together(kind, 2);
    match g.rng.below(40) {
        36 => c(cmd!["OBJECT", "REFCOUNT", k]).rule(Rule::SameKind),
        37 => c(cmd!["OBJECT", "IDLETIME", k]).rule(Rule::SameKind),
        38 => c(cmd!["OBJECT", "FREQ", k]),
        39 => c(cmd!["MEMORY", "USAGE", k, "SAMPLES", 5]).rule(Rule::SameKind),
        0..=3 => {
            let count = 1 + g.rng.below(5);
            let keys: Vec<String> = (0..count).map(|_| g.any_key()).collect();
            many(c(cmd![*g.rng.pick(&["DEL", "UNLINK"])]), keys)
        }
        4..=7 => {
            let count = 1 + g.rng.below(6);
            let keys: Vec<String> = (0..count).map(|_| g.any_key()).collect();
            many(c(cmd![*g.rng.pick(&["EXISTS", "TOUCH"])]), keys)
        }
        8..=9 => c(cmd!["TYPE", k]),
        10 => c(cmd![
            "EXPIRE",
            k,
            *g.rng.pick(&["800", "0", "-1", "x", "9223372036854775807"])
        ]),
        11 => c(cmd![
            "EXPIRE",
            k,
            900,
            *g.rng.pick(&["NX", "XX", "GT", "LT", "zz"])
        ]),
        12 => c(cmd!["PEXPIRE", k, 850_000]),
        13 => c(cmd!["EXPIREAT", k, *g.rng.pick(&["4000000000", "5", "-5"])]),
        14 => c(cmd!["PEXPIREAT", k, 4_000_000_000_000_i64]),
        15..=16 => c(cmd!["TTL", k]).rule(Rule::Near(3)),
        17..=18 => c(cmd!["PTTL", k]).rule(Rule::Near(3000)),
        19 => c(cmd!["EXPIRETIME", k]).rule(Rule::Near(3)),
        20 => c(cmd!["PEXPIRETIME", k]).rule(Rule::Near(3000)),
        21 => c(cmd!["PERSIST", k]),
        22..=23 => c(cmd!["RENAME", pair[0], pair[1]]),
        24 => c(cmd!["RENAMENX", pair[0], pair[1]]),
        25..=26 => c(cmd!["COPY", pair[0], pair[1]]),
        27 => c(cmd!["COPY", pair[0], pair[1], "REPLACE"]),
        28 => c(cmd![
            "COPY",
            pair[0],
            pair[1],
            "DB",
            *g.rng.pick(&["1", "9", "15", "x"])
        ]),
        29..=30 => c(cmd!["RENAME", pair[0], pair[0]]),
        31..=32 => c(cmd!["OBJECT", "ENCODING", k]).rule(Rule::Encoding),
        33 => c(cmd!["DUMP", pair[0], pair[1], 0]).rule(Rule::Chance(Chance::Copy)),
        34 => c(cmd!["DUMP", pair[0], pair[1], 500_000, "REPLACE"]).rule(Rule::Chance(Chance::Copy)),
        _ => c(cmd!["RESTORE", k, 0, "no payload"]),
    }
}
