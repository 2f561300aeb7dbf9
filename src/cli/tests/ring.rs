//! `ringfence ring`.

use std::time::Duration;

use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike};
use serde_json::{Value, json};

use super::mock::{Answer, Mock};
use super::{Pace, Screen, moves, pace, run_at, settled, well};
use crate::cli::operate::{Operate, Ring, RingCommand, Target, Watch};

const MOVING: &str =
    "moving: 3 of 8 copies made, 1.2 GiB of about 3.1 GiB, 85.0 MiB/s, about 1 min 23 s left";
const SETTLED: &str = "settled: 8 of 8 copies made, 12345 keys, 3.1 GiB, writes held for at most 850 us\n";

fn impatient() -> Pace {
    Pace {
        gone_max: Duration::ZERO,
        stalled_max: Duration::ZERO,
        ..pace()
    }
}

#[test]
fn a_plan_is_printed_as_before_a_change() {
    let plan = json!({"moves": 1, "ideal_moves": 1, "bytes_estimated": 1024, "partitions": 8,
                      "nodes": [{"name": "node4", "before": 0, "after": 1, "bytes_in": 1024}]});
    let mock = Mock::start().on("GET /v1/ring/plan", [Answer::Json(plan.clone())]);
    assert_eq!(
        well(&mock, "ring plan"),
        "1 copy of partitions to be made (at least 1 for any placement; the pool has 8 partitions), about 1.0 KiB:\n\
         NAME   COPIES NOW  COPIES THEN  TO COPY\n\
         node4           0            1  1.0 KiB\n"
    );
    let json: Value = serde_json::from_str(&well(&mock, "ring plan --json")).unwrap();
    assert_eq!(json, plan);
}

#[test]
fn a_status_shows_jobs_and_nodes() {
    let mock = Mock::start().on("GET /v1/ring", [Answer::Json(moves(&json!({})))]);
    assert_eq!(
        well(&mock, "ring status"),
        format!(
            "{MOVING}\n\n\
             FROM   TO     PARTITIONS  KEYS    COPIED  PHASE\n\
             node1  node4           2   700  70.0 MiB  scan\n\n\
             NAME   HOLDS  WANTED\n\
             node1      8       6\n\
             node4      1       6\n"
        )
    );
}

#[test]
fn steering_posts_and_shows_the_status() {
    for verb in ["pause", "resume", "cancel"] {
        let request = format!("POST /v1/ring/{verb}");
        let status = moves(&json!({"state": "paused", "jobs": [], "nodes": []}));
        let mock = Mock::start().on(&request, [Answer::Json(status)]);
        assert_eq!(
            well(&mock, &format!("ring {verb}")),
            "paused: 3 of 8 copies made, 1.2 GiB of about 3.1 GiB\n"
        );
        assert_eq!(mock.asked(), [(request, Value::Null)]);
    }
}

#[test]
fn without_a_terminal_a_line_is_what_happens() {
    let turn = json!({"moves_done": 4, "jobs": [], "eta_s": null});
    let mock = Mock::start().on(
        "GET /v1/ring",
        [
            Answer::Json(moves(&json!({}))),
            // Only the counts: nothing to say yet.
            Answer::Json(moves(
                &json!({"bytes_copied": 1_388_490_189_u64, "keys_copied": 13_000}),
            )),
            Answer::Json(moves(&turn)),
            Answer::Json(settled()),
        ],
    );
    assert_eq!(
        well(&mock, "ring status --watch"),
        format!(
            "{MOVING}; node1 to node4: 2 partitions, 700 keys, 70.0 MiB, scan\n\
             moving: 4 of 8 copies made, 1.2 GiB of about 3.1 GiB, 85.0 MiB/s\n\
             {SETTLED}"
        )
    );
    assert_eq!(mock.asked().len(), 4);
}

#[test]
fn counts_are_said_now_and_then() {
    let mock = Mock::start().on(
        "GET /v1/ring",
        [
            Answer::Json(moves(&json!({"jobs": []}))),
            Answer::Json(moves(&json!({"jobs": [], "bytes_copied": 2_288_490_189_u64}))),
            Answer::Json(moves(&json!({"jobs": [], "bytes_copied": 2_288_490_189_u64}))),
            Answer::Json(settled()),
        ],
    );
    let talkative = Pace {
        quiet: Duration::ZERO,
        ..pace()
    };
    let ended = run_at(mock.admin(), "ring status --watch", &talkative);
    let more = MOVING.replace("1.2 GiB", "2.1 GiB");
    assert_eq!(
        (ended.code, ended.out),
        (0, format!("{MOVING}\n{more}\n{SETTLED}"))
    );
}

#[test]
fn json_is_a_document_for_each_change() {
    let mock = Mock::start().on(
        "GET /v1/ring",
        [
            Answer::Json(moves(&json!({}))),
            Answer::Json(moves(&json!({}))),
            Answer::Json(moves(&json!({"keys_copied": 13_000}))),
            Answer::Json(settled()),
        ],
    );
    let documents: Vec<Value> = well(&mock, "ring status --watch --json")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        documents,
        [
            moves(&json!({})),
            moves(&json!({"keys_copied": 13_000})),
            settled()
        ]
    );
}

#[test]
fn a_pause_ends_the_watch() {
    let mock = Mock::start().on("GET /v1/ring", [Answer::Json(moves(&json!({"state": "paused"})))]);
    let ended = run_at(mock.admin(), "ring status --watch", &pace());
    assert_eq!(ended.code, 1);
    assert_eq!(
        ended.err,
        "ringfence: the moves are paused: `ringfence ring resume` goes on with them\n"
    );
}

#[test]
fn waiting_is_stuck_only_when_it_lasts() {
    let waiting = moves(&json!({"state": "waiting", "reason": "node4 does not answer", "jobs": []}));
    let mock = Mock::start().on(
        "GET /v1/ring",
        [Answer::Json(waiting.clone()), Answer::Json(settled())],
    );
    assert_eq!(
        well(&mock, "ring status --watch"),
        format!("waiting (node4 does not answer): 3 of 8 copies made, 1.2 GiB of about 3.1 GiB\n{SETTLED}")
    );

    let mock = Mock::start().on("GET /v1/ring", [Answer::Json(waiting)]);
    let ended = run_at(mock.admin(), "ring status --watch", &impatient());
    assert_eq!(ended.code, 1);
    assert_eq!(
        ended.err,
        "ringfence: the sidecar waits (node4 does not answer): it goes on by itself when that is over\n"
    );
}

#[test]
fn settled_elsewhere_than_wanted_is_not_done() {
    let cancelled = moves(&json!({"state": "settled", "jobs": []}));
    let mock = Mock::start().on("GET /v1/ring", [Answer::Json(cancelled)]);
    let ended = run_at(mock.admin(), "ring status --watch", &impatient());
    assert_eq!(ended.code, 1);
    assert_eq!(
        ended.err,
        "ringfence: nothing moves, but node1 holds 8 copies and should hold 6: if the rest was cancelled, ask for the change again\n"
    );
}

#[test]
fn a_sidecar_that_comes_back_is_watched_on() {
    let mock = Mock::start().on(
        "GET /v1/ring",
        [
            Answer::Json(moves(&json!({"jobs": []}))),
            Answer::HangUp,
            Answer::HangUp,
            Answer::No(503, "the pool is not served yet"),
            Answer::No(503, "the pool is not served yet"),
            Answer::Json(settled()),
        ],
    );
    let ended = run_at(mock.admin(), "ring status --watch", &pace());
    assert_eq!((ended.code, ended.out), (0, format!("{MOVING}\n{SETTLED}")));
    let admin = mock.admin();
    assert_eq!(
        ended.err,
        format!(
            "ringfence: the sidecar at {admin} has gone: trying for 600 s to reach it again\n\
             ringfence: the pool is not served yet: waiting until it serves\n\
             ringfence: the sidecar at {admin} is there again\n"
        )
    );
}

#[test]
fn a_sidecar_that_stays_away_is_given_up() {
    let mock = Mock::start().on(
        "GET /v1/ring",
        [Answer::Json(moves(&json!({"jobs": []}))), Answer::HangUp],
    );
    let ended = run_at(mock.admin(), "ring status --watch", &impatient());
    assert_eq!(ended.code, 69);
    assert_eq!(ended.out, format!("{MOVING}\n"));
    let lines: Vec<_> = ended.err.lines().collect();
    assert!(lines[0].ends_with("has gone: trying for 0 s to reach it again"));
    assert!(
        lines[1].ends_with("give the address of its admin port with --admin"),
        "{lines:?}"
    );
}

#[test]
fn on_a_terminal_there_is_a_bar() {
    /// Keeps what stands on the terminal after each drawing.
    #[derive(Debug)]
    struct Seen(InMemoryTerm, std::sync::Arc<std::sync::Mutex<Vec<String>>>);
    impl TermLike for Seen {
        fn width(&self) -> u16 {
            self.0.width()
        }
        fn move_cursor_up(&self, n: usize) -> std::io::Result<()> {
            self.0.move_cursor_up(n)
        }
        fn move_cursor_down(&self, n: usize) -> std::io::Result<()> {
            self.0.move_cursor_down(n)
        }
        fn move_cursor_right(&self, n: usize) -> std::io::Result<()> {
            self.0.move_cursor_right(n)
        }
        fn move_cursor_left(&self, n: usize) -> std::io::Result<()> {
            self.0.move_cursor_left(n)
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.0.write_line(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.write_str(text)
        }
        fn clear_line(&self) -> std::io::Result<()> {
            self.0.clear_line()
        }
        fn flush(&self) -> std::io::Result<()> {
            self.1.lock().unwrap().push(self.0.contents());
            self.0.flush()
        }
    }

    let mock = Mock::start().on(
        "GET /v1/ring",
        [Answer::Json(moves(&json!({}))), Answer::Json(settled())],
    );
    let term = InMemoryTerm::new(10, 120);
    let frames = std::sync::Arc::default();
    let seen = Seen(term.clone(), std::sync::Arc::clone(&frames));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen::new(&mut out, &mut err);
    screen.bar = Some(ProgressDrawTarget::term_like(Box::new(seen)));
    let watch = Operate::Ring(Ring {
        target: Target {
            admin: mock.admin().to_owned(),
            json: false,
        },
        command: RingCommand::Status(Watch { watch: true }),
    });
    assert_eq!(crate::cli::run(&watch, &mut screen, &pace()), 0);
    let frames = frames.lock().unwrap();
    let expected = format!(
        " 39% [===========>                  ]\n{MOVING}\n  node1 to node4: 2 partitions, 700 keys, 70.0 MiB, scan"
    );
    assert!(frames.contains(&expected), "{frames:#?}");
    assert_eq!(term.contents(), "", "the bar is taken away");
    assert_eq!(String::from_utf8(out).unwrap(), SETTLED);
}
