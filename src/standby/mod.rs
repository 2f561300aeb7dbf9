//! Standing by: what a sidecar does while another one serves the pool.
//!
//! **Problem.** Applications on every host want a sidecar beside them, and one sidecar orders all writes of a pool. **Idea.** With
//! `listen.peer`, the others stand by: they pass their clients on to the one that serves (the *active* one), whose address is in the
//! table, and one of them takes over when it has gone.
//!
//! Nothing here has to be right for the promises to hold: a take-over is safe at whatever moment, because it fences at the nodes
//! (`pool::open`). What it must not be is needless, since it costs all clients their connections. So it takes a while of most nodes saying
//! that nobody uses them ([`verdict`]); who takes over leaves it to somebody else whose claim it meets
//! ([`OpenError::StoodBack`](crate::pool::OpenError)); and nodes are claimed in one order, so that of several who try, one gets on.

mod hail;
mod look;
mod relay;
mod verdict;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::debug;

pub use hail::{Hail, NOT_YET, TAKEN, read_header};
pub use watch::stand_by;

use crate::net::Socket;
use crate::service::{Active, Service};

/// What the door and the sidecar that stands by know of each other.
#[derive(Debug, Default)]
pub struct Standby {
    /// Clients that are passed on at the moment.
    pub relayed: AtomicUsize,
    /// The active sidecar has lost a client, or not let it in.
    lost: Notify,
    /// It has not let one in since it was last tried whether it does.
    refuses: AtomicBool,
}

impl Standby {
    /// Hands a client to the sidecar that serves; `None` if that one does not take it. Nothing that the client has sent is read before.
    pub async fn connect(&self, client: &Socket, active: &Active, timeout: Duration) -> Option<Socket> {
        match relay::connect(client, &active.address, timeout).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                debug!(address = %active.address, %error, "a client could not be passed on");
                self.refuses.store(true, Relaxed);
                self.lost.notify_one();
                None
            }
        }
    }

    /// Passes on what the client sends and is sent, until another sidecar serves.
    pub async fn relay(
        &self,
        client: Socket,
        socket: Socket,
        active: &Arc<Active>,
        service: &mut tokio::sync::watch::Receiver<Service>,
    ) {
        self.relayed.fetch_add(1, Relaxed);
        let is_another = |service: &Service| match service {
            Service::Nobody(_) => false,
            Service::Here(_) => true,
            Service::There(there) => there != active,
        };
        tokio::select! {
            client_left = relay::carry(client, socket) => if !client_left {
                self.lost.notify_one();
            },
            // Whoever answers there is not to be believed any more, or will not.
            _ = service.wait_for(is_another) => {}
        }
        self.relayed.fetch_sub(1, Relaxed);
    }
}
