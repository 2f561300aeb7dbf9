//! Nodes that execute a script, and so answer nothing: not hung, however long it takes.
//!
//! A server answers nobody while it executes a script. To take that for a hang would cut off all nodes at once (they execute
//! the same script) and leave the outcome of everything in flight unknown. So a node that has been sent a script is *excused*:
//! as long as nobody has answered it, for as long as a server takes to say that it is busy ([`limits::SCRIPT_SILENCE_MS`]), and
//! after that as long as it says so. Meanwhile the clock stands still by which writes and reads come to their deadlines. (Only
//! while a script takes long: where short ones are executed all the time, that clock would never go on.)
//!
//! The streams of other workers to the same node wait too; they learn of it through [`Sequencer::excuse`].

use super::Sequencer;
use super::node::{Expect, Item};
use crate::limits;
use crate::request::NodeId;

impl Sequencer {
    /// Whether the node's answer is late because it executes a script, as far as this worker knows. `says_busy` is what the
    /// node itself says, asked by others.
    pub fn executes_script(&self, id: NodeId, says_busy: bool) -> bool {
        let Some(node) = self.nodes.get(usize::from(id)) else {
            return false;
        };
        let end = node.expected.iter().find_map(|expect| match expect {
            Expect::End { sent_ms, script, .. } => Some((*sent_ms, *script)),
            _ => None,
        });
        let Some((sent_ms, true)) = end else {
            return false;
        };
        if says_busy {
            return true;
        }
        let owed = node
            .expected
            .iter()
            .take_while(|expect| !matches!(expect, Expect::End { .. }));
        let silent_ms = self.now_ms.saturating_sub(sent_ms.max(node.heard_ms));
        (limits::SCRIPT_NOTICED_MS..limits::SCRIPT_SILENCE_MS).contains(&silent_ms)
            && owed.into_iter().any(|expect| match expect {
                Expect::Item(item, _) => self.is_unanswered_script(*item),
                _ => false,
            })
    }

    /// Whether it is a script that no node has answered.
    fn is_unanswered_script(&self, item: Item) -> bool {
        match item {
            Item::Write(pos) => self
                .log
                .get(pos)
                .is_some_and(|e| e.commands.scripts.is_some() && e.digest.is_none() && !e.released),
            Item::Read(id, generation) => self
                .reads
                .get(id as usize)
                .is_some_and(|r| r.generation == generation && r.commands.scripts.is_some()),
        }
    }

    /// The node executes a script, of this worker or another one.
    pub fn excuse(&mut self, id: NodeId) {
        self.patience.is_busy = true;
        if let Some(node) = self.nodes.get_mut(usize::from(id)) {
            node.excused_ms = self.now_ms;
        }
    }
}

/// The clock by which writes and reads come to their deadlines, in ms: it stands still while a node executes a script.
#[derive(Debug, Default)]
pub(super) struct Patience {
    now_ms: u64,
    ticked_ms: u64,
    /// A node has executed a script since the last tick.
    is_busy: bool,
}

impl Patience {
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The worker's clock says `now_ms`.
    pub(super) fn tick(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.ticked_ms);
        self.ticked_ms = now_ms;
        if !std::mem::take(&mut self.is_busy) {
            self.now_ms += passed_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_not_lost_while_a_script_is_executed() {
        let mut patience = Patience::default();
        patience.tick(10);
        assert_eq!(patience.now_ms(), 10);
        patience.is_busy = true;
        patience.tick(5_000);
        assert_eq!(patience.now_ms(), 10);
        patience.tick(5_010);
        assert_eq!(patience.now_ms(), 20);
    }
}
