//! Several sidecars for one pool: one serves, the others pass their clients on to it, and take over when it has gone.

mod clients;
mod takeover;

use crate::harness::{Pool, Sidecar, SidecarConfig, wait_for};
use std::time::Duration;

/// How long it may take until somebody serves, on a machine that is short of time.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

/// Sidecars of one pool, each as on a host of its own.
struct Group {
    pool: Pool,
    sidecars: Vec<Sidecar>,
}

impl Group {
    /// All of them are started at once; one of them serves when this is over.
    fn start(sidecars: usize) -> Self {
        Self::with(sidecars, |config, _| config)
    }

    fn with(sidecars: usize, set: impl Fn(SidecarConfig, usize) -> SidecarConfig) -> Self {
        let pool = Pool::start(3);
        let start = |at| Sidecar::spawn(&set(SidecarConfig::of(&pool, 3).standing_by(), at));
        let sidecars: Vec<Sidecar> = (0..sidecars).map(start).collect();
        for sidecar in &sidecars {
            allow_changes(sidecar);
            sidecar.wait_ready();
        }
        Self { pool, sidecars }
    }

    /// The one that serves: it alone has the pool's documents.
    #[track_caller]
    fn active(&self) -> &Sidecar {
        let serving = || {
            let serving: Vec<&Sidecar> = self.sidecars.iter().filter(|sidecar| sidecar.serves()).collect();
            (serving.len() == 1).then(|| serving[0])
        };
        wait_for(SERVED_WITHIN, serving).unwrap_or_else(|| {
            let logs: Vec<String> = self.sidecars.iter().map(Sidecar::log).collect();
            panic!("not one of them serves:\n{}", logs.join("\n---\n"))
        })
    }

    fn standing_by(&self) -> Vec<&Sidecar> {
        let active: *const Sidecar = self.active();
        let others = self
            .sidecars
            .iter()
            .filter(|sidecar| !std::ptr::eq(*sidecar, active));
        others.collect()
    }

    /// With which term it is served: each take-over has the next one.
    #[track_caller]
    fn term(&self) -> u64 {
        self.active().admin("/v1/pool")["term"].as_u64().expect("a term")
    }
}

/// What a sidecar says while others come and go.
fn allow_changes(sidecar: &Sidecar) {
    sidecar.allow_log("not serving yet: ");
    sidecar.allow_log("this one has been fenced, and stands by");
    sidecar.allow_log("took over");
    sidecar.allow_log("node");
}
