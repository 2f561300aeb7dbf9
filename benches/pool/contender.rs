//! Who is compared: for each contender the processes behind it, and how a client uses it.
//!
//! All run on loopback TCP with the same `redis-server`: nothing is saved, nothing is evicted. Every server of a
//! contender holds every key, which is what lets a cell check afterwards that all copies are really there.

use crate::process::{Process, answers_ping, ask, says_ready};
use crate::tape::Command;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

const REPLICATION_WITHIN: Duration = Duration::from_secs(10);

/// The contenders, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Clients talk to one Redis.
    Direct,
    /// Ringfence before one node.
    One,
    /// Ringfence before three nodes, R = 3, W = 2.
    Three,
    /// The same, with clients of a second sidecar, which stands by and passes them on.
    Relayed,
    /// Each client writes to three servers itself and waits for two of them; it reads from one.
    Mirrors,
    /// Redis with two replicas; a `WAIT 2` behind each write.
    Wait,
    /// twemproxy before one server.
    Twemproxy,
}

impl Kind {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Direct => "direct Redis",
            Kind::One => "ringfence R=1",
            Kind::Three => "ringfence R=3 W=2",
            Kind::Relayed => "ringfence R=3 W=2, passed on",
            Kind::Mirrors => "client to 3 servers, 2 of 3",
            Kind::Wait => "Redis + 2 replicas, WAIT 2",
            Kind::Twemproxy => "twemproxy, 1 node",
        }
    }

    /// Replicas that a `WAIT` behind each write of this command must have reached.
    pub(crate) fn wait_copies(self, command: Command) -> Option<usize> {
        (self == Kind::Wait && command.writes()).then_some(2)
    }
}

/// The programs that are run.
pub(crate) struct Programs {
    pub(crate) ringfence: PathBuf,
    pub(crate) redis: PathBuf,
    pub(crate) twemproxy: PathBuf,
}

/// A contender that is running.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    // Dropped in this order: a proxy first, so that it does not see its servers die.
    /// Clients use the last.
    pub(crate) proxies: Vec<Process>,
    pub(crate) servers: Vec<Process>,
}

impl Contender {
    pub(crate) fn start(kind: Kind, programs: &Programs, scratch: &Path) -> Result<Contender> {
        let dir = tempfile::Builder::new()
            .prefix("contender-")
            .tempdir_in(scratch)?
            .keep();
        let servers = match kind {
            Kind::Direct | Kind::One | Kind::Twemproxy => 1,
            Kind::Three | Kind::Relayed | Kind::Mirrors | Kind::Wait => 3,
        };
        let servers = (0..servers)
            .map(|number| start_redis(&programs.redis, &dir.join(format!("node-{number}"))))
            .collect::<Result<Vec<Process>>>()?;
        let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
        let ringfence = |name: &str, quorum: usize| {
            let dir = dir.join(name);
            let replicas = addresses.len();
            let stands_by = kind == Kind::Relayed;
            start_ringfence(&programs.ringfence, &dir, &addresses, replicas, quorum, stands_by)
        };
        let proxies = match kind {
            Kind::One => vec![ringfence("proxy", 1)?],
            Kind::Three => vec![ringfence("proxy", 2)?],
            Kind::Relayed => vec![ringfence("active", 2)?, ringfence("standby", 2)?],
            Kind::Twemproxy => vec![start_twemproxy(
                &programs.twemproxy,
                &dir.join("proxy"),
                &addresses,
            )?],
            Kind::Wait => {
                replicate(&addresses)?;
                vec![]
            }
            Kind::Direct | Kind::Mirrors => vec![],
        };
        Ok(Contender {
            kind,
            proxies,
            servers,
        })
    }

    /// The servers that client `number` connects to for this command.
    pub(crate) fn targets(&self, number: usize, command: Command) -> Vec<SocketAddr> {
        let servers = || self.servers.iter().map(|server| server.address);
        match (self.kind, self.proxies.last()) {
            (_, Some(proxy)) => vec![proxy.address],
            (Kind::Mirrors, None) if command.writes() => servers().collect(),
            (Kind::Mirrors, None) => servers()
                .cycle()
                .skip(number % self.servers.len())
                .take(1)
                .collect(),
            (_, None) => servers().take(1).collect(),
        }
    }

    /// How many of those must answer.
    pub(crate) fn quorum(&self, command: Command) -> usize {
        if self.kind == Kind::Mirrors && command.writes() {
            2
        } else {
            1
        }
    }

    pub(crate) fn proxy_pids(&self) -> Vec<u32> {
        self.proxies.iter().map(Process::pid).collect()
    }

    pub(crate) fn server_pids(&self) -> Vec<u32> {
        self.servers.iter().map(Process::pid).collect()
    }
}

pub(crate) fn start_redis(program: &Path, dir: &Path) -> Result<Process> {
    let command = |_: &Path, port: u16, _| {
        let mut command = Program::new(program);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args([
            "--maxmemory-policy",
            "noeviction",
            "--maxclients",
            "20000",
            "--tcp-backlog",
            "4096",
        ]);
        command.args(["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]);
        command.args(["--client-output-buffer-limit", "replica 0 0 0"]);
        Ok(command)
    };
    Process::start(dir, command, answers_ping).context("redis-server")
}

pub(crate) fn start_ringfence(
    program: &Path,
    dir: &Path,
    nodes: &[SocketAddr],
    replicas: usize,
    write_quorum: usize,
    stands_by: bool,
) -> Result<Process> {
    let command = |dir: &Path, port: u16, admin: u16| {
        let peer = if stands_by { "peer = \"127.0.0.1:0\"\n" } else { "" };
        let mut config = format!(
            "threads = 1\n\n[listen]\ntcp = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:{admin}\"\n{peer}\n\
             [pool]\nname = \"bench\"\nreplicas = {replicas}\nwrite_quorum = {write_quorum}\n"
        );
        for (number, node) in nodes.iter().enumerate() {
            write!(
                config,
                "\n[[nodes]]\nname = \"node-{number}\"\naddress = \"{node}\"\n"
            )?;
        }
        let path = dir.join("proxy.toml");
        std::fs::write(&path, config)?;
        let mut command = Program::new(program);
        command.arg("serve").arg("--config").arg(path);
        Ok(command)
    };
    Process::start(dir, command, says_ready).context("ringfence")
}

fn start_twemproxy(program: &Path, dir: &Path, nodes: &[SocketAddr]) -> Result<Process> {
    let command = |dir: &Path, port: u16, admin: u16| {
        let mut config = format!(
            "bench:\n  listen: 127.0.0.1:{port}\n  backlog: 4096\n  redis: true\n  hash: fnv1a_64\n  \
             distribution: ketama\n  auto_eject_hosts: false\n  preconnect: true\n  server_connections: 1\n  servers:\n"
        );
        for node in nodes {
            writeln!(config, "   - {node}:1")?;
        }
        let path = dir.join("nutcracker.yml");
        std::fs::write(&path, config)?;
        let mut command = Program::new(program);
        command
            .arg("-c")
            .arg(path)
            .arg("-s")
            .arg(admin.to_string())
            .args(["-a", "127.0.0.1"]);
        command
            .arg("-o")
            .arg(dir.join("nutcracker.log"))
            .arg("-p")
            .arg(dir.join("nutcracker.pid"));
        Ok(command)
    };
    Process::start(dir, command, answers_ping).context("twemproxy (nutcracker)")
}

/// Makes the first server the primary of the others.
fn replicate(servers: &[SocketAddr]) -> Result<()> {
    let Some((primary, replicas)) = servers.split_first() else {
        bail!("no servers")
    };
    for replica in replicas {
        let answer = ask(
            *replica,
            format!("REPLICAOF 127.0.0.1 {}\r\n", primary.port()).as_bytes(),
        )?;
        if !answer.starts_with("+OK") {
            bail!("REPLICAOF is answered with {answer:?}");
        }
    }
    let deadline = Instant::now() + REPLICATION_WITHIN;
    for replica in replicas {
        while !ask(*replica, b"INFO replication\r\n")?.contains("master_link_status:up") {
            if Instant::now() > deadline {
                bail!("a replica has not come up within {REPLICATION_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // A replica counts for the primary only from its first acknowledgement on, which may take it a second.
    while !ask(*primary, b"WAIT 2 100\r\n")?.starts_with(":2") {
        if Instant::now() > deadline {
            bail!("the replicas do not acknowledge within {REPLICATION_WITHIN:?}");
        }
    }
    Ok(())
}
