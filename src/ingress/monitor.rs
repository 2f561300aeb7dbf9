//! `MONITOR`: every command that clients send to this sidecar, shown to those who ask for it.
//!
//! One word that all threads share has a bit for each worker with a monitoring client. It is 0 nearly always, and then a
//! command costs one look at it. Otherwise its line is made once, given to this worker's monitors, and sent to the others.
//! A bit that nobody needs any more is cleared by the worker it stands for, when a line finds no monitor there.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use super::dispatch::Flow;
use super::notice::UNKNOWN;
use super::transaction::{OK, Transaction};
use crate::command::spec::Class;
use crate::command::{Command, Flags, Special};
use crate::resp::{Args, Spans, encode};
use crate::shared::Message;
use crate::worker::{Core, Worker};

const NO_KEYSPACE: &str = "ERR Replica can't interact with the keyspace";

impl Worker {
    /// `MONITOR`.
    pub(super) fn monitor(&self, core: &mut Core, id: u32) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        // A second one is not even answered.
        if client.session.monitors {
            return Flow::Next;
        }
        client.session.monitors = true;
        core.monitors.push((id, client.generation));
        let flow = self.reply(core, id, OK);
        self.shared().monitored_by.fetch_or(self.bit(), Relaxed);
        flow
    }

    fn bit(&self) -> u64 {
        1 << (self.id() % 64)
    }

    /// Whether a client that monitors has asked for something that it may not; that is answered here.
    pub(super) fn only_watches(&self, core: &mut Core, id: u32, command: &Command) -> bool {
        let touches = command.flags.intersects(Flags::READONLY | Flags::WRITE) || command.is_write();
        let Some(client) = core
            .clients
            .get_mut(id as usize)
            .filter(|c| touches && c.session.monitors)
        else {
            return false;
        };
        client.command = UNKNOWN;
        self.refuse(core, id, NO_KEYSPACE);
        true
    }

    /// Shows a command that has just been taken up, unless it waits for `EXEC`.
    pub(super) fn show(&self, core: &mut Core, id: u32, frame: &Bytes, spans: &Spans) {
        let Some(client) = core.clients.get(id as usize) else {
            return;
        };
        let queued = client.session.transaction.is_some();
        let args = Args { bytes: frame, spans };
        // None if it has been refused before anything was done.
        if let Some(command) = self.shared().commands.at(client.command)
            && (!queued || command.class(&args) == Class::Transaction)
        {
            self.show_command(core, id, command, &args);
        }
    }

    /// Shows the commands of a transaction that is being executed.
    pub(super) fn show_queued(&self, core: &mut Core, id: u32, transaction: &Transaction) {
        if self.shared().monitored_by.load(Relaxed) == 0 {
            return;
        }
        for (frame, spans) in &transaction.commands {
            let args = Args { bytes: frame, spans };
            if let Ok(command) = self.shared().commands.lookup(&args) {
                self.show_command(core, id, command, &args);
            }
        }
    }

    fn show_command(&self, core: &mut Core, id: u32, command: &Command, args: &Args<'_>) {
        let Some(client) = core.clients.get(id as usize) else {
            return;
        };
        // Scripts have the second flag, and Redis shows them all the same.
        if command.flags.contains(Flags::ADMIN) {
            return;
        }
        let line = line(
            client.session.db,
            &client.session.monitor_peer(),
            command.special,
            args,
        );
        let monitored_by = self.shared().monitored_by.load(Relaxed);
        for worker in 0..self.shared().workers.len() as u16 {
            if worker != self.id() && monitored_by & (1 << (worker % 64)) != 0 {
                core.mail(worker, Message::Monitored(line.clone()));
            }
        }
        self.show_line(core, &line);
    }

    /// Gives a line to this worker's monitors.
    pub(crate) fn show_line(&self, core: &mut Core, line: &Bytes) {
        let Core {
            monitors,
            clients,
            dirty,
            ..
        } = core;
        monitors.retain(|&(id, generation)| {
            let Some(client) = clients
                .get_mut(id as usize)
                .filter(|c| c.generation == generation && c.session.monitors && !c.gone)
            else {
                return false;
            };
            client.out.put_shared(line);
            if !client.dirty {
                client.dirty = true;
                dirty.push(id);
            }
            true
        });
        if monitors.is_empty() {
            self.shared().monitored_by.fetch_and(!self.bit(), Relaxed);
        }
    }
}

/// `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
fn line(db: u16, peer: &str, special: Special, args: &Args<'_>) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let size = args.iter().map(|arg| arg.len() + 8).sum::<usize>();
    let mut out = BytesMut::with_capacity(size + peer.len() + 40);
    let head = format!("+{}.{:06} [{db} {peer}]", now.as_secs(), now.subsec_micros());
    out.put_slice(head.as_bytes());
    let secret = secrets(special, args);
    for (at, arg) in args.iter().enumerate() {
        out.put_u8(b' ');
        quote(&mut out, if secret(at) { b"(redacted)" } else { arg });
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// Which arguments nobody may see.
pub(super) fn secrets<'a>(special: Special, args: &'a Args<'a>) -> impl Fn(usize) -> bool + use<'a> {
    let credentials = (special == Special::Hello)
        .then(|| args.iter().position(|word| word.eq_ignore_ascii_case(b"AUTH")))
        .flatten()
        .map_or(0..0, |auth| auth + 1..auth + 3);
    move |at| (special == Special::Auth && at > 0) || credentials.contains(&at)
}

/// As a string of C (`sdscatrepr`).
fn quote(out: &mut BytesMut, arg: &[u8]) {
    out.put_u8(b'"');
    for &byte in arg {
        match byte {
            b'\\' | b'"' => out.put_slice(&[b'\\', byte]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            0x07 => out.put_slice(b"\\a"),
            0x08 => out.put_slice(b"\\b"),
            b' '..=b'~' => out.put_u8(byte),
            _ => out.put_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.put_u8(b'"');
}

/// What a monitoring client cannot do inside `EXEC`.
pub(super) fn in_transaction() -> Bytes {
    encode::error("ERR MONITOR isn't allowed for DENY BLOCKING client")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testserver::{Sent, words};

    fn shown(special: Special, command: &str) -> String {
        shown_words(special, &words(command))
    }

    fn shown_words(special: Special, command: &[Vec<u8>]) -> String {
        let sent = Sent::new(command);
        let line = line(3, "1.2.3.4:5", special, &sent.args());
        let line = String::from_utf8(line.to_vec()).unwrap();
        line.split_once(' ').unwrap().1.trim_end().to_owned()
    }

    #[test]
    fn lines_are_those_of_redis() {
        assert_eq!(
            shown_words(
                Special::Echo,
                &[b"ECHO".to_vec(), b"a\"b\x01\n\\\x07\xff".to_vec()]
            ),
            r#"[3 1.2.3.4:5] "ECHO" "a\"b\x01\n\\\a\xff""#
        );
        assert_eq!(
            shown(Special::Auth, "auth user pass"),
            r#"[3 1.2.3.4:5] "auth" "(redacted)" "(redacted)""#
        );
        assert_eq!(
            shown(Special::Hello, "HELLO 3 SETNAME x AUTH user pass"),
            r#"[3 1.2.3.4:5] "HELLO" "3" "SETNAME" "x" "AUTH" "(redacted)" "(redacted)""#
        );
    }
}
