//! Keys as we find them against keys as a real server finds them.

use super::super::table::CommandTable;
use super::*;
use crate::resp::walk::{self, Elements};
use crate::testserver::{Client, Sent, Server, words};

/// What `COMMAND GETKEYS` says; `None` for an error.
fn asked(client: &mut Client, command: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let mut ask = words("COMMAND GETKEYS");
    ask.extend_from_slice(command);
    let reply = client.call(&ask);
    let elements = Elements::of(&reply).unwrap()?;
    Some(
        elements
            .map(|key| walk::text(key.unwrap()).unwrap().to_vec())
            .collect(),
    )
}

/// What we say.
fn found(table: &CommandTable, command: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ErrorReply> {
    let sent = Sent::new(command);
    let keys = table.lookup(&sent.args())?.keys(&sent.args())?;
    Ok(keys.iter().map(|&at| command[at as usize].clone()).collect())
}

const FORMS: &[&str] = &[
    "GET k",
    "SET k v EX 10 GET",
    "LPUSH k a b c",
    "MGET a b c",
    "MSET a 1 b 2 c 3",
    "DEL a b",
    "RENAME a b",
    "COPY a b DB 1",
    "BITOP AND d a b",
    "BITFIELD k GET u8 0",
    "OBJECT ENCODING k",
    "OBJECT FREQ k",
    "MEMORY USAGE k SAMPLES 5",
    "XGROUP CREATE k g $ MKSTREAM",
    "XGROUP SETID k g 0",
    "XINFO STREAM k FULL",
    "XADD k * f v",
    "XACK k g 1-1 2-1",
    "EVAL s 0",
    "EVAL s 0 a b",
    "EVAL s 2 a b c",
    "EVALSHA 0000000000000000000000000000000000000000 1 a b",
    "EVAL_RO s 1 a",
    "FCALL f 2 a b c",
    "FCALL_RO f 0",
    "WATCH a b",
    "XREAD STREAMS a 0",
    "XREAD COUNT 2 BLOCK 0 STREAMS a b c 0 0 0",
    "xread streams STREAMS 0",
    "XREAD COUNT 1 STREAMS STREAMS x 0 0",
    "XREADGROUP GROUP g c STREAMS a >",
    "XREADGROUP GROUP g STREAMS STREAMS a b > >",
    "XREADGROUP GROUP g c COUNT 1 NOACK BLOCK 5 STREAMS a >",
    "XREADGROUP GROUP g c CLAIM 10 STREAMS a >",
    "ZUNION 2 a b WITHSCORES",
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
    "ZINTERSTORE d 1 a",
    "ZDIFFSTORE d 2 a b",
    "ZDIFF 1 a",
    "ZINTERCARD 2 a b LIMIT 1",
    "SINTERCARD 2 a b",
    "SINTERCARD 1 a LIMIT 5",
    "SINTERSTORE d a b",
    "SDIFF a b c",
    "ZRANGESTORE d s 0 -1",
    "GEOSEARCHSTORE d s FROMLONLAT 1 1 BYRADIUS 1 km",
    "LMOVE a b LEFT RIGHT",
    "RPOPLPUSH a b",
    "SMOVE a b m",
    "PFMERGE d a b",
    "PFCOUNT a b",
    "LCS a b LEN",
    "LMPOP 2 a b LEFT COUNT 3",
    "BLMPOP 0.5 2 a b RIGHT",
    "ZMPOP 1 a MIN",
    "BZMPOP 0 2 a b MAX",
    "BLPOP a b 0",
    "BRPOP a 0",
    "BLMOVE a b LEFT LEFT 0",
    "BRPOPLPUSH a b 0",
    "BZPOPMIN a b c 0",
    "SORT k",
    "SORT k BY w_* GET o_* GET # LIMIT 0 5 DESC ALPHA STORE d",
    "SORT k STORE d STORE e",
    "SORT k GET STORE STORE d",
    "SORT k BY STORE",
    "SORT k LIMIT 0 STORE d",
    "SORT_RO k BY w_* GET o_*",
    "GEORADIUS k 1 1 1 km",
    "GEORADIUS k 1 1 1 km WITHDIST COUNT 5 ANY STORE d",
    "GEORADIUS k 1 1 1 km STOREDIST d",
    "GEORADIUSBYMEMBER k m 1 km STORE d",
    "GEORADIUS_RO k 1 1 1 km",
    "MIGRATE h 1 k 0 10",
    "MIGRATE h 1 '' 0 10 KEYS a b",
    "MIGRATE h 1 '' 0 10 COPY AUTH KEYS KEYS a b",
    "MIGRATE h 1 '' 0 10 AUTH2 KEYS KEYS KEYS a b",
    "MOVE k 1",
    "DUMP k",
    "RESTORE k 0 x REPLACE",
    "TOUCH a b",
    "EXPIRE k 10 NX",
    "HSET k f v",
    "HSCAN k 0 MATCH STORE",
    "SSCAN k 0",
    "SPOP k 2",
];

#[test]
fn keys_are_those_of_getkeys() {
    let server = Server::start();
    let mut client = server.client(2);
    let table = CommandTable::builtin();
    for form in FORMS {
        let command = words(form);
        assert_eq!(
            found(&table, &command),
            Ok(asked(&mut client, &command).unwrap()),
            "{form}"
        );
    }
    for form in [
        "PING",
        "FLUSHALL",
        "SPUBLISH a b",
        "SSUBSCRIBE a",
        "CLIENT SETNAME a",
        "SCAN 0",
        "SWAPDB 0 1",
    ] {
        let command = words(form);
        assert_eq!(
            (found(&table, &command), asked(&mut client, &command)),
            (Ok(vec![]), None),
            "{form}"
        );
    }
}

/// Every command, with arguments drawn from the words that options are made of.
#[test]
fn keys_are_those_of_getkeys_for_any_arguments() {
    const WORDS: &[&str] = &[
        "a", "b", "c", "1", "2", "3", "0", "-1", "x1", "STORE", "STREAMS", "KEYS", "BY", "GET", "COUNT", "",
    ];
    let server = Server::start();
    let mut client = server.client(2);
    let table = CommandTable::builtin();
    let mut state = 1_u64;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 33) as usize % WORDS.len()].as_bytes().to_vec()
    };
    let mut compared = 0;
    for known in table.iter() {
        // These read their options more closely than the key specs say.
        if matches!(
            known.special,
            Special::Xread
                | Special::Xreadgroup
                | Special::Georadius
                | Special::Georadiusbymember
                | Special::Migrate
        ) {
            continue;
        }
        let name: Vec<Vec<u8>> = known
            .name
            .split('|')
            .map(|part| part.as_bytes().to_vec())
            .collect();
        let least = known.arity.unsigned_abs() as usize;
        for more in 0..if known.arity < 0 { 40 } else { 8 } {
            let mut command = name.clone();
            command.resize_with(if known.arity < 0 { least + more % 8 } else { least }, &mut draw);
            let Some(asked) = asked(&mut client, &command) else {
                continue;
            };
            // Where Redis would not even look at its keys there is an error instead.
            let Ok(found) = found(&table, &command) else {
                continue;
            };
            assert_eq!(
                found,
                asked,
                "{}",
                command
                    .iter()
                    .map(|arg| arg.escape_ascii().to_string() + " ")
                    .collect::<String>()
            );
            compared += 1;
        }
    }
    assert!(compared > 2000, "only {compared} were compared");
}

#[test]
fn what_redis_refuses_is_refused_in_its_words() {
    let server = Server::start();
    let mut client = server.client(2);
    client.call(&words(
        "FUNCTION LOAD '#!lua name=l\nredis.register_function(\"f\", function() return 1 end)'",
    ));
    let table = CommandTable::builtin();
    let mut forms: Vec<String> = Vec::new();
    for form in [
        "EVAL s N a",
        "EVAL_RO s N a",
        "EVALSHA 0000000000000000000000000000000000000000 N a",
        "EVALSHA short N a",
        "FCALL f N a",
        "ZUNION N a",
        "ZINTER N a",
        "ZDIFF N a",
        "ZUNIONSTORE d N a",
        "ZINTERSTORE d N a",
        "ZDIFFSTORE d N a",
        "ZINTERCARD N a",
        "SINTERCARD N a",
        "LMPOP N a LEFT",
        "BLMPOP 1 N a LEFT",
        "ZMPOP N a MIN",
        "BZMPOP 1 N a MIN",
    ] {
        let numbers = [
            "abc",
            "-1",
            "99",
            "' 1'",
            "+1",
            "01",
            "''",
            "9223372036854775807",
            "9223372036854775808",
            "-0",
        ];
        forms.extend(
            numbers
                .iter()
                .map(|number| form.replace(" N ", &format!(" {number} "))),
        );
        if !form.contains("EVAL") && !form.contains("FCALL") {
            forms.push(form.replace(" N ", " 0 "));
        }
    }
    forms.extend(
        [
            "MSET a b c",
            "MSETNX a b c d e",
            "XREAD STREAMS a 0 b",
            "XREAD COUNT 1 STREAMS",
            "XREAD COUNT 1 a 0",
            "XREAD BLOCK 10 COUNT 1",
            "XREAD FOO 1 a 0",
            "XREADGROUP GROUP g c STREAMS a b c",
            "XREADGROUP STREAMS a b c d e",
        ]
        .map(String::from),
    );
    for form in forms {
        let command = words(&form);
        let sent = Sent::new(&command);
        let refused = found(&table, &command).unwrap_err().to_bytes();
        assert_eq!(
            refused.escape_ascii().to_string(),
            client.call(&command).escape_ascii().to_string(),
            "{form}"
        );
        assert!(table.lookup(&sent.args()).is_ok(), "{form}");
    }
}

#[test]
fn destinations_are_what_redis_writes() {
    let table = CommandTable::builtin();
    let written = |form: &str| {
        let command = words(form);
        let sent = Sent::new(&command);
        table
            .lookup(&sent.args())
            .unwrap()
            .keys_written(&sent.args())
            .unwrap()
            .to_vec()
    };
    assert_eq!(written("ZUNIONSTORE d 2 a b"), [1]);
    assert_eq!(written("SORT k BY x STORE d"), [5]);
    assert_eq!(written("GEORADIUS k 1 1 1 km STORE a STOREDIST b"), [9]);
    assert_eq!(written("RENAME a b"), [1, 2]);
    assert_eq!(written("COPY a b"), [2]);
    assert_eq!(written("SINTERSTORE d a b"), [1]);
    assert_eq!(written("EVAL s 1 a"), [3]);
    assert_eq!(written("XREADGROUP GROUP g c STREAMS a >"), [5]);
    assert_eq!(written("MGET a b"), [0; 0]);
    assert_eq!(written("PFCOUNT a b"), [1, 2]);
}

/// Where the key specs are wrong and `GETKEYS` with them: the server itself shows which key it uses.
#[test]
fn options_are_read_as_the_commands_read_them() {
    let server = Server::start();
    let mut client = server.client(2);
    let table = CommandTable::builtin();
    client.line("GEOADD g 1 1 m");
    for (form, key) in [
        ("XREADGROUP COUNT 1 GROUP g STREAMS STREAMS x 0", "x"),
        ("GEORADIUS g 1 1 1 km STORE a STORE b", "b"),
        ("GEORADIUSBYMEMBER g m 1 km STOREDIST a STORE b", "b"),
    ] {
        let command = words(form);
        assert_eq!(
            found(&table, &command).unwrap().last().unwrap(),
            key.as_bytes(),
            "{form}"
        );
        let reply = String::from_utf8(client.call(&command)).unwrap();
        assert!(
            reply.contains("No such key 'x'") || client.line("EXISTS b") == b":1\r\n",
            "{form}: {reply}"
        );
        client.line("DEL a b");
    }
}

#[test]
fn a_class_may_depend_on_the_arguments() {
    let table = CommandTable::builtin();
    let class = |form: &str| {
        let command = words(form);
        let sent = Sent::new(&command);
        table.lookup(&sent.args()).unwrap().class(&sent.args())
    };
    assert_eq!(class("XREAD STREAMS a 0"), Class::Read);
    assert_eq!(class("XREAD STREAMS BLOCK 0"), Class::Read);
    assert_eq!(
        class("XREAD block 0 STREAMS a 0"),
        Class::Blocking(Timeout::Option)
    );
    assert_eq!(class("XREADGROUP GROUP BLOCK BLOCK STREAMS a 0"), Class::Write);
    assert_eq!(
        class("XREADGROUP GROUP g c BLOCK 0 STREAMS a >"),
        Class::Blocking(Timeout::Option)
    );
    assert_eq!(class("SORT k BY w GET g"), Class::Read);
    assert_eq!(class("SORT k store d"), Class::Write);
    assert_eq!(class("BITFIELD k GET u8 0"), Class::Read);
    assert_eq!(class("BITFIELD k incrby u8 0 1"), Class::Write);
    assert_eq!(class("GEORADIUS k 1 1 1 km"), Class::Read);
    assert_eq!(class("GEORADIUS k 1 1 1 km STOREDIST d"), Class::Write);
    assert_eq!(class("BLPOP a 0"), Class::Blocking(Timeout::Last));
}

#[test]
fn patterns_of_sort_are_seen() {
    let others = |form: &str| sort_reads_other_keys(&Sent::new(&words(form)).args());
    assert!(
        others("SORT k BY w_*") && others("SORT k GET # GET o_*->f") && others("SORT_RO k LIMIT 0 1 GET *")
    );
    assert!(!others("SORT k BY nosort GET # STORE a*") && !others("SORT a*") && !others("SORT k BY"));
}
