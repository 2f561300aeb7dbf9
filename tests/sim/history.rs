//! What clients asked and were told, and whether that can be true.
//!
//! Lists are only appended to, with values that are used once, so the length that a push is answered with says where its
//! value stands for ever, and every list that is read must be a stretch from the start of one and the same list. From this
//! the check knows, when a request is issued, a length that its answer must reach (`floor`): all that anybody had been
//! told before. Counters are the same without values. Of a set, every member is added once and popped at most once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringfence::command::decide::Decision;
use ringfence::request::{
    Action, Commands, Decide, HoldId, Outcome, PartitionId, ReplyTo, Request, Script, Touched,
};
use ringfence::resp::{Span, encode};

use crate::node::{Key, Value};
use crate::wire::{self, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `RPUSH`.
    Push,
    /// The same by a script that may touch anything.
    Script,
    /// `RPUSH` and `INCR` in a transaction.
    Both,
    Incr,
    /// `LRANGE 0 -1`.
    List,
    /// `GET`.
    Counter,
    /// `LRANGE` and `GET` in a transaction.
    ReadBoth,
    Add,
    /// `SPOP`: decided by one node.
    Pop,
    /// What every node refuses to queue.
    Boom,
}

impl Kind {
    fn pushes(self) -> bool {
        matches!(self, Self::Push | Self::Script | Self::Both)
    }

    fn counts(self) -> bool {
        matches!(self, Self::Incr | Self::Both)
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was done.
    Done,
    /// It was certainly not done.
    NotDone,
    /// Nobody knows: the sidecar said so, or died.
    Unknown,
}

#[derive(Debug)]
pub struct Op {
    pub kind: Kind,
    pub partition: PartitionId,
    /// Which of the partition's two lists.
    pub second_list: bool,
    pub producer: usize,
    /// The sidecar's instance.
    pub owner: u32,
    pub end: Option<End>,
    list_floor: usize,
    counter_floor: i64,
}

/// What is known of one list.
#[derive(Debug, Default)]
struct ListState {
    /// By place; `None` where nobody has been told yet.
    truth: Vec<Option<u64>>,
    /// Length that somebody has been told.
    floor: usize,
    place: BTreeMap<u64, usize>,
}

#[derive(Debug, Default)]
struct CounterState {
    floor: i64,
    told: BTreeSet<i64>,
    issued: i64,
    /// Increments that were certainly not done.
    void: i64,
    done: i64,
}

#[derive(Debug)]
pub struct History {
    pub ops: Vec<Op>,
    lists: BTreeMap<Key, ListState>,
    counters: BTreeMap<PartitionId, CounterState>,
    popped: BTreeMap<u64, u64>,
    pub open: BTreeSet<u64>,
}

pub fn list_key(partition: PartitionId, second: bool) -> Key {
    if second {
        (1, format!("M{partition}").into_bytes())
    } else {
        (0, format!("L{partition}").into_bytes())
    }
}

pub fn counter_key(partition: PartitionId) -> Key {
    (0, format!("C{partition}").into_bytes())
}

pub fn set_key(partition: PartitionId) -> Key {
    (2, format!("S{partition}").into_bytes())
}

/// A frame of commands, and the places of the wanted arguments in it.
fn frame(commands: &[&[&[u8]]], wanted: &[(usize, usize)]) -> (Bytes, Vec<Span>) {
    let mut all: Vec<u8> = Vec::new();
    let mut spans = Vec::new();
    for (c, command) in commands.iter().enumerate() {
        all.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for (a, arg) in command.iter().enumerate() {
            all.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            if wanted.contains(&(c, a)) {
                spans.push(Span {
                    start: all.len() as u32,
                    len: arg.len() as u32,
                });
            }
            all.extend_from_slice(arg);
            all.extend_from_slice(b"\r\n");
        }
    }
    (all.into(), spans)
}

impl History {
    pub fn new() -> Self {
        Self {
            ops: Vec::new(),
            lists: BTreeMap::new(),
            counters: BTreeMap::new(),
            popped: BTreeMap::new(),
            open: BTreeSet::new(),
        }
    }

    /// A new request.
    pub fn issue(
        &mut self,
        kind: Kind,
        partition: PartitionId,
        second_list: bool,
        producer: usize,
        owner: u32,
    ) -> Request {
        let id = self.ops.len() as u64;
        let counter = self.counters.entry(partition).or_default();
        counter.issued += i64::from(kind.counts());
        let (db, list) = list_key(
            partition,
            second_list && kind != Kind::Both && kind != Kind::ReadBoth,
        );
        let counter_floor = counter.floor;
        let list_floor = self.lists.entry((db, list.clone())).or_default().floor;
        self.ops.push(Op {
            kind,
            partition,
            second_list: db == 1,
            producer,
            owner,
            end: None,
            list_floor,
            counter_floor,
        });
        self.open.insert(id);
        let value = id.to_string().into_bytes();
        let (_, counter) = counter_key(partition);
        let (set_db, set) = set_key(partition);
        let read = |commands: &[&[&[u8]]]| {
            let count = commands.len() as u32;
            Action::Read(Commands {
                count,
                ..Commands::one(frame(commands, &[]).0)
            })
        };
        let write = |commands: &[&[&[u8]]], keys: &[(usize, usize)]| {
            let (bytes, spans) = frame(commands, keys);
            let touched = Touched::Keys(spans.into_iter().collect());
            Action::Write(Commands {
                count: commands.len() as u32,
                touched,
                ..Commands::one(bytes)
            })
        };
        let push: &[&[u8]] = &[b"RPUSH", &list, &value];
        let incr: &[&[u8]] = &[b"INCR", &counter];
        let range: &[&[u8]] = &[b"LRANGE", &list, b"0", b"-1"];
        let (db, action) = match kind {
            Kind::Push => (db, write(&[push], &[(0, 1)])),
            Kind::Both => (db, write(&[push, incr], &[(0, 1), (1, 1)])),
            Kind::Script => {
                let sha = format!("script{}", id % 3).into_bytes();
                let (bytes, _) = frame(&[&[b"EVALSHA", &sha, b"1", &list, &value]], &[]);
                let mut digest = [0; 20];
                digest[..sha.len()].copy_from_slice(&sha);
                let load = encode::command_frame(&[b"SCRIPT", b"LOAD", &sha]);
                let script = std::sync::Arc::new(Script { sha: digest, load });
                let scripts: Option<Box<[_]>> = Some(Box::new([script]));
                (
                    db,
                    Action::Write(Commands {
                        touched: Touched::Partition,
                        scripts,
                        ..Commands::one(bytes)
                    }),
                )
            }
            Kind::Incr => (0, write(&[incr], &[(0, 1)])),
            Kind::List => (db, read(&[range])),
            Kind::Counter => (0, read(&[&[b"GET", &counter]])),
            Kind::ReadBoth => (0, read(&[range, &[b"GET", &counter]])),
            Kind::Add => (set_db, write(&[&[b"SADD", &set, &value]], &[(0, 1)])),
            Kind::Pop => {
                let (bytes, spans) = frame(&[&[b"SPOP", &set]], &[(0, 0), (0, 1)]);
                let spans = spans.into_iter().collect();
                (
                    set_db,
                    Action::Decide(Box::new(Decide {
                        decision: Decision::Pop,
                        frame: bytes,
                        spans,
                    })),
                )
            }
            Kind::Boom => (db, write(&[&[b"BOOM", &list]], &[(0, 1)])),
        };
        let reply_to = ReplyTo {
            worker: 0,
            part: 0,
            client: producer as u32,
            generation: owner,
            slot: id,
        };
        Request {
            partition,
            db,
            under: HoldId::NONE,
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
            Outcome::Refused(_) | Outcome::Done | Outcome::Waits | Outcome::MayCome => {
                (End::NotDone, Vec::new())
            }
            Outcome::Unknown => (End::Unknown, Vec::new()),
            Outcome::Reply { frames, .. } => {
                let replies =
                    wire::replies(frames).ok_or_else(|| format!("{} was answered {frames:?}", to.slot))?;
                let failed = replies.iter().any(|reply| matches!(reply, Reply::Error(_)));
                (if failed { End::NotDone } else { End::Done }, replies)
            }
        };
        self.end(to.slot, end, &replies).map_err(|why| {
            format!(
                "request {} ({:?} of partition {}, by {}): {why}",
                to.slot, self.ops[to.slot as usize].kind, self.ops[to.slot as usize].partition, to.generation
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
        let (kind, partition, key) = (op.kind, op.partition, list_key(op.partition, op.second_list));
        let (list_floor, counter_floor) = (op.list_floor, op.counter_floor);
        let counter = self.counters.entry(partition).or_default();
        match end {
            End::Unknown => return Ok(()),
            End::NotDone => {
                counter.void += i64::from(kind.counts());
                if self
                    .lists
                    .get(&key)
                    .is_some_and(|list| list.place.contains_key(&id))
                {
                    return Err("it was refused, and yet somebody has read it".into());
                }
                return Ok(());
            }
            End::Done => counter.done += i64::from(kind.counts()),
        }
        if kind == Kind::Boom {
            return Err("nothing is done by it, and yet it was".into());
        }
        let mut replies = replies.iter();
        let mut next = || replies.next().ok_or("a reply is missing");
        if kind.pushes() {
            let Reply::Int(len) = *next()? else {
                return Err("a push is answered with a length".into());
            };
            if len as usize <= list_floor {
                return Err(format!(
                    "it was told to be at place {len}, and before it {list_floor} were there"
                ));
            }
            self.learn(&key, len as usize - 1, id)?;
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
            Kind::List | Kind::ReadBoth => {
                let values = next()?.texts().ok_or("a list is an array of texts")?;
                if values.len() < list_floor {
                    return Err(format!(
                        "{} values were read, and before it there were {list_floor}",
                        values.len()
                    ));
                }
                self.learn_all(&key, &values)?;
            }
            Kind::Pop => match next()? {
                Reply::Null => {}
                Reply::Text(member) => {
                    let member: u64 = String::from_utf8_lossy(member)
                        .parse()
                        .map_err(|_| "popped nonsense")?;
                    let added = self
                        .ops
                        .get(member as usize)
                        .ok_or("popped what was never added")?;
                    if added.kind != Kind::Add
                        || added.partition != partition
                        || added.end == Some(End::NotDone)
                    {
                        return Err(format!("popped {member}, which was not added"));
                    }
                    if let Some(other) = self.popped.insert(member, id) {
                        return Err(format!("popped {member}, as {other} did before"));
                    }
                }
                other => return Err(format!("popped {other:?}")),
            },
            Kind::Add => {
                let Reply::Int(1) = next()? else {
                    return Err("a new member is new".into());
                };
            }
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

    fn learn_count(&mut self, partition: PartitionId, n: i64, floor: i64) -> Result<(), String> {
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

    /// Somebody was told that the list has `value` at `place`.
    fn learn(&mut self, key: &Key, place: usize, value: u64) -> Result<(), String> {
        let list = self.lists.entry(key.clone()).or_default();
        if list.truth.len() <= place {
            list.truth.resize(place + 1, None);
        }
        match list.truth[place] {
            Some(other) if other != value => {
                return Err(format!(
                    "{value} stands at place {place} of {}, where {other} stood",
                    name(key)
                ));
            }
            Some(_) => {}
            None => {
                let op = self
                    .ops
                    .get(value as usize)
                    .ok_or_else(|| format!("{value} was never pushed"))?;
                if !op.kind.pushes() || list_key(op.partition, op.second_list) != *key {
                    return Err(format!("{value} was never pushed to {}", name(key)));
                }
                if op.end == Some(End::NotDone) {
                    return Err(format!("{value} was refused, and yet stands in {}", name(key)));
                }
                if let Some(other) = list.place.insert(value, place) {
                    return Err(format!(
                        "{value} stands twice in {}, at {other} and {place}",
                        name(key)
                    ));
                }
                list.truth[place] = Some(value);
            }
        }
        list.floor = list.floor.max(place + 1);
        Ok(())
    }

    fn learn_all(&mut self, key: &Key, values: &[Vec<u8>]) -> Result<(), String> {
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for (place, value) in values.iter().enumerate() {
            let value: u64 = String::from_utf8_lossy(value)
                .parse()
                .map_err(|_| "a value nobody has pushed")?;
            self.learn(key, place, value)?;
            let producer = self.ops[value as usize].producer;
            if last.insert(producer, value).is_some_and(|before| before > value) {
                return Err(format!(
                    "{value} of producer {producer} stands behind what he pushed later"
                ));
            }
        }
        Ok(())
    }

    /// What is there when everything is still.
    pub fn check_final(
        &mut self,
        partition: PartitionId,
        found: &BTreeMap<Key, Value>,
    ) -> Result<(), String> {
        for second in [false, true] {
            let key = list_key(partition, second);
            let values = match found.get(&key) {
                Some(Value::List(values)) => values.clone(),
                _ => Vec::new(),
            };
            let floor = self.lists.entry(key.clone()).or_default().floor;
            if values.len() < floor {
                let lost: Vec<u64> = self.lists[&key]
                    .truth
                    .iter()
                    .skip(values.len())
                    .copied()
                    .flatten()
                    .collect();
                return Err(format!(
                    "{} has {} values of {floor}; {lost:?} are lost",
                    name(&key),
                    values.len()
                ));
            }
            self.learn_all(&key, &values)?;
            for (id, op) in self.ops.iter().enumerate() {
                if op.kind.pushes()
                    && op.end == Some(End::Done)
                    && list_key(op.partition, op.second_list) == key
                    && !self.lists[&key].place.contains_key(&(id as u64))
                {
                    return Err(format!("{id} was acknowledged and is not in {}", name(&key)));
                }
            }
        }
        let n = match found.get(&counter_key(partition)) {
            Some(Value::Int(n)) => *n,
            _ => 0,
        };
        let counter = self.counters.entry(partition).or_default();
        let floor = counter.floor.max(counter.done);
        self.learn_count(partition, n, floor)
            .map_err(|why| format!("counter of partition {partition}: {why}"))?;
        let members = match found.get(&set_key(partition)) {
            Some(Value::Set(members)) => members.clone(),
            _ => BTreeSet::new(),
        };
        let mut missing = 0;
        let mut open_pops = 0;
        for (id, op) in self
            .ops
            .iter()
            .enumerate()
            .filter(|(_, op)| op.partition == partition)
        {
            let there = members.contains(id.to_string().as_bytes());
            let popped = self.popped.contains_key(&(id as u64));
            match (op.kind, &op.end) {
                (Kind::Add, _) if there && popped => return Err(format!("{id} was popped and is there")),
                (Kind::Add, Some(End::NotDone)) if there => {
                    return Err(format!("{id} was refused and is there"));
                }
                (Kind::Add, Some(End::Done)) => missing += usize::from(!there && !popped),
                (Kind::Pop, Some(End::Unknown)) => open_pops += 1,
                _ => {}
            }
        }
        if missing > open_pops {
            return Err(format!(
                "{missing} members are lost in partition {partition}, and {open_pops} may be popped"
            ));
        }
        Ok(())
    }
}

fn name(key: &Key) -> String {
    format!("{}/{}", key.0, String::from_utf8_lossy(&key.1))
}
