//! Which keys of a node change while they are being copied: the node itself tells (`CLIENT TRACKING ON BCAST`).
//!
//! It knows of every change, by scripts and expiry too, and of none twice over. What it says before it answers a `PING` is all
//! that changed before the `PING`.

use std::collections::HashSet;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode_bytes;
use redis_protocol::resp3::types::BytesFrame;
use tokio::io::AsyncReadExt;

use super::control::{Control, ControlError, bytes_of};
use crate::account;
use crate::net::{ReadHalf, WriteHalf};
use crate::resp::{ReplyScanner, encode};

/// A connection that is told of changes.
#[derive(Debug)]
pub struct Tracker {
    read: ReadHalf,
    write: WriteHalf,
    buf: BytesMut,
    scanner: ReplyScanner,
    timeout: std::time::Duration,
    changed: HashSet<Vec<u8>>,
    flushed: bool,
}

impl Tracker {
    /// Makes a connection one that is told of the node's changes from now on.
    ///
    /// # Errors
    /// What the node, or the way to it, has against it.
    pub async fn start(mut control: Control) -> Result<Self, ControlError> {
        control.call(&[b"CLIENT", b"TRACKING", b"ON", b"BCAST"]).await?;
        let timeout = control.timeout();
        let (read, write, buf) = control.into_halves();
        Ok(Self {
            read,
            write,
            buf,
            scanner: ReplyScanner::default(),
            timeout,
            changed: HashSet::new(),
            flushed: false,
        })
    }

    /// Learns of everything that has changed so far.
    ///
    /// # Errors
    /// The connection is lost; what has changed is not known then.
    pub async fn catch_up(&mut self) -> Result<(), ControlError> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.catch_up_untimed())
            .await
            .map_err(|_| ControlError::Timeout(timeout))?
    }

    async fn catch_up_untimed(&mut self) -> Result<(), ControlError> {
        let ping = encode::command_frame(&[b"PING"]);
        let mut rest = &ping[..];
        while !rest.is_empty() {
            match self.write.try_write_vectored(&[IoSlice::new(rest)]) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.write.writable().await?,
                Err(e) => return Err(e.into()),
            }
        }
        loop {
            let scanned = self.scanner.scan(&self.buf, 1);
            match scanned.map_err(|_| ControlError::Protocol)? {
                None => {
                    if self.read.read_buf(&mut self.buf).await? == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                }
                Some((len, _)) => {
                    let frame = self.buf.split_to(len).freeze();
                    if !frame.starts_with(b">") {
                        return Ok(());
                    }
                    self.take_in(&frame)?;
                }
            }
        }
    }

    fn take_in(&mut self, frame: &Bytes) -> Result<(), ControlError> {
        let (push, _) = decode_bytes(frame).ok().flatten().ok_or(ControlError::Protocol)?;
        let BytesFrame::Push { data, .. } = push else {
            return Err(ControlError::Protocol);
        };
        match data.as_slice() {
            [_, BytesFrame::Array { data: keys, .. }] => {
                // The account changes with every batch; a client's key of that name is copied at the end in any case.
                let is_data = |key: &&[u8]| *key != account::APPLIED && *key != account::TOUCHED;
                let keys = keys.iter().map(bytes_of).filter(is_data);
                self.changed.extend(keys.map(<[u8]>::to_vec));
            }
            // No keys: all of them.
            _ => self.flushed = true,
        }
        Ok(())
    }

    /// The keys that have changed since the last time that they were taken, of whatever database; `None`: a database was emptied.
    pub fn take(&mut self) -> Option<HashSet<Vec<u8>>> {
        match std::mem::take(&mut self.flushed) {
            true => None,
            false => Some(std::mem::take(&mut self.changed)),
        }
    }

    /// The keys that have changed since; they are still to be taken.
    pub fn changed(&self) -> &HashSet<Vec<u8>> {
        &self.changed
    }
}
