//! A node that answers a write otherwise, where nobody can say which keys that changed: it is given nothing more until it has a copy.

use ringfence::request::{Action, Commands, Outcome, Touched};
use ringfence::resp::encode;

use crate::pool::{Pool, START};

/// Has all nodes push to a list that has one element more on some of them: who is in sync then, and what the client was told.
fn push_where_differs(odd: &[usize]) -> (Vec<u16>, Option<Outcome>) {
    let mut pool = Pool::new(1 << 20);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    for &id in odd {
        pool.preload(id, &[7]);
    }
    let push = Commands {
        touched: Touched::Partition,
        ..Commands::one(encode::command_frame(&[b"RPUSH", b"L0", b"1"]))
    };
    pool.order(Action::Write(push), 1);
    for id in [2, 1, 0] {
        let wire = pool.batch(id);
        pool.executes(id, &wire);
    }
    let told = pool.outcome(1).cloned();
    let view = pool.sequencer.partition_view(0).unwrap();
    (view.in_sync.to_vec(), told)
}

fn said(n: i64) -> Option<Outcome> {
    let frames = encode::integer(n);
    Some(Outcome::Reply { frames, resp3: false })
}

#[test]
fn who_answers_otherwise_than_the_client_is_told_is_out_of_sync() {
    assert_eq!(push_where_differs(&[]), (vec![0, 1, 2], said(1)));
    // Answers come from 2, 1, 0; the first two that agree are told.
    assert_eq!(push_where_differs(&[0]), (vec![1, 2], said(1)));
    // The first two differ, and the first counts, until the primary says otherwise.
    assert_eq!(push_where_differs(&[1]), (vec![0, 2], said(1)));
    assert_eq!(push_where_differs(&[2]), (vec![0], None));
}
