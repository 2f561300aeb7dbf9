//! With real servers: what a start makes, finds again, adopts, and leaves behind.

use std::fs;
use std::net::TcpListener;
use std::process::Child;

use super::directory::NodesFile;
use super::*;

fn options(nodes: usize, dir: Option<&Path>) -> DevOptions {
    DevOptions {
        nodes,
        dir: dir.map(Path::to_owned),
        enable_debug: true,
    }
}

/// What a node answers to one inline command.
fn ask(node: &LocalNode, command: &str) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", node.address.rsplit(':').next().unwrap()])
        .args(command.split(' '))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn alive(pid: u32) -> bool {
    // A zombie works nowhere.
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The node as somebody else brings it back.
fn restart_by_hand(pool: &LocalPool, name: &str) -> Child {
    let conf = pool.dir().join(name).join("redis.conf");
    let child = Command::new("redis-server").arg(conf).spawn().unwrap();
    wait_until("the node is back", || pool.pid_of(name) == Some(child.id()));
    child
}

#[tokio::test]
async fn starts_distinct_nodes_and_leaves_nothing() {
    let pool = LocalPool::start(&options(3, None)).await.unwrap();
    let dir = pool.dir().to_owned();
    let names: Vec<_> = pool.nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    for node in pool.nodes() {
        assert_eq!(ask(node, "PING"), "PONG");
        assert_eq!(pool.pid_of(&node.name), Some(node.pid));
        assert_eq!(ask(node, "CONFIG GET appendonly"), "appendonly\nyes");
        assert_eq!(ask(node, "CONFIG GET save"), "save");
        let port: u16 = node.address.rsplit(':').next().unwrap().parse().unwrap();
        assert!(PORTS.contains(&port));
    }
    assert_eq!(pool.pid_of("node4"), None);
    let pids: Vec<_> = pool.nodes().iter().map(|node| node.pid).collect();
    pool.stop().await;
    drop(pool);
    assert!(!pids.into_iter().any(alive));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_drop_kills() {
    let pool = LocalPool::start(&options(2, None)).await.unwrap();
    let (dir, pids) = (
        pool.dir().to_owned(),
        pool.nodes().iter().map(|node| node.pid).collect::<Vec<_>>(),
    );
    drop(pool);
    assert!(!pids.into_iter().any(alive));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_second_start_finds_data_and_addresses() {
    let dir = TempDir::new().unwrap();
    let pool = LocalPool::start(&options(2, Some(dir.path()))).await.unwrap();
    let before: Vec<_> = pool.nodes().iter().map(|node| node.address.clone()).collect();
    assert_eq!(ask(&pool.nodes()[1], "SET key value"), "OK");
    pool.stop().await;
    drop(pool);

    let pool = LocalPool::start(&options(2, Some(dir.path()))).await.unwrap();
    let after: Vec<_> = pool.nodes().iter().map(|node| node.address.clone()).collect();
    assert_eq!(before, after);
    assert_eq!(ask(&pool.nodes()[1], "GET key"), "value");

    let other_size = LocalPool::start(&options(3, Some(dir.path()))).await;
    assert!(
        matches!(other_size, Err(DevError::DirInUse(_))),
        "the directory is locked first of all"
    );
    drop(pool);
    let other_size = LocalPool::start(&options(3, Some(dir.path()))).await;
    assert!(matches!(other_size, Err(DevError::NodeCount { found: 2, .. })));
}

#[tokio::test]
async fn a_killed_node_stays_dead_and_one_restarted_by_hand_is_known_and_stopped() {
    let pool = LocalPool::start(&options(2, None)).await.unwrap();
    let node = pool.nodes()[0].clone();
    assert_eq!(ask(&node, "SET key value"), "OK");
    server::signal(node.pid, Signal::SIGKILL);
    wait_until("the node is dead", || pool.pid_of("node1").is_none());

    let mut child = restart_by_hand(&pool, "node1");
    assert_ne!(child.id(), node.pid);
    wait_until("its data is back", || ask(&node, "GET key") == "value");
    pool.stop().await;
    // It was told to end, and a busy machine may take a moment; if it was not, this waits for ever.
    child.wait().unwrap();
}

#[tokio::test]
async fn servers_that_outlived_their_sidecar_are_adopted() {
    let dir = TempDir::new().unwrap();
    let pool = LocalPool::start(&options(2, Some(dir.path()))).await.unwrap();
    server::signal(pool.nodes()[0].pid, Signal::SIGKILL);
    wait_until("the node is dead", || pool.pid_of("node1").is_none());
    let mut child = restart_by_hand(&pool, "node1");
    let second = pool.nodes()[1].pid;
    // As if the sidecar had been killed: its lock is free, its servers run.
    let Ok(()) = pool._lock.unlock() else {
        panic!("cannot unlock")
    };

    let heir = LocalPool::start(&options(2, Some(dir.path()))).await.unwrap();
    let pids: Vec<_> = heir.nodes().iter().map(|node| node.pid).collect();
    assert_eq!(pids, [child.id(), second]);
    heir.stop().await;
    // Without a command line any more, a process may still be on its way out.
    wait_until("both are gone", || !alive(child.id()) && !alive(second));
    child.wait().unwrap();
}

#[tokio::test]
async fn an_adopted_server_with_other_settings_is_restarted() {
    let dir = TempDir::new().unwrap();
    let plain = DevOptions {
        nodes: 1,
        dir: Some(dir.path().to_owned()),
        enable_debug: false,
    };
    let pool = LocalPool::start(&plain).await.unwrap();
    assert_eq!(ask(&pool.nodes()[0], "SET key value"), "OK");
    let Ok(()) = pool._lock.unlock() else {
        panic!("cannot unlock")
    };

    let heir = LocalPool::start(&options(1, Some(dir.path()))).await.unwrap();
    assert_ne!(heir.nodes()[0].pid, pool.nodes()[0].pid);
    assert_eq!(ask(&heir.nodes()[0], "GET key"), "value");
    assert_eq!(
        ask(&heir.nodes()[0], "CONFIG GET enable-debug-command"),
        "enable-debug-command\nyes"
    );
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_says_so() {
    let dir = TempDir::new().unwrap();
    drop(LocalPool::start(&options(2, Some(dir.path()))).await.unwrap());
    let text = fs::read_to_string(dir.path().join("nodes.toml")).unwrap();
    let file: NodesFile = toml::from_str(&text).unwrap();
    let _squatter = TcpListener::bind(file.nodes[1].address).unwrap();
    let error = LocalPool::start(&options(2, Some(dir.path()))).await.unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("node2 ended at its start"), "{message}");
    let log = fs::read_to_string(dir.path().join("node2/redis.log")).unwrap();
    assert!(log.contains("Address already in use"), "{log}");
}

#[tokio::test]
async fn a_changed_nodes_file_is_refused() {
    let dir = TempDir::new().unwrap();
    for text in [
        "nodes = 3",
        "[[nodes]]\nname = \"../elsewhere\"\naddress = \"127.0.0.1:20000\"\n",
        "[[nodes]]\nname = \"node1\"\naddress = \"0.0.0.0:20000\"\n",
        "[[nodes]]\nname = \"node1\"\naddress = \"127.0.0.1:20000\"\nweight = 1\n",
    ] {
        fs::write(dir.path().join("nodes.toml"), text).unwrap();
        let result = LocalPool::start(&options(1, Some(dir.path()))).await;
        assert!(matches!(result, Err(DevError::NodesFile { .. })), "{text}");
    }
    assert!(matches!(
        LocalPool::start(&options(0, None)).await,
        Err(DevError::Nodes(0))
    ));
    assert!(matches!(
        LocalPool::start(&options(NODES_MAX + 1, None)).await,
        Err(DevError::Nodes(_))
    ));
}

#[tokio::test]
async fn odd_directory_names_are_quoted() {
    let outer = TempDir::new().unwrap();
    let dir = outer.path().join("a \"quoted\" \\ größe");
    let pool = LocalPool::start(&options(1, Some(&dir))).await.unwrap();
    assert_eq!(ask(&pool.nodes()[0], "PING"), "PONG");
}

#[test]
fn the_watchdog_kills_what_runs_in_the_directory_and_only_that() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let sleeper = |cwd: &Path| Command::new("sleep").arg("60").current_dir(cwd).spawn().unwrap();
    for name in ["node1", "node2"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let mut own = sleeper(&dir.join("node1"));
    let mut other = sleeper(Path::new("/"));
    fs::write(dir.join("node1/redis.pid"), own.id().to_string()).unwrap();
    fs::write(dir.join("node2/redis.pid"), other.id().to_string()).unwrap();

    drop(Watchdog::start(&dir).unwrap());
    assert!(!own.wait().unwrap().success());
    assert!(alive(other.id()));
    assert!(!dir.exists());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn versions() {
    assert_eq!(
        parse_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"),
        Some((7, 0))
    );
    assert_eq!(
        parse_version("Valkey server v=8.1.1 sha=00000000:0"),
        Some((8, 1))
    );
    assert_eq!(parse_version("command not found"), None);
}

#[test]
fn a_pool_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<LocalPool>();
}
