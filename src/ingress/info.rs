//! `INFO`: one server's face, and a section of ours.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use crate::pubsub::Kind;
use crate::shared::{Shared, unix_ms};

/// The sections, in Redis's order. `everything` and `all` are all of them.
const SECTIONS: [&str; 7] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "ringfence",
];

/// The text of `INFO` for the wanted sections (none: all).
pub(super) fn info(shared: &Shared, wanted: &[String]) -> String {
    let mut out = String::new();
    let all = wanted.is_empty()
        || wanted
            .iter()
            .any(|w| matches!(w.as_str(), "all" | "everything" | "default"));
    for section in SECTIONS {
        if all || wanted.iter().any(|w| w == section) {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            // Writing to a string cannot fail.
            let _written = put_section(&mut out, section, shared);
        }
    }
    out
}

fn put_section(out: &mut String, section: &str, shared: &Shared) -> std::fmt::Result {
    let commands: u64 = shared.metrics.iter().map(|m| m.commands.get()).sum();
    let sum =
        |of: fn(&crate::metrics::WorkerMetrics) -> u64| shared.metrics.iter().map(|m| of(m)).sum::<u64>();
    match section {
        "server" => {
            let uptime = unix_ms().saturating_sub(shared.started_ms) / 1000;
            let port = shared.config.listen.tcp.map_or(0, |address| address.port());
            write!(
                out,
                "# Server\r\nredis_version:{}\r\nredis_mode:standalone\r\nos:{}\r\narch_bits:64\r\nprocess_id:{}\r\n\
                 run_id:{:0<40}\r\ntcp_port:{port}\r\nuptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\n",
                shared.version,
                std::env::consts::OS,
                std::process::id(),
                shared.instance.id,
                uptime / 86400,
            )
        }
        "clients" => write!(
            out,
            "# Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\nblocked_clients:{}\r\n",
            shared.clients.load(Relaxed),
            shared.config.limits.clients_max,
            shared.blocked.load(Relaxed)
        ),
        "memory" => {
            let nodes = shared.table.load().nodes.len() as u16;
            let (used, max) = (0..nodes)
                .map(|n| shared.keeper.health(n).memory_bytes)
                .max()
                .unwrap_or_default();
            write!(
                out,
                "# Memory\r\nused_memory:{used}\r\nused_memory_rss:{used}\r\nmaxmemory:{max}\r\n\
                 maxmemory_policy:noeviction\r\n"
            )
        }
        "persistence" => {
            write!(
                out,
                "# Persistence\r\nloading:0\r\nrdb_bgsave_in_progress:0\r\naof_enabled:1\r\n"
            )
        }
        "stats" => write!(
            out,
            "# Stats\r\ntotal_commands_processed:{commands}\r\ntotal_net_input_bytes:{}\r\n\
             total_net_output_bytes:{}\r\ntotal_error_replies:{}\r\npubsub_channels:{}\r\npubsub_patterns:{}\r\n\
             pubsubshard_channels:{}\r\n",
            sum(|m| m.bytes_in.get()),
            sum(|m| m.bytes_out.get()),
            sum(|m| m.errors.get()),
            shared.pubsub.len(Kind::Channel),
            shared.pubsub.len(Kind::Pattern),
            shared.pubsub.len(Kind::Shard),
        ),
        "replication" => write!(
            out,
            "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n"
        ),
        _ => {
            let table = shared.table.load();
            write!(
                out,
                "# Ringfence\r\nringfence_version:{}\r\npool:{}\r\npool_id:{}\r\nterm:{}\r\ninstance:{}\r\nnodes:{}\r\n\
                 replicas:{}\r\nwrite_quorum:{}\r\npartitions:{}\r\nwrites:{}\r\nreads:{}\r\nmismatches:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                table.pool,
                table.id,
                shared.term,
                shared.instance.id,
                table.nodes.len(),
                table.replicas,
                table.write_quorum,
                table.partitions(),
                sum(|m| m.writes.get()),
                sum(|m| m.reads.get()),
                sum(|m| m.mismatches.get()),
            )
        }
    }
}
