//! Lists as keys: whether they are there, and their removal.

use bytes::Bytes;

use super::super::{Steps, at_once, role_of};
use super::whole::Whole;
use crate::command::Special;
use crate::command::number::integer;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::profile;
use crate::request::Outcome;
use crate::resp::walk::{is_error, text};
use crate::resp::{encode, frame_of};

pub(super) fn is_possible(special: Special) -> bool {
    use Special::*;
    matches!(
        special,
        Del | Unlink | Exists | Touch | Type | Ttl | Pttl | Expiretime | Pexpiretime | Persist
    )
}

/// Executes it: key by key, if there are several.
pub(super) async fn execute(p: &Procedure, steps: &Steps, special: Special) -> Step<Outcome> {
    use Special::*;
    let args = steps.args();
    if !matches!(special, Del | Unlink | Exists | Touch) {
        let whole = Whole::open(p, steps, args.arg(1)).await?;
        let is_there = whole.total() > 0;
        whole.finish();
        return Ok(answer(match (special, is_there) {
            (Type, true) => Bytes::from_static(b"+list\r\n"),
            (Type, false) => Bytes::from_static(b"+none\r\n"),
            // A list that is spread over nodes does not expire.
            (Persist, _) => encode::integer(0),
            (_, true) => encode::integer(-1),
            (_, false) => encode::integer(-2),
        }));
    }
    let mut sum = 0;
    for key in args.iter().skip(1) {
        sum += match role_of(&p.worker.shared().keyspace, key) {
            profile::Role::List => one_list(p, steps, special, key).await?,
            _ => {
                let partition = p.worker.shared().keyspace.partition_of(key);
                let call = frame_of(&[args.arg(0), key]);
                let reply = at_once(p, partition, &[call]).await?;
                if is_error(&reply) {
                    return Err(answer(reply));
                }
                text(&reply).and_then(integer).unwrap_or(0)
            }
        };
    }
    Ok(answer(encode::integer(sum)))
}

async fn one_list(p: &Procedure, steps: &Steps, special: Special, key: &[u8]) -> Step<i64> {
    let mut whole = Whole::open(p, steps, key).await?;
    let is_there = whole.total() > 0;
    if is_there && matches!(special, Special::Del | Special::Unlink) {
        whole.clear(p).await?;
    }
    whole.finish();
    Ok(i64::from(is_there))
}
