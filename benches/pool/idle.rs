//! What clients cost that do nothing: memory of a proxy with many connections, each of which has done one `SET`.
//!
//! A proxy of its own is started for this, because one that has carried load keeps memory from it.

use crate::contender::{Contender, Kind, Programs};
use crate::process::Process;
use crate::usage::resident_bytes;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Proxies whose memory is looked at.
pub(crate) const KINDS: [Kind; 3] = [Kind::One, Kind::Three, Kind::Twemproxy];
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Descriptors that generator or proxy need besides the clients' connections.
const OTHER_FILES_MAX: u64 = 200;

/// Memory of one proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) clients: usize,
    pub(crate) before_bytes: u64,
    pub(crate) resident_bytes: u64,
}

/// Descriptors that so many clients take at the load generator, and at the proxy.
pub(crate) fn open_files(clients: usize) -> u64 {
    clients as u64 + OTHER_FILES_MAX
}

/// Starts the contender afresh and connects so many clients.
pub(crate) fn measure(kind: Kind, clients: usize, programs: &Programs, scratch: &Path) -> Result<Idle> {
    let contender = Contender::start(kind, programs, scratch)?;
    let proxy: &Process = contender.proxies.last().context("only a proxy can be measured")?;
    let before_bytes = resident_bytes(proxy.pid())?;
    let mut connected = Vec::with_capacity(clients);
    for number in 0..clients {
        connected.push(client(proxy).with_context(|| format!("client {number}"))?);
    }
    // Time for whatever a proxy does behind its clients' backs.
    std::thread::sleep(Duration::from_secs(1));
    Ok(Idle {
        clients: connected.len(),
        before_bytes,
        resident_bytes: resident_bytes(proxy.pid())?,
    })
}

fn client(proxy: &Process) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&proxy.address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"*3\r\n$3\r\nSET\r\n$10\r\nbench:idle\r\n$1\r\nx\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    if &answer != b"+OK\r\n" {
        bail!("SET is answered with {:?}", String::from_utf8_lossy(&answer));
    }
    Ok(stream)
}
