//! `INFO` and `CONFIG GET`.

use super::*;

fn info(client: &mut Client, sections: &str) -> BTreeMap<String, String> {
    let text = text(client, &format!("INFO {sections}"));
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            line.split_once(':')
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .expect(line)
        })
        .collect()
}

fn headings(client: &mut Client, sections: &str) -> Vec<String> {
    let text = text(client, &format!("INFO {sections}"));
    text.lines()
        .filter_map(|line| Some(line.strip_prefix("# ")?.to_owned()))
        .collect()
}

#[test]
fn info_has_the_form_and_the_fields_of_redis() {
    let reference = Node::start("reference", NodeOptions::default());
    let mut theirs = reference.client();
    let (_pool, sidecar) = pool_of(4);
    let mut ours = sidecar.client();
    for sections in [
        "",
        "default",
        "all",
        "everything",
        "server",
        "CPU clients nosuch server",
        "default commandstats",
    ] {
        let mut expected = headings(&mut theirs, sections);
        if sections.is_empty()
            || ["default", "all", "everything"]
                .iter()
                .any(|s| sections.contains(s))
        {
            expected.push("Ringfence".to_owned());
        }
        assert_eq!(headings(&mut ours, sections), expected, "INFO {sections}");
    }
    // Every field has one of Redis's names, and where it matters the same value.
    let (mine, redis) = (info(&mut ours, "everything"), info(&mut theirs, "everything"));
    let own: BTreeSet<String> = info(&mut ours, "ringfence").into_keys().collect();
    let per_command = |name: &str| name.starts_with("cmdstat_") || name.starts_with("errorstat_");
    for name in mine
        .keys()
        .filter(|name| !own.contains(*name) && !per_command(name))
    {
        assert!(redis.contains_key(name), "Redis has no {name}");
    }
    // Asked for by redis-py, ioredis, BullMQ, Sidekiq, RQ, kombu, redis_exporter and RedisInsight.
    for name in [
        "redis_version",
        "redis_mode",
        "loading",
        "role",
        "maxmemory_policy",
        "cluster_enabled",
        "evicted_keys",
    ] {
        assert_eq!(mine[name], redis[name], "{name}");
    }
    for name in [
        "os",
        "run_id",
        "tcp_port",
        "uptime_in_seconds",
        "uptime_in_days",
        "connected_clients",
        "maxclients",
        "blocked_clients",
        "used_memory",
        "used_memory_human",
        "used_memory_peak_human",
        "mem_fragmentation_ratio",
        "total_commands_processed",
        "instantaneous_ops_per_sec",
        "keyspace_hits",
        "expired_keys",
        "connected_slaves",
        "used_cpu_sys",
    ] {
        assert!(mine.contains_key(name), "{name} is missing");
    }
    assert!(mine["used_memory"].parse::<u64>().unwrap() > 100_000);
    assert_eq!(mine["run_id"].len(), 40);
    // A server that has served nothing has no lines there.
    let empty = headings(&mut sidecar.client(), "keyspace");
    assert_eq!(
        (empty, info(&mut ours, "keyspace").len()),
        (vec!["Keyspace".to_owned()], 0)
    );
}

#[test]
fn info_counts() {
    let (_pool, sidecar) = pool_of(4);
    let mut clients: Vec<Client> = (0..4).map(|_| sidecar.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        assert!(client.call(cmd!["SET", format!("k{at}"), 1]).is_ok());
        assert!(client.call(cmd!["SETEX", format!("e{at}"), 1000, 1]).is_ok());
        assert!(client.call(cmd!["LPUSH", format!("k{at}"), 1]).error().is_some());
        assert!(client.call(cmd!["DEBUG", "JMAP"]).error().is_some());
        assert!(client.call(cmd!["NOSUCH"]).error().is_some());
    }
    clients[1].call(cmd!["SELECT", 2]);
    clients[1].call(cmd!["SET", "x", 1]);
    let client = &mut clients[0];
    let of = |line: &str| fields(&line.replace(',', " "), '=');
    let stats = info(client, "commandstats");
    let calls = |name: &str, field: &str| of(&stats[&format!("cmdstat_{name}")])[field].clone();
    assert_eq!(
        (calls("set", "calls"), calls("set", "failed_calls")),
        ("5".into(), "0".into())
    );
    assert_eq!(
        (calls("lpush", "calls"), calls("lpush", "failed_calls")),
        ("4".into(), "4".into())
    );
    assert_eq!(
        (calls("debug", "calls"), calls("debug", "rejected_calls")),
        ("4".into(), "4".into())
    );
    assert!(calls("set", "usec").parse::<u64>().unwrap() > 0);
    let errors = info(client, "errorstats");
    assert_eq!(
        (
            errors["errorstat_WRONGTYPE"].as_str(),
            errors["errorstat_ERR"].as_str()
        ),
        ("count=4", "count=8")
    );
    assert_eq!(info(client, "stats")["total_error_replies"], "12");
    // The nodes are looked at once a second.
    wait_until("the keys are counted", SOON, || {
        let keys = info(client, "keyspace");
        keys.get("db0")
            .is_some_and(|db| db.starts_with("keys=8,expires=4,avg_ttl="))
            && keys
                .get("db2")
                .is_some_and(|db| db == "keys=1,expires=0,avg_ttl=0")
            && keys.len() == 2
    });
    assert!(client.call(cmd!["CONFIG", "RESETSTAT"]).is_ok());
    let after = info(client, "commandstats errorstats");
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        ["cmdstat_config|resetstat"],
        "{after:?}"
    );
}

#[test]
fn config_get_has_names_of_redis_and_values_of_the_pool() {
    let reference = Node::start("reference", NodeOptions::default());
    let (_pool, sidecar) = pool_of(4);
    let (mut ours, mut theirs) = (sidecar.client(), reference.client());
    let get = |client: &mut Client, patterns: &str| -> BTreeMap<String, String> {
        let items = client.call(words(&format!("CONFIG GET {patterns}"))).items();
        items
            .chunks(2)
            .map(|pair| (pair[0].text().unwrap(), pair[1].text().unwrap()))
            .collect()
    };
    let (mine, redis) = (get(&mut ours, "*"), get(&mut theirs, "*"));
    for name in mine.keys() {
        assert!(redis.contains_key(name), "Redis has no {name}");
    }
    assert!(!mine.contains_key("requirepass"));
    for (name, value) in [
        ("io-threads", "4"),
        ("maxclients", "20000"),
        ("databases", "15"),
        ("appendonly", "yes"),
    ] {
        assert_eq!(mine[name], value, "{name}");
    }
    let some = get(&mut ours, "max*y Databases slowlog-??x-len");
    assert_eq!(
        some.keys().collect::<Vec<_>>(),
        ["databases", "maxmemory", "maxmemory-policy", "slowlog-max-len"]
    );
}
