//! All commands by name.
//!
//! Every command of every client is looked up here, so a name is not a string but a few words in lower case, made,
//! hashed and compared without a loop. A name that does not fit into them is unknown; Redis's own longest has 21 bytes.
//! The table never changes: when the nodes' commands do, a new one is made.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::described::{self, Described};
use super::error::ErrorReply;
use super::spec::{Begin, Command, Find, KeyFlags, KeySpec, Special};
use super::{annotations, builtin, keys, rewrite};
use crate::resp::Args;

/// Longest name of a command, and of a subcommand, in bytes.
const NAME_BYTES_MAX: usize = 32;

/// Why the nodes' commands could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No reply was given.
    #[error("no node has told its commands")]
    NoNode,
    /// The reply is an error, or anything but a list of lists.
    #[error("a node's reply to COMMAND is not a list of commands")]
    NotACommandReply,
    /// One of the commands has not the form it has had since Redis 2.8.13.
    #[error("a node's reply to COMMAND describes {command:?} in an unknown form")]
    Unreadable {
        /// Its name, if there was one.
        command: String,
    },
    /// More commands than any server has.
    #[error("a node's reply to COMMAND lists more than {} commands", u16::MAX)]
    TooMany,
}

/// The commands that the pool knows.
#[derive(Clone, Debug)]
pub struct CommandTable {
    entries: Vec<Entry>,
    names: HashMap<Name, u16, BuildHasherDefault<NameHasher>>,
    subcommands: HashMap<(u16, Name), u16, BuildHasherDefault<NameHasher>>,
}

#[derive(Clone, Debug)]
struct Entry {
    command: Command,
    container: bool,
}

impl CommandTable {
    /// The commands of Redis 7.0.
    pub fn builtin() -> Self {
        let mut table = Self::empty();
        // The snapshot is far from the bound.
        let _fits = table.add_all(&builtin::commands());
        table
    }

    /// The commands that all nodes have, from the bytes of each node's reply to `COMMAND`, of either protocol.
    ///
    /// # Errors
    /// If there is no reply, or one that is no list of commands.
    pub fn from_nodes<R: AsRef<[u8]>>(replies: &[R]) -> Result<Self, TableError> {
        let mut table = Self::empty();
        table.add_all(&described::common(replies, &builtin::commands())?)?;
        Ok(table)
    }

    /// The command that a client has sent. It has as many arguments as it takes.
    ///
    /// # Errors
    /// What Redis answers if there is no such command, or not with so many arguments.
    #[inline]
    pub fn lookup(&self, args: &Args<'_>) -> Result<&Command, ErrorReply> {
        let Some((index, entry)) = self.named(args.arg(0)) else {
            return Err(ErrorReply::unknown_command(args));
        };
        let command = if entry.container && args.len() > 1 {
            match self.subcommand(index, args.arg(1)) {
                Some(command) => command,
                None => return Err(ErrorReply::unknown_subcommand(args)),
            }
        } else {
            &entry.command
        };
        if command.takes(args.len()) {
            Ok(command)
        } else {
            Err(ErrorReply::wrong_arity(&command.name))
        }
    }

    /// The command of this full name: `get`, `xgroup|create`.
    pub fn get(&self, name: &str) -> Option<&Command> {
        match name.split_once('|') {
            None => self.named(name.as_bytes()).map(|(_, entry)| &entry.command),
            Some((container, name)) => self.subcommand(self.named(container.as_bytes())?.0, name.as_bytes()),
        }
    }

    /// The command at this place of the table.
    pub fn at(&self, index: u16) -> Option<&Command> {
        self.entries.get(usize::from(index)).map(|entry| &entry.command)
    }

    /// How many places the table has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows no command.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All commands and subcommands, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Command> {
        self.entries.iter().map(|entry| &entry.command)
    }

    fn empty() -> Self {
        CommandTable {
            entries: Vec::new(),
            names: HashMap::default(),
            subcommands: HashMap::default(),
        }
    }

    #[inline]
    fn named(&self, name: &[u8]) -> Option<(u16, &Entry)> {
        let index = *self.names.get(&Name::new(name)?)?;
        Some((index, self.entries.get(usize::from(index))?))
    }

    fn subcommand(&self, container: u16, name: &[u8]) -> Option<&Command> {
        let index = *self.subcommands.get(&(container, Name::new(name)?))?;
        self.entries.get(usize::from(index)).map(|entry| &entry.command)
    }

    fn add_all(&mut self, commands: &[Described]) -> Result<(), TableError> {
        for described in commands {
            let Some(name) = Name::new(described.name.as_bytes()) else {
                continue;
            };
            let container = self.add(described)?;
            self.names.insert(name, container);
            for subcommand in described.subcommands.iter().flatten() {
                let Some(name) = Name::new(subcommand.short_name().as_bytes()) else {
                    continue;
                };
                let index = self.add(subcommand)?;
                self.subcommands.insert((container, name), index);
            }
        }
        Ok(())
    }

    fn add(&mut self, described: &Described) -> Result<u16, TableError> {
        let index = u16::try_from(self.entries.len()).map_err(|_| TableError::TooMany)?;
        let specs = described.key_specs.as_deref().unwrap_or_default();
        let special = Special::of(&described.name);
        let command = Command {
            name: described.name.clone(),
            index,
            special,
            rewrite: rewrite::rule_for(&described.name),
            arity: described.arity,
            flags: described.flags,
            class: annotations::class(described),
            unless: annotations::unless(&described.name),
            compare: annotations::compare(described),
            downgrade: annotations::downgrade(&described.name),
            key_specs: specs.into(),
            key_fixed: match keys::ignores_specs(special) {
                true => 0,
                false => key_fixed(specs, described.arity).unwrap_or_default(),
            },
        };
        let container = described
            .subcommands
            .as_ref()
            .is_some_and(|subcommands| !subcommands.is_empty());
        self.entries.push(Entry { command, container });
        Ok(index)
    }
}

/// The position of the only key, if it is always there and always the same.
fn key_fixed(specs: &[KeySpec], arity: i32) -> Option<u32> {
    match specs {
        [
            KeySpec {
                begin: Begin::Index(index),
                find: Find::Range { last: 0, .. },
                flags,
            },
        ] if !flags.intersects(KeyFlags::NOT_KEY | KeyFlags::INCOMPLETE) => u32::try_from(*index)
            .ok()
            .filter(|&index| index < arity.unsigned_abs()),
        _ => None,
    }
}

/// A name in lower case, in as many words as tell it from any other of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    /// The first two words hold a name of up to 16 bytes; where it is not a multiple of the word, they overlap.
    words: [u64; 4],
    len: u64,
}

impl Name {
    #[inline]
    fn new(name: &[u8]) -> Option<Self> {
        let len = name.len();
        let words = if len <= 16 {
            let [first, last] = two_words(name)?;
            [lower(first), lower(last), 0, 0]
        } else if len <= NAME_BYTES_MAX {
            let [a, b] = two_words(name.first_chunk::<16>()?)?;
            let [c, d] = two_words(name.last_chunk::<16>()?)?;
            [lower(a), lower(b), lower(c), lower(d)]
        } else {
            return None;
        };
        Some(Name {
            words,
            len: len as u64,
        })
    }
}

/// Up to 16 bytes in two words that overlap.
#[inline]
fn two_words(bytes: &[u8]) -> Option<[u64; 2]> {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        Some([u64::from_le_bytes(*first), u64::from_le_bytes(*last)])
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        Some([
            u32::from_le_bytes(*first).into(),
            u32::from_le_bytes(*last).into(),
        ])
    } else {
        match *bytes {
            [] => Some([0, 0]),
            [a] => Some([a.into(), 0]),
            [a, b] => Some([a.into(), b.into()]),
            [a, b, c] => Some([u64::from(a) | u64::from(b) << 8, c.into()]),
            _ => None,
        }
    }
}

/// Eight ASCII letters at once in lower case; other bytes stay as they are.
#[inline]
fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (EACH * 0x7f);
    let from_a = low_bits + EACH * (0x80 - b'A' as u64);
    let past_z = low_bits + EACH * (0x7f - b'Z' as u64);
    let capital = (from_a ^ past_z) & !word & (EACH * 0x80);
    // 0x80 >> 2 is 0x20, what tells the cases apart.
    word | (capital >> 2)
}

impl Hash for Name {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.words;
        state.write_u64(a ^ self.len);
        state.write_u64(b ^ c.rotate_left(32) ^ d);
    }
}

/// A multiplication a word. No client can fill the table, so nobody can make it slow on purpose.
#[derive(Clone, Default)]
struct NameHasher(u64);

/// An odd number of well mixed bits: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for NameHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    }
}

#[cfg(test)]
mod tests;
