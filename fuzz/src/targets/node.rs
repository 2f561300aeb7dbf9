//! What nodes send: replies, their list of commands, the answers to batches.

use std::collections::HashMap;
use std::mem::discriminant;

use bytes::{Bytes, BytesMut};
use ringfence::account::Position;
use ringfence::command::compare::digest;
use ringfence::command::{CommandTable, Compare, Downgrade};
use ringfence::request::{Action, Commands, HoldId, ReplyTo, Request, Touched};
use ringfence::resp::downgrade::{downgrade as to_resp2, needs_downgrade};
use ringfence::resp::walk::{self, Elements};
use ringfence::resp::{Args, CommandScanner, OutBuf, ReplyScanner, Scanned, Span, encode};
use ringfence::sequencer::{Broken, PartitionStart, Sequencer, Settings};

use super::client::{route_anywhere, scan};
use crate::{cuts, valid};

/// However replies are cut, they are found alike; and where the strict validator sees a reply, so does the scanner.
/// Input: how many replies are one unit, then the replies.
pub fn reply_scanner(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else {
        return;
    };
    let count = u32::from(first % 4) + 1;
    let at_once = ReplyScanner::default().scan(stream, count);
    let mut scanner = ReplyScanner::default();
    let mut arrived = 0;
    let mut in_pieces = scanner.scan(&[], count);
    for piece in cuts::pieces(stream) {
        if in_pieces != Ok(None) {
            break;
        }
        arrived += piece.len();
        in_pieces = scanner.scan(&stream[..arrived], count);
    }
    assert_eq!(at_once, in_pieces, "the cuts decide what is found");
    if let Ok(Some((len, resp3))) = at_once {
        assert!(len <= stream.len());
        assert_eq!(
            ReplyScanner::default().scan(&stream[..len], count),
            Ok(Some((len, resp3)))
        );
        assert_eq!(ReplyScanner::default().scan(&stream[..len - 1], count), Ok(None));
        if let Ok((values, _)) = walk::split_values(stream, count as usize) {
            assert_eq!(values.len(), len, "the walk ends elsewhere");
        }
    }
    if let Some(strictly) = valid::reply(stream) {
        assert_eq!(ReplyScanner::default().scan(stream, 1), Ok(Some(strictly)));
    }
}

const DOWNGRADES: [Downgrade; 6] = [
    Downgrade::Generic,
    Downgrade::FlattenPairs,
    Downgrade::MapToPairs,
    Downgrade::NullArray,
    Downgrade::NullArrayItems,
    Downgrade::NullArrayLast,
];

/// A reply of RESP3 becomes one of RESP2; anything else becomes an error, or whatever, but nothing is left behind.
pub fn downgrade(data: &[u8]) {
    let whole = valid::is_resp3(data);
    for rule in DOWNGRADES {
        let mut out = BytesMut::from(&b"before"[..]);
        let done = to_resp2(rule, data, &mut out);
        let made = out.strip_prefix(b"before").expect("what was there stays");
        if done.is_err() {
            assert!(!whole, "{rule:?}: {done:?}");
            assert!(made.is_empty());
        }
        let needed = needs_downgrade(rule, data);
        if whole {
            assert!(
                valid::is_resp2(made),
                "{rule:?}: {:?}",
                String::from_utf8_lossy(made)
            );
            assert!(needed || made == data, "{rule:?}: it was said to stay as it is");
        }
    }
}

/// Digests depend on the bytes only, and where the order does not matter, not on it.
pub fn compare(data: &[u8]) {
    for rule in [Compare::Exact, Compare::Unordered, Compare::Shape, Compare::Skip] {
        assert_eq!(digest(rule, data), digest(rule, &Vec::from(data)));
    }
    if !valid::is_resp3(data) || data.contains(&b'|') || !matches!(data[0], b'*' | b'~' | b'>') {
        return;
    }
    let Ok(Some(elements)) = Elements::of(data) else {
        return;
    };
    let mut elements: Vec<&[u8]> = elements
        .map(|element| element.expect("the reply is whole"))
        .collect();
    elements.reverse();
    let mut reversed = BytesMut::new();
    encode::header(&mut reversed, data[0], elements.len());
    reversed.extend_from_slice(&elements.concat());
    for rule in [Compare::Unordered, Compare::Shape] {
        assert_eq!(digest(rule, data), digest(rule, &reversed), "{rule:?}");
    }
    assert_eq!(
        digest(Compare::Exact, data) == digest(Compare::Exact, &reversed),
        data == &reversed[..]
    );
}

/// Whatever a node says of its commands, they can be used: by the commands that follow behind its answer, and by made-up
/// ones.
pub fn described(data: &[u8]) {
    let end = match ReplyScanner::default().scan(data, 1) {
        Ok(Some((len, _))) => len,
        _ => data.len(),
    };
    let (reply, commands) = data.split_at(end);
    let Ok(table) = CommandTable::from_nodes(&[reply]) else {
        return;
    };
    for found in scan([commands].into_iter()).0 {
        route_anywhere(&table, &found.args());
    }
    for command in table.iter().take(16) {
        let (name, sub) = command.name.split_once('|').unwrap_or((&command.name, "1"));
        for more in ["", "2 a b", "STREAMS 1 STORE -1 KEYS 0"] {
            let all = [name, sub].into_iter().chain(more.split_whitespace());
            let frame = encode::command_frame(&all.map(str::as_bytes).collect::<Vec<_>>());
            let Ok(Scanned::Command { spans, .. }) = CommandScanner::new(usize::MAX).scan(&frame) else {
                continue;
            };
            route_anywhere(
                &table,
                &Args {
                    bytes: &frame,
                    spans: &spans,
                },
            );
        }
    }
}

const LPUSH: &[u8] = b"*3\r\n$5\r\nLPUSH\r\n$1\r\nk\r\n$1\r\nv\r\n";

/// A node that answers a batch with anything at all: the sequencer takes it or gives the stream up, and the cuts do not
/// matter.
pub fn stream(data: &[u8]) {
    let at_once = answered([data].into_iter());
    let in_pieces = answered(cuts::pieces(data));
    assert_eq!(at_once, in_pieces, "the cuts decide what follows");
}

/// What follows when node 0 answers like this, and whether its stream is broken.
fn answered<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (String, Option<std::mem::Discriminant<Broken>>) {
    let mut sequencer = pool_of_three();
    let mut out = OutBuf::default();
    let order = |sequencer: &mut Sequencer, slot, action| {
        let reply_to = ReplyTo {
            worker: 0,
            part: 0,
            client: 1,
            generation: 1,
            slot,
        };
        sequencer.order(Request {
            partition: (slot % 2) as u16,
            db: 0,
            under: HoldId::NONE,
            action,
            reply_to,
        });
    };
    let write = Commands {
        touched: Touched::Keys([Span { start: 20, len: 1 }].into_iter().collect()),
        ..Commands::one(Bytes::from_static(LPUSH))
    };
    for slot in 0..3 {
        order(&mut sequencer, slot, Action::Write(write.clone()));
    }
    order(
        &mut sequencer,
        3,
        Action::OnNode(0, Commands::one(Bytes::from_static(b"*1\r\n$4\r\nINFO\r\n"))),
    );
    for node in 0..3 {
        assert!(sequencer.next_batch(node, &mut out));
    }
    sequencer.end_round();
    let mut buf = BytesMut::new();
    let mut broken = None;
    for piece in pieces {
        buf.extend_from_slice(piece);
        if let Err(error) = sequencer.receive(0, &mut buf) {
            broken = Some(discriminant(&error));
            sequencer.link_down(0);
            break;
        }
    }
    // The others go on whatever it was.
    for node in 1..3 {
        let mut good = BytesMut::from(&b"+OK\r\n"[..]);
        for _ in 0..6 {
            good.extend_from_slice(b"+QUEUED\r\n");
        }
        good.extend_from_slice(b"*6\r\n:1\r\n:1\r\n:2\r\n+OK\r\n:0\r\n:1\r\n");
        assert_eq!(sequencer.receive(node, &mut good), Ok(()));
        assert!(good.is_empty());
    }
    let effects = std::mem::take(sequencer.effects());
    let answered = effects
        .iter()
        .filter(|e| format!("{e:?}").contains("Complete"))
        .count();
    assert!((3..=4).contains(&answered), "two of three have it: {effects:?}");
    (format!("{effects:?}"), broken)
}

fn pool_of_three() -> Sequencer {
    let settings = Settings {
        worker: 0,
        keyspace: ringfence::ring::Keyspace::plain(2),
        replicas: 3,
        write_quorum: 2,
        min_in_sync: 2,
        backlog_bytes: 1 << 20,
        batch_commands_max: 1024,
        batch_bytes_max: 1 << 20,
        question: ringfence::command::dump::Question::default(),
        bookkeeping_db: 15,
        read_any: true,
        linearizable: true,
        write_timeout_ms: 5000,
        node_timeout_ms: 1000,
        read_patience_ms: 30,
    };
    let start = |partition| PartitionStart {
        partition,
        position: Position::default(),
        since: 0,
        replicas: [0, 1, 2].into_iter().collect(),
        in_sync: 0b111,
    };
    let mut sequencer = Sequencer::new(settings, 3, &[start(0), start(1)]);
    for node in 0..3 {
        sequencer.link_up(node, &HashMap::new());
    }
    sequencer.effects().clear();
    sequencer
}
