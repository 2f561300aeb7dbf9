//! Nodes come and go while clients work: nothing acknowledged is lost, no client sees an error, and everything is where it should
//! be afterwards, and nowhere else.

use super::workload::Workload;
use super::{RECOVERY_MAX, allow_node_trouble, finish, wait_progress};
use crate::convergence::contents;
use crate::harness::{Node, NodeEntry, Pool, Sidecar, SidecarConfig, binary, seed, wait_until};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a few thousand keys may take to find their place.
const MOVE_MAX: Duration = Duration::from_secs(30);

#[track_caller]
fn add(sidecar: &Sidecar, node: &Node) -> Value {
    let body = json!({"name": node.name, "address": node.endpoint().to_string()});
    let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

#[track_caller]
fn drain(sidecar: &Sidecar, name: &str) {
    let (status, answer) = sidecar.ask("POST", &format!("/v1/nodes/{name}/drain"), &Value::Null);
    assert_eq!(status, 200, "{answer}");
}

fn longest_hold_ms(sidecar: &Sidecar) -> u64 {
    sidecar.admin("/v1/ring")["longest_hold_us"]
        .as_u64()
        .expect("a number")
        / 1000
}

/// R = 1 is in it, too: without an account, a partition changes its only place.
#[test]
fn nodes_are_added_drained_and_removed_under_load() {
    for (nodes, replicas, threads) in [(3, 3, 1), (3, 2, 2), (2, 1, 1)] {
        let seed = seed();
        let mut pool = Pool::start(nodes);
        let sidecar = Sidecar::start(&SidecarConfig::of(&pool, replicas).threads(threads));
        let workload = Workload::start(&sidecar.endpoint(), seed);
        wait_progress(&workload);
        for _ in 0..2 {
            let node = pool.start_another();
            let answer = add(&sidecar, node);
            assert!(answer["plan"]["moves"].as_u64() > Some(0), "{answer}");
            assert_ne!(sidecar.admin("/v1/ring")["state"], "settled", "it has just begun");
            sidecar.wait_settled(MOVE_MAX);
            wait_progress(&workload);
        }
        drain(&sidecar, "a");
        sidecar.wait_settled(MOVE_MAX);
        wait_until("the drained node is empty", MOVE_MAX, || {
            contents(&mut pool.node("a").client()).is_empty()
        });
        let (status, answer) = sidecar.ask("DELETE", "/v1/nodes/a", &Value::Null);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            pool.node("a").client().call(crate::cmd!["SELECT", 15]).error(),
            None
        );
        pool.nodes.remove(0);
        wait_progress(&workload);
        println!(
            "{nodes} nodes, R = {replicas}, threads = {threads}: longest hold {} ms",
            longest_hold_ms(&sidecar)
        );
        let outcome = finish(&pool, &sidecar, workload, seed);
        println!("longest gap of a client {:?}", outcome.longest_gap);
        assert!(outcome.errors.is_empty(), "SEED={seed}: {:?}", outcome.errors);
        // The pool is as it was left, for a sidecar that knows only the first nodes.
        sidecar.allow_log("the node is in proxy.toml, but not in the pool");
        sidecar.restart();
        assert_eq!(
            sidecar.admin("/v1/nodes").as_array().map(Vec::len),
            Some(nodes + 1)
        );
        crate::convergence::assert_converged(&pool, &sidecar);
    }
}

/// A sidecar that is killed in the middle of it goes on with it when it is started again.
#[test]
fn a_change_that_is_interrupted_goes_on() {
    is_interrupted_and_goes_on(2);
}

/// With one copy there are two only during a hand-over, and nothing tells which of them has more.
#[test]
fn a_change_of_the_only_copy_that_is_interrupted_goes_on() {
    is_interrupted_and_goes_on(1);
}

fn is_interrupted_and_goes_on(replicas: usize) {
    let seed = seed();
    let mut pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, replicas).with("limits", "copy_rate = \"128KiB\"");
    let sidecar = Sidecar::start(&config);
    let workload = Workload::start(&sidecar.endpoint(), seed);
    let mut client = sidecar.client();
    for at in 0..3000 {
        client.call(crate::cmd!["SET", format!("key-{at}"), "x".repeat(400)]);
    }
    wait_progress(&workload);
    let node = pool.start_another();
    add(&sidecar, node);
    for _ in 0..3 {
        wait_until("it moves", MOVE_MAX, || {
            let ring = sidecar.admin("/v1/ring");
            ring["state"] == "moving" && ring["keys_copied"].as_u64() > Some(0)
        });
        sidecar.kill9();
        sidecar.restart();
        wait_progress(&workload);
    }
    let toml = std::fs::read_to_string(sidecar.config_path()).expect("proxy.toml");
    std::fs::write(sidecar.config_path(), toml.replace("128KiB", "1GiB")).expect("proxy.toml");
    sidecar.restart();
    sidecar.wait_settled(MOVE_MAX);
    finish(&pool, &sidecar, workload, seed);
}

/// A node that stays away is replaced; when it comes back, it gives up what is no longer its own, and is used again.
#[test]
fn who_stays_away_is_replaced() {
    let seed = seed();
    let pool = Pool::start(4);
    let config = SidecarConfig::of(&pool, 3).with("timeouts", "replace_after = \"300ms\"");
    let sidecar = Sidecar::start(&config);
    allow_node_trouble(&sidecar);
    let workload = Workload::start(&sidecar.endpoint(), seed);
    wait_progress(&workload);
    pool.nodes[1].kill9();
    let has_copies_without = || {
        let partitions = sidecar.admin("/v1/partitions");
        let rows = partitions.as_array().expect("an array");
        rows.iter().all(|row| {
            let in_sync = row["in_sync"].as_array().expect("an array");
            in_sync.len() == 3 && !in_sync.contains(&json!("b"))
        })
    };
    wait_until("three copies again without it", MOVE_MAX, has_copies_without);
    wait_progress(&workload);
    pool.nodes[1].restart();
    sidecar.wait_settled(MOVE_MAX);
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert!(outcome.errors.is_empty(), "SEED={seed}: {:?}", outcome.errors);
    assert!(
        !contents(&mut pool.nodes[1].client()).is_empty(),
        "it is used again"
    );
}

/// What happens to consumer groups is no change of a stream to the node that is copied from.
#[test]
fn consumer_groups_are_copied_as_they_are_at_the_end() {
    let mut pool = Pool::start(3);
    // Slow enough for the streams to be copied long before the end.
    let config = SidecarConfig::of(&pool, 2).with("limits", "copy_rate = \"64KiB\"");
    let sidecar = Sidecar::start(&config);
    let mut client = sidecar.client();
    let streams: Vec<String> = (0..40).map(|at| format!("stream-{at}")).collect();
    for stream in &streams {
        client.call(crate::cmd!["XGROUP", "CREATE", stream, "group", "$", "MKSTREAM"]);
        for at in 1..=30 {
            client.call(crate::cmd!["XADD", stream, format!("{at}-1"), "f", "v"]);
        }
    }
    for at in 0..400 {
        client.call(crate::cmd!["SET", format!("filling-{at}"), "x".repeat(1000)]);
    }
    let read = |stream: &str| {
        crate::cmd![
            "XREADGROUP",
            "GROUP",
            "group",
            "c",
            "COUNT",
            1,
            "STREAMS",
            stream,
            ">"
        ]
    };
    let script = "return redis.call('XACK', KEYS[1], 'group', ARGV[1])";
    let node = pool.start_another();
    add(&sidecar, node);
    let mut at = 0;
    wait_until("it is settled", MOVE_MAX, || {
        at += 1;
        for stream in &streams {
            client.call(read(stream));
            let id = format!("{at}-1");
            match at % 3 {
                0 => client.call(crate::cmd!["EVAL", script, 1, stream, id]),
                1 => client.call(crate::cmd!["XACK", stream, "group", id]),
                _ => client.call(crate::cmd!["XCLAIM", stream, "group", "d", 0, id]),
            };
        }
        let ring = sidecar.admin("/v1/ring");
        ring["state"] == "settled" && ring["nodes"][3]["holds"] == ring["nodes"][3]["wanted"]
    });
    assert!(at > 3, "nothing happened meanwhile");
    crate::convergence::assert_converged(&pool, &sidecar);
}

/// Commands that need partitions of several owners, and hand-overs that do, too.
#[test]
fn nobody_waits_for_ever_for_partitions() {
    let mut pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2).threads(3));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (sidecar, stop, done) = (&sidecar, &stop, &done);
            scope.spawn(move || {
                let mut client = sidecar.client();
                let mut at = worker;
                while !stop.load(Relaxed) {
                    at += 7;
                    let key = |n: usize| format!("key-{}", (at * 31 + n * 17) % 64);
                    client.call(crate::cmd!["MSETNX", key(0), 1, key(1), 2, key(2), 3]);
                    client.call(crate::cmd!["RENAME", key(0), key(3)]);
                    client.call(crate::cmd!["DEL", key(1), key(2), key(3)]);
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        for name in ["d", "e"] {
            let node = pool.start_another();
            assert_eq!(node.name, name);
            add(&sidecar, node);
            sidecar.wait_settled(MOVE_MAX);
            let before = done.load(Relaxed);
            wait_until("clients go on", MOVE_MAX, || done.load(Relaxed) > before + 20);
        }
        stop.store(true, Relaxed);
    });
    crate::convergence::assert_converged(&pool, &sidecar);
}

/// The commands of `ringfence nodes` and `ringfence ring` against a sidecar that serves.
#[test]
fn the_command_line_does_all_of_it() {
    let mut pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2));
    let mut client = sidecar.client();
    for at in 0..500 {
        client.call(crate::cmd!["SET", format!("key-{at}"), at]);
    }
    let address = pool.start_another().endpoint().to_string();
    let run = |words: &str| {
        let mut command = Command::new(binary());
        command
            .args(words.split(' '))
            .args(["--admin", &sidecar.admin_address()]);
        let output = command.output().expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let well = |words: &str| {
        let (code, out, err) = run(words);
        assert_eq!(code, Some(0), "{words}: {out}{err}");
        out
    };
    assert!(well("nodes list").contains("in_sync"));
    assert!(well(&format!("nodes add {address} --name d --dry-run")).contains("copies"));
    well(&format!("nodes add {address} --name d --wait"));
    let list: Value = serde_json::from_str(&well("nodes list --json")).expect("JSON");
    assert_eq!(list[3]["name"], "d");
    assert_eq!(list[3]["partitions"], list[3]["wanted"]);
    well("nodes set d --weight 2 --wait");
    well("nodes drain a --wait");
    assert_eq!(run("nodes remove b").0, Some(1), "it holds something");
    wait_until("it is drained", MOVE_MAX, || {
        well("nodes list").contains("drained")
    });
    // What it has not been swept of yet goes with it.
    let mut left = pool.node("a").client();
    left.call(crate::cmd!["SET", "left-over", 1]);
    well("nodes remove a");
    assert!(contents(&mut left).is_empty());
    let ring: Value = serde_json::from_str(&well("ring status --json")).expect("JSON");
    assert_eq!(ring["state"], "settled");
    let plan: Value = serde_json::from_str(&well("ring plan --json")).expect("JSON");
    assert_eq!(plan["moves"], 0);
    well("verify --watch --rate 100000");
    assert_eq!(run("ring cancel").0, Some(1), "nothing is under way");
    assert_eq!(client.call(crate::cmd!["DBSIZE"]).int(), Some(500));
}

/// What was begun can wait, and be undone.
#[test]
fn moves_can_be_paused_and_cancelled() {
    let mut pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2));
    let mut client = sidecar.client();
    for at in 0..300 {
        client.call(crate::cmd!["SET", format!("key-{at}"), at]);
    }
    let (status, _) = sidecar.ask("POST", "/v1/ring/pause", &Value::Null);
    assert_eq!(status, 200);
    let node = pool.start_another();
    add(&sidecar, node);
    wait_until("it waits", MOVE_MAX, || {
        sidecar.admin("/v1/ring")["state"] == "paused"
    });
    assert_eq!(sidecar.admin("/v1/ring")["moves_done"], 0);
    let (status, answer) = sidecar.ask("POST", "/v1/ring/cancel", &Value::Null);
    assert_eq!(status, 200, "{answer}");
    sidecar.wait_settled(MOVE_MAX);
    let nodes = sidecar.admin("/v1/nodes");
    assert_eq!(
        (&nodes[3]["status"], &nodes[3]["partitions"]),
        (&json!("drained"), &json!(0))
    );
    let (status, answer) = sidecar.ask("PATCH", "/v1/nodes/d", &json!({"draining": false, "weight": 3}));
    assert_eq!(status, 200, "{answer}");
    sidecar.wait_settled(MOVE_MAX);
    assert!(sidecar.admin("/v1/nodes")[3]["partitions"].as_u64() > Some(32));
    crate::convergence::assert_converged(&pool, &sidecar);
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let mut pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let other = Pool::start(1);
    let _of_other_pool = Sidecar::start(&SidecarConfig {
        pool: "other".to_owned(),
        ..SidecarConfig::of(&other, 1)
    });
    let stranger = pool.start_another();
    stranger.client().call(crate::cmd!["SET", "somebody's", 1]);
    let entry = |name: &str, address: String| json!({"name": name, "address": address});
    let address = |node: &Node| NodeEntry::of(node).address;
    let cases = [
        (entry("a", "127.0.0.1:1".into()), 409, "already"),
        (entry("x", address(&pool.nodes[0])), 409, "already"),
        (entry("x y", "127.0.0.1:1".into()), 400, "no name"),
        (entry("x", "nonsense".into()), 400, "address"),
        (entry("x", "127.0.0.1:1".into()), 409, "cannot be reached"),
        (entry("x", address(&other.nodes[0])), 409, "another pool"),
        (entry("x", address(&pool.nodes[3])), 409, "FLUSHALL"),
        (json!({"name": "x"}), 400, "JSON"),
        (
            json!({"name": "x", "address": "127.0.0.1:1", "user": "u"}),
            400,
            "without its password",
        ),
        (
            json!({"name": "x", "address": "127.0.0.1:1", "weight": 0}),
            400,
            "weight",
        ),
    ];
    for (body, expected, word) in cases {
        let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
        let said = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(said.contains(word), "{body}: {said}");
    }
    for (method, path, expected, word) in [
        ("POST", "/v1/nodes/x/drain", 404, "no node"),
        ("POST", "/v1/nodes/a/drain", 409, "add a node first"),
        ("DELETE", "/v1/nodes/a", 409, "drain it first"),
        ("POST", "/v1/nodes/a/drain?dry_run=1", 400, "dry_run=true"),
        ("POST", "/v1/ring/cancel", 409, "nothing is under way"),
    ] {
        let (status, answer) = sidecar.ask(method, path, &Value::Null);
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(
            answer["error"].as_str().is_some_and(|said| said.contains(word)),
            "{answer}"
        );
    }
    // A dry run looks at the node, too.
    let (status, answer) = sidecar.ask(
        "POST",
        "/v1/nodes?dry_run=true",
        &entry("x", "127.0.0.1:1".into()),
    );
    assert_eq!(status, 409, "{answer}");
    // And changes nothing.
    pool.nodes[3].client().call(crate::cmd!["FLUSHALL"]);
    let body = entry("d", address(&pool.nodes[3]));
    let (status, answer) = sidecar.ask("POST", "/v1/nodes?dry_run=true", &body);
    assert_eq!((status, &answer["applied"]), (200, &json!(false)), "{answer}");
    assert_eq!(answer["plan"]["moves"], 48, "of 192 copies a quarter: {answer}");
    assert_eq!(sidecar.admin("/v1/nodes").as_array().map(Vec::len), Some(3));
    sidecar.wait_all_in_sync(&Pool { nodes: Vec::new() }, RECOVERY_MAX);
}
