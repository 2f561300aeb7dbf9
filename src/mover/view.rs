//! What operators are told of moves: what a change would move, and how far what is under way is.

use serde::Serialize;

use super::progress::JobView;
use crate::pool::table::Table;
use crate::request::NodeId;
use crate::shared::{Shared, WorkerView};

/// What has to be moved for nodes to hold what they should.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Copies of partitions to be made.
    pub moves: usize,
    /// The fewest that would give every node its share.
    pub ideal_moves: usize,
    /// What these copies are together, as far as the nodes' memory tells.
    pub bytes_estimated: u64,
    /// Partitions of the pool.
    pub partitions: usize,
    /// Copies each node has, and would have.
    pub nodes: Vec<NodePlan>,
}

/// See [`Plan`].
#[derive(Clone, Debug, Serialize)]
pub struct NodePlan {
    /// The node.
    pub name: String,
    /// Copies it has.
    pub before: usize,
    /// Copies it would have.
    pub after: usize,
    /// What it would be given, in bytes.
    pub bytes_in: u64,
}

/// How far moves are.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// `settled`, `moving`, `paused`, or `waiting`: something should be moved, and cannot now.
    pub state: &'static str,
    /// Why not.
    pub reason: Option<String>,
    /// Copies of partitions, those made and those to be made.
    pub moves_total: u64,
    /// Those made.
    pub moves_done: u64,
    /// Keys copied.
    pub keys_copied: u64,
    /// Bytes copied.
    pub bytes_copied: u64,
    /// Bytes that all of it will be, about.
    pub bytes_estimated: u64,
    /// How fast it has been going.
    pub bytes_per_s: u64,
    /// Seconds it will take, about.
    pub eta_s: Option<u64>,
    /// The longest that partitions have been held, since the sidecar started, in us.
    pub longest_hold_us: u64,
    /// What is under way.
    pub jobs: Vec<JobView>,
    /// Copies each node has, and should have.
    pub nodes: Vec<NodeShare>,
}

/// See [`Status`].
#[derive(Clone, Debug, Serialize)]
pub struct NodeShare {
    /// The node.
    pub name: String,
    /// Partitions it holds.
    pub holds: usize,
    /// Partitions it should hold.
    pub wanted: usize,
}

/// Bytes of one copy of one partition, on average.
fn copy_bytes(shared: &Shared, table: &Table) -> u64 {
    let data = |(node, _)| shared.keeper.health(node).info.memory_data;
    let all: u64 = table.members().map(data).sum();
    let copies: usize = table.rows.iter().map(|row| row.replicas.len()).sum();
    all / copies.max(1) as u64
}

/// What is to be moved until the pool is as `wanted` says. Nodes that are away are taken to come back.
pub fn plan(shared: &Shared, wanted: &Table) -> Plan {
    let now = shared.table.load();
    let target = wanted.target(|_| false);
    let bytes = copy_bytes(shared, &now);
    let mut moves = 0;
    let mut incoming = vec![0; wanted.nodes.len()];
    for (row, target) in now.rows.iter().zip(&target) {
        for node in target.iter().filter(|node| !row.replicas.contains(node)) {
            moves += 1;
            if let Some(incoming) = incoming.get_mut(usize::from(*node)) {
                *incoming += 1;
            }
        }
    }
    let count = |node: NodeId, sets: &mut dyn Iterator<Item = &[NodeId]>| {
        sets.filter(|set| set.contains(&node)).count()
    };
    let nodes: Vec<NodePlan> = wanted
        .members()
        .map(|(id, node)| NodePlan {
            name: node.name.clone(),
            before: count(id, &mut now.rows.iter().map(|row| &row.replicas[..])),
            after: count(id, &mut target.iter().map(|set| &set[..])),
            bytes_in: bytes * incoming.get(usize::from(id)).copied().unwrap_or(0),
        })
        .collect();
    Plan {
        moves,
        ideal_moves: nodes
            .iter()
            .map(|node| node.after.saturating_sub(node.before))
            .sum(),
        bytes_estimated: bytes * moves as u64,
        partitions: now.rows.len(),
        nodes,
    }
}

/// How far moves are.
pub fn status(shared: &Shared, views: &[WorkerView]) -> Status {
    let table = shared.table.load();
    let account = shared.progress.view();
    // What a change is about to move is not known before the mover has looked at it.
    let is_open = account.moves_open > 0 || account.nodes != shared.keeper.table().nodes;
    let state = match (account.job.is_some(), is_open) {
        (false, false) => "settled",
        (true, _) => "moving",
        (false, true) if table.paused => "paused",
        // Between two copies there is none under way for a moment.
        (false, true) if account.reason.is_none() => "moving",
        (false, true) => "waiting",
    };
    let left_bytes = copy_bytes(shared, &table) * account.moves_open;
    let elapsed_s = account.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
    let bytes_per_s = match elapsed_s > 0.0 {
        true => (account.bytes_copied as f64 / elapsed_s) as u64,
        false => 0,
    };
    let eta_s = match (account.moves_open, account.moves_done) {
        (0, _) => Some(0),
        (_, 0) => left_bytes.checked_div(bytes_per_s),
        (open, done) => Some((elapsed_s * open as f64 / done as f64).ceil() as u64),
    };
    let target = table.target(|_| false);
    let count = |holds: &dyn Fn(usize) -> bool| (0..table.rows.len()).filter(|p| holds(*p)).count();
    let of_node = |id: NodeId| {
        let mut holds = 0;
        for view in views.iter().flat_map(|view| &view.partitions) {
            holds += usize::from(view.replicas.contains(&id));
        }
        (
            holds,
            count(&|p| target.get(p).is_some_and(|set| set.contains(&id))),
        )
    };
    Status {
        state,
        reason: account.reason.filter(|_| state != "settled"),
        moves_total: account.moves_done + account.moves_open,
        moves_done: account.moves_done,
        keys_copied: account.keys_copied,
        bytes_copied: account.bytes_copied,
        bytes_estimated: account.bytes_copied + left_bytes,
        bytes_per_s,
        eta_s,
        longest_hold_us: account.longest_hold_us,
        jobs: account.job.into_iter().collect(),
        nodes: table
            .members()
            .map(|(id, node)| {
                let (holds, wanted) = of_node(id);
                NodeShare {
                    name: node.name.clone(),
                    holds,
                    wanted,
                }
            })
            .collect(),
    }
}
