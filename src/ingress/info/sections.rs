//! The sections of `INFO`, in Redis's order.
//!
//! A number is here if it is true for the pool, or if drivers and dashboards expect it and it has a value that says nothing
//! wrong. What only one server has (its allocator, its forks, its replicas) is left out.

use crate::pubsub::Kind;
use std::fmt::{Result, Write};

use super::Section;
use super::facts::Facts;

const fn section(
    name: &'static str,
    heading: &'static str,
    default: bool,
    lines: fn(&Facts<'_>, &mut String) -> Result,
) -> Section {
    Section {
        name,
        heading,
        default,
        lines,
    }
}

pub(super) const SECTIONS: &[Section] = &[
    section("server", "Server", true, server),
    section("clients", "Clients", true, clients),
    section("memory", "Memory", true, memory),
    section("persistence", "Persistence", true, persistence),
    section("stats", "Stats", true, stats),
    section("replication", "Replication", true, replication),
    section("cpu", "CPU", true, cpu),
    section("modules", "Modules", true, |_, _| Ok(())),
    section("commandstats", "Commandstats", false, command_stats),
    section("errorstats", "Errorstats", true, error_stats),
    section("latencystats", "Latencystats", false, |_, _| Ok(())),
    section("cluster", "Cluster", true, |_, out| {
        out.write_str("cluster_enabled:0\r\n")
    }),
    section("keyspace", "Keyspace", true, keyspace),
    section("ringfence", "Ringfence", true, ringfence),
];

fn server(facts: &Facts<'_>, out: &mut String) -> Result {
    let shared = facts.shared;
    let uptime = facts.uptime_s();
    write!(
        out,
        "redis_version:{}\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\nredis_build_id:0\r\nredis_mode:standalone\r\n\
         os:{} {}\r\narch_bits:{}\r\nprocess_id:{}\r\nprocess_supervised:no\r\nrun_id:{}\r\ntcp_port:{}\r\n\
         server_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\nhz:10\r\nconfigured_hz:10\r\n\
         executable:{}\r\nconfig_file:\r\nio_threads_active:{}\r\n",
        shared.version,
        std::env::consts::OS,
        std::env::consts::ARCH,
        usize::BITS,
        std::process::id(),
        hex_id(&shared.instance.id),
        shared.config.listen.tcp.map_or(0, |address| address.port()),
        facts.now_us,
        uptime / 86400,
        std::env::current_exe().map_or_else(|_| String::new(), |path| path.display().to_string()),
        u8::from(shared.config.threads > 1),
    )
}

/// A name of ours as 40 hexadecimal digits, which is what dashboards tell servers apart by.
fn hex_id(id: &str) -> String {
    sha1_smol::Sha1::from(id).digest().to_string()
}

fn clients(facts: &Facts<'_>, out: &mut String) -> Result {
    write!(
        out,
        "connected_clients:{}\r\ncluster_connections:0\r\nmaxclients:{}\r\nclient_recent_max_input_buffer:0\r\n\
         client_recent_max_output_buffer:0\r\nblocked_clients:{}\r\ntracking_clients:0\r\n\
         clients_in_timeout_table:0\r\n",
        facts.clients(),
        facts.shared.config.limits.clients_max,
        facts.blocked(),
    )
}

fn memory(facts: &Facts<'_>, out: &mut String) -> Result {
    let nodes = &facts.nodes;
    let peak = nodes.memory_peak.max(nodes.memory_used);
    for (name, bytes) in [
        ("used_memory", nodes.memory_used),
        ("used_memory_rss", nodes.memory_rss),
        ("used_memory_peak", peak),
    ] {
        write!(out, "{name}:{bytes}\r\n{name}_human:{}\r\n", human(bytes))?;
    }
    let share = |part: u64, whole: u64| part as f64 / (whole.max(1)) as f64;
    write!(
        out,
        "used_memory_peak_perc:{:.2}%\r\nmaxmemory:{}\r\nmaxmemory_human:{}\r\nmaxmemory_policy:noeviction\r\n\
         mem_fragmentation_ratio:{:.2}\r\nmem_fragmentation_bytes:{}\r\nmem_not_counted_for_evict:0\r\n\
         mem_clients_slaves:0\r\nmem_clients_normal:0\r\nactive_defrag_running:0\r\nlazyfree_pending_objects:0\r\n",
        100.0 * share(nodes.memory_used, peak),
        nodes.memory_max,
        human(nodes.memory_max),
        share(nodes.memory_rss, nodes.memory_used),
        nodes.memory_rss as i64 - nodes.memory_used as i64,
    )
}

/// Bytes as Redis writes them for people (`bytesToHuman`).
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    for unit in UNITS {
        if size < 1024.0 {
            return format!("{size:.2}{unit}");
        }
        size /= 1024.0;
    }
    format!("{bytes}B")
}

fn persistence(facts: &Facts<'_>, out: &mut String) -> Result {
    let nodes = &facts.nodes;
    let status = if nodes.files_well { "ok" } else { "err" };
    write!(
        out,
        "loading:0\r\nasync_loading:0\r\ncurrent_cow_size:0\r\nrdb_changes_since_last_save:{}\r\n\
         rdb_bgsave_in_progress:0\r\nrdb_last_save_time:{}\r\nrdb_last_bgsave_status:{status}\r\n\
         rdb_last_bgsave_time_sec:-1\r\nrdb_current_bgsave_time_sec:-1\r\nrdb_last_cow_size:0\r\naof_enabled:{}\r\n\
         aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0\r\naof_last_rewrite_time_sec:-1\r\n\
         aof_current_rewrite_time_sec:-1\r\naof_last_bgrewrite_status:{status}\r\naof_last_write_status:{status}\r\n\
         aof_last_cow_size:0\r\nmodule_fork_in_progress:0\r\nmodule_fork_last_cow_size:0\r\n",
        nodes.unsaved,
        nodes.last_save_s,
        u8::from(nodes.append_only),
    )
}

fn stats(facts: &Facts<'_>, out: &mut String) -> Result {
    let (totals, nodes) = (&facts.totals, &facts.nodes);
    let [commands, bytes_in, bytes_out] = facts.rates;
    write!(
        out,
        "total_connections_received:{}\r\ntotal_commands_processed:{}\r\ninstantaneous_ops_per_sec:{commands:.0}\r\n\
         total_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\ninstantaneous_input_kbps:{:.2}\r\n\
         instantaneous_output_kbps:{:.2}\r\nrejected_connections:{}\r\nsync_full:0\r\nsync_partial_ok:0\r\n\
         sync_partial_err:0\r\nexpired_keys:{}\r\nevicted_keys:0\r\nevicted_clients:0\r\nkeyspace_hits:{}\r\n\
         keyspace_misses:{}\r\npubsub_channels:{}\r\npubsub_patterns:{}\r\npubsubshard_channels:{}\r\nlatest_fork_usec:0\r\n\
         total_forks:0\r\nmigrate_cached_sockets:0\r\ntracking_total_keys:0\r\ntracking_total_items:0\r\n\
         tracking_total_prefixes:0\r\nunexpected_error_replies:0\r\ntotal_error_replies:{}\r\n",
        totals.connections,
        totals.calls(),
        totals.bytes_in,
        totals.bytes_out,
        bytes_in / 1024.0,
        bytes_out / 1024.0,
        facts
            .shared
            .rejected_clients
            .load(std::sync::atomic::Ordering::Relaxed),
        nodes.expired,
        nodes.hits,
        nodes.misses,
        facts.shared.pubsub.len(Kind::Channel),
        facts.shared.pubsub.len(Kind::Pattern),
        facts.shared.pubsub.len(Kind::Shard),
        totals.errors.values().sum::<u64>(),
    )
}

/// To clients there are no replicas: every node that has a write acknowledges it before they hear of it.
fn replication(facts: &Facts<'_>, out: &mut String) -> Result {
    write!(
        out,
        "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_replid:{}\r\n\
         master_replid2:0000000000000000000000000000000000000000\r\nmaster_repl_offset:0\r\nsecond_repl_offset:-1\r\n\
         repl_backlog_active:0\r\nrepl_backlog_size:{}\r\nrepl_backlog_first_byte_offset:0\r\n\
         repl_backlog_histlen:0\r\n",
        hex_id(&facts.shared.table.load().id),
        facts.shared.config.limits.backlog.as_u64(),
    )
}

fn cpu(facts: &Facts<'_>, out: &mut String) -> Result {
    let (system, user) = facts.cpu;
    write!(
        out,
        "used_cpu_sys:{:.6}\r\nused_cpu_user:{:.6}\r\nused_cpu_sys_children:0.000000\r\n\
         used_cpu_user_children:0.000000\r\n",
        system.as_secs_f64(),
        user.as_secs_f64(),
    )
}

fn command_stats(facts: &Facts<'_>, out: &mut String) -> Result {
    for (index, [calls, usec, rejected, failed]) in facts.totals.commands.iter().enumerate() {
        let Some(command) = facts.shared.commands.at(index as u16).filter(|_| *calls > 0) else {
            continue;
        };
        write!(
            out,
            "cmdstat_{}:calls={calls},usec={usec},usec_per_call={:.2},rejected_calls={rejected},failed_calls={failed}\r\n",
            command.name,
            *usec as f64 / *calls as f64,
        )?;
    }
    Ok(())
}

fn error_stats(facts: &Facts<'_>, out: &mut String) -> Result {
    for (kind, count) in &facts.totals.errors {
        write!(out, "errorstat_{kind}:count={count}\r\n")?;
    }
    Ok(())
}

fn keyspace(facts: &Facts<'_>, out: &mut String) -> Result {
    for (db, [keys, expires, ttl]) in facts.nodes.keyspace.iter().filter(|(_, [keys, ..])| *keys > 0) {
        write!(out, "db{db}:keys={keys},expires={expires},avg_ttl={ttl}\r\n")?;
    }
    Ok(())
}

fn ringfence(facts: &Facts<'_>, out: &mut String) -> Result {
    let shared = facts.shared;
    let table = shared.table.load();
    write!(
        out,
        "ringfence_version:{}\r\npool:{}\r\npool_id:{}\r\nterm:{}\r\ninstance:{}\r\nnodes:{}\r\nreplicas:{}\r\n\
         write_quorum:{}\r\npartitions:{}\r\nthreads:{}\r\nwrites:{}\r\nreads:{}\r\nmismatches:{}\r\nrepairs:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        table.pool,
        table.id,
        shared.term,
        shared.instance.id,
        table.nodes.len(),
        table.replicas,
        table.write_quorum,
        table.partitions(),
        shared.config.threads,
        facts.sum(|worker| worker.writes.get()),
        facts.sum(|worker| worker.reads.get()),
        facts.sum(|worker| worker.mismatches.get()),
        facts.sum(|worker| worker.repairs.get()),
    )
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_written_as_redis_writes_them() {
        let shown = [0, 1023, 1024, 965_800, 25_276_502_016, u64::MAX].map(human);
        assert_eq!(
            shown,
            [
                "0B",
                "1023B",
                "1.00K",
                "943.16K",
                "23.54G",
                "18446744073709551615B"
            ]
        );
    }
}
