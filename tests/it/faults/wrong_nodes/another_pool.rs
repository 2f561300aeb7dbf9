//! A known address where a server with somebody else's data listens. It is neither written to nor read from.

use super::*;
use crate::harness::{Client, Reply, seed};
use tempfile::TempDir;

/// What would read or change data, or make users.
const TOUCHING: [&str; 12] = [
    "set",
    "rpush",
    "lpop",
    "incr",
    "hset",
    "hdel",
    "del",
    "unlink",
    "exec",
    "flushall",
    "flushdb",
    "acl|setuser",
];

/// Everything a server has, in all databases.
fn digest(client: &mut Client) -> String {
    client.call(cmd!["DEBUG", "DIGEST"]).to_string()
}

/// The files that `make` leaves on a server, and what their contents are.
fn files_of(make: impl FnOnce(&Pool)) -> (TempDir, String) {
    let other = Pool::start(1);
    make(&other);
    let digest = digest(&mut other.nodes[0].client());
    other.nodes[0].kill9();
    (other.nodes[0].keep_files(), digest)
}

/// The second node's server has these files for a while.
fn with_foreign_files(files: &TempDir, digest_before: &str, word: &str) {
    let seed = seed();
    let pool = Pool::start(3);
    let (sidecar, workload) = under_load(&pool, &SidecarConfig::of(&pool, 3), seed);
    let node = &pool.nodes[1];
    node.kill9();
    let own = node.keep_files();
    node.put_files(files);
    node.restart();
    wait_said(&sidecar, "b", "unfit", word);
    wait_progress(&workload);
    let mut client = node.client();
    let stats = client.call(cmd!["INFO", "commandstats"]).text().expect("a text");
    for command in TOUCHING {
        assert!(
            !stats.contains(&format!("cmdstat_{command}:")),
            "{command} was executed there:\n{stats}"
        );
    }
    // One look at the claim is what tells whose it is; none at any other key.
    assert!(
        client.call(cmd!["EXISTS", "register"]) == Reply::Int(0),
        "a client's key is there"
    );
    assert_eq!(digest(&mut client), digest_before, "its data was touched");
    assert_warned_once(&sidecar, word);
    node.put_files(&own);
    node.restart();
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert_unseen(&outcome, seed);
}

#[test]
fn a_node_of_another_pool() {
    let (files, digest) = files_of(|other| {
        let config = SidecarConfig {
            pool: "other".to_owned(),
            ..SidecarConfig::of(other, 1)
        };
        fill(&Sidecar::start(&config), 100);
    });
    with_foreign_files(&files, &digest, "belongs to another pool");
}

#[test]
fn a_server_of_no_pool_that_has_keys() {
    let (files, digest) = files_of(|other| {
        let mut client = other.nodes[0].client();
        for at in 0..100 {
            assert!(client.call(cmd!["SET", format!("somebody-s-{at}"), at]).is_ok());
        }
    });
    with_foreign_files(&files, &digest, "FLUSHALL");
}

/// Two copies on one server would be one copy; and each would execute what the other one has executed already.
#[test]
fn the_server_of_another_node_of_the_pool() {
    let seed = seed();
    let pool = Pool::start(3);
    let (relays, config) = SidecarConfig::of(&pool, 3).behind_relays(&pool);
    let (sidecar, workload) = under_load(&pool, &config, seed);
    relays[1].point_to(&pool.nodes[0].endpoint());
    wait_said(&sidecar, "b", "unfit", "same server as node \"a\"");
    wait_progress(&workload);
    assert_warned_once(&sidecar, "same server");
    relays[1].point_to(&pool.nodes[1].endpoint());
    let outcome = finish(&pool, &sidecar, workload, seed);
    assert_unseen(&outcome, seed);
}
