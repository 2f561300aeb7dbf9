//! Who a client is, and which protocol it speaks: `AUTH`, `HELLO`, `SELECT`, `RESET`.

use bytes::{Bytes, BytesMut};

use super::answer::{NOT_AN_INTEGER, SYNTAX, map, word};
use super::client::{Session, Silence};
use super::transaction::OK;
use crate::command::number;
use crate::resp::{Args, encode};
use crate::shared::Shared;

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                           your configuration is correct?";

const HELLO_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH \
                           <user> <pass> option can be used to authenticate the client and select the RESP \
                           protocol version at the same time";

const NOT_AN_INT: &str = "ERR value is out of range, value must between -2147483648 and 2147483647";

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

impl Session {
    /// `AUTH [user] password`.
    pub(super) fn auth(&mut self, shared: &Shared, args: &Args<'_>) -> Bytes {
        match args.len() {
            2 if shared.config.listen.password.is_none() => encode::error(NO_PASSWORD),
            2 => self.log_in(shared, b"default", args.arg(1)),
            3 => self.log_in(shared, args.arg(1), args.arg(2)),
            _ => encode::error(SYNTAX),
        }
    }

    fn log_in(&mut self, shared: &Shared, user: &[u8], password: &[u8]) -> Bytes {
        let listen = &shared.config.listen;
        let known = match &listen.password {
            // Redis's default user takes any password when it has none.
            None => user == b"default",
            Some(expected) => user == listen.user().as_bytes() && expected.matches(password),
        };
        if !known {
            return encode::error(WRONGPASS);
        }
        self.authenticated = true;
        OK
    }

    /// `CLIENT SETNAME`, `HELLO … SETNAME`.
    pub(super) fn set_name(&mut self, name: &[u8]) -> Bytes {
        if !is_printable(name) {
            return encode::error(BAD_NAME);
        }
        self.name = Bytes::copy_from_slice(name);
        OK
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`; options before a mistake have their effect, as in Redis.
    pub(super) fn hello(&mut self, shared: &Shared, args: &Args<'_>) -> Bytes {
        let resp3 = match args.get(1).map(number::integer) {
            None => self.resp3,
            Some(Some(2)) => false,
            Some(Some(3)) => true,
            Some(None) => {
                return encode::error("ERR Protocol version is not an integer or out of range");
            }
            Some(_) => return encode::error("NOPROTO unsupported protocol version"),
        };
        let mut at = 2;
        while let Some(option) = args.get(at) {
            let reply = if option.eq_ignore_ascii_case(b"AUTH") && args.len() > at + 2 {
                at += 3;
                self.log_in(shared, args.arg(at - 2), args.arg(at - 1))
            } else if option.eq_ignore_ascii_case(b"SETNAME") && args.len() > at + 1 {
                at += 2;
                self.set_name(args.arg(at - 1))
            } else {
                encode::error(&format!("ERR Syntax error in HELLO option '{}'", word(option)))
            };
            if reply != OK {
                return reply;
            }
        }
        if !self.authenticated {
            return encode::error(HELLO_FIRST);
        }
        self.resp3 = resp3;
        let mut out = BytesMut::new();
        map(&mut out, 7, resp3);
        let text = |out: &mut BytesMut, key: &str, value: &str| {
            encode::bulk(out, key.as_bytes());
            encode::bulk(out, value.as_bytes());
        };
        let count = |out: &mut BytesMut, key: &str, value: u64| {
            encode::bulk(out, key.as_bytes());
            super::answer::integer(out, value as i64);
        };
        text(&mut out, "server", "redis");
        text(&mut out, "version", &shared.version);
        count(&mut out, "proto", if resp3 { 3 } else { 2 });
        count(&mut out, "id", self.id);
        text(&mut out, "mode", "standalone");
        text(&mut out, "role", "master");
        encode::bulk(&mut out, b"modules");
        out.extend_from_slice(b"*0\r\n");
        out.freeze()
    }

    /// `SELECT`.
    pub(super) fn select(&mut self, shared: &Shared, args: &Args<'_>) -> Bytes {
        let number = number::integer(args.arg(1));
        match number.map(|n| u16::try_from(n).ok().filter(|&db| shared.has_database(db))) {
            None => encode::error(NOT_AN_INTEGER),
            _ if number.is_some_and(|n| i32::try_from(n).is_err()) => encode::error(NOT_AN_INT),
            Some(None) => encode::error("ERR DB index is out of range"),
            Some(Some(db)) => {
                self.db = db;
                OK
            }
        }
    }

    /// `RESET`: as it was when the client connected.
    pub(super) fn reset(&mut self, shared: &Shared) -> Bytes {
        self.transaction = None;
        self.watch = None;
        self.resp3 = false;
        self.db = 0;
        self.name = Bytes::new();
        self.silent = Silence::No;
        self.monitors = false;
        self.authenticated = shared.config.listen.password.is_none();
        Bytes::from_static(b"+RESET\r\n")
    }
}

/// Whether a name can stand in `CLIENT LIST`.
pub(super) fn is_printable(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}
