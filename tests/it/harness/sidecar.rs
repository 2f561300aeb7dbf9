//! The program itself, started as a user starts it: a `proxy.toml`, `ringfence serve`, `/readyz`.
//!
//! A test that ends well still fails if the sidecar logged a warning or an error that the test did not announce with
//! `allow_log`, panicked, or ended by itself: what no assertion looks at is where defects hide.

use super::client::{Client, Endpoint};
use super::node::{Node, Pool};
use super::relay::Relay;
use super::wait::{Port, http, http_get, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// How long a start may take, with a take-over in it.
const START_MAX: Duration = Duration::from_secs(20);

/// Never fine, unless a test allows exactly this: copies that part, and a panic.
const FORBIDDEN: [&str; 2] = ["answered otherwise", "panicked at"];

/// The program under test: `RINGFENCE_BIN`, or the one cargo has just built.
pub fn binary() -> PathBuf {
    std::env::var_os("RINGFENCE_BIN")
        .or_else(|| option_env!("CARGO_BIN_EXE_ringfence").map(Into::into))
        .map(PathBuf::from)
        .expect("set RINGFENCE_BIN to the program under test")
}

/// One `[[nodes]]` entry.
#[derive(Clone, Debug)]
pub struct NodeEntry {
    pub name: String,
    pub address: String,
    pub password: Option<String>,
}

impl NodeEntry {
    pub fn of(node: &Node) -> Self {
        Self {
            name: node.name.clone(),
            address: node.endpoint().to_string(),
            password: None,
        }
    }
}

/// What goes into `proxy.toml`. `extra` holds whole lines per section, such as `("limits", "clients_max = 3")`.
#[derive(Clone, Debug)]
pub struct SidecarConfig {
    pub threads: usize,
    pub pool: String,
    pub replicas: usize,
    pub write_quorum: usize,
    pub partitions: usize,
    pub nodes: Vec<NodeEntry>,
    pub extra: Vec<(&'static str, String)>,
    pub stands_by: bool,
}

impl SidecarConfig {
    /// All nodes of `pool`, `replicas` copies, a majority of them as the write quorum.
    pub fn of(pool: &Pool, replicas: usize) -> Self {
        Self {
            threads: 1,
            pool: "main".to_owned(),
            replicas,
            write_quorum: replicas / 2 + 1,
            partitions: 64,
            nodes: pool.nodes.iter().map(NodeEntry::of).collect(),
            extra: Vec::new(),
            stands_by: false,
        }
    }

    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// With a relay before each node.
    pub fn behind_relays(mut self, pool: &Pool) -> (Vec<Relay>, Self) {
        let relays: Vec<Relay> = pool
            .nodes
            .iter()
            .map(|node| Relay::start(&node.endpoint()))
            .collect();
        for (node, relay) in self.nodes.iter_mut().zip(&relays) {
            node.address = relay.endpoint().to_string();
        }
        (relays, self)
    }

    /// With others for the same pool, of which one serves at a time.
    pub fn standing_by(mut self) -> Self {
        self.stands_by = true;
        self
    }

    /// For tests of what is answered, not of how faults are noticed: a machine that is short of time is no fault.
    pub fn patient(self) -> Self {
        self.with("timeouts", "connect = \"10s\"\nnode = \"20s\"\nwrite = \"30s\"")
    }

    /// One more line in a section.
    pub fn with(mut self, section: &'static str, line: &str) -> Self {
        self.extra.push((section, line.to_owned()));
        self
    }

    fn section(&self, out: &mut String, name: &'static str) {
        let _ = writeln!(out, "[{name}]");
        for (_, line) in self.extra.iter().filter(|(section, _)| *section == name) {
            let _ = writeln!(out, "{line}");
        }
    }

    fn toml(&self, tcp: SocketAddr, unix: &Path, admin: SocketAddr, peer: SocketAddr) -> String {
        let mut out = format!("threads = {}\n", self.threads);
        self.section(&mut out, "listen");
        let _ = writeln!(
            out,
            "tcp = \"{tcp}\"\nunix = \"{}\"\nadmin = \"{admin}\"",
            unix.display()
        );
        if self.stands_by {
            let _ = writeln!(out, "peer = \"{peer}\"");
        }
        self.section(&mut out, "pool");
        let _ = writeln!(out, "name = \"{}\"\nreplicas = {}", self.pool, self.replicas);
        let _ = writeln!(
            out,
            "write_quorum = {}\npartitions = {}",
            self.write_quorum, self.partitions
        );
        self.section(&mut out, "limits");
        self.section(&mut out, "timeouts");
        if self.extra.iter().any(|(section, _)| *section == "profiles.mine") {
            self.section(&mut out, "profiles.mine");
        }
        for node in &self.nodes {
            let _ = writeln!(
                out,
                "[[nodes]]\nname = \"{}\"\naddress = \"{}\"",
                node.name, node.address
            );
            if let Some(password) = &node.password {
                let _ = writeln!(out, "password = \"{password}\"");
            }
        }
        out
    }
}

/// A running (or killed) sidecar.
#[derive(Debug)]
pub struct Sidecar {
    dir: TempDir,
    tcp: Port,
    admin: Port,
    peer: Port,
    child: Mutex<Option<Child>>,
    log: Arc<Mutex<Vec<String>>>,
    allowed: Mutex<Vec<String>>,
}

impl Sidecar {
    /// Starts it and waits until it serves.
    pub fn start(config: &SidecarConfig) -> Self {
        let sidecar = Self::spawn(config);
        sidecar.wait_ready();
        sidecar
    }

    /// Starts it and waits for nothing.
    pub fn spawn(config: &SidecarConfig) -> Self {
        let sidecar = Self {
            dir: tempfile::Builder::new()
                .prefix("ringfence-")
                .tempdir()
                .expect("temporary directory"),
            tcp: Port::reserve(),
            admin: Port::reserve(),
            peer: Port::reserve(),
            child: Mutex::default(),
            log: Arc::default(),
            allowed: Mutex::default(),
        };
        sidecar.configure(config);
        sidecar.launch();
        sidecar
    }

    /// Writes its `proxy.toml`, which it reads when it is started.
    pub fn configure(&self, config: &SidecarConfig) {
        let toml = config.toml(
            self.tcp.address(),
            &self.dir.path().join("sock"),
            self.admin.address(),
            self.peer.address(),
        );
        std::fs::write(self.config_path(), toml).expect("write proxy.toml");
    }

    /// Starts it again, after it was killed.
    pub fn launch(&self) {
        let mut command = Command::new(binary());
        command
            .arg("serve")
            .arg("--config")
            .arg(self.dir.path().join("proxy.toml"));
        command.env("NO_COLOR", "1").env_remove("RUST_LOG");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program under test starts");
        self.capture(child.stdout.take().expect("stdout is piped"));
        self.capture(child.stderr.take().expect("stderr is piped"));
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    fn capture(&self, from: impl Read + Send + 'static) {
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                log.lock().expect("log lock").push(line);
            }
        });
    }

    pub fn wait_ready(&self) {
        wait_until("the sidecar serves (/readyz)", START_MAX, || {
            if let Some(status) = self.exited() {
                panic!(
                    "the sidecar ended with {status} instead of serving:\n{}",
                    self.log()
                );
            }
            self.ready()
        });
    }

    pub fn ready(&self) -> bool {
        matches!(http_get(self.admin.address(), "/readyz"), Ok((200, _)))
    }

    /// Whether it serves the pool itself.
    pub fn serves(&self) -> bool {
        self.metrics().contains("ringfence_serving 1\n")
    }

    /// What `/readyz` says.
    pub fn readiness(&self) -> (u16, String) {
        http_get(self.admin.address(), "/readyz").expect("the admin port answers")
    }

    /// A crash.
    pub fn kill9(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("signal the sidecar");
    }

    /// A hang: connections stay open, nothing is answered.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        // The signal is on its way: until it has arrived, the process may still execute something.
        let stat = format!("/proc/{}/stat", self.pid());
        super::wait_until("the sidecar to stop", Duration::from_secs(5), || {
            std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T "))
        });
    }

    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// A crash, and a new start with the same settings.
    pub fn restart(&self) {
        self.kill9();
        self.launch();
        self.wait_ready();
    }

    /// What a supervisor does: it is told to end, and does.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_exit(START_MAX);
        assert!(status.success(), "told to end, it ended with {status}");
        self.kill9();
    }

    /// Its status, once it has ended by itself.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        wait_for(timeout, || self.exited()).unwrap_or_else(|| {
            panic!(
                "the sidecar did not end within {timeout:?}; its log:\n{}",
                self.log()
            )
        })
    }

    pub fn pid(&self) -> u32 {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(Child::id)
            .expect("the sidecar was killed")
    }

    /// Memory it holds now, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("the sidecar runs");
        let pages: u64 = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse().ok())
            .expect("statm");
        pages * 4096
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.tcp.address())
    }

    /// Where other sidecars reach it.
    pub fn peer_endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.peer.address())
    }

    pub fn admin_address(&self) -> String {
        self.admin.address().to_string()
    }

    pub fn unix_endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.dir.path().join("sock"))
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.endpoint())
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("proxy.toml")
    }

    /// A JSON document of the admin port.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Value {
        let (status, body) =
            http_get(self.admin.address(), path).unwrap_or_else(|e| panic!("GET {path}: {e}"));
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("GET {path} is no JSON ({e}): {body}"))
    }

    /// Asks the admin port for a change: the status and what it says.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, answer) = http(self.admin.address(), method, path, &body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let answer = serde_json::from_str(&answer)
            .unwrap_or_else(|e| panic!("{method} {path} is no JSON ({e}): {answer}"));
        (status, answer)
    }

    /// Waits until every partition is where it should be.
    #[track_caller]
    pub fn wait_settled(&self, timeout: Duration) {
        let settled = || {
            let (200, body) = http_get(self.admin.address(), "/v1/ring").ok()? else {
                return None;
            };
            let ring: Value = serde_json::from_str(&body).ok()?;
            let fits = |node: &Value| node["holds"] == node["wanted"];
            let all_fit = ring["nodes"]
                .as_array()
                .is_some_and(|nodes| nodes.iter().all(fits));
            (ring["state"] == "settled" && all_fit).then_some(())
        };
        if wait_for(timeout, settled).is_none() {
            let ring = http_get(self.admin.address(), "/v1/ring");
            panic!("not settled after {timeout:?}: {ring:?}\n{}", self.log());
        }
    }

    /// A node as `/v1/nodes` has it; null while the admin port does not answer.
    pub fn node(&self, name: &str) -> Value {
        let Ok((200, body)) = http_get(self.admin.address(), "/v1/nodes") else {
            return Value::Null;
        };
        let nodes: Value = serde_json::from_str(&body).unwrap_or_default();
        let node = nodes
            .as_array()
            .and_then(|all| all.iter().find(|node| node["name"] == name));
        node.cloned().unwrap_or_default()
    }

    /// Its state; empty while the admin port does not answer.
    pub fn node_state(&self, name: &str) -> String {
        self.node(name)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// All numbers, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        http_get(self.admin.address(), "/metrics").map_or_else(|_| String::new(), |(_, text)| text)
    }

    /// Waits until every node of `pool` is in sync.
    #[track_caller]
    pub fn wait_all_in_sync(&self, pool: &Pool, timeout: Duration) {
        let all_in_sync = || {
            let in_sync = |node: &Node| self.node_state(&node.name) == "in_sync";
            pool.nodes.iter().all(in_sync).then_some(())
        };
        if wait_for(timeout, all_in_sync).is_none() {
            let nodes = http_get(self.admin.address(), "/v1/nodes");
            panic!(
                "not all nodes are in sync after {timeout:?}: {nodes:?}\n{}",
                self.log()
            );
        }
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log lock").join("\n")
    }

    /// Lines with this text may be warnings or errors.
    pub fn allow_log(&self, pattern: &str) {
        self.allowed
            .lock()
            .expect("allowed lock")
            .push(pattern.to_owned());
    }

    fn unexpected_lines(&self) -> Vec<String> {
        let allowed = self.allowed.lock().expect("allowed lock");
        let log = self.log.lock().expect("log lock");
        let alarming = |line: &&String| {
            let has = |mark: &&str| line.contains(*mark);
            let loud = ["WARN", "ERROR"].iter().any(has);
            let announced = allowed.iter().any(|pattern| line.contains(pattern.as_str()));
            let forbidden = FORBIDDEN
                .iter()
                .any(|mark| has(mark) && !allowed.iter().any(|pattern| pattern == mark));
            forbidden || (loud && !announced)
        };
        log.iter().filter(alarming).cloned().collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let ended = self.exited();
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(60);
            eprintln!(
                "--- the sidecar's log, last lines ---\n{}",
                lines[from..].join("\n")
            );
            return;
        }
        let exit_allowed = self
            .allowed
            .lock()
            .expect("allowed lock")
            .iter()
            .any(|pattern| pattern == "exit");
        assert!(
            ended.is_none() || exit_allowed,
            "the sidecar ended by itself ({ended:?}):\n{}",
            self.log()
        );
        let lines = self.unexpected_lines();
        assert!(
            lines.is_empty(),
            "the sidecar logged what this test did not expect:\n{}",
            lines.join("\n")
        );
    }
}
