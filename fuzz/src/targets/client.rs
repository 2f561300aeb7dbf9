//! What clients send: streams of commands, their arguments, scripts.

use std::sync::OnceLock;

use bytes::Bytes;
use ringfence::command::spec::Class;
use ringfence::command::{CommandTable, script as lua};
use ringfence::resp::{Args, CommandScanner, ProtocolError, Scanned, Spans};
use ringfence::ring::Keyspace;
use ringfence::router::{Route, route};

use crate::{cuts, valid};

/// Small, so that inputs reach it.
const COMMAND_BYTES_MAX: usize = 4096;

/// One command as it was found: its frame and where the arguments lie in it, and what it took from the stream.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) frame: Bytes,
    pub(super) spans: Spans,
    len: usize,
}

impl Found {
    pub(super) fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.frame,
            spans: &self.spans,
        }
    }
}

/// However a stream is cut, the same commands are found, and they are what they say.
pub fn command_scanner(data: &[u8]) {
    let at_once = scan([data].into_iter());
    let in_pieces = scan(cuts::pieces(data));
    assert_eq!(at_once, in_pieces, "the cuts decide what is found");
    for found in &at_once.0 {
        check_frame(found);
    }
}

/// A frame is a command from its first byte to its last, and its spans are the payloads.
pub(super) fn check_frame(found: &Found) {
    let Found { frame, spans, .. } = found;
    assert!(!spans.is_empty());
    let mut end = frame.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    for span in spans {
        let start = span.start as usize;
        let header = &frame[end..start];
        assert!(
            header.starts_with(b"$") && header.ends_with(b"\r\n"),
            "{header:?}"
        );
        end = start + span.len as usize;
        assert_eq!(&frame[end..end + 2], b"\r\n");
        end += 2;
    }
    assert_eq!(end, frame.len());
    assert!(
        found
            .args()
            .iter()
            .zip(spans)
            .all(|(arg, span)| arg.len() == span.len as usize)
    );
    assert_eq!(found.args().get(spans.len()), None);
}

/// All commands of a stream that arrives in these pieces, taken off as a client's task does it.
pub(super) fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Found>, Option<ProtocolError>) {
    let mut scanner = CommandScanner::new(COMMAND_BYTES_MAX);
    let mut buf: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    let mut needed = 0;
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let len = match scanner.scan(&buf) {
                Err(error) => return (found, Some(error)),
                Ok(Scanned::Incomplete) => {
                    needed = scanner.needed_bytes();
                    break;
                }
                Ok(Scanned::Nothing { len }) => len,
                Ok(Scanned::Command { len, spans }) => {
                    assert!(len <= COMMAND_BYTES_MAX, "{len} bytes");
                    found.push(Found {
                        frame: Bytes::copy_from_slice(&buf[..len]),
                        spans,
                        len,
                    });
                    len
                }
                Ok(Scanned::Inline { len, frame, spans }) => {
                    let again = CommandScanner::new(usize::MAX).scan(&frame);
                    assert_eq!(
                        again,
                        Ok(Scanned::Command {
                            len: frame.len(),
                            spans: spans.clone()
                        })
                    );
                    found.push(Found { frame, spans, len });
                    len
                }
            };
            assert!(
                len > 0 && len >= needed,
                "{len} bytes, at least {needed} were said to be needed"
            );
            needed = 0;
            buf.drain(..len);
        }
    }
    (found, None)
}

pub(super) fn table() -> &'static CommandTable {
    static TABLE: OnceLock<CommandTable> = OnceLock::new();
    TABLE.get_or_init(CommandTable::builtin)
}

/// Any arguments are looked up and routed, and positions of keys are positions of arguments.
pub fn commands(data: &[u8]) {
    for found in scan([data].into_iter()).0 {
        route_anywhere(table(), &found.args());
    }
}

/// Everything that is asked of a command before it is sent.
pub(super) fn route_anywhere(table: &CommandTable, args: &Args<'_>) {
    let command = match table.lookup(args) {
        Ok(command) => command,
        Err(error) => {
            assert!(valid::is_resp2(&error.to_bytes()), "{error:?}");
            return;
        }
    };
    assert!(command.takes(args.len()));
    let is_argument = |&key: &u32| key > 0 && (key as usize) < args.len();
    let keys = command.keys(args);
    match &keys {
        Ok(keys) => assert!(
            keys.iter().all(is_argument),
            "{}: {keys:?} of {}",
            command.name,
            args.len()
        ),
        Err(error) => assert!(valid::is_resp2(&error.to_bytes()), "{error:?}"),
    }
    if let Some(key) = command.first_key() {
        assert_eq!(keys.as_deref().ok(), Some(&[key as u32][..]), "{}", command.name);
    }
    if let (Ok(keys), Ok(written)) = (&keys, command.keys_written(args)) {
        assert!(
            written.iter().all(|key| keys.contains(key)),
            "{}: {written:?} of {keys:?}",
            command.name
        );
    }
    for partitions in [1, 7, 4096] {
        match route(command, args, &Keyspace::plain(partitions)) {
            Route::One { partition, .. } => assert!(partition < partitions),
            Route::Several { parts, step, .. } => {
                assert!(step > 0 && parts.len() > 1);
                let mut all: Vec<u32> = parts.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
                let whole = all.iter().all(|&key| is_argument(&(key + step as u32 - 1)));
                assert!(whole, "{}", command.name);
                all.sort_unstable();
                let mut keys = keys.clone().expect("split by its keys").to_vec();
                keys.sort_unstable();
                assert_eq!(all, keys);
                assert!(
                    parts
                        .iter()
                        .all(|(partition, keys)| *partition < partitions && !keys.is_empty())
                );
            }
            Route::Refused(line) | Route::Invalid(line) => assert!(valid::is_resp2(&line), "{line:?}"),
            Route::Local | Route::Transaction => {
                assert!(matches!(command.class(args), Class::Local | Class::Transaction));
            }
            Route::Blocking(_) => assert!(matches!(command.class(args), Class::Blocking(_))),
            Route::Across | Route::PubSub | Route::Pool(_) => {}
        }
    }
}

/// Any text is looked through.
pub fn script(data: &[u8]) {
    let traits = lua::analyse(data);
    assert!(traits.commands.is_sorted());
    assert_eq!(traits, lua::analyse(data));
    assert!(!(traits.unclear && lua::touches_only_declared(data, table()).is_some()));
    if let Ok(texts) = lua::payload::parse(data) {
        let again = lua::payload::dump(texts.iter().map(Vec::as_slice));
        assert_eq!(lua::payload::parse(&again), Ok(texts));
    }
    if let Some(shebang) = lua::shebang(data) {
        assert!(traits.unclear || shebang.engine.eq_ignore_ascii_case(b"lua"));
    }
    // More text at the end can only tell more, unless it is inside of something that is open.
    let with_time = [data, b"\n;redis.call('time')"].concat();
    let open = lua::analyse(&with_time);
    assert!(open.may_differ() || open.commands.len() <= traits.commands.len() + 1);
}
