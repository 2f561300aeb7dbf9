//! What may happen in one schedule, and the count of what did.

use ringfence::sequencer::Settings;

use crate::node::BOOKKEEPING_DB;
use crate::rng::Rng;

/// What may happen in one run, and how often, in percent.
#[derive(Debug)]
pub struct Plan {
    pub nodes: usize,
    pub replicas: usize,
    pub partitions: u16,
    pub steps: usize,
    /// Longest time between two steps, in us.
    pub step_us: usize,
    pub settings: Settings,
    pub fault_percent: usize,
    pub damage: bool,
    pub refusals: bool,
    pub booms: bool,
    pub zombies: bool,
    pub crashes: bool,
    pub cuts: bool,
    pub hangs: bool,
    /// Nothing goes wrong but the network, which falls apart with an owner on either side.
    pub splits: bool,
    pub lifes_max: usize,
    pub read_percent: usize,
    /// Of the writes: those of two partitions, and those of queues.
    pub two_percent: usize,
    pub queued_percent: usize,
    /// Partitions that live on the same nodes.
    pub together_percent: usize,
    pub waiting_max: usize,
    pub producers: usize,
    pub open_max: usize,
    /// Things are moved before the end.
    pub moves: bool,
    /// So often something of a move is done, and goes wrong (in a thousand).
    pub move_percent: usize,
    pub move_fails: usize,
    pub group_max: usize,
}

/// How often in percent, R and W.
const COPIES: [(usize, usize, u32); 6] = [
    (55, 3, 2),
    (15, 2, 2),
    (10, 1, 1),
    (8, 3, 3),
    (7, 3, 1),
    (5, 2, 1),
];

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
    /// Joint writes that were done; clients that were served after they had waited; pairs that a takeover may have torn.
    pub joint: u64,
    pub served: u64,
    pub uneven: u64,
    /// Copies that were made, by partition; that were not; nodes that left; keys that were removed.
    pub joined: u64,
    pub unmoved: u64,
    pub left: u64,
    pub removed: u64,
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
        self.joint += other.joint;
        self.served += other.served;
        self.uneven += other.uneven;
        self.joined += other.joined;
        self.unmoved += other.unmoved;
        self.left += other.left;
        self.removed += other.removed;
    }
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Self {
        let splits = rng.percent(25);
        let moves = rng.percent(65);
        let nodes = if splits {
            rng.between(3, 5)
        } else {
            rng.between(3, 6)
        };
        let mut chance = rng.below(100);
        let is_it = |(percent, ..): &&(usize, usize, u32)| {
            let is_it = chance < *percent;
            chance = chance.saturating_sub(*percent);
            is_it
        };
        let (_, replicas, quorum) = *COPIES.iter().find(is_it).unwrap();
        let partitions = if splits { 1 } else { rng.between(1, 5) } as u16;
        let settings = Settings {
            worker: 0,
            keyspace: ringfence::ring::Keyspace::plain(partitions),
            replicas: replicas as u32,
            write_quorum: quorum,
            min_in_sync: quorum,
            backlog_bytes: *rng.pick(&[0, 0, 1500, 1500, 6000, 6000, 30_000, 1_000_000, 1_000_000]),
            batch_commands_max: *rng.pick(&[1, 3, 100]),
            batch_bytes_max: *rng.pick(&[100, 100_000]),
            question: ringfence::command::dump::Question::default(),
            bookkeeping_db: BOOKKEEPING_DB,
            read_any: rng.percent(70),
            linearizable: true,
            write_timeout_ms: *rng.pick(&[60, 150, 500]),
            node_timeout_ms: if splits {
                *rng.pick(&[20, 80, 500])
            } else {
                *rng.pick(&[30, 60, 200])
            },
            read_patience_ms: *rng.pick(&[5, 20]),
        };
        Self {
            nodes,
            replicas,
            partitions,
            steps: *rng.pick(&[300, 600, 1000]),
            step_us: if splits { 200 } else { *rng.pick(&[150, 600, 1500]) },
            settings,
            fault_percent: *rng.pick(&[1, 2, 3, 4, 5, 7, 9]),
            // With one acknowledgement nothing is promised of what a node loses.
            damage: rng.percent(60) && quorum > 1,
            refusals: rng.percent(40),
            booms: rng.percent(25),
            zombies: rng.percent(60),
            crashes: rng.percent(70),
            cuts: rng.percent(70),
            hangs: rng.percent(60),
            splits,
            lifes_max: rng.between(2, 6),
            read_percent: *rng.pick(&[10, 30, 60]),
            two_percent: *rng.pick(&[0, 15, 40]),
            queued_percent: *rng.pick(&[0, 20, 50]),
            together_percent: *rng.pick(&[0, 70, 100]),
            waiting_max: *rng.pick(&[2, 6, 12]),
            producers: rng.between(1, 4),
            open_max: *rng.pick(&[4, 12, 40]),
            moves,
            move_percent: *rng.pick(&[20, 50, 90]),
            move_fails: *rng.pick(&[0, 3, 15, 40]),
            group_max: *rng.pick(&[1, 2, 5]),
        }
    }
}
