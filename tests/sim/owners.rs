//! What sidecars do and cause: flush, tick, record, take over; and what their effects must not say.

use ringfence::request::{Outcome, PartitionId};
use ringfence::sequencer::Effect;

use crate::history::{End, Kind, list_key};
use crate::node::{Claim, Record, Value};
use crate::sidecar::{Life, Serving, Sidecar};
use crate::takeover::{Progress, Takeover, View, next_term};
use crate::world::{World, tell};

impl World {
    pub fn serving(&mut self, s: usize) -> Option<&mut Serving> {
        match &mut self.sidecars.get_mut(s)?.life {
            Life::Serves(serving) => Some(serving),
            _ => None,
        }
    }

    pub fn flush(&mut self, s: usize, all: bool) {
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

    pub fn tick(&mut self, s: usize) -> Result<(), String> {
        let (now_us, timeout_us) = (self.now_us, self.plan.settings.node_timeout_ms * 1000);
        let Some(serving) = self.serving(s) else {
            return Ok(());
        };
        serving.sequencer.set_clock(now_us / 1000, now_us / 1000);
        serving.tick(now_us, timeout_us);
        self.take_effects(s)
    }

    pub fn keep_record(&mut self, s: usize) -> Result<(), String> {
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

    pub fn take_effects(&mut self, s: usize) -> Result<(), String> {
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
                        Outcome::Reply { .. } | Outcome::Done | Outcome::Waits | Outcome::MayCome => {
                            self.tally.done += 1
                        }
                        Outcome::Refused(_) => self.tally.refused += 1,
                        Outcome::Unknown => self.tally.unknown += 1,
                    }
                    let serves = |s: &Sidecar| matches!(s.life, Life::Serves(_));
                    let successor = s + 1 < self.sidecars.len() && self.sidecars.last().is_some_and(serves);
                    let reads = matches!(kind, Kind::List | Kind::Counter | Kind::ReadBoth);
                    let answered = matches!(outcome, Outcome::Reply { .. });
                    self.tally.zombie_reads += u64::from(successor && reads && answered);
                    self.history.complete(to, &outcome)?;
                    let done = self.history.ops[to.slot as usize].end == Some(End::Done);
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
    pub fn check_holders(
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
    pub fn take_over(&mut self, s: usize) {
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
    pub fn fence(&mut self, n: usize, me: u32) {
        self.orphans.retain(|o| o.node != n || o.owner == me);
        for sidecar in self.sidecars.iter_mut().filter(|s| s.claim.instance != me) {
            if let Life::Serves(serving) = &mut sidecar.life
                && let Some(link) = &mut serving.streams[n].link
            {
                link.close();
            }
        }
    }
}

fn sets_of(record: &Record) -> Vec<String> {
    record
        .rows
        .iter()
        .map(|row| format!("{:03b}", row.in_sync))
        .collect()
}
