//! One life of a sidecar: first it takes the pool over, then it serves. What `worker` and `pool::keeper` do around the
//! sequencer is done here in small steps: flush, tick, connect, record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ringfence::account::Position;
use ringfence::request::{Membership, PartitionId};
use ringfence::sequencer::{PartitionStart, Sequencer, Settings};

use crate::link::Stream;
use crate::moves::Mover;
use crate::node::{Claim, Node, Record};
use crate::takeover::Takeover;

#[derive(Debug)]
pub enum Life {
    /// Waits to try (again), until then, in us.
    Waits(u64),
    TakesOver(Box<Takeover>),
    Serves(Box<Serving>),
}

#[derive(Debug)]
pub struct Sidecar {
    pub claim: Claim,
    /// Nodes that it can reach.
    pub reach: Vec<bool>,
    pub life: Life,
    /// It has seen that it is fenced: it ends then, in us.
    pub ends_at_us: Option<u64>,
}

#[derive(Debug)]
pub struct Serving {
    pub sequencer: Sequencer,
    pub streams: Vec<Stream>,
    pub unrecorded: BTreeSet<PartitionId>,
    pub keeper: Keeper,
    pub mover: Mover,
}

/// Keeps the table's record.
#[derive(Debug)]
pub struct Keeper {
    /// What a majority has.
    pub table: Rc<Record>,
    /// The newest that any node may have been given.
    pub attempted: Rc<Record>,
    wanted: BTreeMap<PartitionId, Membership>,
    /// Grows with every attempt: no two records have the same stamp.
    version: u64,
    writing: Option<Writing>,
    /// Told to the sequencer a little later.
    pub events: VecDeque<BTreeMap<PartitionId, Membership>>,
}

#[derive(Debug)]
struct Writing {
    record: Rc<Record>,
    sets: BTreeMap<PartitionId, Membership>,
    left: Vec<usize>,
    written: usize,
}

impl Serving {
    pub fn new(settings: Settings, nodes: usize, record: Rc<Record>, now_us: u64) -> Self {
        let starts: Vec<PartitionStart> = record
            .rows
            .iter()
            .enumerate()
            .map(|(partition, row)| PartitionStart {
                partition: partition as PartitionId,
                position: Position {
                    epoch: row.epoch,
                    seq: row.start,
                },
                since: row.since,
                replicas: row.replicas.iter().copied().collect(),
                in_sync: row.in_sync,
            })
            .collect();
        let mut sequencer = Sequencer::new(settings, nodes, &starts);
        sequencer.set_clock(now_us / 1000, now_us / 1000);
        let stream = |_| Stream {
            down_since_us: now_us,
            ..Stream::default()
        };
        Self {
            sequencer,
            streams: (0..nodes).map(stream).collect(),
            unrecorded: BTreeSet::new(),
            keeper: Keeper {
                version: record.stamp.1,
                attempted: record.clone(),
                table: record,
                wanted: BTreeMap::new(),
                writing: None,
                events: VecDeque::new(),
            },
            mover: Mover::default(),
        }
    }

    /// What the worker does every 10 ms.
    pub fn tick(&mut self, now_us: u64, node_timeout_us: u64) {
        self.sequencer.tick();
        for (node, stream) in self.streams.iter().enumerate() {
            if !self.sequencer.is_up(node as u16)
                && now_us.saturating_sub(stream.down_since_us) > node_timeout_us
            {
                self.sequencer.give_up(node as u16);
            }
        }
        let Self {
            unrecorded,
            sequencer,
            keeper,
            ..
        } = self;
        unrecorded.retain(|&partition| match sequencer.to_record(partition) {
            Some(members) => {
                keeper.wanted.insert(partition, members);
                false
            }
            None => true,
        });
    }

    /// The next batch of every node that takes one.
    pub fn flush(&mut self, rng: &mut crate::rng::Rng, all: bool) {
        for (node, stream) in self.streams.iter_mut().enumerate() {
            let node = node as u16;
            if stream.link.is_none() || stream.greeting.is_some() {
                continue;
            }
            if stream.blocked
                || (self.sequencer.has_work(node) && self.sequencer.next_batch(node, &mut stream.out))
            {
                stream.write(rng, all);
            }
        }
        self.sequencer.end_round();
    }
}

impl Keeper {
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.writing.is_none() && self.events.is_empty()
    }

    /// One step of writing a record. Gives the record when a majority has it.
    pub fn step(&mut self, nodes: &mut [Node], reach: &[bool], me: Claim) -> Option<Rc<Record>> {
        let Some(writing) = &mut self.writing else {
            if self.wanted.is_empty() {
                return None;
            }
            let sets = std::mem::take(&mut self.wanted);
            let mut rows = self.table.rows.clone();
            for (partition, members) in &sets {
                rows[usize::from(*partition)].set_members(members.clone());
            }
            self.version += 1;
            let record = Rc::new(Record {
                stamp: (me.term, self.version),
                rows,
            });
            self.attempted = record.clone();
            self.writing = Some(Writing {
                record,
                sets,
                left: (0..nodes.len()).collect(),
                written: 0,
            });
            return None;
        };
        if let Some(n) = writing.left.pop() {
            let node = &mut nodes[n];
            if node.up && reach[n] && node.admitted == Some(me.instance) {
                node.table = Some(writing.record.clone());
                node.settle();
                writing.written += 1;
            }
            return None;
        }
        let done = self.writing.take()?;
        if done.written * 2 > nodes.len() {
            self.table = done.record.clone();
            self.events.push_back(done.sets);
            return Some(done.record);
        }
        for (partition, members) in done.sets {
            self.wanted.entry(partition).or_insert(members);
        }
        None
    }
}
