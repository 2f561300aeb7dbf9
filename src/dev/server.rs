//! One `redis-server` of a local pool: its configuration file, its start or adoption, and which process it is now.
//!
//! A server is what `redis.conf` says, so that anybody can restart it with that file alone. Which process it is, is what
//! its pid file says *and* `/proc` confirms: the process must work in the node's directory. That holds for a server we
//! started, one we adopted, and one that somebody restarted behind our back; a pid file left by a killed server, whose
//! pid may belong to anybody by now, names nobody.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{DevError, POLL_INTERVAL, STOP_TIMEOUT, file_error};

/// How long a server may take until it answers. A large append-only file takes its time to load.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one question to a server may take; then it is asked again.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// `INFO server` is some 1 KiB. Whoever answers with more than this is not a Redis server.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One server; see the module.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    address: SocketAddr,
    /// Absolute, without symbolic links.
    dir: PathBuf,
    started: Option<Started>,
}

/// A process that we started. A thread waits for its end: the process is then no zombie, whatever the runtime does.
#[derive(Debug)]
struct Started {
    pid: u32,
    ended: Arc<OnceLock<ExitStatus>>,
}

impl Server {
    /// Makes the directory of node `name` in `pool_dir`; starts nothing.
    pub(super) fn new(pool_dir: &Path, name: String, address: SocketAddr) -> Result<Self, DevError> {
        let dir = pool_dir.join(&name);
        fs::create_dir_all(&dir).map_err(|source| file_error(&dir, source))?;
        Ok(Self {
            name,
            address,
            dir,
            started: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the server, unless it runs already as `redis.conf` wants it.
    pub(super) async fn launch(&mut self, enable_debug: bool) -> Result<(), DevError> {
        let path = self.dir.join("redis.conf");
        let conf = self.conf(enable_debug);
        let same = fs::read(&path).is_ok_and(|old| old == conf.as_bytes());
        if let Some(pid) = self.running_pid() {
            if same {
                tracing::info!(node = self.name, pid, "still runs: adopted");
                return Ok(());
            }
            tracing::info!(node = self.name, pid, "runs with other settings: restarting it");
            self.end(pid).await;
        }
        write_atomically(&path, conf.as_bytes())?;
        self.started = Some(self.spawn(&path)?);
        Ok(())
    }

    /// Waits until the server answers, and returns its process id.
    pub(super) async fn ready(&self) -> Result<u32, DevError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(pid) = timeout(ASK_TIMEOUT, self.ask_pid()).await.ok().flatten()
                && self.running_pid() == Some(pid)
            {
                return Ok(pid);
            }
            let log = self.dir.join("redis.log");
            // Gone, ours or adopted: there is nothing to wait for.
            if self.pids().next().is_none() {
                let last_line = last_line(&log);
                return Err(DevError::Ended {
                    name: self.name.clone(),
                    last_line,
                    log,
                });
            }
            if Instant::now() >= deadline {
                return Err(DevError::NotReady {
                    name: self.name.clone(),
                    log,
                });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The process that is this node now, by its pid file and `/proc`.
    pub(super) fn running_pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.dir.join("redis.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        self.works_here(pid).then_some(pid)
    }

    /// Every process of this node: the one that runs, and one that we started and that has no pid file yet.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        let running = self.running_pid();
        let started = self
            .started
            .as_ref()
            .filter(|started| started.ended.get().is_none());
        let started = started
            .map(|started| started.pid)
            .filter(|pid| Some(*pid) != running);
        running.into_iter().chain(started)
    }

    /// A process that has ended works nowhere, also when its parent has not yet taken notice.
    fn works_here(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.dir)
    }

    fn spawn(&self, conf: &Path) -> Result<Started, DevError> {
        let log = self.dir.join("redis.log");
        // Mistakes in the configuration are printed, before the server opens its log.
        let opened = File::options().create(true).append(true).open(&log);
        let output = opened.and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = output.map_err(|source| file_error(&log, source))?;
        let spawned = Command::new("redis-server")
            .arg(conf)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            // Its own process group: a Ctrl-C in the terminal is for the sidecar, which then ends its nodes itself.
            .process_group(0)
            .spawn();
        let spawn_error = |source| DevError::Spawn {
            program: "redis-server",
            source,
        };
        let mut child = spawned.map_err(spawn_error)?;

        let pid = child.id();
        let ended = Arc::new(OnceLock::new());
        let (name, outcome) = (self.name.clone(), Arc::clone(&ended));
        let waiter = std::thread::Builder::new()
            .name(format!("wait-{name}"))
            .spawn(move || {
                if let Ok(status) = child.wait() {
                    tracing::info!(node = name, pid, %status, "node process ended");
                    let _already_set = outcome.set(status);
                }
            });
        if let Err(source) = waiter {
            signal(pid, Signal::SIGKILL);
            return Err(spawn_error(source));
        }
        Ok(Started { pid, ended })
    }

    /// Ends a process of this node and waits until it is gone.
    async fn end(&self, pid: u32) {
        signal(pid, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.works_here(pid) {
            if Instant::now() >= deadline {
                signal(pid, Signal::SIGKILL);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The process id that the server at our address says it has, once it serves (and no longer loads its data).
    async fn ask_pid(&self) -> Option<u32> {
        let mut connection = TcpStream::connect(self.address).await.ok()?;
        connection.write_all(b"PING\r\nINFO server\r\n").await.ok()?;
        let mut answer = Vec::with_capacity(2048);
        while answer.len() < ANSWER_BYTES_MAX {
            if connection.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
            let text = String::from_utf8_lossy(&answer);
            let serving = text.strip_prefix("+PONG\r\n");
            let pid = serving.and_then(|info| info.split_once("process_id:")?.1.split_once("\r\n"));
            if let Some((pid, _)) = pid {
                return pid.parse().ok();
            }
        }
        None
    }

    fn conf(&self, enable_debug: bool) -> String {
        let file = |name: &str| quoted(&self.dir.join(name));
        let mut conf = String::new();
        // Writing to a string cannot fail.
        let _ok = write!(
            conf,
            "# Written by `ringfence dev` at every start. To bring this node back after it was killed:\n\
             #   redis-server {path}\n\
             bind 127.0.0.1\n\
             port {port}\n\
             protected-mode yes\n\
             daemonize no\n\
             dir {dir}\n\
             pidfile {pid}\n\
             logfile {log}\n\
             databases 16\n\
             save \"\"\n\
             appendonly yes\n\
             appendfsync everysec\n\
             maxmemory-policy noeviction\n",
            path = file("redis.conf"),
            port = self.address.port(),
            dir = quoted(&self.dir),
            pid = file("redis.pid"),
            log = file("redis.log"),
        );
        if enable_debug {
            conf.push_str("enable-debug-command yes\n");
        }
        conf
    }
}

/// Nothing to do when it fails: the process has ended meanwhile.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

/// A reader, or a later start, sees the old file or the new one.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), DevError> {
    let new = path.with_extension("new");
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
    written.map_err(|source| file_error(path, source))
}

/// A path as an argument in `redis.conf`, which knows double quotes and `\xhh`.
fn quoted(path: &Path) -> String {
    let mut text = String::from("\"");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(text, "\\x{byte:02x}"),
        }
    }
    text.push('"');
    text
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it wrote no log")
        .trim()
        .to_owned()
}
