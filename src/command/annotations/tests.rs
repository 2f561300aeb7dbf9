//! The rules against a real server.

use bytes::BytesMut;

use super::super::spec::Special;
use super::super::table::CommandTable;
use super::*;
use crate::resp::downgrade::downgrade as convert;
use crate::testserver::{Client, Sent, Server, words};

fn names() -> impl Iterator<Item = &'static str> {
    let classes = CLASSES.iter().flat_map(|(_, names)| names.iter());
    let compares = COMPARES.iter().flat_map(|(_, names)| names.iter());
    let downgrades = DOWNGRADES.iter().flat_map(|(_, _, names)| names.iter());
    let unless = UNLESS.iter().map(|(name, ..)| name);
    classes.chain(compares).chain(downgrades).chain(unless).copied()
}

#[test]
fn every_rule_is_for_a_command() {
    let table = CommandTable::builtin();
    for name in names().filter(|name| *name != "waitaof") {
        assert!(table.get(name).is_some(), "{name}");
    }
    for (_, names) in CLASSES {
        for name in *names {
            assert_eq!(
                CLASSES.iter().filter(|(_, names)| names.contains(name)).count(),
                1,
                "{name}"
            );
        }
    }
}

/// No command of Redis is refused because nobody has thought of it.
#[test]
fn every_command_of_redis_has_a_place() {
    let table = CommandTable::builtin();
    // `XGROUP` alone has too few arguments.
    let containers: Vec<&str> = table
        .iter()
        .filter_map(|command| Some(command.name.split_once('|')?.0))
        .collect();
    for command in table
        .iter()
        .filter(|command| !containers.contains(&&*command.name))
    {
        if let Class::Refused(why) = command.class {
            assert!(![SERVER, KEYLESS, MODULE_WAIT].contains(&why), "{}", command.name);
            assert!(why.starts_with("ERR ") && !why.contains(['\r', '\n']), "{why}");
        }
        let keyed = !command.key_specs.is_empty();
        let by_key = matches!(
            command.class,
            Class::Read | Class::Write | Class::Split(_) | Class::Blocking(_)
        );
        assert!(!by_key || keyed, "{} goes by its keys and has none", command.name);
        // A write must not be taken for a read, whatever the arguments.
        let reads = command.class == Class::Read;
        assert!(
            !(reads && command.flags.contains(Flags::WRITE)),
            "{}",
            command.name
        );
    }
}

#[test]
fn classes_are_as_documented() {
    let table = CommandTable::builtin();
    let class = |name: &str| table.get(name).unwrap().class;
    for name in [
        "lpush",
        "eval",
        "evalsha",
        "fcall",
        "pfcount",
        "getex",
        "getdel",
        "spop",
        "sinterstore",
        "restore",
        "msetnx",
    ] {
        assert_eq!(class(name), Class::Write, "{name}");
    }
    for name in [
        "get",
        "lrange",
        "eval_ro",
        "fcall_ro",
        "xrange",
        "object|encoding",
        "memory|usage",
        "dump",
        "hscan",
    ] {
        assert_eq!(class(name), Class::Read, "{name}");
    }
    for name in [
        "ping",
        "client|setname",
        "config|get",
        "hello",
        "wait",
        "info",
        "monitor",
        "slowlog|get",
        "latency|latest",
    ] {
        assert_eq!(class(name), Class::Local, "{name}");
    }
    for name in [
        "config|set",
        "cluster|slots",
        "cluster|help",
        "module|load",
        "acl|setuser",
        "debug",
        "memory|doctor",
    ] {
        assert!(matches!(class(name), Class::Refused(_)), "{name}");
    }
    for name in [
        "client|help",
        "xgroup|help",
        "config|help",
        "command|docs",
        "command",
    ] {
        assert_eq!(class(name), Class::Pool(Pool::AnyNode), "{name}");
    }
    assert_eq!(class("client|list"), Class::Pool(Pool::Clients));
    assert_eq!(class("script|load"), Class::Pool(Pool::Scripts));
    assert_eq!(class("script|kill"), Class::Pool(Pool::KillScript));
    assert_eq!(class("watch"), Class::Transaction);
    assert_eq!(class("spublish"), Class::PubSub);
    assert_eq!(
        class("mset"),
        Class::Split(Split {
            step: 2,
            merge: Merge::Ok
        })
    );
    assert_eq!(
        class("touch"),
        Class::Split(Split {
            step: 1,
            merge: Merge::Sum
        })
    );
    assert!(table.get("eval").unwrap().is_write() && !table.get("mget").unwrap().is_write());
    assert!(table.get("unlink").unwrap().is_write() && table.get("blpop").unwrap().is_write());
    assert_eq!(table.get("set").unwrap().special, Special::Set);
    assert!(table.get("spop").unwrap().rewrite.is_some() && table.get("lpush").unwrap().rewrite.is_none());
}

#[test]
fn replies_compare_by_what_may_differ() {
    let table = CommandTable::builtin();
    let compare = |name: &str| table.get(name).unwrap().compare;
    for name in ["lpush", "xadd", "eval", "zrange", "get", "xclaim"] {
        assert_eq!(compare(name), Compare::Exact, "{name}");
    }
    for name in ["smembers", "hgetall", "sinter", "keys", "sort"] {
        assert_eq!(compare(name), Compare::Unordered, "{name}");
    }
    for name in ["pttl", "srandmember", "object|encoding", "xinfo|stream", "dump"] {
        assert_eq!(compare(name), Compare::Shape, "{name}");
    }
    for name in ["scan", "hscan", "publish", "randomkey"] {
        assert_eq!(compare(name), Compare::Skip, "{name}");
    }
}

const DATA: &str = "FLUSHALL
ZADD z 1 a 2.5 b 3 c 1e20 d inf e 3e-10 f
ZADD z2 1 a 5 c
ZADD z1 1 a
HSET h f v
SET s val
SET n 5
RPUSH l a b c d e
SADD st a
GEOADD g 13.361389 38.115556 P 15.087269 37.502669 Q
XADD x 1-1 a b c d
XADD x 2-1 a b
XADD y 1-1 a b
XGROUP CREATE x grp 0
XGROUP CREATE x other 0
XREADGROUP GROUP grp c STREAMS x >
XDEL x 1-1";

const FORMS: &str = "GET none
GET s
SET none x GET
GETDEL none
LPOP none
LPOP none 2
LPOP none 0
LPOP l 2
RPOP none
RPOP none 2
RPOP l
LMPOP 1 none LEFT
LMPOP 2 none l LEFT COUNT 3
BLPOP none 0.01
BLPOP l 0
BRPOP none 0.01
BLMPOP 0.01 1 none LEFT
BLMPOP 0 1 l LEFT COUNT 3
BZPOPMIN none 0.01
BZPOPMIN z 0
BZPOPMAX none 0.01
BZPOPMAX z 0
ZMPOP 1 none MIN
ZMPOP 1 z MIN COUNT 2
BZMPOP 0.01 1 none MIN
BZMPOP 0 1 z MAX COUNT 2
LMOVE none l LEFT RIGHT
RPOPLPUSH none l
ZPOPMIN z
ZPOPMIN z 1
ZPOPMIN z 3
ZPOPMIN none
ZPOPMAX z 2
ZPOPMAX none 2
ZRANGE z 0 -1
ZRANGE z 0 -1 WITHSCORES
ZRANGE z 1 3 BYSCORE LIMIT 0 2 WITHSCORES
ZREVRANGE z 0 -1 WITHSCORES
ZRANGEBYSCORE z 0 10 WITHSCORES
ZREVRANGEBYSCORE z 10 0 WITHSCORES
ZRANGEBYLEX z - +
ZINTER 2 z z2 WITHSCORES
ZINTER 2 z z2
ZUNION 2 z z2 WITHSCORES
ZDIFF 2 z z2 WITHSCORES
ZRANDMEMBER z1
ZRANDMEMBER none
ZRANDMEMBER z1 1 WITHSCORES
ZRANDMEMBER z1 -3 WITHSCORES
ZSCORE z e
ZSCORE none a
ZMSCORE z a none f
ZADD z INCR 1 a
ZADD z NX INCR 1 a
ZINCRBY z 1.5 a
ZRANK z a
ZRANK z none
ZREVRANK none none
ZSCAN z1 0
HGETALL h
HGETALL none
HRANDFIELD h
HRANDFIELD none
HRANDFIELD h 1
HRANDFIELD h 2 WITHVALUES
HRANDFIELD h -2 WITHVALUES
HRANDFIELD none 2 WITHVALUES
HMGET h f none
SMEMBERS st
SINTER st none
SPOP none
SPOP none 1
SPOP st 1
SRANDMEMBER none
SRANDMEMBER st 1
SMISMEMBER st a b
XREAD STREAMS x 0
XREAD COUNT 1 STREAMS x y none 0 0 0
XREAD STREAMS x 9
XREAD BLOCK 1 STREAMS none 0
XREADGROUP GROUP other c STREAMS x >
XREADGROUP GROUP grp c STREAMS x >
XREADGROUP GROUP grp c STREAMS x 0
XRANGE x - +
XPENDING x grp
XPENDING x other
XPENDING x other - + 10
XCLAIM x grp c 0 1-1 2-1
XAUTOCLAIM x grp c 0 0
XINFO STREAM x
XINFO STREAM y FULL
XINFO GROUPS x
GEOPOS g P none Q
GEOPOS none P
GEODIST g P Q
GEODIST g P none
GEOHASH g P none
GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH
GEORADIUS g 15 37 200 km WITHCOORD ASC
OBJECT ENCODING none
MGET s none
SORT l ALPHA GET # GET none_*
SORT none
LPOS l none
LPOS l a COUNT 0
LCS s n IDX
LCS s s IDX WITHMATCHLEN
BITFIELD s OVERFLOW FAIL INCRBY u2 0 100
EVAL 'return {1,false,\"a\"}' 0
EVAL 'return true' 0
EVAL 'return redis.call(\"LPOP\",\"none\",\"2\")' 0
EVAL 'return redis.call(\"ZRANGE\",\"z\",0,-1,\"WITHSCORES\")' 0
EVAL 'redis.setresp(3) return redis.call(\"HGETALL\",\"h\")' 0
EVAL 'redis.setresp(3) return redis.call(\"ZRANGE\",\"z\",0,-1,\"WITHSCORES\")' 0
EVAL 'redis.setresp(3) return redis.call(\"SMEMBERS\",\"st\")' 0
EVAL 'redis.setresp(3) return {double=1.5}' 0
EVAL 'redis.setresp(3) return {true,false}' 0
EVAL 'redis.setresp(3) return {map={a=1}}' 0
FUNCTION LIST
FUNCTION STATS
COMMAND INFO get none xgroup
COMMAND DOCS get
COMMAND GETKEYSANDFLAGS set a b
PUBSUB NUMSUB a
MODULE LIST
INCRBYFLOAT n 1.5
WAIT 0 0
COPY none b
GET";

fn reply(client: &mut Client, form: &str) -> Vec<u8> {
    for line in DATA.lines() {
        client.line(line);
    }
    client.line(form)
}

/// The same command under both protocols: what we make of the one reply is the other.
#[test]
fn replies_of_resp3_become_those_of_resp2() {
    let server = Server::start();
    let (mut old, mut new) = (server.client(2), server.client(3));
    let table = CommandTable::builtin();
    for form in FORMS.lines() {
        let command = words(form);
        let sent = Sent::new(&command);
        let rule = table
            .lookup(&sent.args())
            .map_or(Downgrade::Generic, |known| known.downgrade(command.len()));
        let mut converted = BytesMut::new();
        convert(rule, &reply(&mut new, form), &mut converted).unwrap();
        let expected = reply(&mut old, form);
        assert_eq!(
            converted.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{form}"
        );
    }
}

/// What `keys.rs` has to say itself is what Redis leaves open, and no more.
#[test]
fn only_sort_has_keys_without_a_spec() {
    for command in CommandTable::builtin().iter() {
        let open = command
            .key_specs
            .iter()
            .any(|spec| spec.begin == Begin::Unknown || spec.find == Find::Unknown);
        assert_eq!(open, has_own_keys(&command.name), "{}", command.name);
    }
}
