//! Three servers, and how to tell that two of them hold the same.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::decide::{Conclusion, Decision};
use crate::command::number::integer;
use crate::command::rewrite::{Form, PoolClock, deterministic, rule_for, second_chance};
use crate::resp::walk;
use crate::testserver::{Client, Sent, Server, words};

/// How far a server's clock may lag behind the one read here: it reads it once a command.
const CLOCK_LAG_MS: u64 = 5;

pub(super) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(super) fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What the client of the pool got, and how.
pub(super) struct Outcome {
    pub(super) reply: Vec<u8>,
    pub(super) form: Form,
}

/// One server that gets what the client sent, and two that get what the pool makes of it.
pub(super) struct Trio {
    _servers: [Server; 3],
    pub(super) alone: Client,
    pub(super) pool: [Client; 2],
    clock: PoolClock,
    /// Fixed at the start, for cases that name a time.
    start_ms: u64,
}

impl Trio {
    pub(super) fn start() -> Self {
        let servers = [Server::start(), Server::start(), Server::start()];
        let [alone, a, b] = [servers[0].client(3), servers[1].client(3), servers[2].client(3)];
        let start_ms = now_ms();
        Trio {
            _servers: servers,
            alone,
            pool: [a, b],
            clock: PoolClock::default(),
            start_ms,
        }
    }

    pub(super) fn everywhere(&mut self, line: &str) {
        self.all_everywhere(&[line]);
    }

    pub(super) fn all_everywhere(&mut self, lines: &[&str]) {
        let commands: Vec<_> = lines.iter().map(|line| self.resolved(line)).collect();
        let [a, b] = &mut self.pool;
        for client in [&mut self.alone, a, b] {
            for (line, reply) in lines.iter().zip(client.calls(&commands)) {
                assert!(!walk::is_error(&reply), "{line}: {}", show(&reply));
            }
        }
    }

    /// Words of a line, with the times and `@dump` filled in.
    pub(super) fn resolved(&mut self, line: &str) -> Vec<Vec<u8>> {
        let mut words = words(line);
        for word in &mut words {
            *word = match &word[..] {
                b"@long_ago" => (self.start_ms - 100_000).to_string().into_bytes(),
                b"@start" => self.start_ms.to_string().into_bytes(),
                b"@soon" => (self.start_ms + 100_000).to_string().into_bytes(),
                b"@dump" => walk::text(&self.alone.line("DUMP dumped")).unwrap().to_vec(),
                _ => continue,
            };
        }
        words
    }

    /// Executes a command as the owner of a partition would.
    pub(super) fn by_the_pool(&mut self, command: &[Vec<u8>]) -> Outcome {
        let name = String::from_utf8_lossy(&command[0]).to_lowercase();
        let rule = rule_for(&name).unwrap();
        let sent = Sent::new(command);
        self.clock.now_ms = now_ms();
        let form = deterministic(rule, &sent.args(), &mut self.clock);
        let reply = match &form {
            Form::AsIs => self.on_both(sent.args().bytes),
            Form::Rewritten(frame) => {
                let reply = self.on_both(frame);
                match second_chance(rule, &sent.args(), &reply) {
                    Some(decision) => self.decided(decision, &sent),
                    None => reply,
                }
            }
            Form::Decide(decision) => self.decided(*decision, &sent),
        };
        Outcome { reply, form }
    }

    pub(super) fn decided(&mut self, decision: Decision, sent: &Sent) -> Vec<u8> {
        let probe = decision.probe(&sent.args());
        let before = self.fingerprint(0);
        let answer = self.pool[0].raw(&probe);
        assert_eq!(
            self.fingerprint(0),
            before,
            "a probe changed something: {}",
            show(&probe)
        );
        let conclusion = decision.conclude(&sent.args(), &answer, self.clock.now_ms);
        let on_a = self.concluded(0, &conclusion);
        let on_b = self.concluded(1, &conclusion);
        assert_eq!(show(&on_a), show(&on_b));
        on_a
    }

    pub(super) fn concluded(&mut self, node: usize, conclusion: &Conclusion) -> Vec<u8> {
        let replies: Vec<Vec<u8>> = conclusion
            .write
            .iter()
            .map(|frame| self.pool[node].raw(frame))
            .collect();
        conclusion.finish(replies.iter().map(Vec::as_slice)).to_vec()
    }

    pub(super) fn on_both(&mut self, frame: &[u8]) -> Vec<u8> {
        let replies = [self.pool[0].raw(frame), self.pool[1].raw(frame)];
        assert_eq!(
            show(&replies[0]),
            show(&replies[1]),
            "the two answer {} differently",
            show(frame)
        );
        let [reply, _] = replies;
        reply
    }

    /// Everything that can be known of the data of a node: 0 is the first of the pool's, 2 the one that is alone.
    pub(super) fn fingerprint(&mut self, node: usize) -> Vec<Vec<u8>> {
        let client = self.pool.get_mut(node).unwrap_or(&mut self.alone);
        let mut keys: Vec<Vec<u8>> = elements(&client.line("KEYS *"))
            .iter()
            .map(|key| text(key))
            .collect();
        keys.sort();
        let mut found = Vec::new();
        for key in keys {
            let questions = [
                "DEBUG DIGEST-VALUE @",
                "PEXPIRETIME @",
                "XINFO STREAM @ FULL COUNT 0",
            ]
            .map(|line| {
                words(line)
                    .into_iter()
                    .map(|word| if word == b"@" { key.clone() } else { word })
                    .collect()
            });
            let [digest, deadline, stream] = client.calls(&questions).try_into().unwrap();
            found.extend([key, digest, deadline]);
            if !walk::is_error(&stream) {
                found.extend(frames_without_sightings(&stream));
            }
        }
        found
    }
}

pub(super) fn elements(reply: &[u8]) -> Vec<Vec<u8>> {
    walk::Elements::of(reply)
        .unwrap()
        .unwrap()
        .map(|element| element.unwrap().to_vec())
        .collect()
}

pub(super) fn text(reply: &[u8]) -> Vec<u8> {
    walk::text(reply).unwrap().to_vec()
}

/// The frames of `XINFO STREAM FULL` but for what is about the server: when it saw a consumer, how it keeps the data.
pub(super) fn frames_without_sightings(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = reply;
    let mut skip = false;
    while !rest.is_empty() {
        let (frame, after) = walk::frame(rest).unwrap();
        rest = after;
        if !skip {
            frames.push(frame.bytes.to_vec());
        }
        skip = matches!(
            frame.payload,
            walk::Payload::Text(b"seen-time" | b"active-time" | b"radix-tree-keys" | b"radix-tree-nodes")
        );
    }
    frames
}

/// Equal, or two times that are as close as the moments of the two executions.
pub(super) fn alike(a: &[u8], b: &[u8], apart_ms: u64) -> bool {
    let time = |bytes: &[u8]| {
        walk::text(bytes)
            .and_then(integer)
            .filter(|&n| n > 1_000_000_000_000)
    };
    match (time(a), time(b)) {
        (Some(a), Some(b)) => a.abs_diff(b) <= apart_ms + CLOCK_LAG_MS,
        _ => a == b,
    }
}

pub(super) fn assert_alike(a: &[Vec<u8>], b: &[Vec<u8>], apart_ms: u64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: {:?}\n{:?}", shown(a), shown(b));
    for (x, y) in a.iter().zip(b) {
        assert!(alike(x, y, apart_ms), "{what}: {} and {}", show(x), show(y));
    }
}

pub(super) fn shown(frames: &[Vec<u8>]) -> Vec<String> {
    frames.iter().map(|frame| show(frame)).collect()
}
