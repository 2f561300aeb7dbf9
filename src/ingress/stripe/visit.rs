//! A script that looks at an index from its head until it has found enough: it is executed on one segment after the other.

use bytes::{Bytes, BytesMut};

use super::score::number;
use super::segments::{directory, drop_empty, queue, texts};
use super::{Steps, at_once, with_words};
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::profile::ScriptRule;
use crate::request::Outcome;
use crate::resp::encode;
use crate::resp::walk::{is_error, text};
use crate::stripe::{Id, Place, Segment, names};

/// Executes it.
pub(super) async fn execute(p: &mut Procedure, steps: &Steps, rule: &ScriptRule) -> Step<Outcome> {
    let args = steps.args();
    let (stripes, db) = (&steps.stripes, steps.db);
    let index = Bytes::copy_from_slice(args.arg(3));
    let argv = 2 + rule.keys.len();
    let limit_at = argv + rule.limit;
    // What is made now was nowhere before.
    if let Some(fresh) = Id::of(args.arg(argv + rule.fresh)).filter(|_| rule.fresh > 0)
        && stripes.place(db, fresh).is_none()
    {
        stripes.put_place(db, fresh, Place::Own);
    }
    let mut left = number(args.arg(limit_at));
    let mut found: Vec<Bytes> = Vec::new();
    let mut empty: Vec<Segment> = Vec::new();
    let (queue, _) = queue(p, steps, &index).await?;
    // It may remove entries.
    let inside = queue.entered().await;
    let directory = directory(p, steps, &index).await?;
    let segments: Vec<Segment> = directory.segments().collect();
    for segment in segments {
        let name = names::segment(segment, &index);
        queue.card_changes(segment);
        let call = with_words(
            &args,
            &[(3, name.clone()), (limit_at, Bytes::from(left.to_string()))],
        );
        let reply = match at_once(p, segment.partition, &[call]).await {
            Ok(reply) if !is_error(&reply) => reply,
            // What was found so far has been taken: less than was asked for is better than nothing.
            Ok(_) | Err(_) if !found.is_empty() => break,
            Ok(error) => return Err(answer(error)),
            Err(end) => return Err(end),
        };
        let here = texts(&reply);
        for id in here.iter().filter_map(|member| Id::of(member)) {
            stripes.saw_item(db, id, segment.partition);
        }
        if here.is_empty() && segment != directory.open() {
            let card = p.read(segment.partition, &[&[b"ZCARD", &name]]).await?;
            if card.first().and_then(|reply| text(reply)).map(number) == Some(0) {
                empty.push(segment);
            }
        }
        left = left.saturating_sub(here.len() as u64);
        found.extend(here);
        if left == 0 {
            break;
        }
    }
    drop(inside);
    if !empty.is_empty() {
        drop_empty(p, steps, &index, &empty).await;
    }
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', found.len());
    for member in &found {
        encode::bulk(&mut out, member);
    }
    Ok(answer(out.freeze()))
}
