//! The check: one mistake at a time, all at once, and never a password.

use crate::config::{Config, Mistake};
use proptest::prelude::*;

/// A file without mistakes that sets as little as possible.
const SMALL: &str = r#"
[listen]
tcp = "127.0.0.1:6379"
[[nodes]]
name = "a"
address = "127.0.0.1:7001"
[[nodes]]
name = "b"
address = "127.0.0.1:7002"
[[nodes]]
name = "c"
address = "127.0.0.1:7003"
"#;

fn shown(text: &str) -> Vec<String> {
    Config::parse(text)
        .err()
        .into_iter()
        .flatten()
        .map(|mistake| mistake.to_string())
        .collect()
}

/// The only mistake of `text` is in this line and begins like this.
fn assert_mistake(text: &str, beginning: &str) {
    let mistakes = shown(text);
    let [mistake] = &mistakes[..] else {
        panic!("for {beginning}: {mistakes:#?}")
    };
    assert!(mistake.starts_with(beginning), "{mistake}\nis not\n{beginning}");
}

/// [`SMALL`] with a section before it.
fn with(section: &str) -> String {
    format!("{section}{SMALL}")
}

#[test]
fn the_small_file_has_no_mistakes() {
    assert_eq!(shown(SMALL), [""; 0]);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"threads = 0
colour = "red"
[listen]
admin = "localhost:6380"
[pool]
replicas = 3
write_quorum = 4
min_in_sync = "2"
partitions = 5000
coordinator = "etcd"
bookkeeping_db = 0
reads = "fsat"
[limits]
clients_max = 0
command_max = "64 miles"
backlog = "1B"
[timeouts]
node = 5
write = "0s"
client_idel = "1m"
[[nodes]]
name = "a"
address = "127.0.0.1:7001"
weight = 1001
[[nodes]]
name = "a"
address = "redis://:hunter2@127.0.0.1"
[[nodes]]
name = "c d"
address = "localhost:7001"
password = 12345
[[nodes]]
zone = "z1"
"#;
    let expected = r#"proxy.toml:1: threads: 0 is out of range: give a whole number from 1 to 64
proxy.toml:2: colour: there is no such setting: remove it
proxy.toml:3: listen: clients have nowhere to connect: set listen.tcp, listen.unix or both
proxy.toml:4: listen.admin: give an IP address and a port in quotes, such as "127.0.0.1:6379" ("0.0.0.0:6379" for all interfaces, port 0 for any free port)
proxy.toml:7: pool.write_quorum: 4 is more than replicas (3): set write_quorum to 3 or less, or raise replicas
proxy.toml:8: pool.min_in_sync: give a whole number from 1 to 7, without quotes
proxy.toml:9: pool.partitions: 5000 is out of range: give a whole number from 1 to 4096
proxy.toml:10: pool.coordinator: etcd is not available in this version: give "pool"
proxy.toml:11: pool.bookkeeping_db: 0 is out of range: give a whole number from 1 to 4095
proxy.toml:12: pool.reads: there is no such choice: did you mean "fast"? Give "linearizable" or "fast"
proxy.toml:14: limits.clients_max: 0 is out of range: give a whole number from 1 to 1000000
proxy.toml:15: limits.command_max: give a size from "1.0 KiB" to "1.0 GiB", such as "64MiB"
proxy.toml:16: limits.backlog: 1 B is too small: give a size from "1.0 KiB" to "1.0 TiB", such as "64MiB"
proxy.toml:18: timeouts.node: give a duration with its unit in quotes, from "1ms" to "1h", such as "500ms"; found a whole number
proxy.toml:19: timeouts.write: 0s is too short: give a duration with its unit in quotes, from "1ms" to "1h", such as "500ms"
proxy.toml:20: timeouts.client_idel: there is no such setting: did you mean client_idle?
proxy.toml:24: nodes[0].weight: 1001 is out of range: give a whole number from 1 to 1000
proxy.toml:26: nodes[1].name: "a" is the name of nodes[0] too: give each node a name of its own
proxy.toml:27: nodes[1].address: write only host and port, such as "10.0.0.1:6379": no scheme, no user, no password (they are settings)
proxy.toml:29: nodes[2].name: give a name of 1 to 64 letters, digits, '-', '_' or '.' in quotes
proxy.toml:30: nodes[2].address: is the address of nodes[0] too: two copies on one server are one copy, give each node its own
proxy.toml:31: nodes[2].password: give the password in quotes; found a whole number
proxy.toml:32: nodes[3].name: is missing: give this node its name
proxy.toml:32: nodes[3].address: is missing: give this node its address"#;
    assert_eq!(shown(text).join("\n"), expected);
}

#[test]
fn toml_that_cannot_be_read_is_one_mistake() {
    assert_mistake(
        "threads = 1\n[pool\nreplicas = 3\n",
        "proxy.toml:2: not valid TOML: ",
    );
    assert_mistake(
        "[pool]\nreplicas = 3\nreplicas = 2\n",
        "proxy.toml:3: not valid TOML: duplicate key",
    );
}

#[test]
fn an_empty_file_says_what_is_needed() {
    assert_eq!(
        shown(""),
        [
            "proxy.toml: listen: clients have nowhere to connect: set listen.tcp, listen.unix or both",
            "proxy.toml: nodes: there are no nodes: add a [[nodes]] section with name and address for each Redis server",
        ]
    );
}

#[test]
fn unknown_settings_and_sections_come_with_advice() {
    for (section, beginning) in [
        (
            "thread = 1",
            "proxy.toml:1: thread: there is no such setting: did you mean threads?",
        ),
        (
            "replicas = 3",
            "proxy.toml:1: replicas: there is no such setting here: replicas belongs under [pool]",
        ),
        (
            "[limit]\nbacklog = 1",
            "proxy.toml:1: limit: there is no such section: did you mean [limits]?",
        ),
        (
            "[[node]]\nname = 1",
            "proxy.toml:1: node: there is no such section: did you mean [[nodes]]?",
        ),
        (
            "[tls]\nkey = 1",
            "proxy.toml:1: tls: there is no such section: remove it",
        ),
        (
            "[pool]\nthreads = 1",
            "proxy.toml:2: pool.threads: there is no such setting here: threads stands at the top",
        ),
        (
            "[pool]\nweight = 1",
            "proxy.toml:2: pool.weight: there is no such setting here: weight belongs under [[nodes]]",
        ),
        (
            "pool = 3",
            "proxy.toml:1: pool: expected the settings of [pool], found a whole number",
        ),
    ] {
        assert_mistake(&with(section), beginning);
    }
    let single_brackets = "[listen]\ntcp = \"127.0.0.1:0\"\n[nodes]\nname = \"a\"\n";
    assert_mistake(
        single_brackets,
        "proxy.toml:3: nodes: write [[nodes]], with two brackets",
    );
    let list = "nodes = [1]\n[listen]\ntcp = \"127.0.0.1:0\"\n[pool]\nreplicas = 1";
    assert!(
        shown(list)[0].starts_with("proxy.toml:1: nodes[0]: expected a table with the settings of a node")
    );
}

#[test]
fn profiles_are_checked_and_chosen() {
    let own = "[pool]\nprofile = \"mine\"\n[[profiles.mine.key]]\npattern = \"job:{id}\"\nroute = \"job\"\n";
    let config = Config::parse(&with(own)).unwrap();
    assert_eq!(config.profile().keys.len(), 1);
    assert!(
        Config::parse(&with("[pool]\nprofile = \"zaqar\"\n"))
            .unwrap()
            .profile()
            .is_striped()
    );
    for (section, beginning) in [
        (
            "[pool]\nprofile = \"zakar\"\n",
            "proxy.toml:2: pool.profile: there is no profile \"zakar\": take one of generic, zaqar,",
        ),
        (
            "[profiles.rq]\nabout = \"x\"\n",
            "proxy.toml:1: profiles.rq: is built in: give your own profile another name",
        ),
        (
            "[profiles.mine]\nabot = \"x\"\n",
            "proxy.toml:1: profiles.mine: unknown field `abot`",
        ),
        (
            "[[profiles.mine.key]]\npattern = \"a:{b}\"\nroute = \"{c}\"\n",
            "proxy.toml:1: profiles.mine: key[0].route: {c} is not a place of the pattern",
        ),
        ("profiles = 3\n", "proxy.toml:1: profiles: write [profiles.NAME]"),
    ] {
        assert_mistake(&with(section), beginning);
    }
}

#[test]
fn copies_must_fit_together() {
    for (section, beginning) in [
        (
            "[pool]\nreplicas = 4",
            "proxy.toml:2: pool.replicas: 4 copies need at least as many nodes, and there are 3",
        ),
        (
            "[pool]\nreplicas = 8",
            "proxy.toml:2: pool.replicas: 8 is out of range: give a whole number from 1 to 7",
        ),
        (
            "[pool]\nwrite_quorum = 0",
            "proxy.toml:2: pool.write_quorum: 0 is out of range",
        ),
        (
            "[pool]\nreplicas = 1\nwrite_quorum = 2",
            "proxy.toml:3: pool.write_quorum: 2 is more than replicas (1)",
        ),
        (
            "[pool]\nreplicas = 2\nmin_in_sync = 3",
            "proxy.toml:3: pool.min_in_sync: 3 is more than replicas (2)",
        ),
        (
            "[pool]\nmin_in_sync = 1",
            "proxy.toml:2: pool.min_in_sync: 1 is less than write_quorum (2)",
        ),
        (
            "[pool]\nmin_in_sync = -1",
            "proxy.toml:2: pool.min_in_sync: -1 is out of range",
        ),
        (
            "[pool]\nreplicas = 2.0",
            "proxy.toml:2: pool.replicas: give a whole number from 1 to 7; found a number with",
        ),
        (
            "[pool]\nreplicas = 0xffffffffffffffffffffffff",
            "proxy.toml:2: pool.replicas: 79228162514264337593543950335 is",
        ),
    ] {
        assert_mistake(&with(section), beginning);
    }
    let two_nodes = SMALL.split_once("[[nodes]]\nname = \"c\"").unwrap().0;
    assert_mistake(
        two_nodes,
        "proxy.toml: pool.replicas: 3 copies need at least as many nodes, and there are 2",
    );
}

#[test]
fn the_quorum_follows_the_replicas_where_nothing_is_said() {
    for (section, expected) in [
        ("", (3, 2, 2)),
        ("[pool]\nreplicas = 1", (1, 1, 1)),
        ("[pool]\nreplicas = 2", (2, 2, 2)),
        ("[pool]\nwrite_quorum = 1", (3, 1, 1)),
        ("[pool]\nwrite_quorum = 1\nmin_in_sync = 3", (3, 1, 3)),
        ("[pool]\nwrite_quorum = 3", (3, 3, 3)),
    ] {
        let pool = Config::parse(&with(section)).unwrap().pool;
        assert_eq!(
            (pool.replicas, pool.write_quorum, pool.min_in_sync),
            expected,
            "{section}"
        );
    }
}

#[test]
fn a_node_is_not_ourselves() {
    for (listen, node) in [
        ("tcp = \"0.0.0.0:6379\"", "localhost:6379"),
        (
            "tcp = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:6380\"",
            "127.0.0.1:6380",
        ),
        ("unix = \"/run/ringfence.sock\"", "unix:/run/ringfence.sock"),
    ] {
        let text = format!(
            "[listen]\n{listen}\n[pool]\nreplicas = 1\n[[nodes]]\nname = \"a\"\naddress = \"{node}\"\n"
        );
        let mistakes = shown(&text);
        assert!(
            mistakes.len() == 1 && mistakes[0].contains("nodes[0].address: is our own listen."),
            "{mistakes:?}"
        );
    }
}

#[test]
fn listeners_do_not_share_an_address_unless_the_system_chooses() {
    let listen = |port| format!("[listen]\ntcp = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:{port}\"\n");
    let nodes = SMALL.split_once("[[nodes]]").unwrap().1;
    assert_mistake(
        &format!("{}[[nodes]]{nodes}", listen(6379)),
        "proxy.toml:3: listen.admin: is the address of listen.tcp",
    );
    assert_eq!(shown(&format!("{}[[nodes]]{nodes}", listen(0))), [""; 0]);
}

#[test]
fn other_sidecars_are_told_an_address_that_leads_here() {
    let nodes = SMALL.split_once("[[nodes]]").unwrap().1;
    let with = |lines: &str| format!("[listen]\ntcp = \"127.0.0.1:6379\"\n{lines}\n[[nodes]]{nodes}");
    for (lines, mistake) in [
        (
            "peer = \"127.0.0.1:6379\"",
            "listen.peer: is the address of listen.tcp",
        ),
        ("peer = \"0.0.0.0:1\"", "listen.peer: is every interface"),
        (
            "advertise = \"a:1\"",
            "listen.advertise: has no effect without listen.peer",
        ),
        (
            "peer = \"127.0.0.1:1\"\nadvertise = \"unix:/s\"",
            "listen.advertise: is a unix socket",
        ),
        (
            "peer = \"0.0.0.0:1\"\nadvertise = \"[::]:1\"",
            "listen.advertise: is every interface",
        ),
        (
            "peer = \"127.0.0.1:1\"\nadvertise = \"localhost:6379\"",
            "listen.advertise: is our own listen.tcp",
        ),
        (
            "peer = \"127.0.0.1:7001\"",
            "nodes[0].address: is our own listen.peer",
        ),
    ] {
        let mistakes = shown(&with(lines));
        assert!(
            mistakes.iter().any(|said| said.contains(mistake)),
            "{lines}: {mistakes:?}"
        );
    }
    let fine = "peer = \"0.0.0.0:1\"\nadvertise = \"host1:9\"\nadmin = \"127.0.0.1:2\"";
    assert_eq!(shown(&with(fine)), [""; 0]);
}

#[test]
fn a_user_needs_a_password_and_a_password_is_not_empty() {
    let text = SMALL.replace(
        "address = \"127.0.0.1:7002\"",
        "address = \"127.0.0.1:7002\"\nuser = \"admin\"",
    );
    assert_mistake(
        &text,
        "proxy.toml:10: nodes[1].user: has no effect without a password: set nodes[1].password too",
    );
    let text = SMALL.replace("[listen]", "[listen]\npassword = \"\"");
    assert_mistake(&text, "proxy.toml:3: listen.password: is empty");
    let text = SMALL.replace("[listen]", "[listen]\nuser = \"a b\"\npassword = \"x\"");
    assert_mistake(
        &text,
        "proxy.toml:3: listen.user: give a user name of 1 to 64 characters",
    );
}

#[test]
fn too_many_nodes_are_refused() {
    let node = |index: usize| {
        format!(
            "[[nodes]]\nname = \"n{index}\"\naddress = \"10.0.0.1:{}\"\n",
            index + 1
        )
    };
    let text: String = std::iter::once("[listen]\ntcp = \"127.0.0.1:0\"\n".to_owned())
        .chain((0..257).map(node))
        .collect();
    assert_mistake(
        &text,
        "proxy.toml:771: nodes: 257 nodes are too many: a pool has at most 256",
    );
}

#[test]
fn inline_tables_and_dotted_keys_are_understood() {
    let text = "listen.tcp = \"127.0.0.1:0\"\npool = { replicas = 1, write_quorum = 2 }\nnodes = [\n  \
                { name = \"a\", address = \"127.0.0.1:7001\", weigth = 1 },\n]\n";
    assert_eq!(
        shown(text),
        [
            "proxy.toml:2: pool.write_quorum: 2 is more than replicas (1): set write_quorum to 1 or less, or raise replicas",
            "proxy.toml:4: nodes[0].weigth: there is no such setting: did you mean weight?",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.toml");
    let load = || -> Vec<Mistake> { Config::load(&path).err().unwrap_or_default() };
    let only = |mistakes: Vec<Mistake>| {
        mistakes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let file = path.display().to_string();

    assert!(only(load()).starts_with(&format!("{file}: cannot be read: ")));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(
        only(load()),
        format!("{file}: is not UTF-8 text: save it as UTF-8")
    );
    std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert_eq!(
        only(load()),
        format!("{file}: is larger than 1 MiB: this is not a configuration file")
    );
    std::fs::write(&path, with("threads = 0")).unwrap();
    assert!(only(load()).starts_with(&format!("{file}:1: threads: ")));
    std::fs::write(&path, SMALL).unwrap();
    assert_eq!(Config::load(&path), Config::parse(SMALL));
}

const PASSWORD: &str = "correct-horse-battery";

#[test]
fn a_password_is_shown_nowhere() {
    let good = SMALL
        .replace("[listen]", &format!("[listen]\npassword = \"{PASSWORD}\""))
        .replace(
            "name = \"a\"",
            &format!("name = \"a\"\npassword = \"{PASSWORD}\""),
        );
    let config = Config::parse(&good).unwrap();
    assert_eq!(
        config.nodes[0].password.as_ref().map(|secret| secret.expose()),
        Some(PASSWORD)
    );
    assert!(!format!("{config:?} {config:#?}").contains(PASSWORD));

    for wrong in [
        format!("passwrd = \"{PASSWORD}\""),
        format!("password = [\"{PASSWORD}\"]"),
        format!("password = {{ is = \"{PASSWORD}\" }}"),
        format!("password = \"{PASSWORD}"),
        format!("password = {PASSWORD}"),
        format!("password = \"{PASSWORD}\" {PASSWORD}"),
        format!("password = \"{PASSWORD}\"\npassword = \"{PASSWORD}\""),
        format!("user = \"{PASSWORD} {PASSWORD}\"\npassword = 1"),
        format!("admin = \"redis://:{PASSWORD}@127.0.0.1:1\""),
        format!("unix = \"redis://:{PASSWORD}@127.0.0.1:1\""),
    ] {
        let mistakes = Config::parse(&SMALL.replace("[listen]", &format!("[listen]\n{wrong}"))).unwrap_err();
        assert!(!format!("{mistakes:?}").contains(PASSWORD), "{mistakes:?}");
    }
}

proptest! {
    /// What the check lets pass, serde must read; and nothing may panic.
    #[test]
    fn the_check_and_serde_agree(
        section in "(threads|listen.tcp|listen.unix|pool.name|pool.replicas|pool.reads|limits.backlog|timeouts.node|limits.clients_max|timeouts.client_idle)",
        value in r#"(-?[0-9]{1,20}|0x[0-9a-f]{1,20}|[0-9]\.[0-9]e?5|"[0-9]{1,20} ?(B|KiB|GB|ki|ms|s|m|h|d|year)?"|"(any|fast|[a-z/:.0-9\[\]]{0,20})"|true|\[\]|\{\}|1979-05-27|nan)"#,
    ) {
        for mistake in shown(&with(&format!("{section} = {value}")).replace("[listen]\ntcp = \"127.0.0.1:6379\"", "listen.admin = \"127.0.0.1:0\"")) {
            prop_assert!(!mistake.contains("is not understood"), "{}", mistake);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z\\[\\]=\". \n#{}0-9,\u{e4}]{0,200}") {
        let _ = Config::parse(&text);
    }
}
