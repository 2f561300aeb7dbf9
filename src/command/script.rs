//! Whether a script may have another effect on another server with the same data, as far as its text tells.
//!
//! Most scripts may run as they are on every node. One that asks for the time, draws at random, reads a set (whose order
//! differs between servers) or sets a relative expiry may not. Which commands a script runs is read off its calls:
//! `redis.call` with a literal name, directly or through `local call = redis.call`. Any other use of `redis.call`, and
//! anything that could hide one (a computed name, `loadstring`, `_G`, another engine than Lua), makes the script
//! *unclear*, which counts as everything. So the answer errs on one side only; what the text cannot tell is a table's
//! address (`tostring({})`) used as data.
//!
//! The tokens of Lua are taken apart properly, so a name in a comment or in a message does not count.

mod lua;
pub mod shim;

use lua::{Token, tokens};

/// Longest script that is looked at; a longer one is unclear. Twice the size of a very large function library.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// What a script's text tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptTraits {
    /// The commands that it runs cannot all be told.
    pub unclear: bool,
    /// It could reach commands by a way that a table in place of `redis` does not see, or is not in Lua.
    pub hidden: bool,
    /// It names a command (or function) whose result depends on a clock or on chance, idle times and new ids included.
    pub names_time_or_random: bool,
    /// It names a command whose reply has no defined order.
    pub unordered_reads: bool,
    /// It sets an expiry counted from now.
    pub relative_expiry: bool,
    /// It names a command about the server instead of the data.
    pub server_state: bool,
    /// The commands that it names, in lower case, sorted.
    pub commands: Vec<Box<str>>,
}

impl ScriptTraits {
    /// Whether two servers with the same data might differ after it, or in the reply.
    pub fn may_differ(&self) -> bool {
        self.unclear
            || self.names_time_or_random
            || self.unordered_reads
            || self.relative_expiry
            || self.server_state
    }
}

/// The first line of a script that has one: `#!lua name=lib flags=no-writes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shebang<'a> {
    /// What the script is written in.
    pub engine: &'a [u8],
    /// The library's name, for `FUNCTION LOAD`.
    pub name: Option<&'a [u8]>,
    /// `no-writes`: it changes nothing.
    pub no_writes: bool,
    /// `allow-oom`: it also runs on a server that is out of memory.
    pub allow_oom: bool,
    /// `allow-cross-slot-keys`: its keys need not belong together.
    pub allow_cross_slot_keys: bool,
}

/// Reads the first line of a script, if it starts with `#!`. What Redis would refuse in it is left to Redis.
pub fn shebang(text: &[u8]) -> Option<Shebang<'_>> {
    let line = text.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let mut read = Shebang {
        engine: words.next()?,
        name: None,
        no_writes: false,
        allow_oom: false,
        allow_cross_slot_keys: false,
    };
    for word in words {
        if let Some(name) = word.strip_prefix(b"name=") {
            read.name = Some(name);
        } else if let Some(flags) = word.strip_prefix(b"flags=") {
            for flag in flags.split(|&byte| byte == b',') {
                match flag {
                    b"no-writes" => read.no_writes = true,
                    b"allow-oom" => read.allow_oom = true,
                    b"allow-cross-slot-keys" => read.allow_cross_slot_keys = true,
                    _ => {}
                }
            }
        }
    }
    Some(read)
}

/// What the text of a script, or of a function library, tells.
pub fn analyse(text: &[u8]) -> ScriptTraits {
    let mut traits = ScriptTraits::default();
    let foreign = shebang(text).is_some_and(|line| !line.engine.eq_ignore_ascii_case(b"lua"));
    if foreign || text.len() > SCRIPT_BYTES_MAX {
        traits.unclear = true;
        traits.hidden = true;
        return traits;
    }
    let tokens = tokens(text);
    let aliases = aliases(&tokens);
    if aliases.len() > ALIASES_MAX {
        traits.unclear = true;
        return traits;
    }
    let mut rest = tokens.as_slice();
    while let Some((&token, after)) = rest.split_first() {
        let at = tokens.len() - rest.len();
        rest = after;
        // Valkey's second name for `redis`, which stays out of the shim's sight.
        traits.hidden |= token == Token::Word(b"server");
        match (token, after) {
            (Token::Word(b"redis" | b"server"), [Token::Mark(b'.'), Token::Word(field), after @ ..]) => {
                rest = after;
                match *field {
                    b"call" | b"pcall" => traits.call(after, aliases.iter().any(|alias| alias.value == at)),
                    b"REDIS_VERSION" | b"REDIS_VERSION_NUM" | b"SERVER_NAME" | b"VALKEY_VERSION" => {
                        traits.server_state = true;
                    }
                    _ => {}
                }
            }
            (Token::Word(b"redis" | b"server"), _) => traits.unclear = true,
            (
                Token::Word(b"_G" | b"getfenv" | b"setfenv" | b"load" | b"loadstring" | b"dofile" | b"debug"),
                _,
            ) => {
                traits.unclear = true;
                traits.hidden = true;
            }
            // A table's address, as text.
            (Token::Word(b"tostring"), [Token::Mark(b'('), Token::Mark(b'{'), ..]) => {
                traits.names_time_or_random = true;
            }
            (Token::Word(b"os"), _) => traits.names_time_or_random = true,
            (Token::Word(b"collectgarbage"), _) => traits.server_state = true,
            (Token::Word(word), after) if aliases.iter().any(|alias| alias.name == word) => {
                traits.call(after, aliases.iter().any(|alias| alias.value == at + 2));
            }
            _ => {}
        }
    }
    traits.commands.sort_unstable();
    traits.commands.dedup();
    traits
}

impl ScriptTraits {
    /// Takes in one use of `redis.call`, given what follows it. `defines` if it is only given another name.
    fn call(&mut self, after: &[Token<'_>], defines: bool) {
        match after {
            [Token::Text(name), ..] => self.command(name, &[]),
            [Token::Mark(b'('), Token::Text(name), Token::Mark(b')' | b','), ..] => {
                match arguments(after.split_first().map_or(&[], |(_, inside)| inside)) {
                    Some(args) => self.command(name, &args),
                    None => self.unclear = true,
                }
            }
            _ if defines => {}
            _ => self.unclear = true,
        }
    }

    fn command(&mut self, name: &[u8], args: &[&[Token<'_>]]) {
        let name = name.to_ascii_lowercase();
        match name.as_slice() {
            b"time" | b"spop" | b"srandmember" | b"randomkey" | b"hrandfield" | b"zrandmember" | b"ttl"
            | b"pttl" | b"httl" | b"hpttl" | b"xclaim" | b"xautoclaim" | b"xreadgroup" | b"xpending"
            | b"xinfo" | b"object" => {
                self.names_time_or_random = true;
            }
            b"xadd" => {
                self.names_time_or_random |=
                    !matches!(args.get(2), Some([Token::Text(id)]) if is_entry_id(id))
            }
            b"smembers" | b"hgetall" | b"hkeys" | b"hvals" | b"sunion" | b"sinter" | b"sdiff" | b"keys"
            | b"scan" | b"sscan" | b"hscan" | b"zscan" | b"sort" | b"sort_ro" | b"dump" => {
                self.unordered_reads = true
            }
            b"expire" | b"pexpire" | b"setex" | b"psetex" | b"getex" | b"restore" | b"hexpire"
            | b"hpexpire" | b"hgetex" | b"hsetex" | b"msetex" => self.relative_expiry = true,
            // How much `~` leaves depends on a setting of the server.
            b"xtrim" => {
                self.server_state |=
                    !matches!(args.get(3), Some([Token::Text(limit) | Token::Word(limit)]) if *limit != b"~");
            }
            b"set" => self.relative_expiry |= !set_is_absolute(args),
            b"info" | b"dbsize" | b"memory" | b"config" | b"client" | b"command" | b"debug" | b"role"
            | b"acl" | b"slowlog" | b"latency" | b"publish" | b"spublish" | b"pubsub" | b"cluster"
            | b"function" | b"script" | b"module" | b"lolwut" | b"lastsave" | b"wait" | b"waitaof" => {
                self.server_state = true
            }
            _ => {}
        }
        match String::from_utf8(name) {
            // An escape may spell anything.
            Ok(name) if !name.contains('\\') => self.commands.push(name.into()),
            _ => self.unclear = true,
        }
    }
}

/// Whether a `SET` surely sets no relative expiry. Its options must be there to be read.
fn set_is_absolute(args: &[&[Token<'_>]]) -> bool {
    let [_, key, value, options @ ..] = args else {
        return false;
    };
    if spreads(key) || spreads(value) || (options.is_empty() && may_be_several(value)) {
        return false;
    }
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let [Token::Text(option)] = option else {
            return false;
        };
        match option.to_ascii_lowercase().as_slice() {
            b"nx" | b"xx" | b"get" | b"keepttl" => {}
            b"exat" | b"pxat"
                if options
                    .next()
                    .is_some_and(|time| !spreads(time) && !may_be_several(time)) => {}
            _ => return false,
        }
    }
    true
}

/// Whether an argument becomes as many as a table or the caller had.
fn spreads(arg: &[Token<'_>]) -> bool {
    arg.contains(&Token::Word(b"unpack")) || arg.starts_with(&[Token::Mark(b'.'), Token::Mark(b'.')])
}

/// Whether an argument is a call of something that may return several values.
fn may_be_several(arg: &[Token<'_>]) -> bool {
    let harmless = matches!(
        arg.first(),
        Some(Token::Word(
            b"cjson" | b"cmsgpack" | b"tostring" | b"tonumber" | b"string" | b"math" | b"table" | b"redis"
        ))
    );
    arg.last() == Some(&Token::Mark(b')')) && !harmless
}

/// Whether a stream entry's id is written out in full.
fn is_entry_id(id: &[u8]) -> bool {
    let mut parts = id.split(|&byte| byte == b'-');
    let number = |part: Option<&[u8]>| {
        part.is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

/// The arguments of a call, from behind its opening bracket on.
fn arguments<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<Vec<&'t [Token<'a>]>> {
    let tokens = tokens.get(..CALL_TOKENS_MAX).unwrap_or(tokens);
    let mut depth = 0_usize;
    let mut end = None;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark(b'(' | b'{' | b'[') => depth += 1,
            Token::Mark(b')' | b'}' | b']') if depth == 0 => {
                end = Some(i);
                break;
            }
            Token::Mark(b')' | b'}' | b']') => depth -= 1,
            _ => {}
        }
    }
    let (inside, _) = tokens.split_at_checked(end?)?;
    let arguments = inside.split(|token| {
        match token {
            Token::Mark(b'(' | b'{' | b'[') => depth += 1,
            Token::Mark(b')' | b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == Token::Mark(b',')
    });
    Some(arguments.collect())
}

/// Most tokens of one call that are looked at: without a bound, calls within calls would be looked at again and again.
const CALL_TOKENS_MAX: usize = 256;

/// Most other names of `redis.call` that are kept track of.
const ALIASES_MAX: usize = 16;

/// Another name of `redis.call`.
struct Alias<'a> {
    name: &'a [u8],
    /// Which token the `redis` is that it is defined by.
    value: usize,
}

/// The names under which `redis.call` also goes: `local call = redis.call`. A local name cannot be reached by its text.
fn aliases<'a>(tokens: &[Token<'a>]) -> Vec<Alias<'a>> {
    let mut aliases = Vec::new();
    let mut rest = tokens;
    while let Some((_, behind)) = rest.split_first() {
        if let [
            Token::Word(b"local"),
            Token::Word(name),
            Token::Mark(b'='),
            Token::Word(b"redis" | b"server"),
            Token::Mark(b'.'),
            Token::Word(b"call" | b"pcall"),
            after @ ..,
        ] = rest
            && ends_statement(after.first())
        {
            aliases.push(Alias {
                name,
                value: tokens.len() - rest.len() + 3,
            });
        }
        rest = behind;
    }
    aliases
}

/// Whether an expression ends before this token, so that what was before it is the whole of it.
fn ends_statement(token: Option<&Token<'_>>) -> bool {
    match token {
        None | Some(Token::Mark(b';')) => true,
        Some(Token::Word(word)) => !matches!(*word, b"and" | b"or"),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
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
            "return {KEYS[1], ARGV[1], math.random(10)}",
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
            "SMEMBERS", "hgetall", "HKEYS", "HVALS", "SUNION", "SINTER", "SDIFF", "KEYS", "SCAN", "SSCAN",
            "SORT",
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
        for name in ["INFO", "DBSIZE", "PUBLISH", "MEMORY"] {
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
        assert!(traits("redis.call('SET', ...)").relative_expiry);
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
        ] {
            let text = part.repeat(SCRIPT_BYTES_MAX / part.len());
            let start = std::time::Instant::now();
            assert!(analyse(text.as_bytes()).unclear, "{part}");
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
}
