//! A script that appends items to an index: it is executed on the open segment, and the items are put there with it, in one
//! transaction of each node.

use bytes::Bytes;

use super::segments::{counter_name, turn};
use super::{Steps, at_once, with_words};
use crate::command::dump;
use crate::ingress::procedure::{Procedure, Step, answer, replies};
use crate::profile::{Role, ScriptRule};
use crate::request::{Action, Commands, Outcome, PartitionId};
use crate::resp::{CommandScanner, Scanned, Spans};
use crate::stripe::{Id, Place, Segment, Staged, names};

/// Executes it.
pub(super) async fn execute(p: &mut Procedure, steps: &Steps, rule: &ScriptRule) -> Step<Outcome> {
    let args = steps.args();
    let index = Bytes::copy_from_slice(args.arg(3));
    let first = 2 + rule.keys.len() + rule.items;
    let ids: Vec<Id> = args.iter().skip(first).filter_map(Id::of).collect();
    let (queue, segment) = turn(p, steps, &index, ids.len() as u64).await?;
    let result = append(p, steps, rule, &index, segment, &ids).await;
    queue.appended();
    result
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
    let mut commands: Vec<(Bytes, Spans)> = Vec::new();
    let mut moved: Vec<(Id, PartitionId, Bytes)> = Vec::new();
    let mut taken: Vec<(Id, Staged)> = Vec::new();
    for &id in ids {
        let text = id.to_string();
        if let Some(staged) = stripes.take_staged(db, id) {
            for (frame, spans) in &staged.commands {
                let args = crate::resp::Args { bytes: frame, spans };
                commands.push(with_words(
                    &args,
                    &[(1, names::item(segment.partition, text.as_bytes()))],
                ));
            }
            taken.push((id, staged));
            continue;
        }
        let (from, name) = match stripes.place(db, id) {
            Some(Place::Segment(from) | Place::Moved(from)) if from == segment.partition => continue,
            Some(Place::Segment(from) | Place::Moved(from)) => (from, names::item(from, text.as_bytes())),
            _ => {
                let own = p.worker.shared().keyspace.partition_of(text.as_bytes());
                (own, Bytes::copy_from_slice(text.as_bytes()))
            }
        };
        moved.push((id, from, name));
    }
    if !moved.is_empty() {
        let held = moved.iter().map(|(_, from, _)| *from).chain([segment.partition]);
        p.hold(held.collect()).await?;
        commands.extend(carry(p, db, segment, &moved).await?);
    }
    let keys = rule.keys.iter().enumerate().map(|(at, role)| {
        let name = match role {
            Role::Counter => counter_name(stripes, index, segment),
            _ => names::segment(segment, index),
        };
        (3 + at, name)
    });
    commands.push(with_words(&steps.args(), &keys.collect::<Vec<_>>()));
    let done = at_once(p, segment.partition, &commands).await;
    let Ok(reply) = done else {
        // Nothing has happened, as far as we are told: they are as new as before.
        if let Err(Outcome::Refused(_)) = &done {
            for (id, staged) in taken {
                // If there is no room any more, they are lost: their driver is told that nothing was posted.
                stripes.stage(db, id, staged.commands, staged.since_ms);
            }
        }
        return Err(done.err().unwrap_or(Outcome::Unknown));
    };
    for (id, _) in &taken {
        stripes.put_place(db, *id, Place::Segment(segment.partition));
    }
    for (id, from, name) in &moved {
        // Who knows where the entry of another index is must not look for it here.
        stripes.put_place(db, *id, Place::Moved(segment.partition));
        p.write(*from, db, &[b"DEL", name], 1).await?;
    }
    Ok(answer(reply))
}

/// The commands that make these items what they are elsewhere.
async fn carry(
    p: &Procedure,
    db: u16,
    segment: Segment,
    moved: &[(Id, PartitionId, Bytes)],
) -> Step<Vec<(Bytes, Spans)>> {
    let mut commands = Vec::new();
    for (id, from, name) in moved {
        let ask = Commands {
            count: dump::ASK_COUNT,
            ..Commands::one(dump::ask(name))
        };
        let frames = replies(p.ask(*from, db, Action::Read(ask)).await)?.concat();
        let to = names::item(segment.partition, id.to_string().as_bytes());
        if dump::exists(&frames)
            && let Some((frame, _)) = dump::restore(&to, &frames)
            && let Ok(Scanned::Command { spans, .. }) = CommandScanner::new(usize::MAX).scan(&frame)
        {
            commands.push((frame, spans));
        }
    }
    Ok(commands)
}
