//! A pool in service meets nodes that are wrong: they have lost what they had, have something else, will not, or cannot.
//!
//! In each case clients work on, nothing acknowledged is lost (the workload's histories), what is the matter is said once in the
//! log and as long as it lasts on `/v1/nodes` and in the metrics, and all is in sync when the cause is gone.

mod another_pool;
mod disk_full;
mod empty;
mod flapping;
mod forgetful;
mod full;
mod hung;
mod loading;
mod older_file;
mod replica;
mod slow;

use super::workload::{Outcome, Workload};
use super::{RECOVERY_MAX, allow_node_trouble, finish, wait_progress};
use crate::cmd;
use crate::harness::{Node, Pool, Relay, Sidecar, SidecarConfig, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// How long it may take until it is noticed what a node has become.
const NOTICE_MAX: Duration = Duration::from_secs(10);

/// `timeouts.node` of these tests: the default.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time that a client may wait on account of one node.
const PAUSE_MAX: Duration = NODE_TIMEOUT.saturating_add(Duration::from_millis(500));

/// A pool under load.
fn under_load(pool: &Pool, config: &SidecarConfig, seed: u64) -> (Sidecar, Workload) {
    let sidecar = Sidecar::start(config);
    allow_node_trouble(&sidecar);
    let workload = Workload::start(&sidecar.endpoint(), seed);
    wait_progress(&workload);
    sidecar.wait_all_in_sync(pool, RECOVERY_MAX);
    (sidecar, workload)
}

/// Keys of 1000 bytes.
fn fill(sidecar: &Sidecar, keys: usize) {
    let mut client = sidecar.client();
    for at in 0..keys {
        let reply = client.call(cmd!["SET", format!("filler-{at}"), "x".repeat(1000)]);
        assert!(reply.is_ok(), "{reply}");
    }
}

/// Waits until the node is said to be in that state for a reason with that word, on the admin port and in the metrics.
#[track_caller]
fn wait_said(sidecar: &Sidecar, node: &str, state: &str, word: &str) {
    let label = format!("ringfence_node_state{{node=\"{node}\",state=\"{state}\"}} 1");
    let said = || {
        let entry = sidecar.node(node);
        let has_word = entry["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains(word));
        (entry["state"] == state && has_word && sidecar.metrics().contains(&label)).then_some(())
    };
    if wait_for(NOTICE_MAX, said).is_none() {
        panic!(
            "node {node} is not said to be {state} ({word:?}): {}\n{}",
            sidecar.node(node),
            sidecar.metrics()
        );
    }
}

/// Warnings with this word.
fn warnings(sidecar: &Sidecar, word: &str) -> usize {
    let log = sidecar.log();
    log.lines()
        .filter(|line| line.contains("WARN") && line.contains(word))
        .count()
}

/// It was said in the log, and not again and again.
#[track_caller]
fn assert_warned_once(sidecar: &Sidecar, word: &str) {
    let warned = wait_for(NOTICE_MAX, || (warnings(sidecar, word) > 0).then_some(()));
    assert!(warned.is_some(), "no warning with {word:?}");
    assert_eq!(warnings(sidecar, word), 1, "warnings with {word:?}");
}

/// No client was told of anything.
#[track_caller]
fn assert_unseen(outcome: &Outcome, seed: u64) {
    assert!(
        outcome.errors.is_empty(),
        "SEED={seed}: clients saw {:?}",
        outcome.errors
    );
    let unknown: u64 = outcome.histories.iter().map(|history| history.unknown_pops).sum();
    assert_eq!(unknown, 0, "SEED={seed}: a client was disconnected");
}

/// Adds a node that listens at `address`.
#[track_caller]
fn add_at(sidecar: &Sidecar, name: &str, address: &str) {
    let body = json!({"name": name, "address": address});
    let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
    assert_eq!(status, 200, "{answer}");
}

#[track_caller]
fn add(sidecar: &Sidecar, node: &Node) {
    add_at(sidecar, &node.name, &node.endpoint().to_string());
}

/// Waits until the ring is as `is` says: what it says then.
#[track_caller]
fn wait_ring(sidecar: &Sidecar, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(RECOVERY_MAX, || {
        let ring = sidecar.admin("/v1/ring");
        is(&ring).then_some(ring)
    });
    found.unwrap_or_else(|| panic!("never {what}: {}", sidecar.admin("/v1/ring")))
}
