//! What a transaction becomes: units, in the order in which they are executed.

use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use crate::command::spec::Compare;
use crate::ingress::across::Across;
use crate::ingress::flush::Flush;
use crate::request::{Action, Brings, Commands, Decide, PartitionId, Script, Touched};
use crate::resp::Span;

/// The commands of one partition, becoming one unit.
pub(super) struct Group {
    pub(super) partition: PartitionId,
    pub(super) db: u16,
    frame: BytesMut,
    count: u32,
    pub(super) write: bool,
    touched: Touched,
    compare: Compare,
    scripts: Option<Vec<Arc<Script>>>,
    brings: Brings,
    in_multi: bool,
}

impl Group {
    /// One of several is a write even if it only reads: a read that is asked of another node comes to a later place of the order,
    /// and the transaction would see two moments. (Under a hold there is nothing in between.)
    pub(super) fn into_action(self, is_alone: bool) -> Action {
        let commands = Commands {
            frame: self.frame.freeze(),
            count: self.count,
            compare: self.compare,
            touched: self.touched,
            brings: self.brings,
            in_multi: self.in_multi,
            scripts: self.scripts.map(Vec::into_boxed_slice),
            second_chance: None,
        };
        match self.write || !is_alone {
            true => Action::Write(commands),
            false => Action::Read(commands),
        }
    }

    fn add(&mut self, commands: Commands, write: bool) {
        let offset = self.frame.len() as u32;
        self.frame.extend_from_slice(&commands.frame);
        self.count += commands.count;
        self.write |= write;
        // One rule for the unit: exact if that holds for all, else types and lengths.
        if commands.compare != Compare::Exact {
            self.compare = Compare::Shape;
        }
        match (&mut self.touched, commands.touched) {
            (Touched::Keys(all), Touched::Keys(keys)) if write => {
                all.extend(keys.iter().map(|key| Span {
                    start: key.start + offset,
                    len: key.len,
                }));
            }
            (touched, Touched::Partition) if write => *touched = Touched::Partition,
            _ => {}
        }
        if commands.brings != Brings::Nothing {
            self.brings = Brings::Unknown;
        }
        self.in_multi |= commands.in_multi;
        if let Some(scripts) = commands.scripts {
            self.scripts.get_or_insert_default().extend(scripts);
        }
    }
}

/// What is executed, in this order.
pub(super) enum Unit {
    Group(Group),
    /// In this database.
    Across(u16, Box<Across>),
    Decide(PartitionId, u16, Box<Decide>),
    Joint(Box<[PartitionId]>, u16, Box<Commands>),
    Flush(u16, Flush),
}

impl Unit {
    pub(super) fn partitions(&self, partitions: u16) -> Vec<PartitionId> {
        match self {
            Self::Group(group) => vec![group.partition],
            Self::Across(_, across) => across.held(),
            Self::Decide(partition, ..) => vec![*partition],
            Self::Joint(partitions, ..) => partitions.to_vec(),
            Self::Flush(..) => (0..partitions).collect(),
        }
    }

    /// Those of them that it may write.
    pub(super) fn written(&self, partitions: u16) -> Vec<PartitionId> {
        match self {
            Self::Group(group) if !group.write => Vec::new(),
            _ => self.partitions(partitions),
        }
    }
}

/// All of a transaction.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) units: Vec<Unit>,
    /// Nothing is added to a group before this one: something is executed in between.
    open_from: usize,
}

impl Plan {
    /// Puts commands into the group of their partition and database: its number.
    pub(super) fn put(&mut self, partition: PartitionId, db: u16, commands: Commands, write: bool) -> usize {
        let is_it = |unit: &Unit| matches!(unit, Unit::Group(g) if g.partition == partition && g.db == db);
        let open = self.units.iter().skip(self.open_from).position(is_it);
        let at = open.map_or(self.units.len(), |at| at + self.open_from);
        if at == self.units.len() {
            self.units.push(Unit::Group(Group {
                partition,
                db,
                frame: BytesMut::new(),
                count: 0,
                write: false,
                touched: Touched::Keys(SmallVec::new()),
                compare: Compare::Exact,
                scripts: None,
                brings: Brings::Nothing,
                in_multi: false,
            }));
        }
        if let Some(Unit::Group(group)) = self.units.get_mut(at) {
            group.add(commands, write);
        }
        at
    }

    /// Adds something that is executed by itself, behind all before it: its number.
    pub(super) fn alone(&mut self, unit: Unit) -> usize {
        self.units.push(unit);
        self.open_from = self.units.len();
        self.units.len() - 1
    }
}
