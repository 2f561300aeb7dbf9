//! `docs/COMMANDS.md`: what becomes of every command of Redis 7.0, written from the table itself.
//!
//! What the table does not say, a difference that a client could see, is a note below: one short sentence, for a command, or
//! for all subcommands of a container. `UPDATE_DOCS=1 cargo test commands_are_documented` writes the page; without it the test
//! fails when the page does not say what the table says.

use super::CommandTable;
use super::rewrite::RewriteRule;
use super::spec::{Class, Command, Flags, Merge, Pool};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/COMMANDS.md");

const INTRODUCTION: &str = "\
# Commands

What becomes of every command of Redis 7.0. Written from the command table by a test (`src/command/notes.rs`): do not edit.
Newer nodes may know more commands; those go by what they say of themselves (`COMMAND`).

| what becomes of it | that is |
|---|---|
| here | answered by the sidecar itself |
| all threads | answered by the sidecar, every thread for its own clients |
| read | asked of one node that has every acknowledged write of the key |
| write | executed by all nodes that hold the key, in one order; answered when W have done so |
| split | cut by the keys' partitions, and the replies put together again |
| transaction | part of `MULTI` … `EXEC` |
| pool | asked of as many nodes as it takes, and answered once for each key, not for each copy |
| a node | asked of any one node: all would say the same |
| waits | served when there is data, or at the end of its time; first come, first served |
| messages | publish and subscribe |
| refused | an error that says what to use instead |

Reads and writes that name several keys may name any keys where the last column says nothing else.

| command | what becomes of it | different from one Redis |
|---|---|---|
";

const NO_REPLICAS: &str = "the pool has no replicas: its copies are kept by the sidecar";
const BY_SCAN: &str = "the cursor names a node; when nodes come or go, the walk starts over";
const EFFECT: &str = "one node decides the effect, which is then written to all";
const ABSOLUTE: &str = "the time is made absolute by the pool's clock before nodes get it";
const SCRIPTS: &str = "time and chance come from the pool's clock; keys that are not declared: see README, Scripts and functions";
const ANY_COPY: &str = "that of one of the copies";
const POOL_WIDE: &str = "not inside `MULTI`";

/// What a client can notice. A container's name stands for all its subcommands that have no note of their own.
const NOTES: &[(&[&str], &str)] = &[
    (
        &["acl|getuser", "acl|list", "acl|users", "acl|whoami"],
        "tells of the one user of `proxy.toml`, and nothing of its password",
    ),
    (
        &["client|caching", "client|tracking"],
        "client-side caching is not offered: only `OFF` is taken",
    ),
    (
        &["client|info"],
        "memory that nodes use for it is not counted; `lib-name` and `lib-ver` are shown as from 7.2 on",
    ),
    (
        &["client|kill"],
        "also takes `MAXAGE`, as from 7.4 on; not inside `MULTI`",
    ),
    (
        &["client|list"],
        "memory that nodes use for it is not counted; `lib-name` and `lib-ver` are shown as from 7.2 on; not inside `MULTI`",
    ),
    (&["client|no-evict"], "no client is ever evicted"),
    (&["client|pause"], "keys go on expiring meanwhile"),
    (&["client|unblock"], POOL_WIDE),
    (
        &["command"],
        "also lists commands that are refused; not inside `MULTI`",
    ),
    (&["config|get"], "the settings that mean something for a pool"),
    (
        &["config|resetstat"],
        "resets what `INFO` counts; the nodes' own numbers, and `/metrics`, count on",
    ),
    (&["copy"], "not to the bookkeeping database"),
    (
        &[
            "acl|cat",
            "acl|genpass",
            "dbsize",
            "keys",
            "lolwut",
            "module|list",
            "randomkey",
        ],
        POOL_WIDE,
    ),
    (
        &["eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"],
        SCRIPTS,
    ),
    (
        &["exec"],
        "over several partitions: nobody sees a part of it, but a crash may leave a part",
    ),
    (
        &["expire", "pexpire", "getex", "psetex", "restore", "set", "setex"],
        ABSOLUTE,
    ),
    (
        &["flushall", "flushdb"],
        "the bookkeeping database stays; with `threads` above 1, key by key",
    ),
    (
        &["function"],
        "kept with the pool, so that every node has them; changes, and `KILL`, not inside `MULTI`",
    ),
    (&["hello"], "the lowest version among the nodes is told"),
    (&["hscan", "sscan", "zscan"], BY_SCAN),
    (
        &["info"],
        "the sections that mean something for a pool, and one of its own; what nodes say is up to a second old",
    ),
    (
        &["lastsave"],
        "when the node that has not saved for the longest time did",
    ),
    (
        &["latency"],
        "as from a server whose latency monitor is off: see `/metrics`",
    ),
    (
        &[
            "memory|usage",
            "object|encoding",
            "object|freq",
            "object|idletime",
            "object|refcount",
        ],
        ANY_COPY,
    ),
    (
        &["monitor"],
        "shows what clients send to this sidecar; not what scripts call, and a transaction at its `EXEC`",
    ),
    (&["role"], NO_REPLICAS),
    (
        &["scan"],
        "the cursor names a node; when nodes come or go, the walk starts over; not inside `MULTI`",
    ),
    (
        &["script"],
        "kept with the pool, and shown to every node that needs it; not inside `MULTI`, except `LOAD` and `EXISTS`",
    ),
    (
        &["select"],
        "one database less: the bookkeeping database is not there for clients",
    ),
    (
        &["slowlog"],
        "the time that the client waited, acknowledgements included; a transaction as its `EXEC`; not what waits for data",
    ),
    (
        &["sort", "sort_ro"],
        "`BY` and `GET` patterns are refused: they read keys that may be anywhere",
    ),
    (&["spop", "xautoclaim"], EFFECT),
    (&["time"], "the pool's clock"),
    (
        &["wait"],
        "counts further nodes that have everything this sidecar has written, W - 1 at least; inside `MULTI` just these",
    ),
    (
        &["xadd"],
        "the id of `*` is chosen by the sidecar; `MAXLEN ~` trims exactly, whatever `LIMIT` says",
    ),
    (
        &["xclaim"],
        "with a minimal idle time, one node decides which ids that is",
    ),
    (
        &["watch"],
        "a node is asked whether something has changed; if that node dies, `EXEC` is not executed",
    ),
    (&["xtrim"], "`~` trims exactly, whatever `LIMIT` says"),
];

fn note(name: &str) -> Option<&'static str> {
    let by_name = |name: &str| {
        NOTES
            .iter()
            .find(|(names, _)| names.contains(&name))
            .map(|(_, note)| *note)
    };
    let container = || by_name(name.split_once('|')?.0);
    by_name(name).or_else(container)
}

/// The commands that are documented: all but the containers, which do nothing themselves.
pub(super) fn documented(table: &CommandTable) -> Vec<&Command> {
    let containers: Vec<&str> = table
        .iter()
        .filter_map(|c| Some(c.name.split_once('|')?.0))
        .collect();
    let mut all: Vec<&Command> = table
        .iter()
        .filter(|c| &*c.name == "command" || !containers.contains(&&*c.name))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn becomes(class: Class, command: &Command) -> String {
    match class {
        Class::Local => "here".to_owned(),
        Class::Transaction => "transaction".to_owned(),
        Class::Read => "read".to_owned(),
        Class::Write => "write".to_owned(),
        Class::Split(split) => {
            let kind = if command.flags.contains(Flags::WRITE) {
                "write"
            } else {
                "read"
            };
            let merged = match split.merge {
                Merge::Concat => "replies in the order of the keys",
                Merge::Sum => "replies added up",
                Merge::Any => "1 if any is",
                Merge::Ok => "`OK` when all are",
            };
            format!("split {kind}: {merged}")
        }
        Class::Pool(Pool::AnyNode) => "a node".to_owned(),
        Class::Pool(Pool::Clients) => "all threads".to_owned(),
        Class::Pool(_) => "pool".to_owned(),
        Class::Blocking(_) => "waits".to_owned(),
        Class::PubSub => "messages".to_owned(),
        Class::Refused(line) | Class::NotYet(line) => {
            let line = line.split_once(' ').map_or(line, |(_, sentence)| sentence);
            format!("refused: “{line}”")
        }
    }
}

fn row(command: &Command) -> String {
    let mut what = becomes(command.class, command);
    if let Some((words, other)) = command.unless {
        what = format!(
            "{what}; without `{}`: {}",
            words.join("`, `"),
            becomes(other, command)
        );
    }
    let name = command.name.replace('|', " ").to_uppercase();
    format!(
        "| `{name}` | {what} | {} |\n",
        note(&command.name).unwrap_or_default()
    )
}

fn page() -> String {
    let table = CommandTable::builtin();
    let rows: String = documented(&table).into_iter().map(row).collect();
    format!("{INTRODUCTION}{rows}")
}

#[test]
fn commands_are_documented() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &page).unwrap();
    }
    let written = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        written == page,
        "docs/COMMANDS.md does not say what the command table says: UPDATE_DOCS=1 cargo test commands_are_documented"
    );
}

#[test]
fn notes_are_for_commands_and_fit_into_the_table() {
    let table = CommandTable::builtin();
    for (at, (names, note)) in NOTES.iter().enumerate() {
        assert!(!note.contains(['|', '\n']), "{note}");
        for name in *names {
            assert!(table.get(name).is_some(), "{name}");
            let twice = NOTES.iter().skip(at + 1).any(|(others, _)| others.contains(name));
            assert!(!twice, "{name} has two notes");
        }
    }
}

/// A form of its own is something that a client may notice: in a time, an id, an order.
#[test]
fn commands_that_are_rewritten_have_a_note() {
    for command in CommandTable::builtin().iter() {
        let harmless = matches!(command.rewrite, None | Some(RewriteRule::Sort));
        assert!(harmless || note(&command.name).is_some(), "{}", command.name);
    }
}
