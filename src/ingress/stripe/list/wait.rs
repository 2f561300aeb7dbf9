//! Waiting for elements of lists that are spread over nodes.
//!
//! A list without elements has one segment, and who waits for them waits at that segment's key as at any other; as long as it is the
//! list's segment: who is told that lists have changed looks again, from the beginning.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::super::{Steps, role_of, with_words};
use super::ends::{NO_COUNT, array, push, take_from};
use super::moves;
use crate::command::number::integer;
use crate::command::parts::{Line, wait_ms};
use crate::command::spec::Timeout;
use crate::command::{Command, Special};
use crate::ingress::answer::SYNTAX;
use crate::ingress::blocking::{Blocked, Counted, Unblocking, deadline, is_there, nothing};
use crate::ingress::dispatch::Flow;
use crate::ingress::gather::elements;
use crate::ingress::procedure::{Inquiry, Procedure, Step, answer};
use crate::profile::Role;
use crate::request::{Action, HoldId, Outcome, PartitionId, Request, Wait, Waiter};
use crate::resp::walk::text;
use crate::resp::{encode, frame_of};
use crate::stripe::{Directory, End, Inside, Stripe, names};
use crate::worker::{Core, Worker};

impl Worker {
    /// A command that waits at lists.
    pub(super) fn wait_at_lists(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        timeout: Timeout,
        steps: Steps,
    ) -> Flow {
        let args = steps.args();
        let deadline = match wait_ms(timeout, &args) {
            Ok(ms) => deadline(ms),
            Err(error) => return self.reply(core, id, error.to_bytes()),
        };
        let rule = command.downgrade(args.len());
        let special = command.special;
        let blocked = Rc::<Blocked>::default();
        let waits = Waits {
            steps,
            deadline,
            blocked: blocked.clone(),
        };
        let flow = self.proceed(core, id, rule, move |mut p| async move {
            let result = match special {
                Special::Blmove | Special::Brpoplpush => waits.moves(&mut p, special).await,
                _ => waits.takes(&mut p, special).await,
            };
            p.with_client(|client, _| client.blocked = None);
            (p, result.unwrap_or_else(|end| end))
        });
        self.note_blocked(core, id, flow, blocked)
    }
}

struct Waits {
    steps: Steps,
    deadline: Option<Instant>,
    blocked: Rc<Blocked>,
}

/// What a command takes: how many elements, from which end, of which of its words.
struct Takes {
    end: End,
    count: u64,
    keys: std::ops::Range<usize>,
}

/// A list with one segment.
struct Single {
    queue: Arc<Stripe>,
    directory: Arc<Directory>,
    _inside: Inside,
}

impl Waits {
    fn what(&self, special: Special) -> Step<Takes> {
        let args = self.steps.args();
        let last = args.len() - 1;
        let of = |end, keys| Takes { end, count: 1, keys };
        match special {
            Special::Blpop => return Ok(of(End::Head, 1..last)),
            Special::Brpop => return Ok(of(End::Tail, 1..last)),
            _ => {}
        }
        let wrong = |line: &str| Err(answer(encode::error(line)));
        // `BLMPOP timeout numkeys key … LEFT|RIGHT [COUNT n]`
        let side = 3 + integer(args.arg(2)).unwrap_or(0).max(0) as usize;
        let end = match args.arg(side).to_ascii_uppercase().as_slice() {
            b"LEFT" => End::Head,
            b"RIGHT" => End::Tail,
            _ => return wrong(SYNTAX),
        };
        let count = match args.len() - side {
            1 => 1,
            3 if args.arg(side + 1).eq_ignore_ascii_case(b"COUNT") => match integer(args.arg(side + 2)) {
                Some(count @ 1..) => count as u64,
                _ => return wrong(NO_COUNT),
            },
            _ => return wrong(SYNTAX),
        };
        Ok(Takes {
            end,
            count,
            keys: 3..side,
        })
    }

    /// `BLPOP`, `BRPOP`, `BLMPOP`.
    async fn takes(&self, p: &mut Procedure, special: Special) -> Step<Outcome> {
        let what = self.what(special)?;
        let args = self.steps.args();
        loop {
            let mut changes = self.steps.stripes.changes();
            let Some(singles) = self.singles(p, &what) else {
                // Some have several segments: what they have is taken first.
                for at in what.keys.clone() {
                    let key = args.arg(at);
                    let taken = take_from(p, &self.steps, key, what.end, what.count).await?;
                    if !taken.is_empty() {
                        return self.taken(p, special, &what, key, taken).await;
                    }
                }
                continue;
            };
            let words: Vec<(usize, Bytes)> = singles
                .iter()
                .map(|(at, list)| (*at, names::segment(list.directory.open(), args.arg(*at))))
                .collect();
            let (frame, spans) = with_words(&args, &words);
            for (_, list) in &singles {
                changes.see(&list.queue, &list.directory);
            }
            drop(singles);
            let waiting = p.worker.waiting_as(&frame, &spans, self.deadline, &self.blocked);
            let watch = changes.clone();
            let outcome = waiting.map_err(answer)?.until_moved(p, watch).await?;
            let frames = match &outcome {
                Outcome::Reply { frames, .. } => frames.clone(),
                Outcome::MayCome => continue,
                _ => return Err(outcome),
            };
            let mut fields = elements(&frames);
            let (Some(key), Some(values)) = (fields.next().and_then(text), fields.next()) else {
                return Ok(outcome);
            };
            if changes.has_changed() {
                // They may have several segments by now, and this was not counted.
                changes.seen().iter().for_each(|(queue, _)| queue.lose_count());
            }
            let taken: Vec<Bytes> = match text(values) {
                Some(one) => vec![frames.slice_ref(one)],
                None => elements(values)
                    .filter_map(text)
                    .map(|one| frames.slice_ref(one))
                    .collect(),
            };
            let key = names::of_client(key).unwrap_or(key);
            return self.taken(p, special, &what, key, taken).await;
        }
    }

    /// All lists of the command, if each has one segment.
    fn singles(&self, p: &Procedure, what: &Takes) -> Option<Vec<(usize, Single)>> {
        let args = self.steps.args();
        let keyspace = &p.worker.shared().keyspace;
        let lists = what
            .keys
            .clone()
            .filter(|&at| role_of(keyspace, args.arg(at)) == Role::List);
        lists
            .map(|at| {
                let queue = self.steps.stripes.queue(self.steps.db, args.arg(at));
                let inside = queue.enter()?;
                let directory = queue.directory().filter(|directory| directory.is_single())?;
                Some((
                    at,
                    Single {
                        queue,
                        directory,
                        _inside: inside,
                    },
                ))
            })
            .collect()
    }

    /// The reply; or, if nobody is there any more to get it, it goes back.
    async fn taken(
        &self,
        p: &Procedure,
        special: Special,
        what: &Takes,
        key: &[u8],
        taken: Vec<Bytes>,
    ) -> Step<Outcome> {
        if !is_there(p) {
            let (push_special, name): (Special, &[u8]) = match what.end {
                End::Head => (Special::Lpush, b"LPUSH"),
                End::Tail => (Special::Rpush, b"RPUSH"),
            };
            let mut words = vec![name, key];
            // The last one taken was the farthest from the end.
            words.extend(taken.iter().rev().map(|element| &element[..]));
            let (frame, spans) = frame_of(&words);
            let back = Steps::of(&self.steps.stripes, &frame, &spans, self.steps.db);
            match role_of(&p.worker.shared().keyspace, key) {
                Role::List => push(p, &back, push_special).await?,
                _ => answer(
                    p.write(
                        p.worker.shared().keyspace.partition_of(key),
                        self.steps.db,
                        &words,
                        1,
                    )
                    .await?,
                ),
            };
        }
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', 2);
        encode::bulk(&mut out, key);
        match (special, taken.as_slice()) {
            (Special::Blpop | Special::Brpop, [one, ..]) => encode::bulk(&mut out, one),
            _ => out.extend_from_slice(&array(&taken)),
        }
        Ok(answer(out.freeze()))
    }

    /// `BLMOVE`, `BRPOPLPUSH`: it tries, and stands where something would have to come.
    async fn moves(&self, p: &mut Procedure, special: Special) -> Step<Outcome> {
        let args = self.steps.args();
        let mut words: Vec<&[u8]> = args.iter().collect();
        words.pop();
        if let Some(name) = words.first_mut() {
            *name = match special {
                Special::Blmove => b"LMOVE",
                _ => b"RPOPLPUSH",
            };
        }
        let (frame, spans) = frame_of(&words);
        let at_once = Steps::of(&self.steps.stripes, &frame, &spans, self.steps.db);
        let mut standing: Option<Standing> = None;
        let mut ends = None;
        loop {
            let mut changes = self.steps.stripes.changes();
            if let Some((queue, directory)) = standing.as_ref().and_then(|it| it.at.as_ref()) {
                changes.see(queue, directory);
            }
            let outcome = match moves::execute(p, &at_once).await {
                Ok(outcome) => outcome,
                Err(end) => end,
            };
            let is_nothing = matches!(&outcome, Outcome::Reply { frames, .. } if frames.starts_with(b"_"));
            match (is_nothing, ends, &standing) {
                (false, ..) => {
                    standing.inspect(|it| it.forget(p));
                    return Ok(outcome);
                }
                (true, Some(why), _) => {
                    standing.inspect(|it| it.forget(p));
                    return Ok(nothing(p, why));
                }
                (true, None, None) => {
                    // Something may have come before it stands there, so it tries once more.
                    standing = self.stand(p, args.arg(1)).await?;
                    continue;
                }
                (true, None, Some(it)) => {
                    it.let_others(p);
                    if it.waiter.is_gone() {
                        it.forget(p);
                        standing = None;
                        continue;
                    }
                }
            }
            let Some(it) = &standing else { continue };
            let _counted = Counted::new(p);
            let latest = self.deadline.unwrap_or_else(Instant::now);
            let ended = tokio::select! {
                biased;
                (_, told) = it.inquiry.next() => match told {
                    Outcome::MayCome => continue,
                    other => {
                        it.forget(p);
                        return Err(other);
                    }
                },
                why = self.blocked.ended() => why,
                () = tokio::time::sleep_until(latest), if self.deadline.is_some() => Unblocking::Timeout,
                () = changes.changed() => Unblocking::Elsewhere,
            };
            // Told at the same moment, in place of others who wait: it must see.
            if !it.waiter.end() {
                it.inquiry.next().await;
                ends = Some(ended).filter(|why| *why != Unblocking::Elsewhere);
                continue;
            }
            it.forget(p);
            if ended != Unblocking::Elsewhere {
                return Ok(nothing(p, ended));
            }
            standing = None;
        }
    }

    /// Stands where the source's elements come, if that is one place.
    async fn stand(&self, p: &Procedure, source: &[u8]) -> Step<Option<Standing>> {
        let keyspace = &p.worker.shared().keyspace;
        let mut at = None;
        let key = match role_of(keyspace, source) {
            Role::List => {
                let queue = self.steps.stripes.queue(self.steps.db, source);
                match queue.directory().filter(|directory| directory.is_single()) {
                    Some(directory) => {
                        let name = names::segment(directory.open(), source);
                        at = Some((queue, directory));
                        name
                    }
                    None => return Ok(None),
                }
            }
            _ => Bytes::copy_from_slice(source),
        };
        let standing = Standing {
            inquiry: Inquiry::open(p.worker.clone()),
            waiter: Arc::default(),
            partition: keyspace.partition_of(&key),
            key,
            at,
            db: self.steps.db,
        };
        let wait = Wait {
            waiter: standing.waiter.clone(),
            key: standing.key.clone(),
            line: Line::Elements(crate::command::parts::ElementType::List),
            moves: true,
            attempt: None,
        };
        standing.send(p, Action::Wait(Box::new(wait)));
        match standing.inquiry.next().await {
            (_, Outcome::Waits) => Ok(Some(standing)),
            (_, Outcome::MayCome) => Ok(Some(standing)),
            (_, other) => Err(other),
        }
    }
}

/// Someone who waits at a key until something may be there.
struct Standing {
    inquiry: Inquiry,
    waiter: Arc<Waiter>,
    partition: PartitionId,
    key: Bytes,
    /// The list whose only segment that is, as it was seen.
    at: Option<(Arc<Stripe>, Arc<Directory>)>,
    db: u16,
}

impl Standing {
    fn send(&self, p: &Procedure, action: Action) {
        let request = Request {
            partition: self.partition,
            db: self.db,
            action,
            under: HoldId::NONE,
            reply_to: self.inquiry.reply_to(0),
        };
        let owner = p.worker.shared().owner_of(self.partition);
        p.worker.with(|core| p.worker.submit(core, owner, request));
    }

    fn forget(&self, p: &Procedure) {
        self.send(p, Action::Forget(self.waiter.clone(), self.key.clone()));
    }

    /// It was told in vain: others may have what is there.
    fn let_others(&self, p: &Procedure) {
        if !self.waiter.is_free() {
            self.waiter.unclaim();
            self.send(p, Action::LookAgain(self.key.clone()));
        }
    }
}
