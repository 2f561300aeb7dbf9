//! What clients send: an operation as the request that a worker would make of it.

use std::sync::Arc;

use bytes::Bytes;
use ringfence::command::decide::Decision;
use ringfence::request::{Action, Brings, Commands, Decide, PartitionId, Script, Touched, WhereParted};
use ringfence::resp::{Span, encode};

use crate::keys::Keys;
use crate::node::Key;
use crate::ops::Kind;

/// Where in commands an argument stands: command, argument.
type Place = (usize, usize);

/// A frame of commands, and the places of the wanted arguments in it.
fn frame(commands: &[&[&[u8]]], wanted: &[Place]) -> (Bytes, Vec<Span>) {
    let mut all: Vec<u8> = Vec::new();
    let mut spans = Vec::new();
    for (c, command) in commands.iter().enumerate() {
        all.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for (a, arg) in command.iter().enumerate() {
            all.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            if wanted.contains(&(c, a)) {
                spans.push(Span {
                    start: all.len() as u32,
                    len: arg.len() as u32,
                });
            }
            all.extend_from_slice(arg);
            all.extend_from_slice(b"\r\n");
        }
    }
    (all.into(), spans)
}

/// Commands that change the keys at these places.
pub fn changing(commands: &[&[&[u8]]], keys: &[Place], brings: Brings) -> Commands {
    let (bytes, spans) = frame(commands, keys);
    Commands {
        count: commands.len() as u32,
        touched: Touched::Keys(spans.into_iter().collect()),
        brings,
        ..Commands::one(bytes)
    }
}

/// Commands that change nothing.
pub fn reading(commands: &[&[&[u8]]]) -> Commands {
    Commands {
        count: commands.len() as u32,
        ..Commands::one(frame(commands, &[]).0)
    }
}

/// A script that pushes the value to each of the keys, and may touch anything.
fn script(id: u64, keys: &[&Key], value: &[u8]) -> Commands {
    let sha = format!("script{}", id % 3).into_bytes();
    let count = keys.len().to_string();
    let mut args: Vec<&[u8]> = vec![b"EVALSHA", &sha, count.as_bytes()];
    args.extend(keys.iter().map(|(_, key)| &key[..]));
    args.push(value);
    let mut digest = [0; 20];
    digest[..sha.len()].copy_from_slice(&sha);
    let load = encode::command_frame(&[b"SCRIPT", b"LOAD", &sha]);
    Commands {
        touched: Touched::Partition,
        scripts: Some(Box::new([Arc::new(Script { sha: digest, load })])),
        brings: Brings::Unknown,
        ..Commands::one(frame(&[&args], &[]).0)
    }
}

/// Takes the first element of a queue, if there is one.
pub fn take(queue: &Key) -> Commands {
    changing(&[&[b"LPOP", &queue.1]], &[(0, 1)], Brings::Nothing)
}

/// Moves the last element of a queue to another one, if there is one.
pub fn moving(from: &Key, to: &Key) -> Commands {
    let command: &[&[u8]] = &[b"RPOPLPUSH", &from.1, &to.1];
    changing(&[command], &[(0, 1), (0, 2)], Brings::Moved)
}

pub fn push(list: &Key, value: u64) -> Commands {
    let value = value.to_string();
    let command: &[&[u8]] = &[b"RPUSH", &list.1, value.as_bytes()];
    changing(&[command], &[(0, 1)], Brings::Some(1))
}

/// All of a list, once it is longer than `floor`.
pub fn longer(list: &Key, floor: usize) -> Commands {
    reading(&[&[b"LONGER", &list.1, floor.to_string().as_bytes()]])
}

pub fn range(list: &Key) -> Commands {
    reading(&[&[b"LRANGE", &list.1, b"0", b"-1"]])
}

/// Of one partition, or of two (then `other` is the second). What takes several steps is not made here.
pub fn action(
    keys: &Keys,
    kind: Kind,
    id: u64,
    partition: PartitionId,
    other: Option<PartitionId>,
    second: bool,
) -> (u16, Action) {
    let value = id.to_string().into_bytes();
    let (list, counter, set) = (
        keys.list(partition, second),
        keys.counter(partition),
        keys.set(partition),
    );
    let queue = keys.queue(partition, second);
    let list2 = keys.list(other.unwrap_or_default(), second);
    let queue2 = keys.queue(other.unwrap_or_default(), false);
    let db = list.0;
    let push_one: &[&[u8]] = &[b"RPUSH", &list.1, &value];
    let push_other: &[&[u8]] = &[b"RPUSH", &list2.1, &value];
    let incr: &[&[u8]] = &[b"INCR", &counter.1];
    let all: &[&[u8]] = &[b"LRANGE", &list.1, b"0", b"-1"];
    let get: &[&[u8]] = &[b"GET", &counter.1];
    let joint = |commands| {
        Action::Joint(
            [partition].into_iter().chain(other).collect(),
            commands,
            WhereParted::Expel,
        )
    };
    match kind {
        Kind::Push => (db, Action::Write(push(&list, id))),
        Kind::Both => {
            let both = changing(&[push_one, incr], &[(0, 1), (1, 1)], Brings::Some(1));
            (db, Action::Write(both))
        }
        Kind::Script => (db, Action::Write(script(id, &[&list], &value))),
        Kind::Incr => (0, Action::Write(changing(&[incr], &[(0, 1)], Brings::Nothing))),
        Kind::List => (db, Action::Read(range(&list))),
        Kind::Counter => (0, Action::Read(reading(&[get]))),
        Kind::ReadBoth => (db, Action::Read(reading(&[all, get]))),
        Kind::Add => {
            let add = changing(&[&[b"SADD", &set.1, &value]], &[(0, 1)], Brings::Nothing);
            (set.0, Action::Write(add))
        }
        Kind::Pop => {
            let (frame, spans) = frame(&[&[b"SPOP", &set.1]], &[(0, 0), (0, 1)]);
            let decide = Decide {
                decision: Decision::Pop,
                frame,
                spans: spans.into_iter().collect(),
            };
            (set.0, Action::Decide(Box::new(decide)))
        }
        Kind::Boom => {
            let boom = changing(&[&[b"BOOM", &list.1]], &[(0, 1)], Brings::Some(1));
            (db, Action::Write(boom))
        }
        Kind::PushTwo => {
            let two = changing(&[push_one, push_other], &[(0, 1), (1, 1)], Brings::Some(1));
            (db, joint(two))
        }
        Kind::ScriptTwo => (db, joint(script(id, &[&list, &list2], &value))),
        Kind::BoomTwo => {
            let command: &[&[u8]] = &[b"BOOM", &list.1, &list2.1];
            (
                db,
                joint(changing(&[command], &[(0, 1), (0, 2)], Brings::Some(1))),
            )
        }
        Kind::Put => (0, Action::Write(push(&queue, id))),
        Kind::PutScript => (0, Action::Write(script(id, &[&queue], &value))),
        Kind::Take => (0, Action::Write(take(&queue))),
        Kind::Move => (0, joint(moving(&queue, &queue2))),
        Kind::Settled
        | Kind::PushInTurn
        | Kind::Peek
        | Kind::WaitTake
        | Kind::WaitMove
        | Kind::WaitTold
        | Kind::WaitLong => unreachable!("not one request"),
    }
}
