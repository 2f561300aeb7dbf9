//! What drivers and operators' tools ask of "the server": compared with what a plain Redis answers, on one thread and on
//! several.

mod clients;
mod info;
mod keys;
mod monitor;

use crate::cmd;
use crate::harness::{
    Client, Endpoint, Node, NodeOptions, Pool, Reply, Sidecar, SidecarConfig, encode, wait_until,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn pool_of(threads: usize) -> (Pool, Sidecar) {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(threads).patient());
    (pool, sidecar)
}

/// A command as words; what is in single quotes is one of them.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            all.push(part.as_bytes().to_vec());
        } else {
            all.extend(part.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()));
        }
    }
    all
}

/// Every line has the same reply from both.
#[track_caller]
fn assert_alike(subject: &mut Client, reference: &mut Client, lines: &str) {
    let mut different = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (ours, theirs) = (subject.call(words(line)), reference.call(words(line)));
        if ours != theirs {
            different.push(format!("{line}\n  ours:   {ours}\n  theirs: {theirs}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[track_caller]
fn text(client: &mut Client, line: &str) -> String {
    let reply = client.call(words(line));
    reply.text().unwrap_or_else(|| panic!("{line}: {reply}"))
}

/// `name=value` of a line of `CLIENT LIST`, and of `INFO` with a colon.
fn fields(line: &str, sign: char) -> BTreeMap<String, String> {
    line.split_whitespace()
        .filter_map(|part| part.split_once(sign))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn names(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .filter_map(|part| Some(part.split_once('=')?.0))
        .collect()
}

const ALIKE: &str = "
    PING
    PING hello
    PING a b
    ECHO x
    ECHO
    SELECT x
    SELECT -1
    SELECT 15
    SELECT 16
    SELECT 1.5
    SELECT +1
    SELECT 01
    SELECT 99999999999999999999
    SELECT 4294967296
    SELECT 3
    RESET
    HELLO x
    HELLO 1
    HELLO 4 AUTH a b
    HELLO 2 SETNAME
    HELLO 2 AUTH a
    HELLO 2 FOO
    HELLO 2 SETNAME 'a b' AUTH foo bar
    HELLO 2 SETNAME kept AUTH foo bar
    CLIENT GETNAME
    HELLO 2 AUTH foo bar FOO
    AUTH x
    AUTH default x
    AUTH foo x
    AUTH a b c
    CLIENT SETNAME 'a b'
    CLIENT SETNAME me
    CLIENT GETNAME
    CLIENT SETNAME ''
    CLIENT GETNAME
    CLIENT
    CLIENT NOSUCH
    CLIENT SETINFO lib-name x
    CLIENT NO-TOUCH on
    CLIENT NO-EVICT x
    CLIENT NO-EVICT on
    CLIENT NO-EVICT off
    CLIENT REPLY x
    CLIENT REPLY on
    CLIENT GETREDIR
    CLIENT TRACKINGINFO
    CLIENT TRACKING off
    CLIENT TRACKING x
    CLIENT CACHING yes
    CLIENT UNBLOCK 999
    CLIENT UNBLOCK x
    CLIENT UNBLOCK 999 foo
    CLIENT UNBLOCK 999 error
    CLIENT UNBLOCK 999 timeout
    CLIENT UNBLOCK 999 error x
    CLIENT PAUSE x
    CLIENT PAUSE -1
    CLIENT PAUSE 1 foo
    CLIENT PAUSE 1 WRITE x
    CLIENT PAUSE 0
    CLIENT PAUSE 1 write
    CLIENT UNPAUSE
    CLIENT KILL
    CLIENT KILL 1.2.3.4:5
    CLIENT KILL ADDR
    CLIENT KILL ID x
    CLIENT KILL ID 0
    CLIENT KILL ID 99999
    CLIENT KILL TYPE x
    CLIENT KILL TYPE master
    CLIENT KILL TYPE replica
    CLIENT KILL TYPE pubsub LADDR a:1
    CLIENT KILL USER nobody
    CLIENT KILL USER default SKIPME x
    CLIENT KILL FOO bar
    CLIENT KILL ID 5 ADDR
    CLIENT KILL SKIPME yes ADDR 1.2.3.4:5
    CLIENT LIST TYPE x
    CLIENT LIST TYPE
    CLIENT LIST TYPE replica
    CLIENT LIST ID x
    CLIENT LIST ID
    CLIENT LIST ID 999
    CLIENT LIST FOO
    CLIENT HELP
    SLOWLOG
    SLOWLOG NOSUCH
    SLOWLOG HELP
    SLOWLOG reset
    SLOWLOG LEN
    SLOWLOG GET
    SLOWLOG GET 0
    SLOWLOG GET -1
    SLOWLOG GET -2
    SLOWLOG GET x
    SLOWLOG GET 1 2
    LATENCY LATEST
    LATENCY RESET
    LATENCY HISTORY x
    LATENCY GRAPH x
    LATENCY NOSUCH
    LATENCY HELP
    WAIT x 0
    WAIT 0 x
    WAIT 0 -1
    WAIT 0
    CONFIG
    CONFIG GET
    CONFIG GET nosuch
    CONFIG GET maxmemory-polic?
    CONFIG GET maxmemory MAXMEMORY
    CONFIG GET slowlog-log-slower-than
    CONFIG GET notify-keyspace-events
    CONFIG HELP
    CONFIG NOSUCH
    CONFIG RESETSTAT
    INFO nosuch
    INFO cluster
    INFO modules
    COMMAND COUNT
    COMMAND INFO get nosuch
    COMMAND GETKEYS MSET a 1 b 2
    COMMAND GETKEYS PING
    COMMAND GETKEYSANDFLAGS LMOVE a b LEFT RIGHT
    COMMAND LIST FILTERBY ACLCAT nosuch
    COMMAND DOCS nosuch
    COMMAND NOSUCH
    COMMAND HELP
    MODULE LIST
    MODULE HELP
    SCRIPT HELP
    PUBSUB HELP
    FUNCTION HELP
    FUNCTION LIST
    FUNCTION STATS
    FUNCTION DUMP
    FCALL none 0
    FCALL_RO none 0
    XGROUP HELP
    XINFO HELP
    CLIENT GETREDIR
    ROLE
    READONLY
    READWRITE
    ASKING
    CLUSTER INFO
    CLUSTER NOSUCH
    LOLWUT VERSION 99
    OBJECT FREQ none
    OBJECT IDLETIME none
    OBJECT REFCOUNT none
    OBJECT HELP
    MEMORY USAGE none
    MEMORY USAGE none SAMPLES 5
    MEMORY USAGE none SAMPLES x
    MEMORY HELP
    ACL WHOAMI
    ACL USERS
    ACL LIST
    ACL GETUSER default
    ACL GETUSER nobody
    ACL CAT nosuch
    ACL GENPASS 0
    ACL HELP
    MULTI
    PING
    CLIENT GETNAME
    SLOWLOG reset
    SLOWLOG LEN
    MONITOR
    SELECT 2
    CONFIG GET nosuch
    EXEC
    MULTI
    RESET
    EXEC
";

#[test]
fn answers_are_those_of_a_plain_server() {
    let options = NodeOptions::default().with("databases", "15");
    let reference = Node::start("reference", options);
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        for protocol in [2, 3] {
            let (mut ours, mut theirs) = (sidecar.client(), reference.client());
            let lines = ALIKE.replace("RESET\n", &format!("RESET\nHELLO {protocol}\n"));
            for client in [&mut ours, &mut theirs] {
                client.call(cmd!["HELLO", protocol]);
            }
            // The number of the client, and of the version if the nodes are others, is all that may differ.
            let hello = |client: &mut Client| {
                let items = client.call(cmd!["HELLO", protocol]).items();
                items
                    .chunks(2)
                    .filter(|pair| pair[0] != Reply::bulk("id"))
                    .map(<[Reply]>::to_vec)
                    .collect::<Vec<_>>()
            };
            assert_eq!(hello(&mut ours), hello(&mut theirs));
            // HELLO's answer names the client: what is between two of them is compared.
            let again = format!("HELLO {protocol}\n");
            for part in lines.split(&again) {
                hello(&mut ours);
                hello(&mut theirs);
                assert_alike(&mut ours, &mut theirs, part);
            }
            ours.call(cmd!["QUIT"]);
            assert!(ours.read_to_close(SOON).is_some());
        }
    }
}

#[test]
fn what_is_not_offered_says_what_to_do_instead() {
    let (_pool, sidecar) = pool_of(1);
    let mut client = sidecar.client();
    for (line, hint) in [
        ("CLIENT TRACKING on", "caching"),
        ("CONFIG SET notify-keyspace-events KEA", "proxy.toml"),
        ("CONFIG SET maxmemory-policy noeviction", "proxy.toml"),
        ("CONFIG REWRITE", "proxy.toml"),
        ("DEBUG SLEEP 0", "on a node"),
        ("DEBUG JMAP", "on a node"),
        ("SWAPDB 0 1", "SELECT"),
        ("MOVE k 1", "SELECT"),
        ("ACL SETUSER x", "proxy.toml"),
        ("SHUTDOWN NOSAVE", "proxy"),
        ("REPLICAOF NO ONE", "copies"),
        ("BGSAVE", "redis.conf"),
        ("MEMORY DOCTOR", "nodes"),
        ("MODULE LOAD x", "loadmodule"),
    ] {
        let reply = client.call(words(line));
        let error = reply
            .error()
            .unwrap_or_else(|| panic!("{line} is answered {reply}"));
        assert!(
            error.starts_with("ERR ") && error.contains(hint),
            "{line}: {error}"
        );
    }
}
