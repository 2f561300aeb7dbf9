//! What is measured: one plain server, and a pool behind `ringfence dev`.

use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: Option<TempDir>,
}

impl Server {
    /// One plain Redis, with an append-only file as the pool's nodes have it.
    pub(crate) fn plain() -> Result<Server> {
        let address = free_address()?;
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &address.port().to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command.args(["--appendonly", "yes", "--dir"]).arg(dir.path());
        Server::start(command, address, Some(dir))
    }

    /// A pool whose queues are striped.
    pub(crate) fn pool(nodes: usize, replicas: usize) -> Result<Server> {
        let built = option_env!("CARGO_BIN_EXE_ringfence").unwrap_or("target/release/ringfence");
        let program = std::env::var_os("RINGFENCE_BIN").map_or_else(|| PathBuf::from(built), PathBuf::from);
        let (address, admin) = (free_address()?, free_address()?);
        let mut command = Command::new(program);
        command.args(["dev", "--profile", "zaqar", "--nodes", &nodes.to_string()]);
        command.args([
            "--replicas",
            &replicas.to_string(),
            "--listen",
            &address.to_string(),
        ]);
        command.args(["--admin", &admin.to_string()]);
        Server::start(command, address, None)
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
