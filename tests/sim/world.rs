//! Nodes, sidecars, what is under way between them, and the dice that decide what happens next.
use std::collections::BTreeMap;
use std::rc::Rc;

use ringfence::pool::table::Row;
use ringfence::request::{Action, HoldId, NodeId, PartitionId};

use crate::clients::{Client, Role};
use crate::history::History;
use crate::link::Orphan;
use crate::moves::Late;
use crate::node::{Claim, Node, Record};
use crate::ops::Kind;
use crate::plan::{Plan, Tally};
use crate::rng::Rng;
use crate::sidecar::{Life, Sidecar};
use crate::waiting::Lines;

#[derive(Debug)]
pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub now_us: u64,
    pub nodes: Vec<Node>,
    pub sidecars: Vec<Sidecar>,
    pub orphans: Vec<Orphan>,
    pub late: Vec<Late>,
    pub history: History,
    /// Those whose commands take several steps, by the number of the operation.
    pub clients: BTreeMap<u64, Client>,
    pub lines: Lines,
    /// For each partition, the nodes that should hold it.
    pub targets: Vec<Vec<NodeId>>,
    pub recorded: (u64, u64),
    pub instances: u32,
    pub lifes: usize,
    pub damaged: bool,
    /// The schedule is over, and things are to be as they should.
    pub is_settled: bool,
    pub tally: Tally,
    /// What happened, for a failing seed that is replayed.
    pub story: Option<Vec<String>>,
}
macro_rules! tell {
    ($world:expr, $($arg:tt)*) => {
        if let Some(story) = &mut $world.story {
            story.push(format!("{:>7} {}", $world.now_us, format!($($arg)*)));
        }
    };
}
pub(crate) use tell;

impl World {
    pub fn new(seed: u64, story: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let mut together: Vec<u16> = (0..plan.nodes as u16).collect();
        rng.shuffle(&mut together);
        together.truncate(plan.replicas);
        let rows: Vec<Row> = (0..plan.partitions)
            .map(|_| {
                let mut all: Vec<u16> = (0..plan.nodes as u16).collect();
                if rng.percent(plan.together_percent) {
                    all.clone_from(&together);
                }
                rng.shuffle(&mut all);
                all.truncate(plan.replicas);
                Row {
                    epoch: 0,
                    start: 0,
                    since: 0,
                    replicas: all.into_iter().collect(),
                    in_sync: (1 << plan.replicas) - 1,
                }
            })
            .collect();
        let targets = rows.iter().map(|row| row.replicas.to_vec()).collect();
        let record = Rc::new(Record { stamp: (0, 0), rows });
        let mut world = Self {
            nodes: (0..plan.nodes).map(|n| Node::new(n, record.clone())).collect(),
            rng,
            history: History::new(plan.partitions),
            clients: BTreeMap::new(),
            lines: Lines::default(),
            plan,
            now_us: 0,
            sidecars: Vec::new(),
            orphans: Vec::new(),
            late: Vec::new(),
            targets,
            recorded: (0, 0),
            instances: 0,
            lifes: 0,
            damaged: false,
            is_settled: false,
            tally: Tally::default(),
            story: story.then(Vec::new),
        };
        tell!(world, "{:?}", world.plan);
        tell!(
            world,
            "replica sets {:?}",
            record
                .rows
                .iter()
                .map(|r| r.replicas.to_vec())
                .collect::<Vec<_>>()
        );
        world
    }

    /// Runs the whole schedule, then lets everything heal and checks what is left.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.steps {
            self.now_us += self.rng.below(self.plan.step_us) as u64;
            self.step()?;
        }
        self.settle()
    }

    pub fn step(&mut self) -> Result<(), String> {
        if self.sidecars.is_empty() {
            self.start_sidecar();
        }
        if self.rng.below(1000) < self.plan.fault_percent * 10 {
            return self.fault();
        }
        let s = self.rng.below(self.sidecars.len());
        let all: Vec<usize> = (0..self.plan.nodes).filter(|_| self.rng.percent(50)).collect();
        match self.rng.below(100) {
            0..=24 => self.request(),
            25..=41 => self.flush(s, false),
            42..=58 => all.into_iter().for_each(|n| self.deliver_up(s, n, false)),
            59..=75 => all.into_iter().try_for_each(|n| self.deliver_down(s, n, false))?,
            76..=82 => all.into_iter().try_for_each(|n| self.connect(s, n))?,
            83..=86 => self.tick(s)?,
            87..=91 => self.keep_record(s)?,
            92 => self.deliver_orphan(),
            93 => self.lose_patience(s)?,
            _ => (0..self.rng.between(1, 30)).for_each(|_| self.take_over(s)),
        }
        if !self.clients.is_empty() && self.rng.percent(40) {
            self.act(s, 60)?;
        }
        if self.plan.moves && self.rng.percent(self.plan.move_percent) {
            let s = self.rng.below(self.sidecars.len());
            for _ in 0..self.rng.between(1, 4) {
                self.move_on(s, false)?;
                self.check_promise()?;
            }
        }
        self.check_promise()?;
        self.bury();
        Ok(())
    }

    /// Somebody who waits does so no longer.
    fn lose_patience(&mut self, s: usize) -> Result<(), String> {
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let id = *self.rng.pick(&ids);
        if self.history.ops[id as usize].owner == self.sidecars[s].claim.instance {
            self.give_up_waiting(s, id)?;
        }
        Ok(())
    }

    pub fn start_sidecar(&mut self) {
        self.lifes += 1;
        let reach = (0..self.plan.nodes).map(|_| !self.rng.percent(8)).collect();
        let sidecar = Sidecar {
            claim: Claim { term: 0, instance: 0 },
            reach,
            life: Life::Waits(self.now_us),
            ends_at_us: None,
        };
        tell!(self, "a sidecar starts, reach {:?}", sidecar.reach);
        self.sidecars.push(sidecar);
    }

    /// Drops a sidecar; what it has sent may still arrive.
    pub fn kill_sidecar(&mut self, s: usize) {
        let sidecar = self.sidecars.remove(s);
        tell!(self, "sidecar {} ends", sidecar.claim.instance);
        self.drop_clients(sidecar.claim.instance);
        self.history.owner_died(sidecar.claim.instance);
        let Life::Serves(serving) = sidecar.life else {
            return;
        };
        self.tally.resent += serving.sequencer.counters().resent;
        for (node, stream) in serving.streams.into_iter().enumerate() {
            if let Some(link) = stream.link {
                self.orphans.push(Orphan {
                    owner: sidecar.claim.instance,
                    node,
                    link,
                });
            }
        }
    }

    /// Fenced sidecars that have noticed it end.
    pub fn bury(&mut self) {
        if let Some(s) = self
            .sidecars
            .iter()
            .position(|s| s.ends_at_us.is_some_and(|end| end <= self.now_us))
        {
            self.kill_sidecar(s);
        }
    }

    pub fn request(&mut self) {
        let serving: Vec<usize> = (0..self.sidecars.len())
            .filter(|&s| matches!(self.sidecars[s].life, Life::Serves(_)))
            .collect();
        if serving.is_empty() || self.history.open.len() - self.waiting() >= self.plan.open_max {
            return;
        }
        let s = *self.rng.pick(&serving);
        // The first clients are let in when the streams are connected; later they come whatever there is.
        if self
            .serving(s)
            .is_some_and(|serving| !serving.sequencer.is_ready())
            && self.rng.percent(70)
        {
            return;
        }
        self.tally.zombie_requests += u64::from(s + 1 < self.sidecars.len());
        // A write that cannot become safe holds up all reads behind it, so a former owner is mostly only asked.
        let former = self.plan.splits && s + 1 < self.sidecars.len();
        let read_percent = if former { 95 } else { self.plan.read_percent };
        let kind = if self.rng.percent(read_percent) {
            *self
                .rng
                .pick(&[Kind::List, Kind::List, Kind::Counter, Kind::ReadBoth, Kind::Peek])
        } else {
            self.any_write()
        };
        let partition = self.rng.below(usize::from(self.plan.partitions)) as PartitionId;
        self.issue(s, kind, partition);
    }

    fn any_write(&mut self) -> Kind {
        let two = &[
            Kind::PushTwo,
            Kind::PushTwo,
            Kind::ScriptTwo,
            Kind::Move,
            Kind::Move,
            Kind::PushInTurn,
            Kind::PushInTurn,
            Kind::BoomTwo,
        ];
        let queued = &[
            Kind::Put,
            Kind::Put,
            Kind::Put,
            Kind::PutScript,
            Kind::Take,
            Kind::WaitTake,
            Kind::WaitTake,
            Kind::WaitMove,
            Kind::WaitTold,
            Kind::WaitLong,
        ];
        let kind = match self.rng.below(100) {
            n if n < self.plan.two_percent => *self.rng.pick(two),
            n if n < self.plan.two_percent + self.plan.queued_percent => *self.rng.pick(queued),
            _ => match self.rng.below(20) {
                0..=7 => Kind::Push,
                8 => Kind::Settled,
                9..=10 => Kind::Script,
                11..=12 => Kind::Both,
                13..=14 => Kind::Incr,
                15..=16 => Kind::Add,
                17..=18 => Kind::Pop,
                _ => Kind::Boom,
            },
        };
        match kind {
            Kind::Boom | Kind::BoomTwo if !self.plan.booms => Kind::Push,
            kind if kind.waits() && self.waiting() >= self.plan.waiting_max => Kind::Put,
            kind => kind,
        }
    }

    /// How many stand in lines, or are about to.
    pub fn waiting(&self) -> usize {
        self.clients
            .values()
            .filter(|client| matches!(client.role, Role::Waits(_)))
            .count()
    }

    /// The other partition of an operation that has two, or may have.
    fn other(&mut self, s: usize, kind: Kind, partition: PartitionId) -> Option<PartitionId> {
        let mut all: Vec<PartitionId> = (0..self.plan.partitions).filter(|&p| p != partition).collect();
        let set = self.set_of(s, partition);
        if kind.is_joint() && (self.is_settled || self.rng.percent(95)) {
            all.retain(|&p| self.set_of(s, p) == set);
        }
        let may =
            kind.is_of_two() || (matches!(kind, Kind::WaitTake | Kind::WaitLong) && self.rng.percent(60));
        (may && !all.is_empty()).then(|| *self.rng.pick(&all))
    }

    pub fn issue(&mut self, s: usize, kind: Kind, partition: PartitionId) {
        let producer = self.rng.below(self.plan.producers);
        let second = self.rng.percent(30);
        let other = self.other(s, kind, partition);
        let owner = self.sidecars[s].claim.instance;
        // A client that has sent a joint write sends nothing before it is answered.
        let is_busy = |id: &u64| {
            let op = &self.history.ops[*id as usize];
            op.kind.is_joint() && op.owner == owner && op.producer == producer
        };
        if (kind.is_of_two() && other.is_none()) || self.history.open.iter().any(is_busy) {
            return;
        }
        let node = *self.rng.pick(&self.replicas_of(partition));
        let Some(serving) = self.serving(s) else { return };
        let position = serving
            .sequencer
            .partition_view(partition)
            .map(|view| view.position);
        if kind.is_procedure() {
            let id = self
                .history
                .begin(kind, partition, other, second, producer, owner);
            tell!(
                self,
                "{owner}: request {id} {kind:?} partitions {partition} {other:?}"
            );
            return self.begin_steps(s, id);
        }
        let request = match kind {
            Kind::Settled => {
                let id = self
                    .history
                    .begin(kind, partition, other, second, producer, owner);
                self.history.ops[id as usize].settles = position.map(|position| (node, position));
                self.history
                    .request(id, 0, partition, 0, HoldId::NONE, Action::Settled(node))
            }
            _ => self
                .history
                .issue(kind, partition, other, second, producer, owner),
        };
        tell!(
            self,
            "{owner}: request {} {kind:?} partitions {partition} {other:?}",
            request.reply_to.slot
        );
        if let Some(serving) = self.serving(s) {
            serving.sequencer.order(request);
        }
    }

    /// The nodes of a partition as its owner knows them.
    fn set_of(&mut self, s: usize, partition: PartitionId) -> Option<Vec<NodeId>> {
        let view = self.serving(s)?.sequencer.partition_view(partition)?;
        let mut nodes = view.replicas.to_vec();
        nodes.sort_unstable();
        Some(nodes)
    }

    /// The nodes of a partition by the latest record.
    pub fn replicas_of(&self, partition: PartitionId) -> Vec<u16> {
        let tables = self.nodes.iter().filter_map(|n| n.table.as_ref());
        let table = tables.max_by_key(|table| table.stamp).unwrap();
        table.rows[usize::from(partition)].replicas.to_vec()
    }

    /// Records that a successor may find now, if nobody has lost any: the last safe one, and those after it.
    pub fn findable(&self) -> impl Iterator<Item = &Record> {
        let tables = self.nodes.iter().filter_map(|n| n.table.as_deref());
        tables.filter(|table| table.stamp >= self.recorded)
    }
}
