//! `POST /v1/verify`: copies that were made to differ, behind the sidecar's back, are found and repaired.

use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Node, Pool, Sidecar, SidecarConfig, binary, wait_until};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

fn verified(sidecar: &Sidecar) -> Value {
    let (status, _) = sidecar.ask("POST", "/v1/verify", &json!({"keys_per_s": 100_000}));
    assert_eq!(status, 200);
    wait_until("all copies are compared", Duration::from_secs(20), || {
        sidecar.admin("/v1/verify")["state"] == "done"
    });
    sidecar.admin("/v1/verify")
}

#[test]
fn what_differs_is_found_and_repaired() {
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2));
    sidecar.allow_log("answered otherwise");
    let mut client = sidecar.client();
    let late = 4_000_000_000_000_i64;
    let mut keys = 0;
    for db in [0, 3] {
        client.call(cmd!["SELECT", db]);
        for at in 0..20 {
            for command in [
                cmd!["SET", format!("string-{at}"), at, "PXAT", late],
                cmd!["RPUSH", format!("list-{at}"), "a", "b", at],
                cmd!["HSET", format!("hash-{at}"), "a", 1, "b", at],
                cmd!["SADD", format!("set-{at}"), "a", "b", at],
                cmd!["ZADD", format!("zset-{at}"), 1, "a", "0.1", at],
                cmd!["XADD", format!("stream-{at}"), "1-1", "f", at],
                cmd!["XGROUP", "CREATE", format!("stream-{at}"), "g", 0],
                cmd![
                    "XREADGROUP",
                    "GROUP",
                    "g",
                    "c",
                    "STREAMS",
                    format!("stream-{at}"),
                    ">"
                ],
            ] {
                assert_eq!(client.call(command).error(), None);
            }
            keys += 6;
        }
    }
    let report = verified(&sidecar);
    assert_eq!(
        (&report["keys"], &report["different"], &report["skipped"]),
        (&json!(keys), &json!(0), &json!(0)),
        "{report}"
    );
    // One harm each, to one copy each.
    let harms = [
        (0, "string-1", cmd!["SET", "string-1", "other", "KEEPTTL"]),
        (0, "string-2", cmd!["PEXPIREAT", "string-2", late + 1]),
        (0, "string-3", cmd!["DEL", "string-3"]),
        (0, "string-4", cmd!["DEL", "string-4"]),
        (3, "list-1", cmd!["LSET", "list-1", 1, "x"]),
        (0, "hash-1", cmd!["HSET", "hash-1", "a", 2]),
        (0, "set-1", cmd!["SADD", "set-1", "c"]),
        (3, "zset-1", cmd!["ZADD", "zset-1", 3, "a"]),
        (0, "stream-1", cmd!["XACK", "stream-1", "g", "1-1"]),
    ];
    let mut harmed = 0;
    for (db, key, harm) in &harms {
        // Whichever copy it is.
        let has_it = |node: &&Node| {
            let mut node = node.client();
            node.call(cmd!["SELECT", db]);
            node.call(cmd!["EXISTS", key]).int() == Some(1)
        };
        let mut holders = pool.nodes.iter().filter(has_it);
        let holder = match harmed % 2 {
            0 => holders.next(),
            _ => holders.next_back(),
        };
        let mut node = holder.expect("somebody has it").client();
        node.call(cmd!["SELECT", db]);
        assert_eq!(node.call(harm.clone()).error(), None);
        harmed += 1;
    }
    let report = verified(&sidecar);
    assert_eq!(
        (&report["different"], &report["repaired"]),
        (&json!(harmed), &json!(harmed)),
        "{report}"
    );
    assert_converged(&pool, &sidecar);
    assert_eq!(verified(&sidecar)["different"], json!(0));
}

/// Two of three nodes are dead: writes are refused, and nothing can be compared. Both is said where operators look.
#[test]
fn what_too_few_nodes_refuse_and_leave_uncompared_is_said() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    for allowed in ["node", "NOREPLICAS"] {
        sidecar.allow_log(allowed);
    }
    let mut client = sidecar.client();
    assert!(client.call(cmd!["SET", "k", "v"]).is_ok());
    let told = |line: &str| sidecar.metrics().lines().any(|told| told == line);
    assert!(told("ringfence_partitions_short 0") && told("ringfence_partitions_refusing 0"));
    let errors = "ringfence_errors_total 0";
    assert!(told(errors));
    for node in &pool.nodes[1..] {
        node.kill9();
    }
    wait_until("the metrics say so", Duration::from_secs(10), || {
        told("ringfence_partitions_short 64") && told("ringfence_partitions_refusing 64")
    });
    let reply = client.call(cmd!["SET", "k", "w"]);
    assert!(
        reply.error().is_some_and(|error| error.starts_with("NOREPLICAS")),
        "{reply}"
    );
    assert!(!told(errors));
    let output = Command::new(binary())
        .args(["verify", "--watch", "--admin", &sidecar.admin_address()])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("could be compared") || said.contains("could not"),
        "{said}"
    );
}
