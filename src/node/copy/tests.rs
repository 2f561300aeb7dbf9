//! Copies between two real servers: what arrives is compared by `DEBUG DIGEST-VALUE`, expiry, and all that `XINFO` tells.

mod changing;
mod partitions;
mod streams;
mod values;

use std::time::Duration;

use redis_protocol::resp3::types::BytesFrame;

use super::*;
use crate::node::control::{bytes_of, is_error, text_of};
use crate::testserver::{Server, words};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Two servers and connections to them.
struct Two {
    source: Control,
    target: Control,
    servers: [Server; 2],
}

impl Two {
    async fn start() -> Self {
        let servers = [Server::start(), Server::start()];
        let source = Control::connect(&servers[0].address(), None, TIMEOUT).await;
        let target = Control::connect(&servers[1].address(), None, TIMEOUT).await;
        Self {
            source: source.unwrap(),
            target: target.unwrap(),
            servers,
        }
    }

    async fn copy(&mut self, way: Way, db: u16, keys: &[Vec<u8>]) -> Copied {
        let (pace, space) = (Pace::new(0), Keyspace::plain(16));
        // Each of them with either.
        let building = match way {
            Way::Any => Building::InPlace,
            Way::Ranges => Building::Beside(&space),
        };
        copy_keys_by(way, &mut self.source, &mut self.target, db, keys, building, &pace)
            .await
            .unwrap()
    }

    /// Fails unless the keys are the same on both.
    async fn compare(&mut self, way: Way, db: u16, keys: &[Vec<u8>]) {
        for key in keys {
            let expected = facts(&mut self.source, db, key).await;
            let there = facts(&mut self.target, db, key).await;
            let name = String::from_utf8_lossy(key);
            assert!(
                expected == there,
                "{way:?}: {name} of db {db}: {expected:.3000}\nthere: {there:.3000}"
            );
        }
    }
}

/// All that can be seen of a key.
async fn facts(control: &mut Control, db: u16, key: &[u8]) -> String {
    control
        .call(&[b"SELECT", db.to_string().as_bytes()])
        .await
        .unwrap();
    let kind = text_of(&control.call(&[b"TYPE", key]).await.unwrap());
    let mut questions: Vec<Vec<&[u8]>> = vec![vec![b"PEXPIRETIME", key]];
    match kind.as_str() {
        "stream" => {
            questions.push(vec![b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]);
            questions.push(vec![b"XINFO", b"GROUPS", key]);
        }
        "none" => {}
        _ => questions.push(vec![b"DEBUG", b"DIGEST-VALUE", key]),
    }
    let mut all = kind;
    for question in questions {
        all += " ";
        all += &text(control.call(&question).await.unwrap());
    }
    all
}

/// A reply as text, without what differs between equal streams: how they lie in memory, and when consumers were seen.
fn text(frame: BytesFrame) -> String {
    const OTHER: [&str; 3] = ["radix-tree-keys", "radix-tree-nodes", "seen-time"];
    match frame {
        BytesFrame::Array { data, .. } => {
            format!("[{}]", data.into_iter().map(text).collect::<Vec<_>>().join(" "))
        }
        BytesFrame::Map { data, .. } => {
            let mut pairs: Vec<String> = data
                .into_iter()
                .filter(|(name, _)| !OTHER.contains(&text_of(name).as_str()))
                .map(|(name, value)| format!("{}: {}", text_of(&name), text(value)))
                .collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
        BytesFrame::Null => "null".to_owned(),
        other => format!("{}{}", text_of(&other), bytes_of(&other).escape_ascii()),
    }
}

/// Commands in words.
async fn say(control: &mut Control, lines: &[&str]) {
    for line in lines {
        let words = words(line);
        let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let reply = control.call_raw(&args).await.unwrap();
        assert!(!is_error(&reply), "{line}: {}", text_of(&reply));
    }
}

/// `head` with `n` elements, each of the arguments that `element` gives.
async fn fill(control: &mut Control, head: &[&[u8]], n: usize, element: impl Fn(usize) -> Vec<Vec<u8>>) {
    for from in (0..n).step_by(500) {
        let args: Vec<Vec<u8>> = (from..n.min(from + 500)).flat_map(&element).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        control.call(&[head, &args].concat()).await.unwrap();
    }
}

/// Bytes that no text has, of some length.
fn binary(i: usize) -> Vec<u8> {
    let mut bytes = vec![0, b'\r', b'\n', 0xff, i as u8, (i >> 8) as u8, (i >> 16) as u8];
    bytes.resize(7 + i % 60, b'x');
    bytes
}
