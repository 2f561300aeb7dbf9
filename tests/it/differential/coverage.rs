//! No command is left out: each that is not refused is in the random programs, or has a test of its own.

use super::generate::{Shape, program};
use ringfence::command::CommandTable;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Commands that are tested elsewhere, and by which test: those whose answers are about one server, or that need more than
/// one client.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, &[&str])] = &[
    ("answers_are_those_of_a_plain_server", &[
        "acl|cat", "acl|genpass", "acl|getuser", "acl|help", "acl|list", "acl|users", "acl|whoami", "auth", "client|caching",
        "client|getredir", "client|help", "client|no-evict", "client|tracking", "client|trackinginfo", "client|unblock",
        "command|count", "command|docs", "command|getkeys", "command|getkeysandflags", "command|help", "command|info",
        "command|list", "config|get", "config|help", "fcall", "fcall_ro", "function|dump", "function|help", "function|list",
        "function|stats", "latency|graph", "latency|help", "latency|history", "latency|latest", "latency|reset", "lolwut",
        "memory|help", "module|help", "module|list", "object|help", "pubsub|help", "quit", "role", "script|help",
        "slowlog|help", "wait", "xgroup|help", "xinfo|help",
    ]),
    ("client_list_shows_the_clients_of_all_threads", &["client|info", "client|list"]),
    ("client_kill_reaches_every_thread", &["client|kill"]),
    ("a_pause_holds_commands_back", &["client|pause", "client|unpause"]),
    ("replies_can_be_turned_off", &["client|reply"]),
    ("monitor_shows_what_redis_shows", &["monitor"]),
    ("the_slow_log_keeps_what_took_long", &["slowlog|get", "slowlog|len", "slowlog|reset"]),
    ("info_has_the_form_and_the_fields_of_redis", &["info"]),
    ("info_counts", &["config|resetstat"]),
    ("latency_points_to_the_metrics", &["latency|doctor", "latency|histogram"]),
    ("time_and_wait_tell_the_truth", &["lastsave"]),
    ("watching_ends_where_it_ends_in_redis", &["unwatch", "watch"]),
    ("every_way_in_which_something_comes", &[
        "blmove", "blmpop", "blpop", "brpop", "brpoplpush", "bzmpop", "bzpopmax", "bzpopmin",
    ]),
    ("as_in_redis_in_resp2", &[
        "psubscribe", "publish", "pubsub|channels", "pubsub|numpat", "pubsub|numsub", "pubsub|shardchannels",
        "pubsub|shardnumsub", "punsubscribe", "spublish", "ssubscribe", "subscribe", "sunsubscribe", "unsubscribe",
    ]),
    ("functions_answer_as_those_of_redis", &[
        "function|delete", "function|flush", "function|load", "function|restore",
    ]),
    ("a_function_is_killed_and_what_has_written_is_not", &["function|kill", "script|kill"]),
];

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of tests").flatten();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// Full names of the commands that random programs have: `get`, `xgroup|create`.
fn generated(table: &CommandTable) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for seed in 0..120 {
        let shape = Shape {
            client: 0,
            commands: 500,
            resp3: seed % 2 == 0,
            alone: true,
            flush: true,
        };
        for command in program(seed, shape).steps.iter().flatten() {
            let name = command.name().to_lowercase();
            let sub = format!(
                "{name}|{}",
                String::from_utf8_lossy(command.bytes(1)).to_lowercase()
            );
            names.insert(if table.get(&sub).is_some() { sub } else { name });
        }
    }
    names
}

#[test]
fn every_command_that_is_not_refused_is_tested() {
    let table = CommandTable::builtin();
    let generated = generated(&table);
    let elsewhere = |name: &str| ELSEWHERE.iter().any(|(_, names)| names.contains(&name));
    let containers: BTreeSet<&str> = table
        .iter()
        .filter_map(|c| Some(c.name.split_once('|')?.0))
        .collect();
    let missing: Vec<&str> = table
        .iter()
        .filter(|command| !command.is_refused() && !containers.contains(&*command.name))
        .map(|command| &*command.name)
        .filter(|name| !generated.contains(*name) && !elsewhere(name))
        .collect();
    assert!(missing.is_empty(), "nothing tests {missing:?}");
    for (_, names) in ELSEWHERE {
        for name in *names {
            let command = table.get(name).unwrap_or_else(|| panic!("there is no {name}"));
            assert!(!command.is_refused(), "{name} is refused");
            assert!(!generated.contains(*name), "{name} is in the programs");
        }
    }
}

#[test]
fn the_tests_elsewhere_are_there_and_name_their_commands() {
    let sources: Vec<String> = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"))
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter(|text| !text.contains("const ELSEWHERE"))
        .collect();
    for (test, names) in ELSEWHERE {
        let source = sources.iter().find(|text| text.contains(&format!("fn {test}(")));
        let source = source
            .unwrap_or_else(|| panic!("there is no test {test}"))
            .to_lowercase();
        for name in *names {
            let words = name.split('|').all(|word| source.contains(word));
            assert!(
                words,
                "{test} is said to test {name}, and its file does not name it"
            );
        }
    }
}
