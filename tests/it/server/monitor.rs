//! `MONITOR`, the slow log, and latencies.

use super::*;

/// What a server with `MONITOR` shows of these commands, without times and addresses.
fn monitored(to: &Endpoint, others: usize) -> Vec<String> {
    let mut monitor = Client::connect(to);
    assert!(monitor.call(cmd!["MONITOR"]).is_ok());
    let mut clients: Vec<Client> = (0..others).map(|_| Client::connect(to)).collect();
    for line in [
        "SET a b",
        "GET a",
        "NOSUCH x",
        "GET",
        "LPUSH a 'with space'",
        "MULTI",
        "SET x y",
        "GET x",
        "EXEC",
        "MULTI",
        "SET q q",
        "DISCARD",
        "MULTI",
        "NOSUCH",
        "EXEC",
        "AUTH default secret",
        "AUTH foo bar",
        "HELLO 2 AUTH default secret SETNAME me",
        "CONFIG GET x",
        "CLIENT LIST",
        "SLOWLOG LEN",
        "PING",
        "EVAL 'return 1' 0",
        "SELECT 3",
        "get a",
        "SELECT 0",
        "MSET k1 v k2 v k3 v",
        "INFO server",
    ] {
        // A transaction belongs to one client.
        clients[0].call(words(line));
        if line == "PING" {
            for other in clients.iter_mut().skip(1) {
                other.call(cmd!["ECHO", "from another"]);
            }
        }
    }
    clients[0].call(cmd!["ECHO", "the end"]);
    let mut lines = Vec::new();
    loop {
        let line = monitor.recv().unwrap().text().unwrap();
        let (time, rest) = line.split_once(" [").unwrap();
        assert!(
            time.parse::<f64>().unwrap() > 1e9 && time.split_once('.').unwrap().1.len() == 6,
            "{time}"
        );
        let (place, command) = rest.split_once("] ").unwrap();
        lines.push(format!("{} {command}", place.split(' ').next().unwrap()));
        if command.contains("the end") {
            break;
        }
    }
    let refused = monitor.call(cmd!["GET", "a"]);
    assert_eq!(
        refused.error(),
        Some("ERR Replica can't interact with the keyspace")
    );
    assert_eq!(monitor.call(cmd!["RESET"]), Reply::Simple("RESET".into()));
    clients[0].call(cmd!["SET", "a", "b"]);
    assert_eq!(monitor.call(cmd!["GET", "a"]), Reply::bulk("b"));
    lines
}

#[test]
fn monitor_shows_what_redis_shows() {
    let reference = Node::start("reference", NodeOptions::default());
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut ours = monitored(&sidecar.endpoint(), 5);
        let mut theirs = monitored(&reference.endpoint(), 5);
        // What scripts call is seen by the nodes only; other clients' lines come when they come.
        theirs.retain(|line| !line.contains("lua"));
        for lines in [&mut ours, &mut theirs] {
            let end = lines.pop().unwrap();
            assert_eq!(
                lines.iter().filter(|line| line.contains("from another")).count(),
                4,
                "{end}"
            );
            lines.retain(|line| !line.contains("from another"));
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_monitor_that_does_not_read_is_disconnected() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3)
        .threads(2)
        .patient()
        .with("limits", "client_output_max = \"1MiB\"");
    let sidecar = Sidecar::start(&config);
    sidecar.allow_log("does not read");
    let mut monitor = sidecar.client();
    assert!(monitor.call(cmd!["MONITOR"]).is_ok());
    let mut client = sidecar.client();
    let large = "x".repeat(100_000);
    wait_until("the monitor is gone", Duration::from_secs(30), || {
        client.call(cmd!["ECHO", large]);
        !text(&mut client, "CLIENT LIST").contains("flags=O")
    });
    assert!(monitor.read_to_close(SOON).is_some());
}

#[test]
fn the_slow_log_keeps_what_took_long() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).threads(4).patient();
    let config = config.with("limits", "slowlog_slower_than = \"100ms\"\nslowlog_max_len = 3");
    let sidecar = Sidecar::start(&config);
    let mut client = sidecar.client();
    assert!(client.call(cmd!["CLIENT", "SETNAME", "me"]).is_ok());
    let addr = fields(&text(&mut client, "CLIENT INFO"), '=')["addr"].clone();
    client.call(cmd!["SET", "fast", 1]);
    assert_eq!(client.call(cmd!["SLOWLOG", "LEN"]), Reply::Int(0));
    let slow = "local t = 0 for i = 1, 40000000 do t = t + i end return redis.call('INCR', KEYS[1])";
    for _ in 0..4 {
        assert!(client.call(cmd!["EVAL", slow, 1, "k"]).int().is_some());
    }
    let mut other = sidecar.client();
    assert_eq!(other.call(cmd!["SLOWLOG", "LEN"]), Reply::Int(3));
    let log = other.call(cmd!["SLOWLOG", "GET", 2]).items();
    let [Reply::Array(last), Reply::Array(_)] = log.as_slice() else {
        panic!("{log:?}")
    };
    let [id, time, took, args, shown_addr, name] = last.as_slice() else {
        panic!("{last:?}")
    };
    assert_eq!(id.int(), Some(3));
    assert!(
        time.int().unwrap() > 1_600_000_000 && took.int().unwrap() >= 100_000,
        "{last:?}"
    );
    assert_eq!(
        args.items(),
        [
            Reply::bulk("EVAL"),
            Reply::bulk(slow),
            Reply::bulk("1"),
            Reply::bulk("k")
        ]
    );
    assert_eq!(
        (shown_addr.clone(), name.clone()),
        (Reply::bulk(addr), Reply::bulk("me"))
    );
    assert!(other.call(cmd!["SLOWLOG", "RESET"]).is_ok());
    assert_eq!(client.call(cmd!["SLOWLOG", "GET"]), Reply::Array(Vec::new()));
}

#[test]
fn latency_points_to_the_metrics() {
    let (_pool, sidecar) = pool_of(1);
    let mut client = sidecar.client();
    assert!(text(&mut client, "LATENCY DOCTOR").contains("/metrics"));
    assert_eq!(
        client.call(words("LATENCY HISTOGRAM get")),
        Reply::Array(Vec::new())
    );
    client.call(cmd!["HELLO", 3]);
    assert_eq!(client.call(words("LATENCY HISTOGRAM")), Reply::Map(Vec::new()));
}
