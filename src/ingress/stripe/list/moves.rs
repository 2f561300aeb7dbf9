//! Moving an element from an end of a list to one of another, or the same.
//!
//! For who is alone at both: then each end is one segment's, and between segments an element moves as between any two keys.

use super::super::whole::Whole;
use super::super::{NULL, Steps, native, role_of, whole, with_words};
use crate::ingress::answer::SYNTAX;
use crate::ingress::procedure::{Procedure, Step, answer};
use crate::profile::Role;
use crate::request::Outcome;
use crate::resp::walk::is_error;
use crate::resp::{Args, encode};
use crate::stripe::End;

/// `LMOVE`, `RPOPLPUSH`.
pub(super) async fn execute(p: &mut Procedure, steps: &Steps) -> Step<Outcome> {
    let args = steps.args();
    let side = |at: usize| match args.arg(at).to_ascii_uppercase().as_slice() {
        b"LEFT" => Some(End::Head),
        b"RIGHT" => Some(End::Tail),
        _ => None,
    };
    let ends = match args.len() {
        5 => side(3).zip(side(4)),
        _ => Some((End::Tail, End::Head)),
    };
    let Some((from, to)) = ends else {
        return Err(answer(encode::error(SYNTAX)));
    };
    let is_list = |at: usize| role_of(&p.worker.shared().keyspace, args.arg(at)) == Role::List;
    let mut open: Vec<usize> = [1, 2].into_iter().filter(|&at| is_list(at)).collect();
    // Gates in one order for everybody, and each once.
    open.sort_by_key(|&at| args.arg(at));
    open.dedup_by_key(|&mut at| args.arg(at));
    let mut lists: Vec<(usize, Whole)> = Vec::new();
    for at in open {
        lists.push((at, whole(p, steps, args.arg(at)).await?));
    }
    let outcome = step(p, steps, &mut lists, from, to).await?;
    for (_, whole) in lists {
        whole.finish();
    }
    p.release();
    Ok(outcome)
}

async fn step(
    p: &mut Procedure,
    steps: &Steps,
    lists: &mut [(usize, Whole)],
    from: End,
    to: End,
) -> Step<Outcome> {
    let args = steps.args();
    let same = args.arg(1) == args.arg(2);
    let place = |at: usize, lists: &[(usize, Whole)]| {
        let is_it = |other: usize| other == at || same;
        lists.iter().position(|(other, _)| is_it(*other))
    };
    let (source, target) = (place(1, lists), place(2, lists));
    if let Some((_, whole)) = source.and_then(|i| lists.get_mut(i)) {
        whole.settle(p).await?;
        if whole.total() == 0 {
            return Ok(answer(NULL));
        }
    }
    if let Some((_, whole)) = target.and_then(|i| lists.get_mut(i)) {
        whole.settle(p).await?;
        whole.room(p, to, 1).await?;
    }
    let mut words = Vec::new();
    let mut counts = Vec::new();
    for (at, list, end, by) in [(1, source, from, -1), (2, target, to, 1)] {
        if let Some((i, (_, whole))) = list.and_then(|i| Some((i, lists.get(i)?))) {
            // A new segment at the end that is taken from has nothing yet.
            let mut segment = whole.end(end);
            if by < 0 && whole.length(segment) == 0 {
                segment = match end {
                    End::Head => segment + 1,
                    End::Tail => segment.saturating_sub(1),
                };
            }
            words.push((at, whole.segment(segment).1));
            counts.push((i, segment, by));
        }
    }
    let (frame, spans) = with_words(&args, &words);
    let translated = Args {
        bytes: &frame,
        spans: &spans,
    };
    let keyspace = p.worker.shared().keyspace.clone();
    let (here, there) = (
        keyspace.partition_of(translated.arg(1)),
        keyspace.partition_of(translated.arg(2)),
    );
    let outcome = if here == there {
        answer(native(p, here, &(frame.clone(), spans.clone())).await?)
    } else {
        let worker = p.worker.clone();
        let command = worker
            .shared()
            .commands
            .lookup(&translated)
            .map_err(|error| answer(error.to_bytes()))?;
        let across = worker.with(|core| worker.across(core, command, &frame, &spans));
        across.map_err(answer)?.execute(p).await?
    };
    let moved = match &outcome {
        Outcome::Reply { frames, .. } => !frames.starts_with(b"_") && !is_error(frames),
        _ => return Err(outcome),
    };
    for (i, segment, by) in counts.into_iter().filter(|_| moved) {
        if let Some((_, whole)) = lists.get_mut(i) {
            whole.count(segment, by);
        }
    }
    Ok(outcome)
}
