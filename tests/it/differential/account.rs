//! What a node's account says that its batches have touched is all that they have changed (but for what happens to consumer groups,
//! of which a server hardly tells): a node that is behind when a sidecar takes over is given just those keys.

use super::command::Ids;
use super::generate::{Shape, program};
use super::run::wire;
use crate::cmd;
use crate::convergence::{BOOKKEEPING_DB, Place};
use crate::harness::{Client, Pool, Reply, Sidecar, SidecarConfig, printable, seed, setting, wait_until};
use crate::side_by_side::words;
use ringfence::account::{TOUCHED, Touch, parse_touched};
use ringfence::ring::partition_of;
use std::collections::BTreeSet;
use std::time::Duration;

/// A pool with two copies of everything, both of which have executed what is answered; and one of its nodes, which tells of every key
/// that changes there.
struct Watched {
    sidecar: Sidecar,
    partitions: u16,
    node: Client,
    told: Client,
    _pool: Pool,
}

impl Watched {
    fn start() -> Self {
        let pool = Pool::start(2);
        let config = SidecarConfig::of(&pool, 2).threads(2);
        let sidecar = Sidecar::start(&config);
        let mut node = pool.nodes[0].client();
        assert!(node.call(cmd!["SELECT", BOOKKEEPING_DB]).is_ok());
        let mut told = pool.nodes[0].client();
        told.call(cmd!["HELLO", 3]);
        assert!(
            told.call(cmd!["CONFIG", "SET", "notify-keyspace-events", "KA"])
                .is_ok()
        );
        told.call(cmd!["PSUBSCRIBE", "__keyspace@*"]);
        Self {
            sidecar,
            partitions: config.partitions as u16,
            node,
            told,
            _pool: pool,
        }
    }

    /// The keys that have changed since that was last asked.
    fn changed(&mut self) -> BTreeSet<Place> {
        let mut changed = BTreeSet::new();
        let mut reply = self.told.call(cmd!["PING"]);
        while let Reply::Push(push) = &reply {
            changed.extend(push.get(2).and_then(Reply::bytes).and_then(place_of));
            reply = self.told.recv().expect("the node answers");
        }
        changed.retain(|(db, _)| *db != BOOKKEEPING_DB);
        changed
    }

    /// Forgets what has been.
    fn forget(&mut self) {
        self.changed();
        self.node.call(cmd!["DEL", TOUCHED.to_vec()]);
    }

    /// Every key that has changed since is named.
    #[track_caller]
    fn check(&mut self, what: &str) {
        let mut unnamed = self.changed();
        let batches = self.node.call(cmd!["HGETALL", TOUCHED.to_vec()]).items();
        let batches = batches.chunks(2).filter_map(|pair| pair[1].bytes());
        for record in batches.flat_map(|records| parse_touched(records).expect("records")) {
            match record.what {
                Touch::Nothing => {}
                Touch::Key(key) => drop(unnamed.remove(&(usize::from(record.db), key))),
                Touch::Partition => {
                    unnamed.retain(|(_, key)| partition_of(key, self.partitions) != record.partition);
                }
            }
        }
        let unnamed: Vec<_> = unnamed.iter().map(|(db, key)| (db, printable(key))).collect();
        assert!(
            unnamed.is_empty(),
            "{what} has changed keys that are not named: {unnamed:?}"
        );
    }
}

/// The database and the key of `__keyspace@<db>__:<key>`.
fn place_of(channel: &[u8]) -> Option<Place> {
    let rest = channel.strip_prefix(b"__keyspace@")?;
    let end = rest.windows(3).position(|part| part == b"__:")?;
    let db = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((db, rest[end + 3..].to_vec()))
}

#[test]
fn what_random_programs_change_is_named() {
    let mut watched = Watched::start();
    let mut client = watched.sidecar.client();
    let first = seed();
    for at in 0..setting("PROGRAMS", 20) as u64 / 4 {
        let seed = first + at;
        let shape = Shape {
            client: 0,
            commands: setting("COMMANDS", 400),
            resp3: false,
            alone: false,
            flush: false,
        };
        for step in program(seed, shape).steps {
            watched.forget();
            let sent = client.send_raw(&wire(&step, &Ids::default()));
            sent.expect("the pool takes commands");
            for command in &step {
                client
                    .recv()
                    .unwrap_or_else(|e| panic!("SEED={seed}: {command:?}: {e}"));
            }
            watched.check(&format!("SEED={seed}: {step:?}"));
        }
        client.call(cmd!["RESET"]);
    }
}

#[test]
fn what_is_copied_to_another_database_is_named() {
    let mut watched = Watched::start();
    let mut client = watched.sidecar.client();
    client.call(cmd!["SET", "{t}a", 1]);
    for lines in [
        "COPY {t}a {t}b DB 2",
        "COPY {t}a {t}a DB 3 REPLACE",
        "COPY {t}a b REPLACE DB 2",
        "COPY {t}a {t}b",
        "MULTI;COPY {t}a {t}c DB 2;EXEC",
    ] {
        watched.forget();
        for line in lines.split(';') {
            let reply = client.call(words(line));
            assert!(reply.error().is_none(), "{line}: {reply}");
        }
        watched.check(lines);
    }
}

#[test]
fn what_is_done_for_clients_that_wait_is_named() {
    let mut watched = Watched::start();
    let mut other = watched.sidecar.client();
    for (command, bring) in [
        ("BLPOP {t}l 0", "RPUSH {t}l a b"),
        ("BRPOP {t}l 0", "RPUSH {t}l a b"),
        ("BLMOVE {t}l {t}m LEFT RIGHT 0", "RPUSH {t}l a b"),
        ("BRPOPLPUSH {t}l {t}m 0", "RPUSH {t}l a b"),
        ("BLMOVE l m LEFT RIGHT 0", "RPUSH l a b"),
        (
            "BLMOVE {t}l {t}m LEFT RIGHT 0",
            "EVAL redis.call('RPUSH',KEYS[1],1) 1 {t}l",
        ),
        ("BLMPOP 0 2 {t}l {u}l LEFT", "RPUSH {u}l a b"),
        ("BZPOPMIN {t}z 0", "ZADD {t}z 1 a 2 b"),
        ("BZMPOP 0 2 {t}z {u}z MIN", "ZADD {u}z 1 a 2 b"),
    ] {
        for waits in [true, false] {
            let mut waiter = watched.sidecar.client();
            let lines = match waits {
                true => [command, bring],
                false => [bring, command],
            };
            watched.forget();
            waiter
                .send_raw(&crate::harness::encode(&words(lines[0])))
                .unwrap();
            if waits {
                wait_until("a client waits", Duration::from_secs(5), || {
                    let info = other.call(cmd!["INFO", "clients"]).text().unwrap();
                    info.contains("blocked_clients:1\r\n")
                });
            } else {
                waiter.recv().unwrap();
            }
            other.call(words(lines[1]));
            if waits {
                let reply = waiter.recv().unwrap();
                assert!(!reply.is_nil() && reply.error().is_none(), "{command}: {reply}");
            }
            watched.check(&format!("{} and {}", lines[0], lines[1]));
            other.call(cmd!["DEL", "l", "m", "{t}l", "{t}m", "{u}l", "{t}z", "{u}z"]);
        }
    }
}
