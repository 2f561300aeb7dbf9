//! Striped lists and streams while sidecars are killed, a node dies and another one is added: nothing that was acknowledged is lost, and
//! nothing that was taken comes again.

use super::*;
use crate::faults::RECOVERY_MAX;
use crate::harness::{Client, Endpoint, Reply};
use serde_json::json;
use std::sync::Mutex;

fn queues(pool: &Pool) -> SidecarConfig {
    let rules = "about = \"queues\"\nkey = [{ pattern = \"list:{name}\", role = \"list\" }, { pattern = \"stream:{name}\", role = \"stream\" }]";
    SidecarConfig::of(pool, 3)
        .threads(2)
        .with("pool", "profile = \"mine\"\nsegment_len = 6")
        .with("profiles.mine", rules)
}

/// How often the sidecar is killed.
const KILLS: usize = 2;

/// What became of each element, as its client was told.
#[derive(Default)]
struct Story {
    pushed: Mutex<HashSet<String>>,
    /// Elements that were to be pushed, and pops: nobody knows.
    unknown_pushes: Mutex<HashSet<String>>,
    unknown_pops: Mutex<usize>,
    popped: Mutex<Vec<String>>,
    added: Mutex<Vec<String>>,
}

/// A client that connects again as long as it takes.
struct Stubborn {
    to: Endpoint,
    client: Option<Client>,
}

impl Stubborn {
    /// The reply, unless the connection broke.
    fn call(&mut self, command: &[Vec<u8>], over: &AtomicBool) -> Option<Reply> {
        while self.client.is_none() {
            if over.load(Relaxed) {
                return None;
            }
            self.client = Client::try_connect(&self.to).ok();
            std::thread::sleep(Duration::from_millis(5));
        }
        let reply = self.client.as_mut()?.try_call(command).ok();
        if reply.is_none() {
            self.client = None;
        }
        reply
    }
}

fn produce(to: Endpoint, name: usize, story: &Story, over: &AtomicBool) {
    let mut client = Stubborn { to, client: None };
    for n in 0.. {
        if over.load(Relaxed) {
            return;
        }
        let element = format!("{name}:{n}");
        let push = if n % 5 == 0 { "LPUSH" } else { "RPUSH" };
        match client.call(&cmd![push, "list:q", element], over) {
            Some(reply) if reply.int().is_some() => {
                assert!(story.pushed.lock().unwrap().insert(element.clone()))
            }
            Some(reply) if reply.error().unwrap().starts_with("NOREPLICAS") => {}
            _ => assert!(story.unknown_pushes.lock().unwrap().insert(element.clone())),
        }
        if let Some(reply) = client.call(&cmd!["XADD", "stream:q", "*", "v", element], over)
            && reply.error().is_none()
        {
            story.added.lock().unwrap().push(element);
        }
    }
}

fn consume(to: Endpoint, name: usize, story: &Story, over: &AtomicBool) {
    let mut client = Stubborn { to, client: None };
    while !over.load(Relaxed) {
        let command = match name {
            0 => cmd!["RPOP", "list:q"],
            _ => cmd!["LMOVE", "list:q", "list:moved", "LEFT", "RIGHT"],
        };
        match client.call(&command, over) {
            Some(reply) if reply.error().is_some() => {}
            Some(reply) if reply.is_nil() => {}
            Some(reply) if name == 0 => story.popped.lock().unwrap().push(reply.text().unwrap()),
            Some(_) => {}
            None => *story.unknown_pops.lock().unwrap() += usize::from(name == 0),
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    let mut pool = Pool::start(4);
    let sidecar = Sidecar::start(&queues(&pool));
    sidecar.allow_log("");
    pool.start_another();
    let (story, over) = (Story::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for name in 0..3 {
            let (story, over) = (&story, &over);
            let endpoint = sidecar.endpoint();
            scope.spawn(move || produce(endpoint, name, story, over));
        }
        for name in 0..2 {
            let (story, over) = (&story, &over);
            let endpoint = sidecar.endpoint();
            scope.spawn(move || consume(endpoint, name, story, over));
        }
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(500));
            match round {
                0 | 3 => {
                    sidecar.kill9();
                    sidecar.restart();
                }
                1 => pool.nodes[1].kill9(),
                _ => {
                    let new = pool.nodes.last().unwrap();
                    let body = json!({"name": new.name, "address": new.endpoint().to_string()});
                    let (status, answer) = sidecar.ask("POST", "/v1/nodes", &body);
                    assert_eq!(status, 200, "{answer}");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        over.store(true, Relaxed);
    });
    pool.nodes[1].restart();
    sidecar.wait_all_in_sync(&pool, RECOVERY_MAX);
    assert!(segments_of(&sidecar, "list:q") > 3 && segments_of(&sidecar, "stream:q") > 3);
    let mut client = sidecar.client();
    let left = client.call(cmd!["LLEN", "list:q"]).int().unwrap() as usize;
    let mut seen = story.popped.lock().unwrap().clone();
    for key in ["list:q", "list:moved"] {
        let all = ids(&client.call(cmd!["LRANGE", key, 0, -1]));
        assert!(
            key == "list:moved" || all.len() == left,
            "{} of {left}",
            all.len()
        );
        seen.extend(all);
    }
    let distinct: HashSet<&String> = seen.iter().collect();
    // What was being moved from one partition to another when the sidecar died may be in both.
    assert!(
        distinct.len() + KILLS >= seen.len(),
        "{} of {}",
        distinct.len(),
        seen.len()
    );
    let pushed = story.pushed.lock().unwrap();
    let lost: Vec<&String> = pushed
        .iter()
        .filter(|element| !distinct.contains(element))
        .collect();
    let unknown = *story.unknown_pops.lock().unwrap();
    assert!(
        lost.len() <= unknown,
        "{lost:?} are lost, and only {unknown} takings are unknown"
    );
    let invented = |element: &&&String| {
        !pushed.contains(**element) && !story.unknown_pushes.lock().unwrap().contains(**element)
    };
    assert_eq!(distinct.iter().filter(invented).count(), 0);
    let stream = client.call(cmd!["XRANGE", "stream:q", "-", "+"]);
    let entries: Vec<String> = stream
        .items()
        .iter()
        .map(|entry| entry.items()[1].items()[1].text().unwrap())
        .collect();
    assert_eq!(
        client.call(cmd!["XLEN", "stream:q"]).int(),
        Some(entries.len() as i64)
    );
    let there: HashSet<&String> = entries.iter().collect();
    assert_eq!(there.len(), entries.len(), "each once");
    let added = story.added.lock().unwrap();
    assert_eq!(added.iter().filter(|element| !there.contains(element)).count(), 0);
    // As one producer has added them.
    for name in 0..3 {
        let numbers = entries.iter().filter_map(|element| {
            let (producer, n) = element.split_once(':')?;
            (producer == name.to_string()).then(|| n.parse::<usize>().unwrap())
        });
        assert!(numbers.is_sorted());
    }
    assert_converged(&pool, &sidecar);
    println!(
        "{} pushed, {} popped, {} added, {unknown} takings unknown",
        pushed.len(),
        story.popped.lock().unwrap().len(),
        added.len()
    );
}
