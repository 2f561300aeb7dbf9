//! Asking the nodes who they are, what they know, and whether they will do.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use tracing::warn;

use super::table::{find_table, same_server_twice};
use super::{OpenError, Setback};
use crate::account;
use crate::config::{self, Config};
use crate::node::{CheckFailure, Claim, Control, ControlError, Facts, bytes_of, look_over, read_claim};
use crate::pool::table::{Table, TableNode};

/// A node that answered and passed.
pub(super) struct Reached {
    pub(super) control: Control,
    pub(super) facts: Facts,
    pub(super) claim: Option<Claim>,
    pub(super) table: Option<Table>,
}

/// The nodes that were asked, and what they said.
#[derive(Default)]
pub(super) struct Visited {
    /// The pool that is taken over from another sidecar, if it is known.
    pool: Option<String>,
    asked: HashSet<String>,
    pub(super) reached: HashMap<String, Reached>,
    pub(super) absent: Vec<(String, String)>,
    unfit: Vec<(String, String)>,
}

impl Visited {
    /// None yet. `pool` is the id of the pool that is taken over from another sidecar.
    pub(super) fn of(pool: Option<String>) -> Self {
        Self {
            pool,
            ..Self::default()
        }
    }

    /// Asks these.
    pub(super) async fn visit(&mut self, config: &Config, nodes: &[config::Node]) {
        let visits = nodes
            .iter()
            .map(|node| visit(node, config.pool.bookkeeping_db, config.timeouts.connect));
        for (node, visit) in nodes.iter().zip(join_all(visits).await) {
            self.asked.insert(node.name.clone());
            match visit {
                Ok(found) if self.is_of_another(&found) => {
                    let line = format!("node {:?} at {} belongs to another pool", node.name, node.address);
                    self.unfit.push((node.name.clone(), line));
                }
                Ok(found) => {
                    self.reached.insert(node.name.clone(), found);
                }
                Err(CheckFailure::Unreachable(error)) => {
                    let line = format!(
                        "node {:?} at {} cannot be reached ({error})",
                        node.name, node.address
                    );
                    self.absent.push((node.name.clone(), line));
                }
                Err(failure @ CheckFailure::Loading) => {
                    let line = format!("node {:?} at {} {failure}", node.name, node.address);
                    self.absent.push((node.name.clone(), line));
                }
                Err(CheckFailure::Unfit(why)) => {
                    let line = format!("node {:?} at {} {why}", node.name, node.address);
                    self.unfit.push((node.name.clone(), line));
                }
            }
        }
    }

    /// The members of a table that have not been asked.
    pub(super) fn others(&self, config: &Config, table: &Table) -> Vec<config::Node> {
        let members = table.members().map(|(_, node)| node);
        let others = members.filter(|node| !self.asked.contains(&node.name));
        others.map(|node| node_of(config, node)).collect()
    }

    fn is_of_another(&self, found: &Reached) -> bool {
        let of_table = found.table.as_ref().map(|table| &table.id);
        let of_claim = found.claim.as_ref().map(|claim| &claim.pool);
        let is_another = |id: &String| self.pool.as_ref().is_some_and(|pool| pool != id);
        of_table.is_some_and(is_another) || of_claim.is_some_and(is_another)
    }

    pub(super) fn find_table(&self, config: &Config) -> Result<Table, Setback> {
        let lines =
            |of: &[(String, String)]| -> Vec<String> { of.iter().map(|(_, line)| line.clone()).collect() };
        if !self.reached.values().any(|r| r.table.is_some()) {
            // A pool that is taken over has been made.
            if self.pool.is_some() {
                let mut why = lines(&self.absent);
                why.extend(lines(&self.unfit));
                return Err(Setback::Wait(format!(
                    "no node that answers knows the pool any more (if it is gone for good, end all sidecars, then start them: a new one is \
                     made); {}",
                    why.join("; ")
                )));
            }
            // As long as nobody knows the pool, all nodes of the configuration are to be in it.
            if !self.unfit.is_empty() {
                return Err(OpenError::Nodes(lines(&self.unfit)).into());
            }
        }
        find_table(config, &self.reached, &lines(&self.absent))
    }

    /// Forgets those that are not in the pool. Its nodes that are unfit are an error; but who takes over from another sidecar goes on
    /// without them, as that one did.
    pub(super) fn keep_members(&mut self, config: &Config, table: &Table) -> Result<(), OpenError> {
        let is_member = |name: &String| table.nodes.iter().any(|node| node.name == *name);
        for stranger in config.nodes.iter().filter(|node| !is_member(&node.name)) {
            warn!(
                node = stranger.name,
                "the node is in proxy.toml, but not in the pool: add it (ringfence nodes add), or take it out of the file"
            );
        }
        self.reached.retain(|name, _| is_member(name));
        self.absent.retain(|(name, _)| is_member(name));
        self.unfit.retain(|(name, _)| is_member(name));
        for (names, line) in same_server_twice(&self.reached) {
            for name in names {
                self.reached.remove(&name);
                self.unfit.push((name, line.clone()));
            }
        }
        if self.pool.is_some() {
            self.absent.append(&mut self.unfit);
        }
        let mut unfit: Vec<String> = self.unfit.drain(..).map(|(_, line)| line).collect();
        unfit.dedup();
        match unfit.as_slice() {
            [] => Ok(()),
            _ => Err(OpenError::Nodes(unfit)),
        }
    }
}

/// A node of the table, with the account that `proxy.toml` names for it, if it does.
pub(crate) fn node_of(config: &Config, node: &TableNode) -> config::Node {
    let configured = config.nodes.iter().find(|n| n.name == node.name);
    config::Node {
        address: node.address.clone(),
        weight: node.weight,
        zone: node.zone.clone(),
        user: configured.map_or_else(|| node.user.clone(), |n| n.user.clone()),
        password: configured.map_or_else(|| node.password.clone(), |n| n.password.clone()),
        ..config::Node::new(node.name.clone(), node.address.clone())
    }
}

async fn visit(node: &config::Node, bookkeeping_db: u16, timeout: Duration) -> Result<Reached, CheckFailure> {
    let mut control = connect_as_operator(node, timeout).await?;
    let facts = look_over(&mut control, bookkeeping_db).await?;
    let claim = read_claim(&mut control)
        .await
        .map_err(CheckFailure::Unreachable)?;
    let table = match read_known_table(&mut control, bookkeeping_db).await {
        Err(error @ ControlError::Unreadable) => return Err(CheckFailure::Unfit(error.to_string())),
        table => table.map_err(CheckFailure::Unreachable)?,
    };
    Ok(Reached {
        control,
        facts,
        claim,
        table,
    })
}

/// Connects with the account that `proxy.toml` names.
pub(crate) async fn connect_as_operator(
    node: &config::Node,
    timeout: Duration,
) -> Result<Control, CheckFailure> {
    let login = node
        .password
        .as_ref()
        .map(|password| (node.user(), password.expose()));
    match Control::connect(&node.address, login, timeout).await {
        Ok(control) => Ok(control),
        Err(ControlError::Refused(why)) if why.starts_with("LOADING") => Err(CheckFailure::Loading),
        Err(ControlError::Refused(why)) => Err(CheckFailure::Unfit(format!(
            "does not let the sidecar in ({why}): check the node's user and password in proxy.toml"
        ))),
        Err(error) => Err(CheckFailure::Unreachable(error)),
    }
}

/// Reads the table's record, if there is one. One that cannot be read is an error: taken for none, a new pool would be made.
pub(in crate::pool) async fn read_table(
    control: &mut Control,
    bookkeeping_db: u16,
) -> Result<Option<Table>, ControlError> {
    read_record(control, bookkeeping_db, account::TABLE).await
}

/// The table that a node knows: the pool's, or, if it has been taken out of the pool, what that was then.
pub(crate) async fn read_known_table(
    control: &mut Control,
    bookkeeping_db: u16,
) -> Result<Option<Table>, ControlError> {
    match read_table(control, bookkeeping_db).await? {
        Some(table) => Ok(Some(table)),
        None => read_record(control, bookkeeping_db, account::LEFT).await,
    }
}

async fn read_record(
    control: &mut Control,
    bookkeeping_db: u16,
    key: &[u8],
) -> Result<Option<Table>, ControlError> {
    control.select(bookkeeping_db).await?;
    let reply = control.call(&[b"GET", key]).await?;
    match bytes_of(&reply) {
        [] => Ok(None),
        record => Table::parse(record).map(Some).ok_or(ControlError::Unreadable),
    }
}

/// Writes the table's record.
pub(in crate::pool) async fn write_table(
    control: &mut Control,
    bookkeeping_db: u16,
    record: &[u8],
) -> Result<(), ControlError> {
    control.select(bookkeeping_db).await?;
    control.call(&[b"SET", account::TABLE, record]).await?;
    Ok(())
}
