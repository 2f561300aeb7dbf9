//! `CONFIG GET`: the settings of a Redis server as they are true for the pool. Those that no driver could mean anything by
//! (how one server keeps its files, encodes its values, …) are the nodes' own, and not here.

use bytes::{Bytes, BytesMut};

use super::answer::map;
use crate::command::glob;
use crate::limits;
use crate::resp::{Args, encode};
use crate::shared::Shared;

/// Those that never differ.
const FIXED: &[(&str, &str)] = &[
    ("activedefrag", "no"),
    ("cluster-enabled", "no"),
    ("hz", "10"),
    ("io-threads-do-reads", "no"),
    ("latency-monitor-threshold", "0"),
    ("latency-tracking", "no"),
    ("masterauth", ""),
    ("masteruser", ""),
    ("maxmemory-clients", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("protected-mode", "no"),
    ("replica-read-only", "yes"),
    ("replica-serve-stale-data", "yes"),
    ("replicaof", ""),
    ("save", ""),
    ("slave-read-only", "yes"),
    ("slave-serve-stale-data", "yes"),
    ("slaveof", ""),
    ("supervised", "no"),
    ("tcp-keepalive", "60"),
    ("tls-cluster", "no"),
    ("tls-port", "0"),
    ("tls-replication", "no"),
    ("tracking-table-max-keys", "0"),
];

fn settings(shared: &Shared) -> Vec<(&'static str, String)> {
    let config = &shared.config;
    let (limits, listen) = (&config.limits, &config.listen);
    let nodes = shared.keeper.pool_info();
    let output_max = limits.client_output_max.as_u64();
    let further = (config.pool.min_in_sync - 1).to_string();
    // As many as can be selected, counted from 0: usually the last one is the sidecar's own.
    let all_databases = shared.databases;
    let databases = all_databases - u16::from(config.pool.bookkeeping_db + 1 == all_databases);
    let slow_us = match limits.slowlog_max_len {
        0 => "-1".to_owned(),
        _ => limits.slowlog_slower_than.as_micros().to_string(),
    };
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map_or_else(String::new, |p| p.display().to_string())
    };
    let mut all: Vec<(&'static str, String)> = vec![
        (
            "appendonly",
            if nodes.append_only { "yes" } else { "no" }.to_owned(),
        ),
        (
            "bind",
            listen.tcp.map_or_else(String::new, |a| a.ip().to_string()),
        ),
        (
            "client-output-buffer-limit",
            format!("normal {output_max} 0 0 slave {output_max} 0 0 pubsub {output_max} 0 0"),
        ),
        (
            "client-query-buffer-limit",
            limits.command_max.as_u64().to_string(),
        ),
        ("databases", databases.to_string()),
        ("io-threads", config.threads.to_string()),
        ("maxclients", limits.clients_max.to_string()),
        ("maxmemory", nodes.memory_max.to_string()),
        ("min-replicas-to-write", further.clone()),
        ("min-slaves-to-write", further),
        ("port", listen.tcp.map_or(0, |a| a.port()).to_string()),
        ("proto-max-bulk-len", limits::BULK_BYTES_MAX.to_string()),
        ("slowlog-log-slower-than", slow_us),
        ("slowlog-max-len", limits.slowlog_max_len.to_string()),
        ("timeout", config.timeouts.client_idle.as_secs().to_string()),
        ("unixsocket", path(&listen.unix)),
    ];
    all.extend(FIXED.iter().map(|&(name, value)| (name, value.to_owned())));
    all
}

/// The settings that one of the patterns names.
pub(super) fn config_get(shared: &Shared, args: &Args<'_>, resp3: bool) -> Bytes {
    let mut found = settings(shared);
    found.retain(|(name, _)| {
        args.iter()
            .skip(2)
            .any(|wanted| glob::matches(wanted, name.as_bytes()))
    });
    let mut out = BytesMut::new();
    map(&mut out, found.len(), resp3);
    for (name, value) in found {
        encode::bulk(&mut out, name.as_bytes());
        encode::bulk(&mut out, value.as_bytes());
    }
    out.freeze()
}
