//! The local pool behind `ringfence dev`: real `redis-server` processes to try the proxy, and its failures, on.
//!
//! **Problem.** Whoever wants to see what the proxy does when a node dies needs several Redis servers, must be able to
//! kill one and to bring it back where it was, and wants none of them left over afterwards.
//!
//! **Idea.** One directory is the whole truth about a local pool:
//!
//! ```text
//! <dir>/lock                 held while a sidecar runs on this directory
//! <dir>/nodes.toml           names and addresses, as `[[nodes]]` that a proxy.toml can use too
//! <dir>/node1/redis.conf     everything about one node; `redis-server <dir>/node1/redis.conf` brings it back
//! <dir>/node1/redis.pid      written by the server itself, whoever started it
//! <dir>/node1/redis.log
//! <dir>/node1/appendonlydir  its data: every write goes to the append-only file
//! ```
//!
//! The pool's table knows a node by its name and address, so a later start on the same directory gives every node the
//! same port, and its data. A server that still runs there, because the sidecar was killed, is adopted. A temporary
//! directory cannot be found again, so there a watchdog (`watchdog.rs`) ends the servers when the sidecar dies.
//!
//! **Invariants.**
//! - A node that somebody kills stays dead until somebody restarts it: this module is no supervisor.
//! - Only a process that works in the node's own directory is ever signalled, so a recycled pid hits nobody else.
//! - Ports lie below the range that the kernel gives to outgoing connections. In that range, a client that tries again
//!   and again to reach a dead node on loopback would sooner or later be connected to itself, and hold the port.
//!
//! Who runs what is read from `/proc`: this is for Linux.

mod directory;
mod server;
#[cfg(test)]
mod tests;
mod watchdog;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use self::directory::PORTS;
use self::server::Server;
use self::watchdog::Watchdog;
use crate::limits::NODES_MAX;

/// A node on SIGTERM flushes its append-only file and goes; one that does not go in this time is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the kernel to take away a process after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the end of a process is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The oldest server the proxy works with.
const VERSION_MIN: (u32, u32) = (6, 2);

/// What `ringfence dev` was asked for.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Number of nodes, 1 to [`NODES_MAX`]. A directory that already holds a pool must be given the same number.
    pub nodes: usize,
    /// Where the nodes keep their data and are found again; a temporary directory, removed at the end, if `None`.
    pub dir: Option<PathBuf>,
    /// Gives the nodes `enable-debug-command yes`, so that their data can be compared with `DEBUG DIGEST-VALUE`.
    pub enable_debug: bool,
}

/// One node of a local pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// `node1`, `node2`, …
    pub name: String,
    /// `127.0.0.1:<port>`; the same at every start in one directory.
    pub address: String,
    /// Process id when the pool started. It changes when somebody restarts the node: see [`LocalPool::pid_of`].
    pub pid: u32,
}

/// Why a local pool could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// There is no `redis-server` in `PATH`.
    #[error("`redis-server` is not in PATH; install it (Debian, Ubuntu: `apt-get install redis-server`)")]
    NoRedisServer,
    /// The installed server is older than what the proxy works with.
    #[error("`redis-server` is version {0}; ringfence needs 6.2 or newer")]
    TooOld(String),
    /// The number of nodes is out of bounds.
    #[error("{0} nodes; a local pool has 1 to {NODES_MAX}")]
    Nodes(usize),
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another sidecar uses this directory.
    #[error("{}: another `ringfence dev` runs on this directory", .0.display())]
    DirInUse(PathBuf),
    /// `nodes.toml` is not what an earlier start wrote.
    #[error("{}: {reason}; correct it, or start in another directory", path.display())]
    NodesFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory holds a pool of another size.
    #[error("{} holds a pool of {found} nodes; start it with `--nodes {found}`, or use another directory", dir.display())]
    NodeCount {
        /// The directory.
        dir: PathBuf,
        /// Nodes of the pool that is there.
        found: usize,
    },
    /// No port could be bound.
    #[error("no free port between {} and {} on 127.0.0.1", PORTS.start, PORTS.end)]
    NoFreePort,
    /// A process could not be started.
    #[error("{program}: {source}")]
    Spawn {
        /// What should have been started.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A server ended instead of serving.
    #[error("{name} ended at its start: {last_line} (all of it: {})", log.display())]
    Ended {
        /// The node.
        name: String,
        /// The last line of its log.
        last_line: String,
        /// Its log.
        log: PathBuf,
    },
    /// A server runs but does not answer in time.
    #[error("{name} does not answer (its log: {})", log.display())]
    NotReady {
        /// The node.
        name: String,
        /// Its log.
        log: PathBuf,
    },
}

/// Real Redis servers on loopback. [`stop`](Self::stop) ends them in good order, dropping the pool kills them.
#[derive(Debug)]
pub struct LocalPool {
    nodes: Vec<LocalNode>,
    servers: Vec<Server>,
    dir: PathBuf,
    // Dropped in this order, after `drop` has ended the servers.
    _watchdog: Option<Watchdog>,
    _temporary: Option<TempDir>,
    _lock: File,
}

impl LocalPool {
    /// Starts the nodes, or finds those that run already, and returns when each of them answers.
    ///
    /// Dropping the future (on Ctrl-C, say) kills what it has started so far.
    ///
    /// # Errors
    /// See [`DevError`]; no server is left running.
    pub async fn start(options: &DevOptions) -> Result<Self, DevError> {
        if options.nodes == 0 || options.nodes > NODES_MAX {
            return Err(DevError::Nodes(options.nodes));
        }
        let version = installed_version()?;

        let (dir, temporary) = directory::open(options.dir.as_deref())?;
        let lock = directory::lock(&dir)?;
        let entries = directory::entries(&dir, options.nodes)?;
        let watchdog = temporary.as_ref().map(|_| Watchdog::start(&dir)).transpose()?;

        // From here on the pool owns the servers: leaving this function early drops it, and so kills them.
        let mut pool = Self {
            nodes: Vec::with_capacity(entries.len()),
            servers: Vec::with_capacity(entries.len()),
            dir,
            _watchdog: watchdog,
            _temporary: temporary,
            _lock: lock,
        };
        for entry in entries {
            let server = Server::new(&pool.dir, entry.name, entry.address)?;
            pool.servers.push(server);
        }
        // 6.2 has no such setting, and always allows DEBUG.
        let debug_setting = options.enable_debug && version >= (7, 0);
        for server in &mut pool.servers {
            server.launch(debug_setting).await?;
        }
        for server in &pool.servers {
            let pid = server.ready().await?;
            let (name, address) = (server.name().to_owned(), server.address().to_string());
            pool.nodes.push(LocalNode { name, address, pid });
        }
        Ok(pool)
    }

    /// The nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// Where everything about the pool is kept.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process that is node `name` now, whoever started it; `None` while it is dead or unknown.
    ///
    /// Reads two small files.
    #[must_use]
    pub fn pid_of(&self, name: &str) -> Option<u32> {
        self.servers
            .iter()
            .find(|server| server.name() == name)?
            .running_pid()
    }

    /// Ends every node, also one that was restarted by somebody else: SIGTERM, and after five seconds SIGKILL.
    pub async fn stop(&self) {
        let mut signalled = HashSet::new();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.signal_all(Signal::SIGTERM, &mut signalled) {
            if Instant::now() >= deadline {
                tracing::warn!("a node does not end on SIGTERM: killing it");
                self.kill();
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Kills every node and waits until they are gone. Blocks for milliseconds, as far as the kernel is well.
    fn kill(&self) {
        let mut signalled = HashSet::new();
        let deadline = Instant::now() + KILL_TIMEOUT;
        while self.signal_all(Signal::SIGKILL, &mut signalled) && Instant::now() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends `signal` to every process of the pool that has not got it yet; false if there is no process any more.
    fn signal_all(&self, signal: Signal, signalled: &mut HashSet<u32>) -> bool {
        let mut alive = false;
        for pid in self.servers.iter().flat_map(Server::pids) {
            alive = true;
            if signalled.insert(pid) {
                server::signal(pid, signal);
            }
        }
        alive
    }
}

impl Drop for LocalPool {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Major and minor version of the `redis-server` in `PATH`.
fn installed_version() -> Result<(u32, u32), DevError> {
    let output = Command::new("redis-server")
        .arg("--version")
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DevError::NoRedisServer,
            _ => DevError::Spawn {
                program: "redis-server",
                source,
            },
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text).ok_or_else(|| DevError::TooOld(text.trim().to_owned()))?;
    if version < VERSION_MIN {
        return Err(DevError::TooOld(format!("{}.{}", version.0, version.1)));
    }
    Ok(version)
}

/// From `Redis server v=7.0.15 sha=…` or `Valkey server v=8.1.1 sha=…`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?
        .split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

fn file_error(path: &Path, source: io::Error) -> DevError {
    DevError::File {
        path: path.to_owned(),
        source,
    }
}
