//! Repair: a key on which mirrors have answered differently is made on all nodes what it is on the primary.
//!
//! The usual cause is a key that expired between two mirrors: one executed a write just before the deadline, one just
//! after. The partition is held for the moment, the primary is asked for the value (`DUMP`) and its deadline, and what it
//! says is written to all nodes at the next place of the order, where nothing can come between.

use bytes::Bytes;
use smallvec::smallvec;

use super::reads::Purpose;
use super::{Sequencer, log::LogPos};
use crate::command::spec::Compare;
use crate::request::{Action, Commands, PartitionId, ReplyTo, Request, Touched};
use crate::resp::{ReplyScanner, encode, frame_of};

/// Nobody waits for a repair.
pub(super) const NOBODY: ReplyTo = ReplyTo {
    worker: u16::MAX,
    part: 0,
    client: u32::MAX,
    generation: 0,
    slot: 0,
};

impl Sequencer {
    /// Notes that mirrors differ in what the write at `pos` did.
    pub(super) fn differs(&mut self, pos: LogPos) {
        let Some(entry) = self.log.get_mut(pos) else {
            return;
        };
        let Touched::Keys(keys) = &entry.commands.touched else {
            return;
        };
        for span in keys {
            let at = span.start as usize..(span.start + span.len) as usize;
            let key = Bytes::copy_from_slice(entry.commands.frame.get(at).unwrap_or_default());
            let (partition, db) = (entry.partition, entry.db);
            let known = |r: &Request| matches!(&r.action, Action::Repair(k) if *k == key && r.db == db);
            if !self.again.iter().any(known) {
                self.again.push(Request {
                    partition,
                    db,
                    action: Action::Repair(key),
                    reply_to: NOBODY,
                });
            }
        }
    }

    /// Holds the partition and asks the primary.
    pub(super) fn order_repair(&mut self, partition: PartitionId, db: u16, key: Bytes) {
        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
            return;
        };
        let Some(primary) = p.primary() else { return };
        p.held = Some(std::collections::VecDeque::new());
        let ask = [
            encode::command_frame(&[b"DUMP", &key]),
            encode::command_frame(&[b"PEXPIRETIME", &key]),
        ];
        let commands = Commands {
            count: 2,
            ..Commands::one(ask.concat().into())
        };
        self.ask_of(partition, db, commands, Purpose::Repair(key), primary);
    }

    /// The primary has said what the key is.
    pub(super) fn repaired(&mut self, partition: PartitionId, db: u16, key: &[u8], frames: &[u8]) {
        if let Some((frame, span)) = restore(key, frames) {
            let commands = Commands {
                compare: Compare::Skip,
                touched: Touched::Keys(smallvec![span]),
                ..Commands::one(frame)
            };
            self.counters.repairs += 1;
            self.order_write(partition, db, commands, NOBODY, None);
        }
        self.let_go(partition);
    }
}

/// The command that makes a key what the primary says, and where in it the key is; `None` if the primary cannot say.
fn restore(key: &[u8], frames: &[u8]) -> Option<(Bytes, crate::resp::Span)> {
    let (dump_len, _) = ReplyScanner::default().scan(frames, 1).ok()??;
    let (dump, expiry) = frames.split_at_checked(dump_len)?;
    let deadline = std::str::from_utf8(expiry.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?;
    let frame_and_spans = if dump.starts_with(b"_") || dump.starts_with(b"$-1") {
        frame_of(&[b"DEL".as_slice(), key])
    } else {
        let header_len = dump.iter().position(|&b| b == b'\n')? + 1;
        let payload = dump.get(header_len..dump.len().checked_sub(2)?)?;
        if deadline.starts_with('-') {
            frame_of(&[b"RESTORE".as_slice(), key, b"0", payload, b"REPLACE"])
        } else {
            frame_of(&[
                b"RESTORE".as_slice(),
                key,
                deadline.as_bytes(),
                payload,
                b"REPLACE",
                b"ABSTTL",
            ])
        }
    };
    let (frame, spans) = frame_and_spans;
    Some((frame, *spans.get(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_is_made_of() {
        let text = |frames: &[u8]| {
            restore(b"k", frames).map(|(frame, _)| String::from_utf8_lossy(&frame).replace("\r\n", " "))
        };
        assert_eq!(text(b"_\r\n:-2\r\n").unwrap(), "*2 $3 DEL $1 k ");
        assert_eq!(
            text(b"$4\r\nab\r\n\r\n:-1\r\n").unwrap(),
            "*5 $7 RESTORE $1 k $1 0 $4 ab  $7 REPLACE "
        );
        assert!(
            text(b"$1\r\nx\r\n:1900000000000\r\n")
                .unwrap()
                .ends_with("$6 ABSTTL ")
        );
        assert_eq!(text(b"$1\r\nx\r\n-ERR unknown command\r\n"), None);
        let (frame, span) = restore(b"key", b"_\r\n:-2\r\n").unwrap();
        assert_eq!(&frame[span.start as usize..][..span.len as usize], b"key");
    }
}
