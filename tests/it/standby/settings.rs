//! Sidecars of one pool whose `proxy.toml`s differ.

use super::*;

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
    // Its last words may still be on their way.
    wait_until("it says why", SERVED_WITHIN, || {
        other.log().contains("pool.partitions is 32 in proxy.toml")
    });
}

/// `proxy.toml` says where nodes are.
#[test]
fn nodes_that_have_moved_are_looked_at_where_they_are() {
    let pool = Pool::start(3);
    let (relays, config) = SidecarConfig::of(&pool, 3).standing_by().behind_relays(&pool);
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
