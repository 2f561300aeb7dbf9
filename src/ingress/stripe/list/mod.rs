//! Lists that are spread over nodes.
//!
//! A list of one segment is that segment's key: commands on it get its name, and go on as any others. Of a list of several, an element
//! is taken from, or put to, the segment at its end ([`ends`]); whatever else is asked of it is done [alone](super::whole), by its segments'
//! lengths, as if it were one. A segment is opened where one that is full would be pushed to, and goes when it is empty. Who waits for
//! elements waits at the one segment of an empty list ([`wait`]).

mod ends;
mod moves;
mod ranges;
mod wait;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::known::{self, Queue};
use super::transaction::IN_STEPS;
use super::translate::{Form, Guards, Needs, When, refused};
use super::{Steps, with_words};
use crate::command::spec::Merge;
use crate::command::{Command, Special};
use crate::ingress::dispatch::Flow;
use crate::ingress::procedure::{Procedure, Step};
use crate::profile::Role;
use crate::request::Outcome;
use crate::resp::{Args, Spans, encode, frame_of};
use crate::ring::Keyspace;
use crate::stripe::{End, Stripes, names};
use crate::worker::{Core, Worker};

/// The form of a command that names lists.
#[allow(
    clippy::too_many_arguments,
    reason = "a command, what its keys are, and what is known of them"
)]
pub(super) fn form(
    stripes: &Stripes,
    keyspace: &Keyspace,
    db: u16,
    command: &Command,
    args: &Args<'_>,
    keys: &[u32],
    roles: &[Role],
    when: When,
) -> Form {
    if !is_possible(command.special) {
        return refused(command, stripes);
    }
    let (lists, inside) = match known::queues(stripes, db, args, keys, roles, when) {
        Ok(known) => known,
        Err(needs) => return Form::Needs(needs),
    };
    if let (When::BeforeExec, Some(end), [list]) = (when, push_end(command.special), lists.as_slice()) {
        let elements = (args.len() - 2) as u64;
        if !list.queue.has_room_at(end, elements, stripes.profile.segment_len) {
            return Form::Needs(Needs {
                rooms: vec![(Bytes::copy_from_slice(args.arg(list.at)), end, elements)],
                ..Needs::default()
            });
        }
    }
    let all_single = lists.iter().all(|list| list.directory.is_single());
    match (when, all_single) {
        (When::Now, true) => single(stripes, keyspace, command, args, keys, &lists, inside),
        (When::Now, false) => Form::OnLists,
        (_, true) if !tells_keys(command.special) => {
            if let (When::InExec, Some(end), Some(list)) = (when, push_end(command.special), lists.first()) {
                // As far as it can be told now.
                list.queue
                    .room(end, (args.len() - 2) as u64, stripes.profile.segment_len);
            }
            let (frame, spans) = known::in_open_segments(args, &lists);
            Form::One(frame, spans, inside)
        }
        (_, true) => Form::Reply(encode::error(IN_STEPS)),
        (_, false) => in_transaction(command, args, &lists, inside, when),
    }
}

fn is_possible(special: Special) -> bool {
    use Special::*;
    push_end(special).is_some()
        || pop_end(special).is_some()
        || waits(special)
        || ranges::is_possible(special)
        || matches!(special, Lmove | Rpoplpush | Lmpop | Llen | Lpushx | Rpushx)
}

/// To which end a command pushes.
fn push_end(special: Special) -> Option<End> {
    match special {
        Special::Lpush | Special::Lpushx => Some(End::Head),
        Special::Rpush | Special::Rpushx => Some(End::Tail),
        _ => None,
    }
}

/// From which end a command takes.
fn pop_end(special: Special) -> Option<End> {
    match special {
        Special::Lpop => Some(End::Head),
        Special::Rpop => Some(End::Tail),
        _ => None,
    }
}

fn waits(special: Special) -> bool {
    use Special::*;
    matches!(special, Blpop | Brpop | Blmove | Brpoplpush | Blmpop)
}

/// Whether a command's reply has keys in it: as nodes call them.
fn tells_keys(special: Special) -> bool {
    waits(special) || special == Special::Lmpop
}

/// Of lists that have one segment each.
fn single(
    stripes: &Stripes,
    keyspace: &Keyspace,
    command: &Command,
    args: &Args<'_>,
    keys: &[u32],
    lists: &[Queue],
    inside: Guards,
) -> Form {
    let (frame, spans) = known::in_open_segments(args, lists);
    let translated = Args {
        bytes: &frame,
        spans: &spans,
    };
    let has_room = match (push_end(command.special), lists.first()) {
        (Some(end), Some(list)) => {
            let elements = (args.len() - 2) as u64;
            list.queue
                .room(end, elements, stripes.profile.segment_len)
                .is_some()
        }
        _ => true,
    };
    let mut partitions = keys
        .iter()
        .map(|&key| keyspace.partition_of(translated.arg(key as usize)));
    let first = partitions.next();
    // What takes several steps between partitions must be inside for all of them; a split command is sent at once.
    let moves = matches!(command.special, Special::Lmove | Special::Rpoplpush);
    let apart = moves && partitions.any(|partition| Some(partition) != first);
    match has_room && !apart && !tells_keys(command.special) {
        true => Form::One(frame, spans, inside),
        false => Form::OnLists,
    }
}

/// Of lists of several segments, in a transaction: what can be put together from one command a segment.
fn in_transaction(command: &Command, args: &Args<'_>, lists: &[Queue], inside: Guards, when: When) -> Form {
    use Special::*;
    let (Some(list), 1) = (lists.first(), lists.len()) else {
        return Form::Reply(encode::error(IN_STEPS));
    };
    let key = args.arg(list.at);
    let all = list.directory.segments();
    let on_all = all.map(|s| with_words(args, &[(list.at, names::segment(s, key))]));
    let (parts, merge): (Vec<(Bytes, Spans)>, Merge) = match command.special {
        Lpush | Rpush => {
            // The reply is the length of all.
            let end = list.directory.end(push_end(command.special).unwrap_or(End::Tail));
            let part = |segment| {
                let name = names::segment(segment, key);
                match segment == end {
                    true => with_words(args, &[(list.at, name)]),
                    false => frame_of(&[&b"LLEN"[..], &name]),
                }
            };
            (list.directory.segments().map(part).collect(), Merge::Sum)
        }
        Llen => (on_all.collect(), Merge::Sum),
        _ => return Form::Reply(encode::error(IN_STEPS)),
    };
    if command.special != Llen && when == When::InExec {
        list.queue.lose_count();
    }
    Form::Each(parts, merge, inside)
}

impl Worker {
    /// Executes a command on lists that takes several steps.
    pub(super) fn on_lists(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        stripes: &Arc<Stripes>,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
    ) -> Flow {
        let db = core.clients.get(id as usize).map_or(0, |c| c.session.db);
        let steps = Steps::of(stripes, frame, spans, db);
        if let Some(timeout) = command.timeout(&steps.args()) {
            return self.wait_at_lists(core, id, command, timeout, steps);
        }
        let special = command.special;
        let rule = command.downgrade(spans.len());
        // Pushes to one end of a list go to one node after the other, so they are answered in their order.
        let beside = push_end(special).map(|end| kind_of((db, steps.args().arg(1), end)));
        self.proceed_beside(
            core,
            id,
            beside,
            |client, now_us| client.expect_one(rule, now_us),
            move |mut p| async move {
                let outcome = execute(&mut p, &steps, special).await.unwrap_or_else(|end| end);
                (p, outcome)
            },
        )
    }
}

fn kind_of(what: impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

async fn execute(p: &mut Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    use Special::*;
    match special {
        Lpush | Rpush => ends::push(p, steps, special).await,
        Lpushx | Rpushx => ends::push_if_there(p, steps, special).await,
        Lpop | Rpop => ends::pop(p, steps, special).await,
        Lmpop => ends::pop_first(p, steps).await,
        Lmove | Rpoplpush => moves::execute(p, steps).await,
        Llen => ranges::length(p, steps).await,
        _ => ranges::execute(p, steps, special).await,
    }
}
