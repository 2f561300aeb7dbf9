//! Streams come and go, and their bytes are under way.

use ringfence::account::Position;
use ringfence::pool::recover;
use ringfence::sequencer::Broken;

use crate::link::{Link, Orphan, Stream};
use crate::node::Node;
use crate::sidecar::{Life, Serving, Sidecar};
use crate::world::{World, tell};

impl World {
    pub fn connect(&mut self, s: usize, n: usize) -> Result<(), String> {
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
        let mine = |(other, node): (usize, &Node)| {
            other != n && node.up && sidecar.reach[other] && node.claim == Some(me)
        };
        let witnesses = self.nodes.iter().enumerate().filter(|&other| mine(other)).count();
        let nodes = self.nodes.len();
        let node = &mut self.nodes[n];
        if now_us < stream.pause_until_us || !node.up || !sidecar.reach[n] {
            return Ok(());
        }
        match node.claim {
            // It may have been a successor's, and have forgotten that.
            None if !recover::rules_out_successor(nodes, witnesses) => return Ok(()),
            Some(claim) if claim != me && claim.term >= me.term => {
                let end = now_us + self.rng.below(100_000) as u64;
                sidecar.ends_at_us.get_or_insert(end);
                return Ok(());
            }
            Some(claim) if claim == me => {}
            _ => {
                node.set_claim(me);
                node.settle();
            }
        }
        let table = &serving.keeper.attempted;
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
        // What is marked is not what its position says, nor is it nothing.
        let mut account = node.account();
        let marked = account.repairing.into_keys();
        account
            .applied
            .extend(marked.map(|partition| (partition, Position::NOWHERE)));
        stream.greeting = Some(account.applied);
        stream.link = Some(Link::default());
        Ok(())
    }

    /// The sidecar gives a stream up, or has lost it.
    pub fn lose_link(&mut self, s: usize, n: usize, pause_us: u64) {
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

    pub fn deliver_up(&mut self, s: usize, n: usize, all: bool) {
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

    pub fn deliver_down(&mut self, s: usize, n: usize, all: bool) -> Result<(), String> {
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

    pub fn deliver_orphan(&mut self) {
        if !self.late.is_empty() && self.rng.percent(50) {
            return self.deliver_late();
        }
        if self.orphans.is_empty() {
            return self.deliver_late();
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
}
