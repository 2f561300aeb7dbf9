//! A node that becomes a replica of some other server: it has that server's data then, and takes no writes.

use super::*;
use crate::harness::{Endpoint, NodeOptions, seed, wait_until};

/// A server that is not of the pool, with data of its own.
fn elsewhere() -> Node {
    let options = NodeOptions::default().with("repl-diskless-sync-delay", "0");
    let node = Node::start("elsewhere", options);
    assert!(node.client().call(cmd!["SET", "from-elsewhere", 1]).is_ok());
    node
}

#[test]
fn it_is_not_used_until_it_is_a_server_of_its_own() {
    let seed = seed();
    let pool = Pool::start(3);
    let elsewhere = elsewhere();
    elsewhere.client().call(cmd!["SET", "register", "wrong"]);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let Endpoint::Tcp(address) = elsewhere.endpoint() else {
        panic!("a TCP node");
    };
    let mut operator = pool.nodes[1].client();
    assert!(
        operator
            .call(cmd!["REPLICAOF", address.ip().to_string(), address.port()])
            .is_ok()
    );
    wait_said(&sidecar, "b", "unfit", "replica of another server");
    let copied = || operator.call(cmd!["EXISTS", "from-elsewhere"]).int() == Some(1);
    wait_until("it has copied the other server's data", RECOVERY_MAX, copied);
    wait_progress(&workload);
    assert_warned_once(&sidecar, "replica of another server");
    assert!(operator.call(cmd!["REPLICAOF", "NO", "ONE"]).is_ok());
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert_unseen(&outcome, seed);
    assert_eq!(
        operator.call(cmd!["EXISTS", "from-elsewhere"]).int(),
        Some(0),
        "what it had copied is still there"
    );
}

/// A process that has never been ours may be the last one to have what it has copied: that is for people to say.
#[test]
fn one_that_was_started_so_is_used_when_it_is_empty() {
    let seed = seed();
    let pool = Pool::start(3);
    let elsewhere = elsewhere();
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let address = elsewhere.endpoint().to_string().replace(':', " ");
    pool.nodes[1].launch(&[("replicaof", &address)]);
    wait_said(&sidecar, "b", "unfit", "replica of another server");
    let mut operator = pool.nodes[1].client();
    wait_until("it has copied the other server's data", RECOVERY_MAX, || {
        operator.call(cmd!["EXISTS", "from-elsewhere"]).int() == Some(1)
    });
    assert!(operator.call(cmd!["REPLICAOF", "NO", "ONE"]).is_ok());
    wait_said(&sidecar, "b", "unfit", "FLUSHALL");
    // A start of the sidecar makes no difference.
    sidecar.restart();
    wait_said(&sidecar, "b", "unfit", "FLUSHALL");
    assert_eq!(operator.call(cmd!["EXISTS", "from-elsewhere"]).int(), Some(1));
    assert!(operator.call(cmd!["FLUSHALL"]).is_ok());
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert!(outcome.errors.is_empty(), "SEED={seed}: {:?}", outcome.errors);
}
