//! Processes that the benchmark starts, and their certain end.
//!
//! Each lives in a guard that kills it by its pid when dropped, on a panic too. An interrupt (Ctrl-C, `kill`, a closed
//! terminal) does not unwind, so a thread waits for these signals, kills whatever is registered and removes the scratch
//! directory. Only a SIGKILL of the benchmark itself leaves anything behind.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A port that was free may be taken by the time it is used.
const STARTS_MAX: usize = 3;
/// What a shell makes of a process ended by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on an interrupt ends every process of ours and removes `scratch`. Call before any thread is started.
///
/// Processes started later inherit that these signals are blocked; SIGKILL, by which they end, cannot be.
pub(crate) fn end_all_when_interrupted(scratch: PathBuf) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if signals.wait().is_ok() {
                // The lock is held to the end, so that nothing new is started meanwhile.
                let running = running();
                for pid in running.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
                    // One that has already ended needs no killing.
                    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
                }
                std::fs::remove_dir_all(&scratch).ok();
                std::process::exit(EXIT_INTERRUPTED);
            }
        })?;
    Ok(())
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    command: Command,
    child: Child,
    /// Where it listens for clients.
    pub(crate) address: SocketAddr,
    /// Where it listens to whoever administers it.
    pub(crate) admin: SocketAddr,
    ready: fn(&Process, u16) -> Result<()>,
    log: PathBuf,
}

impl Process {
    /// Starts what `command` makes for a directory and two free ports (clients, administration), until it is `ready`.
    pub(crate) fn start(
        dir: &Path,
        command: impl Fn(&Path, u16, u16) -> Result<Command>,
        ready: fn(&Process, u16) -> Result<()>,
    ) -> Result<Process> {
        std::fs::create_dir_all(dir)?;
        let mut attempt = 1;
        loop {
            let [port, admin] = free_ports()?;
            let mut process = Process::spawn(dir, command(dir, port, admin)?, [port, admin], ready)?;
            match process.wait_until_ready() {
                Ok(()) => return Ok(process),
                Err(error) if attempt == STARTS_MAX => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn spawn(
        dir: &Path,
        mut command: Command,
        ports: [u16; 2],
        ready: fn(&Process, u16) -> Result<()>,
    ) -> Result<Process> {
        let log = dir.join("log");
        let out = File::create(&log)?;
        command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = run(&mut command)?;
        let [address, admin] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Process {
            command,
            child,
            address,
            admin,
            ready,
            log,
        })
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        let mut running = running();
        // Nothing can be done about a failure here, and one that has ended is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
        running.retain(|pid| *pid != self.child.id());
    }

    /// Starts it once more, where it was, until it is ready.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.kill();
        self.child = run(&mut self.command)?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let Err(error) = (self.ready)(self, self.admin.port()) else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once ({status}): {}", self.last_words());
            }
            if Instant::now() > deadline {
                return Err(error.context(format!(
                    "not ready within {READY_WITHIN:?}: {}",
                    self.last_words()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log
            .lines()
            .rev()
            .filter(|line| !line.trim().is_empty())
            .take(3)
            .collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(command: &mut Command) -> Result<Child> {
    let mut running = running();
    let child = command
        .spawn()
        .with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    running.push(child.id());
    Ok(child)
}

/// Ready: answers `PING` as Redis does.
pub(crate) fn answers_ping(process: &Process, _admin: u16) -> Result<()> {
    let answer = ask(process.address, b"*1\r\n$4\r\nPING\r\n")?;
    if answer.starts_with("+PONG") {
        Ok(())
    } else {
        bail!("PING is answered with {answer:?}")
    }
}

/// Ready: says so on its admin port.
pub(crate) fn says_ready(_process: &Process, admin: u16) -> Result<()> {
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = ask(SocketAddr::from((Ipv4Addr::LOCALHOST, admin)), request)?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        bail!("/readyz is answered with {status:?}")
    }
}

/// Sends one request on a connection of its own and returns what comes first.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(request)?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn free_ports() -> Result<[u16; 2]> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}
