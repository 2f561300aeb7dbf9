//! `ringfence verify`.

use serde_json::{Value, json};

use super::mock::{Answer, Mock};
use super::{merged, pace, run_at, well};

fn verification(changes: &Value) -> Answer {
    Answer::Json(merged(
        json!({"state": "running", "keys": 5000, "different": 0, "repaired": 0, "skipped": 1, "partitions_done": 12,
               "partitions_total": 256, "keys_per_s": 20_000}),
        changes,
    ))
}

const RUNNING: &str =
    "running: 12 of 256 partitions, 5000 keys (20000/s), 0 different, 0 repaired, 1 skipped\n";

#[test]
fn it_is_started_and_left_alone() {
    let mock = Mock::start().on("POST /v1/verify", [verification(&json!({}))]);
    assert_eq!(well(&mock, "verify"), RUNNING);
    assert_eq!(well(&mock, "verify --rate 100"), RUNNING);
    assert_eq!(
        mock.asked(),
        [
            ("POST /v1/verify".to_owned(), json!({"keys_per_s": null})),
            ("POST /v1/verify".to_owned(), json!({"keys_per_s": 100})),
        ]
    );
}

#[test]
fn watching_ends_with_its_result() {
    let mock = Mock::start()
        .on("POST /v1/verify", [verification(&json!({}))])
        .on(
            "GET /v1/verify",
            [
                verification(&json!({})),
                verification(
                    &json!({"different": 2, "repaired": 2, "state": "done", "partitions_done": 256}),
                ),
            ],
        );
    let done = "done: 256 of 256 partitions, 5000 keys, 2 different, 2 repaired, 1 skipped\n";
    assert_eq!(well(&mock, "verify --watch"), format!("{RUNNING}{done}"));
    // Only looking starts nothing.
    assert_eq!(well(&mock, "verify --watch --status"), done);
    let posts = mock
        .asked()
        .iter()
        .filter(|(request, _)| request.starts_with("POST"))
        .count();
    assert_eq!(posts, 1);
}

#[test]
fn differences_that_stay_are_a_failure() {
    let left = json!({"different": 3, "repaired": 2, "state": "done", "partitions_done": 256});
    let mock = Mock::start()
        .on("POST /v1/verify", [verification(&json!({}))])
        .on("GET /v1/verify", [verification(&left)]);
    for words in ["verify --watch", "verify --status", "verify --status --json"] {
        let ended = run_at(mock.admin(), words, &pace());
        assert_eq!(ended.code, 1, "{words}");
        assert_eq!(
            ended.err,
            "ringfence: 1 key could not be made the same on all nodes: the sidecar's log says why; then verify again\n"
        );
    }
}

#[test]
fn one_that_does_not_end_is_a_failure() {
    for (state, sentence) in [
        (
            "stopped",
            "it was stopped after 12 of 256 partitions: `ringfence verify` begins again",
        ),
        (
            "idle",
            "the sidecar compares nothing (perhaps it was restarted): `ringfence verify` begins",
        ),
    ] {
        let mock = Mock::start().on("GET /v1/verify", [verification(&json!({"state": state}))]);
        let ended = run_at(mock.admin(), "verify --watch --status", &pace());
        assert_eq!((ended.code, ended.err), (1, format!("ringfence: {sentence}\n")));
    }
}

#[test]
fn it_can_be_looked_at_and_stopped() {
    let mock = Mock::start()
        .on("GET /v1/verify", [verification(&json!({"state": "idle"}))])
        .on("DELETE /v1/verify", [verification(&json!({"state": "stopped"}))]);
    assert_eq!(
        well(&mock, "verify --status"),
        "idle: nothing was compared since the sidecar's start\n"
    );
    assert_eq!(
        well(&mock, "verify --stop"),
        "stopped: 12 of 256 partitions, 5000 keys, 0 different, 0 repaired, 1 skipped\n"
    );
}
