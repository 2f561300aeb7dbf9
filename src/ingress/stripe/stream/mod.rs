//! Streams that are spread over nodes.
//!
//! Entries are added to the open segment, and an entry's id says in which one it is: the directory has the last id before each
//! segment. So ids are those of one server, and are all the markers that are needed. A new segment begins behind the last id of
//! the one before, with its consumer groups. What an id concerns goes to its segment ([`entries`]); readers go from one segment to the
//! next ([`read`]), groups are in all of them ([`groups`]).

mod entries;
mod groups;
mod info;
mod read;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::known::{self, Queue};
use super::transaction::IN_STEPS;
use super::translate::{Form, Guards, Needs, When, refused};
use super::whole::Whole;
use super::{Steps, at_once, sound, with_words};
use crate::command::decide::last_stream_id;
use crate::command::number::StreamId;
use crate::command::spec::Merge;
use crate::command::{Command, Special};
use crate::ingress::dispatch::Flow;
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Procedure, Step};
use crate::profile::Role;
use crate::request::Outcome;
use crate::resp::walk::{is_error, text};
use crate::resp::{Args, Spans, encode, frame_of};
use crate::ring::PIN;
use crate::stripe::{Directory, End, Segment, Stripes, names};
use crate::worker::{Core, Worker};

const NO_ID: &str = "ERR Invalid stream ID specified as stream command argument";

/// The form of a command that names streams.
pub(super) fn form(
    stripes: &Stripes,
    db: u16,
    command: &Command,
    args: &Args<'_>,
    keys: &[u32],
    roles: &[Role],
    when: When,
) -> Form {
    use Special::{Xack, Xadd, Xdel, Xlen, Xrange, Xrevrange};
    let special = command.special;
    if !is_possible(special) {
        return refused(command, stripes);
    }
    let (streams, inside) = match known::queues(stripes, db, args, keys, roles, when) {
        Ok(known) => known,
        Err(needs) => return Form::Needs(needs),
    };
    let in_steps = || match when {
        When::Now => Form::OnStreams,
        _ => Form::Reply(encode::error(IN_STEPS)),
    };
    let one = streams.first().filter(|_| streams.len() == 1);
    let is_single = one.is_some_and(|stream| stream.directory.is_single());
    let plain_add = special == Xadd && !entries::has_options(args);
    let Some(stream) = one.filter(|_| passes(special)) else {
        return in_steps();
    };
    if special == Xadd
        && plain_add
        && when == When::BeforeExec
        && !stream.queue.has_room(stripes.profile.segment_len)
    {
        return Form::Needs(Needs {
            rooms: vec![(Bytes::copy_from_slice(args.arg(stream.at)), End::Tail, 1)],
            ..Needs::default()
        });
    }
    // In the open segment.
    if is_single || plain_add {
        let has_room = || stream.queue.has_room(stripes.profile.segment_len);
        return match special != Xadd || has_room() || when != When::Now {
            true => {
                let (frame, spans) = known::in_open_segments(args, &streams);
                Form::One(frame, spans, inside)
            }
            false => Form::OnStreams,
        };
    }
    match special {
        Xrange | Xrevrange => match entries::one_segment(args, &stream.directory, special) {
            Some(segment) => in_segment(args, stream, segment, inside),
            None => in_steps(),
        },
        Xack => by_ids(args, stream, 3, inside),
        Xdel if when != When::Now => {
            if when == When::InExec {
                stream.queue.lose_count();
            }
            by_ids(args, stream, 2, inside)
        }
        Xlen if when != When::Now => {
            let part =
                |segment| with_words(args, &[(stream.at, names::segment(segment, args.arg(stream.at)))]);
            Form::Each(
                stream.directory.segments().map(part).collect(),
                Merge::Sum,
                inside,
            )
        }
        _ => in_steps(),
    }
}

fn is_possible(special: Special) -> bool {
    use Special::*;
    passes(special) || matches!(special, Xread | Xreadgroup) || groups::is_possible(special)
}

/// Commands that pass as they are where there is one segment: their replies say nothing of keys.
fn passes(special: Special) -> bool {
    use Special::*;
    matches!(
        special,
        Xadd | Xlen | Xrange | Xrevrange | Xdel | Xtrim | Xack | XinfoStream | XinfoGroups
    )
}

fn in_segment(args: &Args<'_>, stream: &Queue, segment: Segment, mut inside: Guards) -> Form {
    let name = names::segment(segment, args.arg(stream.at));
    let (frame, spans) = with_words(args, &[(stream.at, name)]);
    for (partition, _) in &mut inside {
        *partition = segment.partition;
    }
    Form::One(frame, spans, inside)
}

/// A command with ids from that argument on, cut into one for each segment that has some of them.
fn by_ids(args: &Args<'_>, stream: &Queue, from: usize, inside: Guards) -> Form {
    let open = stream.directory.open();
    let cut = cut_by_segment(&stream.directory, args.iter().skip(from));
    let segment_at = |at: usize| stream.directory.segments().nth(at).unwrap_or(open);
    let cut = match cut {
        // A node says what is wrong with it.
        None => return in_segment(args, stream, open, inside),
        Some(cut) => cut,
    };
    if let [(at, _)] = cut.as_slice() {
        return in_segment(args, stream, segment_at(*at), inside);
    }
    let parts = cut.into_iter().map(|(at, ids)| {
        let name = names::segment(segment_at(at), args.arg(stream.at));
        let head = (0..from).map(|word| {
            if word == stream.at {
                &name[..]
            } else {
                args.arg(word)
            }
        });
        let words: Vec<&[u8]> = head.chain(ids).collect();
        frame_of(&words)
    });
    Form::Each(parts.collect(), Merge::Sum, inside)
}

/// A segment's place, and ids of its entries.
type InSegment<'a> = (usize, Vec<&'a [u8]>);

/// Ids by the places of their segments, in the order in which each first comes; `None` if one is no id.
fn cut_by_segment<'a>(
    directory: &Directory,
    ids: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<InSegment<'a>>> {
    let mut cut: Vec<InSegment<'_>> = Vec::new();
    for id in ids {
        let at = directory.place_of(StreamId::parse(id)?.into());
        match cut.iter_mut().find(|(other, _)| *other == at) {
            Some((_, ids)) => ids.push(id),
            None => cut.push((at, vec![id])),
        }
    }
    Some(cut)
}

impl Worker {
    /// Executes a command on streams that takes several steps.
    pub(super) fn on_streams(
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
        let special = command.special;
        if matches!(special, Special::Xread | Special::Xreadgroup) {
            return self.read_streams(core, id, command, steps);
        }
        self.proceed(core, id, command.downgrade(spans.len()), move |p| async move {
            let outcome = match execute(&p, &steps, special).await {
                Ok(outcome) | Err(outcome) => with_clients_names(outcome),
            };
            (p, outcome)
        })
    }
}

async fn execute(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    use Special::*;
    match special {
        Xadd => entries::add(p, steps).await,
        Xlen => entries::length(p, steps).await,
        Xdel => entries::delete(p, steps).await,
        Xtrim => entries::trim(p, steps).await,
        Xrange | Xrevrange => entries::range(p, steps, special).await,
        XinfoStream | XinfoGroups | XinfoConsumers => info::execute(p, steps, special).await,
        _ => groups::execute(p, steps, special).await,
    }
}

/// An error that names a segment names the stream instead.
fn with_clients_names(outcome: Outcome) -> Outcome {
    let Outcome::Reply { frames, resp3 } = outcome else {
        return outcome;
    };
    let at = match is_error(&frames) {
        true => frames.windows(PIN.len()).position(|word| word == PIN),
        false => None,
    };
    let frames = match at {
        // `rf@0123.0001:`
        Some(at) => {
            let behind = (at + PIN.len() + 10).min(frames.len());
            [frames.slice(..at), frames.slice(behind..)].concat().into()
        }
        None => frames,
    };
    Outcome::Reply { frames, resp3 }
}

/// The last id of a stream, as a number.
pub(super) async fn last_id(p: &Procedure, whole: &Whole) -> Step<u128> {
    let tail = whole.segments() - 1;
    let info = whole.on(p, tail, b"XINFO STREAM", &[]).await?;
    match is_error(&info) {
        // There is no such key.
        true => Ok(0),
        false => Ok(last_stream_id(&info).map_or(0, u128::from)),
    }
}

/// Makes a new segment: without entries, behind the last id of the one before, with the same groups.
pub(super) async fn begin(p: &Procedure, whole: &Whole, segment: Segment) -> Step<()> {
    let tail = whole.segments() - 1;
    let groups = whole.on(p, tail, b"XINFO GROUPS", &[]).await?;
    let name = names::segment(segment, whole.key());
    let last = StreamId::from(segment.base).to_string();
    let last = last.as_bytes();
    // Whatever an interrupted attempt has left.
    let mut commands = vec![
        frame_of(&[&b"UNLINK"[..], &name]),
        frame_of(&[&b"XADD"[..], &name, last, b"last", b"id"]),
        frame_of(&[&b"XDEL"[..], &name, last]),
    ];
    for group in elements(&groups) {
        let fields: Vec<&[u8]> = elements(group).collect();
        let value = |wanted: &[u8]| {
            let pair = fields
                .chunks(2)
                .find(|pair| pair.first().and_then(|name| text(name)) == Some(wanted));
            pair.and_then(|pair| text(pair.get(1)?))
        };
        if let (Some(group), Some(delivered)) = (value(b"name"), value(b"last-delivered-id")) {
            commands.push(frame_of(&[&b"XGROUP"[..], b"CREATE", &name, group, delivered]));
        }
    }
    sound(at_once(p, segment.partition, &commands).await?)?;
    Ok(())
}

/// Parts of arrays as one array.
fn array_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let parts: Vec<&[u8]> = parts.into_iter().collect();
    let mut out = bytes::BytesMut::new();
    encode::header(&mut out, b'*', parts.len());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.freeze()
}
