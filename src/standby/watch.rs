//! Watching the pool that another sidecar serves, until nobody does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::look::Nodes;
use super::verdict::{Verdict, judge};
use super::{Standby, relay};
use crate::config::{Config, NodeAddress};
use crate::node::Claim;
use crate::pool::table::Table;
use crate::pool::{Candidacy, OpenError, login_digest, settings_fit, use_addresses};
use crate::service::{Active, Service};

/// Pause between two looks at the nodes while clients are passed on.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// The same while something is about to change.
const LOOK_PAUSE_HURRIED: Duration = Duration::from_millis(75);

/// So often in a row most nodes must say that nobody uses them, where the process that did is known to be gone.
const FREE_LOOKS: u32 = 4;

/// For so long they must say so, where that is not known: for longer than who serves the pool leaves a node alone.
const FREE_FOR: Duration = Duration::from_millis(1500);

/// Of several sidecars that stand by, one should be first.
const JITTER_MS: u64 = 100;

/// How often it is tried whether the active sidecar can be reached from here.
const REACH_INTERVAL: Duration = Duration::from_secs(2);

/// How often the table is read again: nodes may have come and gone.
const TABLE_INTERVAL: Duration = Duration::from_secs(2);

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
        standby,
        peer,
        nodes,
        table: known,
        table_read: Instant::now(),
        reached: None,
    };
    // Since when, and for how many looks, nobody has used the pool, and nobody has claimed it anew.
    let (mut free_looks, mut free_term, mut free_since) = (0, 0, Instant::now());
    loop {
        let mut verdict = watcher.look().await?;
        if let Verdict::Free(term) = verdict {
            if free_looks == 0 || term != free_term {
                (free_looks, free_term, free_since) = (0, term, Instant::now());
            }
            free_looks += 1;
            if free_since.elapsed() > FREE_FOR || free_looks >= FREE_LOOKS && watcher.is_gone(term).await {
                let jitter_ms = rand::rng().random_range(0..JITTER_MS);
                tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
                verdict = watcher.look().await?;
                if verdict == Verdict::Free(term) {
                    watcher.say_why(term, free_since.elapsed());
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
        match &verdict {
            Verdict::InUse(claim) => watcher.pass_on_to(claim).await,
            Verdict::Unrecorded => watcher.miss_record(),
            Verdict::Unclear(answer) => watcher.wait_for_nodes(*answer).await,
            Verdict::Free(_) => {}
        }
        watcher.pause(&verdict).await;
    }
}

struct Watcher<'a> {
    config: &'a Config,
    service: &'a watch::Sender<Service>,
    standby: &'a Standby,
    /// Where others reach this one.
    peer: &'a NodeAddress,
    nodes: Nodes,
    table: Option<Table>,
    table_read: Instant,
    /// When it was last tried to reach the active sidecar, and what came of it.
    reached: Option<(Instant, Reached)>,
}

/// What came of trying to reach the active sidecar.
type Reached = Result<(), (io::ErrorKind, String)>;

impl Watcher<'_> {
    async fn look(&mut self) -> Result<Verdict, OpenError> {
        let looks = self.nodes.look().await;
        let verdict = judge(self.table.as_ref().map(|table| table.id.as_str()), &looks);
        let is_old = match (&verdict, &self.table) {
            (_, None) => true,
            (Verdict::InUse(claim), Some(table)) if claim.instance != table.instance => true,
            _ => self.table_read.elapsed() > TABLE_INTERVAL,
        };
        if is_old && let Some(mut table) = self.latest_table().await {
            settings_fit(self.config, &table)?;
            use_addresses(self.config, &mut table);
            self.nodes.follow(self.config, &table);
            self.compare_login(&table);
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
        let instance = &claim.instance;
        let Some(table) = self.table.as_ref().filter(|table| table.instance == *instance) else {
            self.reached = None;
            let why = format!("another sidecar (instance {instance}) is taking the pool over");
            Service::waits(self.service, &why);
            return;
        };
        let Some(address) = table.peer.clone() else {
            let why = format!(
                "another sidecar (instance {instance}) serves this pool, and says no address to which its clients could be passed on: set its \
                 listen.peer, or stop it"
            );
            return Service::nobody(self.service, &why);
        };
        let active = Active {
            instance: instance.clone(),
            term: claim.term,
            address,
        };
        let address = active.address.to_string();
        if let Err((kind, error)) = self.reach().await {
            if kind == io::ErrorKind::WouldBlock {
                let why = format!("the sidecar at {address} is about to serve the pool");
                Service::waits(self.service, &why);
                return;
            }
            let what =
                format!("the sidecar that serves this pool, at {address}, cannot be reached from here");
            // That it fails in another way is no news.
            let is_said = |why: &str| why.starts_with(&what);
            if !self.service.borrow().waits_for().is_some_and(is_said) {
                Service::nobody(self.service, &format!("{what} ({error})"));
            }
            return;
        }
        let is_news = self.service.send_if_modified(|service| match service {
            Service::There(before) if **before == active => false,
            _ => {
                *service = Service::There(Arc::new(active));
                true
            }
        });
        if is_news {
            info!(address, term = claim.term, "standing by: clients are passed on");
        }
    }

    /// Tries whether the active sidecar can be reached: now and then, and when it seems not to be.
    async fn reach(&mut self) -> Reached {
        let is_recent = |(at, reached): &(Instant, Reached)| reached.is_ok() && at.elapsed() < REACH_INTERVAL;
        let refuses = self.standby.refuses.swap(false, Relaxed);
        if refuses || !self.reached.as_ref().is_some_and(is_recent) {
            let reached = match self.table.as_ref().and_then(|table| table.peer.as_ref()) {
                Some(address) => relay::probe(address, self.config.timeouts.connect).await,
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            let reached = reached.map_err(|error| (error.kind(), error.to_string()));
            self.reached = Some((Instant::now(), reached));
        }
        self.reached.clone().map_or(Ok(()), |(_, reached)| reached)
    }

    /// What happened, for who reads the log later.
    fn say_why(&self, term: u64, free: Duration) {
        let former = self.table.as_ref().filter(|table| table.term == term);
        let former = former
            .and_then(|table| table.peer.as_ref())
            .map(ToString::to_string);
        let (takeover, former) = (self.config.timeouts.takeover, former.unwrap_or_default());
        let seen_ms = free.as_millis();
        info!(
            term,
            former,
            seen_ms,
            "no sidecar uses most of the nodes (no connection, or a silence of {takeover:?}): taking the pool over"
        );
    }

    /// Whoever takes over should let the same clients in.
    fn compare_login(&self, table: &Table) {
        let is_news = self
            .table
            .as_ref()
            .is_none_or(|known| known.instance != table.instance);
        if let Some(peer) = table.peer.as_ref().filter(|_| is_news)
            && table.login != login_digest(self.config, &table.id)
        {
            warn!(
                "listen.user or listen.password is not that of the sidecar that serves the pool, at {peer}: its clients would not be let in \
                 here, or without a password. Make them the same everywhere"
            );
        }
    }

    /// Whether the process that served with this term is not there any more, as far as it can be known.
    async fn is_gone(&mut self, term: u64) -> bool {
        let Some(table) = &self.table else {
            return term == 0;
        };
        if table.term != term {
            return false;
        }
        // Its port is ours, or closed.
        if table.peer.as_ref() == Some(self.peer) {
            return true;
        }
        self.reached = None;
        matches!(self.reach().await, Err((io::ErrorKind::ConnectionRefused, _)))
    }

    fn miss_record(&self) {
        let why = format!(
            "a sidecar uses the nodes, and its record is not in their database {}: is pool.bookkeeping_db what it was when the pool was made?",
            self.config.pool.bookkeeping_db
        );
        Service::nobody(self.service, &why);
    }

    async fn wait_for_nodes(&mut self, answer: usize) {
        let nodes = self.nodes.len();
        // Those that have just come tell in a moment.
        if answer * 2 > nodes {
            return;
        }
        // Without them clients can still be passed on.
        let is_there = matches!(*self.service.borrow(), Service::There(_));
        if is_there && self.reach().await.is_ok() {
            return;
        }
        let why = format!(
            "{answer} of {nodes} nodes answer, too few to tell whether another sidecar serves the pool; {}",
            self.nodes.troubles().join("; ")
        );
        Service::nobody(self.service, &why);
    }

    /// Until the next look.
    async fn pause(&self, verdict: &Verdict) {
        // Not more often than so, whatever clients do.
        tokio::time::sleep(LOOK_PAUSE_HURRIED).await;
        let is_there = matches!(*self.service.borrow(), Service::There(_));
        if is_there && !matches!(verdict, Verdict::Free(_)) {
            let lost = self.standby.lost.notified();
            drop(tokio::time::timeout(LOOK_PAUSE - LOOK_PAUSE_HURRIED, lost).await);
        }
    }
}
