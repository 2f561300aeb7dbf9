//! Scripts, commands about the connection, and everything a client can get wrong.

use super::command::{Cmd, Rule};
use super::generate::Gen;
use crate::cmd;

/// Scripts over one or two keys of one tag: (text, keys, further arguments).
const SCRIPTS: [(&str, usize, usize); 16] = [
    ("return redis.call('GET', KEYS[1])", 1, 0),
    ("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, 1),
    (
        "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('STRLEN', KEYS[1])",
        1,
        1,
    ),
    (
        "for i = 1, 3 do redis.call('RPUSH', KEYS[1], ARGV[1] .. i) end return redis.call('LRANGE', KEYS[1], 0, 4)",
        1,
        1,
    ),
    ("return {1, 2, {3, 'four', false, true, 5.7}, nil, 6}", 0, 0),
    ("return redis.status_reply('FINE')", 0, 0),
    ("return redis.error_reply('MYERR it is wrong')", 0, 0),
    ("return redis.pcall('LPUSH', KEYS[1], 'x')", 1, 0),
    ("return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])", 1, 2),
    (
        "local v = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[2], v or 'none') return v",
        2,
        0,
    ),
    (
        "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('DEL', KEYS[1]) end return -1",
        1,
        0,
    ),
    ("return cjson.encode({KEYS[1], ARGV[1]})", 1, 1),
    ("return redis.sha1hex(ARGV[1])", 0, 1),
    ("return redis.call('NOSUCH', KEYS[1])", 1, 0),
    ("this is not lua", 0, 0),
    ("return redis.call('GETRANGE', KEYS[1])", 1, 0),
];

pub fn scripts(g: &mut Gen) -> Cmd {
    let kind = *g.rng.pick(&['s', 's', 's', 'l', 'h']);
    match g.rng.below(12) {
        0..=6 => {
            let (text, keys, args) = *g.rng.pick(&SCRIPTS);
            call(g, "EVAL", &own(g, text), kind, keys, args)
        }
        7 => {
            let (text, keys, args) = SCRIPTS[0];
            call(g, "EVAL_RO", &own(g, text), kind, keys, args)
        }
        8 => {
            let text = SCRIPTS[g.rng.below(6)].0;
            Cmd::new(cmd!["SCRIPT", "LOAD", own(g, text)])
        }
        9 => {
            let digest = digest(&own(g, SCRIPTS[0].0));
            Cmd::new(cmd![
                "SCRIPT",
                "EXISTS",
                digest,
                "ffffffffffffffffffffffffffffffffffffffff"
            ])
        }
        10 => {
            let (text, keys, args) = SCRIPTS[g.rng.below(6)];
            let digest = if g.rng.chance(5) {
                "not-a-digest".to_owned()
            } else {
                digest(&own(g, text))
            };
            let reads_only = text == SCRIPTS[0].0 && g.rng.chance(50);
            let name = if reads_only { "EVALSHA_RO" } else { "EVALSHA" };
            call(g, name, &digest, kind, keys, args)
        }
        _ => {
            let count = *g.rng.pick(&["-1", "x", "5"]);
            Cmd::new(cmd!["EVAL", "return 1", count, g.key('s')])
        }
    }
}

/// A script of this client alone: what one client loads must not be found by another. Those of transactions are
/// never asked for by digest: here they are known from when they are queued, in Redis from when they are executed.
fn own(g: &Gen, text: &str) -> String {
    format!("{text} -- {}{}", g.client, if g.in_multi { "m" } else { "" })
}

fn digest(text: &str) -> String {
    sha1_smol::Sha1::from(text).digest().to_string()
}

fn call(g: &mut Gen, name: &str, what: &str, kind: char, keys: usize, args: usize) -> Cmd {
    let mut command = Cmd::new(cmd![name, what, keys]);
    for key in g.keys_together(kind, keys) {
        command = command.arg(key);
    }
    for _ in 0..args {
        let arg = if g.rng.chance(60) {
            g.rng.between(0, 9).to_string()
        } else {
            g.member()
        };
        command = command.arg(arg);
    }
    command
}

/// Commands with at least one argument, to be sent without any.
const BARE: [&str; 48] = [
    "GET",
    "SET",
    "SETEX",
    "APPEND",
    "INCR",
    "MGET",
    "MSET",
    "DEL",
    "EXISTS",
    "UNLINK",
    "TOUCH",
    "TYPE",
    "EXPIRE",
    "TTL",
    "RENAME",
    "COPY",
    "OBJECT",
    "LPUSH",
    "RPOP",
    "LRANGE",
    "LMOVE",
    "LMPOP",
    "SADD",
    "SPOP",
    "SMEMBERS",
    "SINTER",
    "SINTERSTORE",
    "HSET",
    "HGETALL",
    "HINCRBY",
    "ZADD",
    "ZRANGE",
    "ZUNIONSTORE",
    "ZMPOP",
    "GEOADD",
    "GEOSEARCH",
    "SETBIT",
    "BITOP",
    "PFADD",
    "PFMERGE",
    "XADD",
    "XREAD",
    "XREADGROUP",
    "XGROUP",
    "EVAL",
    "EVALSHA",
    "SCRIPT",
    "SELECT",
];

/// Commands with exactly one key and nothing else, to be sent with more.
const ONE_KEY: [&str; 12] = [
    "GET", "INCR", "STRLEN", "TYPE", "TTL", "PERSIST", "LLEN", "SCARD", "SMEMBERS", "HLEN", "HGETALL", "XLEN",
];

/// Commands that need more than a key.
const MORE_THAN_KEY: [&str; 14] = [
    "SET", "GETRANGE", "LPUSH", "LRANGE", "LINSERT", "SADD", "SMOVE", "HSET", "HGET", "ZADD", "ZRANGE",
    "XADD", "SETBIT", "EXPIRE",
];

pub fn wrong(g: &mut Gen) -> Cmd {
    let k = g.any_key();
    match g.rng.below(8) {
        0..=2 => Cmd::new(cmd![*g.rng.pick(&BARE)]),
        3 => Cmd::new(cmd![*g.rng.pick(&ONE_KEY), k, "more", "and more"]),
        4 => Cmd::new(cmd![*g.rng.pick(&MORE_THAN_KEY), k]),
        5 => Cmd::new(cmd![
            *g.rng.pick(&["NOSUCH", "gett", "\u{e9}t\u{e9}", ""]),
            k,
            "arg two"
        ]),
        6 => Cmd::new(cmd![*g.rng.pick(&["OBJECT", "XINFO", "SCRIPT"]), "NOSUCH", k]),
        _ => Cmd::new(cmd![*g.rng.pick(&["get", "gEt", "strLEN"]), g.key('s')]),
    }
}

pub fn connection(g: &mut Gen) -> Cmd {
    let c = Cmd::new;
    match g.rng.below(14) {
        0..=2 => c(cmd!["PING"]),
        3 => c(cmd!["PING", g.value()]),
        4 => c(cmd!["ECHO", g.value()]),
        5 => c(cmd!["PING", "a", "b"]),
        6 => c(cmd!["CLIENT", "SETNAME", g.member()]),
        7 => c(cmd!["CLIENT", "GETNAME"]),
        8 => c(cmd!["CLIENT", "ID"]).rule(Rule::SameKind),
        9 => c(cmd!["TIME"]).rule(Rule::SameKind),
        10 => c(cmd!["RESET"]),
        11 => c(cmd!["EXEC"]),
        12 => c(cmd!["DISCARD"]),
        _ => c(cmd!["HELLO", *g.rng.pick(&["4", "x", "1"])]),
    }
}
