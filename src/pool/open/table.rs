//! Which table a pool is opened with: the latest that the nodes have, or a new one.

use std::collections::HashMap;

use rand::RngExt;
use tracing::info;

use super::visit::Reached;
use super::{OpenError, Setback};
use crate::config::Config;
use crate::node::listed;
use crate::pool::table::{Table, TableNode};

/// Two names for one server would be two copies of everything in one place: such names, and what to do.
pub(super) fn same_server_twice(reached: &HashMap<String, Reached>) -> Vec<(Vec<String>, String)> {
    let mut by_run: HashMap<&str, Vec<String>> = HashMap::new();
    for (name, found) in reached {
        by_run.entry(&found.facts.run_id).or_default().push(name.clone());
    }
    by_run
        .into_values()
        .filter(|names| names.len() > 1)
        .map(|mut names| {
            names.sort_unstable();
            let line = format!(
                "nodes {} are one and the same server: two copies there would be lost together. Give each node a \
                 server of its own in proxy.toml",
                names.join(" and ")
            );
            (names, line)
        })
        .collect()
}

/// Nodes that hold keys, for which a new pool has no use: of several nodes each would have others, and those that are not where the
/// ring wants them would be lost.
fn in_use(reached: &HashMap<String, Reached>) -> Vec<String> {
    let mut lines: Vec<String> = reached
        .iter()
        .filter(|(_, found)| reached.len() > 1 && !found.facts.in_use.is_empty())
        .map(|(name, found)| {
            format!(
                "node {name:?} holds keys (in database {}), and knows no pool: a new pool is made of empty nodes only. Empty it with FLUSHALL \
                 if nobody needs them. If it is a node of a pool, set pool.bookkeeping_db to what it was when that was made",
                listed(&found.facts.in_use)
            )
        })
        .collect();
    lines.sort_unstable();
    lines
}

/// The latest table among the nodes, or that of a new pool if no node has ever been in one.
pub(super) fn find_table(
    config: &Config,
    reached: &HashMap<String, Reached>,
    absent: &[String],
) -> Result<Table, Setback> {
    let latest = reached
        .values()
        .filter_map(|r| r.table.as_ref())
        .max_by_key(|table| table.stamp());
    if let Some(latest) = latest {
        for (name, found) in reached {
            if let Some(other) = &found.table
                && (other.id != latest.id || other.pool != config.pool.name)
            {
                return Err(OpenError::Nodes(vec![format!(
                    "node {name:?} belongs to another pool ({:?}, id {}): give this pool a node of its own, or, if that \
                     pool is gone for good, empty the node with FLUSHALL",
                    other.pool, other.id
                )])
                .into());
            }
        }
        let mut table = latest.clone();
        use_addresses(config, &mut table);
        return Ok(table);
    }
    if !absent.is_empty() {
        return Err(Setback::Wait(format!(
            "no node that answers knows the pool, and a new one is only made when all nodes are there; {}",
            absent.join("; ")
        )));
    }
    let in_use = in_use(reached);
    if !in_use.is_empty() {
        return Err(OpenError::Nodes(in_use).into());
    }
    let nodes = config
        .nodes
        .iter()
        .map(|n| TableNode::new(n.name.clone(), n.address.clone(), n.weight, n.zone.clone()))
        .collect();
    let pool = &config.pool;
    let id = format!("{:016x}", rand::rng().random::<u64>());
    info!(pool = pool.name, id, "making a new pool");
    let profile = config.profile();
    Ok(Table {
        profile: pool.profile.clone(),
        rules: profile.keys.into(),
        ..Table::create(
            &pool.name,
            id,
            nodes,
            pool.partitions,
            pool.replicas as u32,
            pool.write_quorum as u32,
        )
    })
}

/// A node may have moved; its name is what counts, and `proxy.toml` says where it is.
pub(crate) fn use_addresses(config: &Config, table: &mut Table) {
    for node in &mut table.nodes {
        if let Some(configured) = config.nodes.iter().find(|n| n.name == node.name) {
            node.address = configured.address.clone();
        }
    }
}

/// A digest of what clients must send, if anything. Who can read it can read all that the pool holds.
pub(crate) fn login_digest(config: &Config, pool: &str) -> Option<String> {
    let password = config.listen.password.as_ref()?;
    let user = config.listen.user();
    let mut digest = sha1_smol::Sha1::new();
    for part in [pool.as_bytes(), user.as_bytes(), password.expose().as_bytes()] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    Some(digest.digest().to_string())
}

pub(crate) fn settings_fit(config: &Config, table: &Table) -> Result<(), OpenError> {
    let pool = &config.pool;
    let differs = |setting: &str, wanted: String, found: String| {
        (wanted != found).then(|| {
            format!(
                "pool.{setting} is {wanted} in proxy.toml, but the pool was made with {found}: write {found}, or make \
                 a new pool of other nodes"
            )
        })
    };
    let mistakes: Vec<String> = [
        differs("name", format!("{:?}", pool.name), format!("{:?}", table.pool)),
        differs(
            "partitions",
            pool.partitions.to_string(),
            table.partitions().to_string(),
        ),
        differs("replicas", pool.replicas.to_string(), table.replicas.to_string()),
        differs(
            "write_quorum",
            pool.write_quorum.to_string(),
            table.write_quorum.to_string(),
        ),
        differs("profile", format!("{:?}", pool.profile), format!("{:?}", table.profile)),
        (pool.profile == table.profile && config.profile().keys[..] != table.rules[..]).then(|| {
            format!(
                "the keys of profile {:?} are others than those that the pool was made with: what is in the pool would be looked for \
                 elsewhere. Take the former rules ([[key]]), or make a new pool of other nodes",
                pool.profile
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(OpenError::Settings(mistakes.join("\n")))
    }
}
