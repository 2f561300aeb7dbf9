//! Standing by: what a sidecar does while another one serves the pool.
//!
//! **Problem.** Applications on every host want a sidecar beside them, and one sidecar orders all writes of a pool. **Idea.** With
//! `listen.peer`, the others stand by: they pass their clients on to the one that serves (the *active* one), whose address is in the
//! table, and one of them takes over when it has gone.
//!
//! Nothing here has to be right for the promises to hold: a take-over is safe at whatever moment, because it fences at the nodes
//! (`pool::open`). What it must not be is needless, since it costs all clients their connections. So it takes a while of most nodes saying
//! that nobody uses them ([`verdict`]); who takes over leaves it to somebody else whose claim it meets
//! ([`OpenError::Overtaken`](crate::pool::OpenError)); and nodes are claimed in one order, so that of several who try, one gets on.

mod hail;
mod look;
mod relay;
mod verdict;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, info};

pub use hail::{Hail, TAKEN, read_header};

use self::look::Nodes;
use self::verdict::{Verdict, judge};
use crate::config::{Config, NodeAddress};
use crate::net::Socket;
use crate::node::Claim;
use crate::pool::table::Table;
use crate::pool::{Candidacy, OpenError, settings_fit};
use crate::service::{Active, Service};

/// Pause between two looks at the nodes.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// The same while clients cannot be passed on: something is about to change.
const LOOK_PAUSE_HURRIED: Duration = Duration::from_millis(50);

/// So often in a row most nodes must say that nobody uses them.
const FREE_LOOKS: u32 = 3;

/// Of several sidecars that stand by, one should be first.
const JITTER_MS: u64 = 150;

/// How often it is tried whether the active sidecar can be reached from here.
const REACH_INTERVAL: Duration = Duration::from_secs(2);

/// How often the table is read again: nodes may have come and gone.
const TABLE_INTERVAL: Duration = Duration::from_secs(2);

/// What the door and the sidecar that stands by know of each other.
#[derive(Debug, Default)]
pub struct Standby {
    /// Clients that are passed on at the moment.
    pub relayed: AtomicUsize,
    /// A client was not let in by the active sidecar, or lost by it.
    lost: Notify,
}

impl Standby {
    /// Hands a client to the sidecar that serves; `None` if that one does not take it. Nothing that the client has sent is read before.
    pub async fn connect(&self, client: &Socket, active: &Active, timeout: Duration) -> Option<Socket> {
        match relay::connect(client, &active.address, timeout).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                debug!(address = %active.address, %error, "a client could not be passed on");
                self.lost.notify_one();
                None
            }
        }
    }

    /// Passes on what the client sends and is sent, as long as that sidecar serves.
    pub async fn relay(
        &self,
        client: Socket,
        socket: Socket,
        active: &Arc<Active>,
        service: &mut watch::Receiver<Service>,
    ) {
        self.relayed.fetch_add(1, Relaxed);
        let is_another = |service: &Service| !matches!(service, Service::There(there) if there == active);
        tokio::select! {
            ended = relay::carry(client, socket) => {
                debug!(?ended, "a client that was passed on has ended");
                self.lost.notify_one();
            }
            // Whoever answers there is not to be believed any more, or will not.
            _ = service.wait_for(is_another) => {}
        }
        self.relayed.fetch_sub(1, Relaxed);
    }
}

/// Stands by until nobody serves the pool, as who may take it then. `known` is the pool as it was known before.
///
/// # Errors
/// The settings do not fit the pool.
pub async fn stand_by(
    config: &Config,
    service: &watch::Sender<Service>,
    standby: &Standby,
    peer: &NodeAddress,
    known: Option<Table>,
) -> Result<Candidacy, OpenError> {
    let mut nodes = Nodes::new(config);
    if let Some(table) = &known {
        nodes.follow(config, table);
    }
    let mut watcher = Watcher {
        config,
        service,
        nodes,
        table: known,
        table_read: Instant::now(),
        reached: None,
    };
    // Since how many looks nobody has used the pool, and nobody has claimed it anew.
    let (mut free_looks, mut free_term) = (0, 0);
    loop {
        let mut verdict = watcher.look().await?;
        if let Verdict::Free(term) = verdict {
            free_looks = if term == free_term { free_looks + 1 } else { 1 };
            free_term = term;
            if free_looks >= FREE_LOOKS {
                let jitter_ms = rand::rng().random_range(0..JITTER_MS);
                tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
                verdict = watcher.look().await?;
                if verdict == Verdict::Free(term) {
                    return Ok(Candidacy {
                        peer: peer.clone(),
                        known: watcher.table,
                        seen: term,
                    });
                }
                free_looks = 0;
            }
        } else {
            free_looks = 0;
        }
        match verdict {
            Verdict::InUse(claim) => watcher.pass_on_to(&claim).await,
            Verdict::Unclear(nodes) => watcher.wait_for_nodes(nodes).await,
            Verdict::Free(_) => watcher.reach().await,
        }
        watcher.pause(standby).await;
    }
}

struct Watcher<'a> {
    config: &'a Config,
    service: &'a watch::Sender<Service>,
    nodes: Nodes,
    table: Option<Table>,
    table_read: Instant,
    /// When it was last tried to reach the active sidecar, and what came of it.
    reached: Option<(Instant, Result<(), io::Error>)>,
}

impl Watcher<'_> {
    async fn look(&mut self) -> Result<Verdict, OpenError> {
        let verdict = judge(&self.nodes.look().await);
        let is_old = match (&verdict, &self.table) {
            (_, None) => true,
            (Verdict::InUse(claim), Some(table)) if claim.instance != table.instance => true,
            _ => self.table_read.elapsed() > TABLE_INTERVAL,
        };
        if is_old && let Some(table) = self.latest_table().await {
            settings_fit(self.config, &table)?;
            self.nodes.follow(self.config, &table);
            self.table = Some(table);
            self.table_read = Instant::now();
        }
        Ok(verdict)
    }

    /// The latest table of this pool. At a node's address there may be a node of another one.
    async fn latest_table(&mut self) -> Option<Table> {
        let tables = self.nodes.tables().await;
        let is_ours = |table: &Table| match &self.table {
            Some(known) => table.id == known.id,
            None => table.pool == self.config.pool.name,
        };
        let ours = tables
            .iter()
            .filter(|table| is_ours(table))
            .max_by_key(|table| table.stamp());
        match self.table {
            Some(_) => ours.cloned(),
            // If there are only others, that is what is wrong.
            None => ours.or(tables.first()).cloned(),
        }
    }

    /// Another sidecar uses the pool: clients are passed on to it, if it can be reached.
    async fn pass_on_to(&mut self, claim: &Claim) {
        let Some(table) = self
            .table
            .as_ref()
            .filter(|table| table.instance == claim.instance)
        else {
            self.reached = None;
            let why = format!(
                "another sidecar (instance {}) is taking the pool over",
                claim.instance
            );
            return Service::nobody(self.service, why);
        };
        let Some(address) = table.peer.clone() else {
            let why = format!(
                "another sidecar (instance {}) serves this pool, and says no address to which its clients could be passed on: set its \
                 listen.peer, or stop it",
                claim.instance
            );
            return Service::nobody(self.service, why);
        };
        let active = Active {
            instance: claim.instance.clone(),
            term: claim.term,
            address,
        };
        self.reach().await;
        match &self.reached {
            Some((_, Err(error))) => {
                let what = format!(
                    "the sidecar that serves this pool, at {}, cannot be reached from here",
                    active.address
                );
                let is_said = |why: &str| why.starts_with(&what);
                if !self.service.borrow().waits_for().is_some_and(is_said) {
                    Service::nobody(self.service, format!("{what} ({error})"));
                }
            }
            _ => {
                let said = active.address.to_string();
                let is_news = self.service.send_if_modified(|service| match service {
                    Service::There(before) if **before == active => false,
                    _ => {
                        *service = Service::There(Arc::new(active));
                        true
                    }
                });
                if is_news {
                    info!(
                        address = said,
                        term = claim.term,
                        "standing by: clients are passed on"
                    );
                }
            }
        }
    }

    /// Tries whether the active sidecar can be reached, now and then.
    async fn reach(&mut self) {
        let Some(address) = self.table.as_ref().and_then(|table| table.peer.as_ref()) else {
            return;
        };
        let is_recent = |(at, reached): &(Instant, Result<(), io::Error>)| {
            let interval = match reached {
                Ok(()) => REACH_INTERVAL,
                Err(_) => LOOK_PAUSE_HURRIED,
            };
            at.elapsed() < interval
        };
        if self.reached.as_ref().is_some_and(is_recent) {
            return;
        }
        let reached = relay::probe(address, self.config.timeouts.connect).await;
        self.reached = Some((Instant::now(), reached));
    }

    /// Until the next look: that is soon where the active sidecar cannot be reached, which is tried when it has lost a client.
    async fn pause(&mut self, standby: &Standby) {
        let until = Instant::now() + LOOK_PAUSE;
        while matches!(self.reached, Some((_, Ok(())))) {
            if tokio::time::timeout_at(until, standby.lost.notified())
                .await
                .is_err()
            {
                return;
            }
            self.reached = None;
            self.reach().await;
            // Not more often than so, whatever clients do.
            tokio::time::sleep(LOOK_PAUSE_HURRIED).await;
        }
        tokio::time::sleep(LOOK_PAUSE_HURRIED).await;
    }

    async fn wait_for_nodes(&mut self, answer: usize) {
        let nodes = self.nodes.len();
        self.reach().await;
        let is_reached = matches!(self.reached, Some((_, Ok(()))));
        if is_reached && matches!(*self.service.borrow(), Service::There(_)) {
            return;
        }
        // Those that have just come tell in a moment.
        if answer * 2 > nodes {
            return;
        }
        let why = format!(
            "{answer} of {nodes} nodes answer, too few to tell whether another sidecar serves the pool"
        );
        Service::nobody(self.service, why);
    }
}
