//! `CLIENT`, as far as it is about the client itself. What concerns others is in `roll_call` and `pause`.

use bytes::{Bytes, BytesMut};

use super::answer::{NOT_AN_INTEGER, SYNTAX, map, null, verbatim, word};
use super::client::{Client, Session, Silence};
use super::dispatch::Flow;
use super::hello::is_printable;
use super::transaction::OK;
use crate::command::{Special, number};
use crate::resp::{Args, encode};
use crate::worker::{Core, Worker};

const NO_TRACKING: &str = "ERR client-side caching is not offered by the proxy: it would miss changes that it does not see. \
                           Turn it off in the driver, or keep values for a time only";

const NOT_TRACKING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
                            enabled";

impl Worker {
    /// A subcommand that is answered here, in the client's protocol.
    pub(super) fn client_command(&self, core: &Core, client: &Client, special: Special) -> Option<Bytes> {
        let session = &client.session;
        Some(match special {
            Special::ClientId => encode::integer(session.id as i64),
            Special::ClientGetname if session.name.is_empty() => null(session.resp3),
            Special::ClientGetname => encode::bulk_frame(&session.name),
            Special::ClientInfo => verbatim(&self.describe(client, core.now_us), session.resp3),
            Special::ClientGetredir => encode::integer(-1),
            Special::ClientTrackinginfo => tracking_info(session.resp3),
            Special::ClientCaching => encode::error(NOT_TRACKING),
            Special::ClientUnpause => self.unpause(),
            _ => return None,
        })
    }

    /// `CLIENT REPLY`: `ON` is answered, the others are not, and `SKIP` begins with the next command.
    pub(super) fn client_reply(&self, core: &mut Core, id: u32, args: &Args<'_>) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let silent = &mut client.session.silent;
        match (args.arg(2).to_ascii_lowercase().as_slice(), *silent) {
            (b"on", _) => {
                *silent = Silence::No;
                self.reply(core, id, OK)
            }
            (b"off", _) => {
                *silent = Silence::Always;
                Flow::Next
            }
            (b"skip", before) => {
                if before == Silence::No {
                    *silent = Silence::Once;
                }
                Flow::Next
            }
            _ => self.refuse(core, id, SYNTAX),
        }
    }
}

impl Session {
    /// A subcommand that changes what is known of the client.
    pub(super) fn client_setting(&mut self, special: Special, args: &Args<'_>) -> Bytes {
        let choice = args.arg(2).to_ascii_lowercase();
        match (special, choice.as_slice()) {
            (Special::ClientSetname, _) => self.set_name(args.arg(2)),
            (Special::ClientSetinfo, option) => {
                let (kept, field) = match option {
                    b"lib-name" => (&mut self.lib_name, "lib-name"),
                    b"lib-ver" => (&mut self.lib_ver, "lib-ver"),
                    _ => {
                        let option = word(args.arg(2));
                        return encode::error(&format!("ERR Unrecognized option '{option}'"));
                    }
                };
                if !is_printable(args.arg(3)) {
                    return encode::error(&format!(
                        "ERR {field} cannot contain spaces, newlines or special characters."
                    ));
                }
                *kept = Bytes::copy_from_slice(args.arg(3));
                OK
            }
            // No client is ever evicted here.
            (Special::ClientNoEvict, b"on" | b"off") => {
                self.no_evict = choice == b"on";
                OK
            }
            // What it would spare is the order in which a server evicts, and the nodes never do.
            (Special::ClientNoTouch, b"on" | b"off") | (Special::ClientTracking, b"off") => OK,
            (Special::ClientTracking, b"on") => encode::error(NO_TRACKING),
            _ => encode::error(SYNTAX),
        }
    }
}

fn tracking_info(resp3: bool) -> Bytes {
    let mut out = BytesMut::new();
    map(&mut out, 3, resp3);
    encode::bulk(&mut out, b"flags");
    encode::header(&mut out, if resp3 { b'~' } else { b'*' }, 1);
    encode::bulk(&mut out, b"off");
    encode::bulk(&mut out, b"redirect");
    super::answer::integer(&mut out, -1);
    encode::bulk(&mut out, b"prefixes");
    out.extend_from_slice(b"*0\r\n");
    out.freeze()
}

/// A client's number.
pub(super) fn client_id(arg: &[u8]) -> Result<u64, Bytes> {
    number::integer(arg)
        .map(|id| u64::try_from(id).unwrap_or(0))
        .ok_or_else(|| encode::error(NOT_AN_INTEGER))
}
