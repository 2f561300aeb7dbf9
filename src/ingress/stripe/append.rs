//! A script that appends items to an index: it is executed on the open segment, and the items are put there with it, in one
//! transaction of each node.

use bytes::Bytes;

use super::segments::{counter_name, turn};
use super::{Steps, at_once, with_words};
use crate::command::dump;
use crate::ingress::procedure::{Procedure, Step, answer, replies};
use crate::profile::{Role, ScriptRule};
use crate::request::{Action, Commands, Outcome, PartitionId};
use crate::resp::walk::is_error;
use crate::resp::{CommandScanner, Scanned, Spans};
use crate::stripe::{Id, Place, Segment, Staged, names};

/// An item that is somewhere else.
struct Elsewhere {
    id: Id,
    partition: PartitionId,
    /// What the nodes call it there.
    name: Bytes,
}

/// Executes it.
pub(super) async fn execute(p: &mut Procedure, steps: &Steps, rule: &ScriptRule) -> Step<Outcome> {
    let args = steps.args();
    let index = Bytes::copy_from_slice(args.arg(3));
    let first = 2 + rule.keys.len() + rule.items;
    let ids: Vec<Id> = args.iter().skip(first).filter_map(Id::of).collect();
    let (segment, _inside) = turn(p, steps, &index, ids.len() as u64).await?;
    append(p, steps, rule, &index, segment, &ids).await
}

async fn append(
    p: &mut Procedure,
    steps: &Steps,
    rule: &ScriptRule,
    index: &[u8],
    segment: Segment,
    ids: &[Id],
) -> Step<Outcome> {
    let (stripes, db) = (&steps.stripes, steps.db);
    let elsewhere: Vec<Elsewhere> = ids
        .iter()
        .filter_map(|&id| elsewhere(p, steps, id, segment.partition))
        .collect();
    let mut commands: Vec<(Bytes, Spans)> = Vec::new();
    if !elsewhere.is_empty() {
        let held = elsewhere.iter().map(|item| item.partition);
        p.hold(held.chain([segment.partition]).collect()).await?;
        commands.extend(carry(p, db, segment, &elsewhere).await?);
    }
    let mut taken: Vec<(Id, Staged)> = Vec::new();
    for &id in ids {
        let Some(staged) = stripes.take_staged(db, id) else {
            continue;
        };
        let name = names::item(segment.partition, id.to_string().as_bytes());
        for (frame, spans) in &staged.commands {
            let args = crate::resp::Args { bytes: frame, spans };
            commands.push(with_words(&args, &[(1, name.clone())]));
        }
        taken.push((id, staged));
    }
    let keys = rule.keys.iter().enumerate().map(|(at, role)| {
        let name = match role {
            Role::Counter => counter_name(stripes, index, segment),
            _ => names::segment(segment, index),
        };
        (3 + at, name)
    });
    commands.push(with_words(&steps.args(), &keys.collect::<Vec<_>>()));
    let reply = match at_once(p, segment.partition, &commands).await {
        Ok(reply) => reply,
        Err(end) => {
            // Nothing has happened, as far as we are told: they are as new as before.
            if matches!(end, Outcome::Refused(_)) {
                for (id, staged) in taken {
                    // If there is no room any more, they are lost: their driver is told that nothing was posted.
                    stripes.stage(db, id, staged.commands, staged.since_ms);
                }
            }
            return Err(end);
        }
    };
    for (id, _) in &taken {
        stripes.put_place(db, *id, Place::Segment(segment.partition));
    }
    let failed = is_error(&reply);
    for item in &elsewhere {
        let copy = names::item(segment.partition, item.id.to_string().as_bytes());
        // Where the script has failed, no entry names the copy, and another one may name the item.
        let (partition, name) = match failed {
            true => (segment.partition, &copy),
            false => (item.partition, &item.name),
        };
        if !failed {
            // Who knows where the entry of another index is must not look for it here.
            stripes.put_place(db, item.id, Place::Moved(segment.partition));
        }
        p.write(partition, db, &[b"DEL", name], 1).await?;
    }
    Ok(answer(reply))
}

/// Where an item is, if it is neither new nor in this partition.
fn elsewhere(p: &Procedure, steps: &Steps, id: Id, here: PartitionId) -> Option<Elsewhere> {
    if steps.stripes.is_staged(steps.db, id) {
        return None;
    }
    let text = id.to_string();
    let place = steps.stripes.place(steps.db, id);
    let (partition, name) = match place.and_then(Place::partition) {
        Some(partition) if partition == here => return None,
        Some(partition) => (partition, names::item(partition, text.as_bytes())),
        None => {
            let own = p.worker.shared().keyspace.partition_of(text.as_bytes());
            (own, Bytes::from(text))
        }
    };
    Some(Elsewhere { id, partition, name })
}

/// The commands that make these items what they are elsewhere.
async fn carry(
    p: &Procedure,
    db: u16,
    segment: Segment,
    elsewhere: &[Elsewhere],
) -> Step<Vec<(Bytes, Spans)>> {
    let mut commands = Vec::new();
    for item in elsewhere {
        let question = p.worker.shared().question();
        let ask = Commands {
            count: question.count(),
            ..Commands::one(question.about(&item.name))
        };
        let frames = replies(p.ask(item.partition, db, Action::Read(ask)).await)?.concat();
        let frames = question.value(frames);
        let to = names::item(segment.partition, item.id.to_string().as_bytes());
        if dump::exists(&frames)
            && let Some((frame, _)) = dump::restore(&to, &frames)
            && let Ok(Scanned::Command { spans, .. }) = CommandScanner::new(usize::MAX).scan(&frame)
        {
            commands.push((frame, spans));
        }
    }
    Ok(commands)
}
