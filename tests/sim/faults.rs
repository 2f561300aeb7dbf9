//! What goes wrong.

use std::rc::Rc;

use ringfence::request::{NodeId, PartitionId};

use crate::node::Record;
use crate::sidecar::{Life, Sidecar};
use crate::world::{World, tell};

impl World {
    pub fn fault(&mut self) -> Result<(), String> {
        let s = self.rng.below(self.sidecars.len());
        let n = self.rng.below(self.plan.nodes);
        let kind = match self.rng.below(14) {
            kind if kind > 11 && self.plan.moves => return self.choose_targets(),
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
    pub fn cut(&mut self, s: usize, n: usize) -> Result<(), String> {
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
    pub fn restart(&mut self, n: usize) {
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
        if self.plan.damage && whole && one && !self.is_last(n) && self.rng.percent(70) {
            self.damaged = true;
            self.tally.damages += 1;
            if self.rng.percent(50) {
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
        self.late.retain(|late| late.node != n);
        for sidecar in &mut self.sidecars {
            if let Life::Serves(serving) = &mut sidecar.life
                && let Some(link) = &mut serving.streams[n].link
            {
                link.close();
            }
        }
    }

    /// The latest table of those who serve.
    fn table(&self) -> Option<Rc<Record>> {
        let tables = self.sidecars.iter().filter_map(|s| match &s.life {
            Life::Serves(serving) => Some(serving.keeper.table.clone()),
            _ => None,
        });
        tables.max_by_key(|table| table.stamp)
    }

    /// Whether the node is the only one left that is in sync in some partition, by the table or by what is to be recorded: nobody
    /// promises anything of what it forgets.
    fn is_last(&self, n: usize) -> bool {
        let alone = |set: &[NodeId]| set.iter().all(|&node| usize::from(node) == n);
        let in_table = self
            .table()
            .is_some_and(|table| table.rows.iter().any(|row| alone(&row.nodes_in_sync())));
        let serving = self.sidecars.iter().filter_map(|s| match &s.life {
            Life::Serves(serving) => Some(serving),
            _ => None,
        });
        let mut views = serving.flat_map(|serving| {
            (0..self.plan.partitions).filter_map(|partition| serving.sequencer.partition_view(partition))
        });
        in_table || views.any(|view| alone(&view.in_sync))
    }

    /// Forgets of damages what has been made good.
    pub fn heal(&mut self) {
        let Some(table) = self.table() else {
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
}
