//! The directory of a local pool: who holds it, and which nodes with which ports are in it.
//!
//! The first start chooses the ports and writes them to `nodes.toml`; every later one reads them from there, and takes
//! nothing from the file that a start could not have written.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::server::write_atomically;
use super::{DevError, file_error};

/// Ports that nodes get. Above the usual services, below Linux' default `ip_local_port_range` (32768).
pub(super) const PORTS: Range<u16> = 17_000..32_768;
/// Random ports that are tried for one node before we say that none is free.
const PORT_TRIES_MAX: usize = 200;

/// `nodes.toml`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodesFile {
    pub(super) nodes: Vec<NodeEntry>,
}

/// One node of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeEntry {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// The directory to work in: absolute, existing, writable.
pub(super) fn open(asked: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), DevError> {
    let temporary = match asked {
        Some(path) => {
            fs::create_dir_all(path).map_err(|source| file_error(path, source))?;
            None
        }
        None => {
            let made = TempDir::with_prefix("ringfence-dev-");
            Some(made.map_err(|source| file_error(&std::env::temp_dir(), source))?)
        }
    };
    let path = asked
        .or(temporary.as_ref().map(TempDir::path))
        .unwrap_or(Path::new("."));
    // What /proc says about a process' directory has no symbolic links in it.
    let dir = path.canonicalize().map_err(|source| file_error(path, source))?;
    Ok((dir, temporary))
}

/// The kernel gives the lock back when we die, however that happens.
pub(super) fn lock(dir: &Path) -> Result<File, DevError> {
    let path = dir.join("lock");
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = opened.map_err(|source| file_error(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DevError::DirInUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(file_error(&path, source)),
    }
}

/// The nodes that `nodes.toml` names; on the first start in a directory, new ones, which are then written there.
pub(super) fn entries(dir: &Path, count: usize) -> Result<Vec<NodeEntry>, DevError> {
    let path = dir.join("nodes.toml");
    match fs::read_to_string(&path) {
        Ok(text) => known_entries(dir, &path, &text, count),
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_entries(&path, count),
        Err(source) => Err(file_error(&path, source)),
    }
}

fn known_entries(dir: &Path, path: &Path, text: &str, count: usize) -> Result<Vec<NodeEntry>, DevError> {
    let wrong = |reason: String| DevError::NodesFile {
        path: path.to_owned(),
        reason,
    };
    let file: NodesFile = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let found = file.nodes.len();
    if found != count {
        return Err(DevError::NodeCount {
            dir: dir.to_owned(),
            found,
        });
    }
    for (index, entry) in file.nodes.iter().enumerate() {
        // The name becomes a directory and the address is bound: take nothing that we have not written.
        if entry.name != node_name(index) || entry.address.ip() != Ipv4Addr::LOCALHOST {
            return Err(wrong(format!(
                "`{}` at {} is not a node of a local pool",
                entry.name, entry.address
            )));
        }
    }
    Ok(file.nodes)
}

fn new_entries(path: &Path, count: usize) -> Result<Vec<NodeEntry>, DevError> {
    // All listeners are held until every node has its port, so that no port is given twice.
    let mut listeners = Vec::with_capacity(count);
    let mut nodes = Vec::with_capacity(count);
    for index in 0..count {
        let (listener, address) = free_port().ok_or(DevError::NoFreePort)?;
        listeners.push(listener);
        nodes.push(NodeEntry {
            name: node_name(index),
            address,
        });
    }
    let file = NodesFile { nodes };
    let table = toml::to_string(&file).map_err(|error| DevError::NodesFile {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let text = format!(
        "# The nodes of `ringfence dev` in this directory. Written once: they keep their ports.\n\n{table}"
    );
    write_atomically(path, text.as_bytes())?;
    Ok(file.nodes)
}

fn node_name(index: usize) -> String {
    format!("node{}", index + 1)
}

fn free_port() -> Option<(TcpListener, SocketAddr)> {
    let mut rng = rand::rng();
    (0..PORT_TRIES_MAX).find_map(|_| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rng.random_range(PORTS)));
        TcpListener::bind(address)
            .ok()
            .map(|listener| (listener, address))
    })
}
