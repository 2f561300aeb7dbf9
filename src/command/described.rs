//! What Redis itself says of its commands: the reply to `COMMAND`, read into a plain form.
//!
//! Redis 7 describes a command fully (key specs, subcommands, hints); 6.2 stops at the position of the first and last
//! key. What is missing is filled in from the snapshot of 7.0, and with nodes of several versions only what all of
//! them accept is kept: a command must never be refused by one node of a batch and executed by another.
//!
//! The reply is read as bytes, of either protocol: RESP3 has a set of maps in it, which no hash set holds.

use std::collections::HashMap;

use super::spec::{Begin, FLAG_NAMES, Find, Flags, KEY_FLAG_NAMES, KeyFlags, KeySpec};
use super::table::TableError;
use crate::resp::walk::{self, Elements};

/// One command in Redis's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Full name in lower case, `xgroup|create` for a subcommand.
    pub(super) name: Box<str>,
    /// Number of arguments; a minimum if negative.
    pub(super) arity: i32,
    /// Its flags.
    pub(super) flags: Flags,
    /// First key, last key (negative: from the end), step; 0 for none.
    pub(super) range: (i32, i32, i32),
    /// What Redis says of its reply.
    pub(super) reply: ReplyHint,
    /// Where its keys are; `None` if the server is too old to say.
    pub(super) key_specs: Option<Vec<KeySpec>>,
    /// Its subcommands; `None` if the server is too old to say.
    pub(super) subcommands: Option<Vec<Described>>,
}

/// What Redis says of a command's reply on two servers with the same data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyHint {
    /// Nothing: it is the same.
    Same,
    /// `nondeterministic_output_order`.
    OtherOrder,
    /// `nondeterministic_output`.
    Other,
}

impl Described {
    /// The name without the container's.
    pub(super) fn short_name(&self) -> &str {
        self.name.split_once('|').map_or(&self.name, |(_, short)| short)
    }

    /// Fills in what this server is too old to say from `full`, a description of the same command; without one, the
    /// range of keys has to do.
    fn complete(&mut self, full: Option<&Described>) {
        match full {
            Some(full) if self.key_specs.is_none() => {
                self.key_specs.clone_from(&full.key_specs);
                self.subcommands.clone_from(&full.subcommands);
                self.reply = full.reply;
                self.flags |= full.flags & Flags::NO_MANDATORY_KEYS;
            }
            _ => {
                self.key_specs
                    .get_or_insert_with(|| range_spec(self.range, self.flags));
                self.subcommands.get_or_insert_default();
            }
        }
    }

    /// Keeps what both this and `other` accept; `false` if nothing is left.
    fn restrict(&mut self, other: &Described) -> bool {
        let Some(arity) = both_arities(self.arity, other.arity) else {
            return false;
        };
        self.arity = arity;
        self.flags |= other.flags;
        if let (Some(mine), Some(theirs)) = (&mut self.subcommands, &other.subcommands) {
            let theirs: HashMap<&str, &Described> = theirs.iter().map(|sub| (&*sub.name, sub)).collect();
            mine.retain_mut(|sub| theirs.get(&*sub.name).is_some_and(|other| sub.restrict(other)));
        }
        true
    }
}

/// The commands that every node has, from each node's reply to `COMMAND`, in the form that every node accepts.
pub(super) fn common<R: AsRef<[u8]>>(
    replies: &[R],
    full: &[Described],
) -> Result<Vec<Described>, TableError> {
    let full: HashMap<&str, &Described> = full.iter().map(|command| (&*command.name, command)).collect();
    let mut nodes = Vec::with_capacity(replies.len());
    for reply in replies {
        let mut commands = read(reply.as_ref())?;
        for command in &mut commands {
            command.complete(full.get(&*command.name).copied());
        }
        nodes.push(commands);
    }
    let mut nodes = nodes.into_iter();
    let mut commands = nodes.next().ok_or(TableError::NoNode)?;
    for node in nodes {
        let node: HashMap<&str, &Described> = node.iter().map(|command| (&*command.name, command)).collect();
        commands.retain_mut(|command| {
            node.get(&*command.name)
                .is_some_and(|other| command.restrict(other))
        });
    }
    Ok(commands)
}

/// The arity that satisfies both.
fn both_arities(a: i32, b: i32) -> Option<i32> {
    match (a < 0, b < 0) {
        (true, true) => Some(a.min(b)),
        (true, false) => (a.unsigned_abs() <= b.unsigned_abs()).then_some(b),
        (false, true) => (b.unsigned_abs() <= a.unsigned_abs()).then_some(a),
        (false, false) => (a == b).then_some(a),
    }
}

/// A key spec from a first key, a last key and a step. With `movablekeys` the range says nothing.
fn range_spec((first, last, step): (i32, i32, i32), flags: Flags) -> Vec<KeySpec> {
    if flags.contains(Flags::MOVABLEKEYS) {
        return vec![KeySpec {
            begin: Begin::Unknown,
            find: Find::Unknown,
            flags: KeyFlags::empty(),
        }];
    }
    let (Ok(begin @ 1..), Ok(step)) = (usize::try_from(first), usize::try_from(step)) else {
        return Vec::new();
    };
    let last = if last >= 0 {
        last.saturating_sub(first)
    } else {
        last
    };
    vec![KeySpec {
        begin: Begin::Index(begin),
        find: Find::Range { last, step, limit: 0 },
        flags: KeyFlags::empty(),
    }]
}

/// One node's reply to `COMMAND`.
pub(super) fn read(reply: &[u8]) -> Result<Vec<Described>, TableError> {
    let commands = list(reply).ok_or(TableError::NotACommandReply)?;
    commands.into_iter().map(command).collect()
}

fn command(reply: &[u8]) -> Result<Described, TableError> {
    let fields = list(reply).ok_or(TableError::NotACommandReply)?;
    described(&fields).ok_or_else(|| TableError::Unreadable {
        command: fields
            .first()
            .and_then(|name| text(name))
            .unwrap_or_default()
            .to_owned(),
    })
}

fn described(fields: &[&[u8]]) -> Option<Described> {
    let [name, arity, flags, first, last, step, newer @ ..] = fields else {
        return None;
    };
    // Before 6.0 there are six fields, before 7.0 seven: the last are the ACL categories.
    let newer = match newer {
        [_, tips, specs, subcommands, ..] => Some((list(tips)?, list(specs)?, list(subcommands)?)),
        _ => None,
    };
    let mut reply = ReplyHint::Same;
    for &tip in newer.iter().flat_map(|(tips, ..)| tips) {
        reply = match text(tip) {
            Some("nondeterministic_output") => ReplyHint::Other,
            Some("nondeterministic_output_order") if reply == ReplyHint::Same => ReplyHint::OtherOrder,
            _ => reply,
        };
    }
    let (key_specs, subcommands) = match newer {
        Some((_, specs, subcommands)) => (
            Some(specs.into_iter().map(key_spec).collect::<Option<_>>()?),
            Some(
                subcommands
                    .into_iter()
                    .map(command)
                    .collect::<Result<_, _>>()
                    .ok()?,
            ),
        ),
        None => (None, None),
    };
    Some(Described {
        name: text(name)?.to_ascii_lowercase().into(),
        arity: number(arity)?,
        flags: flags_of(FLAG_NAMES, flags)?,
        range: (number(first)?, number(last)?, number(step)?),
        reply,
        key_specs,
        subcommands,
    })
}

fn key_spec(reply: &[u8]) -> Option<KeySpec> {
    let fields = list(reply)?;
    let part = |name| {
        let part = list(field(&fields, name)?)?;
        Some((text(field(&part, "type")?)?, list(field(&part, "spec")?)?))
    };
    let (begin, begin_spec) = part("begin_search")?;
    let (find, find_spec) = part("find_keys")?;
    let signed = |spec: &[&[u8]], name| number(field(spec, name)?);
    let size = |spec: &[&[u8]], name| usize::try_from(signed(spec, name)?).ok();
    Some(KeySpec {
        begin: match begin {
            "index" => Begin::Index(size(&begin_spec, "index")?),
            "keyword" => Begin::Keyword {
                word: text(field(&begin_spec, "keyword")?)?.into(),
                from: signed(&begin_spec, "startfrom")?,
            },
            _ => Begin::Unknown,
        },
        find: match find {
            "range" => Find::Range {
                last: signed(&find_spec, "lastkey")?,
                step: size(&find_spec, "keystep")?,
                limit: size(&find_spec, "limit")?,
            },
            "keynum" => Find::KeyNum {
                number: size(&find_spec, "keynumidx")?,
                first: size(&find_spec, "firstkey")?,
                step: size(&find_spec, "keystep")?,
            },
            _ => Find::Unknown,
        },
        flags: flags_of(KEY_FLAG_NAMES, field(&fields, "flags")?)?,
    })
}

/// The flags of a list of names. Names that do not matter here are left out.
fn flags_of<F: bitflags::Flags + Copy>(known: &[(&str, F)], reply: &[u8]) -> Option<F> {
    let names = list(reply)?;
    let flags = names.into_iter().filter_map(|name| find(known, text(name)?));
    Some(flags.fold(F::empty(), F::union))
}

/// The flag of this name, if it is one that matters here.
pub(super) fn find<F: Copy>(known: &[(&str, F)], name: &str) -> Option<F> {
    known
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, flag)| flag)
}

/// The elements of an array or a set, or the keys and values of a map.
fn list(reply: &[u8]) -> Option<Vec<&[u8]>> {
    Elements::of(reply).ok()??.collect::<Result<_, _>>().ok()
}

/// The value of a field, of a map in either protocol.
fn field<'a>(fields: &[&'a [u8]], name: &str) -> Option<&'a [u8]> {
    fields.chunks_exact(2).find_map(|pair| match *pair {
        [key, value] if text(key) == Some(name) => Some(value),
        _ => None,
    })
}

fn text(reply: &[u8]) -> Option<&str> {
    if walk::is_error(reply) {
        None
    } else {
        std::str::from_utf8(walk::text(reply)?).ok()
    }
}

fn number(reply: &[u8]) -> Option<i32> {
    text(reply)?.parse().ok()
}
