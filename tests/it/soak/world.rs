//! The pool under test: nodes behind relays, and the sidecar that serves them at the moment.

use super::front::{Front, Kind};
use super::shape::{NODES_MAX, Shape};
use crate::harness::{
    Node, NodeEntry, NodeOptions, Pool, Relay, Reply, Rng, Sidecar, SidecarConfig, wait_for, wait_until,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long all that was moved or lost may take until it is where it should be.
pub const HEAL_MAX: Duration = Duration::from_secs(60);

/// Which keys of the work are striped, where any are. (Those of scripts, and those that are in one partition on purpose, are not.)
const STRIPED: &str = r#"
about = "what the soak does"
key = [
    { pattern = "jobs", role = "list" },
    { pattern = "jobs:doing:{worker}:{life}", role = "list" },
    { pattern = "waiting-{name}", role = "list" },
    { pattern = "page-list", role = "list" },
    { pattern = "huge", role = "list" },
    { pattern = "stream", role = "stream" },
]"#;

pub struct World {
    pub shape: Shape,
    pub front: Arc<Front>,
    /// Its members, those that are being drained too.
    pub pool: Pool,
    pub relays: BTreeMap<String, Relay>,
    /// The first one serves. Empty only between two of them.
    sidecars: Vec<Sidecar>,
    named: usize,
}

impl World {
    pub fn start(shape: Shape) -> Self {
        let pool = Pool::start(shape.nodes);
        let mut relays = BTreeMap::new();
        for node in &pool.nodes {
            relays.insert(node.name.clone(), Relay::start(&node.endpoint()));
        }
        let config = config(shape, &pool, &relays);
        let sidecars: Vec<Sidecar> = (0..shape.sidecars).map(|_| Sidecar::start(&config)).collect();
        sidecars.iter().for_each(allow_trouble);
        Self {
            shape,
            front: Arc::new(Front::new(sidecars.iter().map(Sidecar::endpoint).collect())),
            named: pool.nodes.len(),
            pool,
            relays,
            sidecars,
        }
    }

    pub fn sidecar(&self) -> &Sidecar {
        self.sidecars.first().expect("there is a sidecar")
    }

    /// The sidecar is killed, and started again some time later.
    pub fn restart_sidecar(&mut self, rng: &mut Rng) {
        self.sidecar().kill9();
        let pause = Duration::from_millis(rng.between(0, 300) as u64);
        if self.shape.sidecars > 1 {
            std::thread::sleep(pause);
            // Nodes that are in the file may have left the pool.
            self.sidecar()
                .configure(&config(self.shape, &self.pool, &self.relays));
            self.sidecar().launch();
            return self.find_active();
        }
        let old = self.sidecars.remove(0);
        std::thread::sleep(pause);
        self.serve(&old);
    }

    /// Waits until one of them serves, and the others stand by.
    fn find_active(&mut self) {
        let serving = || {
            let all_ready = self.sidecars.iter().all(Sidecar::ready);
            let mut serving = (0..).zip(&self.sidecars).filter(|(_, sidecar)| sidecar.serves());
            let (at, _) = serving.next()?;
            (all_ready && serving.next().is_none()).then_some(at)
        };
        let active = wait_for(HEAL_MAX, serving).expect("one of the sidecars serves");
        self.sidecars.swap(0, active);
    }

    /// Another sidecar takes over while the first one hangs, or for the asking; the first one stands by, or ends by itself.
    pub fn take_over(&mut self) {
        if self.shape.sidecars > 1 {
            self.sidecar().stop();
            let others = &self.sidecars[1..];
            wait_until("another sidecar serves", HEAL_MAX, || {
                others.iter().any(Sidecar::serves)
            });
            self.sidecar().cont();
            return self.find_active();
        }
        let old = self.sidecars.remove(0);
        old.allow_log("");
        old.allow_log("exit");
        self.serve(&old);
        let status = old.wait_exit(Duration::from_secs(15));
        assert_eq!(
            status.code(),
            Some(3),
            "it says that it was fenced:\n{}",
            old.log()
        );
    }

    fn serve(&mut self, _old: &Sidecar) {
        let new = Sidecar::spawn(&config(self.shape, &self.pool, &self.relays));
        allow_trouble(&new);
        self.front.move_to(new.endpoint());
        new.wait_ready();
        self.sidecars.push(new);
    }

    /// What the admin port knows of the nodes.
    pub fn nodes(&self) -> Vec<Value> {
        let nodes = self.sidecar().admin("/v1/nodes");
        nodes.as_array().expect("an array").clone()
    }

    /// Waits until the server that runs now has been claimed: what is said of it then is not of an earlier one.
    pub fn wait_claimed(&self, name: &str) {
        let node = self.pool.node(name);
        wait_until(&format!("node {name} is claimed"), HEAL_MAX, || {
            let users = node.client().call(crate::cmd!["ACL", "USERS"]);
            let is_ours = |user: &Reply| user.text().is_some_and(|user| user.starts_with("rf-"));
            users.items().iter().any(is_ours)
        });
    }

    pub fn wait_in_sync(&self) {
        let not_in_sync = || -> Vec<Value> {
            let nodes = self.nodes().into_iter();
            nodes.filter(|node| node["state"] != "in_sync").collect()
        };
        if wait_for(HEAL_MAX, || not_in_sync().is_empty().then_some(())).is_none() {
            let ring = self.sidecar().admin("/v1/ring");
            panic!("not in sync after {HEAL_MAX:?}: {:?}\n{ring}", not_in_sync());
        }
    }

    #[track_caller]
    fn change(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.sidecar().ask(method, path, body);
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        answer
    }

    /// A node more.
    pub fn add_node(&mut self) -> String {
        let name = format!("n{}", self.named);
        self.named += 1;
        let node = Node::start(&name, NodeOptions::default());
        let relay = Relay::start(&node.endpoint());
        let body = json!({"name": name, "address": relay.endpoint().to_string()});
        self.change("POST", "/v1/nodes", &body);
        self.pool.nodes.push(node);
        self.relays.insert(name.clone(), relay);
        name
    }

    pub fn has_room(&self) -> bool {
        self.pool.nodes.len() < NODES_MAX
    }

    /// Nodes that could be drained.
    pub fn can_go(&self) -> Vec<String> {
        let nodes = self.nodes();
        let staying = nodes
            .iter()
            .filter(|node| node["status"] != "draining" && node["status"] != "drained");
        let names: Vec<String> = staying
            .filter_map(|node| node["name"].as_str().map(str::to_owned))
            .collect();
        match names.len() > self.shape.replicas {
            true => names,
            false => Vec::new(),
        }
    }

    pub fn drain(&self, name: &str) {
        self.change("POST", &format!("/v1/nodes/{name}/drain"), &Value::Null);
    }

    pub fn set_weight(&self, name: &str, weight: i64) {
        self.change("PATCH", &format!("/v1/nodes/{name}"), &json!({"weight": weight}));
    }

    pub fn pause(&self) {
        self.change("POST", "/v1/ring/pause", &Value::Null);
    }

    pub fn resume(&self) {
        self.change("POST", "/v1/ring/resume", &Value::Null);
    }

    /// Whether there was something to cancel.
    pub fn cancel(&self) -> bool {
        let (status, answer) = self.sidecar().ask("POST", "/v1/ring/cancel", &Value::Null);
        let nothing = answer["error"]
            .as_str()
            .is_some_and(|said| said.contains("nothing is under way"));
        assert!(status == 200 || (status == 409 && nothing), "{answer}");
        status == 200
    }

    /// Takes nodes out of the pool that have been drained. How many are still on their way out.
    pub fn remove_drained(&mut self) -> usize {
        let mut left = 0;
        for node in self.nodes() {
            let name = node["name"].as_str().expect("a name").to_owned();
            match node["status"].as_str() {
                Some("draining") => left += 1,
                Some("drained") => {
                    let (status, answer) =
                        self.sidecar()
                            .ask("DELETE", &format!("/v1/nodes/{name}"), &Value::Null);
                    // Its leaving is not recorded yet.
                    let still_holds = answer["error"]
                        .as_str()
                        .is_some_and(|said| said.contains("holds"));
                    assert!(status == 200 || (status == 409 && still_holds), "{answer}");
                    if status == 200 {
                        self.front.event(&format!("node {name} is removed"));
                        self.pool.nodes.retain(|node| node.name != name);
                        self.relays.remove(&name);
                    } else {
                        left += 1;
                    }
                }
                _ => {}
            }
        }
        left
    }

    /// Whether everything is where it should be.
    pub fn is_settled(&self) -> bool {
        let ring = self.sidecar().admin("/v1/ring");
        let fits = |node: &Value| node["holds"] == node["wanted"];
        ring["state"] == "settled"
            && ring["nodes"]
                .as_array()
                .is_some_and(|nodes| nodes.iter().all(fits))
    }

    /// Waits until nothing is left to be done.
    pub fn wait_healed(&mut self) {
        self.wait_in_sync();
        if wait_for(HEAL_MAX, || {
            (self.remove_drained() == 0 && self.is_settled()).then_some(())
        })
        .is_none()
        {
            let (ring, nodes) = (self.sidecar().admin("/v1/ring"), self.nodes());
            panic!("not settled after {HEAL_MAX:?}: {ring}\n{nodes:?}");
        }
        self.wait_in_sync();
        self.front.close(Kind::Ring);
    }
}

fn config(shape: Shape, pool: &Pool, relays: &BTreeMap<String, Relay>) -> SidecarConfig {
    let mut config = SidecarConfig::of(pool, shape.replicas)
        .threads(shape.threads)
        .with(
            "timeouts",
            &format!("replace_after = \"{}ms\"", shape.replace_after_ms),
        )
        .with("limits", &format!("copy_rate = \"{}KiB\"", shape.copy_rate_kib));
    let of = |entry: NodeEntry| NodeEntry {
        address: relays[&entry.name].endpoint().to_string(),
        ..entry
    };
    config.nodes = config.nodes.into_iter().map(of).collect();
    if shape.sidecars > 1 {
        config = config.standing_by();
    }
    if let Some(len) = shape.segment_len {
        config = config
            .with("pool", &format!("profile = \"mine\"\nsegment_len = {len}"))
            .with("profiles.mine", STRIPED);
    }
    config
}

/// What a sidecar may log while its nodes come and go.
fn allow_trouble(sidecar: &Sidecar) {
    for words in [
        "node",
        "took over",
        "quorum",
        "NOREPLICAS",
        "not serving yet",
        "fenced, and stands by",
    ] {
        sidecar.allow_log(words);
    }
}
