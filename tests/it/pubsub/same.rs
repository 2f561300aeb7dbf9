//! The same commands to a plain Redis and to the sidecar: whatever any of the clients gets must be the same.

use super::start;
use crate::cmd;
use crate::harness::{Client, Endpoint, Node, NodeOptions, Reply, encode};

/// Who sends what; `;` stands between commands that are sent at once.
const SCRIPT: &[(usize, &str)] = &[
    // Nothing to unsubscribe from.
    (0, "UNSUBSCRIBE"),
    (
        0,
        "PUNSUBSCRIBE; SUNSUBSCRIBE; UNSUBSCRIBE a b; PUNSUBSCRIBE a; SUNSUBSCRIBE a",
    ),
    // One after the other, and messages between them.
    (0, "SUBSCRIBE a b a"),
    (1, "SUBSCRIBE a"),
    (2, "PUBLISH a hello; PUBLISH b you; PUBLISH c nobody"),
    (1, "PSUBSCRIBE a* [z h[^x-z]*"),
    (
        2,
        "PUBLISH a again; PUBLISH hyper miss; PUBLISH hallo hit; PUBLISH [z odd",
    ),
    (1, "PUNSUBSCRIBE a* nothing"),
    (0, "SSUBSCRIBE s a"),
    (
        2,
        "SPUBLISH s shard; SPUBLISH a shard; PUBLISH s none; PUBLISH a both",
    ),
    (0, "PING; PING text; PING a b"),
    (1, "PING"),
    // What a client that listens may send.
    (0, "GET x"),
    (
        0,
        "FOO; get; subscribe; PUBLISH a x; SPUBLISH s m; client id x; CLIENT GETNAME; PUBSUB HELP",
    ),
    (0, "MULTI; PING; EXEC"),
    (0, "MULTI; DISCARD; EXEC"),
    (0, "UNWATCH; SELECT 99; AUTH x; ECHO hi; PUBSUB NUMPAT x"),
    // Inspection.
    (
        2,
        "PUBSUB NUMSUB; PUBSUB NUMSUB a a b zz; PUBSUB NUMPAT; PUBSUB SHARDNUMSUB s a c; PUBSUB SHARDNUMSUB",
    ),
    (
        2,
        "PUBSUB; PUBSUB HELP; pubsub help; PUBSUB HELP x; PUBSUB FOO; PUBSUB NUMPAT 1; PUBSUB CHANNELS a b",
    ),
    (
        2,
        "pubsub shardchannels x y; PUBSUB CHANNELS b*; PUBSUB CHANNELS nothing; PUBSUB SHARDCHANNELS s",
    ),
    (
        2,
        "SUBSCRIBE; PSUBSCRIBE; SSUBSCRIBE; PUBLISH a; SPUBLISH a; PUBLISH a b c; PUBLISH",
    ),
    // Out again.
    (0, "SUNSUBSCRIBE s; SUNSUBSCRIBE s; UNSUBSCRIBE b; UNSUBSCRIBE zz"),
    (0, "UNSUBSCRIBE; SUNSUBSCRIBE; GET x; PING"),
    (1, "UNSUBSCRIBE a; PUNSUBSCRIBE [z h[^x-z]*; GET x"),
    (
        2,
        "PUBSUB CHANNELS; PUBSUB NUMPAT; PUBSUB SHARDCHANNELS; PUBLISH a x; SPUBLISH s x",
    ),
    // Replies before and behind confirmations.
    (
        0,
        "SET k 1; GET k; SUBSCRIBE a; UNSUBSCRIBE a; GET k; LPUSH l 1; PUBLISH b x",
    ),
    (1, "SUBSCRIBE b"),
    (
        0,
        "INCR n; PUBLISH b 1; INCR n; PUBLISH b 2; PUBLISH c 3; PUBLISH b 4; INCR n",
    ),
    // Odd names.
    (1, "SUBSCRIBE é \"\" x\ty; PSUBSCRIBE \\* * \"\""),
    (
        0,
        "PUBLISH \"\" empty; PUBLISH é accent; PUBLISH * star; PUBLISH b \"\"",
    ),
    (1, "RESET"),
    (0, "PUBLISH b x; PUBSUB NUMPAT; PUBSUB CHANNELS"),
    // Replies off: confirmations and messages come all the same.
    (
        1,
        "CLIENT REPLY OFF; SUBSCRIBE a; UNSUBSCRIBE a; GET k; CLIENT REPLY ON",
    ),
    (1, "CLIENT REPLY SKIP; SUBSCRIBE a; UNSUBSCRIBE a; GET k"),
    (1, "CLIENT REPLY SKIP; PUBLISH a x; PUBLISH a y"),
    (1, "SUBSCRIBE a; CLIENT REPLY OFF"),
    (0, "PUBLISH a quiet"),
    (1, "CLIENT REPLY ON; UNSUBSCRIBE a; CLIENT REPLY ON"),
    // Transactions.
    (1, "SUBSCRIBE a; PSUBSCRIBE q*"),
    (
        0,
        "MULTI; PUBLISH a 1; INCR n; PUBLISH nobody 2; SPUBLISH a 3; PUBLISH qq 4; GET k; EXEC",
    ),
    (0, "MULTI; PUBLISH a dropped; INCR n; DISCARD"),
    (0, "MULTI; PUBLISH a dropped; PUBLISH a; EXEC"),
    (0, "MULTI; PUBLISH a alone; EXEC; GET k"),
    (
        0,
        "MULTI; PUBSUB NUMSUB a; PUBSUB NUMPAT; SUBSCRIBE zz; PUBSUB NUMSUB zz; UNSUBSCRIBE zz; EXEC; GET k",
    ),
    (
        0,
        "MULTI; SSUBSCRIBE s; SUNSUBSCRIBE s; PSUBSCRIBE p; PUNSUBSCRIBE; SUBSCRIBE; EXEC",
    ),
    (
        0,
        "MULTI; SSUBSCRIBE s; SUNSUBSCRIBE s; PSUBSCRIBE p; PUNSUBSCRIBE; EXEC; GET k",
    ),
    (0, "MULTI; INCR n; SUBSCRIBE zz; EXEC; GET k; PING"),
    (0, "MULTI; INCR n; SUBSCRIBE a; EXEC; GET k"),
    (0, "UNSUBSCRIBE a; RESET; GET k"),
    (1, "MULTI; UNSUBSCRIBE a; EXEC; GET k"),
    (1, "RESET"),
    // Transactions that take several steps.
    (1, "SUBSCRIBE a"),
    (0, "WATCH k; MULTI; PUBLISH a unchanged; GET k; EXEC; UNWATCH"),
    (0, "WATCH k; GET k"),
    (2, "SET k changed"),
    (0, "MULTI; PUBLISH a never; GET k; EXEC; GET k"),
    (0, "WATCH k; MULTI; PUBLISH a alone; EXEC"),
    (
        0,
        "MULTI; SET y 1; PUBLISH a between; SET z 2; SET x 3; PUBLISH a behind; EXEC; PUBLISH a after",
    ),
    (1, "RESET"),
    // Protocols.
    (0, "HELLO 3; SUBSCRIBE a; GET k; PUBLISH a self"),
    (0, "GET k; HELLO 2; GET k; PING"),
    (1, "PUBLISH a flat"),
    (0, "HELLO 3; UNSUBSCRIBE a; HELLO 3; GET x"),
    (
        0,
        "PSUBSCRIBE * ?; SUBSCRIBE a; SSUBSCRIBE a; PUBLISH a four; SPUBLISH a one",
    ),
    (0, "SUBSCRIBE a; QUIT"),
    (1, "PUBLISH a x; SPUBLISH a x; PUBSUB NUMPAT"),
];

/// Words as Redis's inline commands have them, as far as the script needs it.
fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_matches('"').as_bytes().to_vec())
        .collect()
}

struct Side {
    endpoint: Endpoint,
    clients: Vec<Client>,
}

impl Side {
    fn new(endpoint: Endpoint, protocols: &[u8]) -> Self {
        let clients = protocols
            .iter()
            .map(|protocol| {
                let mut client = Client::connect(&endpoint);
                client.call(cmd!["HELLO", u64::from(*protocol)]);
                client
            })
            .collect();
        Self { endpoint, clients }
    }

    /// What each client gets from a step.
    fn step(&mut self, at: usize, who: usize, line: &str) -> Vec<Vec<Reply>> {
        let commands: Vec<_> = line.split(';').map(words).collect();
        let bytes: Vec<u8> = commands.iter().flat_map(|c| encode(c)).collect();
        self.clients[who].send_raw(&bytes).expect("sent");
        if line.ends_with("QUIT") {
            let end = self.clients[who]
                .read_to_close(std::time::Duration::from_secs(10))
                .expect("closed");
            self.clients[who] = Client::connect(&self.endpoint);
            return vec![vec![Reply::Bulk(end)]];
        }
        // First the one who has sent it: then the others have whatever it has caused.
        let mut all = vec![Vec::new(); self.clients.len()];
        all[who] = self.until_marker(who, &format!("marker-{at}"));
        for other in (0..self.clients.len()).filter(|other| *other != who) {
            all[other] = self.until_marker(other, &format!("marker-{at}"));
        }
        all
    }

    /// Everything up to the answer to a command that is allowed always and answered whatever `CLIENT REPLY` says.
    fn until_marker(&mut self, who: usize, marker: &str) -> Vec<Reply> {
        let client = &mut self.clients[who];
        client
            .send_raw(&encode(&cmd!["UNSUBSCRIBE", marker]))
            .expect("sent");
        let mut got = Vec::new();
        loop {
            let reply = client.recv().unwrap_or_else(|e| panic!("after {got:?}: {e}"));
            let last = reply.items().get(1) == Some(&Reply::bulk(marker));
            // One client's number is not another's.
            let hello = reply.items().first() == Some(&Reply::bulk("server"));
            got.push(if hello {
                Reply::Simple("HELLO".to_owned())
            } else {
                reply
            });
            if last {
                return in_some_order(got);
            }
        }
    }
}

/// Which of its patterns a client is told of first is chance.
fn in_some_order(mut replies: Vec<Reply>) -> Vec<Reply> {
    let by_pattern = |reply: &Reply| reply.items().first() == Some(&Reply::bulk("pmessage"));
    for run in replies.chunk_by_mut(|a, b| by_pattern(a) && by_pattern(b) && a.items()[2..] == b.items()[2..])
    {
        run.sort();
    }
    replies
}

fn compare(protocols: &[u8], threads: usize) {
    let redis = Node::start("redis", NodeOptions::default());
    let (_pool, sidecar) = start(threads);
    let mut theirs = Side::new(redis.endpoint(), protocols);
    let mut ours = Side::new(sidecar.endpoint(), protocols);
    for (at, (who, line)) in SCRIPT.iter().enumerate() {
        let expected = theirs.step(at, *who, line);
        let got = ours.step(at, *who, line);
        assert_eq!(
            got, expected,
            "step {at}, protocols {protocols:?}, {threads} threads: {line}"
        );
    }
}

#[test]
fn as_in_redis_in_resp2() {
    compare(&[2, 2, 2], 1);
}

#[test]
fn as_in_redis_in_resp3() {
    compare(&[3, 3, 3], 1);
}

#[test]
fn as_in_redis_in_both_with_threads() {
    compare(&[2, 3, 2], 4);
    compare(&[3, 2, 3], 4);
}

#[test]
fn what_a_transaction_sends_to_itself_comes_behind_its_reply() {
    for threads in [1, 4] {
        let (_pool, sidecar) = start(threads);
        let mut client = sidecar.client();
        client.call(cmd!["HELLO", 3]);
        client.call(cmd!["SUBSCRIBE", "a"]);
        let commands = [
            cmd!["INCR", "n"],
            cmd!["MULTI"],
            cmd!["PUBLISH", "a", 1],
            cmd!["INCR", "n"],
            cmd!["PUBLISH", "a", 2],
            cmd!["EXEC"],
        ];
        let replies = client.pipeline(&commands).expect("replies");
        assert_eq!(
            replies[5],
            Reply::Array(vec![Reply::Int(1), Reply::Int(2), Reply::Int(1)])
        );
        for text in ["1", "2"] {
            let words = ["message", "a", text].map(Reply::bulk).to_vec();
            assert_eq!(client.recv().expect("a message"), Reply::Push(words));
        }
    }
}
