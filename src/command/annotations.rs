//! What Redis does not say of its commands: where they may go, how replies of copies compare, how RESP3 becomes RESP2.
//!
//! This is data. A rule for a container (`client`) holds for all its subcommands that have none of their own; a command
//! without a rule is judged by its flags and key specs, which is right for every plain data command and for most of
//! those that modules bring. A rule for a command that no node has is not an error: it is for other versions.
//!
//! The conversions were found by running every command on one server under both protocols and comparing; those that are
//! not listed convert type by type.

use super::described::{Described, ReplyHint};
use super::spec::{
    Begin, Class, Compare, Downgrade, DowngradeRule, Find, Flags, KeyFlags, Merge, Pool, Split, Timeout,
};

const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";
const ASK_THE_NODES: &str =
    "ERR every node has its own: ask the nodes themselves, or see /metrics on the admin port of the proxy";
const CONFIG: &str = "ERR CONFIG cannot change a pool: edit proxy.toml, or redis.conf on the nodes";
const REPLICATION: &str = "ERR copies are kept by the proxy: add, drain or remove nodes on its admin port";
const SAVING: &str = "ERR nodes save on their own: set save or appendonly in redis.conf on the nodes";
const ON_DISK: &str = "ERR when nodes write to their disks is up to them: set appendfsync always in redis.conf on the nodes, and use WAIT";
const INSPECTION: &str = "ERR this shows or changes the inside of one server: run it on a node";
const DATABASES: &str =
    "ERR a key cannot change its database here: read it, SELECT the other one, and write it there";
const ACL: &str = "ERR users are set in proxy.toml, not with ACL";
const MODULES: &str =
    "ERR modules are loaded by the nodes: set loadmodule in redis.conf on every node, and restart the proxy";
const SERVER: &str = "ERR this command operates a server, and a pool is not one server: run it on the nodes";
const KEYLESS: &str = "ERR the keys of this command are not known, so it cannot be routed: run it on a node";
const MODULE_WAIT: &str = "ERR this command may block, and it is not known on what: use a form that does not";

const CONCAT: Class = Class::Split(Split {
    step: 1,
    merge: Merge::Concat,
});
const SUM: Class = Class::Split(Split {
    step: 1,
    merge: Merge::Sum,
});
const PAIRS: Class = Class::Split(Split {
    step: 2,
    merge: Merge::Ok,
});

/// Where commands go that do not go by their flags.
const CLASSES: &[(Class, &[&str])] = &[
    (
        Class::Local,
        &[
            "acl|getuser",
            "acl|list",
            "acl|users",
            "acl|whoami",
            "auth",
            "client",
            "config|get",
            "config|resetstat",
            "echo",
            "hello",
            "info",
            "lastsave",
            "latency",
            "monitor",
            "ping",
            "quit",
            "reset",
            "role",
            "select",
            "slowlog",
            "time",
            "wait",
        ],
    ),
    (
        Class::Transaction,
        &["discard", "exec", "multi", "unwatch", "watch"],
    ),
    (
        Class::PubSub,
        &[
            "psubscribe",
            "publish",
            "pubsub",
            "punsubscribe",
            "spublish",
            "ssubscribe",
            "subscribe",
            "sunsubscribe",
            "unsubscribe",
        ],
    ),
    // Has the flag of a read, but stores the count that it has worked out.
    (Class::Write, &["pfcount"]),
    (CONCAT, &["mget"]),
    (SUM, &["del", "exists", "touch", "unlink"]),
    (PAIRS, &["mset"]),
    (
        Class::Pool(Pool::Clients),
        &["client|kill", "client|list", "client|unblock"],
    ),
    (Class::Pool(Pool::Scan), &["scan"]),
    (Class::Pool(Pool::Keys), &["keys"]),
    (Class::Pool(Pool::Dbsize), &["dbsize"]),
    (Class::Pool(Pool::RandomKey), &["randomkey"]),
    (Class::Pool(Pool::Flush), &["flushall", "flushdb"]),
    (Class::Pool(Pool::Scripts), &["function", "script"]),
    (Class::Pool(Pool::KillScript), &["function|kill", "script|kill"]),
    (
        Class::Pool(Pool::AnyNode),
        &["acl|cat", "acl|genpass", "command", "lolwut", "module|list"],
    ),
    // Every timeout is answered `*-1` under RESP2, also that of the two which answer `$-1` inside `MULTI`.
    (
        Class::Blocking(Timeout::Last),
        &["blmove", "blpop", "brpop", "brpoplpush", "bzpopmax", "bzpopmin"],
    ),
    (Class::Blocking(Timeout::First), &["blmpop", "bzmpop"]),
    (Class::Blocking(Timeout::Option), &["xread", "xreadgroup"]),
    // A driver that asks whether this is a cluster gets the answer of a server that is none.
    (
        Class::Refused(NO_CLUSTER),
        &["asking", "cluster", "cluster|help", "readonly", "readwrite"],
    ),
    (
        Class::Refused(ASK_THE_NODES),
        &["memory|doctor", "memory|malloc-stats", "memory|stats"],
    ),
    (Class::Refused(CONFIG), &["config"]),
    (
        Class::Refused(REPLICATION),
        &["failover", "psync", "replconf", "replicaof", "slaveof", "sync"],
    ),
    (Class::Refused(SAVING), &["bgrewriteaof", "bgsave", "save"]),
    (Class::Refused(ON_DISK), &["waitaof"]),
    (
        Class::Refused(INSPECTION),
        &["debug", "memory|purge", "pfdebug", "pfselftest", "script|debug"],
    ),
    (Class::Refused(DATABASES), &["move", "swapdb"]),
    (Class::Refused(ACL), &["acl"]),
    (Class::Refused(MODULES), &["module"]),
    (
        Class::Refused("ERR MIGRATE would move a key past its copies: use DUMP, RESTORE and DEL"),
        &["migrate"],
    ),
    (
        Class::Refused("ERR RESTORE-ASKING is for nodes of a cluster: use RESTORE"),
        &["restore-asking"],
    ),
    (
        Class::Refused("ERR a pool is not shut down by its clients: stop the proxy, and then the nodes"),
        &["shutdown"],
    ),
];

/// Commands that go elsewhere if none of these words is among their arguments. For `XREAD` the options are read properly.
#[rustfmt::skip]
const UNLESS: &[(&str, &[&str], Class)] = &[
    ("bitfield",          &["SET", "INCRBY"],      Class::Read),
    ("georadius",         &["STORE", "STOREDIST"], Class::Read),
    ("georadiusbymember", &["STORE", "STOREDIST"], Class::Read),
    ("sort",              &["STORE"],              Class::Read),
    ("xread",             &["BLOCK"],              Class::Read),
    ("xreadgroup",        &["BLOCK"],              Class::Write),
];

/// How replies compare where Redis's hint is missing, or is about something that is settled before they are sent.
const COMPARES: &[(Compare, &[&str])] = &[
    // Two servers differ in ids and in clocks; the proxy has chosen both.
    (Compare::Exact, &["xadd", "xautoclaim", "xclaim", "xtrim"]),
    (Compare::Unordered, &["sort", "sort_ro"]),
    // Memory and encodings depend on how the data came there, times on the moment.
    (Compare::Shape, &["memory|usage", "ttl", "xinfo"]),
    (
        Compare::Skip,
        &[
            "acl|genpass",
            "dbsize",
            "function|kill",
            "function|stats",
            "hscan",
            "info",
            "lastsave",
            "publish",
            "randomkey",
            "scan",
            "script|kill",
            "spublish",
            "sscan",
            "time",
            "wait",
            "waitaof",
            "zscan",
        ],
    ),
];

/// Replies that are more than their types. The number is how many arguments, the name included, it takes.
const DOWNGRADES: &[(Downgrade, usize, &[&str])] = &[
    (
        Downgrade::FlattenPairs,
        0,
        &[
            "hrandfield",
            "zdiff",
            "zinter",
            "zpopmax",
            "zpopmin",
            "zrandmember",
            "zrange",
            "zrangebyscore",
            "zrevrange",
            "zrevrangebyscore",
            "zunion",
        ],
    ),
    (Downgrade::MapToPairs, 0, &["xread", "xreadgroup"]),
    (
        Downgrade::NullArray,
        0,
        &[
            "blmpop", "blpop", "brpop", "bzmpop", "bzpopmax", "bzpopmin", "exec", "lmpop", "zmpop",
        ],
    ),
    // With a count.
    (Downgrade::NullArray, 3, &["lpop", "rpop"]),
    // Of no entries, because none were wanted.
    (Downgrade::NullArray, 5, &["xrange", "xrevrange"]),
    // With a score, from Redis 7.2 on.
    (Downgrade::NullArray, 4, &["zrank", "zrevrank"]),
    (Downgrade::NullArrayItems, 0, &["geopos"]),
    (Downgrade::NullArrayLast, 0, &["xpending"]),
];

/// Where a command goes.
pub(super) fn class(command: &Described) -> Class {
    let by_name = |name: &str| {
        CLASSES
            .iter()
            .find(|(_, names)| names.contains(&name))
            .map(|&(class, _)| class)
    };
    let container = command.name.split_once('|');
    if let Some(class) = by_name(&command.name) {
        return class;
    }
    if matches!(container, Some((_, "help"))) && !matches!(container, Some(("cluster", _))) {
        return Class::Pool(Pool::AnyNode);
    }
    container
        .and_then(|(name, _)| by_name(name))
        .unwrap_or_else(|| class_by_flags(command))
}

fn class_by_flags(command: &Described) -> Class {
    let specs = command.key_specs.as_deref().unwrap_or_default();
    let none = specs.iter().all(|spec| spec.flags.contains(KeyFlags::NOT_KEY));
    let unclear = specs.iter().any(|spec| {
        spec.begin == Begin::Unknown
            || spec.find == Find::Unknown
            || spec.flags.contains(KeyFlags::INCOMPLETE)
    });
    if command.flags.contains(Flags::ADMIN) {
        Class::Refused(SERVER)
    } else if command.flags.contains(Flags::BLOCKING) {
        Class::Refused(MODULE_WAIT)
    } else if none || (unclear && !has_own_keys(&command.name)) {
        Class::Refused(KEYLESS)
    } else if command.flags.contains(Flags::READONLY) && !command.flags.contains(Flags::WRITE) {
        Class::Read
    } else {
        Class::Write
    }
}

/// Commands whose keys `keys.rs` finds without a spec.
fn has_own_keys(name: &str) -> bool {
    matches!(name, "sort" | "sort_ro")
}

/// The words without which a command goes elsewhere, and where.
pub(super) fn unless(name: &str) -> Option<(&'static [&'static str], Class)> {
    UNLESS
        .iter()
        .find(|(command, ..)| *command == name)
        .map(|&(_, words, class)| (words, class))
}

/// How replies of several nodes are compared.
pub(super) fn compare(command: &Described) -> Compare {
    let by_name = |name: &str| {
        COMPARES
            .iter()
            .find(|(_, names)| names.contains(&name))
            .map(|&(compare, _)| compare)
    };
    let by_container = || by_name(command.name.split_once('|')?.0);
    by_name(&command.name)
        .or_else(by_container)
        .unwrap_or(match command.reply {
            ReplyHint::Same => Compare::Exact,
            ReplyHint::OtherOrder => Compare::Unordered,
            ReplyHint::Other => Compare::Shape,
        })
}

/// How the reply becomes a RESP2 reply.
pub(super) fn downgrade(name: &str) -> DowngradeRule {
    let rule = DOWNGRADES.iter().find(|(_, _, names)| names.contains(&name));
    let (downgrade, args_min) = rule.map_or((Downgrade::Generic, 0), |&(downgrade, args_min, _)| {
        (downgrade, args_min)
    });
    DowngradeRule { downgrade, args_min }
}

#[cfg(test)]
mod tests;
