//! `ACL`, as far as it only tells: there is one user, the one of `proxy.toml`, who may do everything that is offered.

use bytes::{Bytes, BytesMut};

use super::answer::{map, null};
use crate::command::Special;
use crate::config::Listen;
use crate::resp::{Args, encode};

/// `ACL WHOAMI`, `USERS`, `LIST`, `GETUSER`. Nothing is told of the password, not even its digest.
pub(super) fn account(listen: &Listen, special: Special, args: &Args<'_>, resp3: bool) -> Bytes {
    let user = listen.user();
    let password = if listen.password.is_some() { "" } else { "nopass " };
    match special {
        Special::AclWhoami => encode::bulk_frame(user.as_bytes()),
        Special::AclUsers => encode::command_frame(&[user.as_bytes()]),
        Special::AclList => {
            let rule = format!("user {user} on {password}~* &* +@all");
            encode::command_frame(&[rule.as_bytes()])
        }
        _ if args.arg(2) != user.as_bytes() => null(resp3),
        _ => {
            let mut out = BytesMut::new();
            map(&mut out, 6, resp3);
            encode::bulk(&mut out, b"flags");
            let flags: Vec<&str> = ["on", password.trim_end()]
                .into_iter()
                .filter(|f| !f.is_empty())
                .collect();
            encode::header(&mut out, if resp3 { b'~' } else { b'*' }, flags.len());
            flags
                .iter()
                .for_each(|flag| encode::bulk(&mut out, flag.as_bytes()));
            encode::bulk(&mut out, b"passwords");
            out.extend_from_slice(b"*0\r\n");
            for (field, value) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
                encode::bulk(&mut out, field.as_bytes());
                encode::bulk(&mut out, value.as_bytes());
            }
            encode::bulk(&mut out, b"selectors");
            out.extend_from_slice(b"*0\r\n");
            out.freeze()
        }
    }
}
