//! Passing a client on to the sidecar that serves: bytes in, bytes out, nothing is looked at.
//!
//! Idle clients cost no buffer: bytes go through one that all of them share, and only what the other side does not take at once is kept.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::hail::{self, TAKEN};
use crate::config::NodeAddress;
use crate::net::{ReadHalf, Socket, WriteHalf};

/// What is read from one side at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// How long the sidecar that serves may take to let a client in.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// Asks the sidecar that serves whether it does.
pub(super) async fn probe(to: &NodeAddress, timeout: Duration) -> io::Result<()> {
    hail(&hail::probe()?, to, timeout).await.map(drop)
}

/// Connects to the sidecar that serves, tells it where `client` is, and waits until it has taken it.
pub(super) async fn connect(client: &Socket, to: &NodeAddress, timeout: Duration) -> io::Result<Socket> {
    hail(&hail::header_for(client.addresses())?, to, timeout).await
}

async fn hail(header: &[u8], to: &NodeAddress, timeout: Duration) -> io::Result<Socket> {
    let mut socket = Socket::connect(to, timeout).await?;
    // The first bytes of a connection: there is room for them.
    if socket.try_write(header)? != header.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    match tokio::time::timeout(TAKEN_WITHIN, socket.read_u8()).await?? {
        TAKEN => Ok(socket),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no sidecar's port",
        )),
    }
}

/// Carries bytes both ways, until the sidecar has nothing more to say.
pub(super) async fn carry(client: Socket, active: Socket) -> io::Result<()> {
    client.tune();
    let (client_read, client_write) = client.into_split();
    let (active_read, active_write) = active.into_split();
    let there = async {
        pump(&client_read, &active_write).await?;
        // The client has sent its last; what it is still owed comes.
        drop(active_write);
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        lost = there => lost,
        ended = pump(&active_read, &client_write) => ended,
    }
}

async fn pump(from: &ReadHalf, to: &WriteHalf) -> io::Result<()> {
    loop {
        from.readable().await?;
        let Some(rest) = BUFFER.with_borrow_mut(|buffer| pass(from, to, buffer))? else {
            return Ok(());
        };
        let mut left = rest.as_slice();
        while !left.is_empty() {
            to.writable().await?;
            left = left.get(taken(to, left)?..).unwrap_or_default();
        }
    }
}

/// Reads once, and writes what the other side takes: what it does not, or nothing at the end.
fn pass(from: &ReadHalf, to: &WriteHalf, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let bytes = match from.try_read(buffer) {
        Ok(0) => return Ok(None),
        Ok(n) => buffer.get(..n).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Vec::new())),
        Err(error) => return Err(error),
    };
    let rest = bytes.get(taken(to, bytes)?..).unwrap_or_default();
    Ok(Some(rest.to_vec()))
}

/// How many of the bytes the socket takes now.
fn taken(to: &WriteHalf, bytes: &[u8]) -> io::Result<usize> {
    match to.try_write_vectored(&[IoSlice::new(bytes)]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        taken => taken,
    }
}
