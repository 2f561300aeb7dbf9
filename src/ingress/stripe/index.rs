//! What is asked of an index: pages, ranks, counts. Each is asked of the segments that it concerns, and of no others.

use std::sync::Arc;

use bytes::Bytes;

use super::score::{self, Entry};
use super::segments::{candidates, counter_name, directory, drop_empty, queue};
use super::translate::Guards;
use super::whole;
use super::{NULL, Steps};
use crate::command::Special;
use crate::command::number::integer;
use crate::command::spec::Merge;
use crate::ingress::answer::{NOT_AN_INTEGER, SYNTAX};
use crate::ingress::procedure::{Procedure, Step, answer, reply};
use crate::request::Outcome;
use crate::resp::walk::text;
use crate::resp::{Args, encode};
use crate::stripe::marker::Marker;
use crate::stripe::{Directory, Id, Segment, names};

const NOT_BY_SCORE: &str =
    "ERR on a queue that is spread over nodes ranges are possible by rank only, with REV and WITHSCORES";

/// Executes it.
pub(super) async fn execute(p: &mut Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let shared = p.worker.shared().clone();
    let command = shared
        .commands
        .lookup(&args)
        .map_err(|error| answer(error.to_bytes()))?;
    let key = args.arg(1);
    match command.special {
        Special::Get => counter(p, steps, key).await,
        Special::Zrank | Special::Zrevrank => rank(p, steps, command.special, &args).await,
        Special::Zscore => {
            let found = find(p, steps, key, args.arg(2)).await?;
            Ok(answer(found.map_or(NULL, |entry| {
                score::double(entry.segment.base + u128::from(entry.score))
            })))
        }
        Special::Zcard => Ok(answer(encode::integer(total(p, steps, key).await?))),
        Special::Zcount if args.arg(2) == b"-inf" && args.arg(3) == b"+inf" => {
            Ok(answer(encode::integer(total(p, steps, key).await?)))
        }
        Special::Zrange | Special::Zrevrange => {
            let range = Range::of(command.special, &args).map_err(|line| answer(encode::error(line)))?;
            let entries = page(p, steps, key, &range).await?;
            Ok(answer(score::reply(&entries, range.with_scores)))
        }
        _ => Err(answer(encode::error(NOT_BY_SCORE))),
    }
}

/// Commands for several segments.
pub(super) async fn each(
    p: &mut Procedure,
    steps: &Steps,
    special: Special,
    parts: Vec<(Bytes, crate::resp::Spans)>,
    merge: Merge,
    inside: Guards,
) -> Step<Outcome> {
    let shared = p.worker.shared().clone();
    let mut asked = Vec::with_capacity(parts.len());
    for (frame, spans) in &parts {
        let key = Args { bytes: frame, spans }.arg(1);
        let partition = shared.keyspace.partition_of(key);
        let client = p.client().client;
        let part = [(frame.clone(), spans.clone())];
        let (action, _) = p
            .worker
            .with(|core| p.worker.one_unit(core, client, p.db, &part))?;
        asked.push((partition, steps.db, action));
    }
    let mut sum = 0;
    for outcome in p.ask_all(asked).await {
        let number = reply(outcome)?;
        sum += text(&number).and_then(integer).unwrap_or(0);
    }
    drop(inside);
    // What is not there any more is no queue any more.
    if matches!(special, Special::Del | Special::Unlink) {
        let key = steps.args();
        let sealed: Vec<Segment> = directory(p, steps, key.arg(1)).await?.segments().collect();
        drop_empty(p, steps, key.arg(1), &sealed).await;
    }
    Ok(answer(encode::integer(match merge {
        Merge::Any => i64::from(sum > 0),
        _ => sum,
    })))
}

/// The number that the next item gets, as on one server.
async fn counter(p: &Procedure, steps: &Steps, key: &[u8]) -> Step<Outcome> {
    let rule = p.worker.shared().keyspace.rule_of(key).map(|(rule, caught)| {
        let of = rule.of.as_ref().map(|of| of.fill(&rule.pattern, &caught));
        of.unwrap_or_default()
    });
    let index = rule.unwrap_or_default();
    let open = directory(p, steps, &index).await?.open();
    let name = counter_name(&steps.stripes, &index, open);
    let next = p.read(open.partition, &[&[b"GET", &name]]).await?;
    let next = next.first().and_then(|reply| text(reply)).map(score::number);
    Ok(answer(match (next, open.base) {
        (None, 0) => NULL,
        (next, base) => encode::bulk_frame((base + u128::from(next.unwrap_or(1))).to_string().as_bytes()),
    }))
}

/// A member's entry.
async fn find(p: &Procedure, steps: &Steps, index: &[u8], member: &[u8]) -> Step<Option<Entry>> {
    let directory = directory(p, steps, index).await?;
    let segments: Vec<Segment> = candidates(&steps.stripes, steps.db, index, &directory, member).collect();
    let question = |segment: &Segment| {
        let name = names::segment(*segment, index);
        (
            segment.partition,
            encode::command_frame(&[b"ZSCORE", &name, member]),
        )
    };
    let replies = p.read_all(segments.iter().map(question)).await?;
    let mut scores = segments.iter().zip(&replies);
    let entry = scores.find_map(|(&segment, reply)| {
        Some(Entry {
            segment,
            member: Bytes::copy_from_slice(member),
            score: score::number(text(reply)?),
        })
    });
    if let Some(entry) = &entry {
        learn(steps, index, std::slice::from_ref(entry));
    }
    Ok(entry)
}

/// A rank is a marker. That of an entry which has been removed is told as long as it is remembered: a client that was shown it last goes
/// on from there.
async fn rank(p: &Procedure, steps: &Steps, special: Special, args: &Args<'_>) -> Step<Outcome> {
    if args.len() > 3 {
        return Err(answer(encode::error(SYNTAX)));
    }
    let (index, member) = (args.arg(1), args.arg(2));
    let marker = match find(p, steps, index, member).await? {
        Some(entry) => Some(marker_of(&entry)),
        None => Id::of(member).and_then(|id| steps.stripes.entry(steps.db, index, id)),
    };
    Ok(answer(match (marker, special) {
        (None, _) => NULL,
        (Some(marker), Special::Zrevrank) => encode::integer(marker.reverse_rank() as i64),
        (Some(marker), _) => encode::integer(marker.rank() as i64),
    }))
}

fn marker_of(entry: &Entry) -> Marker {
    Marker {
        partition: entry.segment.partition,
        segment: entry.segment.number,
        counter: entry.score,
    }
}

/// Remembers where entries, and their items, are.
fn learn(steps: &Steps, index: &[u8], entries: &[Entry]) {
    for entry in entries {
        if let Some(id) = Id::of(&entry.member) {
            steps.stripes.put_entry(steps.db, index, id, marker_of(entry));
            steps.stripes.saw_item(steps.db, id, entry.segment.partition);
        }
    }
}

/// What a range asks for.
struct Range {
    start: i64,
    stop: i64,
    reverse: bool,
    with_scores: bool,
}

impl Range {
    fn of(special: Special, args: &Args<'_>) -> Result<Self, &'static str> {
        let number = |at: usize| integer(args.arg(at)).ok_or(NOT_AN_INTEGER);
        let mut range = Self {
            start: 0,
            stop: 0,
            reverse: special == Special::Zrevrange,
            with_scores: false,
        };
        for word in args.iter().skip(4) {
            match word.to_ascii_uppercase().as_slice() {
                b"WITHSCORES" => range.with_scores = true,
                b"REV" if special == Special::Zrange => range.reverse = true,
                b"BYSCORE" | b"BYLEX" | b"LIMIT" => return Err(NOT_BY_SCORE),
                _ => return Err(SYNTAX),
            }
        }
        (range.start, range.stop) = (number(2)?, number(3)?);
        Ok(range)
    }

    fn marker(&self) -> Option<Marker> {
        match self.reverse {
            false => Marker::of_rank(self.start),
            true => Marker::of_reverse_rank(self.start),
        }
    }
}

/// How many entries there are in all.
async fn total(p: &Procedure, steps: &Steps, index: &[u8]) -> Step<i64> {
    let (queue, _) = queue(p, steps, index).await?;
    let alone = queue.alone().await;
    let directory = directory(p, steps, index).await?;
    let unknown: Vec<Segment> = directory
        .segments()
        .filter(|segment| *segment == directory.open() || queue.card(*segment).is_none())
        .collect();
    let asked = whole::lengths(p, index, unknown.iter().copied(), b"ZCARD").await?;
    let card = |segment: Segment| match unknown.contains(&segment) {
        true => asked.of(segment.number) as i64,
        false => queue.card(segment).unwrap_or(0),
    };
    let cards: Vec<(Segment, i64)> = directory
        .segments()
        .map(|segment| (segment, card(segment)))
        .collect();
    let sealed = cards
        .iter()
        .copied()
        .filter(|(segment, _)| *segment != directory.open());
    queue.counted_cards(sealed, &alone);
    Ok(cards.iter().map(|(_, card)| card).sum())
}

/// The entries of a range.
async fn page(p: &Procedure, steps: &Steps, index: &[u8], range: &Range) -> Step<Vec<Entry>> {
    let directory = directory(p, steps, index).await?;
    let (mut start, mut stop) = (range.start, range.stop);
    let marker = range.marker();
    if marker.is_none() && (start < 0 || stop < -1) {
        // Counted from the end.
        let total = total(p, steps, index).await?;
        let from_end = |at: i64| if at < 0 { at + total } else { at };
        (start, stop) = (from_end(start).max(0), from_end(stop));
        if stop < 0 {
            return Ok(Vec::new());
        }
    }
    let wanted = match stop {
        -1 => u64::MAX,
        _ if stop < start => return Ok(Vec::new()),
        _ => (stop - start) as u64 + 1,
    };
    let from = Place::of(marker, start);
    let mut walk = Walk {
        p,
        index,
        reverse: range.reverse,
        found: Vec::new(),
        wanted,
        empty: Vec::new(),
    };
    walk.all(&directory, from).await?;
    let Walk { found, empty, .. } = walk;
    learn(steps, index, &found);
    if !empty.is_empty() {
        drop_empty(p, steps, index, &empty).await;
    }
    Ok(found)
}

/// Where a page begins.
enum Place {
    /// Behind so many entries from the head.
    Offset(u64),
    /// At this place, or the next one that is taken.
    At(Marker),
}

impl Place {
    fn of(marker: Option<Marker>, start: i64) -> Self {
        match marker {
            Some(marker) => Self::At(marker),
            None => Self::Offset(start.max(0) as u64),
        }
    }
}

/// A walk over segments until there is enough.
struct Walk<'a> {
    p: &'a Procedure,
    index: &'a [u8],
    reverse: bool,
    found: Vec<Entry>,
    wanted: u64,
    /// Sealed segments that are empty.
    empty: Vec<Segment>,
}

impl Walk<'_> {
    async fn all(&mut self, directory: &Arc<Directory>, from: Place) -> Step<()> {
        let segments: Vec<Segment> = match (&from, self.reverse) {
            (Place::Offset(_), false) => directory.segments().collect(),
            (Place::Offset(_), true) => directory.segments().rev().collect(),
            (Place::At(marker), false) => directory.from(marker.segment).collect(),
            (Place::At(marker), true) => directory.back_from(marker.segment).collect(),
        };
        let open = directory.open();
        let mut skip = match &from {
            Place::Offset(skip) => *skip,
            Place::At(_) => 0,
        };
        for segment in segments {
            if self.found.len() as u64 >= self.wanted {
                break;
            }
            let bound = match &from {
                Place::At(marker) if marker.segment == segment.number => Some(marker.counter),
                _ => None,
            };
            let (entries, before) = self.one(segment, bound, skip).await?;
            if entries.is_empty() && bound.is_none() && before == 0 && segment != open {
                self.empty.push(segment);
            }
            skip = skip.saturating_sub(before);
            if !entries.is_empty() {
                skip = 0;
            }
            self.found.extend(entries);
        }
        Ok(())
    }

    /// The entries of one segment, and, if some are to be skipped, how many there are in all.
    async fn one(&self, segment: Segment, bound: Option<u64>, skip: u64) -> Step<(Vec<Entry>, u64)> {
        let name = names::segment(segment, self.index);
        let left = self.wanted.saturating_sub(self.found.len() as u64);
        let limit = i64::try_from(left).unwrap_or(-1);
        let (command, min, max): (&[u8], String, &[u8]) = match (self.reverse, bound) {
            (false, Some(counter)) => (b"ZRANGEBYSCORE", counter.to_string(), b"+inf"),
            (false, None) => (b"ZRANGEBYSCORE", "-inf".into(), b"+inf"),
            (true, Some(counter)) => (b"ZREVRANGEBYSCORE", counter.to_string(), b"-inf"),
            (true, None) => (b"ZREVRANGEBYSCORE", "+inf".into(), b"-inf"),
        };
        let (skip_text, limit) = (skip.to_string(), limit.to_string());
        let range: [&[u8]; 8] = [
            command,
            &name,
            min.as_bytes(),
            max,
            b"WITHSCORES",
            b"LIMIT",
            skip_text.as_bytes(),
            limit.as_bytes(),
        ];
        let card: [&[u8]; 2] = [b"ZCARD", &name];
        let asked: &[&[&[u8]]] = match skip {
            0 => &[&range],
            _ => &[&range, &card],
        };
        let replies = self.p.read(segment.partition, asked).await?;
        let entries = replies.first().map(|reply| score::entries(segment, reply));
        let total = replies
            .get(1)
            .and_then(|reply| text(reply))
            .map_or(0, score::number);
        Ok((entries.unwrap_or_default(), total))
    }
}
