//! The numbers in Prometheus' text format.

use std::sync::atomic::AtomicI64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::{LATENCY_BOUNDS_US, WorkerMetrics};

/// A node's numbers.
#[derive(Clone, Debug)]
pub struct NodeSample {
    /// Its name.
    pub name: String,
    /// Whether every worker's stream to it is connected.
    pub up: bool,
    /// Its state, as `/v1/nodes` has it.
    pub state: &'static str,
    /// Partitions that should be on it.
    pub partitions: u64,
    /// Those it has in sync.
    pub in_sync: u64,
    /// Writes it has not acknowledged.
    pub lag_ops: u64,
    /// Memory it uses, in bytes.
    pub memory_bytes: u64,
}

#[derive(Debug)]
struct Snapshot {
    totals: Vec<(&'static str, &'static str, u64)>,
    gauges: Vec<(&'static str, &'static str, u64)>,
    nodes: Vec<NodeSample>,
    latency_counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_us: u64,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in &self.totals {
            let counter = ConstCounter::new(*value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in &self.gauges {
            let gauge = ConstGauge::new(*value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        type Of = fn(&NodeSample) -> u64;
        let of_nodes: [(&str, &str, Of); 5] = [
            ("node_up", "1 while the node's streams are connected", |n| {
                u64::from(n.up)
            }),
            ("node_partitions", "Partitions that should be on the node", |n| {
                n.partitions
            }),
            (
                "node_partitions_in_sync",
                "Partitions of which the node has every acknowledged write",
                |n| n.in_sync,
            ),
            ("node_lag_ops", "Writes the node has not acknowledged", |n| {
                n.lag_ops
            }),
            ("node_memory_bytes", "Memory the node uses", |n| n.memory_bytes),
        ];
        for (name, help, value) in of_nodes {
            let family = ConstGauge::new(0i64);
            let mut metric = encoder.encode_descriptor(name, help, None, family.metric_type())?;
            for node in &self.nodes {
                let labels = [("node", node.name.as_str())];
                ConstGauge::new(value(node) as i64).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut states = encoder.encode_descriptor(
            "node_state",
            "1 for the state of the node, as /v1/nodes has it",
            None,
            MetricType::Gauge,
        )?;
        for node in &self.nodes {
            let labels = [("node", node.name.as_str()), ("state", node.state)];
            ConstGauge::new(1i64).encode(states.encode_family(&labels)?)?;
        }
        let bounds = LATENCY_BOUNDS_US
            .iter()
            .map(|&us| us as f64 / 1e6)
            .chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.latency_counts).collect();
        let mut latency = encoder.encode_descriptor(
            "command_seconds",
            "From a command's arrival to its reply",
            None,
            MetricType::Histogram,
        )?;
        latency.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
            self.latency_sum_us as f64 / 1e6,
            self.latency_counts.iter().sum(),
            &buckets,
            None,
        )
    }
}

/// The pool's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolSample {
    /// Partitions with fewer nodes in sync and there than copies.
    pub partitions_short: u64,
    /// Partitions with fewer than `min_in_sync`: they refuse writes.
    pub partitions_refusing: u64,
    /// Copies of partitions that are to be made, so that each is where it should be.
    pub moves_open: u64,
    /// Copies that have been made.
    pub moves: u64,
    /// Bytes copied for them.
    pub moved_bytes: u64,
    /// Keys removed from nodes that do not hold them any more.
    pub removed_keys: u64,
    /// The longest that partitions were held for a hand-over, in us.
    pub longest_hold_us: u64,
}

/// All numbers as text.
pub fn render(workers: &[&WorkerMetrics], nodes: Vec<NodeSample>, pool: &PoolSample) -> String {
    let sum = |of: fn(&WorkerMetrics) -> u64| workers.iter().map(|w| of(w)).sum::<u64>();
    let mut latency_counts = [0; LATENCY_BOUNDS_US.len() + 1];
    let mut latency_sum_us = 0;
    for worker in workers {
        let (counts, sum_us) = worker.latencies.read();
        latency_counts
            .iter_mut()
            .zip(counts)
            .for_each(|(total, count)| *total += count);
        latency_sum_us += sum_us;
    }
    let snapshot = Snapshot {
        totals: vec![
            ("commands", "Commands from clients", sum(|w| w.commands.get())),
            (
                "errors",
                "Errors that the sidecar itself answered",
                sum(|w| w.errors.get()),
            ),
            ("received_bytes", "Bytes from clients", sum(|w| w.bytes_in.get())),
            ("sent_bytes", "Bytes to clients", sum(|w| w.bytes_out.get())),
            (
                "batches",
                "Batches of writes sent to nodes",
                sum(|w| w.batches.get()),
            ),
            (
                "batched_writes",
                "Writes in those batches, once for each node",
                sum(|w| w.batched_writes.get()),
            ),
            ("writes", "Writes ordered", sum(|w| w.writes.get())),
            ("reads", "Reads ordered", sum(|w| w.reads.get())),
            (
                "mismatches",
                "Replies that differed between mirrors",
                sum(|w| w.mismatches.get()),
            ),
            (
                "repairs",
                "Keys made on all nodes what they are on the primary",
                sum(|w| w.repairs.get()),
            ),
            (
                "resent_writes",
                "Writes given once more to a node that came back",
                sum(|w| w.resent.get()),
            ),
            (
                "moves",
                "Copies of partitions given to nodes while the pool was served",
                pool.moves,
            ),
            ("moved_bytes", "Bytes copied for them", pool.moved_bytes),
            (
                "removed_keys",
                "Keys removed from nodes that do not hold them any more",
                pool.removed_keys,
            ),
        ],
        gauges: vec![
            ("clients", "Clients connected now", sum(|w| w.clients.get())),
            (
                "partitions_short",
                "Partitions with fewer nodes in sync and there than copies",
                pool.partitions_short,
            ),
            (
                "partitions_refusing",
                "Partitions that refuse writes: fewer than min_in_sync nodes are in sync and there",
                pool.partitions_refusing,
            ),
            (
                "moves_open",
                "Copies of partitions that nodes are still to be given",
                pool.moves_open,
            ),
            (
                "longest_hold_microseconds",
                "The longest that partitions were held for a hand-over",
                pool.longest_hold_us,
            ),
        ],
        nodes,
        latency_counts,
        latency_sum_us,
    };
    let mut registry = registry(true, 0);
    registry.register_collector(Box::new(snapshot));
    text_of(&registry)
}

/// The numbers of a sidecar that stands by, and passes so many clients on.
pub fn render_standby(relayed: u64) -> String {
    text_of(&registry(false, relayed))
}

/// What every sidecar has.
fn registry(is_serving: bool, relayed: u64) -> Registry {
    let mut registry = Registry::with_prefix("ringfence");
    let gauge = |value: u64| {
        let gauge = Gauge::<i64, AtomicI64>::default();
        gauge.set(value as i64);
        gauge
    };
    registry.register(
        "serving",
        "1 if this sidecar serves the pool, 0 if it stands by",
        gauge(u64::from(is_serving)),
    );
    registry.register(
        "relayed_clients",
        "Clients passed on to the sidecar that serves",
        gauge(relayed),
    );
    registry
}

fn text_of(registry: &Registry) -> String {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => text,
        Err(_) => String::from("# the metrics could not be written\n# EOF\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_kind() {
        let worker = WorkerMetrics::default();
        worker.commands.add(3);
        worker.latencies.note(70);
        let node = NodeSample {
            name: "a".into(),
            up: true,
            state: "catching_up",
            partitions: 256,
            in_sync: 255,
            lag_ops: 1,
            memory_bytes: 9,
        };
        let pool = PoolSample {
            partitions_short: 1,
            moves_open: 7,
            ..PoolSample::default()
        };
        let text = render(&[&worker, &worker], vec![node], &pool);
        for line in [
            "ringfence_commands_total 6",
            "ringfence_node_up{node=\"a\"} 1",
            "ringfence_node_state{node=\"a\",state=\"catching_up\"} 1",
            "ringfence_node_partitions_in_sync{node=\"a\"} 255",
            "ringfence_partitions_short 1",
            "ringfence_moves_open 7",
            "ringfence_command_seconds_count 2",
            "ringfence_command_seconds_bucket{le=\"0.0001\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.contains("ringfence_serving 1\n"), "{text}");
        let text = render_standby(3);
        assert!(text.contains("ringfence_serving 0\n"), "{text}");
        assert!(text.contains("ringfence_relayed_clients 3\n"), "{text}");
    }
}
