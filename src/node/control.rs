//! A control connection: one command, one reply, within a time limit.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode_bytes;
use redis_protocol::resp3::types::{BytesFrame, Resp3Frame};
use thiserror::Error;
use tokio::io::AsyncReadExt;

use crate::config::NodeAddress;
use crate::net::{ReadHalf, Socket, WriteHalf};
use crate::resp::{ReplyScanner, encode};

/// Nesting that a decoded reply may have: the library's decoder calls itself. `COMMAND` reaches 6.
const DEPTH_MAX: usize = 16;

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Why a control command has no reply.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing came within the time limit.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The node does not speak the protocol.
    #[error("the answer is not a Redis reply")]
    Protocol,
    /// What a sidecar has written there is not what a sidecar writes.
    #[error(
        "has a record of the pool (rf:table, in the bookkeeping database) that this version cannot read: start the version that \
         has written it, or, if that pool is gone for good, empty the node with FLUSHALL"
    )]
    Unreadable,
    /// The node refused the command.
    #[error("{0}")]
    Refused(String),
}

/// A connection for commands of the sidecar itself.
#[derive(Debug)]
pub struct Control {
    read: ReadHalf,
    write: WriteHalf,
    buf: BytesMut,
    timeout: Duration,
    /// The database that it certainly stands in.
    db: Option<u16>,
}

impl Control {
    /// Connects, and logs in if there is a password. `HELLO 3` is said, so replies have RESP3 types.
    pub async fn connect(
        address: &NodeAddress,
        login: Option<(&str, &str)>,
        timeout: Duration,
    ) -> Result<Self, ControlError> {
        let (read, write) = Socket::connect(address, timeout).await?.into_split();
        let mut control = Self {
            read,
            write,
            buf: BytesMut::new(),
            timeout,
            db: None,
        };
        if let Some((user, password)) = login {
            control
                .call(&[b"AUTH", user.as_bytes(), password.as_bytes()])
                .await?;
        }
        control.call(&[b"HELLO", b"3"]).await?;
        Ok(control)
    }

    /// Selects a database, if it is not the one that was selected last.
    pub async fn select(&mut self, db: u16) -> Result<(), ControlError> {
        if self.db != Some(db) {
            self.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
            self.db = Some(db);
        }
        Ok(())
    }

    /// Sends one command; an error reply is an `Err`.
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<BytesFrame, ControlError> {
        match self.call_raw(args).await? {
            frame if is_error(&frame) => Err(ControlError::Refused(text_of(&frame))),
            frame => Ok(frame),
        }
    }

    /// Sends one command; an error reply is a frame like any other.
    pub async fn call_raw(&mut self, args: &[&[u8]]) -> Result<BytesFrame, ControlError> {
        self.note_select(args);
        let frame = encode::command_frame(args);
        self.exchange(&frame, 1)
            .await?
            .pop()
            .ok_or(ControlError::Protocol)
    }

    /// Sends commands side by side; error replies are frames like any other.
    pub async fn call_all<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a [&'a [u8]]>,
    ) -> Result<Vec<BytesFrame>, ControlError> {
        let mut wire = BytesMut::new();
        let mut count = 0;
        for args in commands {
            self.note_select(args);
            encode::command(&mut wire, args);
            count += 1;
        }
        self.exchange(&wire, count).await
    }

    fn note_select(&mut self, args: &[&[u8]]) {
        if args.first() == Some(&&b"SELECT"[..]) {
            self.db = None;
        }
    }

    /// Sends `wire` and takes `count` replies. It must select no database where [`Self::select`] is used.
    pub async fn exchange(&mut self, wire: &[u8], count: usize) -> Result<Vec<BytesFrame>, ControlError> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.exchange_untimed(wire, count))
            .await
            .map_err(|_| ControlError::Timeout(timeout))?
    }

    /// Sends one command and takes its reply as it came.
    pub async fn call_bytes(&mut self, args: &[&[u8]]) -> Result<Bytes, ControlError> {
        let frame = encode::command_frame(args);
        let timeout = self.timeout;
        let replies = tokio::time::timeout(timeout, self.exchange_bytes(&frame, 1))
            .await
            .map_err(|_| ControlError::Timeout(timeout))??;
        replies.into_iter().next().ok_or(ControlError::Protocol)
    }

    async fn exchange_untimed(&mut self, wire: &[u8], count: usize) -> Result<Vec<BytesFrame>, ControlError> {
        // Looked at before it is decoded: the library's decoder would call itself for each level.
        let decode = |bytes: Bytes| match depth(&bytes) <= DEPTH_MAX {
            true => decode_bytes(&bytes)
                .ok()
                .flatten()
                .map(|(frame, _)| frame)
                .ok_or(ControlError::Protocol),
            false => Err(ControlError::Protocol),
        };
        self.exchange_bytes(wire, count)
            .await?
            .into_iter()
            .map(decode)
            .collect()
    }

    async fn exchange_bytes(&mut self, wire: &[u8], count: usize) -> Result<Vec<Bytes>, ControlError> {
        let mut rest = wire;
        let mut replies = Vec::with_capacity(count);
        // Large requests are written while replies are read, or both sides could wait for each other.
        while !rest.is_empty() {
            match self.write.try_write_vectored(&[io::IoSlice::new(rest)]) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let write = &self.write;
                    tokio::select! {
                        ready = write.writable() => ready?,
                        n = self.read.read_buf(&mut self.buf) => { closed(n?)?; }
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        let mut scanner = ReplyScanner::default();
        while replies.len() < count {
            match scanner.scan(&self.buf, 1).map_err(|_| ControlError::Protocol)? {
                None => {
                    // Else a large reply would be read in steps of a few bytes, and moved with each.
                    if self.buf.capacity() - self.buf.len() < READ_BYTES / 4 {
                        self.buf.reserve(READ_BYTES);
                    }
                    closed(self.read.read_buf(&mut self.buf).await?)?;
                }
                Some((len, _)) => replies.push(self.buf.split_to(len).freeze()),
            }
        }
        Ok(replies)
    }

    /// How long a node may take to answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives the connection up for a data stream: its halves, and whatever was read beyond the last reply.
    pub fn into_halves(self) -> (ReadHalf, WriteHalf, BytesMut) {
        (self.read, self.write, self.buf)
    }
}

fn closed(n: usize) -> io::Result<()> {
    if n == 0 {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the node closed the connection",
        ))
    } else {
        Ok(())
    }
}

/// An upper bound of a reply's nesting: aggregates that begin right inside each other.
fn depth(bytes: &[u8]) -> usize {
    let mut open: Vec<u64> = Vec::new();
    let mut deepest = 0;
    let mut pos = 0;
    while let Some(&kind) = bytes.get(pos) {
        let line = bytes.get(pos + 1..).unwrap_or_default();
        let Some(end) = line.iter().position(|&b| b == b'\n') else {
            break;
        };
        let n: i64 = line
            .get(..end.saturating_sub(1))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .unwrap_or(0);
        pos += end + 2;
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        match kind {
            b'$' | b'=' | b'!' if n >= 0 => pos += n as usize + 2,
            b'*' | b'~' | b'>' if n > 0 => open.push(n as u64),
            b'%' | b'|' if n > 0 => open.push(2 * n as u64),
            _ => {}
        }
        deepest = deepest.max(open.len());
    }
    deepest
}

/// Whether the frame is an error.
pub fn is_error(frame: &BytesFrame) -> bool {
    matches!(
        frame,
        BytesFrame::SimpleError { .. } | BytesFrame::BlobError { .. }
    )
}

/// The frame's text, for people and for numbers; empty for aggregates and null.
pub fn text_of(frame: &BytesFrame) -> String {
    frame
        .to_string()
        .unwrap_or_else(|| String::from_utf8_lossy(bytes_of(frame)).into_owned())
}

/// The frame's bytes; empty if it has none.
pub fn bytes_of(frame: &BytesFrame) -> &[u8] {
    frame.as_bytes().unwrap_or_default()
}

/// The pairs of a map, or of an array that stands for one.
pub fn pairs_of(frame: BytesFrame) -> Vec<(BytesFrame, BytesFrame)> {
    match frame {
        BytesFrame::Map { data, .. } => data.into_iter().collect(),
        BytesFrame::Array { data, .. } => {
            let mut pairs = Vec::with_capacity(data.len() / 2);
            let mut items = data.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            pairs
        }
        _ => Vec::new(),
    }
}
