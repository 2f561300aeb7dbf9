//! Passing a client on to the sidecar that serves: bytes in, bytes out, nothing is looked at.
//!
//! Idle clients cost no buffer: bytes go through one that all of them share, and only what the other side does not take at once is kept.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tracing::debug;

use super::hail::{self, NOT_YET, TAKEN};
use crate::config::NodeAddress;
use crate::net::{ReadHalf, Socket, WriteHalf};

/// What is read from one side at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// How long a client may take nothing of what it is sent.
const UNREAD_FOR: Duration = Duration::from_secs(60);

/// How long the sidecar that serves may take to let a client in.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// Asks the sidecar that serves whether it does. All of that within `timeout`: nodes are not looked at meanwhile.
pub(super) async fn probe(to: &NodeAddress, timeout: Duration) -> io::Result<()> {
    let header = hail::probe()?;
    let answered = tokio::time::timeout(timeout, hail(&header, to, timeout));
    answered.await?.map(drop)
}

/// Connects to the sidecar that serves, tells it where `client` is, and waits until it has taken it.
pub(super) async fn connect(client: &Socket, to: &NodeAddress, timeout: Duration) -> io::Result<Socket> {
    hail(&hail::header_for(client.addresses())?, to, timeout).await
}

async fn hail(header: &[u8], to: &NodeAddress, timeout: Duration) -> io::Result<Socket> {
    let mut socket = Socket::connect(to, timeout).await?;
    // The first bytes of a connection: there is room for them.
    socket.writable().await?;
    if socket.try_write(header)? != header.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    match tokio::time::timeout(TAKEN_WITHIN, socket.read_u8()).await?? {
        TAKEN => Ok(socket),
        NOT_YET => Err(io::Error::new(io::ErrorKind::WouldBlock, "it does not serve yet")),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no sidecar's port",
        )),
    }
}

/// Carries bytes both ways, until the sidecar has nothing more to say. Whether the client had left by then.
pub(super) async fn carry(client: Socket, active: Socket) -> bool {
    client.tune();
    let (client_read, client_write) = client.into_split();
    let (active_read, active_write) = active.into_split();
    let client_left = AtomicBool::new(false);
    let there = async {
        // A sidecar that does not read on has a reason: its client waits for something.
        let ended = pump(&client_read, &active_write, Duration::MAX).await;
        client_left.store(ended.is_ok(), Relaxed);
        // What the client is still owed comes, whoever has ended it.
        drop(active_write);
        std::future::pending().await
    };
    let back = async {
        let ended = pump(&active_read, &client_write, UNREAD_FOR).await;
        debug!(?ended, "a client that was passed on has ended");
    };
    tokio::select! {
        never = there => never,
        () = back => client_left.load(Relaxed),
    }
}

/// Carries bytes one way, to their end, if the other side takes some every now and then.
async fn pump(from: &ReadHalf, to: &WriteHalf, patience: Duration) -> io::Result<()> {
    loop {
        from.readable().await?;
        let Some((read, rest)) = BUFFER.with_borrow_mut(|buffer| pass(from, to, buffer))? else {
            return Ok(());
        };
        let mut left = rest.as_slice();
        while !left.is_empty() {
            tokio::time::timeout(patience, to.writable()).await??;
            left = left.get(taken(to, left)?..).unwrap_or_default();
        }
        // Who sends without end leaves the others their turn.
        if read == BUFFER_BYTES {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads once, and writes what the other side takes: how much that was, and what it does not take; or nothing at the end.
fn pass(from: &ReadHalf, to: &WriteHalf, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<u8>)>> {
    let bytes = match from.try_read(buffer) {
        Ok(0) => return Ok(None),
        Ok(n) => buffer.get(..n).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some((0, Vec::new()))),
        Err(error) => return Err(error),
    };
    let rest = bytes.get(taken(to, bytes)?..).unwrap_or_default();
    Ok(Some((bytes.len(), rest.to_vec())))
}

/// How many of the bytes the socket takes now.
fn taken(to: &WriteHalf, bytes: &[u8]) -> io::Result<usize> {
    match to.try_write_vectored(&[IoSlice::new(bytes)]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        taken => taken,
    }
}
