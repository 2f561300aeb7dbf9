//! Pools with one copy. Nodes keep no account there, so nothing tells which of two has more; and while a partition changes its place,
//! there are two.

use std::collections::HashMap;

use ringfence::request::{Action, Outcome, Refusal};
use ringfence::resp::encode;
use ringfence::sequencer::{PartitionStart, Settings};
use smallvec::smallvec;

use crate::pool::{Pool, START, settings};

/// The partition is at node 0, and node 1 is its new place; both are in sync where `in_sync` says so.
fn changing(in_sync: u8) -> Pool {
    let settings = Settings {
        replicas: 1,
        write_quorum: 1,
        min_in_sync: 1,
        ..settings(0)
    };
    let start = PartitionStart {
        partition: 0,
        position: START,
        since: 3,
        replicas: smallvec![0, 1],
        in_sync,
    };
    Pool::of(settings, start)
}

fn lose(pool: &mut Pool, id: u16) {
    pool.sequencer.link_down(id);
    pool.effects.append(pool.sequencer.effects());
}

/// A takeover found the change half done and left the partition at its former place; the node that was to have it connects first.
#[test]
fn who_is_not_in_sync_is_not_taken_for_the_copy() {
    let mut pool = changing(0b01);
    let applied = HashMap::from([(0, START)]);
    assert_eq!(
        pool.sequencer.link_up(1, &applied).out,
        1,
        "whatever its account says"
    );
    assert_eq!(pool.sequencer.link_up(0, &applied).equal, 1);
    let view = pool.sequencer.partition_view(0).unwrap();
    assert_eq!(
        (view.in_sync.as_slice(), view.live.as_slice()),
        (&[0][..], &[0][..])
    );
}

/// A successor that finds both in sync takes either. So nothing is told that only one of them may have.
#[test]
fn nothing_is_acknowledged_while_a_record_names_two() {
    let mut pool = changing(0b11);
    let applied = HashMap::from([(0, START)]);
    pool.sequencer.link_up(0, &applied);
    pool.sequencer.link_up(1, &applied);
    let view = pool.sequencer.partition_view(0).unwrap();
    assert_eq!(
        view.in_sync.as_slice(),
        [0],
        "of two that come one is not trusted"
    );
    pool.push(1);
    pool.run();
    assert_eq!(pool.outcome(1), None, "the record still names both");
    let record = pool.sequencer.to_record(0).expect("one is in sync now");
    pool.run();
    assert_eq!(pool.outcome(1), None, "it is on its way");
    pool.sequencer.recorded(&[(0, record)]);
    pool.run();
    assert!(matches!(pool.outcome(1), Some(Outcome::Reply { .. })));
}

/// A node is lost before it was sent a write that another one was sent: the write has not ended by that.
#[test]
fn a_write_that_another_node_is_given_goes_on() {
    let mut pool = changing(0b01);
    let applied = HashMap::from([(0, START)]);
    pool.sequencer.link_up(0, &applied);
    pool.sequencer.link_up(2, &applied);
    pool.order(Action::Join(2, None), 100);
    pool.push(1);
    assert!(!pool.batch(2).is_empty());
    lose(&mut pool, 0);
    assert_eq!(pool.outcome(1), None, "node 2 was asked");
    pool.push(2);
    lose(&mut pool, 2);
    assert_eq!(pool.outcome(1), Some(&Outcome::Unknown), "it was sent");
    let refused = Some(&Outcome::Refused(Refusal::TooFewNodes));
    assert_eq!(pool.outcome(2), refused, "nobody was sent it");
}

/// What is for all nodes is not noted at each: it may have been executed where it was sent.
#[test]
fn a_flush_that_was_sent_is_not_refused() {
    let mut pool = changing(0b01);
    pool.sequencer.link_up(0, &HashMap::from([(0, START)]));
    let flush = encode::command_frame(&[b"FLUSHDB"]);
    pool.order(Action::Everywhere(flush, 1), 1);
    assert!(!pool.batch(0).is_empty());
    lose(&mut pool, 0);
    assert_eq!(pool.outcome(1), Some(&Outcome::Unknown));
}
