//! What clients may ask and change of themselves and of each other.

use super::*;

#[test]
fn client_list_shows_the_clients_of_all_threads() {
    let reference = Node::start("reference", NodeOptions::default());
    let theirs = text(&mut reference.client(), "CLIENT INFO");
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut clients: Vec<Client> = (0..9).map(|_| sidecar.client()).collect();
        let ids: Vec<i64> = clients
            .iter_mut()
            .map(|c| c.call(cmd!["CLIENT", "ID"]).int().unwrap())
            .collect();
        for (client, id) in clients.iter_mut().zip(&ids) {
            assert!(client.call(cmd!["CLIENT", "SETNAME", format!("n{id}")]).is_ok());
        }
        let mut unix = Client::connect(&sidecar.unix_endpoint());
        unix.call(cmd!["SELECT", 3]);
        unix.call(cmd!["MULTI"]);
        unix.call(cmd!["GET", "k"]);
        let list = text(&mut clients[4], "CLIENT LIST");
        let lines: Vec<BTreeMap<String, String>> = list.lines().map(|line| fields(line, '=')).collect();
        assert_eq!(lines.len(), 10, "{list}");
        // The fields of Redis 7.0, in its order, and the two that 7.2 has added.
        let own = text(&mut clients[0], "CLIENT INFO");
        assert_eq!(
            names(&own),
            [names(&theirs), vec!["lib-name", "lib-ver"]].concat()
        );
        assert!(
            own.ends_with("\n") && own.contains(" cmd=client|info user=default redir=-1 resp=2 "),
            "{own}"
        );
        let shown: Vec<i64> = lines.iter().map(|line| line["id"].parse().unwrap()).collect();
        assert!(shown.is_sorted(), "in the order they came: {shown:?}");
        for id in &ids {
            let line = lines
                .iter()
                .find(|line| line["id"] == id.to_string())
                .expect("every client");
            assert_eq!(line["name"], format!("n{id}"));
            assert_eq!(format!("{}", sidecar.endpoint()), line["laddr"]);
        }
        let unix = lines.last().unwrap();
        let expected = [
            ("db", "3"),
            ("multi", "1"),
            ("flags", "xU"),
            ("cmd", "get"),
            ("addr", &unix["laddr"]),
        ];
        for (field, value) in expected {
            assert_eq!(unix[field], value, "{field} of {unix:?}");
        }
        let some = format!("CLIENT LIST ID {} 999 {}", ids[7], ids[2]);
        let some = text(&mut clients[0], &some);
        assert_eq!(
            some.lines()
                .map(|line| fields(line, '=')["id"].clone())
                .collect::<Vec<_>>(),
            [ids[7].to_string(), ids[2].to_string()]
        );
        assert_eq!(
            text(&mut clients[0], "CLIENT LIST TYPE normal").lines().count(),
            10
        );
        assert_eq!(text(&mut clients[0], "CLIENT LIST TYPE pubsub"), "");
    }
}

fn is_closed(client: &mut Client) -> bool {
    client.try_call(&cmd!["PING"]).is_err()
}

#[test]
fn client_kill_reaches_every_thread() {
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut clients: Vec<Client> = (0..8).map(|_| sidecar.client()).collect();
        let infos: Vec<_> = clients
            .iter_mut()
            .map(|c| fields(&text(c, "CLIENT INFO"), '='))
            .collect();
        let (head, rest) = clients.split_at_mut(1);
        let killer = &mut head[0];
        assert!(killer.call(cmd!["CLIENT", "KILL", infos[1]["addr"]]).is_ok());
        assert!(is_closed(&mut rest[0]));
        assert_eq!(
            killer.call(cmd!["CLIENT", "KILL", "ID", infos[2]["id"]]),
            Reply::Int(1)
        );
        assert_eq!(
            killer.call(cmd!["CLIENT", "KILL", "ADDR", infos[3]["addr"], "TYPE", "normal"]),
            Reply::Int(1)
        );
        assert!(is_closed(&mut rest[1]) && is_closed(&mut rest[2]));
        // Both filters must hold.
        let both = cmd!["CLIENT", "KILL", "ADDR", infos[4]["addr"], "ID", infos[5]["id"]];
        assert_eq!(killer.call(both), Reply::Int(0));
        assert_eq!(killer.call(cmd!["CLIENT", "KILL", "MAXAGE", 1000]), Reply::Int(0));
        assert!(!is_closed(&mut rest[3]) && !is_closed(&mut rest[4]));
        let all = cmd!["CLIENT", "KILL", "LADDR", infos[0]["laddr"], "USER", "default"];
        assert_eq!(killer.call(all), Reply::Int(4));
        assert!(rest.iter_mut().all(is_closed));
        // Oneself: answered first, and what comes after is not done.
        let id = infos[0]["id"].clone();
        let suicide = [
            cmd!["CLIENT", "KILL", "ID", id, "SKIPME", "no"],
            cmd!["SET", "after", 1],
        ];
        let bytes: Vec<u8> = suicide.iter().flat_map(|command| encode(command)).collect();
        killer.send_raw(&bytes).unwrap();
        assert_eq!(killer.read_to_close(SOON).expect("it is closed"), b":1\r\n");
        let mut next = sidecar.client();
        assert_eq!(next.call(cmd!["EXISTS", "after"]), Reply::Int(0));
        wait_until("the others are gone", SOON, || {
            text(&mut next, "INFO clients").contains("connected_clients:1\r\n")
        });
        let own = fields(&text(&mut next, "CLIENT INFO"), '=')["addr"].clone();
        assert!(next.call(cmd!["CLIENT", "KILL", own]).is_ok());
        assert!(is_closed(&mut next));
    }
}

#[test]
fn a_pause_holds_commands_back() {
    for threads in [1, 4] {
        let (_pool, sidecar) = pool_of(threads);
        let mut boss = sidecar.client();
        let (mut writer, mut reader, mut multi) = (sidecar.client(), sidecar.client(), sidecar.client());
        assert!(boss.call(cmd!["SET", "k", 1]).is_ok());
        multi.call(cmd!["MULTI"]);
        multi.call(cmd!["INCR", "k"]);
        assert!(boss.call(cmd!["CLIENT", "PAUSE", 100_000, "WRITE"]).is_ok());
        for command in [
            cmd!["INCR", "k"],
            cmd!["PFCOUNT", "p"],
            cmd!["EVAL", "return 7", 0],
        ] {
            writer.send_raw(&encode(&command)).unwrap();
        }
        multi.send_raw(&encode(&cmd!["EXEC"])).unwrap();
        wait_until("two clients wait", SOON, || {
            text(&mut boss, "INFO clients").contains("blocked_clients:2\r\n")
        });
        assert_eq!(
            reader.call(cmd!["GET", "k"]),
            Reply::bulk("1"),
            "reads go on, and no write has been done"
        );
        // A shorter pause does not end a longer one.
        assert!(boss.call(cmd!["CLIENT", "PAUSE", 1, "WRITE"]).is_ok());
        assert_eq!(reader.call(cmd!["GET", "k"]), Reply::bulk("1"));
        assert!(boss.call(cmd!["CLIENT", "UNPAUSE"]).is_ok());
        let mut all = vec![writer.recv().unwrap().int().unwrap()];
        assert_eq!(
            (writer.recv().unwrap(), writer.recv().unwrap()),
            (Reply::Int(0), Reply::Int(7))
        );
        all.extend(multi.recv().unwrap().items().iter().filter_map(Reply::int));
        all.sort_unstable();
        assert_eq!(all, [2, 3]);
        let begin = Instant::now();
        assert!(boss.call(cmd!["CLIENT", "PAUSE", 300]).is_ok());
        assert_eq!(reader.call(cmd!["GET", "k"]), Reply::bulk("3"));
        // As in Redis, by a clock of whole ms.
        assert!(
            begin.elapsed() >= Duration::from_millis(299),
            "{:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn a_client_that_waits_is_unblocked_from_any_thread() {
    let reference = Node::start("reference", NodeOptions::default());
    let (_pool, sidecar) = pool_of(4);
    let [ours, theirs] = [sidecar.endpoint(), reference.endpoint()].map(|to| {
        let mut boss = Client::connect(&to);
        let mut replies = Vec::new();
        for how in ["", "TIMEOUT", "ERROR"] {
            let mut waiting = Client::connect(&to);
            let id = waiting.call(cmd!["CLIENT", "ID"]).int().unwrap();
            waiting.send_raw(&encode(&cmd!["BLPOP", "nothing", 0])).unwrap();
            wait_until("it waits", SOON, || {
                text(&mut boss, "INFO clients").contains("blocked_clients:1\r\n")
            });
            assert!(text(&mut boss, "CLIENT LIST").contains("flags=b "));
            replies.push(boss.call(words(&format!("CLIENT UNBLOCK {id} {how}"))));
            replies.push(waiting.recv().unwrap());
            replies.push(boss.call(words(&format!("CLIENT UNBLOCK {id}"))));
        }
        replies
    });
    assert_eq!(ours, theirs);
}

#[test]
fn replies_can_be_turned_off() {
    let reference = Node::start("reference", NodeOptions::default());
    let (_pool, sidecar) = pool_of(1);
    let [ours, theirs] = [sidecar.client(), reference.client()].map(|mut client| {
        for line in [
            "CLIENT REPLY SKIP",
            "SET a 1",
            "GET a",
            "CLIENT REPLY OFF",
            "SET a 2",
            "CLIENT REPLY SKIP",
            "PING",
            "CLIENT REPLY ON",
            "GET a",
            "CLIENT REPLY SKIP",
            "PING",
            "ECHO end",
        ] {
            client.send_raw(&encode(&words(line))).unwrap();
        }
        (0..4).map(|_| client.recv().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(ours, theirs);
}

#[test]
fn a_password_is_asked_for_and_never_told() {
    let options = NodeOptions::default()
        .with("databases", "15")
        .with("requirepass", "secret-word");
    let reference = Node::start("reference", options);
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3)
        .patient()
        .with("listen", "password = \"secret-word\"");
    let sidecar = Sidecar::start(&config);
    for protocol in [2, 3] {
        let (mut ours, mut theirs) = (sidecar.client(), Client::connect(&reference.endpoint()));
        let lines = "
            GET a
            NOSUCH
            GET
            PING
            MULTI
            CLIENT LIST
            HELLO
            HELLO 3
            HELLO 2 SETNAME me
            HELLO 2 AUTH default wrong
            HELLO 2 AUTH nobody secret-word
            AUTH wrong
            AUTH default wrong
            AUTH nobody secret-word
            AUTH a b c
            GET a
            RESET
            AUTH default secret-word
            CLIENT GETNAME
            ACL WHOAMI
            ACL USERS
            GET a
            RESET
            GET a
            AUTH secret-word
            GET a
            AUTH wrong
            GET a
        ";
        assert_alike(&mut ours, &mut theirs, lines);
        for hello in [
            cmd![
                "HELLO",
                protocol,
                "SETNAME",
                "me",
                "AUTH",
                "default",
                "secret-word"
            ],
            cmd![
                "HELLO",
                protocol,
                "AUTH",
                "default",
                "secret-word",
                "SETNAME",
                "you"
            ],
        ] {
            let mut fresh = sidecar.client();
            assert_eq!(fresh.call(hello.clone()).items().len(), 14);
            let name = hello[if hello[2] == b"SETNAME" { 3 } else { 6 }].clone();
            assert_eq!(fresh.call(cmd!["CLIENT", "GETNAME"]), Reply::Bulk(name));
        }
        for line in [
            "ACL LIST",
            "ACL GETUSER default",
            "CONFIG GET *",
            "INFO everything",
            "CLIENT LIST",
        ] {
            let reply = format!("{:?}", ours.call(words(line)));
            assert!(
                !reply.contains("secret-word") && !reply.contains("nopass"),
                "{line}: {reply}"
            );
        }
    }
}
