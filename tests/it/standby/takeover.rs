//! Whatever becomes of sidecars, what was acknowledged stays, and somebody serves; and nobody takes over without a reason.

use super::{Group, SERVED_WITHIN, allow_changes};
use crate::cmd;
use crate::convergence::assert_converged;
use crate::faults::{RECOVERY_MAX, workload::Workload};
use crate::harness::{
    Client, Endpoint, Flow, Pool, Relay, Rng, Sidecar, SidecarConfig, seed, wait_for, wait_until,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// All clients' work, through all sidecars.
fn work(group: &Group, seed: u64) -> Workload {
    let endpoints: Vec<Endpoint> = group.sidecars.iter().map(Sidecar::endpoint).collect();
    Workload::start_at(&endpoints, seed)
}

#[track_caller]
fn wait_progress(workload: &Workload) {
    let before = workload.acknowledged();
    wait_until("clients get work done", SERVED_WITHIN, || {
        workload.acknowledged() > before + 200
    });
}

#[track_caller]
fn finish(group: &Group, workload: Workload, seed: u64) -> Duration {
    let active = group.active();
    active.wait_all_in_sync(&group.pool, RECOVERY_MAX);
    wait_progress(&workload);
    let outcome = workload.finish(&active.endpoint());
    outcome.check(seed);
    assert_converged(&group.pool, active);
    outcome.longest_gap
}

#[test]
fn of_many_that_start_at_once_one_serves() {
    let group = Group::start(5);
    assert_eq!(group.term(), 1, "more than one has taken the pool");
    assert_eq!(group.standing_by().len(), 4);
    for sidecar in &group.sidecars {
        assert!(sidecar.client().call(cmd!["RPUSH", "q", "x"]).int().is_some());
    }
}

#[test]
fn one_that_is_killed_is_replaced_again_and_again() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let group = Group::start(3);
    let workload = work(&group, seed);
    for _ in 0..3 {
        wait_progress(&workload);
        let term = group.term();
        let active = group.active();
        active.kill9();
        let served = Instant::now();
        wait_until("another one serves", SERVED_WITHIN, || {
            group.sidecars.iter().any(Sidecar::serves)
        });
        eprintln!("served again after {:?}", served.elapsed());
        assert_eq!(group.term(), term + 1, "more than one has taken the pool over");
        std::thread::sleep(Duration::from_millis(rng.between(0, 300) as u64));
        // It stands by from now on.
        active.restart();
        assert!(!active.serves(), "it has taken the pool back");
        assert_eq!(group.term(), term + 1);
    }
    let gap = finish(&group, workload, seed);
    eprintln!("the longest that a client has waited: {gap:?}");
}

#[test]
fn one_that_is_told_to_end_is_replaced() {
    let seed = seed();
    let group = Group::start(3);
    let workload = work(&group, seed);
    // Each of them once: a new version is installed.
    for sidecar in &group.sidecars {
        wait_progress(&workload);
        sidecar.terminate();
        sidecar.restart();
    }
    finish(&group, workload, seed);
}

#[test]
fn one_that_hangs_is_replaced_and_stands_by_when_it_wakes_up() {
    let seed = seed();
    let group = Group::with(3, |config, _| config.with("timeouts", "takeover = \"2s\""));
    let workload = work(&group, seed);
    wait_progress(&workload);
    let (hung, term) = (group.active(), group.term());
    hung.stop();
    let others: Vec<&Sidecar> = group
        .sidecars
        .iter()
        .filter(|s| !std::ptr::eq(*s, hung))
        .collect();
    wait_until("another one serves", SERVED_WITHIN, || {
        others.iter().any(|sidecar| sidecar.serves())
    });
    wait_until("clients of both are served", SERVED_WITHIN, || {
        let is_served = |sidecar: &&Sidecar| {
            let client = Client::try_connect(&sidecar.endpoint());
            client.is_ok_and(|mut client| {
                client
                    .try_call(&cmd!["SET", "k", "v"])
                    .is_ok_and(|reply| reply.is_ok())
            })
        };
        others.iter().all(is_served)
    });
    hung.cont();
    wait_until("it stands by", SERVED_WITHIN, || hung.ready() && !hung.serves());
    assert!(hung.exited().is_none());
    wait_progress(&workload);
    assert_eq!(group.term(), term + 1);
    assert!(hung.client().call(cmd!["SET", "k", "v"]).is_ok());
    finish(&group, workload, seed);
}

#[test]
fn nobody_takes_over_for_the_sake_of_nodes_that_come_and_go() {
    let seed = seed();
    let group = Group::start(2);
    let workload = work(&group, seed);
    let term = group.term();
    for node in &group.pool.nodes {
        wait_progress(&workload);
        node.restart();
        group.active().wait_all_in_sync(&group.pool, RECOVERY_MAX);
    }
    // All of them at once.
    for node in &group.pool.nodes {
        node.kill9();
    }
    for node in &group.pool.nodes {
        node.restart();
    }
    wait_progress(&workload);
    assert_eq!(group.term(), term, "somebody has taken the pool over");
    finish(&group, workload, seed);
}

#[test]
fn nobody_takes_over_from_one_that_has_nothing_to_do() {
    let group = Group::with(3, |config, _| config.with("timeouts", "takeover = \"2s\""));
    let term = group.term();
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        assert_eq!(group.term(), term, "somebody has taken the pool over");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn one_that_is_only_cut_off_from_the_active_one_waits() {
    let relays = [Relay::start(&placeholder()), Relay::start(&placeholder())];
    let pool = Pool::start(3);
    let start = |relay: &Relay| {
        let advertise = format!("advertise = \"{}\"", relay.endpoint());
        let config = SidecarConfig::of(&pool, 3)
            .standing_by()
            .with("listen", &advertise);
        let sidecar = Sidecar::spawn(&config);
        relay.point_to(&sidecar.peer_endpoint());
        sidecar
    };
    let sidecars: Vec<Sidecar> = relays.iter().map(start).collect();
    for sidecar in &sidecars {
        allow_changes(sidecar);
        sidecar.wait_ready();
    }
    let group = Group { pool, sidecars };
    let (term, other) = (group.term(), group.standing_by()[0]);
    wait_until("clients are passed on", SERVED_WITHIN, || {
        other.client().call(cmd!["SET", "k", "v"]).is_ok()
    });
    for relay in &relays {
        relay.set(Flow::Cut);
    }
    // It is there, its nodes say: taking over would only cut its clients off instead.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(group.term(), term);
        let said = Client::connect(&other.endpoint()).try_call(&cmd!["GET", "k"]);
        let is_refused = said.as_ref().is_ok_and(|reply| {
            let error = reply.error().unwrap_or_default();
            error.contains("LOADING") && error.contains("cannot be reached from here")
        });
        assert!(is_refused || said.is_err(), "{said:?}");
    }
    assert_eq!(
        group.active().client().call(cmd!["GET", "k"]).text().as_deref(),
        Some("v")
    );
    for relay in &relays {
        relay.set(Flow::Pass);
    }
    wait_until("clients are passed on", SERVED_WITHIN, || {
        other.client().call(cmd!["GET", "k"]).text().as_deref() == Some("v")
    });
    assert_eq!(group.term(), term);
}

/// Whether that is what a client is told which is not served.
fn says(sidecar: &Sidecar, why: &str) -> bool {
    let client = Client::try_connect(&sidecar.endpoint());
    let said = client.and_then(|mut client| client.try_call(&cmd!["GET", "k"]));
    let is_it = |error: &str| error.contains("LOADING") && error.contains(why);
    said.is_ok_and(|reply| reply.error().is_some_and(is_it))
}

fn placeholder() -> Endpoint {
    Endpoint::Tcp(([127, 0, 0, 1], 1).into())
}

#[test]
fn one_without_a_port_for_others_takes_the_pool_all_the_same() {
    let group = Group::start(2);
    let alone = Sidecar::start(&SidecarConfig::of(&group.pool, 3));
    let warning = "this sidecar has no listen.peer, and has taken the pool";
    wait_until("it says what it has done", SERVED_WITHIN, || {
        alone.log().contains(warning)
    });
    alone.allow_log(warning);
    allow_changes(&alone);
    assert!(alone.client().call(cmd!["SET", "k", "v"]).is_ok());
    for sidecar in &group.sidecars {
        wait_until("its clients are told why", SERVED_WITHIN, || {
            says(sidecar, "listen.peer")
        });
        assert!(sidecar.exited().is_none());
    }
    // When it has gone, the others serve again.
    alone.kill9();
    assert_eq!(
        group.active().client().call(cmd!["GET", "k"]).text().as_deref(),
        Some("v")
    );
}

#[test]
fn one_with_other_settings_says_so_at_once() {
    let group = Group::start(1);
    let mut config = SidecarConfig::of(&group.pool, 3).standing_by();
    config.partitions = 32;
    let other = Sidecar::spawn(&config);
    other.allow_log("exit");
    let status = other.wait_exit(SERVED_WITHIN);
    assert_eq!(status.code(), Some(1));
    assert!(
        other.log().contains("pool.partitions is 32 in proxy.toml"),
        "{}",
        other.log()
    );
}

#[test]
fn nodes_that_were_added_are_known_to_who_stands_by() {
    let mut group = Group::start(2);
    let added: Vec<_> = (0..3)
        .map(|_| group.pool.start_another().endpoint().to_string())
        .collect();
    let active = group.active();
    for (at, address) in added.iter().enumerate() {
        let body = serde_json::json!({"name": format!("added{at}"), "address": address});
        let (status, said) = active.ask("POST", "/v1/nodes", &body);
        assert!((200..300).contains(&status), "{said}");
    }
    active.wait_settled(RECOVERY_MAX);
    for i in 0..50 {
        assert!(active.client().call(cmd!["SET", format!("k{i}"), i]).is_ok());
    }
    // Who stands by hears of them within a few seconds. Then all that proxy.toml names go.
    std::thread::sleep(Duration::from_secs(4));
    for gone in &group.pool.nodes[..3] {
        active.ask(
            "POST",
            &format!("/v1/nodes/{}/drain", gone.name),
            &serde_json::Value::Null,
        );
        active.wait_settled(RECOVERY_MAX);
        // That it holds nothing any more may not be recorded yet.
        wait_until("it is removed", RECOVERY_MAX, || {
            let path = format!("/v1/nodes/{}", gone.name);
            active.ask("DELETE", &path, &serde_json::Value::Null).0 == 200
        });
        gone.kill9();
    }
    let other = group.standing_by()[0];
    // Also to who wakes up when another one has taken over.
    for (hung, other) in [(active, other), (other, active)] {
        hung.stop();
        wait_until("the other one serves", SERVED_WITHIN, || other.serves());
        hung.cont();
        wait_until("it stands by", SERVED_WITHIN, || hung.ready() && !hung.serves());
    }
    active.kill9();
    wait_until("the other one serves", SERVED_WITHIN, || other.serves());
    for i in 0..50 {
        assert_eq!(
            other.client().call(cmd!["GET", format!("k{i}")]).text(),
            Some(i.to_string())
        );
    }
}

#[test]
fn too_few_nodes_are_no_reason_to_take_over() {
    let pool = Pool::start(3);
    let config = SidecarConfig::of(&pool, 3).standing_by();
    let active = Sidecar::start(&config);
    let other = Sidecar::start(&config);
    for sidecar in [&active, &other] {
        allow_changes(sidecar);
    }
    pool.nodes[0].kill9();
    pool.nodes[1].kill9();
    active.kill9();
    wait_until("clients are told why", SERVED_WITHIN, || {
        says(&other, "1 of 3 nodes answer")
    });
    pool.nodes[0].restart();
    wait_until("the other one serves", SERVED_WITHIN, || other.serves());
    assert!(other.client().call(cmd!["SET", "k", "v"]).is_ok());
}

/// Who serves does without a node that has become something else; so does who takes over.
#[test]
fn an_unfit_node_does_not_keep_the_others_from_being_served() {
    let other_pool = Pool::start(1);
    let foreign = Sidecar::start(&SidecarConfig::of(&other_pool, 1));
    assert!(foreign.ready());
    let relay = Relay::start(&placeholder());
    let pool = Pool::start(3);
    relay.point_to(&pool.nodes[2].endpoint());
    let mut config = SidecarConfig::of(&pool, 3).standing_by();
    config.nodes[2].address = relay.endpoint().to_string();
    let (active, other) = (Sidecar::start(&config), Sidecar::start(&config));
    for sidecar in [&active, &other] {
        allow_changes(sidecar);
    }
    assert!(active.client().call(cmd!["SET", "k", "v"]).is_ok());
    // The third node's address leads to a node of another pool.
    relay.point_to(&other_pool.nodes[0].endpoint());
    relay.set(Flow::Cut);
    relay.set(Flow::Pass);
    wait_until("the third node is unfit", RECOVERY_MAX, || {
        active.node_state("c") == "unfit"
    });
    active.kill9();
    wait_until("the other one serves", SERVED_WITHIN, || other.serves());
    let mut client = other.client();
    assert_eq!(client.call(cmd!["GET", "k"]).text().as_deref(), Some("v"));
    assert!(client.call(cmd!["SET", "k", "w"]).is_ok());
    assert_eq!(other.node_state("c"), "unfit");
    relay.point_to(&pool.nodes[2].endpoint());
    other.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert_converged(&pool, &other);
}

/// Clients that come and go, and are not served, keep nobody from looking.
#[test]
fn one_that_hangs_is_replaced_while_clients_come_and_go() {
    let group = Group::with(2, |config, _| config.with("timeouts", "takeover = \"2s\""));
    let (hung, other) = (group.active(), group.standing_by()[0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let client = Client::try_connect(&other.endpoint());
                    drop(client.and_then(|mut client| {
                        client.set_timeout(Duration::from_millis(30))?;
                        client.try_call(&cmd!["PING"])
                    }));
                }
            });
        }
        hung.stop();
        let began = Instant::now();
        let served = wait_for(SERVED_WITHIN, || other.serves().then_some(()));
        stop.store(true, Ordering::Relaxed);
        hung.cont();
        assert!(served.is_some(), "nobody has taken over");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "it took {took:?}");
    });
}

/// What the active sidecar waits for, an operator decides; not another sidecar.
#[test]
fn nodes_that_have_forgotten_are_no_reason_to_take_over() {
    let group = Group::start(2);
    let (active, other) = (group.active(), group.standing_by()[0]);
    assert!(active.client().call(cmd!["SET", "k", "v"]).is_ok());
    for node in &group.pool.nodes[..2] {
        node.kill9();
    }
    for node in &group.pool.nodes[..2] {
        node.restart_empty();
    }
    wait_until("it says what it waits for", RECOVERY_MAX, || {
        active.node("a")["reason"]
            .to_string()
            .contains("it may have forgotten")
    });
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        assert!(active.serves() && !other.serves(), "the other one has taken over");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The one that is told to end gives way.
    active.terminate();
    wait_until("the other one serves", SERVED_WITHIN, || other.serves());
    assert_eq!(other.client().call(cmd!["GET", "k"]).text().as_deref(), Some("v"));
    other.allow_log("lost");
}

/// `proxy.toml` says where nodes are.
#[test]
fn nodes_that_have_moved_are_looked_at_where_they_are() {
    let pool = Pool::start(3);
    let relays: Vec<Relay> = pool
        .nodes
        .iter()
        .map(|node| Relay::start(&node.endpoint()))
        .collect();
    let mut config = SidecarConfig::of(&pool, 3).standing_by();
    for (node, relay) in config.nodes.iter_mut().zip(&relays) {
        node.address = relay.endpoint().to_string();
    }
    let before = Sidecar::start(&config);
    assert!(before.client().call(cmd!["SET", "k", "v"]).is_ok());
    before.kill9();
    for relay in &relays {
        relay.set(Flow::Cut);
    }
    let config = SidecarConfig::of(&pool, 3).standing_by();
    let group = Group {
        sidecars: (0..2).map(|_| Sidecar::spawn(&config)).collect(),
        pool,
    };
    for sidecar in &group.sidecars {
        allow_changes(sidecar);
        sidecar.wait_ready();
        assert_eq!(
            sidecar.client().call(cmd!["GET", "k"]).text().as_deref(),
            Some("v")
        );
    }
}

#[test]
fn one_with_another_bookkeeping_database_says_so() {
    let group = Group::start(1);
    let config = SidecarConfig::of(&group.pool, 3).standing_by();
    let other = Sidecar::spawn(&config.with("pool", "bookkeeping_db = 14"));
    allow_changes(&other);
    wait_until("clients are told why", SERVED_WITHIN, || {
        says(&other, "pool.bookkeeping_db")
    });
    assert!(other.exited().is_none() && group.active().serves());
}

/// A client that is passed on stays where it is while its sidecar only seems to be away.
#[test]
fn a_link_that_hangs_for_a_while_cuts_nobody_off() {
    let relay = Relay::start(&placeholder());
    let pool = Pool::start(3);
    let advertise = format!("advertise = \"{}\"", relay.endpoint());
    let config = SidecarConfig::of(&pool, 3).standing_by();
    let active = Sidecar::spawn(&config.clone().with("listen", &advertise));
    relay.point_to(&active.peer_endpoint());
    active.wait_ready();
    let other = Sidecar::start(&config);
    for sidecar in [&active, &other] {
        allow_changes(sidecar);
    }
    let mut client = other.client();
    assert!(client.call(cmd!["SET", "k", "v"]).is_ok());
    relay.set(Flow::HangBoth);
    client.send_raw(b"GET k\r\n").unwrap();
    wait_until("it is noticed", SERVED_WITHIN, || !other.ready());
    relay.set(Flow::Pass);
    assert_eq!(client.recv().unwrap().text().as_deref(), Some("v"));
    wait_until("clients are passed on again", SERVED_WITHIN, || other.ready());
    assert!(active.serves());
}

/// Claiming nodes that are far away takes longer than looking at them.
#[test]
fn one_of_many_gets_on_where_nodes_are_far_away() {
    let pool = Pool::start(3);
    let relays: Vec<Relay> = pool
        .nodes
        .iter()
        .map(|node| Relay::start(&node.endpoint()))
        .collect();
    let mut config = SidecarConfig::of(&pool, 3).standing_by();
    for (node, relay) in config.nodes.iter_mut().zip(&relays) {
        node.address = relay.endpoint().to_string();
    }
    let sidecars: Vec<Sidecar> = (0..5).map(|_| Sidecar::start(&config)).collect();
    sidecars.iter().for_each(allow_changes);
    let group = Group { pool, sidecars };
    for relay in &relays {
        relay.set(Flow::Slow(Duration::from_millis(20)));
    }
    for _ in 0..2 {
        let (active, term) = (group.active(), group.term());
        active.kill9();
        let others = || {
            group
                .sidecars
                .iter()
                .filter(|sidecar| !std::ptr::eq(*sidecar, active))
        };
        wait_until("another one serves", SERVED_WITHIN, || {
            others().any(Sidecar::serves)
        });
        wait_until("the others stand by", SERVED_WITHIN, || {
            others().all(Sidecar::ready)
        });
        assert!(group.term() <= term + 2, "term {} after {term}", group.term());
        active.launch();
        active.wait_ready();
    }
}
