//! Streams: `x` keys take explicit ids and are compared in full, `y` keys take ids that the servers choose.

use super::command::{Cmd, Rule};
use super::generate::Gen;
use crate::cmd;

const GROUPS: [&str; 4] = ["g1", "g1", "g1", "g2"];
const CONSUMERS: [&str; 2] = ["alice", "bob"];

pub fn streams(g: &mut Gen) -> Cmd {
    if g.rng.chance(30) {
        chosen_ids(g)
    } else {
        explicit_ids(g)
    }
}

/// `XADD *`: never a target of commands of other types, as its ids differ on the two sides.
fn chosen_ids(g: &mut Gen) -> Cmd {
    let k = g.chosen_ids_key();
    let c = Cmd::new;
    match g.rng.below(10) {
        0..=3 => {
            let id = g.new_id(&k);
            c(cmd!["XADD", k, "*", g.member(), g.value()]).rule(Rule::NewId(id))
        }
        4 => {
            let id = g.new_id(&k);
            c(cmd!["XADD", k, "NOMKSTREAM", "MAXLEN", "=", 5, "*", "f", "v"]).rule(Rule::NewId(id))
        }
        5 => c(cmd!["XRANGE", k, "-", "+"]),
        6 => c(cmd!["XLEN", k]),
        7 => {
            let id = g.some_id(&k);
            c(cmd!["XDEL", k]).id(id)
        }
        8 => {
            let id = g.some_id(&k);
            c(cmd!["XREAD", "COUNT", 3, "STREAMS", k]).id(id)
        }
        _ => c(cmd!["XREVRANGE", k, "+", "-", "COUNT", 2]),
    }
}

fn explicit_ids(g: &mut Gen) -> Cmd {
    // Group, stream and entry must all meet for most of these to do anything: few keys.
    let k = if g.rng.chance(80) {
        format!("{}:x0", g.tag_among(2))
    } else {
        g.key('x')
    };
    let group = *g.rng.pick(&GROUPS);
    let who = *g.rng.pick(&CONSUMERS);
    let id = g.stream_id();
    let c = Cmd::new;
    match g.rng.below(39) {
        38 => c(cmd!["XINFO", "CONSUMERS", k, group]).rule(Rule::SameKind),
        0..=7 => c(cmd!["XADD", k, id, g.member(), g.value()]),
        8 => c(cmd!["XADD", k, "MAXLEN", 4, id, "f", "v", "f2", "v2"]),
        9 => c(cmd!["XADD", k, "NOMKSTREAM", id, "f", "v"]),
        10 => c(cmd!["XADD", k, id, "odd"]),
        11 => c(cmd!["XLEN", k]),
        12..=13 => c(cmd!["XRANGE", k, "-", "+", "COUNT", 5]),
        14 => c(cmd!["XREVRANGE", k, "+", "("]),
        15 => {
            let keys = g.keys_together('x', 2);
            c(cmd!["XREAD", "COUNT", 2, "STREAMS", keys[0], keys[1], "0", "5-0"])
        }
        16 => c(cmd!["XDEL", k, id]),
        17 => c(cmd!["XTRIM", k, "MAXLEN", g.rng.below(6)]),
        18 => c(cmd!["XTRIM", k, "MINID", id]),
        19 => c(cmd!["XSETID", k, "99999999-0"]),
        20..=21 => c(cmd![
            "XGROUP",
            "CREATE",
            k,
            group,
            *g.rng.pick(&["0", "$"]),
            "MKSTREAM"
        ]),
        22 => c(cmd!["XGROUP", "CREATECONSUMER", k, group, who]),
        23 => c(cmd!["XGROUP", *g.rng.pick(&["DESTROY", "NOSUCH"]), k, group]),
        24 => c(cmd!["XGROUP", "DELCONSUMER", k, group, who]),
        25 => c(cmd![
            "XGROUP",
            "SETID",
            k,
            group,
            *g.rng.pick(&["0", "$", "12-0"])
        ]),
        26..=28 => c(cmd![
            "XREADGROUP",
            "GROUP",
            group,
            who,
            "COUNT",
            2,
            "STREAMS",
            k,
            ">"
        ]),
        29 => c(cmd!["XREADGROUP", "GROUP", group, who, "STREAMS", k, "0"]),
        30..=31 => c(cmd!["XACK", k, group, id, "11-0", "12-0", "12-1", "13-0"]),
        32 => c(cmd!["XPENDING", k, group]),
        33 => c(cmd!["XPENDING", k, group, "-", "+", 10]).rule(Rule::Without(2)),
        34 => c(cmd!["XCLAIM", k, group, who, 0, "11-0", "12-0", "12-1"]),
        35 => c(cmd!["XCLAIM", k, group, who, 0, "12-0", "13-0", "JUSTID"]),
        36 => c(cmd!["XAUTOCLAIM", k, group, who, 0, "0", "COUNT", 3]),
        _ => c(cmd!["XINFO", *g.rng.pick(&["STREAM", "GROUPS"]), k]),
    }
}
