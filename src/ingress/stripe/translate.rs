//! The form in which the nodes have a command, as far as it can be told from what is remembered.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::segments::candidates;
use super::{keys, known, list, role_of, stream, with_words};
use crate::command::spec::Merge;
use crate::command::{Command, Special};
use crate::profile::{Role, ScriptRule};
use crate::request::PartitionId;
use crate::resp::{Args, Spans, encode};
use crate::ring::{Keyspace, pinned_to};
use crate::stripe::{Directory, End, Id, Inside, Place, Segment, Stripe, Stripes, names};

/// What must be known before a command can be put into its form.
#[derive(Debug, Default)]
pub(in crate::ingress) struct Needs {
    /// Where these are.
    pub(super) ids: Vec<Id>,
    /// The directories of these.
    pub(super) queues: Vec<Bytes>,
    /// Somebody is alone at these, who is to be waited for.
    pub(super) closed: Vec<Arc<Stripe>>,
    /// There is to be room for so many elements at these ends, in another segment if need be.
    pub(super) rooms: Vec<(Bytes, End, u64)>,
}

impl Needs {
    pub(in crate::ingress) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.queues.is_empty() && self.closed.is_empty() && self.rooms.is_empty()
    }

    pub(in crate::ingress) fn add(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.queues.extend(other.queues);
        self.closed.extend(other.closed);
        self.rooms.extend(other.rooms);
    }
}

/// When a command is put into its form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ingress) enum When {
    /// When it comes.
    Now,
    /// Before its transaction is executed.
    BeforeExec,
    /// When its transaction is executed, inside of whatever gates it needs.
    InExec,
}

/// Where a command is inside, and for which partition.
pub(in crate::ingress) type Guards = SmallVec<[(PartitionId, Inside); 1]>;

/// See the module.
pub(in crate::ingress) enum Form {
    /// As the client has sent it.
    AsIs,
    /// One command, and who issues it stays inside until it has its place in the order.
    One(Bytes, Spans, Guards),
    /// Several, and how their replies become one.
    Each(Vec<(Bytes, Spans)>, Merge, Guards),
    /// Nothing is to be asked: this is the reply.
    Reply(Bytes),
    /// Something is to be looked up first.
    Needs(Needs),
    /// A new item is kept until an index names it; this is the reply.
    Stage(Id, Bytes),
    /// A script that the profile knows.
    Script(Box<ScriptRule>),
    /// It takes several steps.
    Steps,
    /// The same, on lists.
    OnLists,
    /// On streams.
    OnStreams,
    /// On lists and streams as keys.
    OnKeys,
}

/// Longest key of a list or a stream that is spread over nodes: what is known of it is kept under its key.
const KEY_BYTES_MAX: usize = 1024;

const TOO_LONG: &str = "ERR a key of a list or stream that is spread over nodes may have at most 1024 bytes";

const OURS: &str = "ERR keys that begin with rf@ and a number are the proxy's own";

/// The form of a command.
pub(in crate::ingress) fn form(
    stripes: &Stripes,
    keyspace: &Keyspace,
    db: u16,
    command: &Command,
    args: &Args<'_>,
    when: When,
) -> Form {
    let Ok(keys) = command.keys(args) else {
        return Form::AsIs;
    };
    if keys
        .iter()
        .any(|&key| pinned_to(args.arg(key as usize)).is_some())
    {
        return Form::Reply(encode::error(OURS));
    }
    let roles: SmallVec<[Role; 4]> = keys
        .iter()
        .map(|&key| role_of(keyspace, args.arg(key as usize)))
        .collect();
    if roles.iter().all(|role| *role == Role::Plain) {
        return Form::AsIs;
    }
    if is_script(command.special) {
        return script(stripes, db, command, args, &roles, &keys);
    }
    if roles.iter().any(|role| matches!(role, Role::List | Role::Stream)) {
        let kinds = |kind: Role| roles.iter().all(|role| [kind, Role::Plain].contains(role));
        let others = |role: &Role| !matches!(role, Role::List | Role::Stream | Role::Plain);
        return if keys
            .iter()
            .any(|&key| args.arg(key as usize).len() > KEY_BYTES_MAX)
        {
            Form::Reply(encode::error(TOO_LONG))
        } else if keys::is_possible(command.special) && !roles.iter().any(others) {
            keys::form(stripes, db, command, args, &keys, &roles, when)
        } else if kinds(Role::List) {
            list::form(stripes, keyspace, db, command, args, &keys, &roles, when)
        } else if kinds(Role::Stream) {
            stream::form(stripes, db, command, args, &keys, &roles, when)
        } else {
            refused(command, stripes)
        };
    }
    match (roles.as_slice(), keys.first()) {
        ([Role::Index], Some(&key)) => index(stripes, db, command, args, key as usize, when),
        ([Role::Counter], _) if command.special == Special::Get => Form::Steps,
        _ if roles.iter().all(|role| matches!(role, Role::Item | Role::Plain)) => {
            items(stripes, db, command, args, &keys)
        }
        _ => refused(command, stripes),
    }
}

fn is_script(special: Special) -> bool {
    use Special::*;
    matches!(special, Eval | EvalRo | Evalsha | EvalshaRo)
}

pub(super) fn refused(command: &Command, stripes: &Stripes) -> Form {
    Form::Reply(encode::error(&format!(
        "ERR {} is not possible on a queue that is spread over nodes (profile {}). See docs/PROFILES.md for what is",
        command.name.to_uppercase(),
        stripes.profile.name
    )))
}

fn script(
    stripes: &Stripes,
    db: u16,
    command: &Command,
    args: &Args<'_>,
    roles: &[Role],
    keys: &[u32],
) -> Form {
    if !roles
        .iter()
        .any(|role| matches!(role, Role::Index | Role::Counter | Role::List | Role::Stream))
    {
        return items(stripes, db, command, args, keys);
    }
    let Some(rule) = stripes.profile.scripts.iter().find(|rule| rule.keys == roles) else {
        return refused(command, stripes);
    };
    let mut needs = Needs::default();
    // The keys are `EVALSHA digest 2 index counter`.
    let index = args.arg(keys.first().map_or(0, |&key| key as usize));
    if stripes.queue(db, index).directory().is_none() {
        needs.queues.push(Bytes::copy_from_slice(index));
    }
    if rule.items > 0 {
        let first = 2 + keys.len() + rule.items;
        let ids = args.iter().skip(first).filter_map(Id::of);
        needs
            .ids
            .extend(ids.filter(|&id| !stripes.is_staged(db, id) && stripes.place(db, id).is_none()));
    }
    match needs.is_empty() {
        true => Form::Script(Box::new(rule.clone())),
        false => Form::Needs(needs),
    }
}

/// A command on one index.
fn index(stripes: &Stripes, db: u16, command: &Command, args: &Args<'_>, key: usize, when: When) -> Form {
    use Special::{
        Del, Exists, Unlink, Zcard, Zcount, Zrange, Zrangebyscore, Zrank, Zrem, Zrevrange, Zrevrank, Zscore,
    };
    let index = args.arg(key);
    let special = command.special;
    if matches!(special, Zrem | Del | Unlink) {
        return removal(stripes, db, special, args, key, when).unwrap_or_else(Form::Needs);
    }
    let Some(directory) = stripes.queue(db, index).directory() else {
        return Form::Needs(Needs {
            queues: vec![Bytes::copy_from_slice(index)],
            ..Needs::default()
        });
    };
    let on_all = |merge| {
        let on = |segment| with_words(args, &[(key, names::segment(segment, index))]);
        merged(directory.segments().map(on).collect(), merge, Guards::new())
    };
    match special {
        Zcard if when == When::Now && !directory.is_single() => Form::Steps,
        Zcard => on_all(Merge::Sum),
        Exists => on_all(Merge::Any),
        Zrange | Zrevrange | Zrangebyscore | Zrank | Zrevrank | Zscore | Zcount => Form::Steps,
        _ => refused(command, stripes),
    }
}

/// Entries are removed from an index: inside, and what is counted of their segments is not true any more.
fn removal(
    stripes: &Stripes,
    db: u16,
    special: Special,
    args: &Args<'_>,
    key: usize,
    when: When,
) -> Result<Form, Needs> {
    let index = args.arg(key);
    let (queues, mut inside) = known::queues(stripes, db, args, &[key as u32], &[Role::Index], when)?;
    let Some(queue) = queues.first() else {
        return Err(Needs::default());
    };
    let parts: Vec<(Segment, (Bytes, Spans))> = match special {
        Special::Zrem => removals(stripes, db, index, &queue.directory, args),
        _ => queue
            .directory
            .segments()
            .map(|segment| {
                (
                    segment,
                    with_words(args, &[(key, names::segment(segment, index))]),
                )
            })
            .collect(),
    };
    for (segment, _) in &parts {
        queue.queue.card_changes(*segment);
    }
    if let [(segment, _)] = parts.as_slice() {
        inside
            .iter_mut()
            .for_each(|(partition, _)| *partition = segment.partition);
    }
    let merge = match special {
        Special::Zrem => Merge::Sum,
        _ => Merge::Any,
    };
    Ok(merged(
        parts.into_iter().map(|(_, part)| part).collect(),
        merge,
        inside,
    ))
}

/// A `ZREM` for each segment: every member is asked for where it may be.
fn removals(
    stripes: &Stripes,
    db: u16,
    index: &[u8],
    directory: &Directory,
    args: &Args<'_>,
) -> Vec<(Segment, (Bytes, Spans))> {
    let mut asked: Vec<(Segment, Vec<&[u8]>)> = Vec::new();
    for member in args.iter().skip(2) {
        for segment in candidates(stripes, db, index, directory, member) {
            match asked.iter_mut().find(|(other, _)| *other == segment) {
                Some((_, members)) => members.push(member),
                None => asked.push((segment, vec![member])),
            }
        }
    }
    let part = |(segment, members): (Segment, Vec<&[u8]>)| {
        let name = names::segment(segment, index);
        (
            segment,
            crate::resp::frame_of(&[&[args.arg(0), &name[..]], &members[..]].concat()),
        )
    };
    asked.into_iter().map(part).collect()
}

fn merged(mut parts: Vec<(Bytes, Spans)>, merge: Merge, inside: Guards) -> Form {
    match parts.pop() {
        None => Form::Reply(encode::integer(0)),
        Some((frame, spans)) if parts.is_empty() => Form::One(frame, spans, inside),
        Some(last) => {
            parts.push(last);
            Form::Each(parts, merge, inside)
        }
    }
}

/// A command on items, and maybe other keys.
fn items(stripes: &Stripes, db: u16, command: &Command, args: &Args<'_>, keys: &[u32]) -> Form {
    let mut needs = Needs::default();
    let mut words: Vec<(usize, Bytes)> = Vec::new();
    for &key in keys {
        let at = key as usize;
        let Some(id) = Id::of(args.arg(at)) else { continue };
        match stripes.place(db, id) {
            None if creates(stripes, command, args) => {
                return Form::Stage(id, created(command, args));
            }
            None => needs.ids.push(id),
            Some(Place::Own) => {}
            Some(Place::Segment(partition) | Place::Moved(partition)) => {
                words.push((at, names::item(partition, args.arg(at))));
            }
        }
    }
    match (needs.is_empty(), words.is_empty()) {
        (false, _) => Form::Needs(needs),
        (true, true) => Form::AsIs,
        (true, false) => {
            let (frame, spans) = with_words(args, &words);
            Form::One(frame, spans, Guards::new())
        }
    }
}

/// Whether the command makes a new item.
pub(super) fn creates(stripes: &Stripes, command: &Command, args: &Args<'_>) -> bool {
    let field = stripes
        .profile
        .role(Role::Item)
        .and_then(|rule| rule.created_with.as_deref());
    matches!(command.special, Special::Hset | Special::Hmset)
        && args.len() > 3
        && args.len().is_multiple_of(2)
        && field.is_some_and(|field| {
            args.iter()
                .skip(2)
                .step_by(2)
                .any(|name| name == field.as_bytes())
        })
}

/// What a server says to that.
pub(super) fn created(command: &Command, args: &Args<'_>) -> Bytes {
    match command.special {
        Special::Hmset => Bytes::from_static(b"+OK\r\n"),
        _ => encode::integer((args.len() as i64 - 2) / 2),
    }
}
