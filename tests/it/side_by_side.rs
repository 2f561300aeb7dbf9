//! Commands in words, sent to a pool and to one plain Redis at once: every reply must be the same.

use crate::convergence::{BOOKKEEPING_DB, assert_converged};
use crate::harness::{Client, Node, NodeOptions, Pool, Sidecar, SidecarConfig};

/// A pool, and one server.
pub struct Both {
    pub sidecar: Sidecar,
    pub pool: Pool,
    pub reference: Node,
}

/// Nodes, copies, worker threads. Where every node has everything and one thread orders it, commands over several partitions are one
/// write; where partitions live on different nodes, or have different owners, they are done in steps; with one copy, no
/// batch is in a transaction.
const SHAPES: [(usize, usize, usize); 6] = [(3, 3, 1), (3, 3, 4), (6, 3, 1), (6, 3, 3), (3, 2, 1), (3, 1, 2)];

impl Both {
    pub fn start(threads: usize) -> Self {
        Self::of(3, 3, threads)
    }

    /// In pools of every shape, one after the other.
    #[allow(clippy::print_stdout, reason = "shown when a test fails")]
    pub fn each(test: impl Fn(&Self)) {
        for (nodes, replicas, threads) in SHAPES {
            println!("{nodes} nodes, R = {replicas}, threads = {threads}");
            test(&Self::of(nodes, replicas, threads));
        }
    }

    pub fn of(nodes: usize, replicas: usize, threads: usize) -> Self {
        let pool = Pool::start(nodes);
        let sidecar = Sidecar::start(&SidecarConfig::of(&pool, replicas).threads(threads));
        let options = NodeOptions::default().with("databases", &BOOKKEEPING_DB.to_string());
        Self {
            pool,
            sidecar,
            reference: Node::start("reference", options),
        }
    }

    /// A client of each.
    pub fn client(&self) -> Pair {
        Pair {
            subject: self.sidecar.client(),
            reference: self.reference.client(),
        }
    }

    pub fn assert_converged(&self) {
        assert_converged(&self.pool, &self.sidecar);
    }
}

/// One client of the pool, one of the plain server.
pub struct Pair {
    pub subject: Client,
    pub reference: Client,
}

impl Pair {
    /// Each line is a command, its words separated by blanks; `''` is an empty word. The replies are compared.
    #[track_caller]
    pub fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.line(line);
        }
    }

    #[track_caller]
    pub fn line(&mut self, line: &str) {
        let found = self.subject.call(words(line));
        let expected = self.reference.call(words(line));
        assert_eq!(found, expected, "{line}\n  pool: {found}\n  Redis: {expected}");
    }

    /// Sends without waiting for the reply.
    pub fn send(&mut self, line: &str) {
        for client in [&mut self.subject, &mut self.reference] {
            client.send_raw(&crate::harness::encode(&words(line))).unwrap();
        }
    }

    /// The reply to what was sent.
    #[track_caller]
    pub fn receive(&mut self, what: &str) {
        let found = self.subject.recv().unwrap();
        let expected = self.reference.recv().unwrap();
        assert_eq!(found, expected, "{what}\n  pool: {found}\n  Redis: {expected}");
    }
}

pub fn words(line: &str) -> Vec<Vec<u8>> {
    line.split_whitespace()
        .map(|word| {
            if word == "''" {
                Vec::new()
            } else {
                word.as_bytes().to_vec()
            }
        })
        .collect()
}
