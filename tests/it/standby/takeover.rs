//! Whatever becomes of sidecars, what was acknowledged stays, and somebody serves.

use super::*;

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
    // Who stands by hears of them, and looks at them. Then all that proxy.toml names go.
    for node in &group.pool.nodes[3..] {
        wait_until("the standby looks at it", SERVED_WITHIN, || {
            let list = node.client().call(cmd!["CLIENT", "LIST"]).text().expect("a list");
            // This client is one.
            list.matches(" user=default ").count() > 1
        });
    }
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

/// Claiming nodes that are far away takes longer than looking at them.
#[test]
fn one_of_many_gets_on_where_nodes_are_far_away() {
    let pool = Pool::start(3);
    let (relays, config) = SidecarConfig::of(&pool, 3).standing_by().behind_relays(&pool);
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
