//! What drivers and operators' tools ask of "the server": compared with what a plain Redis answers, on one thread and on
//! several.

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
    SLOWLOG RESET
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

#[test]
fn client_list_shows_the_clients_of_all_threads() {
    let reference = Node::start("reference", NodeOptions::default());
    let theirs = text(&mut reference.client(), "CLIENT INFO");
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut clients: Vec<Client> = (0..9).map(|_| sidecar.client()).collect();
        let ids: Vec<i64> = clients
            .iter_mut()
            .map(|c| c.call(cmd!["CLIENT", "ID"]).int().unwrap())
            .collect();
        for (client, id) in clients.iter_mut().zip(&ids) {
            assert!(client.call(cmd!["CLIENT", "SETNAME", format!("n{id}")]).is_ok());
        }
        let mut unix = Client::connect(&sidecar.unix_endpoint());
        unix.call(cmd!["SELECT", 3]);
        unix.call(cmd!["MULTI"]);
        unix.call(cmd!["GET", "k"]);
        let list = text(&mut clients[4], "CLIENT LIST");
        let lines: Vec<BTreeMap<String, String>> = list.lines().map(|line| fields(line, '=')).collect();
        assert_eq!(lines.len(), 10, "{list}");
        // The fields of Redis 7.0, in its order, and the two that 7.2 has added.
        let own = text(&mut clients[0], "CLIENT INFO");
        assert_eq!(
            names(&own),
            [names(&theirs), vec!["lib-name", "lib-ver"]].concat()
        );
        assert!(
            own.ends_with("\n") && own.contains(" cmd=client|info user=default redir=-1 resp=2 "),
            "{own}"
        );
        let shown: Vec<i64> = lines.iter().map(|line| line["id"].parse().unwrap()).collect();
        assert!(shown.is_sorted(), "in the order they came: {shown:?}");
        for id in &ids {
            let line = lines
                .iter()
                .find(|line| line["id"] == id.to_string())
                .expect("every client");
            assert_eq!(line["name"], format!("n{id}"));
            assert_eq!(format!("{}", sidecar.endpoint()), line["laddr"]);
        }
        let unix = lines.last().unwrap();
        let expected = [
            ("db", "3"),
            ("multi", "1"),
            ("flags", "xU"),
            ("cmd", "get"),
            ("addr", &unix["laddr"]),
        ];
        for (field, value) in expected {
            assert_eq!(unix[field], value, "{field} of {unix:?}");
        }
        let some = format!("CLIENT LIST ID {} 999 {}", ids[7], ids[2]);
        let some = text(&mut clients[0], &some);
        assert_eq!(
            some.lines()
                .map(|line| fields(line, '=')["id"].clone())
                .collect::<Vec<_>>(),
            [ids[7].to_string(), ids[2].to_string()]
        );
        assert_eq!(
            text(&mut clients[0], "CLIENT LIST TYPE normal").lines().count(),
            10
        );
        assert_eq!(text(&mut clients[0], "CLIENT LIST TYPE pubsub"), "");
    }
}

fn is_closed(client: &mut Client) -> bool {
    client.try_call(&cmd!["PING"]).is_err()
}

#[test]
fn client_kill_reaches_every_thread() {
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut clients: Vec<Client> = (0..8).map(|_| sidecar.client()).collect();
        let infos: Vec<_> = clients
            .iter_mut()
            .map(|c| fields(&text(c, "CLIENT INFO"), '='))
            .collect();
        let (head, rest) = clients.split_at_mut(1);
        let killer = &mut head[0];
        assert!(killer.call(cmd!["CLIENT", "KILL", infos[1]["addr"]]).is_ok());
        assert!(is_closed(&mut rest[0]));
        assert_eq!(
            killer.call(cmd!["CLIENT", "KILL", "ID", infos[2]["id"]]),
            Reply::Int(1)
        );
        assert_eq!(
            killer.call(cmd!["CLIENT", "KILL", "ADDR", infos[3]["addr"], "TYPE", "normal"]),
            Reply::Int(1)
        );
        assert!(is_closed(&mut rest[1]) && is_closed(&mut rest[2]));
        // Both filters must hold.
        let both = cmd!["CLIENT", "KILL", "ADDR", infos[4]["addr"], "ID", infos[5]["id"]];
        assert_eq!(killer.call(both), Reply::Int(0));
        assert_eq!(killer.call(cmd!["CLIENT", "KILL", "MAXAGE", 1000]), Reply::Int(0));
        assert!(!is_closed(&mut rest[3]) && !is_closed(&mut rest[4]));
        let all = cmd!["CLIENT", "KILL", "LADDR", infos[0]["laddr"], "USER", "default"];
        assert_eq!(killer.call(all), Reply::Int(4));
        assert!(rest.iter_mut().all(is_closed));
        // Oneself: answered first, and what comes after is not done.
        let id = infos[0]["id"].clone();
        let suicide = [
            cmd!["CLIENT", "KILL", "ID", id, "SKIPME", "no"],
            cmd!["SET", "after", 1],
        ];
        let bytes: Vec<u8> = suicide.iter().flat_map(|command| encode(command)).collect();
        killer.send_raw(&bytes).unwrap();
        assert_eq!(killer.read_to_close(SOON).expect("it is closed"), b":1\r\n");
        let mut next = sidecar.client();
        assert_eq!(next.call(cmd!["EXISTS", "after"]), Reply::Int(0));
        wait_until("the others are gone", SOON, || {
            text(&mut next, "INFO clients").contains("connected_clients:1\r\n")
        });
        let own = fields(&text(&mut next, "CLIENT INFO"), '=')["addr"].clone();
        assert!(next.call(cmd!["CLIENT", "KILL", own]).is_ok());
        assert!(is_closed(&mut next));
    }
}

/// What a server with `MONITOR` shows of these commands, without times and addresses.
fn monitored(to: &Endpoint, others: usize) -> Vec<String> {
    let mut monitor = Client::connect(to);
    assert!(monitor.call(cmd!["MONITOR"]).is_ok());
    let mut clients: Vec<Client> = (0..others).map(|_| Client::connect(to)).collect();
    for line in [
        "SET a b",
        "GET a",
        "NOSUCH x",
        "GET",
        "LPUSH a 'with space'",
        "MULTI",
        "SET x y",
        "GET x",
        "EXEC",
        "MULTI",
        "SET q q",
        "DISCARD",
        "MULTI",
        "NOSUCH",
        "EXEC",
        "AUTH default secret",
        "AUTH foo bar",
        "HELLO 2 AUTH default secret SETNAME me",
        "CONFIG GET x",
        "CLIENT LIST",
        "SLOWLOG LEN",
        "PING",
        "EVAL 'return 1' 0",
        "SELECT 3",
        "get a",
        "SELECT 0",
        "MSET k1 v k2 v k3 v",
        "INFO server",
    ] {
        // A transaction belongs to one client.
        clients[0].call(words(line));
        if line == "PING" {
            for other in clients.iter_mut().skip(1) {
                other.call(cmd!["ECHO", "from another"]);
            }
        }
    }
    clients[0].call(cmd!["ECHO", "the end"]);
    let mut lines = Vec::new();
    loop {
        let line = monitor.recv().unwrap().text().unwrap();
        let (time, rest) = line.split_once(" [").unwrap();
        assert!(
            time.parse::<f64>().unwrap() > 1e9 && time.split_once('.').unwrap().1.len() == 6,
            "{time}"
        );
        let (place, command) = rest.split_once("] ").unwrap();
        lines.push(format!("{} {command}", place.split(' ').next().unwrap()));
        if command.contains("the end") {
            break;
        }
    }
    let refused = monitor.call(cmd!["GET", "a"]);
    assert_eq!(
        refused.error(),
        Some("ERR Replica can't interact with the keyspace")
    );
    assert_eq!(monitor.call(cmd!["RESET"]), Reply::Simple("RESET".into()));
    clients[0].call(cmd!["SET", "a", "b"]);
    assert_eq!(monitor.call(cmd!["GET", "a"]), Reply::bulk("b"));
    lines
}

#[test]
fn monitor_shows_what_redis_shows() {
    let reference = Node::start("reference", NodeOptions::default());
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut ours = monitored(&sidecar.endpoint(), 5);
        let mut theirs = monitored(&reference.endpoint(), 5);
        // What scripts call is seen by the nodes only; other clients' lines come when they come.
        theirs.retain(|line| !line.contains("lua"));
        for lines in [&mut ours, &mut theirs] {
            let end = lines.pop().unwrap();
            assert_eq!(
                lines.iter().filter(|line| line.contains("from another")).count(),
                4,
                "{end}"
            );
            lines.retain(|line| !line.contains("from another"));
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_monitor_that_does_not_read_is_disconnected() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3)
        .threads(2)
        .patient()
        .with("limits", "client_output_max = \"1MiB\"");
    let sidecar = Sidecar::start(&config);
    sidecar.allow_log("does not read");
    let mut monitor = sidecar.client();
    assert!(monitor.call(cmd!["MONITOR"]).is_ok());
    let mut client = sidecar.client();
    let large = "x".repeat(100_000);
    wait_until("the monitor is gone", Duration::from_secs(30), || {
        client.call(cmd!["ECHO", large]);
        !text(&mut client, "CLIENT LIST").contains("flags=O")
    });
    assert!(monitor.read_to_close(SOON).is_some());
}

#[test]
fn a_pause_holds_commands_back() {
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut boss = sidecar.client();
        let (mut writer, mut reader, mut multi) = (sidecar.client(), sidecar.client(), sidecar.client());
        assert!(boss.call(cmd!["SET", "k", 1]).is_ok());
        multi.call(cmd!["MULTI"]);
        multi.call(cmd!["INCR", "k"]);
        assert!(boss.call(cmd!["CLIENT", "PAUSE", 100_000, "WRITE"]).is_ok());
        for command in [
            cmd!["INCR", "k"],
            cmd!["PFCOUNT", "p"],
            cmd!["EVAL", "return 7", 0],
        ] {
            writer.send_raw(&encode(&command)).unwrap();
        }
        multi.send_raw(&encode(&cmd!["EXEC"])).unwrap();
        wait_until("two clients wait", SOON, || {
            text(&mut boss, "INFO clients").contains("blocked_clients:2\r\n")
        });
        assert_eq!(
            reader.call(cmd!["GET", "k"]),
            Reply::bulk("1"),
            "reads go on, and no write has been done"
        );
        // A shorter pause does not end a longer one.
        assert!(boss.call(cmd!["CLIENT", "PAUSE", 1, "WRITE"]).is_ok());
        assert_eq!(reader.call(cmd!["GET", "k"]), Reply::bulk("1"));
        assert!(boss.call(cmd!["CLIENT", "UNPAUSE"]).is_ok());
        let mut all = vec![writer.recv().unwrap().int().unwrap()];
        assert_eq!(
            (writer.recv().unwrap(), writer.recv().unwrap()),
            (Reply::Int(0), Reply::Int(7))
        );
        all.extend(multi.recv().unwrap().items().iter().filter_map(Reply::int));
        all.sort_unstable();
        assert_eq!(all, [2, 3]);
        let begin = Instant::now();
        assert!(boss.call(cmd!["CLIENT", "PAUSE", 300]).is_ok());
        assert_eq!(reader.call(cmd!["GET", "k"]), Reply::bulk("3"));
        assert!(
            begin.elapsed() >= Duration::from_millis(300),
            "{:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn the_slow_log_keeps_what_took_long() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).threads(4).patient();
    let config = config.with("limits", "slowlog_slower_than = \"100ms\"\nslowlog_max_len = 3");
    let sidecar = Sidecar::start(&config);
    let mut client = sidecar.client();
    assert!(client.call(cmd!["CLIENT", "SETNAME", "me"]).is_ok());
    let addr = fields(&text(&mut client, "CLIENT INFO"), '=')["addr"].clone();
    client.call(cmd!["SET", "fast", 1]);
    assert_eq!(client.call(cmd!["SLOWLOG", "LEN"]), Reply::Int(0));
    let slow = "local t = 0 for i = 1, 40000000 do t = t + i end return redis.call('INCR', KEYS[1])";
    for _ in 0..4 {
        assert!(client.call(cmd!["EVAL", slow, 1, "k"]).int().is_some());
    }
    let mut other = sidecar.client();
    assert_eq!(other.call(cmd!["SLOWLOG", "LEN"]), Reply::Int(3));
    let log = other.call(cmd!["SLOWLOG", "GET", 2]).items();
    let [Reply::Array(last), Reply::Array(_)] = log.as_slice() else {
        panic!("{log:?}")
    };
    let [id, time, took, args, shown_addr, name] = last.as_slice() else {
        panic!("{last:?}")
    };
    assert_eq!(id.int(), Some(3));
    assert!(
        time.int().unwrap() > 1_600_000_000 && took.int().unwrap() >= 100_000,
        "{last:?}"
    );
    assert_eq!(
        args.items(),
        [
            Reply::bulk("EVAL"),
            Reply::bulk(slow),
            Reply::bulk("1"),
            Reply::bulk("k")
        ]
    );
    assert_eq!(
        (shown_addr.clone(), name.clone()),
        (Reply::bulk(addr), Reply::bulk("me"))
    );
    assert!(other.call(cmd!["SLOWLOG", "RESET"]).is_ok());
    assert_eq!(client.call(cmd!["SLOWLOG", "GET"]), Reply::Array(Vec::new()));
}

fn info(client: &mut Client, sections: &str) -> BTreeMap<String, String> {
    let text = text(client, &format!("INFO {sections}"));
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            line.split_once(':')
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .expect(line)
        })
        .collect()
}

fn headings(client: &mut Client, sections: &str) -> Vec<String> {
    let text = text(client, &format!("INFO {sections}"));
    text.lines()
        .filter_map(|line| Some(line.strip_prefix("# ")?.to_owned()))
        .collect()
}

#[test]
fn info_has_the_form_and_the_fields_of_redis() {
    let reference = Node::start("reference", NodeOptions::default());
    let mut theirs = reference.client();
    let (_pool, sidecar) = pool_of(4);
    let mut ours = sidecar.client();
    for sections in [
        "",
        "default",
        "all",
        "everything",
        "server",
        "CPU clients nosuch server",
        "default commandstats",
    ] {
        let mut expected = headings(&mut theirs, sections);
        if sections.is_empty()
            || ["default", "all", "everything"]
                .iter()
                .any(|s| sections.contains(s))
        {
            expected.push("Ringfence".to_owned());
        }
        assert_eq!(headings(&mut ours, sections), expected, "INFO {sections}");
    }
    // Every field has one of Redis's names, and where it matters the same value.
    let (mine, redis) = (info(&mut ours, "everything"), info(&mut theirs, "everything"));
    let own: BTreeSet<String> = info(&mut ours, "ringfence").into_keys().collect();
    let per_command = |name: &str| name.starts_with("cmdstat_") || name.starts_with("errorstat_");
    for name in mine
        .keys()
        .filter(|name| !own.contains(*name) && !per_command(name))
    {
        assert!(redis.contains_key(name), "Redis has no {name}");
    }
    // Asked for by redis-py, ioredis, BullMQ, Sidekiq, RQ, kombu, redis_exporter and RedisInsight.
    for name in [
        "redis_version",
        "redis_mode",
        "loading",
        "role",
        "maxmemory_policy",
        "cluster_enabled",
        "evicted_keys",
    ] {
        assert_eq!(mine[name], redis[name], "{name}");
    }
    for name in [
        "os",
        "run_id",
        "tcp_port",
        "uptime_in_seconds",
        "uptime_in_days",
        "connected_clients",
        "maxclients",
        "blocked_clients",
        "used_memory",
        "used_memory_human",
        "used_memory_peak_human",
        "mem_fragmentation_ratio",
        "total_commands_processed",
        "instantaneous_ops_per_sec",
        "keyspace_hits",
        "expired_keys",
        "connected_slaves",
        "used_cpu_sys",
    ] {
        assert!(mine.contains_key(name), "{name} is missing");
    }
    assert!(mine["used_memory"].parse::<u64>().unwrap() > 100_000);
    assert_eq!(mine["run_id"].len(), 40);
    // A server that has served nothing has no lines there.
    let empty = headings(&mut sidecar.client(), "keyspace");
    assert_eq!(
        (empty, info(&mut ours, "keyspace").len()),
        (vec!["Keyspace".to_owned()], 0)
    );
}

#[test]
fn info_counts() {
    let (_pool, sidecar) = pool_of(4);
    let mut clients: Vec<Client> = (0..4).map(|_| sidecar.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(client.call(cmd!["SET", format!("k{at}"), 1]).is_ok());
        assert!(client.call(cmd!["SETEX", format!("e{at}"), 1000, 1]).is_ok());
        assert!(client.call(cmd!["LPUSH", format!("k{at}"), 1]).error().is_some());
        assert!(client.call(cmd!["DEBUG", "JMAP"]).error().is_some());
        assert!(client.call(cmd!["NOSUCH"]).error().is_some());
    }
    clients[1].call(cmd!["SELECT", 2]);
    clients[1].call(cmd!["SET", "x", 1]);
    let client = &mut clients[0];
    let of = |line: &str| fields(&line.replace(',', " "), '=');
    let stats = info(client, "commandstats");
    let calls = |name: &str, field: &str| of(&stats[&format!("cmdstat_{name}")])[field].clone();
    assert_eq!(
        (calls("set", "calls"), calls("set", "failed_calls")),
        ("5".into(), "0".into())
    );
    assert_eq!(
        (calls("lpush", "calls"), calls("lpush", "failed_calls")),
        ("4".into(), "4".into())
    );
    assert_eq!(
        (calls("debug", "calls"), calls("debug", "rejected_calls")),
        ("4".into(), "4".into())
    );
    assert!(calls("set", "usec").parse::<u64>().unwrap() > 0);
    let errors = info(client, "errorstats");
    assert_eq!(
        (
            errors["errorstat_WRONGTYPE"].as_str(),
            errors["errorstat_ERR"].as_str()
        ),
        ("count=4", "count=8")
    );
    assert_eq!(info(client, "stats")["total_error_replies"], "12");
    // The nodes are looked at once a second.
    wait_until("the keys are counted", SOON, || {
        let keys = info(client, "keyspace");
        keys.get("db0")
            .is_some_and(|db| db.starts_with("keys=8,expires=4,avg_ttl="))
            && keys
                .get("db2")
                .is_some_and(|db| db == "keys=1,expires=0,avg_ttl=0")
            && keys.len() == 2
    });
    assert!(client.call(cmd!["CONFIG", "RESETSTAT"]).is_ok());
    let after = info(client, "commandstats errorstats");
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        ["cmdstat_config|resetstat"],
        "{after:?}"
    );
}

#[test]
fn config_get_has_names_of_redis_and_values_of_the_pool() {
    let reference = Node::start("reference", NodeOptions::default());
    let (_pool, sidecar) = pool_of(4);
    let (mut ours, mut theirs) = (sidecar.client(), reference.client());
    let get = |client: &mut Client, patterns: &str| -> BTreeMap<String, String> {
        let items = client.call(words(&format!("CONFIG GET {patterns}"))).items();
        items
            .chunks(2)
            .map(|pair| (pair[0].text().unwrap(), pair[1].text().unwrap()))
            .collect()
    };
    let (mine, redis) = (get(&mut ours, "*"), get(&mut theirs, "*"));
    for name in mine.keys() {
        assert!(redis.contains_key(name), "Redis has no {name}");
    }
    assert!(!mine.contains_key("requirepass"));
    for (name, value) in [
        ("io-threads", "4"),
        ("maxclients", "20000"),
        ("databases", "16"),
        ("appendonly", "yes"),
    ] {
        assert_eq!(mine[name], value, "{name}");
    }
    let some = get(&mut ours, "max*y Databases slowlog-??x-len");
    assert_eq!(
        some.keys().collect::<Vec<_>>(),
        ["databases", "maxmemory", "maxmemory-policy", "slowlog-max-len"]
    );
}

#[test]
fn a_password_is_asked_for_and_never_told() {
    let options = NodeOptions::default()
        .with("databases", "15")
        .with("requirepass", "secret-word");
    let reference = Node::start("reference", options);
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3)
        .patient()
        .with("listen", "password = \"secret-word\"");
    let sidecar = Sidecar::start(&config);
    for protocol in [2, 3] {
        let (mut ours, mut theirs) = (sidecar.client(), Client::connect(&reference.endpoint()));
        let lines = "
            GET a
            NOSUCH
            GET
            PING
            MULTI
            CLIENT LIST
            HELLO
            HELLO 3
            HELLO 2 SETNAME me
            HELLO 2 AUTH default wrong
            HELLO 2 AUTH nobody secret-word
            AUTH wrong
            AUTH default wrong
            AUTH nobody secret-word
            AUTH a b c
            GET a
            RESET
            AUTH default secret-word
            CLIENT GETNAME
            ACL WHOAMI
            ACL USERS
            GET a
            RESET
            GET a
            AUTH secret-word
            GET a
            AUTH wrong
            GET a
        ";
        assert_alike(&mut ours, &mut theirs, lines);
        for hello in [
            cmd![
                "HELLO",
                protocol,
                "SETNAME",
                "me",
                "AUTH",
                "default",
                "secret-word"
            ],
            cmd![
                "HELLO",
                protocol,
                "AUTH",
                "default",
                "secret-word",
                "SETNAME",
                "you"
            ],
        ] {
            let mut fresh = sidecar.client();
            assert_eq!(fresh.call(hello.clone()).items().len(), 14);
            let name = hello[if hello[2] == b"SETNAME" { 3 } else { 6 }].clone();
            assert_eq!(fresh.call(cmd!["CLIENT", "GETNAME"]), Reply::Bulk(name));
        }
        for line in [
            "ACL LIST",
            "ACL GETUSER default",
            "CONFIG GET *",
            "INFO everything",
            "CLIENT LIST",
        ] {
            let reply = format!("{:?}", ours.call(words(line)));
            assert!(
                !reply.contains("secret-word") && !reply.contains("nopass"),
                "{line}: {reply}"
            );
        }
    }
}

#[test]
fn latency_points_to_the_metrics() {
    let (_pool, sidecar) = pool_of(1);
    let mut client = sidecar.client();
    assert!(text(&mut client, "LATENCY DOCTOR").contains("/metrics"));
    assert_eq!(
        client.call(words("LATENCY HISTOGRAM get")),
        Reply::Array(Vec::new())
    );
    client.call(cmd!["HELLO", 3]);
    assert_eq!(client.call(words("LATENCY HISTOGRAM")), Reply::Map(Vec::new()));
}

#[test]
fn a_client_that_waits_is_unblocked_from_any_thread() {
    let reference = Node::start("reference", NodeOptions::default());
    let (_pool, sidecar) = pool_of(4);
    let [ours, theirs] = [sidecar.endpoint(), reference.endpoint()].map(|to| {
        let mut boss = Client::connect(&to);
        let mut replies = Vec::new();
        for how in ["", "TIMEOUT", "ERROR"] {
            let mut waiting = Client::connect(&to);
            let id = waiting.call(cmd!["CLIENT", "ID"]).int().unwrap();
            waiting.send_raw(&encode(&cmd!["BLPOP", "nothing", 0])).unwrap();
            wait_until("it waits", SOON, || {
                text(&mut boss, "INFO clients").contains("blocked_clients:1\r\n")
            });
            assert!(text(&mut boss, "CLIENT LIST").contains("flags=b "));
            replies.push(boss.call(words(&format!("CLIENT UNBLOCK {id} {how}"))));
            replies.push(waiting.recv().unwrap());
            replies.push(boss.call(words(&format!("CLIENT UNBLOCK {id}"))));
        }
        replies
    });
    assert_eq!(ours, theirs);
}

#[test]
fn replies_can_be_turned_off() {
    let reference = Node::start("reference", NodeOptions::default());
    let (_pool, sidecar) = pool_of(1);
    let [ours, theirs] = [sidecar.client(), reference.client()].map(|mut client| {
        for line in [
            "CLIENT REPLY SKIP",
            "SET a 1",
            "GET a",
            "CLIENT REPLY OFF",
            "SET a 2",
            "CLIENT REPLY SKIP",
            "PING",
            "CLIENT REPLY ON",
            "GET a",
            "CLIENT REPLY SKIP",
            "PING",
            "ECHO end",
        ] {
            client.send_raw(&encode(&words(line))).unwrap();
        }
        (0..4).map(|_| client.recv().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(ours, theirs);
}

#[test]
fn keys_are_counted_and_found_at_once_on_every_thread() {
    let (pool, sidecar) = pool_of(4);
    let mut clients: Vec<Client> = (0..4).map(|_| sidecar.client()).collect();
    let mut all = BTreeSet::new();
    for asked in ["DBSIZE", "KEYS *", "SCAN 0 COUNT 1000", "RANDOMKEY"] {
        for node in &pool.nodes {
            // The others acknowledge these writes, and most of them are still to be sent to this one.
            node.stop();
            for _ in 0..12 {
                let key = format!("k{}", all.len());
                assert!(clients[0].call(cmd!["SET", key, 1]).is_ok());
                all.insert(key.into_bytes());
            }
            clients[1].send_raw(&encode(&words(asked))).unwrap();
            node.cont();
            let reply = clients[1].recv().unwrap();
            let bytes = |keys: Vec<Reply>| {
                keys.iter()
                    .filter_map(|k| k.bytes().map(<[u8]>::to_vec))
                    .collect::<BTreeSet<_>>()
            };
            match asked {
                "DBSIZE" => assert_eq!(reply, Reply::Int(all.len() as i64)),
                "KEYS *" => assert_eq!(bytes(reply.items()), all),
                "RANDOMKEY" => assert!(bytes(vec![reply]).is_subset(&all)),
                _ => {
                    let mut found = BTreeSet::new();
                    let mut page = reply.items();
                    loop {
                        found.extend(bytes(page[1].items()));
                        let cursor = page[0].text().unwrap();
                        if cursor == "0" {
                            break;
                        }
                        page = clients[1].call(cmd!["SCAN", cursor, "COUNT", 1000]).items();
                    }
                    assert_eq!(found, all);
                }
            }
        }
    }
    for (protocol, args) in [
        (2, "COUNT 1000"),
        (3, "MATCH k* TYPE string COUNT 7"),
        (2, "TYPE list"),
        (3, "TYPE hash"),
    ] {
        let client = &mut clients[0];
        client.call(cmd!["HELLO", protocol]);
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let page = client.call(words(&format!("SCAN {cursor} {args}"))).items();
            found.extend(
                page[1]
                    .items()
                    .iter()
                    .filter_map(|k| k.bytes().map(<[u8]>::to_vec)),
            );
            cursor = page[0].text().unwrap();
            if cursor == "0" {
                break;
            }
        }
        let distinct: BTreeSet<Vec<u8>> = found.iter().cloned().collect();
        let wanted = if args.contains("list") || args.contains("hash") {
            BTreeSet::new()
        } else {
            all.clone()
        };
        assert_eq!(distinct, wanted, "{args}");
        assert_eq!(found.len(), wanted.len(), "no copies, {args}");
    }
}

#[test]
fn any_key_may_be_the_random_one() {
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2).patient());
    let mut client = sidecar.client();
    assert!(client.call(cmd!["RANDOMKEY"]).is_nil());
    let all: BTreeSet<String> = (0..24).map(|n| format!("k{n}")).collect();
    for key in &all {
        client.call(cmd!["SET", key, 1]);
    }
    let mut seen = BTreeSet::new();
    wait_until("every key was chosen once", SOON, || {
        seen.insert(text(&mut client, "RANDOMKEY"));
        seen == all
    });
    // A node is missing: what it may have is not asked of it.
    pool.nodes[1].kill9();
    sidecar.allow_log("node");
    client.call(cmd!["DEL", "k0"]);
    wait_until("the node is given up", SOON, || {
        sidecar.node_state("b") != "in_sync"
    });
    for _ in 0..100 {
        let key = text(&mut client, "RANDOMKEY");
        assert!(all.contains(&key) && key != "k0", "{key}");
    }
}

#[test]
fn time_and_wait_tell_the_truth() {
    let (_pool, sidecar) = pool_of(1);
    let mut client = sidecar.client();
    let mut micros = BTreeSet::new();
    for _ in 0..20 {
        let time = client.call(cmd!["TIME"]).items();
        let part = |at: usize| time[at].text().unwrap().parse::<u64>().unwrap();
        assert!(part(0) > 1_600_000_000 && part(1) < 1_000_000);
        micros.insert(part(1) % 1000);
    }
    assert!(micros.len() > 1, "TIME has no microseconds: {micros:?}");
    assert!(client.call(cmd!["SET", "k", 1]).is_ok());
    assert!(client.call(cmd!["LASTSAVE"]).int().unwrap() > 1_600_000_000);
    // W = 2: one further copy is certain, before the reply to SET.
    assert_eq!(client.call(cmd!["WAIT", 1, 0]), Reply::Int(1));
    client.call(cmd!["MULTI"]);
    client.call(cmd!["SET", "k", 2]);
    client.call(cmd!["WAIT", 1, 0]);
    assert_eq!(client.call(cmd!["EXEC"]).items()[1], Reply::Int(1));
}

#[test]
fn wait_counts_the_nodes_that_have_it() {
    for threads in [1, 3] {
        let (pool, sidecar) = pool_of(threads);
        let mut client = sidecar.client();
        assert!(client.call(cmd!["SET", "k", 1]).is_ok());
        assert_eq!(client.call(cmd!["WAIT", 2, 0]), Reply::Int(2));
        pool.nodes[2].stop();
        for n in 0..10 {
            assert!(client.call(cmd!["SET", format!("k{n}"), 1]).is_ok());
        }
        let begin = Instant::now();
        assert_eq!(client.call(cmd!["WAIT", 1, 10_000]), Reply::Int(1));
        assert!(begin.elapsed() < Duration::from_secs(5));
        let begin = Instant::now();
        assert_eq!(
            client.call(cmd!["WAIT", 2, 200]),
            Reply::Int(1),
            "one node has not got it"
        );
        assert!(begin.elapsed() >= Duration::from_millis(200));
        client.send_raw(&encode(&cmd!["WAIT", 2, 0])).unwrap();
        pool.nodes[2].cont();
        assert_eq!(client.recv().unwrap(), Reply::Int(2));
        // More than there are copies: for as long as it is told to.
        assert_eq!(client.call(cmd!["WAIT", 3, 100]), Reply::Int(2));
        // Nobody is left to be told.
        client.send_raw(&encode(&cmd!["WAIT", 3, 0])).unwrap();
    }
}
