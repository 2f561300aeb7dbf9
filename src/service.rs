//! Who serves the pool's clients, as far as this sidecar knows: it itself, another one, or nobody for the moment.
//!
//! One value, which the sidecar's life changes (`serve`, `standby`), and everybody else looks at: the door, where clients come in, and the
//! admin port.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tracing::warn;

use crate::config::NodeAddress;
use crate::shared::Shared;

/// Who serves.
#[derive(Clone, Debug)]
pub enum Service {
    /// Nobody.
    Nobody(Wait),
    /// This sidecar.
    Here(Arc<Shared>),
    /// Another one, to which clients are passed on.
    There(Arc<Active>),
}

/// What is waited for.
#[derive(Clone, Debug, Default)]
pub struct Wait {
    /// The rest of a sentence, for people; nothing as long as all goes its way.
    pub why: String,
    /// Since when there has been a reason to tell.
    pub since: Option<Instant>,
}

/// The sidecar that serves the pool, as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Which life of it.
    pub instance: String,
    /// The term that it serves with.
    pub term: u64,
    /// Where other sidecars reach it.
    pub address: NodeAddress,
}

impl Service {
    /// Before anything is known.
    pub fn channel() -> (watch::Sender<Self>, watch::Receiver<Self>) {
        watch::channel(Self::Nobody(Wait::default()))
    }

    /// Notes that nobody serves for the moment, which is as it should be.
    pub fn opening(service: &watch::Sender<Self>) {
        service.send_replace(Self::Nobody(Wait::default()));
    }

    /// Notes why nobody serves, and since when; whether that is news.
    pub fn waits(service: &watch::Sender<Self>, why: &str) -> bool {
        service.send_if_modified(|service| {
            let since = match service {
                Self::Nobody(wait) if wait.why == why => return false,
                Self::Nobody(wait) => wait.since,
                _ => None,
            };
            *service = Self::Nobody(Wait {
                why: why.to_owned(),
                since: since.or_else(|| Some(Instant::now())),
            });
            true
        })
    }

    /// The same, and says it.
    pub fn nobody(service: &watch::Sender<Self>, why: &str) {
        if Self::waits(service, why) {
            warn!("not serving yet: {why}");
        }
    }

    /// Why nobody serves; `None` if somebody does.
    pub fn waits_for(&self) -> Option<&str> {
        match self {
            Self::Nobody(wait) if wait.why.is_empty() => Some("the pool is being opened"),
            Self::Nobody(wait) => Some(&wait.why),
            _ => None,
        }
    }
}
