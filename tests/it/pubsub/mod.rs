//! Publish and subscribe: the same answers as one Redis server, one order for all, and no node that matters.

mod same;

use crate::cmd;
use crate::harness::{Client, Pool, Reply, Rng, Sidecar, SidecarConfig, encode, seed, wait_until};
use std::collections::HashMap;
use std::time::Duration;

fn start(threads: usize) -> (Pool, Sidecar) {
    let pool = Pool::start(3);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).patient().threads(threads));
    (pool, sidecar)
}

fn subscribed(sidecar: &Sidecar, names: &[String]) -> Client {
    let mut client = sidecar.client();
    for name in names {
        client.call(cmd!["SUBSCRIBE", name]);
    }
    client
}

/// The channel and the text of a message.
fn message(client: &mut Client) -> (String, String) {
    let reply = client.recv().expect("a message");
    let words: Vec<String> = reply.items().iter().filter_map(Reply::text).collect();
    assert_eq!(words[0], "message", "{reply}");
    (words[1].clone(), words[2].clone())
}

#[test]
fn every_subscriber_sees_one_order() {
    const EACH: usize = 400;
    let (_pool, sidecar) = start(4);
    // Of several owners.
    let channels: Vec<String> = (0..6).map(|c| format!("channel:{c}")).collect();
    let mut subscribers: Vec<Client> = (0..6).map(|_| subscribed(&sidecar, &channels)).collect();
    let mut pattern = sidecar.client();
    pattern.call(cmd!["PSUBSCRIBE", "channel:*"]);
    let seed = seed();
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (mut client, channels) = (sidecar.client(), channels.clone());
            let mut rng = Rng::new(seed + publisher);
            std::thread::spawn(move || {
                let mut sent = 0;
                while sent < EACH {
                    let burst: Vec<_> = (0..EACH.min(sent + 1 + rng.below(30)) - sent)
                        .map(|i| {
                            let channel = &channels[rng.below(channels.len())];
                            cmd!["PUBLISH", channel, format!("{publisher}:{}", sent + i)]
                        })
                        .collect();
                    sent += burst.len();
                    for reply in client.pipeline(&burst).expect("publisher") {
                        assert_eq!(reply, Reply::Int(7));
                    }
                }
            })
        })
        .collect();
    let mut seen: Vec<Vec<(String, String)>> = subscribers
        .iter_mut()
        .map(|client| (0..4 * EACH).map(|_| message(client)).collect())
        .collect();
    seen.push(
        (0..4 * EACH)
            .map(|_| {
                let words: Vec<String> = pattern
                    .recv()
                    .expect("a message")
                    .items()
                    .iter()
                    .filter_map(Reply::text)
                    .collect();
                (words[2].clone(), words[3].clone())
            })
            .collect(),
    );
    publishers
        .into_iter()
        .for_each(|thread| thread.join().expect("publisher"));
    let by_channel = |all: &[(String, String)]| {
        let mut of: HashMap<String, Vec<String>> = HashMap::new();
        for (channel, text) in all {
            of.entry(channel.clone()).or_default().push(text.clone());
        }
        of
    };
    let first = by_channel(&seen[0]);
    for all in &seen {
        assert_eq!(by_channel(all), first, "SEED={seed}");
        // And whatever the channel, each publisher's messages come as it has sent them.
        for publisher in 0..4 {
            let mine = all
                .iter()
                .filter_map(|(_, text)| text.strip_prefix(&format!("{publisher}:")));
            let numbers: Vec<usize> = mine.map(|n| n.parse().expect("a number")).collect();
            assert!(numbers.iter().copied().eq(0..EACH), "SEED={seed}: {numbers:?}");
        }
    }
}

#[test]
fn receivers_are_counted_exactly_while_clients_subscribe() {
    let (_pool, sidecar) = start(4);
    let mut publisher = sidecar.client();
    let publishing = std::thread::spawn(move || {
        let mut told = 0;
        for _ in 0..60 {
            let burst: Vec<_> = (0..50).map(|_| cmd!["PUBLISH", "c", "x"]).collect();
            let replies = publisher.pipeline(&burst).expect("publisher");
            told += replies
                .iter()
                .map(|reply| reply.int().expect("a count"))
                .sum::<i64>();
        }
        told
    });
    let mut clients = Vec::new();
    while !publishing.is_finished() && clients.len() < 300 {
        clients.push(subscribed(&sidecar, &["c".to_owned()]));
    }
    let told = publishing.join().expect("publisher");
    let mut got = 0;
    for client in &mut clients {
        client.send_raw(&encode(&cmd!["PING", "end"])).expect("sent");
        while client.recv().expect("a reply").items()[0] != Reply::bulk("pong") {
            got += 1;
        }
    }
    assert!(got > 100, "hardly anything was received: {got}");
    assert_eq!(got, told);
}

#[test]
fn a_node_that_dies_takes_no_message_with_it() {
    let (pool, sidecar) = start(2);
    sidecar.allow_log("node");
    let mut subscriber = subscribed(&sidecar, &["news".to_owned()]);
    let mut publisher = sidecar.client();
    for i in 0..1500 {
        if i == 500 {
            pool.nodes[0].kill9();
        }
        if i == 1000 {
            pool.nodes[1].kill9();
            pool.nodes[2].kill9();
        }
        assert_eq!(
            publisher.call(cmd!["PUBLISH", "news", i]),
            Reply::Int(1),
            "message {i}"
        );
    }
    for i in 0..1500 {
        assert_eq!(message(&mut subscriber).1, i.to_string());
    }
}

#[test]
fn who_is_told_of_something_finds_it() {
    let (_pool, sidecar) = start(4);
    let mut worker = sidecar.client();
    let mut queues = sidecar.client();
    let channels: Vec<String> = (0..8).map(|c| format!("pushed:{c}")).collect();
    for channel in &channels {
        worker.call(cmd!["SUBSCRIBE", channel]);
    }
    let mut producer = sidecar.client();
    for i in 0..300 {
        let queue = format!("queue:{}", i % 7);
        let burst = encode(&cmd!["LPUSH", queue, i]);
        let told = match i % 3 {
            // Inside a transaction too.
            0 => [
                cmd!["MULTI"],
                cmd!["PUBLISH", channels[i % 8], queue],
                cmd!["RPUSH", queue, i],
                cmd!["EXEC"],
            ]
            .iter()
            .flat_map(|c| encode(c))
            .collect(),
            _ => encode(&cmd!["PUBLISH", channels[i % 8], queue]),
        };
        producer.send_raw(&[burst, told].concat()).expect("sent");
        let (_, queue) = message(&mut worker);
        let expected = if i % 3 == 0 { 2 } else { 1 };
        assert_eq!(
            queues.call(cmd!["LLEN", queue]),
            Reply::Int(expected),
            "message {i}"
        );
        queues.call(cmd!["DEL", queue]);
        for _ in 0..if i % 3 == 0 { 5 } else { 2 } {
            let reply = producer.recv().expect("a reply");
            assert!(reply.error().is_none(), "{reply}");
        }
    }
}

#[test]
fn nobody_is_told_of_a_write_that_is_not_acknowledged() {
    let (pool, sidecar) = start(1);
    let mut subscriber = subscribed(&sidecar, &["c".to_owned()]);
    let (mut producer, mut other) = (sidecar.client(), sidecar.client());
    pool.nodes[1].stop();
    pool.nodes[2].stop();
    let burst = [cmd!["LPUSH", "queue", "job"], cmd!["PUBLISH", "c", "pushed"]];
    producer
        .send_raw(&burst.map(|command| encode(&command)).concat())
        .expect("sent");
    let mut node = pool.nodes[0].client();
    wait_until("one node has the write", Duration::from_secs(5), || {
        node.call(cmd!["LLEN", "queue"]) == Reply::Int(1)
    });
    assert_eq!(other.call(cmd!["PUBLISH", "c", "meanwhile"]), Reply::Int(1));
    assert_eq!(message(&mut subscriber).1, "meanwhile");
    pool.nodes[1].cont();
    pool.nodes[2].cont();
    assert_eq!(message(&mut subscriber).1, "pushed");
    for _ in 0..2 {
        assert_eq!(producer.recv().expect("a reply"), Reply::Int(1));
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_and_others_are_not() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3)
        .patient()
        .with("limits", "client_output_max = \"1MiB\"");
    let sidecar = Sidecar::start(&config);
    sidecar.allow_log("does not read its replies");
    let _sleeper = subscribed(&sidecar, &["c".to_owned()]);
    let mut reader = subscribed(&sidecar, &["c".to_owned()]);
    let mut publisher = sidecar.client();
    let text = "x".repeat(64 * 1024);
    let mut sent = 0;
    while publisher.call(cmd!["PUBLISH", "c", text]) == Reply::Int(2) {
        sent += 1;
        message(&mut reader);
        // The sockets hold some megabytes.
        assert!(sent < 1000, "the one that sleeps is still there");
    }
    assert!(sent > 16, "it was given its 1 MiB: {sent}");
    message(&mut reader);
    assert_eq!(publisher.call(cmd!["PUBLISH", "c", "y"]), Reply::Int(1));
    assert_eq!(message(&mut reader).1, "y");
}

#[test]
fn who_has_gone_is_nowhere() {
    let (_pool, sidecar) = start(4);
    let mut asker = sidecar.client();
    let mut clients: Vec<Client> = (0..20)
        .map(|_| subscribed(&sidecar, &["a".to_owned(), "b".to_owned()]))
        .collect();
    for client in &mut clients {
        client.call(cmd!["PSUBSCRIBE", "a*"]);
        client.call(cmd!["SSUBSCRIBE", "s"]);
    }
    assert_eq!(asker.call(cmd!["PUBLISH", "a", "x"]), Reply::Int(40));
    assert_eq!(asker.call(cmd!["SPUBLISH", "s", "x"]), Reply::Int(20));
    let info = asker.call(cmd!["INFO", "stats"]).text().expect("text");
    for line in [
        "pubsub_channels:2\r",
        "pubsub_patterns:1\r",
        "pubsubshard_channels:1\r",
    ] {
        assert!(info.contains(line), "{line} is not in {info}");
    }
    drop(clients);
    wait_until("nobody is left", Duration::from_secs(5), || {
        asker.call(cmd!["PUBSUB", "NUMSUB", "a", "b"]).items()[1..4].to_vec()
            == [Reply::Int(0), Reply::bulk("b"), Reply::Int(0)]
            && asker.call(cmd!["PUBSUB", "NUMPAT"]) == Reply::Int(0)
            && asker.call(cmd!["PUBSUB", "SHARDCHANNELS"]) == Reply::Array(Vec::new())
    });
    assert_eq!(asker.call(cmd!["PUBLISH", "a", "x"]), Reply::Int(0));
}

#[test]
fn who_listens_is_not_idle() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3)
        .patient()
        .with("timeouts", "client_idle = \"400ms\"");
    let sidecar = Sidecar::start(&config);
    let mut listener = subscribed(&sidecar, &["c".to_owned()]);
    let mut idle = sidecar.client();
    assert_eq!(idle.call(cmd!["PING"]), Reply::Simple("PONG".to_owned()));
    // The one that was last to speak is gone, so the other has been silent for long enough too.
    assert!(idle.read_to_close(Duration::from_secs(10)).is_some());
    assert_eq!(sidecar.client().call(cmd!["PUBLISH", "c", "x"]), Reply::Int(1));
    assert_eq!(message(&mut listener).1, "x");
    listener.call(cmd!["UNSUBSCRIBE"]);
    assert!(listener.read_to_close(Duration::from_secs(10)).is_some());
}
