//! The queues of a command, as far as they are known, for who is inside of them.

use std::sync::Arc;

use bytes::Bytes;

use super::translate::{Guards, Needs, When};
use super::with_words;
use crate::profile::Role;
use crate::resp::{Args, Spans};
use crate::stripe::{Directory, Stripe, Stripes, names};

/// A queue that a command names.
pub(super) struct Queue {
    /// The argument that is its key.
    pub(super) at: usize,
    pub(super) queue: Arc<Stripe>,
    pub(super) directory: Arc<Directory>,
}

/// Goes inside of a command's queues; or what is needed first.
pub(super) fn queues(
    stripes: &Stripes,
    db: u16,
    args: &Args<'_>,
    keys: &[u32],
    roles: &[Role],
    when: When,
) -> Result<(Vec<Queue>, Guards), Needs> {
    let mut needs = Needs::default();
    let mut inside = Guards::new();
    let mut queues = Vec::new();
    let is_one = |role: &Role| matches!(role, Role::List | Role::Stream | Role::Index);
    for (&at, _) in keys.iter().zip(roles).filter(|(_, role)| is_one(role)) {
        let key = args.arg(at as usize);
        let queue = stripes.queue(db, key);
        // Inside first: then the directory cannot change any more.
        let guard = match when {
            When::InExec => None,
            _ => match queue.enter() {
                None => {
                    needs.closed.push(queue);
                    continue;
                }
                guard => guard,
            },
        };
        let Some(directory) = queue.directory() else {
            needs.queues.push(Bytes::copy_from_slice(key));
            continue;
        };
        inside.extend(guard.map(|guard| (directory.open().partition, guard)));
        queues.push(Queue {
            at: at as usize,
            queue,
            directory,
        });
    }
    match needs.is_empty() {
        true => Ok((queues, inside)),
        false => Err(needs),
    }
}

/// The command on the open segments of its queues.
pub(super) fn in_open_segments(args: &Args<'_>, queues: &[Queue]) -> (Bytes, Spans) {
    let name = |queue: &Queue| {
        let key = args.arg(queue.at);
        (queue.at, names::segment(queue.directory.open(), key))
    };
    with_words(args, &queues.iter().map(name).collect::<Vec<_>>())
}
