//! What sidecars do and cause: flush, tick, record, take over; and what their effects must not say.

use ringfence::pool::recover::Copies;
use ringfence::request::{NodeId, Outcome, ReplyTo};
use ringfence::sequencer::{Effect, Sequencer};

use crate::clients::Role;
use crate::moves::MOVER;
use crate::node::{Claim, Record, Value};
use crate::ops::{End, Kind};
use crate::sidecar::{Life, Serving, Sidecar};
use crate::takeover::{Progress, Takeover, View, next_term};
use crate::waiting::Standing;
use crate::wire::{self, Reply};
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
        while let Some(serving) = self.serving(s)
            && !serving.sequencer.effects().is_empty()
        {
            let effects = std::mem::take(serving.sequencer.effects());
            self.take_these(s, effects)?;
        }
        Ok(())
    }

    fn take_these(&mut self, s: usize, effects: Vec<Effect>) -> Result<(), String> {
        let me = self.sidecars[s].claim.instance;
        for effect in effects {
            match effect {
                Effect::Complete(to, outcome) if Sequencer::is_attempt(to) => {
                    tell!(self, "{me}: attempt {} {outcome:?}", to.client);
                    if let Some(serving) = self.serving(s) {
                        serving.sequencer.attempted(to, outcome);
                    }
                }
                Effect::Complete(to, outcome) if to.worker == MOVER => {
                    tell!(self, "{me}: move {}.{} {outcome:?}", to.client, to.part);
                    if let Some(serving) = self.serving(s) {
                        serving.mover.told(to, outcome);
                    }
                }
                Effect::Complete(to, outcome) => self.take_outcome(s, to, outcome)?,
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
                Effect::Differs { .. } => {}
                Effect::Hung(node) => {
                    tell!(self, "{me}: node {node} hangs");
                    self.lose_link(s, usize::from(node), 0);
                }
            }
        }
        Ok(())
    }

    fn take_outcome(&mut self, s: usize, to: ReplyTo, outcome: Outcome) -> Result<(), String> {
        tell!(
            self,
            "{}: answers {}.{} {outcome:?}",
            self.sidecars[s].claim.instance,
            to.slot,
            to.part
        );
        let op = &self.history.ops[to.slot as usize];
        let kind = op.kind;
        if kind.is_procedure() {
            return self.inform(to, outcome);
        }
        match &outcome {
            Outcome::Refused(_) => self.tally.refused += 1,
            Outcome::Unknown => self.tally.unknown += 1,
            _ => self.tally.done += 1,
        }
        let serves = |s: &Sidecar| matches!(s.life, Life::Serves(_));
        let successor = s + 1 < self.sidecars.len() && self.sidecars.last().is_some_and(serves);
        let answered = matches!(outcome, Outcome::Reply { .. });
        self.tally.zombie_reads += u64::from(successor && kind.reads() && answered);
        self.history.complete(to, &outcome)?;
        let done = self.history.ops[to.slot as usize].end == Some(End::Done);
        self.tally.joint += u64::from(done && kind.is_joint());
        if done && kind.pushes() && !self.damaged {
            self.check_holders(to.slot)?;
        }
        if done && kind == Kind::Settled && !self.damaged {
            self.check_settled(to.slot)?;
        }
        Ok(())
    }

    /// An answer for somebody whose command takes several steps; he looks at it when he comes to it.
    fn inform(&mut self, to: ReplyTo, outcome: Outcome) -> Result<(), String> {
        let kind = self.history.ops[to.slot as usize].kind;
        let Some(client) = self.clients.get_mut(&to.slot) else {
            return match outcome {
                Outcome::Waits | Outcome::MayCome => Ok(()),
                other => Err(format!("{} has ended, and is told {other:?}", to.slot)),
            };
        };
        let ops = self.history.ops.len();
        if let (Role::Waits(waiting), Outcome::Waits) = (&mut client.role, &outcome) {
            waiting.tried_at = ops;
        }
        let element = match &outcome {
            Outcome::Reply { frames, .. } => wire::replies(frames).unwrap_or_default(),
            _ => Vec::new(),
        };
        client.inbox.push_back((to.part, outcome));
        if let Role::Waits(waiting) = &client.role
            && matches!(kind, Kind::WaitTake | Kind::WaitMove)
            && let [Reply::Text(element)] = &element[..]
        {
            let place = &waiting.places[usize::from(to.part)];
            let place = (place.partition, place.key.0, place.key.1.clone());
            let element = String::from_utf8_lossy(element).parse().unwrap_or(usize::MAX);
            self.tally.served += 1;
            self.check_turn(to, &place, element)?;
            self.lines.leave(to.slot);
        }
        Ok(())
    }

    /// First come, first served. Only who was tried in vain since the element was put may have been overtaken: while that was
    /// under way, what came next was for the next one.
    fn check_turn(&self, to: ReplyTo, place: &Standing, element: usize) -> Result<(), String> {
        for other in self.lines.before(to.slot, place) {
            if let Some(Role::Waits(earlier)) = self.clients.get(&other).map(|c| &c.role)
                && self.history.ops[other as usize].owner == to.generation
                && !earlier.waiter.is_gone()
                && earlier.tried_at <= element
            {
                return Err(format!(
                    "{} was served before {other}, who came earlier to {place:?}",
                    to.slot
                ));
            }
        }
        Ok(())
    }

    /// A node has executed what was ordered before the sign that it was asked for.
    fn check_settled(&self, id: u64) -> Result<(), String> {
        let op = &self.history.ops[id as usize];
        let Some((node, wanted)) = op.settles else {
            return Ok(());
        };
        let found = self.nodes[usize::from(node)].position(op.partition);
        if self.plan.replicas > 1 && found.seq < wanted.seq {
            return Err(format!(
                "{id}: node {node} has settled at {found:?}, before {wanted:?}"
            ));
        }
        Ok(())
    }

    /// At the moment of an acknowledgement W nodes in sync have the value, by every record that a successor could find. (The owner's
    /// own set may have changed since, in the same step.)
    fn check_holders(&mut self, id: u64) -> Result<(), String> {
        let write_quorum = self.plan.settings.write_quorum as usize;
        let op = &self.history.ops[id as usize];
        let lists = op.lists.clone();
        let partitions = [Some(op.partition), op.other].into_iter().flatten();
        let value = id.to_string().into_bytes();
        for (list, partition) in lists.iter().zip(partitions.collect::<Vec<_>>()) {
            let has = |n: &NodeId| match self.nodes[usize::from(*n)].data.get(list) {
                Some(Value::List(values)) => values.contains(&value),
                _ => false,
            };
            let sets = Vec::from_iter(
                self.findable()
                    .map(|record| record.rows[usize::from(partition)].nodes_in_sync().to_vec()),
            );
            for set in sets {
                let holders = set.iter().filter(|&n| has(n)).count();
                if holders < write_quorum {
                    return Err(format!(
                        "{id} was acknowledged while {holders} of the nodes in sync {set:?} had it in partition {partition}"
                    ));
                }
            }
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
                    copies: Copies {
                        replicas: self.plan.settings.replicas,
                        write_quorum: self.plan.settings.write_quorum,
                    },
                    min_in_sync: self.plan.settings.min_in_sync,
                    fenced: Vec::new(),
                    copied: &mut self.tally.copied,
                    uneven: &mut self.history.uneven,
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
        self.late.retain(|late| late.node != n || late.owner == me);
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
        .map(|row| format!("{:?} of {:?}", row.nodes_in_sync(), row.replicas))
        .collect()
}
