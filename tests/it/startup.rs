//! What a user gets wrong before anything runs: one clear sentence that names the node and what to do.

use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{
    Node, NodeEntry, NodeOptions, Pool, Port, Relay, Reply, Sidecar, SidecarConfig, binary, wait_for,
    wait_until,
};
use std::process::Command;
use std::time::{Duration, Instant};

const EXIT_MAX: Duration = Duration::from_secs(15);

/// A configuration of these nodes.
fn config_of(nodes: &[&Node]) -> SidecarConfig {
    let pool = Pool { nodes: Vec::new() };
    SidecarConfig {
        nodes: nodes.iter().map(|node| NodeEntry::of(node)).collect(),
        ..SidecarConfig::of(&pool, 3)
    }
}

/// `serve` must end by itself, not with success, and say all of `words` in one line.
#[track_caller]
fn assert_refuses(config: &SidecarConfig, words: &[&str]) {
    let sidecar = Sidecar::spawn(config);
    sidecar.allow_log("");
    sidecar.allow_log("exit");
    let status = sidecar.wait_exit(EXIT_MAX);
    assert!(!status.success(), "it ended with success");
    let says_it = || {
        let log = sidecar.log().to_lowercase();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(&word.to_lowercase())))
    };
    // The pipe may still hold the last line when the process has ended.
    let said = wait_for(Duration::from_secs(2), || says_it().then_some(()));
    assert!(
        said.is_some(),
        "no line with all of {words:?}:\n{}",
        sidecar.log()
    );
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

/// Two good nodes and a bad one, named `bad-node`.
#[track_caller]
fn assert_refuses_node(options: NodeOptions, words: &[&str]) {
    let pool = Pool::start(2);
    let bad = Node::start("bad-node", options);
    assert_refuses(
        &config_of(&[&pool.nodes[0], &bad, &pool.nodes[1]]),
        &[&["bad-node"], words].concat(),
    );
}

#[test]
fn a_node_that_evicts_keys() {
    let options = NodeOptions::default()
        .with("maxmemory", "100mb")
        .with("maxmemory-policy", "allkeys-lru");
    assert_refuses_node(options, &["maxmemory-policy", "noeviction"]);
}

#[test]
fn a_node_that_is_a_replica() {
    let master = Node::start("master", NodeOptions::default());
    let address = master.endpoint().to_string().replace(':', " ");
    assert_refuses_node(NodeOptions::default().with("replicaof", &address), &["replica"]);
}

#[test]
fn a_node_in_cluster_mode() {
    let bus = Port::reserve();
    assert_refuses_node(
        NodeOptions::default()
            .with("cluster-enabled", "yes")
            // Not 10000 above the other one, where another test may be.
            .with("cluster-port", &bus.number.to_string()),
        &["cluster"],
    );
}

#[test]
fn a_node_with_too_few_databases() {
    assert_refuses_node(
        NodeOptions::default().with("databases", "4"),
        &["databases", "15"],
    );
}

#[test]
fn a_node_that_wants_another_password() {
    let pool = Pool::start(2);
    let bad = Node::start("bad-node", NodeOptions::default().with("requirepass", "right"));
    let mut config = config_of(&[&pool.nodes[0], &bad, &pool.nodes[1]]);
    config.nodes[1].password = Some("wrong-secret".to_owned());
    assert_refuses(&config, &["bad-node", "password"]);
    config.nodes[1].password = None;
    assert_refuses(&config, &["bad-node", "password"]);
    config.nodes[1].password = Some("right".to_owned());
    let sidecar = Sidecar::start(&config);
    assert!(sidecar.client().call(cmd!["SET", "k", "v"]).is_ok());
    assert!(!sidecar.log().contains("right\""), "the log shows a password");
}

#[test]
fn two_names_for_one_server() {
    let pool = Pool::start(2);
    let mut config = config_of(&[&pool.nodes[0], &pool.nodes[1], &pool.nodes[1]]);
    config.nodes[1].name = "first-name".to_owned();
    config.nodes[2].name = "second-name".to_owned();
    // As text the addresses differ: only the server itself can tell.
    let relay = Relay::start(&pool.nodes[1].endpoint());
    config.nodes[2].address = relay.endpoint().to_string();
    assert_refuses(&config, &["first-name", "second-name"]);
}

#[test]
fn a_node_of_another_pool() {
    let pool = Pool::start(5);
    let nodes: Vec<&Node> = pool.nodes.iter().collect();
    let other = SidecarConfig {
        pool: "other-pool".to_owned(),
        ..config_of(&nodes[2..])
    };
    let sidecar = Sidecar::start(&other);
    assert!(sidecar.client().call(cmd!["SET", "k", "v"]).is_ok());
    drop(sidecar);
    let mut config = config_of(&nodes[..3]);
    config.nodes[2].name = "foreign-node".to_owned();
    assert_refuses(&config, &["foreign-node", "other-pool"]);
    // The other pool is unharmed.
    let sidecar = Sidecar::start(&other);
    assert_eq!(sidecar.client().call(cmd!["GET", "k"]), Reply::bulk("v"));
}

#[test]
fn one_unreachable_node_of_three_is_waited_for_by_nobody() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3);
    let first = Sidecar::start(&config);
    assert!(first.client().call(cmd!["SET", "k", "v"]).is_ok());
    // Two of three have acknowledged it; the third would need a copy if it missed it.
    wait_until("the last node has it", Duration::from_secs(5), || {
        pool.nodes[1].client().call(cmd!["EXISTS", "k"]).int() == Some(1)
    });
    drop(first);
    pool.nodes[1].kill9();
    let sidecar = Sidecar::start(&config);
    sidecar.allow_log("node");
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["GET", "k"]), Reply::bulk("v"));
    assert!(client.call(cmd!["SET", "k", "w"]).is_ok());
    assert_eq!(sidecar.node_state("b"), "connecting");
    pool.nodes[1].restart();
    sidecar.wait_all_in_sync(&pool, Duration::from_secs(15));
    assert_converged(&pool, &sidecar);
}

#[test]
fn without_a_quorum_it_is_not_ready_and_says_why() {
    let pool = Pool::start(1);
    let dead = [Port::reserve(), Port::reserve()];
    let mut config = SidecarConfig::of(&pool, 3);
    for (port, name) in dead.iter().zip(["dead-one", "dead-two"]) {
        config.nodes.push(NodeEntry {
            name: name.to_owned(),
            address: port.address().to_string(),
            password: None,
        });
    }
    let sidecar = Sidecar::spawn(&config);
    sidecar.allow_log("");
    sidecar.allow_log("exit");
    // It waits, and says so to everybody.
    wait_until("it names the unreachable nodes", Duration::from_secs(15), || {
        let log = sidecar.log();
        log.contains("dead-one") && log.contains("dead-two")
    });
    assert!(!sidecar.ready(), "ready with one node of three");
    let (status, why) = sidecar.readiness();
    assert!(status == 503 && why.contains("dead-one"), "{why}");
    for _ in 0..3 {
        let reply = sidecar.client().call(cmd!["PING"]);
        let error = reply.error().unwrap_or_else(|| panic!("{reply}"));
        assert!(
            error.starts_with("LOADING") && error.contains("dead-two"),
            "{error}"
        );
    }
}

#[test]
fn nodes_on_unix_sockets_and_a_password_for_clients() {
    let pool = Pool::with_options(
        3,
        &NodeOptions {
            unix: true,
            ..NodeOptions::default()
        },
    );
    let config = SidecarConfig::of(&pool, 3).with("listen", "password = \"client-secret\"");
    let sidecar = Sidecar::start(&config);
    let mut client = crate::harness::Client::connect(&sidecar.unix_endpoint());
    let refused = client.call(cmd!["GET", "k"]);
    assert!(
        refused.error().is_some_and(|text| text.starts_with("NOAUTH")),
        "{refused}"
    );
    let wrong = client.call(cmd!["AUTH", "guess"]);
    assert!(
        wrong.error().is_some_and(|text| text.starts_with("WRONGPASS")),
        "{wrong}"
    );
    assert!(client.call(cmd!["AUTH", "client-secret"]).is_ok());
    assert!(client.call(cmd!["SET", "k", "v"]).is_ok());
    let mut other = sidecar.client();
    assert!(other.call(cmd!["AUTH", "default", "client-secret"]).is_ok());
    assert_eq!(other.call(cmd!["GET", "k"]), Reply::bulk("v"));
    assert_converged(&pool, &sidecar);
    assert!(
        !sidecar.log().contains("client-secret"),
        "the log shows a password"
    );
}

#[test]
fn check_reports_every_mistake_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("proxy.toml");
    let text = r#"threads = 0
[listen]
tcp = "not an address"
[pool]
name = "main"
replicas = 4
write_quorum = 9
partitions = 0
surprise = 1
[limits]
command_max = "many"
[[nodes]]
name = "a"
address = "127.0.0.1:7001"
[[nodes]]
name = "a"
address = "nowhere"
"#;
    std::fs::write(&path, text).expect("write");
    let output = Command::new(binary())
        .arg("check")
        .arg("--config")
        .arg(&path)
        .output()
        .expect("it runs");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(64), "{said}");
    for (line, word) in [
        (1, "threads"),
        (3, "tcp"),
        (6, "replicas"),
        (7, "write_quorum"),
        (8, "partitions"),
        (9, "surprise"),
        (11, "command_max"),
        (16, "name"),
        (17, "address"),
    ] {
        let found = said
            .lines()
            .any(|out| out.contains(&line.to_string()) && out.contains(word));
        assert!(found, "no line about {word} in line {line}:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn check_accepts_a_good_file_and_starts_nothing() {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3));
    let output = Command::new(binary())
        .arg("check")
        .arg("--config")
        .arg(sidecar.config_path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(sidecar.client().call(cmd!["PING"]).error().is_none());
}

#[test]
fn check_of_a_file_that_is_not_there() {
    let output = Command::new(binary())
        .args(["check", "--config", "/nowhere/proxy.toml"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("/nowhere/proxy.toml"),
        "does not name the file: {said}"
    );
}

/// Of a server that is in use a part would be found, and the rest lost.
#[test]
fn a_new_pool_is_not_made_of_servers_in_use() {
    let pool = Pool::start(3);
    let mut used = pool.nodes[1].client();
    assert!(used.call(cmd!["SELECT", 3]).is_ok());
    assert_eq!(used.call(cmd!["RPUSH", "queue:default", "job"]).int(), Some(1));
    let config = SidecarConfig::of(&pool, 3);
    assert_refuses(&config, &["node \"b\" holds keys", "database 3", "FLUSHALL"]);
    assert_eq!(used.call(cmd!["LLEN", "queue:default"]).int(), Some(1));
    assert!(used.call(cmd!["FLUSHALL"]).is_ok());
    Sidecar::start(&config);
}

/// With another bookkeeping database the pool's own nodes look like somebody else's: there must not be a second pool on them.
#[test]
fn another_bookkeeping_database_makes_no_second_pool() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3);
    let first = Sidecar::start(&config);
    let mut client = first.client();
    assert!(client.call(cmd!["SET", "k", "v"]).is_ok());
    let other = SidecarConfig::of(&pool, 3).with("pool", "bookkeeping_db = 14");
    assert_refuses(&other, &["holds keys", "bookkeeping_db"]);
    assert_eq!(client.call(cmd!["GET", "k"]).text().as_deref(), Some("v"));
}

/// All nodes of the file have been replaced since it was written.
#[test]
fn an_old_file_leads_to_where_the_pool_is_now() {
    let mut pool = Pool::start(2);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2));
    assert!(sidecar.client().call(cmd!["SET", "k", "v"]).is_ok());
    for _ in 0..2 {
        let node = pool.start_another();
        let body = serde_json::json!({"name": node.name, "address": node.endpoint().to_string()});
        assert_eq!(sidecar.ask("POST", "/v1/nodes", &body).0, 200);
    }
    for name in ["a", "b"] {
        let drain = format!("/v1/nodes/{name}/drain");
        assert_eq!(sidecar.ask("POST", &drain, &serde_json::Value::Null).0, 200);
        wait_until("it is removed", Duration::from_secs(30), || {
            let path = format!("/v1/nodes/{name}");
            sidecar.ask("DELETE", &path, &serde_json::Value::Null).0 == 200
        });
    }
    sidecar.kill9();
    sidecar.allow_log("in proxy.toml, but not in the pool");
    sidecar.restart();
    assert_eq!(
        sidecar.client().call(cmd!["GET", "k"]).text().as_deref(),
        Some("v")
    );
    assert_eq!(sidecar.admin("/v1/nodes").as_array().map(Vec::len), Some(2));
}

/// Clients that say nothing while nobody is served do not keep the door shut afterwards.
#[test]
fn who_waits_in_silence_keeps_nobody_out() {
    let pool = Pool::start(3);
    for node in &pool.nodes[..2] {
        node.kill9();
    }
    let sidecar = Sidecar::spawn(&SidecarConfig::of(&pool, 3));
    sidecar.allow_log("not serving yet");
    sidecar.allow_log("node");
    wait_until("it says what it waits for", Duration::from_secs(10), || {
        sidecar.log().contains("cannot be reached")
    });
    let silent: Vec<_> = (0..150).map(|_| sidecar.client()).collect();
    // All that are let in are about to be turned away.
    std::thread::sleep(Duration::from_millis(1500));
    for node in &pool.nodes[..2] {
        node.restart();
    }
    sidecar.wait_ready();
    let began = Instant::now();
    assert_eq!(sidecar.client().call(cmd!["PING"]).to_string(), "+PONG");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "the door was shut for {took:?}");
    // And they are clients like any other.
    for mut client in silent {
        assert_eq!(client.call(cmd!["PING"]).to_string(), "+PONG");
    }
}
