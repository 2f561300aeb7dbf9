//! A second sidecar on the same pool: it takes over, and the first one can acknowledge nothing any more.

use super::history::{History, Message, Sent};
use super::workload::Workload;
use super::{RECOVERY_MAX, wait_progress};
use crate::cmd;
use crate::convergence::assert_converged;
use crate::harness::{Client, Flow, NodeEntry, Pool, Relay, Reply, Sidecar, SidecarConfig, seed, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the first sidecar's clients were told, with the time of each acknowledgement.
struct Told {
    history: History,
    acknowledged_at: Vec<(Instant, Message)>,
}

fn produce(sidecar: &Sidecar, producer: usize, stop: &AtomicBool) -> Told {
    let mut told = Told {
        history: History::default(),
        acknowledged_at: Vec::new(),
    };
    let mut client: Option<Client> = None;
    let mut counter = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(open) = client
            .take()
            .map_or_else(|| Client::try_connect(&sidecar.endpoint()), Ok)
        else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let open = client.insert(open);
        counter += 1;
        let message = Message { producer, counter };
        let mut sent = Sent::default();
        match open.try_call(&cmd!["RPUSH", "fenced", message.to_string()]) {
            Ok(Reply::Error(_)) => std::thread::sleep(Duration::from_millis(2)),
            Ok(_) => {
                sent.acknowledged = true;
                told.acknowledged_at.push((Instant::now(), message));
            }
            Err(_) => {
                sent.unknown = 1;
                client = None;
            }
        }
        told.history.sent.insert(message, sent);
    }
    told
}

#[test]
fn a_second_sidecar_fences_the_first() {
    let seed = seed();
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3);
    let first = Sidecar::start(&config);
    // The first one may log what it likes about losing its pool, and may end.
    first.allow_log("");
    first.allow_log("exit");
    let stop = AtomicBool::new(false);
    let (second, taken_at, told) = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..3)
            .map(|at| {
                scope.spawn({
                    let (first, stop) = (&first, &stop);
                    move || produce(first, at, stop)
                })
            })
            .collect();
        let work = || first.client().call(cmd!["LLEN", "fenced"]).int() > Some(200);
        wait_until("the first sidecar works", RECOVERY_MAX, work);
        let second = Sidecar::start(&config);
        let taken_at = Instant::now();
        second.allow_log("took over");
        // The new owner's clients work at the same time.
        let workload = Workload::start(&second.endpoint(), seed);
        // What the first one could still do wrong, it does before it ends.
        let status = first.wait_exit(RECOVERY_MAX);
        assert_eq!(status.code(), Some(3), "it says that it was fenced");
        wait_progress(&workload);
        stop.store(true, Ordering::Relaxed);
        let told: Vec<Told> = producers
            .into_iter()
            .map(|thread| thread.join().expect("a producer"))
            .collect();
        workload.finish(&second.endpoint()).check(seed);
        (second, taken_at, told)
    });
    let mut history = History::default();
    for told in told {
        assert!(!told.acknowledged_at.is_empty(), "the first sidecar never worked");
        let late: Vec<_> = told
            .acknowledged_at
            .iter()
            .filter(|(at, _)| *at > taken_at)
            .map(|(_, message)| message)
            .collect();
        assert!(
            late.is_empty(),
            "SEED={seed}: acknowledged by a sidecar that was fenced: {late:?}"
        );
        history.sent.extend(told.history.sent);
    }
    let all = second.client().call(cmd!["LRANGE", "fenced", 0, -1]).items();
    history.received = all
        .iter()
        .map(|item| Message::parse(&item.text().expect("text")).expect("a message"))
        .collect();
    assert_eq!(history.violations(), Vec::<String>::new(), "SEED={seed}");
    assert_converged(&pool, &second);
}

#[test]
fn a_hanging_sidecar_that_wakes_up_after_a_takeover_harms_nothing() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3);
    let first = Sidecar::start(&config);
    first.allow_log("");
    first.allow_log("exit");
    let mut old = first.client();
    assert_eq!(old.call(cmd!["INCR", "n"]), Reply::Int(1));
    first.stop();
    // Waits in the hanging sidecar's socket until it wakes up.
    old.send_raw(b"INCR n\r\n").expect("sent");
    let second = Sidecar::start(&config);
    second.allow_log("took over");
    let mut new = second.client();
    assert_eq!(new.call(cmd!["INCR", "n"]), Reply::Int(2));
    first.cont();
    // An error or a hang-up; an acknowledgement would be a lie, a stale read as well.
    match old.recv() {
        Ok(Reply::Error(_)) | Err(_) => {}
        Ok(reply) => panic!("the fenced sidecar answered {reply}"),
    }
    assert_eq!(new.call(cmd!["GET", "n"]), Reply::bulk("2"));
    if let Ok(mut old) = Client::try_connect(&first.endpoint())
        && let Ok(reply) = old.try_call(&cmd!["GET", "n"])
    {
        assert!(
            reply.error().is_some() || reply == Reply::bulk("2"),
            "a stale read: {reply}"
        );
    }
    assert_converged(&pool, &second);
}

/// A node that lacks a command is given what that changed when the next sidecar starts: all of it. Of commands that may wait, too, which
/// are ordered in another form than they are sent.
#[test]
fn a_node_that_lacks_a_move_is_given_both_its_keys() {
    for moving in [
        cmd!["LMOVE", "{q}", "{q}:doing", "RIGHT", "LEFT"],
        cmd!["RPOPLPUSH", "{q}", "{q}:doing"],
        cmd!["BLMOVE", "{q}", "{q}:doing", "RIGHT", "LEFT", 0],
        cmd!["BRPOPLPUSH", "{q}", "{q}:doing", 0],
    ] {
        let pool = Pool::start(3);
        let relay = Relay::start(&pool.nodes[2].endpoint());
        let mut config = SidecarConfig::of(&pool, 3);
        config.nodes[2] = NodeEntry {
            address: relay.endpoint().to_string(),
            ..config.nodes[2].clone()
        };
        let sidecar = Sidecar::start(&config);
        sidecar.allow_log("node");
        sidecar.allow_log("took over");
        let mut client = sidecar.client();
        client.call(cmd!["RPUSH", "{q}", "job"]);
        assert_converged(&pool, &sidecar);
        relay.set(Flow::Cut);
        assert_eq!(client.call(moving.clone()), Reply::bulk("job"));
        sidecar.kill9();
        relay.set(Flow::Pass);
        sidecar.restart();
        sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
        let mut late = pool.nodes[2].client();
        let doing = late.call(cmd!["LRANGE", "{q}:doing", 0, -1]).items();
        assert_eq!(doing, [Reply::bulk("job")], "after {:?}", moving[0]);
        assert_converged(&pool, &sidecar);
    }
}

/// Both copies of some partitions are gone: nothing can bring them back, and that is said.
#[test]
fn what_is_lost_for_good_is_said() {
    let pool = Pool::start(5);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2));
    let mut client = sidecar.client();
    for n in 0..200 {
        assert!(client.call(cmd!["SET", format!("key:{n}"), n]).is_ok());
    }
    sidecar.kill9();
    sidecar.restart();
    assert!(!sidecar.log().contains("are lost"));
    sidecar.kill9();
    for node in &pool.nodes[..2] {
        node.restart_empty();
    }
    sidecar.allow_log("node");
    sidecar.allow_log("acknowledged writes are lost");
    sidecar.allow_log("acknowledged writes may be lost");
    sidecar.restart();
    assert!(sidecar.log().contains("acknowledged writes are lost"));
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    let mut client = sidecar.client();
    let found = (0..200).filter(|n| !client.call(cmd!["GET", format!("key:{n}")]).is_nil());
    let found = found.count();
    assert!((100..200).contains(&found), "{found} of 200");
    assert_converged(&pool, &sidecar);
}

/// One node has what was acknowledged last and is away, one has lost its data, and the third was behind: who is away is waited for.
#[test]
fn who_has_lost_its_data_does_not_speak_for_who_is_away() {
    let pool = Pool::start(3);
    let relay = Relay::start(&pool.nodes[0].endpoint());
    let mut config = SidecarConfig::of(&pool, 3);
    config.nodes[0] = NodeEntry {
        address: relay.endpoint().to_string(),
        ..config.nodes[0].clone()
    };
    let sidecar = Sidecar::start(&config);
    sidecar.allow_log("");
    let mut client = sidecar.client();
    assert!(client.call(cmd!["SET", "key", "before"]).is_ok());
    relay.set(Flow::Cut);
    assert!(client.call(cmd!["SET", "key", "acknowledged"]).is_ok());
    sidecar.kill9();
    relay.set(Flow::Pass);
    pool.nodes[1].restart_empty();
    pool.nodes[2].kill9();
    let sidecar = Sidecar::spawn(&config);
    sidecar.allow_log("");
    wait_until("it says what it waits for", Duration::from_secs(15), || {
        sidecar.log().contains("1 of 3 nodes still know the pool")
    });
    pool.nodes[2].restart();
    sidecar.wait_ready();
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["GET", "key"]), Reply::bulk("acknowledged"));
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &sidecar);
    // That it was emptied stays known, so that a take-over that is cut short is no different; of what it was given it can tell.
    let mut emptied = pool.nodes[1].client();
    emptied.call(cmd!["SELECT", 15]);
    assert_eq!(emptied.call(cmd!["GET", "rf:forgot"]), Reply::bulk("1"));
    sidecar.kill9();
    pool.nodes[2].kill9();
    sidecar.restart();
    let mut client = sidecar.client();
    assert_eq!(client.call(cmd!["GET", "key"]), Reply::bulk("acknowledged"));
}

/// The same in a pool that is larger than its sets: most nodes still know the pool, but of some partitions nobody there can tell what was last.
#[test]
fn of_some_partitions_nobody_can_tell() {
    let pool = Pool::start(5);
    let sidecar = Sidecar::start(&SidecarConfig::of(&pool, 2));
    sidecar.allow_log("");
    let mut client = sidecar.client();
    for n in 0..100 {
        assert!(client.call(cmd!["SET", format!("key:{n}"), n]).is_ok());
    }
    sidecar.kill9();
    pool.nodes[0].restart_empty();
    pool.nodes[1].kill9();
    let sidecar = Sidecar::spawn(&SidecarConfig::of(&pool, 2));
    sidecar.allow_log("");
    wait_until("it says what it waits for", Duration::from_secs(15), || {
        sidecar.log().contains("can be reached and have their data")
    });
    pool.nodes[1].restart();
    sidecar.wait_ready();
    let mut client = sidecar.client();
    for n in 0..100 {
        assert_eq!(
            client.call(cmd!["GET", format!("key:{n}")]),
            Reply::bulk(n.to_string())
        );
    }
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &sidecar);
}
