use super::*;

fn traits(script: &str) -> ScriptTraits {
    analyse(script.as_bytes())
}

fn differs(script: &str) -> bool {
    traits(script).may_differ()
}

#[test]
fn plain_scripts_run_everywhere() {
    for script in [
        "return redis.call('GET', KEYS[1])",
        "local n = redis.call('INCR', KEYS[1]) if n > 10 then return redis.call('DEL', KEYS[1]) end return n",
        "-- TIME and redis.call(x)\nreturn redis.call('SET', KEYS[1], ARGV[1])",
        "--[[ redis.call('TIME') ]] return redis.pcall(\"hset\", KEYS[1], 'time', ARGV[1])",
        "redis.call('SET', KEYS[1], cjson.encode({a = 1}), 'NX', 'PXAT', ARGV[1])",
        "local call = redis.call; call('LPUSH', KEYS[1], ARGV[1]) return call('LLEN', KEYS[1])",
        "local rcall = redis.call\nlocal t = rcall('ZRANGE', KEYS[1], 0, -1)\nreturn t",
        "return redis.error_reply('use TIME, KEYS or SMEMBERS')",
        "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.status_reply('OK') end",
        "redis.call('XADD', KEYS[1], '5-1', 'f', 'v')",
        "return {KEYS[1], ARGV[1], math.floor(10)}",
        "#!lua name=lib\nredis.register_function('f', function(keys) return redis.call('GET', keys[1]) end)",
        "return redis.call [[GET]]",
        "redis.call('XTRIM', KEYS[1], 'MAXLEN', 1000)",
    ] {
        assert!(!differs(script), "{script}: {:?}", traits(script));
    }
}

#[test]
fn what_differs_is_seen() {
    for script in [
        "redis.call('TIME')",
        "redis.call( \"time\" )",
        "redis.call'TIME'",
        "redis . pcall [==[Time]==]",
    ] {
        assert!(traits(script).names_time_or_random, "{script}");
    }
    for name in [
        "SPOP",
        "srandmember",
        "RANDOMKEY",
        "HRANDFIELD",
        "zrandmember",
        "TTL",
        "PTTL",
        "XADD",
        "XCLAIM",
    ] {
        assert!(
            traits(&format!("return redis.call('{name}', KEYS[1])")).names_time_or_random,
            "{name}"
        );
    }
    for name in [
        "SMEMBERS", "hgetall", "HKEYS", "HVALS", "SUNION", "SINTER", "SDIFF", "KEYS", "SCAN", "SSCAN", "SORT",
    ] {
        assert!(
            traits(&format!("return redis.call('{name}', KEYS[1])")).unordered_reads,
            "{name}"
        );
    }
    for name in [
        "EXPIRE", "pexpire", "SETEX", "PSETEX", "GETEX", "RESTORE", "HEXPIRE", "HSETEX",
    ] {
        assert!(
            traits(&format!("return redis.call('{name}', KEYS[1], 10)")).relative_expiry,
            "{name}"
        );
    }
    for name in ["INFO", "DBSIZE", "MEMORY"] {
        assert!(
            traits(&format!("return redis.call('{name}')")).server_state,
            "{name}"
        );
    }
    assert!(traits("return redis.REDIS_VERSION_NUM").server_state);
    assert!(traits("redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', 1000)").server_state);
    assert!(traits("return os.clock()").names_time_or_random);
    assert!(traits("redis.call('XADD', KEYS[1], '*', 'f', 'v')").names_time_or_random);
    assert!(traits("redis.call('XADD', KEYS[1], '5-*', 'f', 'v')").names_time_or_random);
}

#[test]
fn the_options_of_set_are_read() {
    for options in [
        "'EX', 10",
        "'px', ARGV[2]",
        "ARGV[2], ARGV[3]",
        "'NX', 'EX', 5",
        "unpack(ARGV)",
        "...",
        "'E\\88', 1",
    ] {
        let script = format!("redis.call('SET', KEYS[1], ARGV[1], {options})");
        assert!(traits(&script).relative_expiry, "{script}");
    }
    assert!(traits("redis.call('SET', unpack(ARGV))").relative_expiry);
    assert!(traits("redis.call('SET', KEYS[1], several())").relative_expiry);
    assert!(traits("redis.call('SET', KEYS[1], several(1 + 2))").relative_expiry);
    assert!(traits("redis.call('SET', KEYS[1], (several or other)())").relative_expiry);
    assert!(traits("redis.call('SET', ...)").relative_expiry);
    for several in [
        "string.match(ARGV[1], '(.)(.)(.)')",
        "cmsgpack.unpack(ARGV[1])",
        "string.format('%s', x):gsub('a', 'b')",
        "tostring(x)(y)",
        "redis.call('GET', 'x')(y)",
    ] {
        let script = format!("redis.call('SET', KEYS[1], {several})");
        assert!(traits(&script).relative_expiry, "{script}");
    }
    for renamed in [
        "local tostring = several",
        "local a, tostring = 1, several",
        "local function tostring(x) return x, 'EX', 1 end",
        "function tostring(x) return x, 'EX', 1 end",
        "tostring = several",
        "string.format = several",
        "local function f(tostring) return tostring(1) end",
        "for tostring in several() do f() end",
        "tostring, a = several, 1",
        "local s = string s.format = several",
        "function string.format() return 'EX', 1 end",
    ] {
        let script = format!("{renamed} redis.call('SET', KEYS[1], tostring(x))");
        assert!(traits(&script).unclear, "{script}");
    }
    for same in [
        "local n = tostring(1)",
        "if tostring(1) == '1' then f() end",
        "t.string = 1",
    ] {
        let script = format!("{same} redis.call('SET', KEYS[1], tostring(x))");
        assert!(!traits(&script).unclear, "{script}");
    }
    for one in [
        "n + several()",
        "cjson.encode(f(1))",
        "tostring((x))",
        "redis.call('GET', KEYS[2])",
    ] {
        let script = format!("redis.call('SET', KEYS[1], {one})");
        assert!(!differs(&script), "{script}");
    }
    assert!(!differs("redis.call('SET', KEYS[1], n or several())"));
    for options in ["'KEEPTTL'", "'EXAT', ARGV[2]", "'nx', 'get'"] {
        let script = format!("redis.call('SET', KEYS[1], f(1, {{2, 3}}) .. 'EX', {options})");
        assert!(!differs(&script), "{script}");
    }
}

#[test]
fn no_text_takes_long() {
    for part in [
        "redis.call('a',",
        "redis.call('set',{",
        "local a=redis.call a('x',1) ",
        "local a=redis.call ",
        "local a={'x'} redis.call(unpack(a)) redis.call(ARGV[1])",
    ] {
        let text = part.repeat(SCRIPT_BYTES_MAX / part.len());
        let start = std::time::Instant::now();
        assert!(analyse(text.as_bytes()).unclear, "{part}");
        assert!(touches_only_declared(text.as_bytes(), &CommandTable::builtin()).is_none());
        // Seconds, if each call or each name were compared with all of the text.
        assert!(
            start.elapsed().as_millis() < 3000,
            "{part}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn hidden_names_are_unclear() {
    for script in [
        "redis.call(ARGV[1], KEYS[1])",
        "redis.call('TI' .. 'ME')",
        "redis.call('\\84IME')",
        "redis.call(('emit'):reverse())",
        "redis['call']('TIME')",
        "local r = redis r.call('TIME')",
        "local c = redis.call c(ARGV[1])",
        "local c = redis.call return pcall(c, 'TIME')",
        "local c = redis.call or 1",
        "t = {c = redis.call} t['c']('TIME')",
        "c = redis.call c('TIME')",
        "return pcall(redis.call, 'TIME')",
        "(redis.call)('TIME')",
        "redis.call{'TIME'}",
        "_G['redis'].call('TIME')",
        "loadstring('return redis.call(\"TIME\")')()",
        "server[f]('TIME')",
        "#!js name=lib\nredis.call('get')",
    ] {
        assert!(traits(script).unclear, "{script}");
    }
    assert!(analyse(&vec![b' '; SCRIPT_BYTES_MAX + 1]).unclear);
}

#[test]
fn commands_are_listed_once() {
    let found = traits(
        "local c = redis.call\nc('GET', 1) redis.call('set', 1, 2) redis.pcall('Get', c('LLEN', 'l'))",
    );
    assert_eq!(found.commands, ["get", "llen", "set"].map(Box::from));
    assert!(!found.may_differ());
}

#[test]
fn broken_lua_is_read_to_its_end() {
    for script in [
        "'",
        "\"\\",
        "[[",
        "[==[ ]=]",
        "--",
        "--[[",
        "redis",
        "redis.",
        "redis.call",
        "redis.call(",
        "[=",
        "]]",
    ] {
        let _traits = traits(script);
    }
}

#[test]
fn the_first_line_is_read() {
    assert_eq!(shebang(b"return 1"), None);
    let line = shebang(b"#!lua name=lib flags=no-writes,allow-stale\nreturn 1").unwrap();
    assert_eq!(
        (line.engine, line.name, line.no_writes),
        (&b"lua"[..], Some(&b"lib"[..]), true)
    );
    assert!(!line.allow_oom && !line.allow_cross_slot_keys);
    let line = shebang(b"#!lua flags=allow-oom,allow-cross-slot-keys").unwrap();
    assert!(line.allow_oom && line.allow_cross_slot_keys && !line.no_writes && line.name.is_none());
}

#[test]
fn scripts_that_only_touch_declared_keys_are_told() {
    let commands = CommandTable::builtin();
    let only_declared = |text: &str| touches_only_declared(text.as_bytes(), &commands).is_some();
    for text in [
        "return 1",
        "return redis.call('PING')",
        "return redis.call('GET', KEYS[1])",
        "return redis.call('SET', KEYS[#KEYS], ARGV[1], 'EX', ARGV[2])",
        "local key = KEYS[1] if redis.call('GET', key) == ARGV[1] then return redis.call('DEL', key) end return 0",
        "local a, b = KEYS[1], KEYS[2]\nlocal x = redis.call('LPOP', a) if x then redis.call('RPUSH', b, x) end",
        "for i, key in ipairs(KEYS) do redis.call('SADD', key, ARGV[i]) end",
        "local a, b = KEYS[1], KEYS[2] for _, k in ipairs({a, b, KEYS[3]}) do redis.call('EXPIRE', k, ARGV[1]) end",
        "for i = 1, #KEYS do redis.call('SADD', KEYS[i], unpack(ARGV)) end",
        "return redis.call('DEL', unpack(KEYS))",
        "return redis.call('MSET', KEYS[1], ARGV[1] , KEYS[2], 'x')",
        "local call = redis.call return call('HSET', KEYS[1], f(ARGV[1]), g())",
        "local rcall = redis.call; local t = rcall('XPENDING', KEYS[1], 'g') return t",
        "return redis.call('XGROUP', 'CREATE', KEYS[1], 'g', '$')",
        "if KEYS[1] == KEYS[2] then return redis.call('LLEN', KEYS[1]) end",
        "return redis.call('BITOP', 'AND', KEYS[1], KEYS[2])",
        "local function f(k) return k end return redis.call('GET', KEYS[tonumber(ARGV[1])])",
    ] {
        assert!(only_declared(text), "{text}");
    }
    for text in [
        "return redis.call('GET', 'k')",
        "return redis.call('GET', ARGV[1])",
        "return redis.call('GET', KEYS[1] .. ':x')",
        "return redis.call('GET', prefix .. KEYS[1])",
        "local key = KEYS[1] key = 'other' return redis.call('GET', key)",
        "local key = KEYS[1] key, other = 1, 2 return redis.call('GET', key)",
        "local key = KEYS[1] other, key = 1, 2 return redis.call('GET', key)",
        "local key = KEYS[1] local function f(key) return redis.call('GET', key) end return f('x')",
        "local key = KEYS[1] for key in pairs(t) do redis.call('GET', key) end",
        "local key = KEYS[1] .. 'x' return redis.call('GET', key)",
        "local a, b = KEYS[1] return redis.call('GET', b)",
        "local a, b = f(), KEYS[1] return redis.call('GET', a)",
        "local a = KEYS[1] for _, k in ipairs({a, b}) do redis.call('GET', k) end",
        "local a = KEYS[1] for _, k in ipairs({a, a .. 'x'}) do redis.call('GET', k) end",
        "local a = KEYS[1] a = 'x' for _, k in ipairs({a}) do redis.call('GET', k) end",
        "local a = KEYS[1] for _, k in ipairs({a}, f()) do redis.call('GET', k) end",
        "for _, k in ipairs({KEYS[1], f()}) do redis.call('GET', k) end",
        "for _, k in ipairs({KEYS[1]}) do k = 'x' redis.call('GET', k) end",
        "KEYS[1] = 'x' return redis.call('GET', KEYS[1])",
        "KEYS[1], x = 'x', 1 return redis.call('GET', KEYS[1])",
        "KEYS = {'x'} return redis.call('GET', KEYS[1])",
        "local KEYS = {'x'} return redis.call('GET', KEYS[1])",
        "local k = KEYS k[1] = 'x' return redis.call('GET', KEYS[1])",
        "table.insert(KEYS, 'x') return redis.call('GET', KEYS[2])",
        "rawset(KEYS, 1, 'x') return redis.call('GET', KEYS[1])",
        "local f, t = ipairs(KEYS) t[1] = 'x' return redis.call('GET', KEYS[1])",
        "local ipairs = evil for _, k in ipairs(KEYS) do redis.call('GET', k) end",
        "return redis.call('DEL', KEYS[1], unpack(ARGV))",
        "return redis.call('DEL', unpack(ARGV))",
        "return redis.call('MSET', KEYS[1], f())",
        "return redis.call('MSET', KEYS[1], unpack(ARGV))",
        "return redis.call('GET', (KEYS[1]))",
        "return redis.call('GET', KEYS[1][KEYS[2]])",
        "return redis.call('GET', KEYS[1], KEYS[2]) .. redis.call('GET', 'x')",
        "return redis.call('KEYS', '*')",
        "return redis.call('SORT', KEYS[1], 'STORE', 'x')",
        "return redis.call('ZUNIONSTORE', KEYS[1], 1, 'x')",
        "return redis.call('XREAD', 'STREAMS', 'x', '0')",
        "return redis.call('OBJECT', ARGV[1], 'x')",
        "return redis.call('NOSUCH', KEYS[1])",
        "return redis.call(ARGV[1], KEYS[1])",
        "return redis.call('BITOP', f(), KEYS[1], KEYS[2])",
        "redis['call']('GET', KEYS[1])",
        "loadstring('KEYS[1] = 1')() return redis.call('GET', KEYS[1])",
    ] {
        assert!(!only_declared(text), "{text}");
    }
}

#[test]
fn a_command_is_read_off_its_table() {
    let commands = CommandTable::builtin();
    let told = |text: &str| {
        let traits = traits(text);
        let keys = touches_only_declared(text.as_bytes(), &commands);
        (!traits.unclear).then_some((traits.commands.join(" "), keys))
    };
    let zaqar = "local index_key = KEYS[1] local counter_key = KEYS[2] local n = tonumber(redis.call('GET', counter_key) or 1)
        local zadd_args = {'ZADD', index_key}
        for i = 0, 5 do zadd_args[#zadd_args+1] = n + i zadd_args[#zadd_args+1] = ARGV[2 + i] end
        redis.call(unpack(zadd_args)) return redis.call('SET', counter_key, n)";
    assert_eq!(told(zaqar), Some(("get set zadd".into(), Some(1))));
    for (text, keys) in [
        ("local t = {'del', KEYS[2]} return redis.call(unpack(t))", None),
        ("local t = {'GET', KEYS[2]} return redis.call(unpack(t))", Some(2)),
        ("local t = {'GET', KEYS[0]} return redis.call(unpack(t))", None),
        ("local t = {'GET', KEYS[i]} return redis.call(unpack(t))", None),
        ("local t = {'GET', ARGV[1]} return redis.call(unpack(t))", None),
        (
            "local a, b = KEYS[3], KEYS[1] local t = {'SADD', a, 1} table.insert(t, ARGV[1]) t[#t + 1] = f() return #t, redis.call(unpack(t))",
            Some(3),
        ),
        (
            "local t = {'MSET', KEYS[1], 1} return redis.call(unpack(t))",
            None,
        ),
        (
            "local c = redis.call local t = {'XADD', KEYS[1], '5-1', 'f', 'v'} return c(unpack(t))",
            Some(1),
        ),
        (
            "local t = {'RPUSH', KEYS[1]} for _, k in ipairs({KEYS[1]}) do redis.call('LPUSH', k, 1) redis.call(unpack(t)) end",
            Some(1),
        ),
    ] {
        assert_eq!(told(text).map(|(_, keys)| keys), Some(keys), "{text}");
    }
    for text in [
        "local t = {ARGV[1], KEYS[1]} return redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} t[1] = 'SPOP' return redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} t[#t] = 'SPOP' return redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} t[#u + 1] = 'SPOP' return redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} t[#t + 1], t[1] = 1, 2 return redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} t = x return redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} for t in f() do redis.call(unpack(t)) end",
        "local t = {'GET', KEYS[1]} local function f(t) redis.call(unpack(t)) end f(u)",
        "local t = {'GET', KEYS[1]} local u = t u[1] = 'SPOP' redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} f(t) redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} table.insert(t, 1, 'SPOP') redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} table.insert(t, f()) redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} table.insert(t, ...) redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} table.insert(t, unpack(ARGV)) redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} table.remove(t, 1) redis.call(unpack(t))",
        "local t = {'GET', f()} redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]}.x redis.call(unpack(t), unpack(t))",
        "local t = {'GET', KEYS[1]} redis.call(unpack(t, 2))",
        "local t = {'GET', KEYS[1]} redis.call(unpack(t), 1)",
        "local t = {'GET', [1] = 'SPOP'} redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} local unpack = f redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} unpack = f redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} local table = f table.insert(t, 1) redis.call(unpack(t))",
        "x.t[#t + 1] = 5 local t = {'GET', KEYS[1]} redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} and f() redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} x.unpack(t) redis.call(unpack(t))",
        "local t = {'GET', KEYS[1]} x.table.insert(t, 1) redis.call(unpack(t))",
        "table.insert = f local t = {'GET', KEYS[1]} table.insert(t, 1) redis.call(unpack(t))",
        "redis.call(unpack(ARGV))",
    ] {
        assert_eq!(told(text), None, "{text}");
    }
}

#[test]
fn no_proof_takes_long() {
    let commands = CommandTable::builtin();
    for part in [
        "KEYS[",
        "function ",
        "a,",
        "local local,",
        "a,b=",
        "redis.call('OBJECT', 'x', KEYS[1]) ",
        "local a=KEYS[1] ",
        "for a,b in ipairs(KEYS) ",
        "local t={'zadd',KEYS[1]} ",
        "local t={'zadd',KEYS[1]} redis.call(unpack(t)) ",
        "t[#t+1]=1 ",
    ] {
        let text = part.repeat(SCRIPT_BYTES_MAX / part.len());
        let start = std::time::Instant::now();
        touches_only_declared(text.as_bytes(), &commands);
        assert!(
            start.elapsed().as_millis() < 3000,
            "{part}: {:?}",
            start.elapsed()
        );
    }
}
