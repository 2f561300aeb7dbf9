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

mod calls;
mod declared;
mod lua;
pub mod payload;
pub mod prelude;
mod shebang;
mod tables;

use super::CommandTable;
use calls::{Aliases, is_entry_id, renames_natives, set_is_absolute};
use lua::{Token, tokens};
pub use shebang::{Shebang, shebang};
use tables::Tables;

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
    /// It names `os`.
    pub names_os: bool,
    /// It names `os`, `math` or `tostring`.
    pub names_natives: bool,
    /// The commands that it names, in lower case, sorted.
    pub commands: Vec<Box<str>>,
    /// The same as it writes them.
    pub written: Vec<Box<str>>,
}

impl ScriptTraits {
    /// Whether it may publish messages.
    pub fn may_publish(&self) -> bool {
        self.unclear
            || self
                .commands
                .iter()
                .any(|name| matches!(&**name, "publish" | "spublish"))
    }

    /// Whether two servers with the same data might differ after it, or in the reply.
    pub fn may_differ(&self) -> bool {
        self.unclear
            || self.names_time_or_random
            || self.unordered_reads
            || self.relative_expiry
            || self.server_state
    }
}

/// Whether the text of a script proves that it touches only keys which it declares, if it is given so many of them at least.
pub fn touches_only_declared(text: &[u8], commands: &CommandTable) -> Option<usize> {
    let tokens = tokens(text);
    let aliases = Aliases::of(&tokens);
    if analyse(text).unclear {
        return None;
    }
    declared::only_declared(&tokens, &aliases, commands)
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
    let aliases = Aliases::of(&tokens);
    if aliases.too_many() {
        traits.unclear = true;
        return traits;
    }
    traits.unclear |= renames_natives(&tokens);
    let tables = Tables::of(&tokens);
    let mut rest = tokens.as_slice();
    while let Some((&token, after)) = rest.split_first() {
        let at = tokens.len() - rest.len();
        rest = after;
        traits.names_natives |= matches!(token, Token::Word(b"os" | b"math" | b"tostring"));
        // Valkey's second name for `redis`, which stays out of the shim's sight.
        traits.hidden |= token == Token::Word(b"server");
        match (token, after) {
            (Token::Word(b"redis" | b"server"), [Token::Mark(b'.'), Token::Word(field), after @ ..]) => {
                rest = after;
                match *field {
                    b"call" | b"pcall" => traits.call(after, &tables, aliases.defined_at(at)),
                    b"REDIS_VERSION" | b"REDIS_VERSION_NUM" | b"SERVER_NAME" | b"VALKEY_VERSION" => {
                        traits.server_state = true;
                    }
                    // What is not replicated would not be in a node's append-only file either.
                    b"set_repl" => traits.names_time_or_random = true,
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
            // The address of a table, or of a function, as text.
            (
                Token::Word(b"tostring"),
                [
                    Token::Mark(b'('),
                    Token::Mark(b'{') | Token::Word(b"function" | b"coroutine"),
                    ..,
                ],
            ) => {
                traits.names_time_or_random = true;
            }
            (Token::Word(b"os"), _) => {
                traits.names_time_or_random = true;
                traits.names_os = true;
            }
            // The generator goes on from one script to the next, so each server's is elsewhere.
            (Token::Word(b"math"), [Token::Mark(b'.'), Token::Word(name), ..]) => {
                traits.names_time_or_random |= matches!(*name, b"random" | b"randomseed");
            }
            (Token::Word(b"math"), _) => traits.names_time_or_random = true,
            (Token::Word(b"collectgarbage" | b"gcinfo"), _) => traits.server_state = true,
            (Token::Word(word), after) if aliases.has(word) => {
                traits.call(after, &tables, aliases.defined_at(at + 2));
            }
            _ => {}
        }
    }
    for names in [&mut traits.commands, &mut traits.written] {
        names.sort_unstable();
        names.dedup();
    }
    traits
}

impl ScriptTraits {
    /// Takes in one use of `redis.call`, given what follows it. `defines` if it is only given another name.
    fn call<'t, 'a>(&mut self, after: &'t [Token<'a>], tables: &Tables<'t, 'a>, defines: bool) {
        match (after, tables.call(after)) {
            ([Token::Text(name), ..], _) => self.command(name, &[]),
            (_, Some(call)) => self.command(call.name, &call.args),
            _ if defines => {}
            _ => self.unclear = true,
        }
    }

    fn command(&mut self, written: &[u8], args: &[&[Token<'_>]]) {
        let name = written.to_ascii_lowercase();
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
            | b"acl" | b"slowlog" | b"latency" | b"pubsub" | b"cluster" | b"function" | b"script"
            | b"module" | b"lolwut" | b"lastsave" | b"wait" | b"waitaof" => self.server_state = true,
            _ => {}
        }
        match String::from_utf8(name) {
            // An escape may spell anything.
            Ok(name) if !name.contains('\\') => {
                self.commands.push(name.into());
                self.written.push(String::from_utf8_lossy(written).into());
            }
            _ => self.unclear = true,
        }
    }
}

#[cfg(test)]
mod tests;
