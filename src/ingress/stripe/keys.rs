//! Lists and streams as keys: whether they are there, and their removal.

use bytes::Bytes;

use super::known;
use super::transaction::IN_STEPS;
use super::translate::{Form, When};
use super::{Steps, count_of, native, role_of, sound, whole, with_words};
use crate::command::spec::Merge;
use crate::command::{Command, Special};
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::profile::Role;
use crate::request::Outcome;
use crate::resp::{Args, encode, frame_of};
use crate::stripe::{Stripes, names};

pub(super) fn is_possible(special: Special) -> bool {
    use Special::*;
    matches!(
        special,
        Del | Unlink | Exists | Touch | Type | Ttl | Pttl | Expiretime | Pexpiretime | Persist
    )
}

/// The form of such a command.
pub(super) fn form(
    stripes: &Stripes,
    db: u16,
    command: &Command,
    args: &Args<'_>,
    keys: &[u32],
    roles: &[Role],
    when: When,
) -> Form {
    let (queues, inside) = match known::queues(stripes, db, args, keys, roles, when) {
        Ok(known) => known,
        Err(needs) => return Form::Needs(needs),
    };
    let removes = matches!(command.special, Special::Del | Special::Unlink);
    if queues.iter().all(|queue| queue.directory.is_single()) {
        let (frame, spans) = known::in_open_segments(args, &queues);
        return Form::One(frame, spans, inside);
    }
    match (when, queues.as_slice()) {
        (When::Now, _) => Form::OnKeys,
        // A stream that is removed begins anew with any id, so its directory must go with it.
        (_, [queue])
            if args.len() == 2
                && (removes && roles == [Role::List] || command.special == Special::Exists) =>
        {
            if removes && when == When::InExec {
                queue.queue.lose_count();
            }
            let segments = queue.directory.segments();
            let part = |segment| with_words(args, &[(queue.at, names::segment(segment, args.arg(queue.at)))]);
            Form::Each(segments.map(part).collect(), Merge::Any, inside)
        }
        _ => Form::Reply(encode::error(IN_STEPS)),
    }
}

/// Executes it: key by key, if there are several.
pub(super) async fn execute(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    use Special::{Del, Exists, Persist, Touch, Type, Unlink};
    let args = steps.args();
    if !matches!(special, Del | Unlink | Exists | Touch) {
        let whole = whole(p, steps, args.arg(1)).await?;
        let is_there = whole.is_there(p).await?;
        whole.finish();
        let kind = role_of(&p.worker.shared().keyspace, args.arg(1));
        return Ok(answer(match (special, is_there) {
            (Type, true) if kind == Role::Stream => Bytes::from_static(b"+stream\r\n"),
            (Type, true) => Bytes::from_static(b"+list\r\n"),
            (Type, false) => Bytes::from_static(b"+none\r\n"),
            // What is spread over nodes does not expire.
            (Persist, _) => encode::integer(0),
            (_, true) => encode::integer(-1),
            (_, false) => encode::integer(-2),
        }));
    }
    let mut sum = 0;
    for key in args.iter().skip(1) {
        sum += match role_of(&p.worker.shared().keyspace, key) {
            Role::List | Role::Stream => one(p, steps, special, key).await?,
            _ => {
                let partition = p.worker.shared().keyspace.partition_of(key);
                let call = frame_of(&[args.arg(0), key]);
                count_of(&sound(native(p, partition, &call).await?)?)
            }
        };
    }
    Ok(answer(encode::integer(sum)))
}

async fn one(p: &Procedure, steps: &Steps, special: Special, key: &[u8]) -> Step<i64> {
    let mut whole = whole(p, steps, key).await?;
    let is_there = whole.is_there(p).await?;
    if is_there && matches!(special, Special::Del | Special::Unlink) {
        whole.clear(p).await?;
    }
    whole.finish();
    Ok(i64::from(is_there))
}
