//! What must hold between settings: the second pass of the check.
//!
//! A rule looks only at values that are good by themselves; where one of its values was reported already, it is silent.

use super::address::NodeAddress;
use super::check::{Findings, Value};
use super::{Pool, majority};
use crate::limits;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Reports everything that does not fit together.
pub(super) fn check(findings: &mut Findings<'_>) {
    listeners(findings);
    peers(findings);
    copies(findings);
    nodes(findings);
    passwords(findings);
}

/// Whether the file has this setting, good or not.
fn is_given(findings: &Findings<'_>, setting: &str) -> bool {
    findings.noted(setting).is_some()
}

fn line(findings: &Findings<'_>, setting: &str) -> Option<usize> {
    findings.noted(setting).map(|noted| noted.line)
}

/// The number that holds for a setting. None if what is written is no good.
fn number(findings: &Findings<'_>, setting: &str, default: Option<u64>) -> Option<u64> {
    match findings.noted(setting) {
        None => default,
        Some(noted) => match noted.value {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        },
    }
}

fn listener(findings: &Findings<'_>, setting: &str) -> Option<SocketAddr> {
    match findings.noted(setting)?.value {
        // Every free port is another one.
        Some(Value::Listen(address)) if address.port() != 0 => Some(address),
        _ => None,
    }
}

fn text<'f>(findings: &'f Findings<'_>, setting: &str) -> Option<&'f str> {
    match &findings.noted(setting)?.value {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn listeners(findings: &mut Findings<'_>) {
    if !is_given(findings, "listen.tcp") && !is_given(findings, "listen.unix") {
        let message = "clients have nowhere to connect: set listen.tcp, listen.unix or both".to_owned();
        findings.report(line(findings, "listen"), "listen", message);
    }
    const LISTENERS: [&str; 3] = ["listen.tcp", "listen.admin", "listen.peer"];
    for (i, setting) in LISTENERS.into_iter().enumerate() {
        let address = listener(findings, setting);
        let same = |other: &str| address.is_some() && listener(findings, other) == address;
        if let Some(other) = LISTENERS.into_iter().take(i).find(|other| same(other)) {
            let message = format!("is the address of {other} too: give it another port");
            findings.report(line(findings, setting), setting, message);
        }
    }
}

/// Other sidecars must be told an address at which they reach this one.
fn peers(findings: &mut Findings<'_>) {
    let value_of = |setting: &str| findings.noted(setting).and_then(|noted| noted.value.clone());
    if !is_given(findings, "listen.advertise") {
        if let Some(Value::Listen(peer)) = value_of("listen.peer")
            && peer.ip().is_unspecified()
        {
            let message = "is every interface, and the other sidecars must be told one address: set listen.advertise to the \
                           one at which they reach this host";
            findings.report(line(findings, "listen.peer"), "listen.peer", message.to_owned());
        }
        return;
    }
    let wrong = match value_of("listen.advertise") {
        _ if !is_given(findings, "listen.peer") => {
            Some("has no effect without listen.peer: set that too, or remove it".to_owned())
        }
        Some(Value::Node(NodeAddress::Unix(_))) => {
            Some("is a unix socket, which other hosts cannot reach: give a host and a port".to_owned())
        }
        Some(Value::Node(address)) if address.is_unspecified() => Some(
            "is every interface: give the address at which the other sidecars reach this host".to_owned(),
        ),
        Some(Value::Node(address)) => ["listen.tcp", "listen.admin"]
            .into_iter()
            .find(|setting| leads_to(findings, &address, setting))
            .map(|setting| format!("is our own {setting}: the other sidecars use the port of listen.peer")),
        _ => None,
    };
    if let Some(message) = wrong {
        let at = line(findings, "listen.advertise");
        findings.report(at, "listen.advertise", message);
    }
}

/// `1 <= W <= min_in_sync <= R <= nodes`.
fn copies(findings: &mut Findings<'_>) {
    let default = Pool::default().replicas as u64;
    let Some(replicas) = number(findings, "pool.replicas", Some(default)) else {
        return;
    };
    let nodes = findings.node_lines.len() as u64;
    if nodes > 0 && replicas > nodes {
        let message = format!(
            "{replicas} copies need at least as many nodes, and there are {nodes}: add nodes, or set pool.replicas = {nodes}"
        );
        findings.report(line(findings, "pool.replicas"), "pool.replicas", message);
    }

    let majority = majority(usize::try_from(replicas).unwrap_or(usize::MAX)) as u64;
    let write_quorum = number(findings, "pool.write_quorum", Some(majority));
    let too_many = |setting: &str, value: u64| {
        format!(
            "{value} is more than replicas ({replicas}): set {setting} to {replicas} or less, or raise replicas"
        )
    };
    if let Some(value) = write_quorum.filter(|value| *value > replicas) {
        let message = too_many("write_quorum", value);
        findings.report(line(findings, "pool.write_quorum"), "pool.write_quorum", message);
        return;
    }
    let Some(min_in_sync) = number(findings, "pool.min_in_sync", None) else {
        return;
    };
    let at = line(findings, "pool.min_in_sync");
    if min_in_sync > replicas {
        findings.report(at, "pool.min_in_sync", too_many("min_in_sync", min_in_sync));
    } else if let Some(write_quorum) = write_quorum.filter(|write_quorum| min_in_sync < *write_quorum) {
        let message = format!(
            "{min_in_sync} is less than write_quorum ({write_quorum}), so writes would wait for copies that cannot be made: \
             set it to {write_quorum} or more, or remove it"
        );
        findings.report(at, "pool.min_in_sync", message);
    }
}

fn nodes(findings: &mut Findings<'_>) {
    let lines = findings.node_lines.clone();
    if lines.is_empty() {
        // One that is not an array was reported already.
        if !is_given(findings, "nodes") {
            let message =
                "there are no nodes: add a [[nodes]] section with name and address for each Redis server";
            findings.report(None, "nodes", message.to_owned());
        }
        return;
    }
    if lines.len() > limits::NODES_MAX {
        let message = format!(
            "{} nodes are too many: a pool has at most {}",
            lines.len(),
            limits::NODES_MAX
        );
        findings.report(lines.get(limits::NODES_MAX).copied(), "nodes", message);
    }
    // Where each name and address was first.
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut addresses: BTreeMap<NodeAddress, usize> = BTreeMap::new();
    for (index, node_line) in lines.into_iter().enumerate() {
        let name_path = format!("nodes[{index}].name");
        let address_path = format!("nodes[{index}].address");
        for (path, key) in [(&name_path, "name"), (&address_path, "address")] {
            if !is_given(findings, path) {
                findings.report(
                    Some(node_line),
                    path,
                    format!("is missing: give this node its {key}"),
                );
            }
        }
        if let Some(name) = text(findings, &name_path) {
            let first = *names.entry(name.to_owned()).or_insert(index);
            if first != index {
                let message =
                    format!("\"{name}\" is the name of nodes[{first}] too: give each node a name of its own");
                findings.report(line(findings, &name_path), &name_path, message);
            }
        }
        let Some(Value::Node(address)) = findings
            .noted(&address_path)
            .and_then(|noted| noted.value.clone())
        else {
            continue;
        };
        let first = *addresses.entry(address.canonical()).or_insert(index);
        if first != index {
            let message = format!(
                "is the address of nodes[{first}] too: two copies on one server are one copy, give each node its own"
            );
            findings.report(line(findings, &address_path), &address_path, message);
        }
        for setting in ["listen.tcp", "listen.unix", "listen.admin", "listen.peer"] {
            if leads_to(findings, &address, setting) {
                let message = format!("is our own {setting}: give the address of the Redis server");
                findings.report(line(findings, &address_path), &address_path, message);
            }
        }
    }
}

/// Whether who connects to `address` reaches our own listener.
fn leads_to(findings: &Findings<'_>, address: &NodeAddress, setting: &str) -> bool {
    match text(findings, setting) {
        Some(path) => address.canonical() == NodeAddress::Unix(PathBuf::from(path)).canonical(),
        None => listener(findings, setting).is_some_and(|listener| address.reaches(listener)),
    }
}

/// A user without a password has no effect on clients, and cannot log in to a node.
fn passwords(findings: &mut Findings<'_>) {
    let of_nodes = (0..findings.node_lines.len()).map(|index| format!("nodes[{index}]"));
    for owner in std::iter::once("listen".to_owned()).chain(of_nodes) {
        let user = format!("{owner}.user");
        if is_given(findings, &user) && !is_given(findings, &format!("{owner}.password")) {
            let message = format!("has no effect without a password: set {owner}.password too, or remove it");
            findings.report(line(findings, &user), &user, message);
        }
    }
}
