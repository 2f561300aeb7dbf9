use super::*;
use crate::command::script::analyse;
use crate::testserver::{Server, words};

const WITH_CLOCK: Parts = Parts {
    moment: true,
    clock: true,
    natives: true,
    guard: false,
    items: false,
    publish: false,
    bounds: false,
    os: false,
};

fn specs() -> Keys {
    Keys {
        specs: key_specs(&CommandTable::builtin(), |_| true),
        ..Keys::default()
    }
}

/// Runs a script with the clock on a server that has some data.
fn run(server: &Server, text: &str, moment: &str) -> Vec<u8> {
    let script = script(text.as_bytes(), WITH_CLOCK, &Keys::default());
    let mut client = server.client(3);
    client.line("DEL {t}s {t}k {t}l {t}x {t}h");
    client.line("SADD {t}s a b c d e f g");
    client.line("HSET {t}h a 1 b 2 c 3 d 4");
    let mut args = words("EVAL x 5 {t}s {t}k {t}l {t}x {t}h");
    args[1] = script;
    args.push(moment.as_bytes().to_vec());
    client.call(&args)
}

#[test]
fn two_servers_do_the_same_at_different_times() {
    let servers = [Server::start(), Server::start()];
    for script in [
        "return redis.call('TIME')",
        "redis.call('SET', KEYS[2], 1, 'EX', 1000) return redis.call('PEXPIRETIME', KEYS[2])",
        "redis.call('SETEX', KEYS[2], 1000, 1) return redis.call('PEXPIRETIME', KEYS[2])",
        "redis.call('SET', KEYS[2], 1) redis.call('EXPIRE', KEYS[2], 7, 'NX') return redis.call('PEXPIRETIME', KEYS[2])",
        "redis.call('SET', KEYS[2], 1, 'PX', 900000) return redis.call('PTTL', KEYS[2])",
        "return redis.call('SPOP', KEYS[1])",
        "redis.call('SPOP', KEYS[1], 3) return redis.call('SMEMBERS', KEYS[1])",
        "return redis.call('SRANDMEMBER', KEYS[1], -20)",
        "for _, m in ipairs(redis.call('SMEMBERS', KEYS[1])) do redis.call('RPUSH', KEYS[3], m) end return redis.call('LRANGE', KEYS[3], 0, -1)",
        "return redis.call('XADD', KEYS[4], 'MAXLEN', '~', 5, '*', 'f', 'v')",
        "redis.call('XADD', KEYS[4], '99999999999999-5', 'f', 'v') return redis.call('XADD', KEYS[4], '*', 'f', 'v')",
        "return tostring({}) .. tostring(1.5)",
        "local c = 'ti' return redis.call(c .. 'me')",
        "return redis.pcall('FLUSHALL')",
        "return #ARGV",
        "return tostring(math.random()) .. math.random(5) .. math.random(7, 9)",
        "math.randomseed(5) return math.random(1000000)",
        "return redis.call('HRANDFIELD', KEYS[5], -9, 'WITHVALUES')",
        "redis.call('ZADD', KEYS[3], 1, 'a', 2, 'b', 3, 'c') return redis.call('ZRANDMEMBER', KEYS[3], 2, 'WITHSCORES')",
        "return redis.call('SSCAN', KEYS[1], 0)",
        "return redis.call('HSCAN', KEYS[5], '0', 'COUNT', 3)",
        "redis.setresp(3) return {redis.call('SPOP', KEYS[1]), redis.call('SPOP', KEYS[1], 2), redis.call('SMEMBERS', KEYS[1])}",
        "redis.setresp(3) return {redis.call('HGETALL', KEYS[5]), redis.call('TIME')}",
        "redis.setresp(3) local t = {} for m in pairs(redis.call('SMEMBERS', KEYS[1]).set) do t[#t + 1] = m end return t",
        "redis.call('XADD', KEYS[4], '1-1', 'f', 'v') redis.call('XTRIM', KEYS[4], 'MAXLEN', '~', 0, 'LIMIT', 1) return redis.call('XLEN', KEYS[4])",
        "redis.set_repl(redis.REPL_NONE) return redis.call('INCR', KEYS[2])",
    ] {
        let replies: Vec<Vec<u8>> = servers
            .iter()
            .map(|s| run(s, script, "1900000000123:77"))
            .collect();
        assert_eq!(
            replies[0],
            replies[1],
            "{script}: {}",
            String::from_utf8_lossy(&replies[0])
        );
        let failed = replies[0].starts_with(b"-") && !script.contains("FLUSHALL");
        assert!(!failed, "{script}: {}", String::from_utf8_lossy(&replies[0]));
    }
    assert_eq!(
        run(&servers[0], "return redis.call('TIME')[2]", "1900000000123:77"),
        b"$6\r\n123000\r\n"
    );
    assert_eq!(run(&servers[0], "return #ARGV", "1:1"), b":0\r\n");
}

#[test]
fn a_script_keeps_its_first_line_and_its_line_numbers() {
    let text = script(b"#!lua flags=no-writes\nreturn 1", WITH_CLOCK, &Keys::default());
    assert!(text.starts_with(b"#!lua flags=no-writes\nlocal function"));
    assert_eq!(text.iter().filter(|&&b| b == b'\n').count(), 1);
}

/// What a guarded script with these keys answers.
fn guarded(server: &Server, text: &str, keys: &str) -> String {
    guarded_by(server, text, keys, &specs())
}

fn guarded_by(server: &Server, text: &str, keys: &str, known: &Keys) -> String {
    let parts = Parts {
        guard: true,
        ..Parts::default()
    };
    let mut args = words(&format!("EVAL x {} {keys}", keys.split_whitespace().count()));
    args[1] = script(text.as_bytes(), parts, known);
    String::from_utf8_lossy(&server.client(2).call(&args)).into_owned()
}

/// The guard says the same of keys as the ring does.
#[test]
fn a_profile_says_which_keys_live_together() {
    let server = Server::start();
    let profile = crate::profile::parse(
        "mine",
        r#"
        [[key]]
        pattern = "bull:{queue}:{rest}"
        route = "bull:{queue}"
        [[key]]
        pattern = "%a+.{x}-{y}"
        route = "{y}%{x}"
        [[key]]
        pattern = "list:{name}"
        role = "list"
        "#,
    )
    .unwrap();
    let known = Keys {
        rules: rules(&profile.keys),
        ..specs()
    };
    let space = crate::ring::Keyspace {
        partitions: 16384,
        rules: profile.keys.into(),
    };
    let keys = [
        "bull:a:1",
        "bull:a:2",
        "bull:a:b:c",
        "bull:a{t}:1",
        "bull:b:1",
        "bull:a",
        "%a+.x-bull:a",
        "%a+.1-2",
        "%a+.1-2-3",
        "2%1",
        "{2%1}",
        "{bull:a}",
        "other",
        "{t}",
    ];
    for declared in keys {
        for touched in keys {
            let reply = guarded_by(
                &server,
                &format!("return redis.call('GET', '{touched}')"),
                declared,
                &known,
            );
            let together = space.partition_of(declared.as_bytes()) == space.partition_of(touched.as_bytes());
            assert_eq!(
                !reply.starts_with("-CROSSSLOT"),
                together,
                "{declared} {touched}: {reply}"
            );
        }
    }
    let reply = guarded_by(&server, "return redis.call('LLEN', 'list:a')", "other", &known);
    assert!(reply.starts_with("-CROSSSLOT"), "{reply}");
}

#[test]
fn undeclared_keys_are_told_apart() {
    let server = Server::start();
    for (text, keys) in [
        ("return redis.call('SET', KEYS[1], 1)", "k"),
        ("return redis.call('SET', KEYS[1] .. ':x', 1)", "{t}k"),
        ("return redis.call('SET', 'b{t}', 1)", "a{t}"),
        (
            "local k = KEYS[1] KEYS[1] = 'z' return redis.call('SET', k, 1)",
            "k",
        ),
        ("return redis.call('SET', 5, 1)", "5"),
        ("return redis.call('PING')", ""),
        ("return redis.call('ZUNIONSTORE', KEYS[1], 1, '{t}b')", "{t}a"),
        (
            "return redis.call('SORT', '{t}l', 'BY', '{t}w_*', 'STORE', '{t}d')",
            "{t}a",
        ),
        (
            "return redis.call('XREAD', 'COUNT', 1, 'STREAMS', '{t}s', '0')",
            "{t}a",
        ),
        ("return redis.call('OBJECT', 'ENCODING', '{t}none')", "{t}a"),
        (
            "return redis.call('XGROUP', 'CREATE', '{t}st', 'g', '$', 'MKSTREAM')",
            "{t}a",
        ),
        ("return redis.call('MSET', '{t}a', 'x', '{t}b', 'y')", "{t}a"),
        ("return redis.call('BITOP', 'NOT', '{t}bits', '{t}a')", "{t}a"),
    ] {
        let reply = guarded(&server, text, keys);
        assert!(!reply.starts_with('-'), "{text}: {reply}");
    }
    for (text, keys) in [
        ("return redis.call('SET', 'other', 1)", "k"),
        ("return redis.call('SET', KEYS[1] .. ':x', 1)", "k"),
        ("return redis.call('GET', 'other')", ""),
        ("return redis.call('DEL', KEYS[1], 'other')", "k"),
        ("return redis.call('MSET', KEYS[1], 'other', 'other', 1)", "k"),
        (
            "return redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], 'other')",
            "k",
        ),
        ("return redis.call('ZUNIONSTORE', 'other', 1, KEYS[1])", "k"),
        ("return redis.call('SORT', KEYS[1], 'STORE', 'other')", "k"),
        (
            "return redis.call('SORT', KEYS[1], 'LIMIT', 0, 1, 'BY', 'other*')",
            "k",
        ),
        (
            "return redis.call('XREAD', 'COUNT', 1, 'STREAMS', KEYS[1], 'other', '0', '0')",
            "k",
        ),
        (
            "return redis.call('GEORADIUS', KEYS[1], 1, 1, 1, 'km', 'STORE', 'other')",
            "k",
        ),
        ("return redis.call('OBJECT', 'ENCODING', 'other')", "k"),
        ("return redis.call('BITOP', 'NOT', KEYS[1], 'other')", "k"),
        ("return redis.call('LMPOP', 2, KEYS[1], 'other', 'LEFT')", "k"),
        ("return redis.call('RENAME', KEYS[1], 'other')", "k"),
        ("local ok = redis.pcall('SET', 'other', 1) return ok", "k"),
        ("KEYS[2] = 'other' return redis.call('SET', KEYS[2], 1)", "k"),
    ] {
        let reply = guarded(&server, text, keys);
        assert!(
            reply.starts_with("-CROSSSLOT ") && (reply.contains("'other") || reply.contains("'k:x'")),
            "{text}: {reply}"
        );
    }
    assert!(guarded(&server, "return redis.call('KEYS', '*')", "k").contains("not possible"));
    assert_eq!(server.client(2).line("EXISTS other"), b":0\r\n");
}

#[test]
fn messages_come_with_the_reply() {
    let server = Server::start();
    let parts = Parts {
        publish: true,
        ..Parts::default()
    };
    let run = |text: &str| {
        let mut args = words("EVAL x 0");
        args[1] = script(text.as_bytes(), parts, &Keys::default());
        String::from_utf8_lossy(&server.client(3).call(&args)).replace("\r\n", " ")
    };
    let m = "*3 $7 PUBLISH $1 c $1 m ";
    assert_eq!(
        run("return redis.call('PUBLISH', 'c', 'm')"),
        format!("*2 :0 {m}")
    );
    assert_eq!(run("redis.call('PUBLISH', 'c', 'm')"), format!("*2 _ {m}"));
    assert_eq!(
        run("redis.call('PUBLISH', 'c', 'm') redis.setresp(3) return {double=1.5}"),
        format!("*2 ,1.5 {m}")
    );
    assert_eq!(
        run("redis.call('PUBLISH', 'c', 'm') return {ok='fine'}"),
        format!("*2 +fine {m}")
    );
    assert_eq!(
        run("redis.call('PUBLISH', 'c', 'm') error('oh')"),
        format!("*2 -ERR user_script:1: oh {m}")
    );
    assert_eq!(
        run("redis.call('PUBLISH', 'c', 'm') return redis.call('LPUSH', 'x')")
            .split(" *3")
            .next(),
        Some("*2 -ERR Wrong number of args calling Redis command from script")
    );
    assert!(run("error('oh')").starts_with("-ERR user_script:1: oh"));
    assert_eq!(run("return 1.9 -- a comment"), "*2 :1 *0 ");
}

#[test]
fn a_library_gets_names_of_its_own() {
    let server = Server::start();
    let mut client = server.client(3);
    let text = "#!lua name=mylib\nlocal n = 'f'\nredis.register_function(n, function(keys, args) redis.call('SET', keys[1], args[1]) return {#keys, #args, redis.call('TIME')[1]} end)\n\
        redis.register_function{function_name='ro', callback=function() return redis.call('PING') end, flags={'no-writes'}, description='d'}\n\
        redis.register_function('bad', function() return nothing.at_all end)";
    let parts = Parts {
        moment: true,
        clock: true,
        guard: true,
        ..Parts::default()
    };
    let mut load = words("FUNCTION LOAD x");
    load[2] = library(text.as_bytes(), "rf_1", "rf_1_", parts, &specs());
    assert_eq!(client.call(&load), b"$4\r\nrf_1\r\n");
    let mut call = |line: &str| String::from_utf8_lossy(&client.line(line)).replace("\r\n", " ");
    for _ in 0..2 {
        assert_eq!(
            call("FCALL rf_1_f 1 {t}k v 1900000000123:1"),
            "*3 :1 :1 $10 1900000000 "
        );
    }
    assert_eq!(call("FCALL_RO rf_1_ro 0 1900000000123:1"), "+PONG ");
    let wrong = call("FCALL rf_1_bad 0 1900000000123:1");
    assert!(
        wrong.contains("@user_function:5") && wrong.contains("nothing"),
        "{wrong}"
    );
}

#[test]
fn specs_are_few_for_a_script_that_names_its_commands() {
    let traits = analyse(b"redis.call('GET', KEYS[1] .. 'x') redis.call('mset', 'a', 1)");
    let specs = key_specs(&CommandTable::builtin(), |name| {
        traits.commands.iter().any(|c| **c == *name)
    });
    assert_eq!(specs, " get=1 mset=r1,-1,2,0 ");
}

#[test]
fn no_script_reaches_another_database() {
    let server = Server::start();
    let parts = Parts {
        bounds: true,
        ..Parts::default()
    };
    let run = |text: &str| {
        let mut args = words("EVAL x 0");
        args[1] = script(text.as_bytes(), parts, &Keys::default());
        String::from_utf8_lossy(&server.client(2).call(&args)).into_owned()
    };
    for text in [
        "return redis.call('COPY', 'a', 'b', 'DB', 15)",
        "return redis.call('copy', 'a', 'b', 'REPLACE', 'db', 15)",
        "local c = 'SEL' return redis.pcall(c .. 'ECT', 15)",
        "return redis.call('FlushAll')",
    ] {
        let reply = run(text);
        assert!(
            reply.starts_with("-ERR ") && reply.contains("not possible"),
            "{text}: {reply}"
        );
    }
    assert_eq!(
        run("redis.call('SET', 'a', 1) return redis.call('COPY', 'a', 'b')"),
        ":1\r\n"
    );
}

/// What is made only when it is asked for is asked for by a list of its names.
#[test]
fn every_special_command_is_found() {
    let between = |from: &str, to: &str| {
        let (_, rest) = CLOCK.split_once(from).unwrap();
        rest.split_once(to).unwrap().0
    };
    let mut listed: Vec<&str> = super::CLOCKED.split_whitespace().collect();
    let mut made: Vec<&str> = between("    return {\n", "    }\n")
        .split(',')
        .chain(between("special = {", "}").split(','))
        .filter_map(|entry| entry.split_once(" = "))
        .map(|(name, _)| name.trim().trim_start_matches("['").trim_end_matches("']"))
        .collect();
    made.sort_unstable();
    listed.sort_unstable();
    assert_eq!(made, listed);
}
