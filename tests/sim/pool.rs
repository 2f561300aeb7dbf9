//! Three nodes and the owner of one partition, without delays: for examples.

use std::collections::{BTreeMap, HashMap};

use bytes::BytesMut;
use ringfence::account::Position;
use ringfence::request::{Action, Commands, HoldId, Outcome, ReplyTo, Request, Touched};
use ringfence::resp::{OutBuf, encode};
use ringfence::sequencer::{Effect, LinkReport, PartitionStart, Sequencer, Settings};
use smallvec::smallvec;

use crate::node::{BOOKKEEPING_DB, Node, Session, Value};

pub const LIST: &[u8] = b"L0";
/// Where the partition stands at first.
pub const START: Position = Position { epoch: 5, seq: 10 };
/// A backlog that never overflows, in bytes.
pub const LARGE: usize = 1 << 20;

pub fn to_slot(slot: u64) -> ReplyTo {
    ReplyTo {
        worker: 0,
        part: 0,
        client: 0,
        generation: 0,
        slot,
    }
}

pub fn settings(backlog_bytes: usize) -> Settings {
    Settings {
        worker: 0,
        keyspace: ringfence::ring::Keyspace::plain(1),
        replicas: 3,
        write_quorum: 2,
        min_in_sync: 2,
        backlog_bytes,
        batch_commands_max: 100,
        batch_bytes_max: 100_000,
        question: ringfence::command::dump::Question::default(),
        bookkeeping_db: BOOKKEEPING_DB,
        read_any: true,
        linearizable: true,
        write_timeout_ms: 1000,
        node_timeout_ms: 1000,
        read_patience_ms: 1000,
    }
}

/// Three nodes and their owner, without delays.
pub struct Pool {
    pub sequencer: Sequencer,
    pub nodes: Vec<(Node, Session)>,
    pub effects: Vec<Effect>,
}

impl Pool {
    pub fn new(backlog_bytes: usize) -> Self {
        Self::of(
            settings(backlog_bytes),
            PartitionStart {
                partition: 0,
                position: START,
                since: 3,
                replicas: smallvec![0, 1, 2],
                in_sync: 0b111,
            },
        )
    }

    pub fn of(settings: Settings, start: PartitionStart) -> Self {
        let record = std::rc::Rc::new(crate::node::Record {
            stamp: (5, 1),
            rows: Vec::new(),
        });
        let node = |id| (Node::new(id, record.clone()), Session::default());
        Self {
            sequencer: Sequencer::new(settings, 3, &[start]),
            nodes: (0..3).map(node).collect(),
            effects: Vec::new(),
        }
    }

    pub fn connect(&mut self, id: usize, stands: Option<Position>) -> LinkReport {
        let applied: BTreeMap<u16, Position> = stands.into_iter().map(|position| (0, position)).collect();
        self.nodes[id].0.begin_epoch(applied, std::iter::empty());
        let applied: HashMap<u16, Position> = self.nodes[id].0.account().applied;
        self.sequencer.link_up(id as u16, &applied)
    }

    pub fn push(&mut self, value: u64) {
        let text = value.to_string();
        let frame = encode::command_frame(&[b"RPUSH", LIST, text.as_bytes()]);
        let key = ringfence::resp::Span { start: 19, len: 2 };
        assert_eq!(&frame[19..21], LIST);
        let commands = Commands {
            // A node that only claims to have what came before answers otherwise; that is not what is shown here.
            compare: ringfence::command::Compare::Skip,
            touched: Touched::Keys(smallvec![key]),
            ..Commands::one(frame)
        };
        self.order(Action::Write(commands), value);
    }

    pub fn range(&mut self, slot: u64) {
        let range = Commands::one(encode::command_frame(&[b"LRANGE", LIST, b"0", b"-1"]));
        self.order(Action::Read(range), slot);
    }

    /// What becomes of it is told to `slot`.
    pub fn order(&mut self, action: Action, slot: u64) {
        self.sequencer.order(Request {
            partition: 0,
            db: 0,
            under: HoldId::NONE,
            action,
            reply_to: to_slot(slot),
        });
    }

    /// The node's next batch as bytes; empty if there is none.
    pub fn batch(&mut self, id: usize) -> Vec<u8> {
        let mut out = OutBuf::default();
        let mut wire = Vec::new();
        self.sequencer.next_batch(id as u16, &mut out);
        let take = |slices: &[std::io::IoSlice<'_>]| {
            slices.iter().for_each(|slice| wire.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        out.write_with(take).unwrap();
        wire
    }

    /// One batch of every node.
    pub fn batches(&mut self) -> Vec<Vec<u8>> {
        let batches = (0..self.nodes.len()).map(|id| self.batch(id)).collect();
        self.sequencer.end_round();
        batches
    }

    /// The node executes what it was sent, and its answer comes back.
    pub fn executes(&mut self, id: usize, wire: &[u8]) {
        let (node, session) = &mut self.nodes[id];
        let mut answer = Vec::new();
        node.feed(session, wire, &mut answer);
        self.sequencer
            .receive(id as u16, &mut BytesMut::from(&answer[..]))
            .unwrap();
        self.effects.append(self.sequencer.effects());
    }

    pub fn outcome(&self, slot: u64) -> Option<&Outcome> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Complete(to, outcome) if to.slot == slot => Some(outcome),
            _ => None,
        })
    }

    pub fn is_answered(&self, slot: u64) -> bool {
        self.outcome(slot).is_some()
    }

    /// Everything that is under way arrives.
    pub fn run(&mut self) {
        loop {
            let mut idle = true;
            for id in 0..self.nodes.len() {
                let wire = self.batch(id);
                idle &= wire.is_empty();
                self.executes(id, &wire);
            }
            self.sequencer.end_round();
            self.effects.append(self.sequencer.effects());
            if idle {
                return;
            }
        }
    }

    /// What a node brings with it.
    pub fn preload(&mut self, id: usize, values: &[u64]) {
        let values = values.iter().map(|v| v.to_string().into_bytes()).collect();
        self.nodes[id]
            .0
            .data
            .insert((0, LIST.to_vec()), Value::List(values));
    }

    pub fn values(&self, id: usize) -> Vec<String> {
        match self.nodes[id].0.data.get(&(0, LIST.to_vec())) {
            Some(Value::List(values)) => values
                .iter()
                .map(|v| String::from_utf8_lossy(v).into_owned())
                .collect(),
            _ => Vec::new(),
        }
    }
}
