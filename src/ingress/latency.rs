//! `LATENCY`: as a server answers whose latency monitor is off; the sidecar's own latencies are in its metrics.

use bytes::Bytes;

use super::answer::{verbatim, word};
use crate::command::Special;
use crate::resp::{Args, encode};

const DOCTOR: &str = "Latency monitoring is not offered by the proxy. The latencies of all commands, as clients see them, are \
                      the histogram ringfence_command_seconds of /metrics on its admin port; slow commands are in SLOWLOG \
                      GET; what one node does is seen on the node.\n";

/// The reply to one of its subcommands.
pub(super) fn latency(special: Special, args: &Args<'_>, resp3: bool) -> Bytes {
    match special {
        Special::LatencyDoctor => verbatim(DOCTOR, resp3),
        Special::LatencyReset => encode::integer(0),
        Special::LatencyGraph => encode::error(&format!(
            "ERR No samples available for event '{}'",
            word(args.arg(2))
        )),
        Special::LatencyHistogram if resp3 => Bytes::from_static(b"%0\r\n"),
        _ => Bytes::from_static(b"*0\r\n"),
    }
}
