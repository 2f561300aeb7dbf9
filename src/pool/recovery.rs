//! Carrying a recovery out: reading the nodes' accounts, deciding ([`recover::decide`]), copying what is missing.
//!
//! Every step can be cut short and begun again: a node is told in its own account which keys it is being given before it
//! is given them, and its position changes only after them, in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::BytesMut;
use redis_protocol::resp3::types::BytesFrame;
use thiserror::Error;
use tracing::{error, info, warn};

use super::recover::{self, Account, Copies, Loss, Need, Verdict};
use super::table::Table;
use crate::account::{self, Position, Touch};
use crate::node::{
    Building, Control, ControlError, CopyError, Pace, Scope, bytes_of, copy_keys, copy_partitions, is_error,
    name_beside, pairs_of, text_of,
};
use crate::request::{NodeId, PartitionId};
use crate::ring::Keyspace;

/// Why the pool cannot serve yet.
#[derive(Debug, Error)]
pub(super) enum RecoveryError {
    #[error("node {node}: {error}")]
    Control { node: String, error: ControlError },
    #[error(
        "partition {partition}: {here} of its nodes that are in sync can be reached and have their data, and {wanted} must, or all \
         that are in sync must be there, or an acknowledged write could be missing"
    )]
    Unreachable {
        partition: PartitionId,
        here: usize,
        wanted: usize,
    },
    #[error(
        "partition {partition}: node {node} has more than the others that can be reached, and was just being given it when the sidecar that \
         gave it was stopped: the node that it came from must be there, or all that are in sync (an empty server counts), or what was \
         written at once could be there in part"
    )]
    CutShort { partition: PartitionId, node: String },
    #[error("partition {partition}: fewer than {wanted} nodes could be brought to its last position")]
    TooFew { partition: PartitionId, wanted: u32 },
}

/// Brings reachable nodes to one position in every partition, and gives the rows of the table from there on.
///
/// Who is furthest behind comes first, and stands where the winner stands before the next one is changed: so while W nodes have all that was
/// acknowledged and another one can be brought up to date soon, W have it at any moment.
///
/// A node that needs a whole partition is only waited for where fewer than `min_in_sync` would be left without it; else it is out
/// of sync, and is given its copy while the pool is served.
pub(super) async fn recover_all(
    table: &mut Table,
    epoch: u64,
    bookkeeping_db: u16,
    min_in_sync: u32,
    controls: &mut HashMap<NodeId, Control>,
) -> Result<(), RecoveryError> {
    let name = |table: &Table, node: NodeId| {
        table
            .nodes
            .get(usize::from(node))
            .map_or_else(String::new, |n| n.name.clone())
    };
    let mut accounts = HashMap::new();
    for (&node, control) in controls.iter_mut() {
        let account =
            read_account(control, bookkeeping_db)
                .await
                .map_err(|error| RecoveryError::Control {
                    node: name(table, node),
                    error,
                })?;
        accounts.insert(node, account);
    }
    let copies = Copies {
        replicas: table.replicas,
        write_quorum: table.write_quorum,
    };
    let mut plans: BTreeMap<(usize, NodeId, NodeId), Plan> = BTreeMap::new();
    let mut reached: Vec<(Position, bool, HashSet<NodeId>)> = Vec::with_capacity(table.rows.len());
    let (mut lost, mut doubtful): (Vec<PartitionId>, Vec<PartitionId>) = Default::default();
    for (partition, row) in table.rows.iter().enumerate() {
        let partition = partition as PartitionId;
        match recover::decide(partition, row, copies, &accounts) {
            Verdict::Unreachable { here, wanted } => {
                return Err(RecoveryError::Unreachable {
                    partition,
                    here,
                    wanted,
                });
            }
            Verdict::CutShort { node } => {
                return Err(RecoveryError::CutShort {
                    partition,
                    node: name(table, node),
                });
            }
            Verdict::Recoverable {
                winner,
                position,
                needs,
                loss,
            } => {
                match loss {
                    Loss::None => {}
                    Loss::Possible => doubtful.push(partition),
                    Loss::Certain => lost.push(partition),
                }
                let cut_short = accounts
                    .get(&winner)
                    .is_some_and(|a| a.repairing.contains_key(&partition));
                let is_soon = |need: &&Need| !matches!(need, Need::Partition);
                let mut sure = needs.values().filter(is_soon).count() as u32;
                let mut standing = HashSet::new();
                let mut turn = 0;
                for (node, need) in recover::in_turn(partition, needs, &accounts) {
                    if matches!(need, Need::Partition) {
                        if sure >= min_in_sync {
                            continue;
                        }
                        sure += 1;
                    }
                    standing.insert(node);
                    if need == Need::Nothing {
                        continue;
                    }
                    let plan = plans.entry((turn, winner, node)).or_default();
                    turn += 1;
                    plan.reached.insert(partition, position);
                    if let Need::Keys(keys) = need {
                        plan.keys.insert(partition, keys.into_iter().collect());
                    } else {
                        plan.whole.insert(partition);
                    }
                }
                reached.push((position, cut_short, standing));
            }
        }
    }
    if !lost.is_empty() {
        error!(
            partitions = ?lost,
            "acknowledged writes are lost: no node that was in sync has what these partitions had when they were last taken over. Too \
             many nodes were emptied at once, or were given older files"
        );
    }
    if !doubtful.is_empty() {
        error!(
            partitions = ?doubtful,
            "acknowledged writes may be lost: so many nodes that were in sync have lost their data that nobody can tell whether the others \
             have all of it"
        );
    }
    let keyspace = table.keyspace();
    let mut failed: HashSet<(NodeId, PartitionId)> = HashSet::new();
    for ((_, winner, node), plan) in plans {
        let (Some(mut source), Some(mut target)) = (controls.remove(&winner), controls.remove(&node)) else {
            continue;
        };
        let (from, to) = (name(table, winner), name(table, node));
        info!(
            from,
            to,
            keys = plan.keys.len(),
            partitions = plan.whole.len(),
            "bringing a node up to date"
        );
        let done = plan
            .carry_out(&mut source, &mut target, &keyspace, bookkeeping_db)
            .await;
        if let Err(error) = done {
            warn!(node = to, %error, "the node could not be brought up to date and stays out of sync");
            failed.extend(plan.partitions().map(|partition| (node, partition)));
        }
        controls.insert(winner, source);
        controls.insert(node, target);
    }
    for (partition, (row, (position, cut_short, nodes))) in table.rows.iter_mut().zip(&reached).enumerate() {
        row.since = recover::since(row, *position, *cut_short, epoch);
        row.epoch = epoch;
        row.start = position.seq;
        row.in_sync = 0;
        for (i, node) in row.replicas.iter().enumerate() {
            if nodes.contains(node) && !failed.contains(&(*node, partition as PartitionId)) {
                row.in_sync |= 1 << i;
            }
        }
        if row.in_sync.count_ones() < table.write_quorum {
            return Err(RecoveryError::TooFew {
                partition: partition as PartitionId,
                wanted: table.write_quorum,
            });
        }
    }
    for (&node, control) in controls.iter_mut() {
        begin_epoch(table, node, bookkeeping_db, control)
            .await
            .map_err(|error| RecoveryError::Control {
                node: name(table, node),
                error,
            })?;
    }
    Ok(())
}

/// What one node is to be given by another.
#[derive(Debug, Default)]
struct Plan {
    keys: BTreeMap<PartitionId, Vec<(u16, Vec<u8>)>>,
    whole: HashSet<PartitionId>,
    /// Where it stands then.
    reached: BTreeMap<PartitionId, Position>,
}

impl Plan {
    fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.reached.keys().copied()
    }

    async fn carry_out(
        &self,
        source: &mut Control,
        target: &mut Control,
        keyspace: &Keyspace,
        bookkeeping_db: u16,
    ) -> Result<(), CopyError> {
        let mut announce: Vec<Vec<u8>> = vec![b"HSET".to_vec(), account::REPAIR.to_vec()];
        for (partition, keys) in &self.keys {
            announce.push(partition.to_string().into_bytes());
            announce.push(encode_repair(keys));
        }
        for partition in &self.whole {
            announce.push(partition.to_string().into_bytes());
            announce.push(Vec::new());
        }
        target.select(bookkeeping_db).await?;
        target
            .call(&announce.iter().map(Vec::as_slice).collect::<Vec<_>>())
            .await?;
        let mut by_db: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
        for (db, key) in self.keys.values().flatten() {
            by_db.entry(*db).or_default().push(key.clone());
        }
        let pace = Pace::new(0);
        for (db, keys) in by_db {
            let beside = Building::Beside(keyspace);
            let copied = copy_keys(source, target, db, &keys, beside, &pace).await?;
            // Nobody may write now: what is torn would stay so.
            if copied.left > 0 {
                return Err(CopyError::Changing(copied.left));
            }
        }
        if !self.whole.is_empty() {
            let scope = Scope {
                keyspace,
                wanted: &self.whole,
                bookkeeping_db,
            };
            copy_partitions(source, target, &scope, &pace).await?;
        }
        self.commit(target, bookkeeping_db).await
    }

    /// The node stands where its source stands, before another one is changed. (What its own last batches touched says nothing of how it came
    /// there.)
    async fn commit(&self, target: &mut Control, bookkeeping_db: u16) -> Result<(), CopyError> {
        let names: Vec<String> = self.partitions().map(|partition| partition.to_string()).collect();
        let positions: Vec<String> = self.reached.values().map(Position::to_string).collect();
        let mut unmark: Vec<&[u8]> = vec![b"HDEL", account::REPAIR];
        let mut applied: Vec<&[u8]> = vec![b"HSET", account::APPLIED];
        for (name, position) in names.iter().zip(&positions) {
            unmark.push(name.as_bytes());
            applied.extend([name.as_bytes(), position.as_bytes()]);
        }
        target.select(bookkeeping_db).await?;
        let commands: [&[&[u8]]; 5] = [
            &[b"MULTI"],
            &[b"DEL", account::TOUCHED],
            &unmark,
            &applied,
            &[b"EXEC"],
        ];
        match target.call_all(commands).await?.into_iter().find(is_error) {
            Some(error) => Err(ControlError::Refused(text_of(&error)).into()),
            None => Ok(()),
        }
    }
}

/// Writes the new epoch's positions into a node's account, and clears what the old one left. What it has of partitions that it
/// is not in sync with, or not to hold at all, is marked: a copy replaces it, or it is removed. Its old position stays beside the
/// mark: until the table is recorded, a successor may still find that it is in sync, and ask how far it is. For the same reason it stays
/// known that it has been emptied (`rf:forgot`): of what it is given, it tells the position from here on.
async fn begin_epoch(
    table: &Table,
    node: NodeId,
    bookkeeping_db: u16,
    control: &mut Control,
) -> Result<(), ControlError> {
    control.select(bookkeeping_db).await?;
    let mut applied: Vec<Vec<u8>> = vec![b"HSET".to_vec(), account::APPLIED.to_vec()];
    let mut marks: Vec<Vec<u8>> = vec![b"HSET".to_vec(), account::REPAIR.to_vec()];
    let mut standing = HashSet::new();
    for (partition, row) in table.partitions_of(node) {
        let i = row.replicas.iter().position(|&n| n == node).unwrap_or_default();
        if row.in_sync & (1 << i) != 0 {
            standing.insert(partition);
            applied.push(partition.to_string().into_bytes());
            let position = Position {
                epoch: row.epoch,
                seq: row.start,
            };
            applied.push(position.to_string().into_bytes());
        }
    }
    let mut known = HashSet::new();
    let keyspace = table.keyspace();
    let mut beside: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    for hash in [account::APPLIED, account::REPAIR] {
        for (field, value) in pairs_of(control.call(&[b"HGETALL", hash]).await?) {
            let Ok(partition) = text_of(&field).parse::<PartitionId>() else {
                continue;
            };
            known.insert(partition);
            if hash == account::REPAIR {
                for (db, key) in decode_repair(bytes_of(&value)).into_iter().flatten() {
                    beside.entry(db).or_default().push(name_beside(&keyspace, &key));
                }
            }
            if hash == account::APPLIED && !standing.contains(&partition) {
                applied.extend([bytes_of(&field).to_vec(), bytes_of(&value).to_vec()]);
            }
        }
    }
    known.extend(table.partitions_of(node).map(|(partition, _)| partition));
    for partition in known.difference(&standing) {
        marks.push(partition.to_string().into_bytes());
        marks.push(Vec::new());
    }
    // What somebody was putting together when it was stopped.
    for (db, names) in beside {
        control.select(db).await?;
        let mut unlink: Vec<&[u8]> = vec![b"UNLINK"];
        unlink.extend(names.iter().map(Vec::as_slice));
        control.call(&unlink).await?;
    }
    control.select(bookkeeping_db).await?;
    let applied: Vec<&[u8]> = applied.iter().map(Vec::as_slice).collect();
    let marks: Vec<&[u8]> = marks.iter().map(Vec::as_slice).collect();
    let mut commands: Vec<&[&[u8]]> = vec![
        &[b"MULTI"],
        &[b"DEL", account::TOUCHED, account::REPAIR, account::APPLIED],
    ];
    for hash in [&applied, &marks] {
        if hash.len() > 2 {
            commands.push(hash);
        }
    }
    commands.push(&[b"EXEC"]);
    let replies = control.call_all(commands).await?;
    match replies.into_iter().find(is_error) {
        Some(error) => Err(ControlError::Refused(text_of(&error))),
        None => Ok(()),
    }
}

async fn read_account(control: &mut Control, bookkeeping_db: u16) -> Result<Account, ControlError> {
    control.select(bookkeeping_db).await?;
    let forgot = control.call(&[b"GET", account::FORGOT]).await?;
    let mut account = Account {
        forgot: !bytes_of(&forgot).is_empty(),
        applied: read_applied(control).await?,
        ..Account::default()
    };
    for (_, records) in pairs_of(control.call(&[b"HGETALL", account::TOUCHED]).await?) {
        // Records that cannot be read name nothing, so the stretch counts as missing: the partition is copied.
        account
            .touched
            .extend(account::parse_touched(bytes_of(&records)).unwrap_or_default());
    }
    for (partition, keys) in pairs_of(control.call(&[b"HGETALL", account::REPAIR]).await?) {
        if let Ok(partition) = text_of(&partition).parse() {
            account
                .repairing
                .insert(partition, decode_repair(bytes_of(&keys)));
        }
    }
    Ok(account)
}

/// Reads what a node has applied. `control` stands in the bookkeeping database.
pub(super) async fn read_applied(
    control: &mut Control,
) -> Result<HashMap<PartitionId, Position>, ControlError> {
    let reply = control.call(&[b"HGETALL", account::APPLIED]).await?;
    Ok(parse_applied(reply))
}

fn parse_applied(reply: BytesFrame) -> HashMap<PartitionId, Position> {
    pairs_of(reply)
        .iter()
        .filter_map(|(partition, position)| {
            Some((
                text_of(partition).parse().ok()?,
                Position::parse(bytes_of(position))?,
            ))
        })
        .collect()
}

/// The keys that a node is about to be given; the records of `rf:touched` serve.
fn encode_repair(keys: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for (db, key) in keys {
        account::put_touched(&mut out, 0, *db, 0, Touch::Key(key));
    }
    out.to_vec()
}

fn decode_repair(bytes: &[u8]) -> Vec<Option<(u16, Vec<u8>)>> {
    match account::parse_touched(bytes) {
        Some(records) if !records.is_empty() => records
            .into_iter()
            .map(|r| match r.what {
                Touch::Key(key) => Some((r.db, key)),
                Touch::Nothing | Touch::Partition => None,
            })
            .collect(),
        _ => vec![None],
    }
}

#[cfg(test)]
mod tests;
