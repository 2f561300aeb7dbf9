//! What is no reason to take over: it would cost all clients their connections.

use super::*;

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
