//! What stands in front of a script or a function library that is not to run on the nodes just as it is.
//!
//! A few lines of Lua (`prelude/*.lua`) come between the script and `redis`, so that every node runs the script itself, at the
//! same place of the order; running it on one node and copying what it did would cost a round trip and a hold of the
//! partition. Of what they do, each script gets the [`Parts`] that it needs:
//!
//! - *moment*: the owner of the command gives the pool's time, and a number by chance, as one more argument.
//! - *clock*: whatever depends on a clock, on chance or on an undefined order is computed from that. So the effect is a function of
//!   the data and the arguments.
//! - *items*: items of a striped queue are called as the nodes call them.
//! - *guard*: a key that may be on other nodes than the declared ones is refused before it is touched.
//! - *publish*: messages are handed to the sidecar, which has the subscribers, with the reply.
//!
//! A library has one more reason: its functions get names that hold the library's digest, so that each version is another
//! library to the nodes, and none can overwrite a newer one.
//!
//! The lines are joined into one and put on the script's first line, so that its errors name the right lines. (A command's
//! error names the line that `redis.call` is called on, which is then the first.)

use std::fmt::Write as _;

use bytes::Bytes;

use super::super::frame::FrameWriter;
use super::super::spec::{Begin, Find, KeyFlags};
use super::super::{Command, CommandTable};
use crate::profile::{KeyRule, Role};
use crate::resp::Args;

const CORE: &str = include_str!("prelude/core.lua");
const MOMENT: &str = include_str!("prelude/moment.lua");
const CLOCK: &str = include_str!("prelude/clock.lua");
const NATIVES: &str = include_str!("prelude/natives.lua");
const ITEMS: &str = include_str!("prelude/items.lua");
const SETTLE: &str = include_str!("prelude/settle.lua");
const GUARD: &str = include_str!("prelude/guard.lua");
const PUBLISH: &str = include_str!("prelude/publish.lua");
const SCRIPT: &str = include_str!("prelude/script.lua");
const LIBRARY: &str = include_str!("prelude/library.lua");

/// Commands that reach beyond the database, or all keys.
const BEYOND: &str = "select move swapdb flushall flushdb migrate";

/// Commands that the clock part puts something in the place of.
const CLOCKED: &str = "expire pexpire set time setex psetex getex ttl pttl restore xadd xtrim spop srandmember hrandfield sort sort_ro \
    zrandmember smembers sinter sunion sdiff hkeys hvals keys hgetall sscan hscan zscan randomkey scan xautoclaim xclaim select flushall \
    flushdb swapdb move migrate config script function client debug acl module cluster replicaof slaveof object info dbsize lastsave role \
    memory latency slowlog hexpire hpexpire hgetex hsetex msetex";

/// What a script gets of the prelude.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Each run is told the pool's time.
    pub moment: bool,
    /// Time, chance and order are the pool's.
    pub clock: bool,
    /// It names what Lua itself has of time and chance.
    pub natives: bool,
    /// Only keys that live with the declared ones may be touched.
    pub guard: bool,
    /// Items live with the queue that it is executed on.
    pub items: bool,
    /// Messages come with the reply.
    pub publish: bool,
    /// It could name commands that reach beyond its database; what is in front of a script refuses them in any case.
    pub bounds: bool,
    /// It names `os`.
    pub os: bool,
}

impl Parts {
    /// Whether there is anything to put in front.
    pub fn any(self) -> bool {
        self.clock || self.guard || self.items || self.publish || self.bounds
    }
}

/// What the guard knows of keys.
#[derive(Debug, Default)]
pub struct Keys {
    /// Where commands have theirs: [`key_specs`].
    pub specs: String,
    /// Where they live: [`rules`].
    pub rules: String,
    /// Commands as the script writes them, of which nothing but the first key is to be looked at: [`plain`].
    pub plain: String,
}

/// A script with its prelude, behind its `#!` line if it has one.
pub fn script(text: &[u8], parts: Parts, keys: &Keys) -> Vec<u8> {
    let (first, rest) = behind_shebang(text);
    let mut out = first.to_vec();
    put(&mut out, &core(parts, keys));
    put(&mut out, &SCRIPT.replace("@OS@", os(parts)));
    if parts.publish {
        out.extend_from_slice(b"return rf_done(function(...) ");
        out.extend_from_slice(rest);
        out.extend_from_slice(b"\nend, ...)");
    } else {
        out.extend_from_slice(rest);
    }
    out
}

/// A library as nodes get it: called `name`, and so that each of its functions has `prefix` in front of its name.
pub fn library(text: &[u8], name: &str, prefix: &str, parts: Parts, keys: &Keys) -> Vec<u8> {
    let (_, rest) = behind_shebang(text);
    let mut out = format!("#!lua name={name}\n").into_bytes();
    put(&mut out, &core(parts, keys));
    put(
        &mut out,
        &LIBRARY.replace("@OS@", os(parts)).replace("@PREFIX@", prefix),
    );
    out.extend_from_slice(rest);
    out
}

/// The name of `os` where a script does not use it: it is not everywhere.
fn os(parts: Parts) -> &'static str {
    if parts.os { "os" } else { "rf_os" }
}

fn core(parts: Parts, keys: &Keys) -> String {
    let mut sections = [const { String::new() }; 3];
    let [at_once, each_run, when_needed] = &mut sections;
    let mut take = |part: &str| {
        let mut section = &mut *at_once;
        for line in part.lines() {
            match line {
                "--@ each run" => section = &mut *each_run,
                "--@ when needed" => section = &mut *when_needed,
                line => section.extend([line, "\n"]),
            }
        }
    };
    if parts.guard {
        let guard = GUARD.replace("@SPECS@", &keys.specs);
        take(&guard.replace("--[[rules]]", &keys.rules));
    }
    if parts.moment {
        take(MOMENT);
    }
    if parts.clock {
        take(&CLOCK.replace("@CLOCKED@", CLOCKED));
    }
    if parts.natives {
        take(NATIVES);
    }
    if parts.items {
        take(&ITEMS.replace("--[[settle]]", if parts.moment { SETTLE } else { "" }));
    }
    if parts.publish {
        take(PUBLISH);
    }
    CORE.replace("--[[plain]]", &keys.plain)
        .replace("@BEYOND@", BEYOND)
        .replace("--[[at once]]", at_once)
        .replace("--[[each run]]", each_run)
        .replace("--[[when needed]]", when_needed)
}

fn put(out: &mut Vec<u8>, lua: &str) {
    let lines = lua.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("--")) {
        out.extend_from_slice(line.as_bytes());
        out.push(b' ');
    }
}

/// A script's `#!` line with its line end, if it has one, and the rest.
fn behind_shebang(text: &[u8]) -> (&[u8], &[u8]) {
    let head = match text.starts_with(b"#!") {
        true => text
            .iter()
            .position(|&b| b == b'\n')
            .map_or(text.len(), |end| end + 1),
        false => 0,
    };
    text.split_at_checked(head).unwrap_or((b"", text))
}

/// A profile's rules, as the guard goes through them: `if find(key,'^bull:(..-):(..-)$') then return (string.gsub(…,'bull:%1')) end`.
pub fn rules(rules: &[KeyRule]) -> String {
    let mut out = String::new();
    for rule in rules {
        let pattern = lua_string(&rule.pattern.lua());
        let by = |template: &[u8]| format!("(string.gsub(key,{pattern},{}))", lua_string(template));
        let route = match (rule.role, &rule.route) {
            (Role::Plain, Some(route)) => by(&route.lua_template(&rule.pattern)),
            // Where an item is, items.lua says; one that is nowhere lives by itself.
            (Role::Item, _) => "key".to_owned(),
            _ => "false".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ok = write!(out, "if find(key,{pattern}) then return {route} end ");
    }
    out
}

/// A text as Lua reads it.
fn lua_string(text: &[u8]) -> String {
    let mut out = String::from("'");
    for &byte in text {
        match byte {
            b' '..=b'~' if byte != b'\'' && byte != b'\\' => out.push(byte as char),
            _ => drop(write!(out, "\\{byte:03}")),
        }
    }
    out.push('\'');
    out
}

/// Of the commands that a script names, as it writes them, those that need no closer look if their first argument is a known key:
/// ` ['ZRANGE']=1,['hmget']=1,`.
pub fn plain<'a>(commands: &CommandTable, named: impl Iterator<Item = &'a str>, parts: Parts) -> String {
    let mut out = String::new();
    for name in named {
        let lower = name.to_ascii_lowercase();
        let is_in = |list: &str| list.split_whitespace().any(|word| word == lower);
        let is_special = is_in(BEYOND)
            || (parts.clock && is_in(CLOCKED))
            || matches!(&*lower, "copy" | "publish" | "spublish");
        let has_one_key = || {
            let command = commands.get(&lower);
            command.and_then(key_spec).is_some_and(|spec| spec == "1")
        };
        if !is_special && (!parts.guard || has_one_key()) {
            // Writing to a string cannot fail.
            let _ok = write!(out, "[{}]=1,", lua_string(name.as_bytes()));
        }
    }
    out
}

/// Where the commands have their keys, as the guard reads it: ` get=1 mset=r1,-1,2,0 zunionstore=r1,0,1,0;n2,3,1 `.
/// Only those that `wanted` wants; what has no keys is left out.
pub fn key_specs(commands: &CommandTable, wanted: impl Fn(&str) -> bool) -> String {
    let mut out = String::from(" ");
    let mut names: Vec<&Command> = commands.iter().collect();
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    names.dedup_by(|b, a| a.name == b.name);
    let mut last_container = "";
    for command in names {
        let (name, container) = match command.name.split_once('|') {
            Some((container, _)) => (container, true),
            None => (&*command.name, false),
        };
        if !wanted(name) {
            continue;
        }
        if let Some(spec) = key_spec(command) {
            // All subcommands that have a key have it at the same place.
            if container && last_container == name {
                continue;
            }
            if container {
                last_container = name;
            }
            // Writing to a string cannot fail.
            let _ok = write!(out, "{name}={spec} ");
        }
    }
    out
}

fn key_spec(command: &Command) -> Option<String> {
    match &*command.name {
        // About all keys.
        "keys" | "scan" | "randomkey" | "dbsize" => return Some("*".into()),
        "sort" | "sort_ro" => return Some("s".into()),
        "georadius" | "georadiusbymember" => {
            return Some("r1,0,1,0;kSTORE,4,0,1,0;kSTOREDIST,4,0,1,0".into());
        }
        _ => {}
    }
    if command.first_key() == Some(1) {
        return Some("1".into());
    }
    let mut rules = Vec::new();
    for spec in command
        .key_specs
        .iter()
        .filter(|s| !s.flags.contains(KeyFlags::NOT_KEY))
    {
        let rule = match (&spec.begin, spec.find) {
            (Begin::Index(begin), Find::Range { last, step, limit }) => {
                format!("r{begin},{last},{step},{limit}")
            }
            (Begin::Index(begin), Find::KeyNum { number, first, step }) => {
                format!("n{},{},{step}", begin + number, begin + first)
            }
            (Begin::Keyword { word, from }, Find::Range { last, step, limit }) => {
                format!("k{word},{from},{last},{step},{limit}")
            }
            _ => continue,
        };
        rules.push(rule);
    }
    (!rules.is_empty()).then(|| rules.join(";"))
}

/// The time and the chance of one run, as the clock part reads them.
pub fn moment(now_ms: u64, chance: u32) -> String {
    format!("{now_ms}:{chance}")
}

/// The call of a script or a function by another name (`EVALSHA <digest>`, `FCALL <function>`), with one more argument if
/// there is a `moment`.
pub fn call(args: &Args<'_>, command: &str, name: &[u8], moment: Option<&str>) -> Bytes {
    let payload: usize = args.iter().skip(2).map(|arg| arg.len() + 16).sum();
    let mut frame = FrameWriter::new(command.as_bytes(), payload + name.len() + 80);
    frame.arg(name).args(args.iter().skip(2));
    if let Some(moment) = moment {
        frame.arg(moment.as_bytes());
    }
    frame.finish()
}

#[cfg(test)]
mod tests;
