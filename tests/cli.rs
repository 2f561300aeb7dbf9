//! The binary as scripts meet it: its exit codes, and the variable that names the sidecar. What each command does is tested in
//! `src/cli/tests`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn ringfence(words: &[&str], admin: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(words)
        .env("RINGFENCE_ADMIN", admin)
        .output()
        .unwrap()
}

#[test]
fn wrong_usage_ends_with_64() {
    for words in [&["nodes"][..], &["nodes", "set", "n"], &["serve", "--confg", "x"]] {
        let output = ringfence(words, "127.0.0.1:6380");
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(ringfence(&["--help"], "127.0.0.1:6380").status.code(), Some(0));
}

#[test]
fn no_sidecar_ends_with_69() {
    // A port that was free a moment ago.
    let admin = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let output = ringfence(&["nodes", "list"], &admin);
    assert_eq!(output.status.code(), Some(69));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with(&format!("ringfence: no sidecar answers at {admin} ")),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}
