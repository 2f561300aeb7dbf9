//! Commands whose effect would depend on the node, in a form that has the same effect on every node.
//!
//! The copies of a partition get the same commands in the same order; they stay equal only if a command does the same
//! wherever it runs. A few do not: they read the node's clock (`SET k v EX 10`, `XADD k *`), its memory layout
//! (`MAXLEN ~`), or its random numbers (`SPOP`). Each is replaced, when it takes its place in the order, by a command
//! that says what the first one left to the node ([`Form::Rewritten`]), or is decided on one node first
//! ([`Form::Decide`]). The client gets the reply that it would have got from the command as it sent it.
//!
//! Which commands these are is data ([`rule_for`], asked once per command when the table is built). What Redis would refuse
//! (a number that is none, a time of zero, options that exclude each other) is left as it is: the nodes all refuse it
//! alike, in Redis' own words. Times of zero or less are left too where they mean "at once": that is the same
//! everywhere. So are absolute times (`EXPIREAT`, `PXAT`).
//!
//! Not for here: scripts, and commands that meet a key in the moment of its expiry.

use bytes::Bytes;
use smallvec::SmallVec;

use super::decide::{self, Decision};
use super::frame::FrameWriter;
use super::number::integer;
use super::xadd;
use crate::resp::Args;

pub use super::number::StreamId;

/// The pool's time, and the last stream id given out by this worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolClock {
    /// Unix time in milliseconds, by the pool's clock. Set by the owner before each command, or each batch.
    pub now_ms: u64,
    /// The last id that [`next_stream_id`](Self::next_stream_id) gave.
    pub last_stream_id: StreamId,
}

impl PoolClock {
    /// An id for a new stream entry: the time, or just above the last id when the clock has not moved on since.
    /// Strictly increasing over all streams of the worker, so also over each of them.
    pub fn next_stream_id(&mut self) -> StreamId {
        let by_time = StreamId {
            ms: self.now_ms,
            seq: 0,
        };
        let by_order = self.last_stream_id.next().unwrap_or(self.last_stream_id);
        self.last_stream_id = by_time.max(by_order);
        self.last_stream_id
    }
}

/// In which form a command goes to the nodes.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    /// As the client sent it.
    AsIs,
    /// As this command, whose reply is the client's.
    Rewritten(Bytes),
    /// As what a look at one node says, the partition being held meanwhile.
    Decide(Decision),
}

/// What has to be done about a command. Resolved once per command, by [`rule_for`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteRule {
    /// `EX` and `PX` among the options, which begin at this argument.
    Options(u8),
    /// The same behind as many pairs of key and value as the first argument says: `MSETEX`.
    OptionsAfterPairs,
    /// `SETEX`, `PSETEX`: key, time, value.
    SetWithTime(Unit),
    /// Key, time, and whatever follows, for a command of the second name with an absolute time.
    Expire(Unit, &'static str),
    /// `RESTORE`.
    Restore,
    /// `XADD`.
    Add,
    /// `XTRIM`.
    Trim,
    /// `SPOP`.
    Pop,
    /// `XCLAIM`.
    Claim,
    /// `XAUTOCLAIM`.
    AutoClaim,
    /// `SORT`.
    Sort,
}

/// What a command counts its time in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
}

/// Every command with a rule, by its full name in lower case.
const RULES: &[(&str, RewriteRule)] = &[
    ("set", RewriteRule::Options(3)),
    ("getex", RewriteRule::Options(2)),
    ("hgetex", RewriteRule::Options(2)),
    ("hsetex", RewriteRule::Options(2)),
    ("msetex", RewriteRule::OptionsAfterPairs),
    ("setex", RewriteRule::SetWithTime(Unit::Seconds)),
    ("psetex", RewriteRule::SetWithTime(Unit::Millis)),
    ("expire", RewriteRule::Expire(Unit::Seconds, "PEXPIREAT")),
    ("pexpire", RewriteRule::Expire(Unit::Millis, "PEXPIREAT")),
    ("hexpire", RewriteRule::Expire(Unit::Seconds, "HPEXPIREAT")),
    ("hpexpire", RewriteRule::Expire(Unit::Millis, "HPEXPIREAT")),
    ("restore", RewriteRule::Restore),
    ("xadd", RewriteRule::Add),
    ("xtrim", RewriteRule::Trim),
    ("spop", RewriteRule::Pop),
    ("xclaim", RewriteRule::Claim),
    ("xautoclaim", RewriteRule::AutoClaim),
    ("sort", RewriteRule::Sort),
];

/// The rule for the command of this full name in lower case; most have none. A linear search: for building the table.
pub fn rule_for(name: &str) -> Option<RewriteRule> {
    RULES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, rule)| rule)
}

/// The form in which a command with `rule` goes to the nodes. `args` has passed the arity check.
pub fn deterministic(rule: RewriteRule, args: &Args<'_>, clock: &mut PoolClock) -> Form {
    let rewritten = match rule {
        RewriteRule::Options(from) => expiry_option(args, usize::from(from), clock.now_ms),
        RewriteRule::OptionsAfterPairs => {
            let pairs = integer(args.arg(1))
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(usize::MAX);
            expiry_option(args, pairs.saturating_mul(2).saturating_add(2), clock.now_ms)
        }
        RewriteRule::SetWithTime(unit) => set_with_time(args, unit, clock.now_ms),
        RewriteRule::Expire(unit, name) => expire(args, unit, name, clock.now_ms),
        RewriteRule::Restore => restore(args, clock.now_ms),
        RewriteRule::Add => xadd::add(args, || clock.next_stream_id()),
        RewriteRule::Trim => xadd::trim(args),
        RewriteRule::Claim => decide::claim_of_any_age(args, clock.now_ms),
        RewriteRule::Pop | RewriteRule::AutoClaim | RewriteRule::Sort => None,
    };
    if let Some(frame) = rewritten {
        return Form::Rewritten(frame);
    }
    let decision = match rule {
        RewriteRule::Pop => decide::pop(args),
        RewriteRule::Claim => decide::claim(args),
        RewriteRule::AutoClaim => decide::auto_claim(args),
        RewriteRule::Sort => decide::sort(args),
        _ => None,
    };
    decision.map_or(Form::AsIs, Form::Decide)
}

/// What to do when all nodes answered a *rewritten* `XADD` with `reply`: the stream's last id may lie in the future (someone
/// gave ids of his own, or a former owner's clock was ahead), and `*` must work all the same. The refused command
/// changed nothing, so the id can be decided on one node instead.
pub fn second_chance(rule: RewriteRule, args: &Args<'_>, reply: &[u8]) -> Option<Decision> {
    let refused =
        rule == RewriteRule::Add && reply.starts_with(b"-ERR The ID specified in XADD is equal or smaller");
    (refused && xadd::asks_for_id(args)).then_some(Decision::Add)
}

/// The absolute time that lies `time` after now, if Redis would take it.
fn deadline_ms(unit: Unit, time: &[u8], now_ms: u64) -> Option<u64> {
    let time = integer(time).filter(|&time| time > 0)?;
    let ms = match unit {
        Unit::Seconds => time.checked_mul(1000)?,
        Unit::Millis => time,
    };
    u64::try_from(ms.checked_add_unsigned(now_ms)?).ok()
}

fn expiry_option(args: &Args<'_>, from: usize, now_ms: u64) -> Option<Bytes> {
    // Redis takes `EX 1 EX 2`, as `EX 2`.
    let mut found: SmallVec<[usize; 2]> = SmallVec::new();
    let mut unit = None;
    let mut at = from;
    while let Some(option) = args.get(at) {
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        let this = if is("EX") {
            Unit::Seconds
        } else if is("PX") {
            Unit::Millis
        } else if is("FIELDS") {
            break;
        } else if is("IFEQ") || is("IFNE") || is("IFDEQ") || is("IFDNE") {
            at += 2;
            continue;
        } else if is("EXAT") || is("PXAT") || is("KEEPTTL") || is("PERSIST") {
            return None;
        } else {
            at += 1;
            continue;
        };
        if unit.is_some_and(|unit| unit != this) {
            return None;
        }
        unit = Some(this);
        found.push(at);
        at += 2;
    }
    let deadline = deadline_ms(unit?, args.get(found.last()? + 1)?, now_ms)?;
    let mut frame = FrameWriter::new(args.arg(0), args.bytes.len());
    let dropped = |i: usize| found.contains(&i) || found.contains(&(i - 1));
    let last = *found.last()?;
    for i in 1..args.len() {
        if i == last {
            frame.arg(b"PXAT").number(deadline);
        } else if !dropped(i) {
            frame.arg(args.arg(i));
        }
    }
    Some(frame.finish())
}

fn set_with_time(args: &Args<'_>, unit: Unit, now_ms: u64) -> Option<Bytes> {
    let deadline = deadline_ms(unit, args.get(2)?, now_ms)?;
    let mut frame = FrameWriter::new(b"SET", args.bytes.len());
    frame
        .arg(args.get(1)?)
        .arg(args.get(3)?)
        .arg(b"PXAT")
        .number(deadline);
    Some(frame.finish())
}

fn expire(args: &Args<'_>, unit: Unit, name: &str, now_ms: u64) -> Option<Bytes> {
    let deadline = deadline_ms(unit, args.get(2)?, now_ms)?;
    let mut frame = FrameWriter::new(name.as_bytes(), args.bytes.len());
    frame.arg(args.get(1)?).number(deadline).args(args.iter().skip(3));
    Some(frame.finish())
}

fn restore(args: &Args<'_>, now_ms: u64) -> Option<Bytes> {
    let deadline = deadline_ms(Unit::Millis, args.get(2)?, now_ms)?;
    if args
        .iter()
        .skip(4)
        .any(|option| option.eq_ignore_ascii_case(b"ABSTTL"))
    {
        return None;
    }
    let mut frame = FrameWriter::new(args.arg(0), args.bytes.len());
    frame
        .arg(args.get(1)?)
        .number(deadline)
        .args(args.iter().skip(3))
        .arg(b"ABSTTL");
    Some(frame.finish())
}

#[cfg(test)]
mod tests;
