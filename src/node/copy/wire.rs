//! What is asked of the source and written to the target, and when a key's copy stops.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::types::BytesFrame;

use super::{CHUNK_BYTES, Copy, CopyError};
use crate::node::control::{Control, ControlError, is_error, text_of};
use crate::resp::encode;

/// Why a key's copy stops in the middle.
pub(super) enum Stop {
    /// The key has vanished or become another type: it is begun again.
    Changed,
    /// All copying ends.
    Failed(CopyError),
}

impl<E: Into<CopyError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

/// Commands for one node, written at once.
#[derive(Default)]
pub(super) struct Batch {
    wire: BytesMut,
    commands: usize,
}

impl Batch {
    pub(super) fn push(&mut self, args: &[&[u8]]) {
        encode::command(&mut self.wire, args);
        self.commands += 1;
    }

    /// `head` with `count` more arguments, which stand in `wire` as a node has sent them.
    pub(super) fn push_wire(&mut self, head: &[&[u8]], count: usize, wire: &[u8]) {
        self.wire.reserve(wire.len() + 64);
        encode::header(&mut self.wire, b'*', head.len() + count);
        for arg in head {
            encode::bulk(&mut self.wire, arg);
        }
        self.wire.extend_from_slice(wire);
        self.commands += 1;
    }

    /// `head` with all `args`, in commands of at most `args_max` of them and not much more than [`CHUNK_BYTES`]. `unit` of them
    /// belong together.
    pub(super) fn push_all(&mut self, head: &[&[u8]], args: &[&[u8]], unit: usize, args_max: usize) {
        let mut command: Vec<&[u8]> = head.to_vec();
        let mut bytes = 0;
        for group in args.chunks(unit) {
            command.extend_from_slice(group);
            bytes += group.iter().map(|arg| arg.len()).sum::<usize>();
            if command.len() - head.len() >= args_max || bytes >= CHUNK_BYTES {
                self.push(&command);
                command.truncate(head.len());
                bytes = 0;
            }
        }
        if command.len() > head.len() {
            self.push(&command);
        }
    }

    /// The replies; errors among them.
    pub(super) async fn send(self, control: &mut Control) -> Result<Vec<BytesFrame>, ControlError> {
        match self.commands {
            0 => Ok(Vec::new()),
            commands => control.exchange(&self.wire, commands).await,
        }
    }
}

impl Copy<'_> {
    /// Asks the source about a key. Errors that a change of the key explains are not failures.
    pub(super) async fn read(&mut self, args: &[&[u8]]) -> Result<BytesFrame, Stop> {
        unless_changed(self.source.call_raw(args).await?)
    }

    /// Writes to the target; an error is a failure, since nobody else writes there.
    pub(super) async fn write(&mut self, batch: Batch) -> Result<Vec<BytesFrame>, CopyError> {
        written(batch.send(self.target).await?)
    }

    /// Writes to the target while the source is asked about a key: its reply as it came.
    pub(super) async fn write_and_read(&mut self, batch: Batch, args: &[&[u8]]) -> Result<Bytes, Stop> {
        let (replies, read) = tokio::join!(batch.send(self.target), self.source.call_bytes(args));
        written(replies?)?;
        Ok(read?)
    }

    /// So much has been read; waits until it may be written.
    pub(super) async fn spend(&mut self, bytes: usize) {
        self.copied.bytes += bytes as u64;
        self.pace.spend(bytes).await;
    }
}

/// The replies of the target, unless one is an error.
fn written(replies: Vec<BytesFrame>) -> Result<Vec<BytesFrame>, CopyError> {
    match replies.iter().find(|reply| is_error(reply)) {
        Some(error) => Err(CopyError::Restore(text_of(error))),
        None => Ok(replies),
    }
}

/// The reply of the source, unless it is an error.
pub(super) fn unless_changed(reply: BytesFrame) -> Result<BytesFrame, Stop> {
    if !is_error(&reply) {
        return Ok(reply);
    }
    Err(refusal(text_of(&reply)))
}

/// What an error of the source means.
pub(super) fn refusal(text: String) -> Stop {
    // A group that was destroyed, a key that is no more (`XINFO`).
    let changed = ["WRONGTYPE", "NOGROUP"].iter().any(|code| text.starts_with(code));
    match changed || text.contains("no such key") {
        true => Stop::Changed,
        false => ControlError::Refused(text).into(),
    }
}

/// An array of strings as it came: how many, and their bytes, which a command has as well.
pub(super) fn strings_of(reply: &[u8]) -> Result<(usize, &[u8]), Stop> {
    let end = reply
        .iter()
        .position(|&b| b == b'\n')
        .ok_or(ControlError::Protocol)?;
    let (line, strings) = reply.split_at_checked(end + 1).unwrap_or_default();
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    match line.strip_prefix('*') {
        Some(digits) => Ok((digits.parse().map_err(|_| ControlError::Protocol)?, strings)),
        None => Err(match line.strip_prefix('-') {
            Some(error) => refusal(error.to_owned()),
            None => ControlError::Protocol.into(),
        }),
    }
}

/// The items of an array; of a set too.
pub(super) fn items_of(frame: BytesFrame) -> Result<Vec<BytesFrame>, ControlError> {
    match frame {
        BytesFrame::Array { data, .. } => Ok(data),
        BytesFrame::Set { data, .. } => Ok(data.into_iter().collect()),
        _ => Err(ControlError::Protocol),
    }
}

/// The next cursor and the items of a `SCAN`, `HSCAN` or `SSCAN`.
pub(super) fn scanned(frame: BytesFrame) -> Result<(BytesFrame, Vec<BytesFrame>), ControlError> {
    let mut reply = items_of(frame)?.into_iter();
    match (reply.next(), reply.next()) {
        (Some(cursor), Some(items)) => Ok((cursor, items_of(items)?)),
        _ => Err(ControlError::Protocol),
    }
}

/// A number, also one in digits.
pub(super) fn number_of(frame: &BytesFrame) -> Option<i64> {
    match frame {
        BytesFrame::Number { data, .. } => Some(*data),
        other => text_of(other).parse().ok(),
    }
}
