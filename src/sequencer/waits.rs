//! Clients that wait for data, at the owner of what they wait for: first come, first served.
//!
//! **Problem.** `BLPOP` must not block a stream, which serves everybody; and it must take its element the moment that there is
//! one, before a client that comes later.
//!
//! **Idea.** The owner sees every write, and what it touches. Those who wait at a key stand in a *line*; a write to the key
//! gives the line *credits*, one for each element that it is known to bring, and each credit orders the command of the next in
//! line, in the form that does not wait, right behind the write. Nothing is lost if there is no element after all: the command
//! finds nothing, and its client stays where it was. A write that brings nobody knows how many (a script, a `RENAME`) gives as
//! many credits as are found good; the partition is held meanwhile, so that nobody who comes later is served earlier.
//!
//! While somebody stands idle and there are no credits, there is nothing at the key but what is being taken already. So a client
//! that comes to a line in which nobody waits is tried at once, and what comes meanwhile is kept for it; one that comes while
//! it is not known whether there is more brings a credit of its own. One that waits at several keys, maybe of several owners, is
//! [claimed](crate::request::Waiter) by whoever tries to serve it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use super::log::LogPos;
use super::reads::Purpose;
use super::{Effect, Sequencer};
use crate::command::parts::Line;
use crate::request::{Attempt, Brings, HoldId, Outcome, PartitionId, ReplyTo, Touched, Wait, Waiter};
use crate::resp::ReplyScanner;
use crate::resp::walk::is_error;

/// In place of a worker's number: the answer is for the attempt of number [`ReplyTo::client`].
pub(super) const ATTEMPT: u16 = u16::MAX - 1;

/// As many as are found good.
const OPEN: u32 = u32::MAX;

type Place = (PartitionId, u16, Bytes);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    /// Its command is under way; ordered when nothing was known to be there.
    Tried,
    /// The same, ordered because of a credit.
    Served,
}

#[derive(Debug)]
struct Standing {
    generation: u32,
    db: u16,
    partition: PartitionId,
    wait: Box<Wait>,
    to: ReplyTo,
    state: State,
    /// Something has come that it has not looked at: to a reader; or, of an unknown number, to one whose command was under way.
    news: bool,
}

impl Standing {
    /// Whether what comes next is for it: it waits, or has been told to come and see. Who was served elsewhere and has not left yet lets
    /// everything pass.
    fn comes_first(&self) -> bool {
        !self.wait.waiter.is_gone() && (self.state == State::Waits || self.wait.attempt.is_none())
    }

    /// Where its command moves what it finds, if it does.
    fn moved_to(&self) -> Option<Place> {
        let Some(Attempt::Write(commands)) = &self.wait.attempt else {
            return None;
        };
        let Touched::Keys(keys) = &commands.touched else {
            return None;
        };
        let span = keys.last().filter(|_| commands.brings == Brings::Moved)?;
        let key = commands
            .frame
            .get(span.start as usize..(span.start + span.len) as usize)?;
        Some((self.partition, self.db, Bytes::copy_from_slice(key)))
    }
}

#[derive(Debug)]
struct Queue {
    line: Line,
    standing: VecDeque<usize>,
    /// Elements that are to be tried for. Readers have none: what comes is news for each of them.
    credits: u32,
}

impl Queue {
    /// There may be any number of elements: also for those whose commands are under way, and may have been too early.
    fn open(&mut self, standing: &mut Slab<Standing>) {
        self.credits = OPEN;
        for id in &self.standing {
            if let Some(served) = standing.get_mut(*id).filter(|one| one.state == State::Served) {
                served.news = true;
            }
        }
    }
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Waits {
    standing: Slab<Standing>,
    queues: BTreeMap<Place, Vec<Queue>>,
    generation: u32,
    /// Places with credits that are not used yet: their partition is held.
    unserved: Vec<Place>,
}

impl Waits {
    pub(super) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// How many stand in lines.
    pub(super) fn len(&self) -> usize {
        self.standing.len()
    }

    fn queue(&mut self, place: &Place, line: &Line) -> Option<&mut Queue> {
        self.queues
            .get_mut(place)?
            .iter_mut()
            .find(|queue| queue.line == *line)
    }

    /// Whether any place of the partition still has credits for an unknown number.
    fn is_serving(&self, partition: PartitionId) -> bool {
        let all = (partition, 0, Bytes::new())..;
        self.queues
            .range(all)
            .take_while(|((p, ..), _)| *p == partition)
            .any(|(_, queues)| queues.iter().any(|queue| queue.credits == OPEN))
    }
}

impl Sequencer {
    /// How many clients stand in lines here (once for each key).
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// Whether an outcome is that of an attempt to serve somebody who waits.
    pub fn is_attempt(to: ReplyTo) -> bool {
        to.worker == ATTEMPT
    }

    pub(super) fn order_wait(&mut self, partition: PartitionId, db: u16, wait: Box<Wait>, to: ReplyTo) {
        // Forgotten before its turn came.
        if wait.waiter.is_gone() {
            return;
        }
        let place = (partition, db, wait.key.clone());
        self.waits.generation = self.waits.generation.wrapping_add(1);
        let queues = self.waits.queues.entry(place.clone()).or_default();
        let at = queues.iter().position(|queue| queue.line == wait.line);
        let queue = match at {
            Some(at) => queues.get_mut(at),
            None => {
                queues.push(Queue {
                    line: wait.line.clone(),
                    standing: VecDeque::new(),
                    credits: 0,
                });
                queues.last_mut()
            }
        };
        let Some(queue) = queue else { return };
        let standing = &self.waits.standing;
        let somebody_waits = queue.line != Line::Readers
            && (queue.credits > 0
                || queue
                    .standing
                    .iter()
                    .any(|&id| standing.get(id).is_some_and(Standing::comes_first)));
        if queue.credits > 0 {
            queue.credits = queue.credits.saturating_add(1);
        }
        let tells = wait.attempt.is_none();
        let free = !somebody_waits && !tells && wait.waiter.claim();
        // It is being served elsewhere; what is here must not be forgotten if that fails.
        let looks_later = !free && !somebody_waits && !tells;
        if looks_later && queue.line != Line::Readers {
            queue.credits = OPEN;
        }
        let id = self.waits.standing.insert(Standing {
            generation: self.waits.generation,
            db,
            partition,
            wait,
            to,
            state: if free { State::Tried } else { State::Waits },
            news: looks_later,
        });
        if let Some(queue) = self.waits.queues.get_mut(&place).and_then(|queues| {
            let line = self.waits.standing.get(id).map(|s| &s.wait.line);
            queues.iter_mut().find(|queue| Some(&queue.line) == line)
        }) {
            queue.standing.push_back(id);
        }
        if free {
            self.attempt(id);
        } else {
            self.effects.push(Effect::Complete(to, Outcome::Waits));
        }
    }

    /// Orders the command of one in line, who is claimed.
    fn attempt(&mut self, id: usize) {
        let Some(standing) = self.waits.standing.get(id) else {
            return;
        };
        let to = ReplyTo {
            worker: ATTEMPT,
            part: 0,
            client: id as u32,
            generation: standing.generation,
            slot: 0,
        };
        let (partition, db) = (standing.partition, standing.db);
        match standing.wait.attempt.clone() {
            None => self.effects.push(Effect::Complete(standing.to, Outcome::MayCome)),
            Some(Attempt::Read(commands)) => self.ask(partition, db, commands, Purpose::Client(to), 0),
            Some(Attempt::Write(commands)) => self.order_write(partition, db, commands, to, None),
        }
    }

    /// An attempt to serve somebody has ended: see [`Sequencer::is_attempt`].
    pub fn attempted(&mut self, to: ReplyTo, outcome: Outcome) {
        let id = to.client as usize;
        let Some(standing) = self
            .waits
            .standing
            .get_mut(id)
            .filter(|s| s.generation == to.generation)
        else {
            return;
        };
        let elements = matches!(standing.wait.line, Line::Elements(_));
        // A command that moves its element may fail over where it moves it; the type of the key is told first.
        let (type_error, outcome) = match outcome {
            Outcome::Reply { frames, resp3 } if standing.wait.moves => {
                match split(frames) {
                    // Refused as a whole.
                    (error, rest) if rest.is_empty() => (false, Outcome::Reply { frames: error, resp3 }),
                    (first, frames) => (is_error(&first), Outcome::Reply { frames, resp3 }),
                }
            }
            Outcome::Reply { frames, resp3 } => {
                (elements && is_error(&frames), Outcome::Reply { frames, resp3 })
            }
            other => (false, other),
        };
        let found = match &outcome {
            Outcome::Reply { frames, .. } if is_nothing(frames) => false,
            // Who waits goes on waiting when the key becomes something else.
            _ if type_error => standing.state == State::Tried,
            _ => true,
        };
        let place = (standing.partition, standing.db, standing.wait.key.clone());
        let line = standing.wait.line.clone();
        if found {
            standing.wait.waiter.served();
            let to = standing.to;
            let moved = standing.moved_to();
            let was_served = standing.state == State::Served;
            if was_served
                && !matches!(outcome, Outcome::Reply { .. })
                && let Some(queue) = self.waits.queue(&place, &line)
            {
                // What it was to take may still be there.
                queue.credits = queue.credits.saturating_add(1);
            }
            self.effects.push(Effect::Complete(to, outcome));
            self.leave(&place, &line, id);
            if let Some(to) = moved {
                let Waits { standing, queues, .. } = &mut self.waits;
                for queue in queues.get_mut(&to).into_iter().flatten() {
                    queue.open(standing);
                }
                self.serve(&to);
            }
        } else {
            // What is news to a reader stays so until it has looked.
            let was_last = standing.state == State::Served
                && line != Line::Readers
                && !std::mem::take(&mut standing.news);
            standing.state = State::Waits;
            let (to, ended) = (standing.to, standing.wait.waiter.unclaim());
            let told = if ended { Outcome::Done } else { Outcome::Waits };
            self.effects.push(Effect::Complete(to, told));
            if ended {
                self.leave(&place, &line, id);
            }
            if let Some(queue) = self.waits.queue(&place, &line)
                && was_last
                && queue.credits == OPEN
            {
                queue.credits = 0;
            }
        }
        self.serve(&place);
    }

    /// Everything has been removed.
    pub(super) fn removed_all(&mut self) {
        let places: Vec<Place> = self.waits.queues.keys().cloned().collect();
        for place in places {
            for queue in self.waits.queues.get_mut(&place).into_iter().flatten() {
                if matches!(queue.line, Line::Group(_)) {
                    queue.open(&mut self.waits.standing);
                }
            }
            self.serve(&place);
        }
    }

    /// Takes one out of a line.
    fn leave(&mut self, place: &Place, line: &Line, id: usize) {
        self.waits.standing.try_remove(id);
        if let Some(queue) = self.waits.queue(place, line) {
            queue.standing.retain(|&other| other != id);
        }
        if let Some(queues) = self.waits.queues.get_mut(place) {
            queues.retain(|queue| !queue.standing.is_empty());
            if queues.is_empty() {
                self.waits.queues.remove(place);
            }
        }
    }

    pub(super) fn order_forget(&mut self, partition: PartitionId, db: u16, waiter: &Arc<Waiter>, key: Bytes) {
        let place = (partition, db, key);
        let queues = self
            .waits
            .queues
            .get(&place)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found: Vec<(Line, usize)> = queues
            .iter()
            .flat_map(|queue| queue.standing.iter().map(|&id| (queue.line.clone(), id)))
            .filter(|(_, id)| {
                let standing = self.waits.standing.get(*id);
                standing.is_some_and(|s| Arc::ptr_eq(&s.wait.waiter, waiter))
            })
            .collect();
        for (line, id) in found {
            let standing = self.waits.standing.get(id);
            let was_told = standing.is_some_and(|s| s.state == State::Served && s.wait.attempt.is_none());
            self.leave(&place, &line, id);
            let Waits { standing, queues, .. } = &mut self.waits;
            let all = queues.get_mut(&place).into_iter().flatten();
            if was_told && let Some(queue) = all.into_iter().find(|queue| queue.line == line) {
                // It may have left what it was told of.
                queue.open(standing);
            }
        }
        self.serve(&place);
    }

    pub(super) fn order_look_again(&mut self, partition: PartitionId, db: u16, key: Bytes) {
        let place = (partition, db, key);
        let Waits { standing, queues, .. } = &mut self.waits;
        for id in queues
            .get(&place)
            .into_iter()
            .flatten()
            .flat_map(|queue| &queue.standing)
        {
            if let Some(told) = standing.get_mut(*id)
                && told.wait.attempt.is_none()
                && told.wait.waiter.is_free()
            {
                told.state = State::Waits;
            }
        }
        self.serve(&place);
    }

    /// A write has been ordered: what it brings is for those who wait at its keys.
    pub(super) fn brought(&mut self, partition: PartitionId, pos: LogPos) {
        let Some(entry) = self.log.get(pos) else { return };
        let (db, brings) = (entry.db, entry.commands.brings);
        // Whether it moves anything is known when it is answered; two that move to each other's keys would try for ever.
        let is_attempt = Self::is_attempt(entry.reply_to);
        let mut places = Vec::new();
        match &entry.commands.touched {
            Touched::Keys(keys) => {
                let others = if brings == Brings::Moved {
                    keys.len().saturating_sub(1)
                } else {
                    0
                };
                for span in keys.iter().skip(others) {
                    let at = span.start as usize..(span.start + span.len) as usize;
                    let key = entry.commands.frame.get(at).unwrap_or_default();
                    let place = (partition, db, Bytes::copy_from_slice(key));
                    if self.waits.queues.contains_key(&place) && !places.contains(&place) {
                        places.push(place);
                    }
                }
            }
            Touched::Partition => {
                let all = (partition, 0, Bytes::new())..;
                let of_partition = self.waits.queues.range(all);
                places.extend(
                    of_partition
                        .take_while(|((p, ..), _)| *p == partition)
                        .map(|(place, _)| place.clone()),
                );
            }
        }
        for place in places {
            let Waits { standing, queues, .. } = &mut self.waits;
            for queue in queues.get_mut(&place).into_iter().flatten() {
                if queue.line == Line::Readers {
                    for &id in queue.standing.iter().filter(|_| brings.may_serve()) {
                        if let Some(reader) = standing.get_mut(id) {
                            reader.news = true;
                        }
                    }
                    continue;
                }
                match (brings, &queue.line) {
                    (Brings::Some(n), _) => queue.credits = queue.credits.saturating_add(n),
                    // A group, or its stream, may be gone.
                    (Brings::Moved, _) if is_attempt => queue.credits = OPEN,
                    (Brings::Moved | Brings::Unknown, _) | (Brings::Removal, Line::Group(_)) => {
                        queue.open(standing)
                    }
                    (Brings::Nothing | Brings::Removal, _) => {}
                }
            }
            self.serve(&place);
        }
    }

    /// Uses a place's credits, unless its partition is held: then its turn comes when it is let go.
    fn serve(&mut self, place: &Place) {
        let Some(Some(p)) = self.partitions.get(usize::from(place.0)) else {
            return;
        };
        let held_by = p.held.as_ref().map(|hold| hold.by);
        if held_by.is_some_and(|by| by != HoldId::SERVICE) {
            if !self.waits.unserved.contains(place) {
                self.waits.unserved.push(place.clone());
            }
            return;
        }
        while let Some(id) = self.next_served(place) {
            self.attempt(id);
        }
        let serving = self.waits.is_serving(place.0);
        if serving && held_by.is_none() {
            self.hold(place.0, HoldId::SERVICE);
        } else if !serving && held_by.is_some() {
            self.let_go(place.0, HoldId::SERVICE);
        }
    }

    /// Serves what had to wait while the partition was held.
    pub(super) fn serve_unserved(&mut self, partition: PartitionId) {
        while let Some(at) = self.waits.unserved.iter().position(|place| place.0 == partition) {
            let place = self.waits.unserved.swap_remove(at);
            self.serve(&place);
        }
    }

    /// The next one to be served at a place, claimed; its credit is used.
    fn next_served(&mut self, place: &Place) -> Option<usize> {
        let Waits { standing, queues, .. } = &mut self.waits;
        for queue in queues.get_mut(place)? {
            let open = queue.credits == OPEN;
            if queue.line == Line::Readers {
                for &id in &queue.standing {
                    if let Some(reader) = standing.get_mut(id)
                        && reader.news
                        && reader.state == State::Waits
                        && reader.wait.waiter.claim()
                    {
                        reader.news = false;
                        reader.state = State::Served;
                        return Some(id);
                    }
                }
                continue;
            }
            let mut next = 0;
            let mut under_way = false;
            while queue.credits > 0 {
                let Some(&id) = queue.standing.get(next) else {
                    // If one of those who are being served finds nothing, what has come since is for it.
                    if !under_way {
                        queue.credits = 0;
                    }
                    break;
                };
                let Some(one) = standing.get_mut(id) else { break };
                match one.state {
                    // What comes meanwhile may be for it. Of an unknown number one is tried after the other.
                    State::Tried => break,
                    // It looks under a hold of its own; those who come after it are tried when it has left.
                    State::Served if open && one.wait.attempt.is_none() => queue.credits = 0,
                    State::Served if open => break,
                    State::Served => {
                        under_way = true;
                        next += 1;
                    }
                    State::Waits if one.wait.waiter.claim() => {
                        one.state = State::Served;
                        one.news = false;
                        match (open, one.wait.attempt.is_none()) {
                            (true, true) => queue.credits = 0,
                            (true, false) => {}
                            (false, _) => queue.credits -= 1,
                        }
                        return Some(id);
                    }
                    State::Waits if one.wait.waiter.is_gone() => next += 1,
                    // It is being served elsewhere; if in vain, this place is looked at again.
                    State::Waits => break,
                }
            }
        }
        None
    }
}

/// The first of two replies, and the second.
fn split(mut frames: Bytes) -> (Bytes, Bytes) {
    match ReplyScanner::default().scan(&frames, 1) {
        Ok(Some((len, _))) => (frames.split_to(len), frames),
        _ => (Bytes::new(), frames),
    }
}

/// Whether the reply says that there was nothing.
fn is_nothing(frames: &[u8]) -> bool {
    matches!(frames, b"_\r\n" | b"*-1\r\n" | b"$-1\r\n")
}
