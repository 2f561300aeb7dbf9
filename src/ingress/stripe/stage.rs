//! New items, until an index names them.
//!
//! A driver makes an item before it says which queue it is of. It is kept here for that long: nobody can refer to it yet, and if the
//! sidecar dies, the driver has posted nothing. What is in no index after a second is written where its own hash says.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::translate::{Form, When, created, creates, form};
use crate::command::Special;
use crate::ingress::procedure::Inquiry;
use crate::ingress::transaction::Transaction;
use crate::request::{HoldId, Outcome, Request};
use crate::resp::Args;
use crate::stripe::{Id, Place, Staged, Stripes};
use crate::worker::Worker;

/// How long an item is kept.
const KEPT_MS: u64 = 1_000;

const CHECKED_EVERY: Duration = Duration::from_millis(250);

/// Writes an item where its own hash says.
pub(super) fn write(worker: &Rc<Worker>, db: u16, id: Id, staged: Staged) {
    if let Some(stripes) = &worker.shared().stripes {
        stripes.put_place(db, id, Place::Own);
    }
    let partition = worker.shared().keyspace.partition_of(id.to_string().as_bytes());
    let inquiry = Inquiry::open(worker.clone());
    let sent = worker.with(|core| {
        // It is known to be one unit: all its commands are about one key.
        let (action, _) = worker.one_unit(core, u32::MAX, db, &staged.commands).ok()?;
        let request = Request {
            partition,
            db,
            action,
            under: HoldId::NONE,
            reply_to: inquiry.reply_to(0),
        };
        worker.submit(core, worker.shared().owner_of(partition), request);
        Some(())
    });
    if sent.is_none() {
        return;
    }
    let worker = worker.clone();
    spawn_local(async move {
        // Too few nodes: again, after a while. Its client was told that it is there.
        if let (_, Outcome::Refused(_)) = inquiry.next().await
            && let Some(stripes) = &worker.shared().stripes
        {
            stripes.stage(db, id, staged.commands, worker.shared().pool_ms());
        }
    });
}

/// Writes what was kept for too long, again and again.
pub(crate) async fn write_old_items(worker: Rc<Worker>, stripes: std::sync::Arc<Stripes>) {
    loop {
        tokio::time::sleep(CHECKED_EVERY).await;
        let before_ms = worker.shared().pool_ms().saturating_sub(KEPT_MS);
        for (db, id, staged) in stripes.take_old(before_ms) {
            write(&worker, db, id, staged);
        }
    }
}

impl Worker {
    /// Keeps the items of a transaction that does nothing but make new ones: the reply to it.
    pub(in crate::ingress) fn stage_transaction(
        self: &Rc<Self>,
        stripes: &Stripes,
        db: u16,
        transaction: &Transaction,
        now_ms: u64,
    ) -> Option<Bytes> {
        let mut items: Vec<(Id, Vec<(Bytes, crate::resp::Spans)>)> = Vec::new();
        let mut replies = bytes::BytesMut::new();
        crate::resp::encode::header(&mut replies, b'*', transaction.commands.len());
        for (frame, spans) in &transaction.commands {
            let args = Args { bytes: frame, spans };
            let command = self.shared().commands.lookup(&args).ok()?;
            let id = Id::of(args.arg(1))?;
            let known = items.iter_mut().find(|(known, _)| *known == id);
            let lives_on = matches!(
                command.special,
                Special::Expire | Special::Pexpire | Special::Expireat | Special::Pexpireat
            ) && args.len() == 3;
            match (known, creates(stripes, command, &args)) {
                (Some((_, commands)), false) if lives_on => {
                    commands.push((frame.clone(), spans.clone()));
                    replies.extend_from_slice(b":1\r\n");
                }
                (None, true)
                    if matches!(
                        form(stripes, &self.shared().keyspace, db, command, &args, When::InExec),
                        Form::Stage(..)
                    ) =>
                {
                    items.push((id, vec![(frame.clone(), spans.clone())]));
                    replies.extend_from_slice(&created(command, &args));
                }
                _ => return None,
            }
        }
        for (id, commands) in items {
            if !stripes.stage(db, id, commands.clone(), now_ms) {
                // As good as if it had been kept for too long.
                let since_ms = now_ms;
                write(self, db, id, Staged { commands, since_ms });
            }
        }
        Some(replies.freeze())
    }
}
