//! What clients asked and were told, and whether that can be true.
//!
//! [Lists] only grow, so the check knows, when a request is issued, a length that its answer must reach (its *floor*): all
//! that anybody had been told before. Counters are the same without values. Of a set, every member is added once and popped at
//! most once; and of [queues](Queues), elements are taken by those who wait for them, too.

use std::collections::{BTreeMap, BTreeSet};

use ringfence::request::{Action, HoldId, Outcome, PartitionId, ReplyTo, Request};

use crate::commands;
use crate::keys::Keys;
use crate::lists::Lists;
use crate::node::Key;
use crate::ops::{End, Kind, Op};
use crate::queues::{Queues, is_nothing};
use crate::wire::{self, Reply};

#[derive(Debug, Default)]
pub struct CounterState {
    pub floor: i64,
    told: BTreeSet<i64>,
    issued: i64,
    /// Increments that were certainly not done.
    void: i64,
    pub done: i64,
}

#[derive(Debug)]
pub struct History {
    pub keys: Keys,
    pub ops: Vec<Op>,
    pub lists: Lists,
    pub queues: Queues,
    pub counters: BTreeMap<PartitionId, CounterState>,
    pub popped: BTreeMap<u64, u64>,
    pub open: BTreeSet<u64>,
    /// Pairs of partitions whose joint writes a takeover may have torn: see `Takeover`.
    pub uneven: BTreeSet<(PartitionId, PartitionId)>,
}

impl History {
    pub fn new(partitions: u16) -> Self {
        Self {
            keys: Keys::new(partitions),
            ops: Vec::new(),
            lists: Lists::default(),
            queues: Queues::default(),
            counters: BTreeMap::new(),
            popped: BTreeMap::new(),
            open: BTreeSet::new(),
            uneven: BTreeSet::new(),
        }
    }

    /// A new operation; its number.
    pub fn begin(
        &mut self,
        kind: Kind,
        partition: PartitionId,
        other: Option<PartitionId>,
        second: bool,
        producer: usize,
        owner: u32,
    ) -> u64 {
        let id = self.ops.len() as u64;
        let counter = self.counters.entry(partition).or_default();
        counter.issued += i64::from(kind.counts());
        let of = [Some(partition), other];
        let lists: Vec<Key> = match kind.pushes() || kind.reads() {
            true => of.iter().flatten().map(|&p| self.keys.list(p, second)).collect(),
            false => Vec::new(),
        };
        self.ops.push(Op {
            kind,
            partition,
            other,
            producer,
            owner,
            end: None,
            list_floors: lists.iter().map(|list| self.lists.floor(list)).collect(),
            lists,
            counter_floor: counter.floor,
            settles: None,
        });
        self.open.insert(id);
        id
    }

    /// A new request.
    pub fn issue(
        &mut self,
        kind: Kind,
        partition: PartitionId,
        other: Option<PartitionId>,
        second: bool,
        producer: usize,
        owner: u32,
    ) -> Request {
        let second = second && !matches!(kind, Kind::Both | Kind::ReadBoth);
        let id = self.begin(kind, partition, other, second, producer, owner);
        let (db, action) = commands::action(&self.keys, kind, id, partition, other, second);
        self.request(id, 0, partition, db, HoldId::NONE, action)
    }

    /// A request, whose answer is for part `part` of the operation.
    pub fn request(
        &self,
        id: u64,
        part: u16,
        partition: PartitionId,
        db: u16,
        under: HoldId,
        action: Action,
    ) -> Request {
        let op = &self.ops[id as usize];
        let reply_to = ReplyTo {
            worker: 0,
            part,
            client: op.producer as u32,
            generation: op.owner,
            slot: id,
        };
        Request {
            partition,
            db,
            under,
            action,
            reply_to,
        }
    }

    /// The answer of a sidecar.
    pub fn complete(&mut self, to: ReplyTo, outcome: &Outcome) -> Result<(), String> {
        let op = &self.ops[to.slot as usize];
        if op.owner != to.generation {
            return Err(format!(
                "request {} of {} was answered for {}",
                to.slot, op.owner, to.generation
            ));
        }
        if !self.open.remove(&to.slot) {
            return Err(format!(
                "request {} has two outcomes, {:?} and {outcome:?}",
                to.slot, op.end
            ));
        }
        let (end, replies) = match outcome {
            Outcome::Refused(_) => (End::NotDone, Vec::new()),
            Outcome::Done => (End::Done, Vec::new()),
            Outcome::Waits | Outcome::MayCome => {
                return Err(format!("{} does not wait: {outcome:?}", to.slot));
            }
            Outcome::Unknown => (End::Unknown, Vec::new()),
            Outcome::Reply { frames, .. } => {
                let replies =
                    wire::replies(frames).ok_or_else(|| format!("{} was answered {frames:?}", to.slot))?;
                let failed = replies.iter().any(|reply| matches!(reply, Reply::Error(_)));
                (if failed { End::NotDone } else { End::Done }, replies)
            }
        };
        self.finish(to.slot, end, &replies)
    }

    /// The end of an operation.
    pub fn finish(&mut self, id: u64, end: End, replies: &[Reply]) -> Result<(), String> {
        self.open.remove(&id);
        self.end(id, end, replies).map_err(|why| {
            let op = &self.ops[id as usize];
            format!(
                "request {id} ({:?} of partitions {} {:?}, by {}): {why}",
                op.kind, op.partition, op.other, op.owner
            )
        })
    }

    /// The sidecar that had these requests is gone.
    pub fn owner_died(&mut self, owner: u32) {
        let gone: Vec<u64> = self
            .open
            .iter()
            .copied()
            .filter(|&id| self.ops[id as usize].owner == owner)
            .collect();
        for id in gone {
            self.open.remove(&id);
            self.ops[id as usize].end = Some(End::Unknown);
        }
    }

    fn end(&mut self, id: u64, end: End, replies: &[Reply]) -> Result<(), String> {
        let op = &mut self.ops[id as usize];
        op.end = Some(end.clone());
        let op = &self.ops[id as usize];
        let (kind, partition, counter_floor) = (op.kind, op.partition, op.counter_floor);
        let lists: Vec<(Key, usize)> = op
            .lists
            .iter()
            .cloned()
            .zip(op.list_floors.iter().copied())
            .collect();
        let counter = self.counters.entry(partition).or_default();
        match end {
            End::Unknown => return Ok(()),
            End::NotDone => {
                counter.void += i64::from(kind.counts());
                if kind.pushes() && lists.iter().any(|(list, _)| self.lists.has(list, id)) {
                    return Err("it was refused, and yet somebody has read it".into());
                }
                return Ok(());
            }
            End::Done => counter.done += i64::from(kind.counts()),
        }
        if matches!(kind, Kind::Boom | Kind::BoomTwo) {
            return Err("nothing is done by it, and yet it was".into());
        }
        let flat: Vec<&Reply> = match (kind, replies) {
            (Kind::Script | Kind::ScriptTwo | Kind::PutScript, [Reply::List(parts)]) => {
                parts.iter().collect()
            }
            _ => replies.iter().collect(),
        };
        let mut replies = flat.into_iter();
        let mut next = || replies.next().ok_or("a reply is missing");
        if kind.pushes() {
            for (list, floor) in &lists {
                let Reply::Int(len) = *next()? else {
                    return Err("a push is answered with a length".into());
                };
                if len as usize <= *floor {
                    return Err(format!(
                        "it was told to be at place {len}, and before it {floor} were there"
                    ));
                }
                self.lists.learn(&self.ops, list, len as usize - 1, id)?;
            }
        }
        if kind.counts() {
            let Reply::Int(n) = *next()? else {
                return Err("a count is a number".into());
            };
            let counter = self.counters.entry(partition).or_default();
            if n <= counter_floor {
                return Err(format!(
                    "it counted {n}, and before it {counter_floor} had been counted"
                ));
            }
            if !counter.told.insert(n) {
                return Err(format!("{n} was counted twice"));
            }
            counter.floor = counter.floor.max(n);
        }
        match kind {
            Kind::List | Kind::ReadBoth | Kind::Peek => {
                let mut seen = Vec::new();
                for (list, floor) in &lists {
                    let values = next()?.texts().ok_or("a list is an array of texts")?;
                    if values.len() < *floor {
                        return Err(format!(
                            "{} values were read, and before it there were {floor}",
                            values.len()
                        ));
                    }
                    self.lists.learn_all(&self.ops, list, &values)?;
                    seen.push(values);
                }
                if let [(one, _), (other, _)] = &lists[..] {
                    self.check_whole(Some(id), [one, other], [&seen[0], &seen[1]])?;
                }
            }
            Kind::Pop => match next()? {
                Reply::Null => {}
                Reply::Text(member) => self.check_popped(id, partition, member)?,
                other => return Err(format!("popped {other:?}")),
            },
            Kind::Add => {
                let Reply::Int(1) = next()? else {
                    return Err("a new member is new".into());
                };
            }
            Kind::WaitLong => {
                // Of the list that has become longer first.
                let Reply::Int(at) = *next()? else {
                    return Err("the place where it waited is a number".into());
                };
                let (list, floor) = lists.get(at as usize).ok_or("it did not wait there")?;
                let values = next()?.texts().ok_or("a list is an array of texts")?;
                if values.len() <= *floor {
                    return Err("it was told of a list that is no longer than it was".into());
                }
                self.lists.learn_all(&self.ops, list, &values)?;
            }
            Kind::Take | Kind::Move => match next()? {
                nothing if is_nothing(nothing) => {}
                element => self.queues.give(&self.ops, id, element)?,
            },
            Kind::WaitTake | Kind::WaitMove | Kind::WaitTold => self.queues.give(&self.ops, id, next()?)?,
            _ => {}
        }
        if matches!(kind, Kind::Counter | Kind::ReadBoth) {
            let n = match next()? {
                Reply::Null => 0,
                Reply::Text(text) => String::from_utf8_lossy(text).parse().map_err(|_| "no number")?,
                other => return Err(format!("a count is not {other:?}")),
            };
            self.learn_count(partition, n, counter_floor)?;
        }
        Ok(())
    }

    fn check_popped(&mut self, id: u64, partition: PartitionId, member: &[u8]) -> Result<(), String> {
        let member: u64 = String::from_utf8_lossy(member)
            .parse()
            .map_err(|_| "popped nonsense")?;
        let added = self
            .ops
            .get(member as usize)
            .ok_or("popped what was never added")?;
        if added.kind != Kind::Add || added.partition != partition || added.end == Some(End::NotDone) {
            return Err(format!("popped {member}, which was not added"));
        }
        if let Some(other) = self.popped.insert(member, id) {
            return Err(format!("popped {member}, as {other} did before"));
        }
        Ok(())
    }

    pub fn learn_count(&mut self, partition: PartitionId, n: i64, floor: i64) -> Result<(), String> {
        let counter = self.counters.entry(partition).or_default();
        if n < floor {
            return Err(format!("{n} was counted, and before it {floor}"));
        }
        if n > counter.issued - counter.void {
            return Err(format!(
                "{n} was counted, and only {} can have been",
                counter.issued - counter.void
            ));
        }
        counter.floor = counter.floor.max(n);
        Ok(())
    }
}
