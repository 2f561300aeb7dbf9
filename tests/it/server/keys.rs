//! Questions about all keys, and about copies.

use super::*;

#[test]
fn keys_are_counted_and_found_at_once_on_every_thread() {
    let (pool, sidecar) = pool_of(4);
    let mut clients: Vec<Client> = (0..4).map(|_| sidecar.client()).collect();
    let mut all = BTreeSet::new();
    for asked in ["DBSIZE", "KEYS *", "SCAN 0 COUNT 1000", "RANDOMKEY"] {
        for node in &pool.nodes {
            // The others acknowledge these writes, and most of them are still to be sent to this one.
            node.stop();
            for _ in 0..12 {
                let key = format!("k{}", all.len());
                assert!(clients[0].call(cmd!["SET", key, 1]).is_ok());
                all.insert(key.into_bytes());
            }
            clients[1].send_raw(&encode(&words(asked))).unwrap();
            node.cont();
            let reply = clients[1].recv().unwrap();
            let bytes = |keys: Vec<Reply>| {
                keys.iter()
                    .filter_map(|k| k.bytes().map(<[u8]>::to_vec))
                    .collect::<BTreeSet<_>>()
            };
            match asked {
                "DBSIZE" => assert_eq!(reply, Reply::Int(all.len() as i64)),
                "KEYS *" => assert_eq!(bytes(reply.items()), all),
                "RANDOMKEY" => assert!(bytes(vec![reply]).is_subset(&all)),
                _ => {
                    let mut found = BTreeSet::new();
                    let mut page = reply.items();
                    loop {
                        found.extend(bytes(page[1].items()));
                        let cursor = page[0].text().unwrap();
                        if cursor == "0" {
                            break;
                        }
                        page = clients[1].call(cmd!["SCAN", cursor, "COUNT", 1000]).items();
                    }
                    assert_eq!(found, all);
                }
            }
        }
    }
    for (protocol, args) in [
        (2, "COUNT 1000"),
        (3, "MATCH k* TYPE string COUNT 7"),
        (2, "TYPE list"),
        (3, "TYPE hash"),
    ] {
        let client = &mut clients[0];
        client.call(cmd!["HELLO", protocol]);
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let page = client.call(words(&format!("SCAN {cursor} {args}"))).items();
            found.extend(
                page[1]
                    .items()
                    .iter()
                    .filter_map(|k| k.bytes().map(<[u8]>::to_vec)),
            );
            cursor = page[0].text().unwrap();
            if cursor == "0" {
                break;
            }
        }
        let distinct: BTreeSet<Vec<u8>> = found.iter().cloned().collect();
        let wanted = if args.contains("list") || args.contains("hash") {
            BTreeSet::new()
        } else {
            all.clone()
        };
        assert_eq!(distinct, wanted, "{args}");
        assert_eq!(found.len(), wanted.len(), "no copies, {args}");
    }
}

#[test]
fn any_key_may_be_the_random_one() {
    let pool = Pool::start(4);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 3).threads(2).patient());
    let mut client = sidecar.client();
    assert!(client.call(cmd!["RANDOMKEY"]).is_nil());
    let all: BTreeSet<String> = (0..24).map(|n| format!("k{n}")).collect();
    for key in &all {
        client.call(cmd!["SET", key, 1]);
    }
    let mut seen = BTreeSet::new();
    wait_until("every key was chosen once", SOON, || {
        seen.insert(text(&mut client, "RANDOMKEY"));
        seen == all
    });
    // A node is missing: what it may have is not asked of it.
    pool.nodes[1].kill9();
    sidecar.allow_log("node");
    client.call(cmd!["DEL", "k0"]);
    wait_until("the node is given up", SOON, || {
        sidecar.node_state("b") != "in_sync"
    });
    for _ in 0..100 {
        let key = text(&mut client, "RANDOMKEY");
        assert!(all.contains(&key) && key != "k0", "{key}");
    }
}

#[test]
fn time_and_wait_tell_the_truth() {
    let (_pool, sidecar) = pool_of(1);
    let mut client = sidecar.client();
    let mut micros = BTreeSet::new();
    for _ in 0..20 {
        let time = client.call(cmd!["TIME"]).items();
        let part = |at: usize| time[at].text().unwrap().parse::<u64>().unwrap();
        assert!(part(0) > 1_600_000_000 && part(1) < 1_000_000);
        micros.insert(part(1) % 1000);
    }
    assert!(micros.len() > 1, "TIME has no microseconds: {micros:?}");
    assert!(client.call(cmd!["SET", "k", 1]).is_ok());
    assert!(client.call(cmd!["LASTSAVE"]).int().unwrap() > 1_600_000_000);
    // W = 2: one further copy is certain, before the reply to SET.
    assert_eq!(client.call(cmd!["WAIT", 1, 0]), Reply::Int(1));
    client.call(cmd!["MULTI"]);
    client.call(cmd!["SET", "k", 2]);
    client.call(cmd!["WAIT", 1, 0]);
    assert_eq!(client.call(cmd!["EXEC"]).items()[1], Reply::Int(1));
}

#[test]
fn wait_counts_the_nodes_that_have_it() {
    for threads in [1, 3] {
        let (pool, sidecar) = pool_of(threads);
        let mut client = sidecar.client();
        assert!(client.call(cmd!["SET", "k", 1]).is_ok());
        assert_eq!(client.call(cmd!["WAIT", 2, 0]), Reply::Int(2));
        pool.nodes[2].stop();
        for n in 0..10 {
            assert!(client.call(cmd!["SET", format!("k{n}"), 1]).is_ok());
        }
        let begin = Instant::now();
        assert_eq!(client.call(cmd!["WAIT", 1, 10_000]), Reply::Int(1));
        assert!(begin.elapsed() < Duration::from_secs(5));
        let begin = Instant::now();
        assert_eq!(
            client.call(cmd!["WAIT", 2, 200]),
            Reply::Int(1),
            "one node has not got it"
        );
        assert!(begin.elapsed() >= Duration::from_millis(200));
        client.send_raw(&encode(&cmd!["WAIT", 2, 0])).unwrap();
        pool.nodes[2].cont();
        assert_eq!(client.recv().unwrap(), Reply::Int(2));
        // More than there are copies: for as long as it is told to.
        assert_eq!(client.call(cmd!["WAIT", 3, 100]), Reply::Int(2));
        // Nobody is left to be told.
        client.send_raw(&encode(&cmd!["WAIT", 3, 0])).unwrap();
    }
}
