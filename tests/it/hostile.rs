//! Bytes and habits of clients that mean harm, or were written in a hurry: the sidecar answers with an error or hangs
//! up, keeps its memory bounded, and goes on serving everybody else.

use crate::cmd;
use crate::harness::{Client, Endpoint, Pool, Reply, Sidecar, SidecarConfig, encode, wait_until};
use std::io;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;

/// A pool with one sidecar, which must be the same process at the end.
struct Fortress {
    // Ends first: a sidecar whose nodes go away has something to say about it.
    sidecar: Sidecar,
    pool: Pool,
    pid: u32,
}

impl Fortress {
    fn build() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl Fn(SidecarConfig) -> SidecarConfig) -> Self {
        let pool = Pool::start(3);
        let sidecar = Sidecar::start(&change(SidecarConfig::of(&pool, 3)));
        let pid = sidecar.pid();
        Self { sidecar, pool, pid }
    }

    /// A normal client works, and no process had to be started again for it.
    #[track_caller]
    fn assert_stands(&self, after: &str) {
        let mut client = self.sidecar.client();
        let value = format!("after {after}");
        let reply = client.call(cmd!["SET", "hostile", value]);
        assert!(reply.is_ok(), "{after}: SET answered {reply}");
        assert_eq!(
            client.call(cmd!["GET", "hostile"]),
            Reply::bulk(value),
            "{after}: GET"
        );
        assert!(self.sidecar.exited().is_none(), "{after}: the sidecar ended");
        assert_eq!(self.sidecar.pid(), self.pid, "{after}: another process");
    }

    /// Sends it; the answer must be an error, then (or instead) the connection is closed.
    #[track_caller]
    fn assert_rejects(&self, what: &str, bytes: &[u8]) {
        for endpoint in [self.sidecar.endpoint(), self.sidecar.unix_endpoint()] {
            let mut client = Client::connect(&endpoint);
            // The sidecar may hang up before it has read everything.
            let _ = client.send_raw(bytes);
            let rest = client.read_to_close(Duration::from_secs(5));
            let rest = rest.unwrap_or_else(|| panic!("{what}: neither an error nor a hang-up"));
            let text = String::from_utf8_lossy(&rest).into_owned();
            let polite = text.is_empty() || text.starts_with('-');
            assert!(
                polite,
                "{what}: answered {:?}",
                text.chars().take(200).collect::<String>()
            );
        }
        self.assert_stands(what);
    }
}

#[test]
fn malformed_commands_get_an_error_and_a_hang_up() {
    let fortress = Fortress::build();
    let cases: [(&str, &[u8], &str); 9] = [
        (
            "a bulk of 4 EiB",
            b"*2\r\n$3\r\nGET\r\n$4611686018427387904\r\n",
            "ERR Protocol error: invalid bulk length",
        ),
        (
            "an array of 4 EiB",
            b"*4611686018427387904\r\n",
            "ERR Protocol error: invalid multibulk length",
        ),
        (
            "a number that overflows",
            b"*99999999999999999999999\r\n",
            "ERR Protocol error: invalid multibulk length",
        ),
        (
            "a negative bulk",
            b"*1\r\n$-5\r\n",
            "ERR Protocol error: invalid bulk length",
        ),
        ("no bulk", b"*1\r\n:5\r\n", "ERR Protocol error: expected '$'"),
        (
            "letters for a count",
            b"*abc\r\n",
            "ERR Protocol error: invalid multibulk length",
        ),
        (
            "letters for a length",
            b"*1\r\n$x\r\n",
            "ERR Protocol error: invalid bulk length",
        ),
        (
            "open quotes",
            b"SET a \"b\r\n",
            "ERR Protocol error: unbalanced quotes in request",
        ),
        (
            "nested arrays",
            b"*1\r\n*1\r\n$4\r\nPING\r\n",
            "ERR Protocol error: expected '$'",
        ),
    ];
    for (what, bytes, expected) in cases {
        let mut client = fortress.sidecar.client();
        client.send_raw(bytes).expect("sent");
        let reply = client.recv().unwrap_or_else(|e| panic!("{what}: no answer: {e}"));
        assert!(
            reply.error().is_some_and(|text| text.starts_with(expected)),
            "{what}: {reply}"
        );
        fortress.assert_rejects(what, bytes);
    }
}

#[test]
fn nesting_and_garbage_do_not_end_the_process() {
    let fortress = Fortress::build();
    fortress.assert_rejects("32 KB of *1", &b"*1\r\n".repeat(8192));
    fortress.assert_rejects("1 MB of *1", &b"*1\r\n".repeat(262_144));
    fortress.assert_rejects("an inline command without end", &vec![b'a'; 200_000]);
    fortress.assert_rejects(
        "a header without end",
        &[b"*".as_slice(), &[b'1'; 100_000]].concat(),
    );
    let mut noise = crate::harness::Rng::new(7);
    for round in 0..20 {
        let mut bytes: Vec<u8> = (0..4096).map(|_| noise.next() as u8).collect();
        // A line end makes sure that some of it is a command.
        bytes.extend_from_slice(b"\r\n*1\r\n$-9\r\n");
        let mut client = fortress.sidecar.client();
        let _ = client.send_raw(&bytes);
        if round % 4 == 0 {
            // An error, a hang-up or a wait for more are all fine.
            let _ = client.read_to_close(Duration::from_millis(50));
        }
    }
    fortress.assert_stands("garbage");
}

#[test]
fn negative_and_empty_arrays_are_skipped_as_redis_does() {
    let fortress = Fortress::build();
    let mut client = fortress.sidecar.client();
    client
        .send_raw(b"*-1\r\n*0\r\n\r\n*-10\r\n*1\r\n$4\r\nPING\r\n")
        .expect("sent");
    assert_eq!(client.recv().expect("a reply"), Reply::Simple("PONG".to_owned()));
    fortress.assert_stands("empty arrays");
}

#[test]
fn half_a_command_harms_nobody_and_can_be_completed() {
    let fortress = Fortress::build();
    let whole = encode(&cmd!["SET", "half", "value"]);
    let mut halves: Vec<(usize, Client)> = Vec::new();
    for cut in 1..whole.len() {
        let mut client = fortress.sidecar.client();
        client.send_raw(&whole[..cut]).expect("sent");
        halves.push((cut, client));
    }
    fortress.assert_stands("half a command, then silence");
    for (cut, client) in &mut halves {
        client.send_raw(&whole[*cut..]).expect("sent");
        assert!(
            client.recv().expect("a reply").is_ok(),
            "completed after {cut} bytes"
        );
    }
}

#[test]
fn byte_by_byte() {
    let fortress = Fortress::build();
    let mut client = fortress.sidecar.client();
    let commands = [
        cmd!["SET", "slow", "a\r\nb"],
        cmd!["GET", "slow"],
        cmd!["MGET", "slow", "none"],
    ];
    for command in &commands {
        for byte in encode(command) {
            client.send_raw(&[byte]).expect("sent");
        }
    }
    for byte in b"PING\r\n" {
        client.send_raw(&[*byte]).expect("sent");
    }
    let replies: Vec<Reply> = (0..4).map(|_| client.recv().expect("a reply")).collect();
    assert!(replies[0].is_ok());
    assert_eq!(replies[1], Reply::bulk("a\r\nb"));
    assert_eq!(
        replies[2],
        Reply::Array(vec![Reply::bulk("a\r\nb"), Reply::NilBulk])
    );
    assert_eq!(replies[3], Reply::Simple("PONG".to_owned()));
    fortress.assert_stands("byte by byte");
}

#[test]
fn a_command_that_is_too_large_gets_a_clear_error() {
    let fortress = Fortress::with(|config| config.with("limits", "command_max = \"4MiB\""));
    let fits = vec![b'v'; 3 * MIB as usize];
    let mut client = fortress.sidecar.client();
    assert!(client.call(cmd!["SET", "large", fits]).is_ok());
    assert_eq!(client.call(cmd!["STRLEN", "large"]), Reply::Int(3 * MIB as i64));
    // Refused when its length is announced: nobody has to send it first.
    let mut client = fortress.sidecar.client();
    client
        .send_raw(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$5000000\r\n")
        .expect("sent");
    let reply = client.recv().expect("an error before the body is sent");
    assert!(
        reply.error().is_some_and(|text| text.contains("command_max")),
        "does not name the limit: {reply}"
    );
    // Many small arguments count together.
    let many = vec![b"0123456789".to_vec(); 600_000];
    let mut client = fortress.sidecar.client();
    let sent = client.send_raw(&encode(&[cmd!["RPUSH", "many"], many].concat()));
    if sent.is_ok() {
        let reply = client.recv();
        let refused = reply.as_ref().is_ok_and(|reply| reply.error().is_some()) || reply.is_err();
        assert!(refused, "{reply:?}");
    }
    assert_eq!(
        fortress.sidecar.client().call(cmd!["EXISTS", "many"]),
        Reply::Int(0)
    );
    fortress.assert_stands("too large");
}

#[test]
fn the_default_limit_of_a_command_is_64_mib() {
    let fortress = Fortress::build();
    let mut client = fortress.sidecar.client();
    client
        .send_raw(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 64 * MIB + 1).as_bytes())
        .expect("sent");
    let reply = client.recv().expect("an error");
    assert!(
        reply.error().is_some_and(|text| text.contains("command_max")),
        "does not name the limit: {reply}"
    );
    fortress.assert_stands("64 MiB and one byte");
}

/// Four clients ask for 400 MiB each and read nothing. Their commands are not taken up while their replies wait, so the replies
/// do not come to be; and when one of them reads, it gets all of them.
#[test]
fn a_client_that_never_reads_costs_bounded_memory() {
    for threads in [1, 2] {
        let fortress = greedy_fortress(threads);
        let mut greedy: Vec<Client> = (0..4).map(|_| fortress.sidecar.client()).collect();
        // Four times 8 MiB, and what may be on its way from three nodes: 32 MiB each (`limits::READ_WINDOW_BYTES`).
        assert_little_memory(&fortress, &mut greedy, 4 * 8 + 3 * 32);
        for _ in 0..GREEDY_READS {
            let reply = greedy[0].recv().expect("a reply");
            assert!(reply == Reply::bulk(vec![b'b'; MIB as usize]));
        }
    }
}

/// The same after replies that let the sidecar expect small ones: by the time the first large one comes, all are asked for. Who
/// has too many then is disconnected.
#[test]
fn replies_larger_than_expected_cost_bounded_memory() {
    let fortress = greedy_fortress(1);
    fortress.sidecar.allow_log("does not read its replies");
    let mut greedy: Vec<Client> = (0..4).map(|_| fortress.sidecar.client()).collect();
    for client in &mut greedy {
        client
            .pipeline(&vec![cmd!["GET", "small"]; GREEDY_READS])
            .expect("replies");
    }
    // What three nodes may be asked for at once before the first large reply has come (`limits::READ_WINDOW_MAX` reads of 1 MiB each);
    // all together ask for 1600 MiB.
    assert_little_memory(&fortress, &mut greedy, 4 * 8 + 3 * 256);
}

const GREEDY_READS: usize = 400;

fn greedy_fortress(threads: usize) -> Fortress {
    let fortress = Fortress::with(|config| {
        config
            .threads(threads)
            .patient()
            .with("limits", "client_output_max = \"8MiB\"")
    });
    let mut client = fortress.sidecar.client();
    assert!(client.call(cmd!["SET", "big", vec![b'b'; MIB as usize]]).is_ok());
    assert!(client.call(cmd!["SET", "small", "s"]).is_ok());
    fortress
}

#[track_caller]
fn assert_little_memory(fortress: &Fortress, greedy: &mut [Client], grown_max: u64) {
    let before = fortress.sidecar.rss_bytes();
    let mut highest = before;
    for client in greedy {
        let asked = encode(&cmd!["GET", "big"]).repeat(GREEDY_READS);
        client.send_raw(&asked).expect("sent");
    }
    // Nothing can be waited for: that nothing happens is what is tested.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        highest = highest.max(fortress.sidecar.rss_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let grown = (highest - before) / MIB;
    assert!(
        grown <= grown_max,
        "{grown} MiB for four clients that never read, with a limit of 8 MiB each"
    );
    fortress.assert_stands("greedy clients");
}

/// The same of replies that no node makes.
#[test]
fn replies_of_the_sidecar_itself_wait_for_their_reader() {
    const ASKED: usize = 5000;
    let fortress = Fortress::with(|config| config.with("limits", "client_output_max = \"8MiB\""));
    let ask = encode(&cmd!["CONFIG", "GET", "*"]).repeat(ASKED);
    let mut client = fortress.sidecar.client();
    client
        .send_raw(&[ask, encode(&cmd!["ECHO", "end"])].concat())
        .expect("sent");
    fortress.assert_stands("a client that asks for much");
    for _ in 0..ASKED {
        let reply = client.recv().expect("a reply");
        assert!(reply.items().len() > 50, "{reply}");
    }
    assert_eq!(client.recv().expect("a reply"), Reply::bulk("end"));
}

/// As many as Redis' own default allows.
#[test]
fn ten_thousand_idle_clients() {
    const CLIENTS: usize = 10_000;
    raise_file_limit(CLIENTS as u64 + 2_000);
    let fortress = Fortress::build();
    let connect = |_| -> io::Result<Client> {
        // A burst is more than a listen queue holds: connecting waits its turn.
        let mut client = Client::try_connect(&fortress.sidecar.endpoint())?;
        client.send_raw(b"PING\r\n")?;
        Ok(client)
    };
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|at| connect(at).expect("a connection"))
        .collect();
    for client in &mut clients {
        assert_eq!(client.recv().expect("a reply"), Reply::Simple("PONG".to_owned()));
    }
    let rss = fortress.sidecar.rss_bytes() / MIB;
    assert!(rss <= 100, "{rss} MiB for {CLIENTS} idle clients");
    fortress.assert_stands("ten thousand clients");
    drop(clients);
    fortress.assert_stands("ten thousand clients that left");
}

fn raise_file_limit(wanted: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    if soft < wanted {
        assert!(
            hard >= wanted,
            "this test needs {wanted} open files, the hard limit is {hard}"
        );
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("setrlimit");
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let fortress = Fortress::with(|config| config.with("limits", "clients_max = 5"));
    let mut welcome: Vec<Client> = (0..5).map(|_| fortress.sidecar.client()).collect();
    for client in &mut welcome {
        assert_eq!(client.call(cmd!["PING"]), Reply::Simple("PONG".to_owned()));
    }
    let mut sixth = fortress.sidecar.client();
    let _ = sixth.send_raw(b"PING\r\n");
    let rest = sixth
        .read_to_close(Duration::from_secs(5))
        .expect("the sixth client is sent away");
    assert!(
        rest.starts_with(b"-ERR max number of clients reached"),
        "{:?}",
        rest.escape_ascii().to_string()
    );
    drop(welcome.pop());
    wait_until("a place becomes free", Duration::from_secs(5), || {
        let answer = Client::try_connect(&fortress.sidecar.endpoint())
            .and_then(|mut client| client.try_call(&cmd!["PING"]));
        answer.is_ok_and(|reply| reply.error().is_none())
    });
    assert_eq!(welcome[0].call(cmd!["PING"]), Reply::Simple("PONG".to_owned()));
}

#[test]
fn clients_that_vanish_in_the_middle_of_a_pipeline_leave_nothing_behind() {
    let fortress = Fortress::build();
    for round in 0..300 {
        let mut client = fortress.sidecar.client();
        let commands: Vec<u8> = (0..50)
            .flat_map(|at| encode(&cmd!["SET", format!("v{round}-{at}"), at]))
            .collect();
        client
            .send_raw(&commands[..commands.len() - 1 - round])
            .expect("sent");
        if round % 2 == 0 {
            client.send_raw(b"*1\r\n$5\r\nMULTI\r\n").unwrap_or_default();
        }
    }
    fortress.assert_stands("vanishing clients");
    crate::convergence::assert_converged(&fortress.pool, &fortress.sidecar);
}

#[test]
fn operating_commands_are_refused_with_advice() {
    let fortress = Fortress::build();
    let mut client = fortress.sidecar.client();
    let dangerous = [
        cmd!["CONFIG", "SET", "maxmemory", "1"],
        cmd!["REPLICAOF", "NO", "ONE"],
        cmd!["SLAVEOF", "127.0.0.1", "1"],
        cmd!["SHUTDOWN", "NOSAVE"],
        cmd!["DEBUG", "SEGFAULT"],
        cmd!["DEBUG", "SLEEP", "0.1"],
        cmd!["CLUSTER", "RESET"],
        cmd!["MIGRATE", "127.0.0.1", "1", "k", "0", "10"],
        cmd!["ACL", "SETUSER", "evil", "on", "nopass", "+@all"],
        cmd!["PSYNC", "?", "-1"],
        cmd!["SYNC"],
        cmd!["MODULE", "LOAD", "/tmp/x.so"],
        cmd!["FAILOVER"],
        cmd!["BGREWRITEAOF"],
        cmd!["SAVE"],
        cmd!["SELECT", 15],
        cmd!["SWAPDB", 0, 15],
        cmd!["MOVE", "hostile", 15],
        cmd!["COPY", "hostile", "copy", "DB", 15],
        cmd!["EVAL", "return redis.call('SELECT', 15)", 0],
        cmd!["EVAL", "return redis.call('FLUSHALL')", 0],
        cmd!["EVAL", "return redis.call('SWAPDB', 0, 15)", 0],
        cmd!["EVAL", "return redis.call('CONFIG', 'SET', 'maxmemory', '1')", 0],
        cmd!["MULTI", "now"],
    ];
    for command in dangerous {
        let reply = client.call(command.clone());
        let shown = crate::harness::printable(&command.join(&b' '));
        assert!(
            reply.error().is_some_and(|text| text.len() > 15),
            "{shown} answered {reply}"
        );
        fortress.assert_stands(&shown);
    }
    for node in &fortress.pool.nodes {
        let role = node.client().call(cmd!["ROLE"]).items();
        assert_eq!(
            role.first().and_then(Reply::text).as_deref(),
            Some("master"),
            "node {}",
            node.name
        );
    }
    assert!(matches!(fortress.sidecar.endpoint(), Endpoint::Tcp(_)));
}
