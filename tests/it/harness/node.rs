//! A real `redis-server` in a temporary directory, and a pool of them.
//!
//! Faults are the real ones: SIGKILL for a crash, SIGSTOP for a hang. All methods take `&self`, so that one thread can
//! do harm while others work.

use super::client::{Client, Endpoint};
use super::wait::{Port, wait_until};
use crate::cmd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Listen on a unix socket only.
    pub unix: bool,
    /// `appendfsync`: a killed process loses nothing with either, a killed machine up to a second with `everysec`.
    pub fsync: &'static str,
    /// More lines of configuration, as `("maxmemory-policy", "allkeys-lru")`.
    pub extra: Vec<(String, String)>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            unix: false,
            fsync: "everysec",
            extra: Vec::new(),
        }
    }
}

impl NodeOptions {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One server; killed on drop.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    dir: TempDir,
    port: Option<Port>,
    options: NodeOptions,
    child: Mutex<Option<Child>>,
}

impl Node {
    pub fn start(name: &str, options: NodeOptions) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ringfence-node-")
            .tempdir()
            .expect("temporary directory");
        let port = (!options.unix).then(Port::reserve);
        let node = Self {
            name: name.to_owned(),
            dir,
            port,
            options,
            child: Mutex::new(None),
        };
        node.restart();
        node
    }

    pub fn endpoint(&self) -> Endpoint {
        match &self.port {
            Some(port) => Endpoint::Tcp(port.address()),
            None => Endpoint::Unix(self.dir.path().join("sock")),
        }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.endpoint())
    }

    fn password(&self) -> Option<&str> {
        self.options
            .extra
            .iter()
            .find(|(name, _)| name == "requirepass")
            .map(|(_, value)| value.as_str())
    }

    /// Starts the server again, on the same port and directory, and waits until it answers with its data loaded.
    pub fn restart(&self) {
        self.launch(&[]);
        self.wait_answers();
    }

    /// Starts the server again, with more settings for this time, and waits for nothing.
    pub fn launch(&self, more: &[(&str, &str)]) {
        self.kill9();
        // A server whose files have no room left is told so, not killed: see `limit_files`.
        let mut command = Command::new("env");
        command.arg("--ignore-signal=XFSZ").arg("redis-server");
        let port = self.port.as_ref().map_or(0, |port| port.number).to_string();
        let dir = self.dir.path();
        let mut set = |name: &str, value: &str| {
            command.arg(format!("--{name}")).arg(value);
        };
        set("port", &port);
        set("bind", "127.0.0.1");
        set("dir", &dir.to_string_lossy());
        set("logfile", &dir.join("log").to_string_lossy());
        set("save", "");
        set("appendonly", "yes");
        set("appendfsync", self.options.fsync);
        set("enable-debug-command", "yes");
        set("tcp-backlog", "511");
        if self.options.unix {
            set("unixsocket", &dir.join("sock").to_string_lossy());
        }
        let options = self.options.extra.iter();
        let options = options.map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in options.chain(more.iter().copied()) {
            command.arg(format!("--{name}")).args(value.split(' '));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("redis-server is installed");
        *self.child() = Some(child);
    }

    /// Waits until it answers with its data loaded.
    pub fn wait_answers(&self) {
        wait_until(
            &format!("node {} answers PING", self.name),
            Duration::from_secs(15),
            || self.answers(),
        );
    }

    fn answers(&self) -> bool {
        if let Some(Ok(Some(status))) = self.child().as_mut().map(Child::try_wait) {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            panic!("node {} ended with {status}:\n{log}", self.name);
        }
        let Ok(mut client) = Client::try_connect(&self.endpoint()) else {
            return false;
        };
        if let Some(password) = self.password() {
            let _ = client.try_call(&cmd!["AUTH", password]);
        }
        matches!(client.try_call(&cmd!["PING"]), Ok(reply) if reply.bytes() == Some(b"PONG"))
    }

    /// A crash: nothing is flushed, nobody is told. No effect on a server that is down.
    pub fn kill9(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Comes back on the same port without its data.
    pub fn restart_empty(&self) {
        self.kill9();
        self.remove_files();
        self.restart();
    }

    fn remove_files(&self) {
        for entry in std::fs::read_dir(self.dir.path())
            .expect("node directory")
            .flatten()
        {
            let path = entry.path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.expect("node directory can be emptied");
        }
    }

    /// Makes its append-only file as short as its data allows.
    pub fn rewrite_file(&self) {
        let mut client = self.client();
        client.call(cmd!["BGREWRITEAOF"]);
        wait_until("the file is rewritten", Duration::from_secs(15), || {
            let info = client
                .call(cmd!["INFO", "persistence"])
                .text()
                .unwrap_or_default();
            ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"]
                .iter()
                .all(|line| info.contains(line))
        });
    }

    /// A copy of its append-only files as they are now.
    pub fn keep_files(&self) -> TempDir {
        let kept = tempfile::tempdir().expect("temporary directory");
        copy_files(&self.files(), kept.path());
        kept
    }

    /// Puts other files where it has its own, while it is down.
    pub fn put_files(&self, kept: &TempDir) {
        self.kill9();
        self.remove_files();
        std::fs::create_dir(self.files()).expect("append-only directory");
        copy_files(kept.path(), &self.files());
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }

    /// From now on no file of it grows beyond `bytes` (a full disk, for any user and on any machine); `None`: room again.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = self.child().as_ref().map(Child::id).expect("the node runs");
        let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let status = Command::new("prlimit")
            .arg(format!("--pid={pid}"))
            .arg(format!("--fsize={soft}:"))
            .status()
            .expect("prlimit (util-linux) is installed");
        assert!(status.success(), "prlimit: {status}");
    }

    /// No file of it grows any more.
    pub fn fill_disk(&self) {
        let files = std::fs::read_dir(self.files()).expect("append-only directory");
        let lengths = files.flatten().map(|file| file.metadata().map_or(0, |m| m.len()));
        self.limit_files(Some(lengths.max().unwrap_or(0)));
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.child().as_ref() {
            kill(Pid::from_raw(child.id() as i32), signal).expect("signal a node");
        }
    }

    /// A test that fails while it holds the lock still ends its servers.
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hang: connections stay open, nothing is answered.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).expect("append-only directory").flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copy an append-only file");
    }
}

/// Some nodes, named a, b, c, ...
#[derive(Debug)]
pub struct Pool {
    pub nodes: Vec<Node>,
}

impl Pool {
    pub fn start(count: usize) -> Self {
        Self::with_options(count, &NodeOptions::default())
    }

    pub fn with_options(count: usize, options: &NodeOptions) -> Self {
        let name = |at: usize| char::from(b'a' + at as u8).to_string();
        Self {
            nodes: (0..count)
                .map(|at| Node::start(&name(at), options.clone()))
                .collect(),
        }
    }

    /// One more node, that the pool does not know yet.
    pub fn start_another(&mut self) -> &Node {
        self.start_another_with(NodeOptions::default())
    }

    pub fn start_another_with(&mut self, options: NodeOptions) -> &Node {
        let name = char::from(b'a' + self.nodes.len() as u8).to_string();
        self.nodes.push(Node::start(&name, options));
        self.nodes.last().expect("it has just been started")
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .unwrap_or_else(|| panic!("no node {name}"))
    }
}
