//! Values of every type, small and large.

use super::*;

const WAYS: [Way; 2] = [Way::Any, Way::Ranges];

/// The same keys again and again, on the target with something else each time.
async fn fill_all(control: &mut Control) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for n in [1, 3, 100, 3000] {
        let mut key = |kind: &[u8]| {
            let key = [kind, b"\0\r\n\xff ", n.to_string().as_bytes()].concat();
            keys.push(key.clone());
            key
        };
        fill(control, &[b"RPUSH", &key(b"list")], n, |i| vec![binary(i)]).await;
        fill(control, &[b"SADD", &key(b"set")], n, |i| vec![binary(i)]).await;
        fill(control, &[b"SADD", &key(b"intset")], n, |i| {
            vec![i.to_string().into_bytes()]
        })
        .await;
        fill(control, &[b"HSET", &key(b"hash")], n, |i| {
            vec![binary(i), binary(i + 7)]
        })
        .await;
        fill(control, &[b"ZADD", &key(b"zset")], n, |i| {
            vec![score(i).into_bytes(), binary(i)]
        })
        .await;
        fill(control, &[b"PFADD", &key(b"pf")], n, |i| vec![binary(i)]).await;
    }
    let large = vec![b'v'; 200_000];
    control.call(&[b"SET", b"empty", b""]).await.unwrap();
    control.call(&[b"SET", b"number", b"12345"]).await.unwrap();
    control.call(&[b"SET", b"", b"the empty key"]).await.unwrap();
    control.call(&[b"SET", b"large", &large.repeat(9)]).await.unwrap();
    control
        .call(&[b"SETRANGE", b"large", b"700000", b"\0\r\n\xff"])
        .await
        .unwrap();
    fill(control, &[b"HSET", b"large fields"], 20, |i| {
        vec![binary(i), large.clone()]
    })
    .await;
    fill(control, &[b"RPUSH", b"mixed"], 3000, |i| {
        vec![if i % 500 == 7 { large.repeat(8) } else { binary(i) }]
    })
    .await;
    for name in [&b""[..], b"empty", b"number", b"large", b"large fields", b"mixed"] {
        keys.push(name.to_vec());
    }
    // Every third one expires, in a day.
    for key in keys.iter().step_by(3) {
        let now = look::millis(&control.call(&[b"TIME"]).await.unwrap());
        let at = (now + 86_400_000).to_string();
        control.call(&[b"PEXPIREAT", key, at.as_bytes()]).await.unwrap();
    }
    keys
}

fn score(i: usize) -> String {
    match i {
        0 => "inf".to_owned(),
        1 => "-inf".to_owned(),
        2 => "0.1".to_owned(),
        3 => "-1.7976931348623157e308".to_owned(),
        4 => "5e-324".to_owned(),
        5 => "-0".to_owned(),
        6 => "9007199254740993".to_owned(),
        i => format!(
            "{}",
            (i as f64).sqrt() * if i.is_multiple_of(2) { 1e10 } else { -1e-10 }
        ),
    }
}

#[tokio::test]
async fn values_of_every_type() {
    let mut two = Two::start().await;
    let mut keys = fill_all(&mut two.source).await;
    keys.push(b"absent".to_vec());
    say(&mut two.source, &["SELECT 5", "SET other db5", "RPUSH large a b"]).await;
    for way in WAYS {
        let copied = two.copy(way, 0, &keys).await;
        assert_eq!((copied.keys, copied.left), (keys.len() as u64, 0));
        assert!(copied.bytes > 10_000_000, "{copied:?}");
        two.compare(way, 0, &keys).await;
        say(&mut two.target, &["FLUSHALL"]).await;
        for (i, key) in keys.iter().enumerate() {
            let other: [&[&[u8]]; 4] = [
                &[b"SET", key, b"old", b"PX", b"100000"],
                &[b"RPUSH", key, b"old"],
                &[b"HSET", key, b"old", b"old"],
                &[b"XADD", key, b"9999999999999-1", b"old", b"old"],
            ];
            two.target.call(other[i % 4]).await.unwrap();
        }
        two.copy(way, 0, &keys).await;
        two.compare(way, 0, &keys).await;
        let other = [b"other".to_vec(), b"large".to_vec()];
        two.copy(way, 5, &other).await;
        two.compare(way, 5, &other).await;
    }
}

#[tokio::test]
async fn a_key_that_has_expired_ends_as_absent() {
    let mut two = Two::start().await;
    let keys = [b"list".to_vec(), b"string".to_vec()];
    for way in WAYS {
        say(&mut two.target, &["RPUSH list old", "SET string old"]).await;
        say(
            &mut two.source,
            &["RPUSH list a", "PEXPIRE list 1", "SET string a PX 1"],
        )
        .await;
        while text_of(&two.source.call(&[b"EXISTS", b"list", b"string"]).await.unwrap()) != "0" {}
        two.copy(way, 0, &keys).await;
        two.compare(way, 0, &keys).await;
    }
}

#[tokio::test]
async fn expiries_without_pexpiretime() {
    let mut two = Two::start().await;
    say(&mut two.source, &["SET a 1 PXAT 4102444800123", "SET b 1"]).await;
    let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
    let found = look::expiries_before_7(&mut two.source, &keys).await.unwrap();
    let look::Expiry::At(at) = found[0] else {
        panic!("{found:?}")
    };
    assert!((at - 4102444800123).abs() <= 1, "{at}");
    assert_eq!(found[1..], [look::Expiry::Never, look::Expiry::Gone]);
}

/// A server that takes no payloads is stood in for by one that has nothing but `RESTORE` refused.
#[tokio::test]
async fn payloads_that_the_target_refuses_go_by_ranges() {
    for (error, seen_once) in [
        ("-ERR DUMP payload version or checksum are wrong\r\n", true),
        ("-ERR Bad data format\r\n", false),
    ] {
        let mut two = Two::start().await;
        let keys = fill_all(&mut two.source).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = two.servers[1].client(2);
        let relay = std::thread::spawn(move || relay(&listener, client, error));
        let address = crate::config::NodeAddress::Unix(path);
        let mut target = Control::connect(&address, None, TIMEOUT).await.unwrap();
        let pace = Pace::new(0);
        copy_keys(&mut two.source, &mut target, 0, &keys, Building::InPlace, &pace)
            .await
            .unwrap();
        drop(target);
        two.compare(Way::Any, 0, &keys).await;
        let refused = relay.join().unwrap();
        assert!(refused > 0);
        // Those of the first chunk: they are sent together.
        assert_eq!(refused <= CHUNK_KEYS, seen_once || keys.len() <= CHUNK_KEYS);
    }
}

/// Whoever ends while it copies leaves a large value whole: as it was, or as it is.
#[tokio::test]
async fn what_is_put_together_beside_is_whole_at_any_moment() {
    const OLD: i64 = 3;
    const NEW: i64 = 40_000;
    let mut two = Two::start().await;
    let space = Keyspace::plain(16);
    let key = b"list".to_vec();
    fill(&mut two.source, &[b"RPUSH", &key], NEW as usize, |i| {
        vec![binary(i)]
    })
    .await;
    fill(&mut two.target, &[b"RPUSH", &key], OLD as usize, |i| {
        vec![binary(i)]
    })
    .await;
    let connect = async |server: usize| {
        let address = two.servers[server].address();
        Control::connect(&address, None, TIMEOUT).await.unwrap()
    };
    let (keys, beside) = ([key.clone()], name_beside(&space, &key));
    let (here, there) = ([b"LLEN".as_slice(), &key], [b"LLEN".as_slice(), &beside]);
    let mut watcher = connect(1).await;
    for stopped in [true, false] {
        let (mut source, mut target) = (connect(0).await, connect(1).await);
        let (pace, building) = (Pace::new(4_000_000), Building::Beside(&space));
        let copy = copy_keys(&mut source, &mut target, 0, &keys, building, &pace);
        let mut copy = std::pin::pin!(copy);
        let mut looks = 0;
        loop {
            tokio::select! {
                done = &mut copy => {
                    done.unwrap();
                    break;
                }
                len = watcher.call(&here) => assert!([OLD, NEW].map(number).contains(&len.unwrap())),
            }
            looks += 1;
            if stopped && watcher.call(&there).await.unwrap() != number(0) {
                break;
            }
        }
        assert!(looks > 0);
    }
    let left = connect(1).await.call(&[b"DBSIZE"]).await.unwrap();
    assert_eq!(
        left,
        number(1),
        "nothing is left beside, also of what was stopped"
    );
    two.compare(Way::Any, 0, &keys).await;
}

/// A target that is nearly full has room for one of them.
#[tokio::test]
async fn where_there_is_no_room_beside_it_is_put_together_in_place() {
    let mut two = Two::start().await;
    let space = Keyspace::plain(16);
    let key = b"list".to_vec();
    for control in [&mut two.source, &mut two.target] {
        fill(control, &[b"RPUSH", &key], 120_000, |i| vec![binary(i)]).await;
    }
    say(&mut two.source, &["RPUSH list new"]).await;
    let info = text_of(&two.target.call(&[b"INFO", b"memory"]).await.unwrap());
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let limit = used.unwrap().parse::<u64>().unwrap() + 1_500_000;
    let limit = limit.to_string();
    let full: [&[u8]; 4] = [b"CONFIG", b"SET", b"maxmemory", limit.as_bytes()];
    two.target.call(&full).await.unwrap();
    let (pace, building) = (Pace::new(0), Building::Beside(&space));
    let keys = [key];
    copy_keys(&mut two.source, &mut two.target, 0, &keys, building, &pace)
        .await
        .unwrap();
    assert_eq!(two.target.call(&[b"DBSIZE"]).await.unwrap(), number(1));
    two.compare(Way::Any, 0, &keys).await;
}

fn number(n: i64) -> BytesFrame {
    BytesFrame::Number {
        data: n,
        attributes: None,
    }
}

/// Forwards commands one by one, but answers `RESTORE` with an error. How often.
fn relay(
    listener: &std::os::unix::net::UnixListener,
    mut client: crate::testserver::Client,
    error: &str,
) -> usize {
    use std::io::{BufRead, BufReader, Read, Write};
    let (mut write, _) = listener.accept().unwrap();
    let mut read = BufReader::new(write.try_clone().unwrap());
    let mut refused = 0;
    let header = |read: &mut BufReader<std::os::unix::net::UnixStream>| {
        let mut line = String::new();
        read.read_line(&mut line).unwrap();
        line.get(1..).unwrap_or("0").trim_end().parse::<usize>().unwrap()
    };
    loop {
        let count = header(&mut read);
        if count == 0 {
            return refused;
        }
        let mut args = Vec::new();
        for _ in 0..count {
            let mut arg = vec![0; header(&mut read) + 2];
            read.read_exact(&mut arg).unwrap();
            arg.truncate(arg.len() - 2);
            args.push(arg);
        }
        if args[0] == b"RESTORE" {
            refused += 1;
            write.write_all(error.as_bytes()).unwrap();
        } else {
            write.write_all(&client.call(&args)).unwrap();
        }
    }
}
