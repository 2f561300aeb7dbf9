//! Who serves the pool's clients, as far as this sidecar knows: it itself, another one, or nobody for the moment.
//!
//! One value, which the sidecar's life changes (`serve`, `standby`), and everybody else looks at: the door, where clients come in, and the
//! admin port.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use crate::config::NodeAddress;
use crate::shared::Shared;

/// Who serves.
#[derive(Clone, Debug)]
pub enum Service {
    /// Nobody, and why. Nothing is written while the pool is just being opened.
    Nobody(String),
    /// This sidecar.
    Here(Arc<Shared>),
    /// Another one, to which clients are passed on.
    There(Arc<Active>),
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
        watch::channel(Self::Nobody(String::new()))
    }

    /// Notes why nobody serves; says it, if that is news.
    pub fn nobody(service: &watch::Sender<Self>, why: String) {
        let changed = service.send_if_modified(|service| match service {
            Self::Nobody(before) if *before == why => false,
            _ => {
                *service = Self::Nobody(why.clone());
                true
            }
        });
        if changed && !why.is_empty() {
            warn!("not serving yet: {why}");
        }
    }

    /// Why nobody serves; `None` if somebody does.
    pub fn waits_for(&self) -> Option<&str> {
        match self {
            Self::Nobody(why) if why.is_empty() => Some("the pool is being opened"),
            Self::Nobody(why) => Some(why),
            _ => None,
        }
    }
}
