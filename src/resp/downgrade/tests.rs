//! Downgrading is right if a RESP3 reply turned into RESP2 is what the same server says to a RESP2 client.

use bytes::BytesMut;

use super::*;
use crate::testserver::{Client, Server, words};

/// What every command below finds.
const DATA: &str = "
FLUSHALL
ZADD z 1 a 2.5 b 3 c
ZADD z1 1 a
ZADD z2 1 a 5 c
ZADD zinf inf i -inf j 1e20 k 3.0e-10 l 0.1 m 1e17 n 100000000000000000000 o
HSET h f v
HSET h2 a 1 b 2 c 3
SET s val
SET n 5
RPUSH l a b c d e f
RPUSH numbers 3 1 2
SADD st a
SADD st2 a b c
GEOADD g 13.361389 38.115556 P 15.087269 37.502669 Q
XADD x 1-1 a b c d
XADD x 2-1 a b
XGROUP CREATE x grp 0
XGROUP CREATE x empty 0
PFADD hll a b
";

/// Commands by rule; behind a `;` is what is compared, before it what is done first.
const CASES: &[(Downgrade, &str)] = &[
    (
        Downgrade::Generic,
        "
GET none
GET s
GETDEL none
SET none x GET
SET s x GET
SET s x NX
SET s x
GETEX none
LPOP none
LPOP l
RPOP l 2
RPOP l 0
RPOPLPUSH none l
LMOVE none l LEFT LEFT
LMOVE l m LEFT LEFT
BLMOVE l m LEFT RIGHT 0.01
LINDEX l 100
LPOS l a
LPOS l zz
LPOS l a COUNT 0
LPOS none zz COUNT 0
LRANGE l 0 1
LRANGE none 0 1
ZRANK z a
ZRANK z none
ZSCORE z b
ZSCORE zinf i
ZSCORE zinf j
ZSCORE zinf k
ZSCORE zinf l
ZSCORE zinf m
ZSCORE zinf n
ZSCORE none a
ZMSCORE z a x b
ZADD z INCR 1 a
ZADD z NX INCR 1 a
ZADD z GT CH 1 a
ZINCRBY z 1.5 a
ZINCRBY zinf 1 i
ZADD zinf INCR -inf i
HINCRBYFLOAT h2 a 1.5
INCRBYFLOAT n 1.5
HGETALL h
HGETALL h2
HGETALL none
HMGET h f g
HGET none f
HKEYS h2
HVALS h2
HRANDFIELD h
HRANDFIELD none
HSET h a b
SMEMBERS st2
SMEMBERS none
SINTER st st2
SUNION st st2
SDIFF st2 st
SPOP st
SPOP none
SPOP st 1
SPOP none 1
SRANDMEMBER st
SRANDMEMBER none
SRANDMEMBER st 1
SMISMEMBER st a b
SISMEMBER st a
ZRANDMEMBER z1
ZRANDMEMBER none
XRANGE x - +
XADD x 5-5 a b
XADD none NOMKSTREAM 5-5 a b
XLEN x
XPENDING x grp - + 10
XREADGROUP GROUP grp c STREAMS x >; XPENDING x grp
XREADGROUP GROUP grp c STREAMS x >; XCLAIM x grp c 0 1-1
XREADGROUP GROUP grp c STREAMS x >; XCLAIM x grp c 0 1-1 JUSTID
XREADGROUP GROUP grp c STREAMS x >; XDEL x 1-1; XAUTOCLAIM x grp c 0 0
XINFO STREAM x
XGROUP CREATE e g $ MKSTREAM; XINFO STREAM e
XGROUP CREATE e g $ MKSTREAM; XINFO GROUPS e
XGROUP CREATE e g $ MKSTREAM; XINFO STREAM e FULL
XREADGROUP GROUP grp c STREAMS x >; XINFO GROUPS x
XINFO CONSUMERS x grp
XINFO STREAM none
GEODIST g P Q
GEODIST g P none
GEOHASH g P none
GEOPOS none
GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH
GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC
GEOSEARCH none FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD
GEORADIUS g 15 37 200 km WITHCOORD WITHDIST WITHHASH ASC
GEORADIUSBYMEMBER g P 200 km WITHCOORD
OBJECT ENCODING s
OBJECT ENCODING none
OBJECT HELP
MEMORY USAGE none
MEMORY DOCTOR
DUMP none
TYPE none
KEYS s
EXISTS none
MGET s none
SORT l ALPHA GET nokey_*
SORT l BY nosort GET # GET nokey_*
SORT numbers
SORT numbers BY nosort GET x* STORE d
LCS s n
LCS s n LEN
LCS s s IDX
LCS s s IDX WITHMATCHLEN
BITFIELD s GET u8 0
BITFIELD s OVERFLOW FAIL INCRBY u2 0 100
BITCOUNT s
PFCOUNT hll
EVAL 'return nil' 0
EVAL 'return true' 0
EVAL 'return {1,false,3}' 0
EVAL 'return {1,{2,{3,{false}}}}' 0
EVAL 'return {err=string.char(77,89,32,120)}' 0
EVAL 'redis.setresp(3) return {map={a=1}}' 0
EVAL 'redis.setresp(3) return {double=1.5}' 0
EVAL 'redis.setresp(3) return {double=1/0}' 0
EVAL 'redis.setresp(3) return {set={a=true}}' 0
EVAL 'redis.setresp(3) return true' 0
EVAL 'redis.setresp(3) return {false,true}' 0
EVAL 'redis.setresp(3) return {big_number=12345678901234567890123}' 0
EVAL 'redis.setresp(3) return {verbatim_string={string=s,format=t}}' 0
EVAL 'redis.setresp(3) return redis.call(ARGV[1],KEYS[1])' 1 h2 HGETALL
EVAL 'redis.setresp(3) return redis.call(ARGV[1],KEYS[1],ARGV[2])' 1 z ZSCORE a
EVAL 'redis.setresp(3) return redis.call(ARGV[1],KEYS[1])' 1 none GET
EVAL 'redis.setresp(3) return redis.call(ARGV[1],KEYS[1],ARGV[2])' 1 g GEOPOS P
EVAL 'return redis.call(ARGV[1],KEYS[1],0,-1,ARGV[2])' 1 z ZRANGE WITHSCORES
EVAL 'return redis.call(ARGV[1],KEYS[1],2)' 1 none LPOP
EVAL 'return redis.call(ARGV[1],ARGV[2],KEYS[1],9)' 1 x XREAD STREAMS
CONFIG GET maxmemory*
CONFIG GET nonesuch
COMMAND COUNT
COMMAND INFO xadd
COMMAND INFO get nonesuch
COMMAND DOCS get
COMMAND GETKEYSANDFLAGS get a
ACL GETUSER default
ACL GETUSER none
ACL CAT
FUNCTION STATS
FUNCTION LIST
SCRIPT EXISTS a b
CLIENT TRACKINGINFO
CLIENT GETNAME
LATENCY DOCTOR
LATENCY LATEST
PUBSUB NUMSUB a b
ROLE
LOLWUT
WAIT 0 0
DEBUG PROTOCOL string
DEBUG PROTOCOL integer
DEBUG PROTOCOL double
DEBUG PROTOCOL null
DEBUG PROTOCOL array
DEBUG PROTOCOL set
DEBUG PROTOCOL map
DEBUG PROTOCOL bignum
DEBUG PROTOCOL true
DEBUG PROTOCOL false
DEBUG PROTOCOL verbatim
NOSUCHCOMMAND
GET
LPOP s
",
    ),
    (
        Downgrade::FlattenPairs,
        "
ZPOPMIN z
ZPOPMIN z 2
ZPOPMIN none 2
ZPOPMIN none
ZPOPMAX z 0
ZPOPMAX z 1
ZRANGE z 0 -1
ZRANGE z 0 -1 WITHSCORES
ZRANGE zinf 0 -1 WITHSCORES
ZRANGE none 0 -1 WITHSCORES
ZRANGE z 1 3 BYSCORE WITHSCORES LIMIT 0 1
ZREVRANGE z 0 -1 WITHSCORES
ZRANGEBYSCORE z 0 10 WITHSCORES
ZRANGEBYSCORE z 0 10
ZREVRANGEBYSCORE z 10 0 WITHSCORES
ZINTER 2 z z2 WITHSCORES
ZUNION 2 z z2 WITHSCORES
ZUNION 2 z z2
ZDIFF 2 z z2 WITHSCORES
ZRANDMEMBER z1
ZRANDMEMBER z2 2 WITHSCORES
ZRANDMEMBER none 2 WITHSCORES
HRANDFIELD h
HRANDFIELD none
HRANDFIELD h 1
HRANDFIELD h 2 WITHVALUES
HRANDFIELD h -2 WITHVALUES
HRANDFIELD none 2 WITHVALUES
ZRANGE s 0 -1 WITHSCORES
",
    ),
    (
        Downgrade::MapToPairs,
        "
XREAD STREAMS x 0
XREAD COUNT 1 STREAMS x 0
XREAD STREAMS x x 0 1
XREAD STREAMS none 0
XREAD BLOCK 5 STREAMS x 9
XREAD STREAMS x 9
XREADGROUP GROUP grp c STREAMS x >
XREADGROUP GROUP grp c STREAMS x 0
XREADGROUP GROUP grp c NOACK STREAMS x >
XREADGROUP GROUP grp c STREAMS x >; XDEL x 1-1; XREADGROUP GROUP grp c STREAMS x 0
XREADGROUP GROUP grp c STREAMS x >; XREADGROUP GROUP grp c STREAMS x >
XREADGROUP GROUP nogrp c STREAMS x >
",
    ),
    (
        Downgrade::NullArray,
        "
LPOP none 2
RPOP none 2
LPOP l 2
LMPOP 1 none LEFT
LMPOP 1 l LEFT
LMPOP 1 l LEFT COUNT 3
BLMPOP 0.01 1 none LEFT
BLMPOP 0.01 1 l LEFT COUNT 3
BLPOP none 0.01
BLPOP l 0.01
BRPOP none 0.01
BLMOVE none l LEFT RIGHT 0.01
BRPOPLPUSH none l 0.01
BZPOPMIN none 0.01
BZPOPMIN z 0.01
BZPOPMAX z 0.01
ZMPOP 1 none MIN
ZMPOP 1 z MIN COUNT 2
BZMPOP 0.01 1 none MIN
BZMPOP 0.01 1 z MIN COUNT 2
",
    ),
    (
        Downgrade::NullArrayItems,
        "
GEOPOS g P none
GEOPOS g none
GEOPOS none P
",
    ),
    (
        Downgrade::NullArrayLast,
        "
XPENDING x grp
XREADGROUP GROUP grp c STREAMS x >; XPENDING x grp
XPENDING x grp - + 10
XPENDING none grp
",
    ),
];

fn prepared(client: &mut Client, commands: &[&str]) {
    for line in DATA.lines().filter(|line| !line.is_empty()) {
        let reply = client.line(line);
        assert!(!reply.starts_with(b"-"), "{line}: {reply:?}");
    }
    for line in commands {
        client.line(line);
    }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn a_resp2_client_gets_what_redis_says_to_it() {
    let server = Server::start();
    let (mut resp2, mut resp3) = (server.client(2), server.client(3));
    let mut compared = 0;
    for &(rule, lines) in CASES {
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let mut commands: Vec<&str> = line.split(';').collect();
            let command = commands.pop().unwrap();
            prepared(&mut resp2, &commands);
            let want = resp2.line(command);
            prepared(&mut resp3, &commands);
            let native = resp3.line(command);
            let mut got = BytesMut::from(&b"before"[..]);
            downgrade(rule, &native, &mut got).unwrap();
            assert_eq!(
                show(&got),
                show(&[b"before", &want[..]].concat()),
                "{line} by {rule:?}\nRESP3: {}",
                show(&native)
            );
            if !needs_downgrade(rule, &native) {
                assert_eq!(native, want, "{line} needed a downgrade");
            }
            compared += 1;
        }
    }
    assert!(compared > 200, "only {compared}");
}

#[test]
fn what_no_command_of_this_version_answers() {
    for (native, want) in [
        ("|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n", "$1\r\na\r\n"),
        (
            "*2\r\n|1\r\n+a\r\n%1\r\n+b\r\n:1\r\n:1\r\n:2\r\n",
            "*2\r\n:1\r\n:2\r\n",
        ),
        ("!10\r\nERR a\r\nb c\r\n", "-ERR a  b c\r\n"),
        (">2\r\n+message\r\n#t\r\n", "*2\r\n+message\r\n:1\r\n"),
        ("$-1\r\n", "$-1\r\n"),
        ("*-1\r\n", "*-1\r\n"),
        ("*1\r\n*-1\r\n", "*1\r\n*-1\r\n"),
        ("%0\r\n", "*0\r\n"),
    ] {
        let mut got = BytesMut::new();
        downgrade(Downgrade::Generic, native.as_bytes(), &mut got).unwrap();
        assert_eq!(show(&got), show(want.as_bytes()));
    }
}

#[test]
fn malformed_replies_leave_nothing_behind() {
    let rules = CASES.iter().map(|(rule, _)| *rule);
    let wire = b"*3\r\n*2\r\n$1\r\na\r\n,1.5\r\n*2\r\n$1\r\nb\r\n_\r\n%1\r\n+k\r\n!5\r\nERR x\r\n";
    for rule in rules {
        let mut out = BytesMut::from(&b"before"[..]);
        for cut in 0..wire.len() {
            assert_eq!(
                downgrade(rule, &wire[..cut], &mut out),
                Err(WalkError::Truncated),
                "cut at {cut}"
            );
            assert_eq!(&out[..], b"before");
        }
        for at in 0..wire.len() {
            for byte in 0..=255 {
                let mut changed = wire.to_vec();
                changed[at] = byte;
                needs_downgrade(rule, &changed);
                if downgrade(rule, &changed, &mut out).is_err() {
                    assert_eq!(&out[..], b"before");
                }
                out.truncate(6);
            }
        }
        downgrade(rule, wire, &mut out).unwrap();
    }
    assert_eq!(words("a 'b c' ''"), [&b"a"[..], b"b c", b""]);
}
