//! What must be known before a command can go on: where items are, and the directories of queues.
//!
//! An id that was not seen is asked for in all partitions: this is the only question that goes to all nodes, and it is asked once. If
//! nobody has it, it lives where its own hash says.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::role_of;
use super::segments::counter_name;
use super::translate::Needs;
use super::whole::Whole;
use crate::ingress::dispatch::Flow;
use crate::ingress::gather::{Errand, Gather, Recipe};
use crate::ingress::procedure::{Procedure, Step, answer, replies};
use crate::limits::LOOKED_UP_MAX;
use crate::profile::Role;
use crate::request::{Action, Commands};
use crate::resp::encode;
use crate::resp::walk::text;
use crate::stripe::{Directory, Id, Place, Stripe, Stripes, names};
use crate::worker::{Core, Worker};

/// Ids that are looked for at once, in all partitions.
const ASKED_AT_ONCE: usize = 64;

const TOO_MANY: &str = "ERR Ringfence: this names too many striped queues, or messages of striped queues, for one command or transaction \
                        (100000 at most). Nothing was done; divide it";

impl Worker {
    /// Looks up what a command of so many arguments needs; then it is taken up again.
    pub(in crate::ingress) fn look_up(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        stripes: &Arc<Stripes>,
        needs: Needs,
        arguments: usize,
    ) -> Flow {
        let stripes = stripes.clone();
        let open = |client: &mut super::super::Client, now_us| {
            client.expect_parts(Gather::new(Recipe::Errand(Errand::LookUp), 1), now_us)
        };
        let flow = self.proceed_in(core, id, open, move |mut p| async move {
            let found = match arguments <= LOOKED_UP_MAX {
                true => run(&mut p, &stripes, needs).await,
                // What was found first would be forgotten before the last is.
                false => Err(answer(encode::error(TOO_MANY))),
            };
            let outcome = match found {
                Ok(()) => answer(Bytes::from_static(b"+OK\r\n")),
                Err(end) => end,
            };
            (p, outcome)
        });
        match flow {
            Flow::Next => Flow::Again,
            other => other,
        }
    }
}

async fn run(p: &mut Procedure, stripes: &Arc<Stripes>, needs: Needs) -> Step<()> {
    let db = p.db;
    for queue in &needs.closed {
        drop(queue.entered().await);
    }
    for key in &needs.queues {
        match role_of(&p.worker.shared().keyspace, key) {
            Role::List | Role::Stream => Whole::open(p, stripes, db, key).await?.finish(),
            _ => load(p, stripes, &stripes.queue(db, key), key).await?,
        }
    }
    for (key, end, elements) in &needs.rooms {
        let mut whole = Whole::open(p, stripes, db, key).await?;
        whole.room(p, *end, *elements).await?;
        whole.finish();
    }
    let mut unseen = Vec::new();
    for id in needs.ids {
        // Not a new item any more: something else than an index wants it.
        match stripes.take_staged(db, id) {
            Some(staged) => super::stage::write(&p.worker, db, id, staged),
            None => unseen.push(id),
        }
    }
    for ids in unseen.chunks(ASKED_AT_ONCE) {
        find(p, stripes, db, ids).await?;
    }
    Ok(())
}

/// Reads an index's directory, and how long its open segment is.
pub(super) async fn load(p: &Procedure, stripes: &Stripes, queue: &Stripe, index: &[u8]) -> Step<()> {
    let directory = read_directory(p, index).await?;
    let open = directory.open();
    // It says which score comes next.
    let counter = counter_name(stripes, index, open);
    let next = p.read(open.partition, &[&[b"GET", &counter]]).await?;
    let next = next
        .first()
        .and_then(|reply| text(reply))
        .map_or(1, super::score::number);
    queue.loaded(directory, next.saturating_sub(1));
    Ok(())
}

/// A queue's directory, as the nodes have it.
pub(super) async fn read_directory(p: &Procedure, key: &[u8]) -> Step<Directory> {
    let home = p.worker.shared().keyspace.partition_of(key);
    let name = names::directory(home, key);
    let record = p.read(home, &[&[b"GET", &name]]).await?;
    let record = record.first().and_then(|reply| text(reply));
    Ok(record
        .and_then(Directory::parse)
        .unwrap_or_else(|| Directory::new(home)))
}

/// Learns where these ids are.
async fn find(p: &Procedure, stripes: &Stripes, db: u16, ids: &[Id]) -> Step<()> {
    let partitions = p.worker.shared().keyspace.partitions;
    let asked = (0..partitions).map(|partition| {
        let question =
            |id: &Id| encode::command_frame(&[b"EXISTS", &names::item(partition, id.to_string().as_bytes())]);
        let frames: Vec<Bytes> = ids.iter().map(question).collect();
        let commands = Commands {
            count: frames.len() as u32,
            ..Commands::one(frames.concat().into())
        };
        (partition, db, Action::Read(commands))
    });
    let mut places = vec![Place::Own; ids.len()];
    for (partition, outcome) in (0..).zip(p.ask_all(asked.collect()).await) {
        for (place, found) in places.iter_mut().zip(replies(outcome)?) {
            if found == b":1\r\n"[..] {
                *place = Place::Segment(partition);
            }
        }
    }
    for (id, place) in ids.iter().zip(places) {
        stripes.put_place(db, *id, place);
    }
    Ok(())
}
