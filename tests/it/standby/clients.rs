//! Who is a client of a sidecar that stands by has all that the others have.

use super::Group;
use crate::cmd;
use crate::harness::{Client, Endpoint, Reply, Sidecar, SidecarConfig, wait_until};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

#[test]
fn they_are_served_through_any_sidecar() {
    let group = Group::start(3);
    let others = group.standing_by();
    let (mut one, mut two) = (others[0].client(), others[1].client());
    assert!(one.call(cmd!["SET", "k", "v"]).is_ok());
    assert_eq!(two.call(cmd!["GET", "k"]).text().as_deref(), Some("v"));
    assert_eq!(
        group.active().client().call(cmd!["GET", "k"]).text().as_deref(),
        Some("v")
    );
    // Over a unix socket, too.
    let mut local = Client::connect(&others[0].unix_endpoint());
    assert_eq!(local.call(cmd!["GET", "k"]).text().as_deref(), Some("v"));
    // Who waits at one host is served by who pushes at another.
    one.send_raw(b"BLPOP q 10\r\n").unwrap();
    wait_until("it waits", Duration::from_secs(5), || {
        two.call(cmd!["INFO", "clients"])
            .text()
            .unwrap()
            .contains("blocked_clients:1")
    });
    assert_eq!(two.call(cmd!["LPUSH", "q", "x"]), Reply::Int(1));
    assert_eq!(one.recv().unwrap().to_string(), r#"["q", "x"]"#);
    // And so is who has subscribed.
    one.call(cmd!["SUBSCRIBE", "c"]);
    assert_eq!(two.call(cmd!["PUBLISH", "c", "m"]), Reply::Int(1));
    assert_eq!(one.recv().unwrap().to_string(), r#"["message", "c", "m"]"#);
}

#[test]
fn they_are_shown_where_they_are() {
    let group = Group::start(2);
    let Endpoint::Tcp(address) = group.standing_by()[0].endpoint() else {
        panic!("a TCP endpoint");
    };
    let mut stream = TcpStream::connect(address).unwrap();
    let own = stream.local_addr().unwrap().to_string();
    stream.write_all(b"CLIENT SETNAME far\r\n").unwrap();
    let list = || {
        group
            .active()
            .client()
            .call(cmd!["CLIENT", "LIST"])
            .text()
            .unwrap()
    };
    wait_until("it has its name", Duration::from_secs(5), || {
        list().contains("name=far")
    });
    let line = list()
        .lines()
        .find(|line| line.contains("name=far"))
        .unwrap()
        .to_owned();
    assert!(line.contains(&format!(" addr={own} ")), "{own} is not in {line}");
    assert_eq!(
        group.active().client().call(cmd!["CLIENT", "KILL", "ADDR", own]),
        Reply::Int(1)
    );
}

#[test]
fn large_values_and_long_pipelines_pass_through() {
    let group = Group::start(2);
    let other = group.standing_by()[0];
    let mut client = other.client();
    let value = vec![b'v'; 8 * 1024 * 1024];
    assert!(client.call(cmd!["SET", "large", value.clone()]).is_ok());
    assert_eq!(client.call(cmd!["GET", "large"]).bytes(), Some(&value[..]));
    let pushes: Vec<_> = (0..5000).map(|i| cmd!["RPUSH", "q", i]).collect();
    let replies = client.pipeline(&pushes).unwrap();
    assert!(
        (1..)
            .zip(&replies)
            .all(|(length, reply)| *reply == Reply::Int(length))
    );
    // Whoever has sent its last is still owed the replies.
    let Endpoint::Tcp(address) = other.endpoint() else {
        panic!("a TCP endpoint");
    };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"PING\r\nSTRLEN large\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let said = std::io::read_to_string(stream).unwrap();
    assert_eq!(said, "+PONG\r\n:8388608\r\n");
    // One that does not read keeps nobody else from being served, and takes no memory here.
    group.active().allow_log("a client does not read its replies");
    let mut deaf = other.client();
    for _ in 0..40 {
        deaf.send_raw(b"GET large\r\n").unwrap();
    }
    let before = other.rss_bytes();
    for i in 0..500 {
        assert_eq!(client.call(cmd!["ECHO", i]).text(), Some(i.to_string()));
    }
    let grown = other.rss_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for a client that does not read");
}

#[test]
fn operators_are_told_whom_to_ask() {
    let group = Group::start(2);
    let other = group.standing_by()[0];
    let _client = other.client();
    let active = group.active().peer_endpoint().to_string();
    let (status, said) = other.readiness();
    assert!(status == 200 && said.contains(&active), "{status} {said}");
    let (status, said) = other.ask("GET", "/v1/nodes", &serde_json::Value::Null);
    assert!(
        status == 421 && said.to_string().contains(&active),
        "{status} {said}"
    );
    wait_until("the client is counted", Duration::from_secs(5), || {
        let metrics = other.metrics();
        metrics.contains("ringfence_serving 0\n") && metrics.contains("ringfence_relayed_clients 1\n")
    });
}

#[test]
fn a_limit_of_clients_holds_for_those_that_are_passed_on() {
    let group = Group::start(1);
    let config = SidecarConfig::of(&group.pool, 3).standing_by();
    let other = Sidecar::start(&config.with("limits", "clients_max = 3"));
    super::allow_changes(&other);
    let mut clients: Vec<Client> = (0..3).map(|_| other.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call(cmd!["PING"]).to_string(), "+PONG");
    }
    let mut fourth = other.client();
    let said = fourth.read_to_close(Duration::from_secs(5)).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said),
        "-ERR max number of clients reached\r\n"
    );
}

#[test]
fn the_port_for_sidecars_takes_nobody_else() {
    let group = Group::start(1);
    let peer = group.active().peer_endpoint();
    let mut client = Client::connect(&peer);
    client
        .send_raw(b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n")
        .unwrap();
    let said = client.read_to_close(Duration::from_secs(5)).unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("-ERR this port is for other sidecars"), "{said}");
    // Nor those who say nothing, however many: others are let in all the same.
    let silent: Vec<Client> = (0..150).map(|_| Client::connect(&peer)).collect();
    let other = Sidecar::spawn(&SidecarConfig::of(&group.pool, 3).standing_by());
    super::allow_changes(&other);
    other.wait_ready();
    assert!(other.client().call(cmd!["SET", "k", "v"]).is_ok());
    drop(silent);
}

/// A password that differs would only be noticed when the clients are refused.
#[test]
fn another_password_is_noticed_before_it_matters() {
    let group = Group::with(1, |config, _| config.with("listen", "password = \"sesame\""));
    let config = SidecarConfig::of(&group.pool, 3).standing_by();
    let same = Sidecar::start(&config.clone().with("listen", "password = \"sesame\""));
    let words = "listen.user or listen.password is not that of the sidecar that serves";
    for other in [config.clone().with("listen", "password = \"other\""), config] {
        let other = Sidecar::start(&other);
        wait_until("it is said", Duration::from_secs(5), || {
            other.log().contains(words)
        });
        other.allow_log(words);
    }
    assert!(!same.log().contains(words));
    let mut client = same.client();
    assert!(client.call(cmd!["AUTH", "sesame"]).is_ok());
    assert!(client.call(cmd!["SET", "k", "v"]).is_ok());
}

/// Commands for the pool end at once: asking this sidecar again does not help.
#[test]
fn the_command_line_is_told_whom_to_ask() {
    let group = Group::start(2);
    let other = group.standing_by()[0];
    for words in [&["nodes", "list"][..], &["ring", "status", "--watch"]] {
        let mut command = Command::new(crate::harness::binary());
        command.args(words).args(["--admin", &other.admin_address()]);
        let said = command.output().unwrap();
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{errors}");
        assert!(errors.contains("this sidecar stands by"), "{errors}");
    }
}
