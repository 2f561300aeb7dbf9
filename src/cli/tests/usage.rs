//! What the command line takes.

use clap::{CommandFactory, Parser};

use super::Cli;
use crate::cli::args::exit_code;

/// The exit code for a line that is not executed.
fn refused(line: &str) -> (u8, String) {
    match Cli::try_parse_from(line.split(' ')) {
        Ok(cli) => panic!("{line} is taken: {cli:?}"),
        Err(error) => (exit_code(&error), error.to_string()),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_is_64_and_help_is_not_wrong() {
    for line in [
        "ringfence",
        "ringfence nodes",
        "ringfence nodes add 127.0.0.1:7004",
        "ringfence nodes add nowhere --name n",
        "ringfence nodes add redis://:secret@h:1 --name n",
        "ringfence nodes add 127.0.0.1:7004 --name n --weight 0",
        "ringfence nodes add 127.0.0.1:7004 --name n --dry-run --wait",
        "ringfence nodes drain",
        "ringfence nodes drain --wait ",
        "ringfence nodes set n",
        "ringfence nodes set n --zone a --no-zone",
        "ringfence nodes set n --wait",
        "ringfence ring stop",
        "ringfence verify --rate 0",
        "ringfence verify --stop --watch",
        "ringfence verify --status --rate 5",
        "ringfence ring plan --admin nowhere",
        "ringfence ring plan --admin unix:/run/x.sock",
    ] {
        assert_eq!(refused(line).0, 64, "{line}");
    }
    assert_eq!(refused("ringfence nodes --help").0, 0);
    assert_eq!(refused("ringfence --version").0, 0);
}

#[test]
fn the_admin_port_has_a_default_and_a_variable() {
    let (_, help) = refused("ringfence nodes list --help");
    assert!(help.contains("RINGFENCE_ADMIN"), "{help}");
    assert!(help.contains("[default: 127.0.0.1:6380]"), "{help}");
}

#[test]
fn target_and_format_stand_anywhere() {
    for line in [
        "ringfence nodes --json --admin [::1]:1 list",
        "ringfence nodes list --json --admin [::1]:1",
    ] {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let text = format!("{cli:?}");
        assert!(text.contains("admin: \"[::1]:1\", json: true"), "{text}");
    }
}
