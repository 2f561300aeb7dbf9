//! What to do about a partition whose owner is gone: a pure decision from the nodes' accounts.
//!
//! The former owner is fenced, so the accounts stand still. Every acknowledged write is on W nodes in sync, so among any
//! `in_sync - W + 1` of them at least one has it; the furthest of them is the *winner*, and has them all. A node that has lost its
//! data is none of these: it is only gone by where it stands, and what it had, another one may have that is yet to come. Whoever is
//! behind the winner in the same epoch lacks exactly what the winner's `rf:touched` names since then; whoever cannot be
//! told what it lacks (too far behind, or of an epoch that did not end there) is given the partition whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::account::{Position, Touch, TouchedRecord};
use crate::request::{NodeId, PartitionId};

use super::table::Row;

/// What a fenced node says of itself.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// It had lost its claim, and with it all that it had: where it tells no position, it tells nothing.
    pub forgot: bool,
    /// What it has applied.
    pub applied: HashMap<PartitionId, Position>,
    /// What its last batches touched.
    pub touched: Vec<TouchedRecord>,
    /// Keys that a repair was overwriting when it was cut short: database, key; `None`: the partition.
    pub repairing: HashMap<PartitionId, Vec<Option<DbKey>>>,
}

impl Account {
    /// Whether what it says of the partition is all that the node was ever told (invariant 12).
    fn can_tell(&self, partition: PartitionId) -> bool {
        !self.forgot || self.applied.contains_key(&partition)
    }
}

/// A key of a database.
pub type DbKey = (u16, Vec<u8>);

/// What a node needs to stand where the winner stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// These keys (database, key).
    Keys(BTreeSet<DbKey>),
    /// Everything.
    Partition,
}

/// What has become of acknowledged writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All are there.
    None,
    /// Too many nodes in sync have lost their data to be sure that another one has all that they had.
    Possible,
    /// Nobody stands even where the partition's last epoch began: more copies were lost than the pool can lose, or somebody has replaced
    /// their files.
    Certain,
}

/// What becomes of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can go on from `position`, which `winner` has.
    Recoverable {
        /// The node that has everything.
        winner: NodeId,
        /// Where it stands.
        position: Position,
        /// What each reachable node of the replica set needs.
        needs: BTreeMap<NodeId, Need>,
        /// Whether acknowledged writes are gone.
        loss: Loss,
    },
    /// Too few nodes in sync are reachable that can tell, and others may come: an acknowledged write could be missing.
    Unreachable {
        /// How many can tell.
        here: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// The node that is furthest of those that are there was being brought up to date when a takeover was cut short, and who had
    /// everything may come.
    CutShort {
        /// The node.
        node: NodeId,
    },
}

/// How many copies a pool has of everything, and how many of them acknowledge a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// R.
    pub replicas: u32,
    /// W.
    pub write_quorum: u32,
}

/// Decides for one partition. `accounts` has the reachable, fenced nodes.
pub fn decide(
    partition: PartitionId,
    row: &Row,
    copies: Copies,
    accounts: &HashMap<NodeId, Account>,
) -> Verdict {
    let in_sync = |i: usize| row.in_sync & (1 << i) != 0;
    let of = |node: NodeId| accounts.get(&node);
    let position = |account: &Account| account.applied.get(&partition).copied().unwrap_or_default();
    let members = row.nodes_in_sync();
    let here: Vec<NodeId> = members
        .iter()
        .copied()
        .filter(|&node| of(node).is_some())
        .collect();
    let can_tell = |&&node: &&NodeId| of(node).is_some_and(|account| account.can_tell(partition));
    let witnesses = here.iter().filter(can_tell).count();
    let wanted = (row.in_sync.count_ones() + 1)
        .saturating_sub(copies.write_quorum)
        .max(1) as usize;
    let marked = |node: NodeId| of(node).is_some_and(|account| account.repairing.contains_key(&partition));
    // The first of the furthest, so that a primary that has everything stays the winner; and of the furthest one that nobody was just
    // bringing up to date, if there is one: of what was to change at once, such a node may have one key as it was and another as it is.
    let furthest = here
        .iter()
        .rev()
        .max_by_key(|&&node| of(node).map(|a| (position(a), !marked(node))));
    let all_here = here.len() == members.len();
    // Where nobody is yet to come, there is nothing to wait for.
    let is_enough = witnesses >= wanted || all_here;
    let (Some((winner, best)), true) = (furthest.and_then(|&node| Some((node, of(node)?))), is_enough) else {
        return Verdict::Unreachable {
            here: witnesses,
            wanted,
        };
    };
    let is_half = marked(winner);
    if is_half && !all_here {
        return Verdict::CutShort { node: winner };
    }
    let stands = position(best);
    // With one copy there is another one only while the partition changes its place, and no account that tells what it lacks.
    let needs = row
        .replicas
        .iter()
        .enumerate()
        .filter_map(|(i, &node)| {
            let account = of(node)?;
            let need = if node == winner {
                Need::Nothing
            } else if in_sync(i) && copies.replicas > 1 {
                let cut_short = [account, best]
                    .into_iter()
                    .filter_map(|a| a.repairing.get(&partition))
                    .flatten();
                need(partition, position(account), stands, &best.touched, cut_short)
            } else {
                Need::Partition
            };
            Some((node, need))
        })
        .collect();
    let loss = match (stands.seq < row.start, witnesses < wanted || is_half) {
        (true, _) => Loss::Certain,
        (_, true) => Loss::Possible,
        _ => Loss::None,
    };
    Verdict::Recoverable {
        winner,
        position: stands,
        needs,
        loss,
    }
}

/// The order in which nodes get what they need: who is brought up to date soon comes first, and of these who is furthest behind. So while
/// one is changed, those that had most have it still.
pub fn in_turn(
    partition: PartitionId,
    needs: BTreeMap<NodeId, Need>,
    accounts: &HashMap<NodeId, Account>,
) -> Vec<(NodeId, Need)> {
    let stands = |node: NodeId| accounts.get(&node)?.applied.get(&partition).copied();
    let mut needs: Vec<(NodeId, Need)> = needs.into_iter().collect();
    needs.sort_by_key(|(node, need)| (*need == Need::Partition, stands(*node)));
    needs
}

/// The first epoch in which what a partition holds at `position` was there: `pool::table::Row::since` of the new epoch.
///
/// Only a node that stands at the same place since then has the same contents. A winner that was itself in the middle of a
/// repair has contents that no epoch before had; so may one that an unrecorded takeover in between has left.
pub fn since(row: &Row, position: Position, winner_was_cut_short: bool, epoch: u64) -> u64 {
    if winner_was_cut_short {
        epoch
    } else if position.seq != row.start || position.epoch > row.epoch {
        position.epoch
    } else {
        row.since
    }
}

/// What a node at `here` needs to stand at `there`, given what the winner's last batches touched.
fn need<'a>(
    partition: PartitionId,
    here: Position,
    there: Position,
    touched: &[TouchedRecord],
    cut_short: impl Iterator<Item = &'a Option<DbKey>>,
) -> Need {
    let mut keys = BTreeSet::new();
    for item in cut_short {
        match item {
            Some(item) => keys.insert(item.clone()),
            None => return Need::Partition,
        };
    }
    if here.seq != there.seq {
        if here.epoch != there.epoch {
            return Need::Partition;
        }
        let mut named = BTreeSet::new();
        for record in touched
            .iter()
            .filter(|r| r.partition == partition && r.seq > here.seq)
        {
            named.insert(record.seq);
            match &record.what {
                Touch::Nothing => {}
                Touch::Key(key) => drop(keys.insert((record.db, key.clone()))),
                Touch::Partition => return Need::Partition,
            }
        }
        if named.len() as u64 != there.seq - here.seq {
            return Need::Partition;
        }
    }
    if keys.is_empty() {
        Need::Nothing
    } else {
        Need::Keys(keys)
    }
}

/// Whether `witnesses` nodes that still carry a sidecar's claim show that nobody else can have claimed a majority of the
/// pool's `nodes`. Asked before a node that has forgotten everything is used again: what it has forgotten may be that it was
/// claimed by a successor.
pub fn rules_out_successor(nodes: usize, witnesses: usize) -> bool {
    let majority = nodes / 2 + 1;
    witnesses + majority > nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(epoch: u64, seq: u64, touched: &[(u64, &[u8])]) -> Account {
        Account {
            forgot: false,
            applied: HashMap::from([(0, Position { epoch, seq })]),
            touched: touched
                .iter()
                .map(|&(seq, key)| TouchedRecord {
                    partition: 0,
                    db: 0,
                    seq,
                    what: Touch::Key(key.to_vec()),
                })
                .collect(),
            repairing: HashMap::new(),
        }
    }

    const COPIES: Copies = Copies {
        replicas: 3,
        write_quorum: 2,
    };

    fn row() -> Row {
        Row {
            epoch: 3,
            start: 0,
            since: 0,
            replicas: [0, 1, 2].into_iter().collect(),
            in_sync: 0b111,
        }
    }

    #[test]
    fn who_is_behind_gets_the_keys_of_the_missing_stretch() {
        let accounts = HashMap::from([
            (0, account(3, 8, &[])),
            (1, account(3, 10, &[(8, b"old"), (9, b"a"), (10, b"b")])),
            (2, account(3, 3, &[])),
        ]);
        let Verdict::Recoverable {
            winner,
            position,
            needs,
            ..
        } = decide(0, &row(), COPIES, &accounts)
        else {
            panic!()
        };
        assert_eq!((winner, position), (1, Position { epoch: 3, seq: 10 }));
        assert_eq!(
            needs[&0],
            Need::Keys([(0, b"a".to_vec()), (0, b"b".to_vec())].into())
        );
        assert_eq!(needs[&2], Need::Partition, "touched does not reach back to 4");
    }

    #[test]
    fn an_older_epoch_further_on_is_not_behind() {
        let accounts = HashMap::from([(0, account(4, 10, &[])), (2, account(3, 11, &[(11, b"x")]))]);
        let Verdict::Recoverable { winner, needs, .. } = decide(0, &row(), COPIES, &accounts) else {
            panic!()
        };
        assert_eq!(winner, 0);
        assert_eq!(needs[&2], Need::Partition);
    }

    #[test]
    fn who_is_furthest_behind_has_its_turn_first() {
        let accounts = HashMap::from([
            (0, account(3, 9, &[])),
            (1, account(3, 10, &[(9, b"a"), (10, b"b")])),
            (2, account(3, 8, &[])),
            (3, account(3, 2, &[])),
        ]);
        let mut row = row();
        row.replicas.push(3);
        row.in_sync = 0b1111;
        let Verdict::Recoverable { needs, .. } = decide(0, &row, COPIES, &accounts) else {
            panic!()
        };
        let order: Vec<NodeId> = in_turn(0, needs, &accounts)
            .into_iter()
            .filter(|(_, need)| *need != Need::Nothing)
            .map(|(node, _)| node)
            .collect();
        assert_eq!(order, [2, 0, 3], "a whole copy takes long, so it is last");
    }

    #[test]
    fn of_one_copy_that_changes_its_place_the_former_one_stays() {
        let copies = Copies {
            replicas: 1,
            write_quorum: 1,
        };
        let row = Row {
            replicas: [0, 1].into_iter().collect(),
            in_sync: 0b11,
            ..row()
        };
        // The former place has the epoch's beginning; the new one was told nothing yet.
        let accounts = HashMap::from([(0, account(3, 0, &[])), (1, account(0, 0, &[]))]);
        let Verdict::Recoverable { winner, needs, .. } = decide(0, &row, copies, &accounts) else {
            panic!()
        };
        assert_eq!(winner, 0);
        assert_eq!(needs[&1], Need::Partition, "equal seqs of one copy say nothing");
    }

    #[test]
    fn too_few_witnesses_is_said() {
        let accounts = HashMap::from([(0, account(3, 10, &[]))]);
        assert_eq!(
            decide(0, &row(), COPIES, &accounts),
            Verdict::Unreachable { here: 1, wanted: 2 }
        );
        // With W = 3 every node has everything, so one is enough.
        assert!(matches!(
            decide(
                0,
                &row(),
                Copies {
                    write_quorum: 3,
                    ..COPIES
                },
                &accounts
            ),
            Verdict::Recoverable { .. }
        ));
        let mut smaller = row();
        smaller.in_sync = 0b001;
        assert!(matches!(
            decide(0, &smaller, COPIES, &accounts),
            Verdict::Recoverable { .. }
        ));
    }

    #[test]
    fn who_has_lost_its_data_cannot_tell_and_is_waited_for_by_nobody() {
        let emptied = Account {
            forgot: true,
            ..Account::default()
        };
        let mut accounts = HashMap::from([(0, account(3, 10, &[])), (1, emptied.clone())]);
        let missing = Verdict::Unreachable { here: 1, wanted: 2 };
        assert_eq!(
            decide(0, &row(), COPIES, &accounts),
            missing,
            "node 2 may have more"
        );
        accounts.insert(2, account(3, 11, &[(11, b"x")]));
        let Verdict::Recoverable { winner, needs, .. } = decide(0, &row(), COPIES, &accounts) else {
            panic!()
        };
        assert_eq!(winner, 2);
        assert_eq!(needs[&1], Need::Partition);
        // Two were emptied, and all are here: what the third one has is all that there is.
        accounts.insert(2, emptied);
        assert!(matches!(
            decide(0, &row(), COPIES, &accounts),
            Verdict::Recoverable {
                winner: 0,
                loss: Loss::Possible,
                ..
            }
        ));
        // It can tell of what it has been given since.
        let given = Account {
            forgot: true,
            ..account(3, 10, &[])
        };
        accounts = HashMap::from([(0, account(3, 10, &[])), (1, given)]);
        assert!(matches!(
            decide(0, &row(), COPIES, &accounts),
            Verdict::Recoverable { loss: Loss::None, .. }
        ));
        let mut emptied_since = row();
        emptied_since.start = 11;
        assert!(matches!(
            decide(0, &emptied_since, COPIES, &accounts),
            Verdict::Recoverable {
                loss: Loss::Certain,
                ..
            }
        ));
    }

    #[test]
    fn a_repair_cut_short_is_taken_up() {
        let mut cut = account(3, 10, &[]);
        cut.repairing.insert(0, vec![Some((0, b"half".to_vec()))]);
        let accounts = HashMap::from([(0, cut), (1, account(3, 10, &[(10, b"b")]))]);
        let Verdict::Recoverable { winner, needs, .. } = decide(0, &row(), COPIES, &accounts) else {
            panic!()
        };
        assert_eq!(winner, 1, "of two at the same place, the one that is whole");
        assert_eq!(needs[&0], Need::Keys([(0, b"half".to_vec())].into()));
        // With a write that may have been acknowledged it must be the winner; but who gave it that may come, and is whole.
        let mut cut = account(3, 11, &[(11, b"c")]);
        cut.repairing.insert(0, vec![Some((0, b"half".to_vec()))]);
        let mut accounts = HashMap::from([(0, cut), (1, account(3, 10, &[]))]);
        assert_eq!(
            decide(0, &row(), COPIES, &accounts),
            Verdict::CutShort { node: 0 }
        );
        accounts.insert(2, account(3, 4, &[]));
        let Verdict::Recoverable {
            winner, needs, loss, ..
        } = decide(0, &row(), COPIES, &accounts)
        else {
            panic!()
        };
        assert_eq!((winner, loss), (0, Loss::Possible), "nobody else is to come");
        assert_eq!(
            needs[&1],
            Need::Keys([(0, b"c".to_vec()), (0, b"half".to_vec())].into())
        );
    }
}
