//! An owner worker's one ordered connection to one node.
//!
//! **Before a stream is used** it must be certain that no earlier stream of this worker can still do anything there: a
//! node that hung may have whole batches of it in its buffers. So a new stream first kills all other connections of its
//! user (each worker has a user of its own), and only then reads what the node has applied (invariant 5). It sends
//! nothing before it has read the answer to `AUTH`: a command behind a failed one would run as somebody else.
//!
//! The bytes' meaning is the sequencer's; here is only connecting, reading, and noticing the end.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redis_protocol::resp3::types::BytesFrame;
use tokio_util::io::poll_read_buf;
use tracing::{debug, info, warn};

use crate::account;
use crate::node::{Control, ControlError, bytes_of, pairs_of, text_of};
use crate::request::NodeId;
use crate::worker::Worker;

/// Room made before each read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Pause before a node that refused something is tried again, the first time and at most: its clients may wait for it.
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(200);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Pause before a node that could not be connected to is tried again.
const UNCONNECTED_PAUSE: Duration = Duration::from_millis(20);

/// Keeps the worker's stream to `node` alive, as long as the node is in the pool.
pub async fn run(worker: Rc<Worker>, node: NodeId) {
    let Some(mut admissions) = worker.shared().admissions.watch(node) else {
        return;
    };
    let mut used = 0;
    let mut refused_pause = REFUSED_PAUSE_MIN;
    loop {
        match admissions.wait_for(|&n| n > used).await {
            Ok(n) => used = *n,
            Err(_) => return,
        }
        match connect(&worker, node).await {
            Ok((control, applied)) => {
                let (read, write, buf) = control.into_halves();
                let report = worker.link_up(node, write, &applied);
                let name = worker.shared().node_name(node);
                let is_news = |what: &str| worker.shared().keeper.is_news(node, what);
                if is_news(&format!("connected {}", worker.id())) {
                    info!(
                        node = name,
                        equal = report.equal,
                        behind = report.behind,
                        out = report.out,
                        "stream connected"
                    );
                }
                if report.out > 0 && is_news("out") {
                    warn!(
                        node = name,
                        partitions = report.out,
                        "the node has not what the backlog could complete (emptied, too far behind, or of another \
                         time): it is out of sync for these partitions until it has been given copies of them"
                    );
                }
                let connected = Instant::now();
                let end = receive(&worker, node, read, buf).await;
                worker.link_down(node);
                if worker.shared().keeper.access(node).is_none() {
                    return;
                }
                if is_news(&end.why) {
                    warn!(node = name, "stream lost: {end}");
                }
                if connected.elapsed() > REFUSED_PAUSE_MAX {
                    refused_pause = REFUSED_PAUSE_MIN;
                }
                if end.refused {
                    tokio::time::sleep(refused_pause).await;
                    refused_pause = REFUSED_PAUSE_MAX.min(refused_pause * 2);
                }
            }
            Err(error) => {
                debug!(node = worker.shared().node_name(node), %error, "stream not connected");
                tokio::time::sleep(UNCONNECTED_PAUSE).await;
            }
        }
        worker.shared().admissions.look(node);
    }
}

type Applied = std::collections::HashMap<crate::request::PartitionId, account::Position>;

async fn connect(worker: &Worker, node: NodeId) -> Result<(Control, Applied), ControlError> {
    let shared = worker.shared();
    let user = shared.instance.user(&format!("w{}", worker.id()));
    let login = Some((user.as_str(), shared.instance.secret.as_str()));
    let address = shared
        .table
        .load()
        .nodes
        .get(usize::from(node))
        .map(|n| n.address.clone());
    let Some(address) = address else {
        return Err(ControlError::Protocol);
    };
    let mut control = Control::connect(&address, login, shared.config.timeouts.connect).await?;
    control
        .call(&[b"CLIENT", b"KILL", b"USER", user.as_bytes(), b"SKIPME", b"yes"])
        .await?;
    control.call(&[b"CLIENT", b"SETNAME", user.as_bytes()]).await?;
    let bookkeeping_db = shared.config.pool.bookkeeping_db.to_string();
    control.call(&[b"SELECT", bookkeeping_db.as_bytes()]).await?;
    // What is marked is not what its position says, nor is it nothing.
    let marked = pairs_of(control.call(&[b"HGETALL", account::REPAIR]).await?);
    let positions = pairs_of(control.call(&[b"HGETALL", account::APPLIED]).await?);
    let partition = |field: &BytesFrame| text_of(field).parse().ok();
    let mut applied: Applied = positions
        .iter()
        .filter_map(|(field, position)| {
            Some((partition(field)?, account::Position::parse(bytes_of(position))?))
        })
        .collect();
    let marked = marked.iter().filter_map(|(field, _)| partition(field));
    applied.extend(marked.map(|partition| (partition, account::Position::NOWHERE)));
    control.call(&[b"SELECT", b"0"]).await?;
    Ok((control, applied))
}

/// Why a stream ended.
struct End {
    why: String,
    refused: bool,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

async fn receive(worker: &Worker, node: NodeId, mut read: crate::net::ReadHalf, mut buf: BytesMut) -> End {
    let closed = worker.stream_closed(node);
    loop {
        // A large reply gets its room at once instead of growing into it.
        let missing = worker.needed_bytes(node).saturating_sub(buf.len());
        buf.reserve(missing.max(READ_BYTES));
        let reading = poll_fn(|cx| poll_read_buf(Pin::new(&mut read), cx, &mut buf));
        let n = tokio::select! {
            biased;
            n = reading => n,
            () = closed.notified() => {
                return End { why: "it owed an answer for longer than timeouts.node, or broke".into(), refused: false };
            }
        };
        let read_bytes = match n {
            Ok(0) => {
                return End {
                    why: "the node closed the connection".into(),
                    refused: false,
                };
            }
            Err(error) => {
                return End {
                    why: error.to_string(),
                    refused: false,
                };
            }
            Ok(n) => n,
        };
        if let Err(broken) = worker.receive(node, &mut buf) {
            let refused = matches!(broken, crate::sequencer::Broken::Refused(_));
            return End {
                why: broken.to_string(),
                refused,
            };
        }
        if read_bytes >= READ_BYTES {
            // More is there already; first let what has come go on to its clients.
            tokio::task::yield_now().await;
        }
    }
}
