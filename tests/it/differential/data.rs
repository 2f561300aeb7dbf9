//! Commands on strings, bitmaps, hyperloglogs, lists, sets, hashes, sorted sets and geo sets.

use super::command::{Chance, Cmd, Rule};
use super::generate::Gen;
use crate::cmd;

/// The command with more arguments.
pub fn many(mut command: Cmd, more: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Cmd {
    for arg in more {
        command = command.arg(arg.into());
    }
    command
}

pub fn strings(g: &mut Gen) -> Cmd {
    let k = g.key('s');
    let v = g.value();
    let n = g.rng.between(-20, 20);
    let c = Cmd::new;
    match g.rng.below(36) {
        34 => c(cmd!["DECR", k]),
        35 => c(cmd!["SUBSTR", k, g.index(), g.index()]),
        0..=4 => c(cmd!["SET", k, v]),
        5 => c(cmd!["SET", k, v, "NX"]),
        6 => c(cmd!["SET", k, v, "XX", "GET"]),
        7 => c(cmd!["SET", k, v, "EX", 1000 + n]),
        8 => c(cmd![
            "SET",
            k,
            v,
            "PX",
            *g.rng.pick(&["900000", "0", "-5", "x", "9223372036854775807"])
        ]),
        9 => c(cmd!["SET", k, v, "KEEPTTL"]),
        10 => c(cmd!["SET", k, v, "EXAT", *g.rng.pick(&["4000000000", "0", "-7"])]),
        11 => c(cmd!["SET", k, v, "NX", "XX"]),
        12..=14 => c(cmd!["GET", k]),
        15 => c(cmd!["GETSET", k, v]),
        16 => c(cmd!["GETDEL", k]),
        17 => c(cmd!["GETEX", k, "EX", 500]),
        18 => c(cmd!["GETEX", k, "PERSIST"]),
        19 => c(cmd!["SETNX", k, v]),
        20 => c(cmd!["SETEX", k, *g.rng.pick(&["700", "0", "-1", "1.5"]), v]),
        21 => c(cmd!["PSETEX", k, 700_000, v]),
        22 => c(cmd!["APPEND", k, v]),
        23 => c(cmd!["STRLEN", k]),
        24 => c(cmd!["SETRANGE", k, *g.rng.pick(&["0", "3", "10", "-1", "x"]), v]),
        25 => c(cmd!["GETRANGE", k, g.index(), g.index()]),
        26 => c(cmd!["INCR", k]),
        27 => c(cmd!["DECRBY", k, n]),
        28 => c(cmd!["INCRBY", k, *g.rng.pick(&["7", "9223372036854775807", "x"])]),
        29 => c(cmd!["INCRBYFLOAT", k, *g.rng.pick(&["0.1", "-3", "1e2", "x"])]),
        30 => {
            let count = 1 + g.rng.below(6);
            let keys: Vec<String> = (0..count).map(|_| g.key('s')).collect();
            many(c(cmd!["MGET"]), keys)
        }
        31 => {
            let mut command = c(cmd!["MSET"]);
            for _ in 0..=g.rng.below(5) {
                command = command.arg(g.key('s')).arg(g.value());
            }
            if g.rng.chance(10) {
                command.arg("odd")
            } else {
                command
            }
        }
        32 => {
            let keys = g.keys_together('s', 2);
            c(cmd!["MSETNX", keys[0], v, keys[1], n])
        }
        _ => {
            let keys = g.keys_together('s', 2);
            let command = c(cmd!["LCS", keys[0], keys[1]]);
            if g.rng.chance(50) {
                command.arg("LEN")
            } else {
                command
            }
        }
    }
}

pub fn bits(g: &mut Gen) -> Cmd {
    let k = g.key('b');
    let c = Cmd::new;
    match g.rng.below(13) {
        12 => c(cmd![
            "BITFIELD_RO",
            k,
            "GET",
            "u8",
            g.rng.below(20),
            "GET",
            "i5",
            "#2"
        ]),
        0..=2 => c(cmd!["SETBIT", k, g.rng.below(200), g.rng.below(2)]),
        3 => c(cmd!["SETBIT", k, *g.rng.pick(&["-1", "4294967296", "x"]), 2]),
        4 => c(cmd!["GETBIT", k, g.rng.below(200)]),
        5 => c(cmd![
            "BITCOUNT",
            k,
            g.index(),
            g.index(),
            *g.rng.pick(&["BYTE", "BIT"])
        ]),
        6 => c(cmd!["BITPOS", k, g.rng.below(2)]),
        7 => {
            let keys = g.keys_together('b', 3);
            c(cmd![
                "BITOP",
                *g.rng.pick(&["AND", "OR", "XOR"]),
                keys[0],
                keys[1],
                keys[2]
            ])
        }
        8 => c(cmd![
            "BITFIELD",
            k,
            "SET",
            "u8",
            "#1",
            g.rng.below(300),
            "INCRBY",
            "i5",
            3,
            7,
            "GET",
            "u4",
            0
        ]),
        9 => c(cmd!["BITFIELD", k, "OVERFLOW", "FAIL", "INCRBY", "u2", 100, 1]),
        10 => {
            let key = g.key('p');
            let members = g.members(5);
            if g.rng.chance(70) {
                many(c(cmd!["PFADD", key]), members)
            } else {
                c(cmd!["PFCOUNT", key])
            }
        }
        _ => {
            let keys = g.keys_together('p', 3);
            let name = *g.rng.pick(&["PFMERGE", "PFCOUNT"]);
            c(cmd![name, keys[0], keys[1], keys[2]])
        }
    }
}

pub fn lists(g: &mut Gen) -> Cmd {
    let k = g.key('l');
    let v = g.value();
    let (i, j) = (g.index(), g.index());
    let side = *g.rng.pick(&["LEFT", "RIGHT"]);
    let c = Cmd::new;
    match g.rng.below(29) {
        28 => c(cmd!["SORT_RO", k, "ALPHA", "DESC", "LIMIT", 1, 4]),
        0..=3 => many(c(cmd!["RPUSH", k]), g.members(6)),
        4..=6 => many(c(cmd!["LPUSH", k, v]), g.members(3)),
        7 => c(cmd![*g.rng.pick(&["LPUSHX", "RPUSHX"]), k, v]),
        8..=9 => c(cmd!["LPOP", k]),
        10 => c(cmd!["RPOP", k, *g.rng.pick(&["2", "0", "9", "-1", "x"])]),
        11..=13 => c(cmd!["LRANGE", k, i, j]),
        14 => c(cmd!["LLEN", k]),
        15 => c(cmd!["LINDEX", k, i]),
        16 => c(cmd!["LSET", k, i, v]),
        17 => c(cmd![
            "LINSERT",
            k,
            *g.rng.pick(&["BEFORE", "AFTER", "x"]),
            g.member(),
            v
        ]),
        18 => c(cmd!["LREM", k, i, g.member()]),
        19 => c(cmd!["LTRIM", k, g.rng.below(3), g.rng.between(4, 30)]),
        20 => c(cmd!["LPOS", k, g.member(), "COUNT", 0]),
        21 => c(cmd!["LPOS", k, g.member(), "RANK", i]),
        22..=23 => {
            let keys = g.keys_together('l', 2);
            c(cmd![
                "LMOVE",
                keys[0],
                keys[1],
                side,
                *g.rng.pick(&["LEFT", "RIGHT"])
            ])
        }
        24 => {
            let keys = g.keys_together('l', 2);
            c(cmd!["RPOPLPUSH", keys[0], keys[1]])
        }
        25 => {
            let keys = g.keys_together('l', 2);
            c(cmd!["LMPOP", 2, keys[0], keys[1], side, "COUNT", 2])
        }
        26 => c(cmd!["SORT", k, "ALPHA", "LIMIT", 0, 5]),
        _ => {
            let keys = g.keys_together('l', 2);
            c(cmd!["SORT", keys[0], "ALPHA", "DESC", "STORE", keys[1]])
        }
    }
}

pub fn sets(g: &mut Gen) -> Cmd {
    let k = g.key('e');
    let m = g.member();
    let c = Cmd::new;
    let together = g.keys_together('e', 3);
    match g.rng.below(24) {
        0..=4 => many(c(cmd!["SADD", k]), g.members(6)),
        5 => many(
            c(cmd!["SADD", k]),
            (0..g.rng.below(40) + 1)
                .map(|n| n.to_string())
                .collect::<Vec<_>>(),
        ),
        6..=7 => many(c(cmd!["SREM", k]), g.members(3)),
        8..=9 => c(cmd!["SMEMBERS", k]).rule(Rule::Unordered),
        10 => c(cmd!["SISMEMBER", k, m]),
        11 => many(c(cmd!["SMISMEMBER", k]), g.members(3)),
        12 => c(cmd!["SCARD", k]),
        13 => c(cmd!["SPOP", k]).rule(Rule::Chance(Chance::Pop)),
        14 => c(cmd!["SPOP", k, g.rng.below(5)]).rule(Rule::Chance(Chance::Pop)),
        15 => c(cmd!["SRANDMEMBER", k]).rule(Rule::Chance(Chance::Members)),
        16 => c(cmd!["SRANDMEMBER", k, g.index()]).rule(Rule::Chance(Chance::Members)),
        17 => c(cmd!["SMOVE", together[0], together[1], m]),
        18..=19 => c(cmd![
            *g.rng.pick(&["SINTER", "SUNION", "SDIFF"]),
            together[0],
            together[1]
        ])
        .rule(Rule::Unordered),
        20..=21 => {
            let name = *g.rng.pick(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]);
            c(cmd![name, together[0], together[1], together[2]])
        }
        22 => c(cmd!["SINTERCARD", 2, together[0], together[1], "LIMIT", 2]),
        _ => c(cmd!["SSCAN", k, 0, "COUNT", 3]).rule(Rule::Chance(Chance::Elements)),
    }
}

pub fn hashes(g: &mut Gen) -> Cmd {
    let k = g.key('h');
    let (f, v) = (g.member(), g.value());
    let c = Cmd::new;
    match g.rng.below(22) {
        0..=4 => {
            let mut command = c(cmd![*g.rng.pick(&["HSET", "HSET", "HMSET"]), k]);
            for _ in 0..=g.rng.below(4) {
                command = command.arg(g.member()).arg(g.value());
            }
            if g.rng.chance(5) {
                command.arg("odd")
            } else {
                command
            }
        }
        5..=6 => c(cmd!["HGET", k, f]),
        7 => many(c(cmd!["HMGET", k]), g.members(4)),
        8..=9 => c(cmd!["HGETALL", k]).rule(Rule::Pairs),
        10 => c(cmd!["HKEYS", k]).rule(Rule::Unordered),
        11 => c(cmd!["HVALS", k]).rule(Rule::Unordered),
        12 => c(cmd!["HLEN", k]),
        13 => c(cmd!["HEXISTS", k, f]),
        14 => many(c(cmd!["HDEL", k]), g.members(3)),
        15 => c(cmd!["HSETNX", k, f, v]),
        16 => c(cmd![
            "HINCRBY",
            k,
            f,
            *g.rng.pick(&["3", "-7", "x", "9223372036854775807"])
        ]),
        17 => c(cmd!["HINCRBYFLOAT", k, f, *g.rng.pick(&["0.5", "-1e1", "y"])]),
        18 => c(cmd!["HSTRLEN", k, f]),
        19 => c(cmd!["HRANDFIELD", k]).rule(Rule::Chance(Chance::Members)),
        20 => c(cmd!["HRANDFIELD", k, g.index()]).rule(Rule::Chance(Chance::Members)),
        _ => c(cmd!["HSCAN", k, 0, "COUNT", 2]).rule(Rule::Chance(Chance::Elements)),
    }
}

pub fn zsets(g: &mut Gen) -> Cmd {
    let k = g.key('z');
    let (m, s) = (g.member(), g.score());
    let (i, j) = (g.index(), g.index());
    let together = g.keys_together('z', 3);
    let low = *g.rng.pick(&["-inf", "0", "(1", "-5", "x"]);
    let high = *g.rng.pick(&["+inf", "5", "(3", "2.5"]);
    let c = Cmd::new;
    match g.rng.below(38) {
        36 => c(cmd![
            "ZREVRANGEBYLEX",
            k,
            *g.rng.pick(&["+", "(m9", "m9"]),
            "[m1",
            "LIMIT",
            0,
            3
        ]),
        37 => c(cmd!["ZREVRANGEBYSCORE", k, high, low, "WITHSCORES"]),
        0..=5 => {
            let mut command = c(cmd!["ZADD", k]);
            for _ in 0..=g.rng.below(4) {
                command = command.arg(g.score()).arg(g.member());
            }
            command
        }
        6 => c(cmd![
            "ZADD",
            k,
            *g.rng.pick(&["NX", "XX", "GT", "LT"]),
            "CH",
            s,
            m
        ]),
        7 => c(cmd!["ZADD", k, "INCR", s, m]),
        8 => c(cmd!["ZINCRBY", k, s, m]),
        9..=10 => c(cmd!["ZRANGE", k, i, j, "WITHSCORES"]),
        11 => c(cmd!["ZRANGE", k, low, high, "BYSCORE", "LIMIT", 0, 3]),
        12 => c(cmd!["ZRANGE", k, "-", "+", "BYLEX", "REV"]),
        13 => c(cmd!["ZRANGEBYSCORE", k, low, high, "WITHSCORES"]),
        14 => c(cmd!["ZREVRANGE", k, i, j]),
        15 => c(cmd!["ZRANGEBYLEX", k, "[m1", *g.rng.pick(&["+", "(m9", "m9"])]),
        16 => c(cmd![*g.rng.pick(&["ZRANK", "ZREVRANK", "ZSCORE"]), k, m]),
        17 => many(c(cmd!["ZMSCORE", k]), g.members(3)),
        18 => many(c(cmd!["ZREM", k]), g.members(3)),
        19 => c(cmd!["ZCARD", k]),
        20 => c(cmd!["ZCOUNT", k, low, high]),
        21 => c(cmd!["ZLEXCOUNT", k, "-", "[m5"]),
        22 => c(cmd!["ZREMRANGEBYRANK", k, 0, g.rng.below(2)]),
        23 => c(cmd!["ZREMRANGEBYSCORE", k, low, "-3"]),
        24 => c(cmd!["ZREMRANGEBYLEX", k, "-", "(m1"]),
        25 => c(cmd![*g.rng.pick(&["ZPOPMIN", "ZPOPMAX"]), k]),
        26 => c(cmd![*g.rng.pick(&["ZPOPMIN", "ZPOPMAX"]), k, 2]),
        27 => c(cmd![
            "ZMPOP",
            2,
            together[0],
            together[1],
            *g.rng.pick(&["MIN", "MAX"]),
            "COUNT",
            2
        ]),
        28 => {
            let name = *g.rng.pick(&["ZUNIONSTORE", "ZINTERSTORE"]);
            c(cmd![
                name,
                together[0],
                2,
                together[1],
                together[2],
                "WEIGHTS",
                2,
                0.5,
                "AGGREGATE",
                "MAX"
            ])
        }
        29 => c(cmd!["ZDIFFSTORE", together[0], 2, together[1], together[2]]),
        30 => c(cmd!["ZRANGESTORE", together[0], together[1], 0, 3]),
        31 => c(cmd![
            *g.rng.pick(&["ZUNION", "ZINTER", "ZDIFF"]),
            2,
            together[0],
            together[1],
            "WITHSCORES"
        ]),
        32 => c(cmd!["ZINTERCARD", 2, together[0], together[1]]),
        33 => c(cmd!["ZRANDMEMBER", k]).rule(Rule::Chance(Chance::Members)),
        34 => c(cmd!["ZRANDMEMBER", k, i]).rule(Rule::Chance(Chance::Members)),
        _ => c(cmd!["ZSCAN", k, 0]).rule(Rule::Chance(Chance::Elements)),
    }
}

pub fn geo(g: &mut Gen) -> Cmd {
    let k = g.key('z');
    let (m, n) = (g.member(), g.member());
    let c = Cmd::new;
    match g.rng.below(12) {
        9 => {
            let name = *g.rng.pick(&["GEORADIUS", "GEORADIUS_RO"]);
            c(cmd![name, k, 13, 38, 6000, "km", "WITHDIST", "WITHCOORD", "ASC"])
        }
        10 => {
            let name = *g.rng.pick(&["GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO"]);
            c(cmd![name, k, m, 5000, "km", "WITHHASH", "DESC", "COUNT", 2])
        }
        11 => {
            let keys = g.keys_together('z', 2);
            let how = *g.rng.pick(&["STORE", "STOREDIST"]);
            if g.rng.chance(50) {
                c(cmd!["GEORADIUS", keys[0], 13, 38, 6000, "km", how, keys[1]])
            } else {
                c(cmd!["GEORADIUSBYMEMBER", keys[0], m, 6000, "km", how, keys[1]])
            }
        }
        0..=3 => c(cmd![
            "GEOADD",
            k,
            g.rng.between(-170, 170),
            g.rng.between(-80, 80),
            m,
            "13.361389",
            "38.115556",
            n
        ]),
        4 => c(cmd!["GEOPOS", k, m, n]),
        5 => c(cmd!["GEODIST", k, m, n, *g.rng.pick(&["km", "m", "furlong"])]),
        6 => c(cmd!["GEOHASH", k, m]),
        7 => c(cmd![
            "GEOSEARCH",
            k,
            "FROMLONLAT",
            13,
            38,
            "BYRADIUS",
            5000,
            "km",
            "ASC",
            "WITHCOORD",
            "WITHDIST"
        ]),
        _ => {
            let keys = g.keys_together('z', 2);
            c(cmd![
                "GEOSEARCHSTORE",
                keys[0],
                keys[1],
                "FROMLONLAT",
                13,
                38,
                "BYBOX",
                4000,
                4000,
                "km",
                "ASC",
                "COUNT",
                3
            ])
        }
    }
}
