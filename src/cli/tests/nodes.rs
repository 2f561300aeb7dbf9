//! `ringfence nodes`.

use std::io::Write as _;

use serde_json::{Value, json};

use super::mock::{Answer, Mock};
use super::{moves, pace, run_at, settled, well};
use crate::cli::nodes::password;

fn nodes() -> Value {
    json!([
        {"name": "node1", "address": "127.0.0.1:7001", "state": "in_sync", "reason": null, "status": "active", "weight": 1,
         "zone": "a", "partitions": 256, "in_sync": 256, "wanted": 192, "lag_ops": 0, "memory_bytes": 1_288_490_189_u64, "pid": 12},
        {"name": "node4", "address": "redis-4.example.org:6379", "state": "copying", "reason": "12 of 192 partitions are copied",
         "status": "draining", "weight": 100, "zone": null, "partitions": 12, "in_sync": 10, "wanted": 192, "lag_ops": 1234,
         "memory_bytes": 2_097_152},
    ])
}

fn change(applied: bool, moves: u64) -> Answer {
    Answer::Json(json!({"applied": applied, "plan": {
        "moves": moves, "ideal_moves": 190, "bytes_estimated": 3_328_599_655_u64, "partitions": 256,
        "nodes": [
            {"name": "node1", "before": 256, "after": 192, "bytes_in": 0},
            {"name": "node4", "before": 0, "after": 192, "bytes_in": 3_328_599_655_u64},
        ],
    }}))
}

const PLAN: &str = "\
192 copies of partitions to be made (at least 190 for any placement; the pool has 256 partitions), about 3.1 GiB:
NAME   COPIES NOW  COPIES THEN  TO COPY
node1         256          192      0 B
node4           0          192  3.1 GiB
";

#[test]
fn a_list_is_a_table_with_reasons() {
    let mock = Mock::start().on("GET /v1/nodes", [Answer::Json(nodes())]);
    assert_eq!(
        well(&mock, "nodes list"),
        "\
NAME   ADDRESS                   STATE    STATUS    WEIGHT  ZONE  IN SYNC  HELD  WANTED   LAG   MEMORY
node1  127.0.0.1:7001            in_sync  active         1  a         256   256     192     0  1.2 GiB
node4  redis-4.example.org:6379  copying  draining     100  -          10    12     192  1234  2.0 MiB
  12 of 192 partitions are copied
"
    );
    let json: Value = serde_json::from_str(&well(&mock, "nodes list --json")).unwrap();
    assert_eq!(json, nodes());
    assert_eq!(mock.asked()[0], ("GET /v1/nodes".to_owned(), Value::Null));
}

#[test]
fn an_added_node_is_described_whole() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter 2\n").unwrap();
    let mock = Mock::start().on("POST /v1/nodes", [change(true, 192)]);
    let words = format!(
        "nodes add [fd00::4]:6379 --name node4 --weight 3 --zone b --user proxy --password-file {}",
        file.path().display()
    );
    assert_eq!(
        well(&mock, &words),
        format!("node4 is added.\n{PLAN}Follow it with `ringfence ring status --watch`.\n")
    );
    let body = json!({"name": "node4", "address": "[fd00::4]:6379", "weight": 3, "zone": "b", "user": "proxy",
                      "password": "hunter 2"});
    assert_eq!(mock.asked(), [("POST /v1/nodes".to_owned(), body)]);
}

#[test]
fn what_is_not_given_is_null() {
    let mock = Mock::start().on("POST /v1/nodes?dry_run=true", [change(false, 192)]);
    assert_eq!(
        well(&mock, "nodes add unix:/run/n.sock --name n --dry-run"),
        format!("Nothing was changed. This would be the effect:\n{PLAN}")
    );
    let body = json!({"name": "n", "address": "unix:/run/n.sock", "weight": 1, "zone": null, "user": null, "password": null});
    assert_eq!(mock.asked(), [("POST /v1/nodes?dry_run=true".to_owned(), body)]);
}

#[test]
fn waiting_watches_the_ring() {
    let mock = Mock::start()
        .on("POST /v1/nodes/node4/drain", [change(true, 192)])
        .on(
            "GET /v1/ring",
            [Answer::Json(moves(&json!({}))), Answer::Json(settled())],
        );
    assert_eq!(
        well(&mock, "nodes drain node4 --wait"),
        format!(
            "node4 is being drained.\n{PLAN}\
             moving: 3 of 8 copies made, 1.2 GiB of about 3.1 GiB, 85.0 MiB/s, about 1 min 23 s left; node1 to node4: 2 \
             partitions, 700 keys, 70.0 MiB, scan\n\
             settled: 8 of 8 copies made, 12345 keys, 3.1 GiB, writes held for at most 850 us\n"
        )
    );
    let asked: Vec<_> = mock.asked().into_iter().map(|(request, _)| request).collect();
    assert_eq!(
        asked,
        ["POST /v1/nodes/node4/drain", "GET /v1/ring", "GET /v1/ring"]
    );
}

#[test]
fn a_change_names_only_what_changes() {
    for (words, body) in [
        ("--weight 7", json!({"weight": 7})),
        ("--zone b", json!({"zone": "b"})),
        ("--no-zone", json!({"zone": null})),
        ("--undrain", json!({"draining": false})),
        (
            "--undrain --weight 7 --zone b",
            json!({"draining": false, "weight": 7, "zone": "b"}),
        ),
    ] {
        let mock = Mock::start().on("PATCH /v1/nodes/node4", [change(true, 0)]);
        assert_eq!(
            well(&mock, &format!("nodes set node4 {words}")),
            "node4 is changed.\nNothing is to be moved.\n"
        );
        assert_eq!(mock.asked(), [("PATCH /v1/nodes/node4".to_owned(), body)]);
    }
    let mock = Mock::start().on("PATCH /v1/nodes/node4?dry_run=true", [change(false, 192)]);
    well(&mock, "nodes set node4 --weight 2 --dry-run");
}

#[test]
fn a_removal_may_be_refused() {
    let mock = Mock::start().on(
        "DELETE /v1/nodes/node4",
        [
            Answer::No(409, "node4 still holds 12 partitions: drain it first"),
            Answer::Json(json!({"applied": true})),
        ],
    );
    let refused = run_at(mock.admin(), "nodes remove node4", &pace());
    assert_eq!(refused.code, 1);
    assert_eq!(refused.out, "");
    assert_eq!(
        refused.err,
        "ringfence: node4 still holds 12 partitions: drain it first\n"
    );
    assert_eq!(
        well(&mock, "nodes remove node4"),
        "node4 is removed: its server can be switched off.\n"
    );
}

#[test]
fn a_name_cannot_leave_its_place_in_the_path() {
    let mock = Mock::start();
    let ended = run_at(mock.admin(), "nodes remove a/../b?c#d%ä", &pace());
    assert_eq!((ended.code, ended.err.as_str()), (1, "ringfence: no such path\n"));
    assert_eq!(mock.asked()[0].0, "DELETE /v1/nodes/a%2F..%2Fb%3Fc%23d%25%C3%A4");
}

#[test]
fn passwords_come_from_a_file_or_the_environment() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let expose = |file: Option<&std::path::Path>, variable: Option<&str>| {
        password(file, variable.map(Into::into))
            .map(|secret| secret.map(|secret| secret.expose().to_owned()))
            .map_err(|failure| (failure.exit_code(), failure.to_string()))
    };
    assert_eq!(expose(None, None), Ok(None));
    assert_eq!(expose(None, Some("pw ")), Ok(Some("pw ".to_owned())));
    file.write_all(b"from file\r\n").unwrap();
    assert_eq!(
        expose(Some(file.path()), Some("pw")),
        Ok(Some("from file".to_owned()))
    );
    let empty = expose(None, Some("")).unwrap_err();
    assert_eq!(
        empty,
        (
            64,
            "the password in RINGFENCE_NODE_PASSWORD is empty: write it there, or leave it away".to_owned()
        )
    );
    let missing = expose(Some("/nowhere/pw".as_ref()), None).unwrap_err();
    assert_eq!(missing.0, 64);
    assert!(
        missing
            .1
            .starts_with("the password cannot be read from /nowhere/pw: ")
    );
}
