//! The end of a schedule: everything heals, and what is left must be right.

use std::collections::BTreeMap;

use ringfence::request::PartitionId;

use crate::clients::Role;
use crate::keys::name;
use crate::left::elements;
use crate::link::Link;
use crate::node::{Key, Value};
use crate::ops::{End, Kind};
use crate::sidecar::{Life, Sidecar};
use crate::world::{World, tell};

impl World {
    pub fn settle(&mut self) -> Result<(), String> {
        tell!(self, "everything heals");
        self.is_settled = true;
        while self.sidecars.len() > 1 {
            self.kill_sidecar(0);
        }
        let is_only_copy = self.plan.replicas == 1;
        for sidecar in &mut self.sidecars {
            sidecar.reach.fill(true);
            if let Life::Serves(serving) = &mut sidecar.life
                && is_only_copy
            {
                // With more copies another node answers.
                let links = serving
                    .streams
                    .iter_mut()
                    .filter_map(|stream| stream.link.as_mut());
                links.for_each(|link| link.frozen_until_us = 0);
            }
        }
        for node in &mut self.nodes {
            node.up = true;
            node.refusing = false;
        }
        while !self.orphans.is_empty() || !self.late.is_empty() {
            self.deliver_orphan();
        }
        let quiet = self.until_quiet();
        if quiet.is_err() && self.is_stuck() {
            // What all nodes refuse cannot be given up while some of them have been expelled, nor can a forgetful node be
            // used while too few can vouch for it: a restart mends both.
            self.tally.stuck += 1;
        } else {
            quiet?;
            self.check_equal(true)?;
            self.check_places()?;
        }
        let ready = self.is_quiet()
            && self
                .serving(0)
                .is_some_and(|serving| serving.sequencer.is_ready());
        if ready {
            self.check_waiting()?;
            self.ask_everything(false)?;
        }
        tell!(self, "the last takeover");
        self.kill_sidecar(0);
        self.start_sidecar();
        self.sidecars[0].reach.fill(true);
        self.until_quiet()?;
        self.check_equal(true)?;
        self.check_places()?;
        self.ask_everything(true)?;
        self.check_equal(true)?;
        self.check_places()?;
        let mut all = BTreeMap::new();
        for partition in 0..self.plan.partitions {
            let found = self.found(partition);
            self.history.check_final(partition, &found)?;
            all.extend(found);
        }
        self.history.check_final_all(&all)?;
        self.check_memory()
    }

    /// What the primary has of a partition.
    fn found(&mut self, partition: PartitionId) -> BTreeMap<Key, Value> {
        let view = self
            .serving(0)
            .and_then(|s| s.sequencer.partition_view(partition));
        let first = view.and_then(|view| view.in_sync.first().copied());
        self.nodes[usize::from(first.unwrap())].keys_of(partition)
    }

    /// Nobody waits for what is there. Then all of them go.
    fn check_waiting(&mut self) -> Result<(), String> {
        let standing: Vec<(u64, PartitionId, Key, usize)> = self
            .clients
            .values()
            .filter_map(|client| match &client.role {
                Role::Waits(waiting) => Some((client.id, waiting)),
                Role::InTurn(_) => None,
            })
            .flat_map(|(id, w)| {
                w.places
                    .iter()
                    .map(move |p| (id, p.partition, p.key.clone(), p.floor))
            })
            .collect();
        for (id, partition, key, floor) in standing {
            let there = elements(&self.found(partition), &key).len();
            if there > floor {
                return Err(format!(
                    "{id} waits at {}, where {there} elements are: {:?}",
                    name(&key),
                    elements(&self.found(partition), &key)
                ));
            }
        }
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            self.give_up_waiting(0, id)?;
        }
        self.take_effects(0)?;
        self.until_quiet()?;
        match self.serving(0).map_or(0, |serving| serving.sequencer.waiting()) {
            0 => Ok(()),
            left => Err(format!("{left} stand in lines, and nobody waits")),
        }
    }

    /// Lets everything happen in a fair way, until nothing is left to happen.
    pub fn until_quiet(&mut self) -> Result<(), String> {
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
            for _ in 0..20 {
                self.move_on(0, true)?;
            }
            self.act(0, 100)?;
            self.take_effects(0)?;
            self.bury();
            if self.is_quiet() {
                return Ok(());
            }
        }
        let places = self.places(0);
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
        Err(format!(
            "there is no end to it; {places:?}, still open: {open:?}; {life}"
        ))
    }

    pub fn is_quiet(&mut self) -> bool {
        if self.sidecars.is_empty() || !self.all_moved(0) {
            return false;
        }
        let Some(Sidecar {
            life: Life::Serves(serving),
            ends_at_us: None,
            ..
        }) = self.sidecars.first()
        else {
            return false;
        };
        self.history.open.len() == self.waiting()
            && self.all_wait()
            && serving.keeper.is_idle()
            && serving.unrecorded.is_empty()
            && serving.streams.iter().enumerate().all(|(n, stream)| {
                let still = |link: &Link| link.up.is_empty() && link.down.is_empty() && !link.closed;
                stream.link.as_ref().is_some_and(still)
                    && stream.greeting.is_none()
                    && !serving.sequencer.has_work(n as u16)
            })
    }

    /// A partition has too few nodes left for anything to be decided about a write that they refuse; or too many nodes have
    /// forgotten whose they are.
    pub fn is_stuck(&self) -> bool {
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
                .is_some_and(|view| view.in_sync.len() < self.plan.settings.write_quorum as usize)
        };
        self.nodes.iter().any(|node| node.claim.is_none()) || (0..self.plan.partitions).any(few)
    }

    /// All nodes in sync stand at the same place and have the same.
    pub fn check_equal(&self, all: bool) -> Result<(), String> {
        let Life::Serves(serving) = &self.sidecars[0].life else {
            return Err("not serving".into());
        };
        for partition in 0..self.plan.partitions {
            let view = serving.sequencer.partition_view(partition).unwrap();
            let position = view.position;
            if all && view.in_sync.len() != view.replicas.len() {
                return Err(format!(
                    "partition {partition}: {:?} of {:?} in sync after a takeover with all nodes",
                    view.in_sync, view.replicas
                ));
            }
            let mut first = None;
            for &n in &view.in_sync {
                let node = &self.nodes[usize::from(n)];
                // One copy has no account.
                if self.plan.replicas > 1 && node.position(partition).seq != position.seq {
                    let found = node.position(partition);
                    return Err(format!(
                        "partition {partition}: node {n} stands at {found:?}, not at {position:?}"
                    ));
                }
                let keys = node.keys_of(partition);
                let (other, expected) = first.get_or_insert_with(|| (n, keys.clone()));
                if *expected != keys {
                    return Err(format!(
                        "partition {partition}: node {n} has {keys:?}, {other} has {expected:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Now that everything is well, every request must be done.
    pub fn ask_everything(&mut self, also_writes: bool) -> Result<(), String> {
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
            for partition in 0..self.plan.partitions {
                // With no backlog to speak of partitions lose nodes as they go, each another one.
                let uneven = self.plan.settings.backlog_bytes < 100_000;
                let two = [
                    Kind::PushTwo,
                    Kind::ScriptTwo,
                    Kind::Move,
                    Kind::PushInTurn,
                    Kind::Peek,
                ];
                for kind in [
                    Kind::WaitTake,
                    Kind::WaitTold,
                    Kind::WaitLong,
                    Kind::PutScript,
                    Kind::Put,
                ]
                .into_iter()
                .chain(two.into_iter().filter(|_| !uneven))
                {
                    self.issue(0, kind, partition);
                }
            }
            self.take_effects(0)?;
            self.until_quiet()?;
            self.check_waiting()?;
        }
        let failed = self
            .history
            .ops
            .iter()
            .skip(from)
            .find(|op| op.end != Some(End::Done) && !op.kind.waits());
        failed.map_or(Ok(()), |op| Err(format!("all is well, and yet {op:?}")))
    }

    /// What the sequencer keeps is bounded: the backlog by its bound, reads and queues by nothing that is still open.
    pub fn check_memory(&mut self) -> Result<(), String> {
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
