//! Which keys of a node change while they are being copied: the node itself tells (`CLIENT TRACKING ON BCAST`).
//!
//! It knows of every change of a value, by scripts and expiry too. What it says before it answers a `PING` is all that changed before
//! the `PING`. It does not tell what happens to a stream's consumer groups.

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

/// Tells keys of interest from others.
type Filter = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracker").finish_non_exhaustive()
    }
}

/// A connection that is told of changes.
pub struct Tracker {
    /// Which keys are of interest.
    is_wanted: Filter,
    read: ReadHalf,
    write: WriteHalf,
    buf: BytesMut,
    scanner: ReplyScanner,
    timeout: std::time::Duration,
    changed: HashSet<Vec<u8>>,
    flushed: bool,
}

impl Tracker {
    /// Makes a connection one that is told of the node's changes from now on, as far as they are of interest.
    ///
    /// # Errors
    /// What the node, or the way to it, has against it.
    pub async fn start(
        mut control: Control,
        is_wanted: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Result<Self, ControlError> {
        control.call(&[b"CLIENT", b"TRACKING", b"ON", b"BCAST"]).await?;
        let timeout = control.timeout();
        let (read, write, buf) = control.into_halves();
        Ok(Self {
            is_wanted: Box::new(is_wanted),
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
        while !self.take_in_all()? {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Takes in what the node tells, for as long as it is waited for: so it does not pile up there.
    ///
    /// # Errors
    /// The connection is lost; what has changed is not known then.
    pub async fn listen(&mut self) -> Result<(), ControlError> {
        loop {
            self.read_more().await?;
            if self.take_in_all()? {
                return Err(ControlError::Protocol);
            }
        }
    }

    async fn read_more(&mut self) -> Result<(), ControlError> {
        match self.read.read_buf(&mut self.buf).await? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    /// Takes in what has been received. Whether there was an answer at its end.
    fn take_in_all(&mut self) -> Result<bool, ControlError> {
        while let Some((len, _)) = self
            .scanner
            .scan(&self.buf, 1)
            .map_err(|_| ControlError::Protocol)?
        {
            let frame = self.buf.split_to(len).freeze();
            if !frame.starts_with(b">") {
                return Ok(true);
            }
            self.take_in(&frame)?;
        }
        Ok(false)
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
                let keys = keys.filter(|key| (self.is_wanted)(key));
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
