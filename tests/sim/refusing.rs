//! Nodes that refuse a write. It is answered with their error only when none of them can have executed it.

use bytes::BytesMut;

use crate::pool::{LARGE, Pool, START};

/// A write that three nodes have yet to be sent, all of which refuse to execute anything.
fn refusing() -> Pool {
    let mut pool = Pool::new(LARGE);
    for id in 0..3 {
        pool.connect(id, Some(START));
        pool.nodes[id].0.refusing = true;
    }
    pool.push(1);
    pool
}

/// The node is sent the write and refuses it, which ends its stream.
fn refuses(pool: &mut Pool, id: usize) {
    let wire = pool.batch(id);
    let (node, session) = &mut pool.nodes[id];
    let mut answer = Vec::new();
    node.feed(session, &wire, &mut answer);
    let answer = &mut BytesMut::from(&answer[..]);
    assert!(pool.sequencer.receive(id as u16, answer).is_err());
    is_lost(pool, id);
}

fn is_lost(pool: &mut Pool, id: usize) {
    pool.sequencer.link_down(id as u16);
    pool.effects.append(pool.sequencer.effects());
}

#[test]
fn what_all_refuse_is_answered_with_their_error() {
    let mut pool = refusing();
    for id in 0..3 {
        assert!(!pool.is_answered(1));
        refuses(&mut pool, id);
    }
    assert!(pool.is_answered(1));
}

/// One that had refused it was sent it again, and is lost: it may have executed it by now.
#[test]
fn who_was_asked_again_has_not_refused() {
    let mut pool = refusing();
    refuses(&mut pool, 0);
    refuses(&mut pool, 1);
    pool.connect(0, Some(START));
    pool.sequencer.link_down(2);
    assert!(!pool.batch(0).is_empty());
    is_lost(&mut pool, 0);
    pool.connect(2, Some(START));
    refuses(&mut pool, 2);
    assert!(!pool.is_answered(1));
    // It says that it has not, and refuses it once more: now all have.
    pool.connect(0, Some(START));
    refuses(&mut pool, 0);
    assert!(pool.is_answered(1));
}
