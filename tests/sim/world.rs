//! Nodes, sidecars, what is under way between them, and the dice that decide what happens next.

use std::rc::Rc;

use ringfence::pool::table::Row;
use ringfence::request::PartitionId;
use ringfence::sequencer::{Broken, Effect, Settings};

use crate::history::{History, Kind, list_key};
use crate::link::{Link, Orphan, Stream};
use crate::node::{BOOKKEEPING_DB, Claim, Node, Record, Value};
use crate::rng::Rng;
use crate::sidecar::{Life, Serving, Sidecar};
use crate::takeover::{Progress, Takeover, View, next_term};

/// What may happen in one run, and how often, in percent.
#[derive(Debug)]
pub struct Plan {
    nodes: usize,
    replicas: usize,
    pub partitions: u16,
    steps: usize,
    /// Longest time between two steps, in us.
    step_us: usize,
    settings: Settings,
    fault_percent: usize,
    damage: bool,
    refusals: bool,
    booms: bool,
    zombies: bool,
    crashes: bool,
    cuts: bool,
    hangs: bool,
    /// Nothing goes wrong but the network, which falls apart with an owner on either side.
    splits: bool,
    lifes_max: usize,
    read_percent: usize,
    producers: usize,
    open_max: usize,
}

/// What happened in all runs together: a fault that never happens tests nothing.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: u64,
    pub refused: u64,
    pub unknown: u64,
    pub takeovers: u64,
    pub overtaken: u64,
    pub zombie_requests: u64,
    /// Reads that a former owner answered while its successor served.
    pub zombie_reads: u64,
    pub damages: u64,
    pub cuts: u64,
    pub hangs: u64,
    pub refusals: u64,
    pub expelled: u64,
    pub resent: u64,
    pub recorded: u64,
    pub copied: (u64, u64),
    /// Sidecars that had to be restarted to go on.
    pub stuck: u64,
}

#[derive(Debug)]
pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub now_us: u64,
    pub nodes: Vec<Node>,
    pub sidecars: Vec<Sidecar>,
    orphans: Vec<Orphan>,
    pub history: History,
    recorded: (u64, u64),
    instances: u32,
    lifes: usize,
    damaged: bool,
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

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.takeovers += other.takeovers;
        self.overtaken += other.overtaken;
        self.zombie_requests += other.zombie_requests;
        self.zombie_reads += other.zombie_reads;
        self.damages += other.damages;
        self.cuts += other.cuts;
        self.hangs += other.hangs;
        self.refusals += other.refusals;
        self.expelled += other.expelled;
        self.resent += other.resent;
        self.recorded += other.recorded;
        self.copied.0 += other.copied.0;
        self.copied.1 += other.copied.1;
        self.stuck += other.stuck;
    }
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let splits = rng.percent(25);
        let nodes = if splits {
            rng.between(3, 4)
        } else {
            rng.between(3, 5)
        };
        let replicas = if rng.percent(75) { 3 } else { 2 };
        let partitions = if splits { 1 } else { rng.between(1, 5) } as u16;
        let settings = Settings {
            worker: 0,
            partitions,
            replicas: replicas as u32,
            write_quorum: replicas as u32 / 2 + 1,
            min_in_sync: replicas as u32 / 2 + 1,
            backlog_bytes: *rng.pick(&[0, 1500, 6000, 6000, 30_000, 1_000_000, 1_000_000]),
            batch_commands_max: *rng.pick(&[1, 3, 100]),
            batch_bytes_max: *rng.pick(&[100, 100_000]),
            bookkeeping_db: BOOKKEEPING_DB,
            read_any: rng.percent(70),
            linearizable: true,
            write_timeout_ms: *rng.pick(&[60, 150, 500]),
            node_timeout_ms: if splits { 40 } else { *rng.pick(&[30, 60, 200]) },
            read_patience_ms: *rng.pick(&[5, 20]),
        };
        Self {
            nodes,
            replicas,
            partitions,
            steps: *rng.pick(&[300, 600, 1000]),
            step_us: if splits { 200 } else { *rng.pick(&[150, 600, 1500]) },
            settings,
            fault_percent: rng.between(1, 5),
            damage: rng.percent(40),
            refusals: rng.percent(40),
            booms: rng.percent(25),
            zombies: rng.percent(60),
            crashes: rng.percent(70),
            cuts: rng.percent(70),
            hangs: rng.percent(60),
            splits,
            lifes_max: rng.between(2, 6),
            read_percent: *rng.pick(&[10, 30, 60]),
            producers: rng.between(1, 4),
            open_max: *rng.pick(&[4, 12, 40]),
        }
    }
}

impl World {
    pub fn new(seed: u64, story: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let rows = (0..plan.partitions)
            .map(|_| {
                let mut all: Vec<u16> = (0..plan.nodes as u16).collect();
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
        let record = Rc::new(Record { stamp: (0, 0), rows });
        let mut world = Self {
            nodes: (0..plan.nodes).map(|n| Node::new(n, record.clone())).collect(),
            rng,
            plan,
            now_us: 0,
            sidecars: Vec::new(),
            orphans: Vec::new(),
            history: History::new(),
            recorded: (0, 0),
            instances: 0,
            lifes: 0,
            damaged: false,
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

    fn step(&mut self) -> Result<(), String> {
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
            92..=93 => self.deliver_orphan(),
            _ => (0..self.rng.between(1, 30)).for_each(|_| self.take_over(s)),
        }
        self.bury();
        Ok(())
    }

    fn start_sidecar(&mut self) {
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
    fn kill_sidecar(&mut self, s: usize) {
        let sidecar = self.sidecars.remove(s);
        tell!(self, "sidecar {} ends", sidecar.claim.instance);
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
    fn bury(&mut self) {
        if let Some(s) = self
            .sidecars
            .iter()
            .position(|s| s.ends_at_us.is_some_and(|end| end <= self.now_us))
        {
            self.kill_sidecar(s);
        }
    }

    // Clients.

    fn request(&mut self) {
        let serving: Vec<usize> = (0..self.sidecars.len())
            .filter(|&s| matches!(self.sidecars[s].life, Life::Serves(_)))
            .collect();
        if serving.is_empty() || self.history.open.len() >= self.plan.open_max {
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
        let kind = if self.rng.percent(self.plan.read_percent) {
            *self
                .rng
                .pick(&[Kind::List, Kind::List, Kind::Counter, Kind::ReadBoth])
        } else {
            match self.rng.below(20) {
                0..=8 => Kind::Push,
                9..=10 => Kind::Script,
                11..=12 => Kind::Both,
                13..=14 => Kind::Incr,
                15..=16 => Kind::Add,
                17..=18 => Kind::Pop,
                _ if self.plan.booms => Kind::Boom,
                _ => Kind::Push,
            }
        };
        let partition = self.rng.below(usize::from(self.plan.partitions)) as PartitionId;
        self.issue(s, kind, partition);
    }

    pub fn issue(&mut self, s: usize, kind: Kind, partition: PartitionId) {
        let producer = self.rng.below(self.plan.producers);
        let second = self.rng.percent(30);
        let sidecar = &mut self.sidecars[s];
        let Life::Serves(serving) = &mut sidecar.life else {
            return;
        };
        let request = self
            .history
            .issue(kind, partition, second, producer, sidecar.claim.instance);
        tell!(
            self,
            "{}: request {} {kind:?} partition {partition}",
            sidecar.claim.instance,
            request.reply_to.slot
        );
        serving.sequencer.order(request);
    }

    // Sidecars.

    fn serving(&mut self, s: usize) -> Option<&mut Serving> {
        match &mut self.sidecars.get_mut(s)?.life {
            Life::Serves(serving) => Some(serving),
            _ => None,
        }
    }

    fn flush(&mut self, s: usize, all: bool) {
        let now_us = self.now_us;
        let Some(Sidecar {
            life: Life::Serves(serving),
            ..
        }) = self.sidecars.get_mut(s)
        else {
            return;
        };
        serving.sequencer.set_clock(now_us / 1000, now_us / 1000);
        serving.flush(&mut self.rng, all);
    }

    fn tick(&mut self, s: usize) -> Result<(), String> {
        let (now_us, timeout_us) = (self.now_us, self.plan.settings.node_timeout_ms * 1000);
        let Some(serving) = self.serving(s) else {
            return Ok(());
        };
        serving.sequencer.set_clock(now_us / 1000, now_us / 1000);
        serving.tick(now_us, timeout_us);
        self.take_effects(s)
    }

    fn keep_record(&mut self, s: usize) -> Result<(), String> {
        let Some(Sidecar {
            life: Life::Serves(serving),
            claim,
            reach,
            ..
        }) = self.sidecars.get_mut(s)
        else {
            return Ok(());
        };
        if self.rng.percent(30)
            && let Some(sets) = serving.keeper.events.pop_front()
        {
            let sets: Vec<_> = sets.into_iter().collect();
            serving.sequencer.recorded(&sets);
            return self.take_effects(s);
        }
        if let Some(record) = serving.keeper.step(&mut self.nodes, reach, *claim) {
            self.recorded = self.recorded.max(record.stamp);
            self.tally.recorded += 1;
            tell!(self, "{}: recorded {:?}", claim.instance, sets_of(&record));
        }
        Ok(())
    }

    fn take_effects(&mut self, s: usize) -> Result<(), String> {
        let Some(serving) = self.serving(s) else {
            return Ok(());
        };
        let effects = std::mem::take(serving.sequencer.effects());
        let me = self.sidecars[s].claim.instance;
        for effect in effects {
            match effect {
                Effect::Complete(to, outcome) => {
                    tell!(self, "{me}: answers {} {outcome:?}", to.slot);
                    let op = &self.history.ops[to.slot as usize];
                    let (kind, partition, second) = (op.kind, op.partition, op.second_list);
                    match &outcome {
                        ringfence::request::Outcome::Reply { .. } => self.tally.done += 1,
                        ringfence::request::Outcome::Refused(_) => self.tally.refused += 1,
                        ringfence::request::Outcome::Unknown => self.tally.unknown += 1,
                    }
                    let serves = |s: &Sidecar| matches!(s.life, Life::Serves(_));
                    let successor = s + 1 < self.sidecars.len() && self.sidecars.last().is_some_and(serves);
                    let reads = matches!(kind, Kind::List | Kind::Counter | Kind::ReadBoth);
                    let answered = matches!(outcome, ringfence::request::Outcome::Reply { .. });
                    self.tally.zombie_reads += u64::from(successor && reads && answered);
                    self.history.complete(to, &outcome)?;
                    let done = self.history.ops[to.slot as usize].end == Some(crate::history::End::Done);
                    if done && matches!(kind, Kind::Push | Kind::Script | Kind::Both) && !self.damaged {
                        self.check_holders(s, to.slot, partition, second)?;
                    }
                }
                Effect::InSync { partition, set } => {
                    tell!(self, "{me}: partition {partition} in sync {set:03b}");
                    if let Some(serving) = self.serving(s) {
                        serving.unrecorded.insert(partition);
                    }
                }
                Effect::Mismatch { node, partition } => {
                    let found: Vec<_> = self
                        .nodes
                        .iter()
                        .map(|n| (n.position(partition), n.keys_of(partition)))
                        .collect();
                    return Err(format!(
                        "{me}: node {node} answered otherwise for partition {partition}: {found:?}"
                    ));
                }
                Effect::Expelled { node, partition } => {
                    tell!(self, "{me}: node {node} expelled from {partition}");
                    self.tally.expelled += 1;
                }
                Effect::Hung(node) => {
                    tell!(self, "{me}: node {node} hangs");
                    self.lose_link(s, usize::from(node), 0);
                }
            }
        }
        Ok(())
    }

    /// At the moment of an acknowledgement W nodes in sync have the value.
    fn check_holders(
        &mut self,
        s: usize,
        id: u64,
        partition: PartitionId,
        second: bool,
    ) -> Result<(), String> {
        let write_quorum = self.plan.settings.write_quorum as usize;
        let replicas = self.nodes.iter().find_map(|n| n.table.as_ref()).unwrap().rows[usize::from(partition)]
            .replicas
            .clone();
        let Some(serving) = self.serving(s) else {
            return Ok(());
        };
        let Some((_, set)) = serving.sequencer.partition_view(partition) else {
            return Ok(());
        };
        let value = id.to_string().into_bytes();
        let has = |n: usize| match self.nodes[n].data.get(&list_key(partition, second)) {
            Some(Value::List(values)) => values.contains(&value),
            _ => false,
        };
        let holders = replicas
            .iter()
            .enumerate()
            .filter(|(i, n)| set & (1 << i) != 0 && has(usize::from(**n)));
        let holders = holders.count();
        if holders < write_quorum {
            return Err(format!(
                "{id} was acknowledged while {holders} nodes in sync had it"
            ));
        }
        Ok(())
    }

    /// A step of a takeover, or its beginning.
    fn take_over(&mut self, s: usize) {
        let is_last = s + 1 >= self.sidecars.len();
        let Some(sidecar) = self.sidecars.get_mut(s) else {
            return;
        };
        match &mut sidecar.life {
            Life::Serves(_) => {}
            Life::Waits(until) if self.now_us < *until => {}
            Life::Waits(_) => {
                self.instances += 1;
                let term = next_term(&self.nodes, &sidecar.reach);
                sidecar.claim = Claim {
                    term,
                    instance: self.instances,
                };
                sidecar.life = Life::TakesOver(Box::new(Takeover::new(
                    &self.nodes,
                    &sidecar.reach,
                    &mut self.rng,
                )));
                self.tally.takeovers += 1;
                tell!(self, "{}: takes over, term {term}", self.instances);
            }
            Life::TakesOver(takeover) => {
                let mut view = View {
                    nodes: &mut self.nodes,
                    reach: &sidecar.reach,
                    me: sidecar.claim,
                    write_quorum: self.plan.settings.write_quorum,
                    recorded: self.recorded,
                    fenced: Vec::new(),
                    copied: &mut self.tally.copied,
                };
                let progress = takeover.step(&mut view, &mut self.rng);
                let fenced = view.fenced;
                let me = sidecar.claim;
                match progress {
                    Progress::Goes => {}
                    Progress::Setback if !is_last => {
                        self.tally.overtaken += 1;
                        self.kill_sidecar(s);
                    }
                    Progress::Setback => {
                        sidecar.life = Life::Waits(self.now_us + self.rng.below(20_000) as u64);
                        for reach in &mut sidecar.reach {
                            *reach |= self.rng.percent(20);
                        }
                        tell!(self, "{}: setback", me.instance);
                    }
                    Progress::Open(record) => {
                        self.recorded = self.recorded.max(record.stamp);
                        tell!(self, "{}: open at {:?}", me.instance, record.rows);
                        let settings = self.plan.settings.clone();
                        sidecar.life = Life::Serves(Box::new(Serving::new(
                            settings,
                            self.plan.nodes,
                            record,
                            self.now_us,
                        )));
                    }
                }
                for n in fenced {
                    tell!(self, "{}: fences node {n}", me.instance);
                    self.fence(n, me.instance);
                }
            }
        }
    }

    /// Nobody but `me` does anything at the node any more.
    fn fence(&mut self, n: usize, me: u32) {
        self.orphans.retain(|o| o.node != n || o.owner == me);
        for sidecar in self.sidecars.iter_mut().filter(|s| s.claim.instance != me) {
            if let Life::Serves(serving) = &mut sidecar.life
                && let Some(link) = &mut serving.streams[n].link
            {
                link.close();
            }
        }
    }

    // Streams.

    fn connect(&mut self, s: usize, n: usize) -> Result<(), String> {
        let now_us = self.now_us;
        let Some(sidecar) = self.sidecars.get_mut(s) else {
            return Ok(());
        };
        let Life::Serves(serving) = &mut sidecar.life else {
            return Ok(());
        };
        let me = sidecar.claim;
        let stream = &mut serving.streams[n];
        if stream.link.is_some() {
            let Some(applied) = stream.greeting.take() else {
                return Ok(());
            };
            let report = serving.sequencer.link_up(n as u16, &applied);
            tell!(self, "{}: node {n} connected, {report:?}", me.instance);
            return self.take_effects(s);
        }
        let node = &mut self.nodes[n];
        if now_us < stream.pause_until_us || !node.up || !sidecar.reach[n] {
            return Ok(());
        }
        match node.claim {
            Some(claim) if claim != me && claim.term >= me.term => {
                let end = now_us + self.rng.below(100_000) as u64;
                sidecar.ends_at_us.get_or_insert(end);
                return Ok(());
            }
            Some(claim) if claim == me => {}
            _ => {
                node.claim = Some(me);
                node.settle();
            }
        }
        let table = &serving.keeper.table;
        if node.admitted != Some(me.instance) {
            node.admitted = Some(me.instance);
            self.fence(n, me.instance);
            return Ok(());
        }
        if node.table.as_ref().is_none_or(|found| found.stamp < table.stamp) {
            node.table = Some(table.clone());
            node.settle();
        }
        // A new stream kills what is left of earlier ones before it looks.
        self.orphans.retain(|o| o.node != n || o.owner != me.instance);
        stream.greeting = Some(node.account().applied);
        stream.link = Some(Link::default());
        Ok(())
    }

    /// The sidecar gives a stream up, or has lost it.
    fn lose_link(&mut self, s: usize, n: usize, pause_us: u64) {
        let (now_us, owner) = (self.now_us, self.sidecars[s].claim.instance);
        let Some(serving) = self.serving(s) else { return };
        let lost = Stream {
            down_since_us: now_us,
            pause_until_us: now_us + pause_us,
            ..Stream::default()
        };
        let lost = std::mem::replace(&mut serving.streams[n], lost);
        let Some(link) = lost.link else { return };
        serving.sequencer.link_down(n as u16);
        tell!(self, "{owner}: stream to {n} is lost");
        self.orphans.push(Orphan { owner, node: n, link });
    }

    fn deliver_up(&mut self, s: usize, n: usize, all: bool) {
        let now_us = self.now_us;
        let Some(Sidecar {
            life: Life::Serves(serving),
            reach,
            ..
        }) = self.sidecars.get_mut(s)
        else {
            return;
        };
        if let Some(link) = &mut serving.streams[n].link
            && link.frozen_until_us <= now_us
            && reach[n]
        {
            link.deliver_up(&mut self.nodes[n], &mut self.rng, all);
        }
    }

    fn deliver_down(&mut self, s: usize, n: usize, all: bool) -> Result<(), String> {
        let now_us = self.now_us;
        let Some(Sidecar {
            life: Life::Serves(serving),
            reach,
            ..
        }) = self.sidecars.get_mut(s)
        else {
            return Ok(());
        };
        let Serving {
            sequencer, streams, ..
        } = &mut **serving;
        let stream = &mut streams[n];
        let Some(link) = &mut stream.link else {
            return Ok(());
        };
        if link.frozen_until_us > now_us || !reach[n] {
            return Ok(());
        }
        let bytes = link.deliver_down(&mut self.rng, all);
        if bytes.is_empty() {
            if link.closed {
                if stream.greeting.is_some() {
                    *stream = Stream {
                        down_since_us: stream.down_since_us,
                        ..Stream::default()
                    };
                } else {
                    self.lose_link(s, n, 0);
                    return self.take_effects(s);
                }
            }
            return Ok(());
        }
        stream.received.extend_from_slice(&bytes);
        sequencer.set_clock(now_us / 1000, now_us / 1000);
        match sequencer.receive(n as u16, &mut stream.received) {
            Ok(()) => {}
            Err(Broken::Refused(why)) => {
                tell!(self, "node {n} refused a batch: {why}");
                self.tally.refusals += 1;
                let pause_us = self.rng.below(8_000) as u64;
                self.lose_link(s, n, pause_us);
            }
            Err(broken) => return Err(format!("node {n}: {broken}")),
        }
        self.take_effects(s)
    }

    fn deliver_orphan(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let i = self.rng.below(self.orphans.len());
        let orphan = &mut self.orphans[i];
        orphan
            .link
            .deliver_up(&mut self.nodes[orphan.node], &mut self.rng, false);
        if orphan.link.up.is_empty() || self.rng.percent(10) {
            self.orphans.swap_remove(i);
        }
    }

    // Faults.

    fn fault(&mut self) -> Result<(), String> {
        let s = self.rng.below(self.sidecars.len());
        let n = self.rng.below(self.plan.nodes);
        let kind = match self.rng.below(12) {
            kind if !self.plan.splits => kind,
            0..=4 => 1,
            5..=10 => 5,
            _ => 11,
        };
        match kind {
            0 if self.plan.crashes && self.lifes < self.plan.lifes_max => self.kill_sidecar(s),
            1 if (self.plan.zombies || self.plan.splits)
                && self.lifes < self.plan.lifes_max
                && self.sidecars.len() < 3 =>
            {
                // A cut through the network: the old one is on one side, the new one on the other.
                self.start_sidecar();
                let new = self.sidecars.len() - 1;
                for n in 0..self.plan.nodes {
                    let old_side = self.rng.percent(40);
                    self.sidecars[new].reach[n] = !old_side || self.rng.percent(15);
                    self.sidecars[s].reach[n] &= old_side || self.rng.percent(50);
                }
            }
            2 | 3 if self.plan.cuts => return self.cut(s, n),
            4 if self.plan.hangs => {
                let until = self.now_us + self.rng.below(300_000) as u64;
                if let Some(serving) = self.serving(s)
                    && let Some(link) = &mut serving.streams[n].link
                {
                    link.frozen_until_us = until;
                    tell!(self, "the stream to {n} hangs until {until}");
                    self.tally.hangs += 1;
                }
            }
            5 | 6 => {
                let reach = !self.sidecars[s].reach[n] || self.rng.percent(40);
                self.sidecars[s].reach[n] = reach;
                tell!(
                    self,
                    "sidecar {} reaches {n}: {reach}",
                    self.sidecars[s].claim.instance
                );
            }
            7 | 8 => self.restart(n),
            9 | 10 if self.plan.refusals => {
                for n in 0..self.plan.nodes {
                    if self.rng.percent(60) {
                        self.nodes[n].refusing = self.rng.percent(50);
                        tell!(self, "node {n} refuses writes: {}", self.nodes[n].refusing);
                    }
                }
            }
            11 => {
                for n in 0..self.plan.nodes {
                    self.nodes[n].refusing = false;
                    self.nodes[n].up = true;
                    if self.rng.percent(50) {
                        self.sidecars[s].reach[n] = true;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A connection breaks: before or after what is under way has been executed, and answered.
    fn cut(&mut self, s: usize, n: usize) -> Result<(), String> {
        if self.rng.percent(50) {
            self.deliver_up(s, n, true);
        }
        if self.rng.percent(30) {
            self.deliver_down(s, n, true)?;
        }
        if let Some(serving) = self.serving(s)
            && serving.streams[n].greeting.is_none()
            && serving.streams[n].link.is_some()
        {
            self.tally.cuts += 1;
            self.lose_link(s, n, 0);
            return self.take_effects(s);
        }
        Ok(())
    }

    /// A node's process ends (and comes up again some time), perhaps without its last transactions, or without all.
    fn restart(&mut self, n: usize) {
        if !self.nodes[n].up {
            self.nodes[n].up = true;
            tell!(self, "node {n} is up again");
            return;
        }
        self.heal();
        let whole = self
            .nodes
            .iter()
            .all(|node| node.lost.is_empty() && node.lost_table.is_none());
        let one = matches!(
            self.sidecars.as_slice(),
            [Sidecar {
                life: Life::Serves(_),
                ..
            }]
        );
        if self.plan.damage && whole && one && self.rng.percent(70) {
            self.damaged = true;
            self.tally.damages += 1;
            if self.rng.percent(30) {
                tell!(self, "node {n} restarts empty");
                self.nodes[n].restart_empty();
            } else {
                let undone = self.rng.between(1, 6);
                tell!(self, "node {n} restarts, {undone} transactions are gone");
                self.nodes[n].restart(undone);
            }
        } else {
            tell!(self, "node {n} restarts");
            self.nodes[n].restart(0);
        }
        self.nodes[n].up = self.rng.percent(50);
        self.orphans.retain(|o| o.node != n);
        for sidecar in &mut self.sidecars {
            if let Life::Serves(serving) = &mut sidecar.life
                && let Some(link) = &mut serving.streams[n].link
            {
                link.close();
            }
        }
    }

    /// Forgets of damages what has been made good.
    fn heal(&mut self) {
        let tables: Vec<Rc<Record>> = self
            .sidecars
            .iter()
            .filter_map(|s| {
                if let Life::Serves(serving) = &s.life {
                    Some(serving.keeper.table.clone())
                } else {
                    None
                }
            })
            .collect();
        let Some(table) = tables.into_iter().max_by_key(|t| t.stamp) else {
            return;
        };
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let counted = |p: PartitionId| {
                let row = &table.rows[usize::from(p)];
                let i = row.replicas.iter().position(|&r| usize::from(r) == n);
                i.is_some_and(|i| row.in_sync & (1 << i) != 0)
            };
            let lost = std::mem::take(&mut node.lost);
            node.lost = lost
                .into_iter()
                .filter(|(p, at)| node.position(*p) < *at && counted(*p))
                .collect();
            if node
                .lost_table
                .is_some_and(|lost| node.table.as_ref().is_some_and(|t| t.stamp >= lost))
            {
                node.lost_table = None;
            }
        }
    }

    // The end.

    fn settle(&mut self) -> Result<(), String> {
        tell!(self, "everything heals");
        while self.sidecars.len() > 1 {
            self.kill_sidecar(0);
        }
        for sidecar in &mut self.sidecars {
            sidecar.reach.fill(true);
        }
        for node in &mut self.nodes {
            node.up = true;
            node.refusing = false;
        }
        while !self.orphans.is_empty() {
            self.deliver_orphan();
        }
        let quiet = self.until_quiet();
        if quiet.is_err() && self.is_stuck() {
            // What all nodes refuse cannot be given up while some of them have been expelled: a restart mends it.
            self.tally.stuck += 1;
        } else {
            quiet?;
            self.check_equal(false)?;
        }
        let ready = self.is_quiet()
            && self
                .serving(0)
                .is_some_and(|serving| serving.sequencer.is_ready());
        if ready {
            self.ask_everything(false)?;
        }
        tell!(self, "the last takeover");
        self.kill_sidecar(0);
        self.start_sidecar();
        self.sidecars[0].reach.fill(true);
        self.until_quiet()?;
        self.check_equal(true)?;
        self.ask_everything(true)?;
        self.check_equal(false)?;
        for partition in 0..self.plan.partitions {
            let replicas = self.table().rows[usize::from(partition)].replicas.clone();
            let set = self
                .serving(0)
                .and_then(|s| s.sequencer.partition_view(partition))
                .map_or(0, |(_, set)| set);
            let first = replicas[set.trailing_zeros() as usize];
            let found = self.nodes[usize::from(first)].keys_of(partition);
            self.history.check_final(partition, &found)?;
        }
        self.check_memory()
    }

    fn table(&self) -> Rc<Record> {
        match &self.sidecars[0].life {
            Life::Serves(serving) => serving.keeper.table.clone(),
            _ => panic!("not serving"),
        }
    }

    /// Lets everything happen in a fair way, until nothing is left to happen.
    fn until_quiet(&mut self) -> Result<(), String> {
        let timeouts = (self.plan.settings.write_timeout_ms + self.plan.settings.node_timeout_ms) as usize;
        for _ in 0..300 + timeouts {
            self.now_us += 2_000;
            if self.sidecars.is_empty() {
                self.start_sidecar();
                self.sidecars[0].reach.fill(true);
            }
            while matches!(self.sidecars[0].life, Life::TakesOver(_)) {
                self.take_over(0);
            }
            self.take_over(0);
            self.tick(0)?;
            self.flush(0, true);
            for n in 0..self.plan.nodes {
                self.connect(0, n)?;
                self.deliver_up(0, n, true);
                self.deliver_down(0, n, true)?;
            }
            for _ in 0..8 {
                self.keep_record(0)?;
            }
            self.bury();
            if self.is_quiet() {
                return Ok(());
            }
        }
        let open: Vec<_> = self
            .history
            .open
            .iter()
            .map(|&id| (id, &self.history.ops[id as usize]))
            .collect();
        let life = match self.sidecars.first().map(|s| &s.life) {
            Some(Life::Serves(serving)) => {
                let views = (0..self.plan.nodes).map(|n| serving.sequencer.node_view(n as u16));
                format!(
                    "{:?}, keeper idle {}",
                    views.collect::<Vec<_>>(),
                    serving.keeper.is_idle()
                )
            }
            other => format!("{other:?}"),
        };
        Err(format!("there is no end to it; still open: {open:?}; {life}"))
    }

    fn is_quiet(&self) -> bool {
        let Some(Sidecar {
            life: Life::Serves(serving),
            ends_at_us: None,
            ..
        }) = self.sidecars.first()
        else {
            return false;
        };
        self.history.open.is_empty()
            && serving.keeper.is_idle()
            && serving.streams.iter().enumerate().all(|(n, stream)| {
                let still = |link: &Link| link.up.is_empty() && link.down.is_empty() && !link.closed;
                stream.link.as_ref().is_some_and(still)
                    && stream.greeting.is_none()
                    && !serving.sequencer.has_work(n as u16)
            })
    }

    /// A partition has too few nodes left for anything to be decided about a write that they refuse.
    fn is_stuck(&self) -> bool {
        let Some(Sidecar {
            life: Life::Serves(serving),
            ..
        }) = self.sidecars.first()
        else {
            return false;
        };
        let few = |p| {
            serving
                .sequencer
                .partition_view(p)
                .is_some_and(|(_, set)| set.count_ones() < self.plan.settings.write_quorum)
        };
        self.plan.booms && (0..self.plan.partitions).any(few)
    }

    /// All nodes in sync stand at the same place and have the same.
    fn check_equal(&self, all: bool) -> Result<(), String> {
        let Life::Serves(serving) = &self.sidecars[0].life else {
            return Err("not serving".into());
        };
        for (partition, row) in self.table().rows.iter().enumerate() {
            let partition = partition as PartitionId;
            let (position, set) = serving.sequencer.partition_view(partition).unwrap();
            if all && set.count_ones() != row.replicas.len() as u32 {
                return Err(format!(
                    "partition {partition}: {set:03b} in sync after a takeover with all nodes"
                ));
            }
            let mut first = None;
            for (i, &n) in row
                .replicas
                .iter()
                .enumerate()
                .filter(|(i, _)| set & (1 << i) != 0)
            {
                let node = &self.nodes[usize::from(n)];
                if node.position(partition).seq != position.seq {
                    let found = node.position(partition);
                    return Err(format!(
                        "partition {partition}: node {n} stands at {found:?}, not at {position:?}"
                    ));
                }
                let keys = node.keys_of(partition);
                let (other, expected) = first.get_or_insert_with(|| (n, keys.clone()));
                if *expected != keys {
                    return Err(format!(
                        "partition {partition}: node {n} ({i}) has {keys:?}, {other} has {expected:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Now that everything is well, every request must be done.
    fn ask_everything(&mut self, also_writes: bool) -> Result<(), String> {
        let from = self.history.ops.len();
        for partition in 0..self.plan.partitions {
            for kind in [Kind::List, Kind::Counter, Kind::ReadBoth] {
                self.issue(0, kind, partition);
            }
        }
        self.take_effects(0)?;
        self.until_quiet()?;
        if also_writes {
            for partition in 0..self.plan.partitions {
                for kind in [Kind::Push, Kind::Both, Kind::Add, Kind::Pop, Kind::List] {
                    self.issue(0, kind, partition);
                }
            }
            self.take_effects(0)?;
            self.until_quiet()?;
        }
        let failed = self
            .history
            .ops
            .iter()
            .skip(from)
            .find(|op| op.end != Some(crate::history::End::Done));
        failed.map_or(Ok(()), |op| Err(format!("all is well, and yet {op:?}")))
    }

    /// What the sequencer keeps is bounded: the backlog by its bound, reads and queues by nothing that is still open.
    fn check_memory(&mut self) -> Result<(), String> {
        let bound = self.plan.settings.backlog_bytes;
        // The log shrinks when something is written to it.
        self.issue(0, Kind::Incr, 0);
        let Some(serving) = self.serving(0) else {
            return Ok(());
        };
        let text = format!("{:?}", serving.sequencer);
        let bytes = text.split("bytes: ").find_map(|t| {
            let (bytes, rest) = t.split_once(", bytes_max: ")?;
            rest.starts_with(|c: char| c.is_ascii_digit())
                .then(|| bytes.parse::<usize>().ok())?
        });
        let Some(bytes) = bytes else {
            return Err("the log's size is not to be seen".into());
        };
        if bytes > bound + 400 {
            return Err(format!("the backlog has {bytes} bytes of {bound}"));
        }
        if !text.contains("reads: Slab { len: 0") {
            return Err("reads are left over".into());
        }
        Ok(())
    }
}

fn sets_of(record: &Record) -> Vec<String> {
    record
        .rows
        .iter()
        .map(|row| format!("{:03b}", row.in_sync))
        .collect()
}
