//! What is measured: plain servers, and pools behind `ringfence dev`.

use crate::client::Driver;
use crate::processor::Confined;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Of `/proc`, in a second: the same on every Linux.
const TICKS: f64 = 100.0;

/// A server that ends with this value, and its own servers with it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    replicas: Vec<Server>,
    admin: Option<SocketAddr>,
    confined: Vec<Confined>,
    _dir: Option<TempDir>,
}

/// Processor time in seconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// Of the server that clients are connected to.
    pub(crate) front: f64,
    /// Of those behind it, all together.
    pub(crate) behind: f64,
}

impl Server {
    /// One plain Redis, with an append-only file as the pool's nodes have it.
    pub(crate) fn plain() -> Result<Server> {
        Server::redis(None)
    }

    /// The same with replicas of its own.
    pub(crate) fn replicated(replicas: usize) -> Result<Server> {
        let mut primary = Server::redis(None)?;
        for _ in 0..replicas {
            primary.replicas.push(Server::redis(Some(primary.address))?);
        }
        Ok(primary)
    }

    fn redis(primary: Option<SocketAddr>) -> Result<Server> {
        let address = free_address()?;
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string()]);
        command.args(["--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--dir"]).arg(dir.path());
        if let Some(primary) = primary {
            command.args(["--replicaof", "127.0.0.1", &primary.port().to_string()]);
        }
        Server::start(command, address, Some(dir))
    }

    /// A pool whose queues are striped, behind the build that is measured.
    pub(crate) fn pool(nodes: usize, replicas: usize) -> Result<Server> {
        Server::pool_of(Server::built(), nodes, replicas, 1)
    }

    pub(crate) fn built() -> PathBuf {
        let built = option_env!("CARGO_BIN_EXE_ringfence").unwrap_or("target/release/ringfence");
        std::env::var_os("RINGFENCE_BIN").map_or_else(|| PathBuf::from(built), PathBuf::from)
    }

    /// The same behind another build, with so many threads.
    pub(crate) fn pool_of(program: PathBuf, nodes: usize, replicas: usize, threads: usize) -> Result<Server> {
        let (address, admin) = (free_address()?, free_address()?);
        let mut command = Command::new(program);
        command.args(["dev", "--profile", "zaqar", "--nodes", &nodes.to_string()]);
        command.args([
            "--replicas",
            &replicas.to_string(),
            "--threads",
            &threads.to_string(),
        ]);
        command.args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
        let mut server = Server::start(command, address, None)?;
        server.admin = Some(admin);
        Ok(server)
    }

    /// Its nodes do not rewrite their append-only files any more: all of them do at about the same length, and where there are fewer
    /// processors than nodes it would be that which is measured.
    pub(crate) fn rewrite_nothing(&self) -> Result<()> {
        let admin = self.admin.context("it has no nodes")?;
        let deadline = Instant::now() + STARTS_WITHIN;
        let nodes = loop {
            match ureq::get(format!("http://{admin}/v1/nodes")).call() {
                Ok(mut answer) => break answer.body_mut().read_to_string()?,
                // It is not open yet.
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error.into()),
            }
        };
        let nodes: serde_json::Value = serde_json::from_str(&nodes)?;
        let nodes = nodes.as_array().context("no list of nodes")?;
        for node in nodes {
            let address = node["address"].as_str().context("a node without an address")?;
            let mut node = Driver::connect(address.parse()?, 0)?;
            node.call(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"])?;
        }
        Ok(())
    }

    fn start(mut command: Command, address: SocketAddr, dir: Option<TempDir>) -> Result<Server> {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started", command.get_program().display()))?;
        let mut server = Server {
            child,
            address,
            replicas: Vec::new(),
            admin: None,
            confined: Vec::new(),
            _dir: dir,
        };
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("a server ended at its start: {status}");
            }
            if Instant::now() > deadline {
                bail!("a server did not answer within {STARTS_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// It, and each server behind it, has so many processors from here on and no more.
    pub(crate) fn with_processors(mut self, front: f64, behind: f64) -> Result<Server> {
        self.confined.push(Confined::to(self.child.id(), front)?);
        for pid in self.behind()?.into_keys() {
            self.confined.push(Confined::to(pid, behind)?);
        }
        Ok(self)
    }

    /// What it has used so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let front = processes()?
            .get(&self.child.id())
            .map_or(0.0, |(_, seconds)| *seconds);
        let behind = self.behind()?.into_values().sum();
        Ok(Cpu { front, behind })
    }

    /// The servers behind it: what each has used so far.
    fn behind(&self) -> Result<HashMap<u32, f64>> {
        let replicas: Vec<u32> = self.replicas.iter().map(|replica| replica.child.id()).collect();
        let all = processes()?.into_iter();
        let own = all.filter(|(pid, (parent, _))| replicas.contains(pid) || *parent == self.child.id());
        Ok(own.map(|(pid, (_, seconds))| (pid, seconds)).collect())
    }
}

/// All processes: their parents, and the seconds that they have used.
pub(crate) fn processes() -> Result<HashMap<u32, (u32, f64)>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // Behind the name, which may have spaces: state, parent, …
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        all.insert(pid, (number(1) as u32, (number(11) + number(12)) as f64 / TICKS));
    }
    Ok(all)
}

impl Drop for Server {
    fn drop(&mut self) {
        // A pool stops its nodes when it is told to end.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        if nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).is_ok() {
            drop(self.child.wait());
        }
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
