//! Nodes that write nothing to their disks.

use super::*;
use crate::harness::{seed, wait_until};

fn set_append_only(node: &Node, value: &str) {
    let reply = node.client().call(cmd!["CONFIG", "SET", "appendonly", value]);
    assert!(reply.is_ok(), "{reply}");
}

/// It is used, and what it lacks is said: everybody's data depends on it.
#[test]
fn one_without_an_append_only_file() {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    assert_eq!(sidecar.node("b")["reason"], Value::Null);
    set_append_only(&pool.nodes[1], "no");
    wait_said(&sidecar, "b", "in_sync", "append-only");
    assert_warned_once(&sidecar, "append-only");
    set_append_only(&pool.nodes[1], "yes");
    wait_until("it is seen that it has one again", NOTICE_MAX, || {
        sidecar.node("b")["reason"].is_null()
    });
    assert_unseen(&finish(&pool, &sidecar, workload, seed), seed);
}
