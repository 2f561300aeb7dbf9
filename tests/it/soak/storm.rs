//! Harm, drawn with weights: one thing or two at a time, then everything heals as far as nodes are concerned, and so on.
//!
//! At most one node is in trouble at a time, and the next one only when all are in sync again: so R = 3 never has fewer than W copies.
//! In rarer steps that is just what is done; then, and with R = 2, commands may be refused for as long as it takes.

use super::front::{Front, Kind};
use super::world::World;
use crate::harness::{Flow, Rng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What is done to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Kill,
    Empty,
    Hang,
    Link(Flow),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Drain,
    Weight,
    Pause,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Node,
    Ring,
    Sidecar,
    Huge,
    Flush,
}

const TROUBLES: [(usize, Trouble); 8] = [
    (6, Trouble::Kill),
    (5, Trouble::Empty),
    (5, Trouble::Hang),
    (3, Trouble::Link(Flow::Cut)),
    (2, Trouble::Link(Flow::HangBoth)),
    (2, Trouble::Link(Flow::HangToNode)),
    (2, Trouble::Link(Flow::HangToSidecar)),
    (2, Trouble::Link(Flow::Slow(Duration::from_millis(20)))),
];

const CHANGES: [(usize, Change); 5] = [
    (6, Change::Add),
    (6, Change::Drain),
    (4, Change::Weight),
    (2, Change::Pause),
    (3, Change::Cancel),
];

const PARTS: [(usize, Part); 5] = [
    (8, Part::Node),
    (8, Part::Ring),
    (4, Part::Sidecar),
    (2, Part::Huge),
    (3, Part::Flush),
];

/// Of a hundred steps, those in which two nodes are taken away at once.
const QUORUM_PERCENT: usize = 6;

/// A node that answers again may still be cut off in this time, because it had been silent for too long: until then it passes for
/// in sync.
const NOTICED_AFTER: Duration = Duration::from_millis(200);

fn draw<T: Copy>(rng: &mut Rng, from: &[(usize, T)]) -> T {
    let mut at = rng.below(from.iter().map(|(weight, _)| weight).sum());
    for (weight, what) in from {
        if at < *weight {
            return *what;
        }
        at -= weight;
    }
    from[0].1
}

/// A node in trouble.
struct Victim {
    name: String,
    trouble: Trouble,
}

pub struct Storm<'a> {
    world: &'a mut World,
    front: Arc<Front>,
    rng: Rng,
    /// How often each kind of harm was done.
    pub counts: BTreeMap<String, u64>,
}

impl<'a> Storm<'a> {
    pub fn new(world: &'a mut World, rng: Rng) -> Self {
        Self {
            front: Arc::clone(&world.front),
            world,
            rng,
            counts: BTreeMap::new(),
        }
    }

    fn did(&mut self, what: &str, of: &str) {
        self.front.event(&format!("{what} {of}"));
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn pause(&mut self, low_ms: i64, high_ms: i64) {
        let ms = self.rng.between(low_ms, high_ms);
        std::thread::sleep(Duration::from_millis(ms as u64));
    }

    /// Does harm until then, or until something is seen that must not be.
    pub fn run(&mut self, end: Instant) {
        while Instant::now() < end && self.front.violations().is_empty() {
            if self.rng.chance(QUORUM_PERCENT) {
                self.without_quorum();
            } else {
                self.step();
            }
            self.front.wait_progress();
            self.world.remove_drained();
            if self.world.is_settled() {
                self.front.close(Kind::Ring);
            } else if self.rng.chance(40) {
                self.world.wait_healed();
            }
            self.pause(0, 300);
        }
    }

    fn step(&mut self) {
        let first = draw(&mut self.rng, &PARTS);
        let mut parts = vec![first];
        let second = draw(&mut self.rng, &PARTS);
        if second != first && self.rng.chance(60) {
            parts.push(second);
        }
        if self.world.shape.spare_nodes() == 0 && parts.contains(&Part::Node) {
            // A sidecar that starts needs W nodes of each partition.
            parts.retain(|part| *part != Part::Sidecar);
        }
        if parts.contains(&Part::Huge) {
            self.did("huge value", "");
            self.front.open(Kind::Huge);
            self.front.huge.store(true, Ordering::SeqCst);
        }
        let resumes = parts.contains(&Part::Ring) && self.change_ring();
        if parts.contains(&Part::Flush) {
            self.flush();
        }
        let victim = parts.contains(&Part::Node).then(|| self.begin_trouble());
        self.pause(10, 700);
        if parts.contains(&Part::Sidecar) {
            self.change_sidecar();
        }
        if let Some(victim) = victim {
            self.pause(0, 600);
            if matches!(victim.trouble, Trouble::Hang | Trouble::Link(_)) && self.rng.chance(30) {
                // Longer than the sidecar waits for a node.
                self.pause(500, 2000);
            }
            self.end_trouble(&[victim]);
        }
        // A node that was emptied is given copies, and those are moves too.
        if resumes {
            self.world.resume();
        }
        self.world.wait_in_sync();
        if parts.contains(&Part::Sidecar) {
            self.front.close(Kind::Sidecar);
        }
        if parts.contains(&Part::Huge) {
            self.front.huge.store(false, Ordering::SeqCst);
            self.front.close(Kind::Huge);
        }
    }

    fn begin_trouble(&mut self) -> Victim {
        let at = self.rng.below(self.world.pool.nodes.len());
        let trouble = draw(&mut self.rng, &TROUBLES);
        if self.world.shape.spare_nodes() == 0 {
            self.front.open(Kind::Quorum);
        }
        let node = &self.world.pool.nodes[at];
        let name = node.name.clone();
        let (kind, what) = match trouble {
            Trouble::Kill => (Kind::Death, "kill node".to_owned()),
            Trouble::Empty => (Kind::Death, "empty node".to_owned()),
            Trouble::Hang => (Kind::Hang, "stop node".to_owned()),
            Trouble::Link(flow) => {
                let flow = format!("{flow:?}").to_lowercase();
                let word = flow.split('(').next().unwrap_or_default();
                (Kind::Link, format!("link {word}"))
            }
        };
        self.front.open(kind);
        self.did(&what, &name);
        let node = &self.world.pool.nodes[at];
        match trouble {
            Trouble::Kill => node.kill9(),
            Trouble::Empty => node.restart_empty(),
            Trouble::Hang => node.stop(),
            Trouble::Link(flow) => self.world.relays[&name].set(flow),
        }
        Victim { name, trouble }
    }

    /// All of them are well again, and in sync.
    fn end_trouble(&mut self, victims: &[Victim]) {
        for victim in victims {
            let node = self.world.pool.node(&victim.name);
            match victim.trouble {
                Trouble::Kill => node.restart(),
                Trouble::Empty => {}
                Trouble::Hang => node.cont(),
                Trouble::Link(_) => self.world.relays[&victim.name].set(Flow::Pass),
            }
        }
        let hung = |victim: &Victim| matches!(victim.trouble, Trouble::Hang | Trouble::Link(_));
        if victims.iter().any(hung) {
            std::thread::sleep(NOTICED_AFTER);
        }
        for victim in victims {
            if matches!(victim.trouble, Trouble::Kill | Trouble::Empty) {
                self.world.wait_claimed(&victim.name);
            }
        }
        self.world.wait_in_sync();
        self.front.event("all nodes are in sync");
        for kind in [Kind::Death, Kind::Hang, Kind::Link, Kind::Quorum] {
            self.front.close(kind);
        }
    }

    /// More nodes are away than a write can do without.
    fn without_quorum(&mut self) {
        self.front.open(Kind::Quorum);
        self.did("take two nodes away", "");
        let first = self.rng.below(self.world.pool.nodes.len());
        let second = (first + 1) % self.world.pool.nodes.len();
        let mut victims = Vec::new();
        for at in [first, second] {
            let trouble = *self
                .rng
                .pick(&[Trouble::Kill, Trouble::Hang, Trouble::Link(Flow::Cut)]);
            let node = &self.world.pool.nodes[at];
            let name = node.name.clone();
            match trouble {
                Trouble::Kill => node.kill9(),
                Trouble::Hang => node.stop(),
                _ => self.world.relays[&name].set(Flow::Cut),
            }
            victims.push(Victim { name, trouble });
        }
        self.pause(100, 3000);
        self.end_trouble(&victims);
    }

    /// Whether moving has to be resumed afterwards.
    fn change_ring(&mut self) -> bool {
        self.front.open(Kind::Ring);
        let mut change = draw(&mut self.rng, &CHANGES);
        let can_go = self.world.can_go();
        if change == Change::Add && !self.world.has_room() {
            change = Change::Drain;
        }
        if change == Change::Drain && can_go.is_empty() {
            change = if self.world.has_room() {
                Change::Add
            } else {
                Change::Weight
            };
        }
        match change {
            Change::Add => self.add(),
            Change::Drain => {
                let name = self.rng.pick(&can_go).clone();
                self.did("drain node", &name);
                self.world.drain(&name);
            }
            Change::Weight => self.weigh(),
            Change::Pause => {
                self.weigh();
                self.pause(0, 100);
                self.did("pause moves", "");
                self.world.pause();
                return true;
            }
            Change::Cancel => {
                self.weigh();
                self.pause(0, 300);
                self.did("cancel moves", "");
                if !self.world.cancel() {
                    self.front.event("there were none");
                }
            }
        }
        false
    }

    fn add(&mut self) {
        let name = self.world.add_node();
        self.did("add node", &name);
    }

    fn weigh(&mut self) {
        let at = self.rng.below(self.world.pool.nodes.len());
        let name = self.world.pool.nodes[at].name.clone();
        let weight = self.rng.between(1, 4);
        self.did("weigh node", &format!("{name}: {weight}"));
        self.world.set_weight(&name, weight);
    }

    fn change_sidecar(&mut self) {
        self.front.open(Kind::Sidecar);
        if self.rng.chance(60) {
            self.did("kill sidecar", "");
            // Those of another one are told that nobody serves for the moment.
            if self.world.shape.sidecars > 1 {
                self.front.open(Kind::TakeOver);
            }
            self.world.restart_sidecar(&mut self.rng);
            self.front.close(Kind::TakeOver);
        } else {
            self.did("take over", "");
            self.front.open(Kind::TakeOver);
            self.world.take_over();
            self.front.close(Kind::TakeOver);
        }
        self.front.event("the sidecar serves");
    }

    /// Another database than the ones that are looked at.
    fn flush(&mut self) {
        self.front.open(Kind::Flush);
        self.did("flush database", "");
        let mut client = self.world.sidecar().client();
        assert!(client.call(crate::cmd!["SELECT", 3]).is_ok());
        for at in 0..100 {
            assert!(client.call(crate::cmd!["SET", format!("key-{at}"), at]).is_ok());
        }
        assert!(client.call(crate::cmd!["FLUSHDB"]).is_ok());
        let size = client.call(crate::cmd!["DBSIZE"]);
        if size.int() != Some(0) {
            self.front
                .violation(&format!("DBSIZE after FLUSHDB was answered {size}"));
        }
        self.front.close(Kind::Flush);
    }
}
