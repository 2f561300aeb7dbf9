//! Several sidecars for one pool: one serves, the others pass their clients on to it, and take over when it has gone.

mod clients;
mod needless;
mod settings;
mod takeover;

use crate::cmd;
use crate::convergence::assert_converged;
use crate::faults::{RECOVERY_MAX, workload::Workload};
use crate::harness::{
    Client, Endpoint, Flow, Pool, Relay, Rng, Sidecar, SidecarConfig, seed, wait_for, wait_until,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// All clients' work, through all sidecars.
fn work(group: &Group, seed: u64) -> Workload {
    let endpoints: Vec<Endpoint> = group.sidecars.iter().map(Sidecar::endpoint).collect();
    Workload::start_at(&endpoints, seed)
}

#[track_caller]
fn wait_progress(workload: &Workload) {
    let before = workload.acknowledged();
    wait_until("clients get work done", SERVED_WITHIN, || {
        workload.acknowledged() > before + 200
    });
}

#[track_caller]
fn finish(group: &Group, workload: Workload, seed: u64) -> Duration {
    let active = group.active();
    active.wait_all_in_sync(&group.pool, RECOVERY_MAX);
    wait_progress(&workload);
    let outcome = workload.finish(&active.endpoint());
    outcome.check(seed);
    assert_converged(&group.pool, active);
    outcome.longest_gap
}

/// Whether that is what a client is told which is not served.
fn says(sidecar: &Sidecar, why: &str) -> bool {
    let client = Client::try_connect(&sidecar.endpoint());
    let said = client.and_then(|mut client| client.try_call(&cmd!["GET", "k"]));
    let is_it = |error: &str| error.contains("LOADING") && error.contains(why);
    said.is_ok_and(|reply| reply.error().is_some_and(is_it))
}

fn placeholder() -> Endpoint {
    Endpoint::Tcp(([127, 0, 0, 1], 1).into())
}
