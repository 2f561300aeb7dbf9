//! Small values, and those of modules: `DUMP` and `RESTORE`.
//!
//! A payload carries the version of its format, which a server that is older, or of the other family, does not take. Then the
//! value goes by ranges, and so do all others of this copy.

use redis_protocol::resp3::types::BytesFrame;

use super::look::{Expiry, Kind, Seen, expiries_before_7};
use super::wire::{Batch, Stop};
use super::{Copy, CopyError, Way};
use crate::node::control::{ControlError, bytes_of, is_error, text_of};

/// A key that is to be copied by itself, and what was seen of it if that is still to be relied on.
type Alone<'k> = (&'k [u8], Option<Seen>);

impl Copy<'_> {
    /// Copies values as they are. Those that the target does not take are given back.
    pub(super) async fn dump<'k>(&mut self, keys: &[&'k [u8]]) -> Result<Vec<Alone<'k>>, CopyError> {
        let mut refused = Vec::new();
        for (key, error) in self.dump_and_restore(keys).await? {
            if is_payload_error(&error) {
                // Only the version is the same for all.
                if error.contains("version") {
                    self.way = Way::Ranges;
                }
                refused.push((key, None));
            } else {
                return Err(CopyError::Restore(error));
            }
        }
        Ok(refused)
    }

    /// Copies a module's value. There is no other way to do that.
    pub(super) async fn dump_module(&mut self, key: &[u8], kind: &str) -> Result<(), Stop> {
        let Some((_, error)) = self.dump_and_restore(&[key]).await?.pop() else {
            return Ok(());
        };
        // It may have been another value that was refused.
        match self.look_at(key).await?.kind {
            Kind::Module(now) if now == kind => Err(Stop::Failed(CopyError::Module { kind: now, error })),
            _ => Err(Stop::Changed),
        }
    }

    /// Gives the keys that the target does not take, with its error.
    async fn dump_and_restore<'k>(
        &mut self,
        keys: &[&'k [u8]],
    ) -> Result<Vec<(&'k [u8], String)>, CopyError> {
        let mut reads = Batch::default();
        for key in keys {
            reads.push(&[b"DUMP", key]);
            reads.push(&[b"PEXPIRETIME", key]);
        }
        let replies = reads.send(self.source).await?;
        let pairs = || replies.chunks(2).zip(keys);
        let known: Vec<Option<Expiry>> = pairs()
            .map(|(pair, _)| pair.get(1).and_then(Expiry::of))
            .collect();
        let expiries = match known.iter().copied().collect() {
            Some(expiries) => expiries,
            None => expiries_before_7(self.source, keys).await?,
        };
        let mut writes = Batch::default();
        let mut bytes = 0;
        for ((pair, key), expiry) in pairs().zip(expiries) {
            let dump = pair.first().unwrap_or(&BytesFrame::Null);
            if is_error(dump) {
                return Err(ControlError::Refused(text_of(dump)).into());
            }
            let payload = bytes_of(dump);
            bytes += payload.len();
            match expiry {
                _ if payload.is_empty() => writes.push(&[b"UNLINK", key]),
                Expiry::Gone => writes.push(&[b"UNLINK", key]),
                Expiry::Never => writes.push(&[b"RESTORE", key, b"0", payload, b"REPLACE"]),
                Expiry::At(at) => {
                    let at = at.to_string();
                    writes.push(&[b"RESTORE", key, at.as_bytes(), payload, b"REPLACE", b"ABSTTL"]);
                }
            }
        }
        drop(replies);
        self.spend(bytes).await;
        let replies = writes.send(self.target).await?;
        let errors = replies.iter().zip(keys).filter(|(reply, _)| is_error(reply));
        Ok(errors.map(|(reply, key)| (*key, text_of(reply))).collect())
    }
}

/// Whether the target says that it cannot read the payload: `ERR DUMP payload version or checksum are wrong`,
/// `ERR Bad data format`.
fn is_payload_error(error: &str) -> bool {
    error.contains("DUMP payload") || error.contains("Bad data format")
}
