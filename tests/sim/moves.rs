//! What `mover` does, one small step at a time, with anything between two of them: copies to nodes that should hold a partition, or
//! that lack more of it than the backlog has; nodes that leave; and what they leave behind.
//!
//! What is next is decided by the real [`plan`]; the steps are those of `mover::job` and `mover::sweep`. Every step can fail, or be
//! given up without anybody knowing what became of it: then what was sent may still be executed at any later time ([`Late`]).

mod checks;
mod copy;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ringfence::account::Position;
use ringfence::mover::plan::{self, Picture, Place, Step};
use ringfence::request::{Action, Commands, HoldId, NodeId, Outcome, PartitionId, ReplyTo, Request};

use crate::keys::{name, partition_of};
use crate::node::{BOOKKEEPING_DB, Change, Key, Value};
use crate::world::{World, tell};

/// Who waits for what a mover has asked for: no worker.
pub const MOVER: u16 = 9999;

/// A change that somebody has sent to a node and waits for no more.
#[derive(Debug)]
pub struct Late {
    pub owner: u32,
    pub node: usize,
    boot: u32,
    change: Change,
}

/// A connection to a node. It ends with the node's process, and when its instance is fenced there.
#[derive(Clone, Copy, Debug)]
struct Control {
    node: usize,
    boot: u32,
}

#[derive(Debug, Default)]
pub struct Mover {
    job: Option<Job>,
    jobs: u32,
    inbox: VecDeque<(u32, u16, Outcome)>,
    /// Nodes for which something has failed are left alone until then, in us.
    rests: BTreeMap<NodeId, u64>,
    /// Which life of a node has been looked through for what it should not have.
    swept: BTreeMap<NodeId, u32>,
}

impl Mover {
    pub fn told(&mut self, to: ReplyTo, outcome: Outcome) {
        self.inbox.push_back((to.client, to.part, outcome));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Announce,
    Rest,
    Remove,
    /// Of a sweep: the end. Of a copy: the source tells of changes from here on.
    Clear,
    Track,
    Scan,
    CatchUp,
    Hold,
    RestHeld,
    Last,
    Account,
    Join,
    /// With one copy the former node leaves while nothing is under way.
    Joined,
    Switch,
    Switched,
    /// Nodes leave: nothing of a copy or a sweep.
    Leave,
}

/// A copy, or a sweep (then there is no source).
#[derive(Debug)]
struct Job {
    number: u32,
    to: Control,
    from: Option<Control>,
    source: Option<NodeId>,
    partitions: Vec<PartitionId>,
    phase: Phase,
    hold: HoldId,
    held: usize,
    /// Parts that are not answered yet, and the answers to the others.
    open: BTreeSet<u16>,
    asked: u16,
    outcomes: Vec<Outcome>,
    /// The last key that was looked at.
    cursor: Option<Key>,
    /// What was read from the source, and not yet written.
    carried: Option<(Key, Option<Value>)>,
    dirty: VecDeque<Key>,
    /// Up to where the source's changes have been taken.
    seen: usize,
    passes: usize,
    positions: Option<Vec<(PartitionId, Option<Position>)>>,
}

/// How a step ended.
enum Went {
    On,
    Done,
    Wrong(&'static str),
}

impl World {
    /// The pool is to look otherwise.
    pub fn choose_targets(&mut self) -> Result<(), String> {
        let all_alike = self.rng.percent(self.plan.together_percent);
        let one = self.any_set();
        for partition in 0..usize::from(self.plan.partitions) {
            if all_alike {
                self.targets[partition].clone_from(&one);
            } else if self.rng.percent(60) {
                self.targets[partition] = self.any_set();
            }
        }
        tell!(self, "targets are {:?}", self.targets);
        Ok(())
    }

    fn any_set(&mut self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = (0..self.plan.nodes as NodeId).collect();
        self.rng.shuffle(&mut all);
        all.truncate(self.plan.replicas);
        all
    }

    /// What was given up comes to its node all the same, if nothing has ended its connection.
    pub fn deliver_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let i = self.rng.below(self.late.len());
        let late = self.late.remove(i);
        let node = &mut self.nodes[late.node];
        if node.boot == late.boot && node.up && node.admitted == Some(late.owner) && !node.refusing {
            tell!(self, "late at node {}: {:?}", late.node, late.change);
            node.change(late.change);
        }
    }

    fn alive(&self, s: usize, control: Control) -> bool {
        let (node, sidecar) = (&self.nodes[control.node], &self.sidecars[s]);
        node.up
            && node.boot == control.boot
            && sidecar.reach[control.node]
            && node.admitted == Some(sidecar.claim.instance)
    }

    fn control(&self, s: usize, n: NodeId) -> Option<Control> {
        let control = Control {
            node: n.into(),
            boot: self.nodes[usize::from(n)].boot,
        };
        self.alive(s, control).then_some(control)
    }

    pub fn places(&mut self, s: usize) -> Vec<Place> {
        let targets = self.targets.clone();
        let Some(serving) = self.serving(s) else {
            return Vec::new();
        };
        let place = |(partition, target): (usize, Vec<NodeId>)| {
            let view = serving
                .sequencer
                .partition_view(partition as PartitionId)
                .unwrap();
            Place {
                replicas: view.replicas.to_vec(),
                live: view.live.to_vec(),
                out: view.out.to_vec(),
                recorded: view.recorded.to_vec(),
                leaving: view.leaving.to_vec(),
                target,
            }
        };
        targets.into_iter().enumerate().map(place).collect()
    }

    /// Nodes that can be given something now.
    fn able(&mut self, s: usize) -> BTreeSet<NodeId> {
        let (now_us, nodes) = (self.now_us, self.plan.nodes as NodeId);
        let Some(serving) = self.serving(s) else {
            return BTreeSet::new();
        };
        let is_able = |node: &NodeId| {
            serving.sequencer.is_up(*node)
                && serving.sequencer.node_view(*node).refused.is_none()
                && serving.mover.rests.get(node).is_none_or(|until| *until <= now_us)
        };
        (0..nodes).filter(is_able).collect()
    }

    /// Whether nothing is left to be moved.
    pub fn all_moved(&mut self, s: usize) -> bool {
        let places = self.places(s);
        let in_place = |place: &Place| {
            place.replicas.len() == place.target.len()
                && place.target.iter().all(|node| place.live.contains(node))
        };
        if !places.iter().all(in_place) {
            return false;
        }
        let boots: Vec<u32> = self.nodes.iter().map(|node| node.boot).collect();
        self.serving(s).is_some_and(|serving| {
            let is_swept = |(n, boot): (usize, &u32)| serving.mover.swept.get(&(n as NodeId)) == Some(boot);
            serving.mover.job.is_none() && boots.iter().enumerate().all(is_swept)
        })
    }

    /// The next small step of what the sidecar moves. `well`: nothing goes wrong.
    pub fn move_on(&mut self, s: usize, well: bool) -> Result<(), String> {
        if !well && !self.late.is_empty() && self.rng.percent(2) {
            self.deliver_late();
        }
        let Some(mut job) = self.serving(s).and_then(|serving| serving.mover.job.take()) else {
            return self.next_move(s);
        };
        self.hear(s, &mut job);
        // These are waited for, however long that takes.
        let waits = matches!(job.phase, Phase::Hold | Phase::Leave);
        let went = if !well && !waits && self.fails() {
            Went::Wrong("it takes too long")
        } else if job.open.is_empty() {
            self.job_step(s, &mut job, well)?
        } else {
            Went::On
        };
        let me = self.sidecars[s].claim.instance;
        let to = job.to.node as NodeId;
        let done = matches!(went, Went::Done);
        match went {
            Went::On => {
                if let Some(serving) = self.serving(s) {
                    serving.mover.job = Some(job);
                }
                return Ok(());
            }
            Went::Done if job.phase == Phase::Leave => {}
            Went::Done if job.source.is_some() => self.tally.joined += job.partitions.len() as u64,
            Went::Done => {
                if let Some(serving) = self.serving(s) {
                    serving.mover.swept.insert(to, job.to.boot);
                }
            }
            Went::Wrong(why) => {
                tell!(self, "{me}: move {} fails: {why}", job.number);
                self.tally.unmoved += 1;
                let pause_us = if well { 4_000 } else { self.rng.below(20_000) };
                let until = self.now_us + pause_us as u64;
                if let Some(serving) = self.serving(s) {
                    serving.mover.rests.insert(to, until);
                }
            }
        }
        let is_switch = matches!(job.phase, Phase::Joined | Phase::Switch | Phase::Switched);
        // Not both; unless nobody is there any more to say so.
        if is_switch && !done && (well || self.rng.percent(70)) {
            for partition in &job.partitions {
                self.ask(s, None, *partition, job.hold, Action::Leave(to))?;
            }
        }
        for partition in job.partitions.iter().take(job.held) {
            self.ask(s, None, *partition, job.hold, Action::Release)?;
        }
        Ok(())
    }

    fn fails(&mut self) -> bool {
        self.rng.below(1000) < self.plan.move_fails
    }

    /// Has the sequencer order something, for a job that waits for the answer.
    fn ask(
        &mut self,
        s: usize,
        job: Option<&mut Job>,
        partition: PartitionId,
        under: HoldId,
        action: Action,
    ) -> Result<(), String> {
        let (client, part) = match job {
            Some(job) => {
                job.asked += 1;
                job.open.insert(job.asked);
                (job.number, job.asked)
            }
            None => (0, 0),
        };
        let reply_to = ReplyTo {
            worker: MOVER,
            part,
            client,
            generation: self.sidecars[s].claim.instance,
            slot: 0,
        };
        tell!(self, "move {client}.{part} asks {partition} {action:?}");
        if let Some(serving) = self.serving(s) {
            serving.sequencer.order(Request {
                partition,
                db: 0,
                action,
                under,
                reply_to,
            });
        }
        self.take_effects(s)
    }

    fn hear(&mut self, s: usize, job: &mut Job) {
        let Some(serving) = self.serving(s) else { return };
        for (number, part, outcome) in serving.mover.inbox.drain(..) {
            if number == job.number && job.open.remove(&part) {
                job.outcomes.push(outcome);
            }
        }
    }

    /// Changes a node. Whether it is known to have been done.
    fn change(&mut self, s: usize, control: Control, change: Change, well: bool) -> bool {
        if !self.alive(s, control) || self.nodes[control.node].refusing {
            return false;
        }
        if !well && (self.fails() || self.fails()) {
            self.late.push(Late {
                owner: self.sidecars[s].claim.instance,
                node: control.node,
                boot: control.boot,
                change,
            });
            return false;
        }
        tell!(self, "node {}: {change:?}", control.node);
        self.nodes[control.node].change(change);
        well || !self.fails()
    }

    fn next_move(&mut self, s: usize) -> Result<(), String> {
        let places = self.places(s);
        let able = self.able(s);
        let picture = Picture {
            places: &places,
            able: &able,
            min_in_sync: self.plan.settings.min_in_sync as usize,
            replicas: self.plan.replicas,
            group_max: self.plan.group_max,
            heavy: &BTreeSet::new(),
            doubtful: &BTreeSet::new(),
            paused: false,
        };
        let me = self.sidecars[s].claim.instance;
        match plan::next(&picture) {
            Some(Step::Copy(copy)) => {
                if let Some(serving) = self.serving(s) {
                    serving.mover.swept.remove(&copy.to);
                    serving.mover.swept.remove(&copy.from);
                }
                self.begin(s, copy.to, Some(copy.from), copy.partitions)?;
            }
            Some(Step::Leave(leaving)) => {
                let (_, first) = leaving[0];
                let Some(mut job) = self.new_job(s, first, None, Vec::new()) else {
                    return Ok(());
                };
                job.phase = Phase::Leave;
                for (partition, node) in leaving {
                    tell!(self, "{me}: node {node} leaves {partition}");
                    self.tally.left += 1;
                    self.ask(s, Some(&mut job), partition, HoldId::NONE, Action::Leave(node))?;
                    if let Some(serving) = self.serving(s) {
                        serving.mover.swept.remove(&node);
                    }
                }
                if let Some(serving) = self.serving(s) {
                    serving.mover.job = Some(job);
                }
            }
            None => self.sweep(s, &places, &able)?,
        }
        Ok(())
    }

    fn new_job(
        &mut self,
        s: usize,
        to: NodeId,
        from: Option<NodeId>,
        mut partitions: Vec<PartitionId>,
    ) -> Option<Job> {
        partitions.sort_unstable();
        let control = Control {
            node: to.into(),
            boot: self.nodes[usize::from(to)].boot,
        };
        let serving = self.serving(s)?;
        serving.mover.jobs += 1;
        let number = serving.mover.jobs;
        Some(Job {
            number,
            to: control,
            from: None,
            source: from,
            partitions,
            phase: match from {
                Some(_) => Phase::Announce,
                None => Phase::Rest,
            },
            hold: HoldId::of_pool(number.into()),
            held: 0,
            open: BTreeSet::new(),
            asked: 0,
            outcomes: Vec::new(),
            cursor: None,
            carried: None,
            dirty: VecDeque::new(),
            seen: 0,
            passes: 0,
            positions: None,
        })
    }

    fn begin(
        &mut self,
        s: usize,
        to: NodeId,
        from: Option<NodeId>,
        partitions: Vec<PartitionId>,
    ) -> Result<(), String> {
        let me = self.sidecars[s].claim.instance;
        let Some(mut job) = self.new_job(s, to, from, partitions) else {
            return Ok(());
        };
        if !self.alive(s, job.to) {
            return Ok(());
        }
        // What was given up before never comes.
        let owner = self.sidecars[s].claim.instance;
        self.late
            .retain(|late| late.node != job.to.node || late.owner != owner);
        let (number, partitions) = (job.number, job.partitions.clone());
        tell!(
            self,
            "{me}: move {number} begins, from {from:?} to {to}: {partitions:?}"
        );
        if from.is_none() {
            self.ask(s, Some(&mut job), 0, HoldId::NONE, Action::OnNode(to, ping()))?;
        }
        if let Some(serving) = self.serving(s) {
            serving.mover.job = Some(job);
        }
        Ok(())
    }

    /// Looks through a node that was not looked through in this life of it.
    fn sweep(&mut self, s: usize, places: &[Place], able: &BTreeSet<NodeId>) -> Result<(), String> {
        let boots: Vec<u32> = self.nodes.iter().map(|node| node.boot).collect();
        let Some(serving) = self.serving(s) else {
            return Ok(());
        };
        let table = serving.keeper.table.clone();
        let is_leaving = |n: &NodeId| {
            let mut all = table.rows.iter().zip(places);
            all.any(|(row, place)| row.replicas.contains(n) && !place.replicas.contains(n))
                || places.iter().any(|place| place.leaving.contains(n))
        };
        let is_due =
            |n: &NodeId| serving.mover.swept.get(n) != Some(&boots[usize::from(*n)]) && !is_leaving(n);
        let Some(n) = able.iter().copied().find(is_due) else {
            return Ok(());
        };
        self.begin(s, n, None, Vec::new())
    }

    /// What a node has of partitions that it does not hold.
    fn strangers(&mut self, s: usize, n: usize) -> Vec<PartitionId> {
        let places = self.places(s);
        let Some(table) = self.serving(s).map(|serving| serving.keeper.table.clone()) else {
            return Vec::new();
        };
        let node = n as NodeId;
        let stays = |partition: &PartitionId| {
            let p = usize::from(*partition);
            table.rows[p].replicas.contains(&node) || places[p].replicas.contains(&node)
        };
        let account = self.nodes[n].account();
        let known = account.applied.into_keys().chain(account.repairing.into_keys());
        let strangers: BTreeSet<PartitionId> = known.filter(|partition| !stays(partition)).collect();
        strangers.into_iter().collect()
    }

    fn job_step(&mut self, s: usize, job: &mut Job, well: bool) -> Result<Went, String> {
        let outcomes = std::mem::take(&mut job.outcomes);
        let answered = |outcome: &Outcome| matches!(outcome, Outcome::Reply { .. });
        let is_sweep = job.source.is_none();
        match job.phase {
            Phase::Leave => return Ok(Went::Done),
            Phase::Announce => {
                let announce = Change::Announce(job.partitions.clone());
                if !self.change(s, job.to, announce, well) {
                    return Ok(Went::Wrong("the mark"));
                }
                if is_sweep {
                    job.phase = Phase::Remove;
                    return Ok(Went::On);
                }
                job.phase = Phase::Rest;
                let to = job.to.node as NodeId;
                self.ask(s, Some(job), 0, HoldId::NONE, Action::OnNode(to, ping()))?;
            }
            Phase::Rest if !outcomes.iter().all(answered) => return Ok(Went::Wrong("coming to rest")),
            Phase::Rest if is_sweep => {
                if !self.alive(s, job.to) {
                    return Ok(Went::Wrong("the node has gone"));
                }
                job.partitions = self.strangers(s, job.to.node);
                if job.partitions.is_empty() {
                    return Ok(Went::Done);
                }
                job.phase = Phase::Announce;
            }
            Phase::Rest => job.phase = Phase::Remove,
            Phase::Remove => {
                if !self.alive(s, job.to) {
                    return Ok(Went::Wrong("the target has gone"));
                }
                match self.next_key(job.to.node, job) {
                    Some(key) => {
                        self.tally.removed += u64::from(is_sweep);
                        if !self.change(s, job.to, Change::Put(key, None), well) {
                            return Ok(Went::Wrong("removing a key"));
                        }
                    }
                    None if is_sweep => job.phase = Phase::Clear,
                    None => job.phase = Phase::Track,
                }
            }
            Phase::Clear => {
                let clear = Change::Clear(job.partitions.clone());
                return Ok(match self.change(s, job.to, clear, well) {
                    true => Went::Done,
                    false => Went::Wrong("taking the mark away"),
                });
            }
            Phase::Track => {
                let Some(control) = job.source.and_then(|from| self.control(s, from)) else {
                    return Ok(Went::Wrong("the source is not there"));
                };
                job.from = Some(control);
                job.seen = self.nodes[control.node].changes.len();
                job.cursor = None;
                job.phase = Phase::Scan;
            }
            _ => return self.copy_step(s, job, &outcomes, well),
        }
        Ok(Went::On)
    }
}

fn ping() -> Commands {
    Commands::one(Bytes::from_static(b"*1\r\n$4\r\nPING\r\n"))
}
