//! A sidecar that takes a pool over, as `pool::open` and `pool::recovery` do it, one node and one key at a time: so it can
//! be cut short, or be overtaken by the next one, anywhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use ringfence::account::Position;
use ringfence::pool::recover::{self, Account, Copies, Need, Verdict};
use ringfence::request::{NodeId, PartitionId};

use crate::node::{Claim, Key, Node, Record};
use crate::rng::Rng;

/// What is done next.
#[derive(Debug)]
enum Step {
    Claim(usize),
    ReadTables,
    ReadAccount(usize),
    Decide,
    Announce(usize),
    CopyKey(usize, Key),
    CopyPartition(usize, PartitionId),
    /// It stands where its source stands.
    Commit(usize),
    Agree,
    Begin(usize),
    Write(usize),
    Count,
}

/// What one node needs, and where it stands then.
type Repairs = BTreeMap<PartitionId, (Need, Position)>;

/// Keys that one node is to be given by another.
#[derive(Debug)]
struct Plan {
    from: usize,
    to: usize,
    announced: BTreeMap<PartitionId, Vec<Option<Key>>>,
    reached: BTreeMap<PartitionId, Position>,
    failed: bool,
}

#[derive(Debug)]
pub struct Takeover {
    steps: VecDeque<Step>,
    claimed: BTreeSet<usize>,
    record: Rc<Record>,
    accounts: HashMap<NodeId, Account>,
    reached: Vec<(Position, bool, BTreeSet<NodeId>)>,
    plans: Vec<Plan>,
    rows: Option<Rc<Record>>,
    written: usize,
}

/// How a step of it ended.
#[derive(Debug)]
pub enum Progress {
    Goes,
    /// Try again later.
    Setback,
    Open(Rc<Record>),
}

/// What a takeover sees of the world.
pub struct View<'a> {
    pub nodes: &'a mut [Node],
    pub reach: &'a [bool],
    pub me: Claim,
    pub copies: Copies,
    pub min_in_sync: u32,
    /// Nodes on which everybody else was fenced just now.
    pub fenced: Vec<usize>,
    /// Partitions that were copied, and keys.
    pub copied: &'a mut (u64, u64),
    /// Pairs of partitions whose joint writes may end as done in one of them only: see `Takeover::compare`.
    pub uneven: &'a mut BTreeSet<(PartitionId, PartitionId)>,
}

impl View<'_> {
    fn there(&self, n: usize) -> bool {
        self.nodes[n].up && self.reach[n]
    }

    /// Whether a control connection of this sidecar works.
    fn mine(&self, n: usize) -> bool {
        self.there(n) && self.nodes[n].admitted == Some(self.me.instance)
    }
}

/// The term for a takeover of the nodes that are there.
pub fn next_term(nodes: &[Node], reach: &[bool]) -> u64 {
    let there = nodes.iter().zip(reach).filter(|(node, reach)| node.up && **reach);
    let terms = there.flat_map(|(node, _)| {
        [
            node.claim.map_or(0, |claim| claim.term),
            node.table.as_ref().map_or(0, |table| table.stamp.0),
        ]
    });
    terms.max().unwrap_or(0) + 1
}

impl Takeover {
    pub fn new(nodes: &[Node], reach: &[bool], rng: &mut Rng) -> Self {
        let mut there: Vec<usize> = (0..nodes.len()).filter(|&n| nodes[n].up && reach[n]).collect();
        rng.shuffle(&mut there);
        let mut steps: VecDeque<Step> = there.into_iter().map(Step::Claim).collect();
        steps.push_back(Step::ReadTables);
        Self {
            steps,
            claimed: BTreeSet::new(),
            record: Rc::new(Record {
                stamp: (0, 0),
                rows: Vec::new(),
            }),
            accounts: HashMap::new(),
            reached: Vec::new(),
            plans: Vec::new(),
            rows: None,
            written: 0,
        }
    }

    /// Whether it still only reads, or copies.
    pub fn step(&mut self, view: &mut View<'_>, rng: &mut Rng) -> Progress {
        let Some(step) = self.steps.pop_front() else {
            return Progress::Setback;
        };
        match step {
            Step::Claim(n) => {
                if !view.there(n) {
                    return Progress::Goes;
                }
                let node = &mut view.nodes[n];
                if node
                    .claim
                    .is_some_and(|claim| claim.term >= view.me.term && claim != view.me)
                {
                    return Progress::Setback;
                }
                node.set_claim(view.me);
                node.admitted = Some(view.me.instance);
                node.settle();
                view.fenced.push(n);
                self.claimed.insert(n);
            }
            Step::ReadTables => {
                if self.claimed.len() * 2 <= view.nodes.len() {
                    return Progress::Setback;
                }
                let mine = self.claimed.iter().filter(|&&n| view.mine(n));
                let tables: Vec<_> = mine.filter_map(|&n| view.nodes[n].table.clone()).collect();
                if tables.len() * 2 <= view.nodes.len() && self.claimed.len() < view.nodes.len() {
                    return Progress::Setback;
                }
                let Some(latest) = tables.into_iter().max_by_key(|table| table.stamp) else {
                    return Progress::Setback;
                };
                self.record = latest;
                self.steps
                    .extend(self.claimed.iter().copied().map(Step::ReadAccount));
                self.steps.push_back(Step::Decide);
            }
            Step::ReadAccount(n) => {
                if !view.mine(n) {
                    return Progress::Setback;
                }
                self.accounts.insert(n as NodeId, view.nodes[n].account());
            }
            Step::Decide => {
                if !self.within_promise(view) {
                    return Progress::Setback;
                }
                self.compare(view);
                return self.decide(view, rng);
            }
            Step::Announce(plan) => {
                let to = self.plans[plan].to;
                let announced = self.plans[plan].announced.clone();
                if view.mine(to) {
                    view.nodes[to].repair.extend(announced);
                    view.nodes[to].settle();
                } else {
                    self.plans[plan].failed = true;
                }
            }
            Step::CopyKey(plan, key) => self.copy(plan, &key, view),
            Step::CopyPartition(plan, partition) => {
                let Plan { from, to, .. } = self.plans[plan];
                if view.mine(from) && view.mine(to) {
                    let mut keys: BTreeSet<Key> = view.nodes[from].keys_of(partition).into_keys().collect();
                    keys.extend(view.nodes[to].keys_of(partition).into_keys());
                    for key in keys {
                        self.steps.push_front(Step::CopyKey(plan, key));
                    }
                    view.copied.0 += 1;
                } else {
                    self.plans[plan].failed = true;
                }
            }
            Step::Commit(plan) => {
                let plan = &mut self.plans[plan];
                if plan.failed || !view.mine(plan.to) {
                    plan.failed = true;
                } else {
                    view.nodes[plan.to].stand_at(&plan.reached);
                }
            }
            Step::Agree => return self.agree(view),
            Step::Begin(n) => {
                if !view.mine(n) {
                    return Progress::Setback;
                }
                let Some(record) = &self.rows else {
                    return Progress::Setback;
                };
                let mut applied = BTreeMap::new();
                let mut holds = Vec::new();
                for (partition, row) in record.rows.iter().enumerate() {
                    if row.nodes_in_sync().contains(&(n as NodeId)) {
                        let position = Position {
                            epoch: row.epoch,
                            seq: row.start,
                        };
                        applied.insert(partition as PartitionId, position);
                    } else if row.replicas.contains(&(n as NodeId)) {
                        holds.push(partition as PartitionId);
                    }
                }
                view.nodes[n].begin_epoch(applied, holds.into_iter());
            }
            Step::Write(n) => {
                if view.mine(n) {
                    view.nodes[n].table = self.rows.clone();
                    view.nodes[n].settle();
                    self.written += 1;
                }
            }
            Step::Count => {
                return match &self.rows {
                    Some(record) if self.written * 2 > view.nodes.len() => Progress::Open(record.clone()),
                    _ => Progress::Setback,
                };
            }
        }
        Progress::Goes
    }

    /// The promise covers the loss of one node (W - 1 of them): one that lost its last transactions, which nobody can see, and another one
    /// that is not there are two, so that takeover has to wait for the other one. (That a node has lost everything is seen.)
    fn within_promise(&self, view: &View<'_>) -> bool {
        let damaged = |n: usize, p: PartitionId| {
            let node = &view.nodes[n];
            let is_seen = node.forgot && node.position(p) == Position::default();
            !is_seen && node.lost.get(&p).is_some_and(|lost| node.position(p) < *lost)
        };
        self.record.rows.iter().enumerate().all(|(partition, row)| {
            let in_sync = row
                .replicas
                .iter()
                .enumerate()
                .filter(|(i, _)| row.in_sync & (1 << i) != 0);
            let bad = in_sync.filter(|(_, n)| {
                damaged(usize::from(**n), partition as PartitionId) || !self.accounts.contains_key(n)
            });
            bad.count() < view.copies.write_quorum as usize
        })
    }

    /// A node executes a joint write in all its partitions or in none. So a takeover that asks the same nodes about two
    /// partitions finds it in both or in none. If it does not (a node is in sync with one of them only; or it was given some
    /// of one by an earlier takeover that was cut short), what nobody was told of may be found in one of them.
    fn compare(&self, view: &mut View<'_>) {
        let best = |partition: usize| {
            let row = &self.record.rows[partition];
            let in_sync = row
                .replicas
                .iter()
                .enumerate()
                .filter(|(i, _)| row.in_sync & (1 << i) != 0);
            let accounts: BTreeMap<NodeId, (u64, bool)> = in_sync
                .filter_map(|(_, node)| {
                    let account = self.accounts.get(node)?;
                    let partition = partition as PartitionId;
                    let epoch = account.applied.get(&partition).map_or(0, |at| at.epoch);
                    Some((*node, (epoch, account.repairing.contains_key(&partition))))
                })
                .collect();
            let latest = accounts.values().map(|(epoch, _)| *epoch).max();
            let latest: BTreeSet<NodeId> = accounts
                .iter()
                .filter(|(_, (epoch, _))| Some(*epoch) == latest)
                .map(|(node, _)| *node)
                .collect();
            (latest, accounts.values().any(|(_, half)| *half))
        };
        let best: Vec<_> = (0..self.record.rows.len()).map(best).collect();
        for (one, a) in best.iter().enumerate() {
            for (other, b) in best.iter().enumerate().skip(one + 1) {
                if a.0 != b.0 || a.1 || b.1 {
                    view.uneven.insert((one as PartitionId, other as PartitionId));
                }
            }
        }
    }

    fn decide(&mut self, view: &mut View<'_>, rng: &mut Rng) -> Progress {
        let mut plans: BTreeMap<(usize, NodeId, NodeId), Repairs> = BTreeMap::new();
        for (partition, row) in self.record.rows.iter().enumerate() {
            let partition = partition as PartitionId;
            match recover::decide(partition, row, view.copies, &self.accounts) {
                Verdict::Unreachable { .. } | Verdict::CutShort { .. } => return Progress::Setback,
                Verdict::Recoverable {
                    winner,
                    position,
                    needs,
                    ..
                } => {
                    let half = self
                        .accounts
                        .get(&winner)
                        .is_some_and(|a| a.repairing.contains_key(&partition));
                    let mut sure = needs.values().filter(|need| **need != Need::Partition).count() as u32;
                    let mut standing = BTreeSet::new();
                    let mut needs = recover::in_turn(partition, needs, &self.accounts);
                    needs.retain(|(node, need)| {
                        // Enough stand without it: it is given its copy while the pool is served.
                        if *need == Need::Partition && sure >= view.min_in_sync {
                            return false;
                        }
                        sure += u32::from(*need == Need::Partition);
                        standing.insert(*node)
                    });
                    self.reached.push((position, half, standing));
                    needs.retain(|(_, need)| *need != Need::Nothing);
                    for (turn, (node, need)) in needs.into_iter().enumerate() {
                        let plan = plans.entry((turn, winner, node)).or_default();
                        plan.insert(partition, (need, position));
                    }
                }
            }
        }
        for ((_, from, to), needs) in plans {
            let plan = self.plans.len();
            let mut announced = BTreeMap::new();
            let mut reached = BTreeMap::new();
            let mut copies = Vec::new();
            for (partition, (need, position)) in needs {
                reached.insert(partition, position);
                match need {
                    Need::Nothing => {}
                    Need::Keys(keys) => {
                        announced.insert(partition, keys.iter().cloned().map(Some).collect());
                        view.copied.1 += keys.len() as u64;
                        let mut keys: Vec<Key> = keys.into_iter().collect();
                        rng.shuffle(&mut keys);
                        copies.extend(keys.into_iter().map(|key| Step::CopyKey(plan, key)));
                    }
                    Need::Partition => {
                        announced.insert(partition, vec![None]);
                        copies.push(Step::CopyPartition(plan, partition));
                    }
                }
            }
            self.plans.push(Plan {
                from: from.into(),
                to: to.into(),
                announced,
                reached,
                failed: false,
            });
            self.steps.push_back(Step::Announce(plan));
            self.steps.extend(copies);
            self.steps.push_back(Step::Commit(plan));
        }
        self.steps.push_back(Step::Agree);
        Progress::Goes
    }

    fn copy(&mut self, plan: usize, key: &Key, view: &mut View<'_>) {
        let plan = &mut self.plans[plan];
        if plan.failed || !view.mine(plan.from) || !view.mine(plan.to) {
            plan.failed = true;
            return;
        }
        let value = view.nodes[plan.from].data.get(key).cloned();
        let target = &mut view.nodes[plan.to];
        match value {
            Some(value) => target.data.insert(key.clone(), value),
            None => target.data.remove(key),
        };
        target.settle();
    }

    fn agree(&mut self, view: &View<'_>) -> Progress {
        let failed = |node: NodeId, partition: usize| {
            let hit = |p: &&Plan| p.failed && p.to == usize::from(node);
            self.plans
                .iter()
                .filter(hit)
                .any(|p| p.announced.contains_key(&(partition as PartitionId)))
        };
        let mut rows = self.record.rows.clone();
        for (partition, (row, (position, half, nodes))) in rows.iter_mut().zip(&self.reached).enumerate() {
            row.since = recover::since(row, *position, *half, view.me.term);
            row.epoch = view.me.term;
            row.start = position.seq;
            row.in_sync = 0;
            for (i, node) in row.replicas.iter().enumerate() {
                if nodes.contains(node) && !failed(*node, partition) {
                    row.in_sync |= 1 << i;
                }
            }
            if row.in_sync.count_ones() < view.copies.write_quorum {
                return Progress::Setback;
            }
        }
        self.rows = Some(Rc::new(Record {
            stamp: (view.me.term, self.record.stamp.1 + 1),
            rows,
        }));
        self.steps.extend(self.claimed.iter().copied().map(Step::Begin));
        self.steps.extend(self.claimed.iter().copied().map(Step::Write));
        self.steps.push_back(Step::Count);
        Progress::Goes
    }
}
