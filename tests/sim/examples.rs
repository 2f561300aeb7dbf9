//! What becomes of a node whose account says this or that: one case a row, with the reason beside the expectation.
//!
//! First to the owner of a partition that goes on (a stream comes up), then to a successor (a takeover decides).

use std::collections::HashMap;

use ringfence::account::{Position, Touch, TouchedRecord};
use ringfence::pool::recover::{self, Account, Copies, Need, Verdict};
use ringfence::pool::table::Row;
use ringfence::request::Action;
use ringfence::sequencer::{Effect, PartitionStart, Sequencer};
use smallvec::smallvec;

use crate::pool::{LARGE, Pool, START, settings};

/// Writes that two of three nodes have acknowledged when the third comes.
const WRITES: u64 = 4;

#[derive(Debug, PartialEq, Eq)]
enum Becomes {
    InSync { resent: u64 },
    OutOfSync,
}
use Becomes::{InSync, OutOfSync};

struct Returns {
    /// What it is, and why this follows.
    why: &'static str,
    /// Its account: epoch and seq; `None`: it has nothing.
    account: Option<(u64, u64)>,
    backlog_bytes: usize,
    becomes: Becomes,
}

/// The partition stands at 5:14. Epoch 5 began at seq 10, which was reached in epoch 3.
const RETURNS: &[Returns] = &[
    Returns {
        why: "equal: it lacks nothing, so nothing is sent and it counts at once",
        account: Some((5, 14)),
        backlog_bytes: LARGE,
        becomes: InSync { resent: 0 },
    },
    Returns {
        why: "behind, within the backlog: it is given just the rest",
        account: Some((5, 12)),
        backlog_bytes: LARGE,
        becomes: InSync { resent: 2 },
    },
    Returns {
        why: "behind since the epoch began: still within the backlog",
        account: Some((5, 10)),
        backlog_bytes: LARGE,
        becomes: InSync { resent: 4 },
    },
    Returns {
        why: "of an earlier epoch, but it stands where this one began: nothing has happened in between that it lacks",
        account: Some((4, 10)),
        backlog_bytes: LARGE,
        becomes: InSync { resent: 4 },
    },
    Returns {
        why: "the same, but what has happened in this epoch has left the backlog",
        account: Some((4, 10)),
        backlog_bytes: 0,
        becomes: OutOfSync,
    },
    Returns {
        why: "behind past the backlog: nobody can tell it what it lacks, so it needs a copy",
        account: Some((5, 11)),
        backlog_bytes: 0,
        becomes: OutOfSync,
    },
    Returns {
        why: "equal, with no backlog at all: nothing is needed from it",
        account: Some((5, 14)),
        backlog_bytes: 0,
        becomes: InSync { resent: 0 },
    },
    Returns {
        why: "empty: it restarted without its data",
        account: None,
        backlog_bytes: LARGE,
        becomes: OutOfSync,
    },
    Returns {
        why: "ahead: it has a write that nobody has acknowledged and nobody else has",
        account: Some((5, 15)),
        backlog_bytes: LARGE,
        becomes: OutOfSync,
    },
    Returns {
        why: "of an earlier epoch that did not end there: its last writes were given up by the takeover",
        account: Some((4, 12)),
        backlog_bytes: LARGE,
        becomes: OutOfSync,
    },
    Returns {
        why: "of an epoch before the seq was reached for good: its seq 10 was another write",
        account: Some((2, 10)),
        backlog_bytes: LARGE,
        becomes: OutOfSync,
    },
    Returns {
        why: "of a later epoch: somebody else has taken over, so nothing here can be compared",
        account: Some((6, 14)),
        backlog_bytes: LARGE,
        becomes: OutOfSync,
    },
];

/// A client's place for an answer.
fn texts(values: impl IntoIterator<Item = u64>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

#[test]
fn a_node_that_returns() {
    for case in RETURNS {
        let why = case.why;
        let mut pool = Pool::new(case.backlog_bytes);
        pool.connect(0, Some(START));
        pool.connect(1, Some(START));
        for value in 11..=START.seq + WRITES {
            pool.push(value);
            pool.run();
        }
        let answered = pool
            .effects
            .iter()
            .filter(|e| matches!(e, Effect::Complete(..)))
            .count() as u64;
        assert_eq!(answered, WRITES, "{why}: two of three have them");
        let here = case.account.map(|(epoch, seq)| Position { epoch, seq });
        let had: Vec<u64> = case.account.map_or(Vec::new(), |(_, seq)| (11..=seq).collect());
        pool.preload(2, &had);
        let resent_before = pool.sequencer.counters().resent;
        let report = pool.connect(2, here);
        assert_eq!(report.equal + report.behind + report.out, 1, "{why}");
        pool.run();
        let counts = pool.sequencer.node_view(2).live == 1;
        let got = pool.values(2);
        let resent = pool.sequencer.counters().resent - resent_before;
        let found = if counts { InSync { resent } } else { OutOfSync };
        assert_eq!(found, case.becomes, "{why} ({report:?})");
        match case.becomes {
            InSync { resent } => {
                assert_eq!(report.out, 0, "{why}");
                assert_eq!(
                    got,
                    texts(11..=14),
                    "{why}: it has everything now, once and in order"
                );
                let position = Position {
                    epoch: pool_epoch(resent, here),
                    seq: 14,
                };
                assert_eq!(pool.nodes[2].0.position(0), position, "{why}");
            }
            OutOfSync => {
                assert_eq!(report.out, 1, "{why}");
                assert_eq!(got, texts(had.iter().copied()), "{why}: it is given nothing more");
                assert!(
                    pool.effects.iter().any(|e| *e
                        == Effect::InSync {
                            partition: 0,
                            set: 0b011
                        }),
                    "{why}: the table is to record that it is out"
                );
            }
        }
        let before = pool.effects.len();
        pool.push(15);
        pool.run();
        let done = pool.effects[before..]
            .iter()
            .any(|e| matches!(e, Effect::Complete(to, _) if to.slot == 15));
        assert!(done, "{why}: the others go on");
        let expected = if counts { texts(11..=15) } else { texts(had) };
        assert_eq!(pool.values(2), expected, "{why}");
    }
}

/// A node's account names the new epoch as soon as it has executed something of it.
fn pool_epoch(resent: u64, here: Option<Position>) -> u64 {
    if resent > 0 {
        START.epoch
    } else {
        here.map_or(0, |position| position.epoch)
    }
}

enum Wants {
    Nothing,
    Keys(&'static [&'static str]),
    Partition,
}

struct Found {
    why: &'static str,
    /// The account of the node, and whether the table has it in sync.
    account: Option<(u64, u64)>,
    in_sync: bool,
    /// What it was being given when an earlier takeover died.
    cut_short: Option<&'static str>,
    wants: Wants,
}

/// The winner stands at 5:14 and remembers what 12, 13 and 14 touched.
const FOUND: &[Found] = &[
    Found {
        why: "equal: it has all that the winner has",
        account: Some((5, 14)),
        in_sync: true,
        cut_short: None,
        wants: Wants::Nothing,
    },
    Found {
        why: "behind, and the winner knows what the rest touched: just those keys",
        account: Some((5, 12)),
        in_sync: true,
        cut_short: None,
        wants: Wants::Keys(&["k13", "k14"]),
    },
    Found {
        why: "behind by more than the winner remembers",
        account: Some((5, 10)),
        in_sync: true,
        cut_short: None,
        wants: Wants::Partition,
    },
    Found {
        why: "empty, though the table has it in sync: it restarted without its data after the owner died",
        account: None,
        in_sync: true,
        cut_short: None,
        wants: Wants::Partition,
    },
    Found {
        why: "of an epoch that did not end there",
        account: Some((4, 13)),
        in_sync: true,
        cut_short: None,
        wants: Wants::Partition,
    },
    Found {
        why: "ahead, and not in sync: what it has more was never acknowledged",
        account: Some((5, 15)),
        in_sync: false,
        cut_short: None,
        wants: Wants::Partition,
    },
    Found {
        why: "not in sync: whatever its account says, the table knows better",
        account: Some((5, 14)),
        in_sync: false,
        cut_short: None,
        wants: Wants::Partition,
    },
    Found {
        why: "equal, but it was being given a key when an earlier takeover died: once more",
        account: Some((5, 14)),
        in_sync: true,
        cut_short: Some("half"),
        wants: Wants::Keys(&["half"]),
    },
    Found {
        why: "behind and cut short: both",
        account: Some((5, 13)),
        in_sync: true,
        cut_short: Some("half"),
        wants: Wants::Keys(&["half", "k14"]),
    },
];

#[test]
fn what_a_successor_finds() {
    let applied = |account: Option<(u64, u64)>| {
        account
            .into_iter()
            .map(|(epoch, seq)| (0, Position { epoch, seq }))
            .collect::<HashMap<_, _>>()
    };
    let key = |seq| TouchedRecord {
        partition: 0,
        db: 0,
        seq,
        what: Touch::Key(format!("k{seq}").into_bytes()),
    };
    for case in FOUND {
        let why = case.why;
        let winner = Account {
            applied: applied(Some((5, 14))),
            touched: (12..=14).map(key).collect(),
            ..Account::default()
        };
        let half = case
            .cut_short
            .map(|half| (0, vec![Some((0, half.as_bytes().to_vec()))]));
        let other = Account {
            applied: applied(case.account),
            repairing: half.into_iter().collect(),
            ..Account::default()
        };
        let in_sync = if case.in_sync { 0b111 } else { 0b011 };
        let row = Row {
            epoch: 5,
            start: 10,
            since: 3,
            replicas: [0, 1, 2].into_iter().collect(),
            in_sync,
        };
        let copies = Copies {
            replicas: 3,
            write_quorum: 2,
        };
        // Node 1 is away; the other one is node 2.
        let accounts = HashMap::from([(0, winner), (2, other)]);
        let Verdict::Recoverable {
            winner,
            position,
            needs,
            ..
        } = recover::decide(0, &row, copies, &accounts)
        else {
            panic!("{why}: one node away is no reason to wait")
        };
        assert_eq!((winner, position), (0, Position { epoch: 5, seq: 14 }), "{why}");
        let expected = match &case.wants {
            Wants::Nothing => Need::Nothing,
            Wants::Keys(keys) => Need::Keys(keys.iter().map(|k| (0, k.as_bytes().to_vec())).collect()),
            Wants::Partition => Need::Partition,
        };
        assert_eq!(needs.get(&2), Some(&expected), "{why}");
        assert_eq!(
            needs.get(&0),
            Some(&Need::Nothing),
            "{why}: nobody gives the winner anything"
        );
    }
}

/// A successor may have fenced this owner at any moment. What shows that none has is an answer to something that was sent
/// after the read came; one to something sent before may have been given before the fence.
#[test]
fn a_proof_from_before_the_read_is_none() {
    const READ: u64 = 99;
    let mut pool = Pool::new(LARGE);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    pool.push(11);
    let before = pool.batches();
    pool.range(READ);
    let after = pool.batches();
    let asks = |wire: &Vec<u8>| wire.windows(6).any(|w| w == b"LRANGE");
    let reader = after.iter().position(asks).expect("a node is asked");
    for (id, wire) in before.iter().enumerate() {
        pool.executes(id, wire);
    }
    assert!(pool.is_answered(11), "the write is on all three");
    assert!(!pool.is_answered(READ), "nobody has executed it");
    pool.executes(reader, &after[reader]);
    assert!(
        !pool.is_answered(READ),
        "of three nodes one alone could be cut off with this owner"
    );
    let other = (0..3)
        .find(|&id| id != reader && !after[id].is_empty())
        .expect("another one is asked for a sign");
    pool.executes(other, &after[other]);
    assert!(
        pool.is_answered(READ),
        "two of three: a successor would have had to fence one of them first"
    );
}

/// A read's own reply shows that its node has not been fenced: it need not wait for the replies that come behind it in the same
/// batch, however large these are.
#[test]
fn a_read_is_its_own_proof_for_its_node() {
    let mut pool = Pool::new(LARGE);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    pool.range(1);
    pool.range(2);
    let wires = pool.batches();
    let asks = |wire: &Vec<u8>| wire.windows(6).any(|w| w == b"LRANGE");
    let reader = wires.iter().position(asks).expect("a node is asked");
    let (first, second) = wires[reader].split_at(wires[reader].len() / 2);
    assert_eq!(first, second, "both are asked of one node, at once");
    for id in (0..3).filter(|&id| id != reader) {
        pool.executes(id, &wires[id]);
    }
    pool.executes(reader, first);
    assert!(pool.is_answered(1));
    assert!(!pool.is_answered(2));
    pool.executes(reader, second);
    assert!(pool.is_answered(2));
}

/// No position at all is the beginning, where a partition that nothing was written to still stands. A mark is not.
#[test]
fn a_marked_node_stands_nowhere() {
    let start = PartitionStart {
        partition: 0,
        position: Position { epoch: 5, seq: 0 },
        since: 0,
        replicas: smallvec![0, 1, 2],
        in_sync: 0b011,
    };
    let mut sequencer = Sequencer::new(settings(LARGE), 3, &[start]);
    assert_eq!(sequencer.link_up(1, &HashMap::new()).equal, 1);
    let marked = HashMap::from([(0, Position::NOWHERE)]);
    assert_eq!(sequencer.link_up(2, &marked).out, 1);
    assert_eq!(sequencer.partition_view(0).unwrap().out.as_slice(), [2]);
}

/// What a node acknowledges that is about to leave must not count: the record that is on its way does not name it.
#[test]
fn who_leaves_is_not_taken_back_by_a_new_stream() {
    let mut pool = Pool::new(LARGE);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    pool.order(Action::Leave(2), 0);
    pool.sequencer.link_down(2);
    pool.connect(2, Some(START));
    let view = pool.sequencer.partition_view(0).unwrap();
    assert_eq!(view.in_sync.as_slice(), [0, 1]);
    assert_eq!(pool.sequencer.node_view(2).streaming, 0);
}

/// A node is in sync, but for the record that says so, when another one is lost over a write. That the write becomes safe is a matter of
/// moments, so what is read behind it waits.
#[test]
fn a_read_waits_for_a_record_that_is_on_its_way() {
    const READ: u64 = 99;
    let start = PartitionStart {
        partition: 0,
        position: START,
        since: 3,
        replicas: smallvec![0, 1, 2],
        in_sync: 0b011,
    };
    let mut pool = Pool::new(LARGE);
    pool.sequencer = Sequencer::new(settings(LARGE), 3, &[start]);
    for id in 0..3 {
        assert_eq!(pool.connect(id, Some(START)).equal, 1);
    }
    let record = pool.sequencer.to_record(0).expect("three are in sync");
    pool.sequencer.link_down(0);
    pool.push(1);
    pool.run();
    assert!(!pool.is_answered(1), "of two that have it one is not recorded");
    pool.range(READ);
    pool.run();
    assert!(
        !pool.is_answered(READ),
        "not refused, and not told what is not safe"
    );
    pool.sequencer.recorded(&[(0, record)]);
    pool.run();
    assert!(pool.is_answered(1) && pool.is_answered(READ));
    let read = pool.outcome(READ);
    assert!(
        matches!(read, Some(ringfence::request::Outcome::Reply { .. })),
        "{read:?}"
    );
}
