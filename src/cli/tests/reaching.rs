//! Sidecars that are not there, not ready, or no sidecars.

use std::net::TcpListener;

use super::mock::{Answer, Mock};
use super::{pace, run_at};

#[test]
fn nobody_is_there() {
    // A port that was free a moment ago.
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for words in [
        "nodes list",
        "nodes drain n",
        "ring status --watch",
        "ring pause",
        "verify",
    ] {
        let ended = run_at(&admin.to_string(), words, &pace());
        assert_eq!(ended.code, 69, "{words}");
        assert_eq!(
            ended.err,
            format!(
                "ringfence: no sidecar answers at {admin} (connection refused): start it, or give the address of its admin \
                 port with --admin\n"
            )
        );
    }
}

#[test]
fn one_that_does_not_serve_yet_says_so() {
    let mock = Mock::start().on("GET /v1/nodes", [Answer::No(503, "the pool is not served yet")]);
    let ended = run_at(mock.admin(), "nodes list", &pace());
    assert_eq!(
        (ended.code, ended.err.as_str()),
        (
            1,
            "ringfence: the pool is not served yet: try again when it serves\n"
        )
    );
}

#[test]
fn other_servers_are_recognised() {
    for answer in [
        Answer::Text(200, "<html>hello</html>"),
        Answer::Text(404, "not found"),
        Answer::Text(200, "[{\"name\": \"node1\"}]"),
    ] {
        let mock = Mock::start().on("GET /v1/nodes", [answer]);
        let ended = run_at(mock.admin(), "nodes list", &pace());
        assert_eq!((ended.code, ended.out.as_str()), (69, ""), "{ended:?}");
        assert!(
            ended
                .err
                .contains("does not answer like a sidecar of this version"),
            "{}",
            ended.err
        );
    }
}

#[test]
fn a_change_without_an_answer_is_not_called_undone() {
    let mock = Mock::start().on("POST /v1/nodes/n/drain", [Answer::HangUp]);
    let ended = run_at(mock.admin(), "nodes drain n", &pace());
    assert_eq!(ended.code, 69);
    assert!(
        ended
            .err
            .contains("so it may have done this or not: look with `ringfence nodes list`"),
        "{}",
        ended.err
    );
}

#[test]
fn what_a_sidecar_says_does_not_steer_the_terminal() {
    let mock = Mock::start().on("GET /v1/nodes", [Answer::No(500, "a\u{1b}[2Jb")]);
    let ended = run_at(mock.admin(), "nodes list", &pace());
    assert_eq!((ended.code, ended.err.as_str()), (1, "ringfence: a?[2Jb\n"));
}
