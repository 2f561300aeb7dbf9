//! Which nodes are in the pool, and what share of it each should hold: changed by operators, one record after the other.
//!
//! Nothing is moved here. The record says where things should be; the mover sees the difference, and works it off.

use thiserror::Error;
use tracing::{info, warn};

use super::{Keeper, lock};
use crate::account;
use crate::config::{NodeAddress, Secret, is_name};
use crate::limits;
use crate::node::{
    AdmissionError, CheckFailure, Control, Facts, Standing, admit, fence_others, listed, look_over,
    read_claim, remove_all,
};
use crate::pool::open::{connect_as_operator, node_of, read_table, write_table};
use crate::pool::table::{FormerShare, Table, TableNode};
use crate::request::NodeId;

/// Why nodes were not changed: for the operator.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// There is no such node.
    #[error("there is no node {0:?} in the pool: `ringfence nodes list` shows those there are")]
    NoSuchNode(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The record could not be written.
    #[error(
        "fewer than half of the nodes have taken the record of the change, so it may or may not be found by a sidecar \
         that starts later: see `ringfence nodes list`, and try again when more nodes are there"
    )]
    NotRecorded,
}

/// A node that is to be added.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Unique in the pool.
    pub name: String,
    /// Where it is.
    pub address: NodeAddress,
    /// Its share: 1 to 1000.
    pub weight: u32,
    /// What fails together with it.
    pub zone: Option<String>,
    /// The account that may make our users there.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl NewNode {
    fn refused(&self, why: &dyn std::fmt::Display) -> ChangeError {
        ChangeError::Conflict(format!("node {:?} at {} {why}", self.name, self.address))
    }
}

/// What is to be changed of a node; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct ShareChange {
    /// Its share: 1 to 1000.
    pub weight: Option<u32>,
    /// What fails together with it; `Some(None)`: a zone of its own.
    pub zone: Option<Option<String>>,
    /// It should hold nothing.
    pub draining: Option<bool>,
}

const WEIGHT_MAX: u32 = 1000;

impl Keeper {
    /// The table as it would be with a node more.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn with_node(&self, new: &NewNode) -> Result<Table, ChangeError> {
        let mut table = self.table();
        let invalid = |why: String| Err(ChangeError::Invalid(why));
        if !is_name(&new.name) {
            return invalid(format!(
                "{:?} is no name for a node: 1 to 64 letters, digits, '-', '_', '.'",
                new.name
            ));
        }
        check_share(Some(new.weight), Some(&new.zone))?;
        for (_, node) in table.members() {
            if node.name == new.name {
                return Err(ChangeError::Conflict(format!(
                    "there is a node {:?} already, at {}: choose another name",
                    new.name, node.address
                )));
            }
            if node.address == new.address {
                return Err(ChangeError::Conflict(format!(
                    "{} is node {:?} already: two copies on one server are one copy",
                    new.address, node.name
                )));
            }
        }
        let configured = self.config.nodes.iter().find(|node| node.name == new.name);
        if let Some(configured) = configured.filter(|node| node.address != new.address) {
            return Err(ChangeError::Conflict(format!(
                "proxy.toml says that node {:?} is at {}: change it there first, or choose another name",
                new.name, configured.address
            )));
        }
        if table.nodes.len() >= limits::NODES_MAX {
            return Err(ChangeError::Conflict(format!(
                "a pool has at most {} nodes (those that were removed count until the sidecar is restarted)",
                limits::NODES_MAX
            )));
        }
        remember_shares(&mut table);
        table.nodes.push(TableNode {
            user: new.user.clone(),
            password: new.password.clone(),
            ..TableNode::new(
                new.name.clone(),
                new.address.clone(),
                new.weight,
                new.zone.clone(),
            )
        });
        Ok(table)
    }

    /// The table as it would be with another share of a node.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn with_share(&self, name: &str, change: &ShareChange) -> Result<Table, ChangeError> {
        check_share(change.weight, change.zone.as_ref())?;
        let mut table = self.table();
        remember_shares(&mut table);
        let copies = table.replicas as usize;
        let node = member(&mut table, name)?;
        if let Some(weight) = change.weight {
            node.weight = weight;
        }
        if let Some(zone) = &change.zone {
            node.zone.clone_from(zone);
        }
        if let Some(draining) = change.draining {
            node.draining = draining;
        }
        let left = table.members().filter(|(_, node)| !node.draining).count();
        if left < copies {
            return Err(ChangeError::Conflict(format!(
                "{left} nodes would be left for {copies} copies of everything: add a node first"
            )));
        }
        Ok(table)
    }

    /// Looks a node over that is to be added, and changes nothing: a connection to it as the operator's account.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn try_node(
        &self,
        new: &NewNode,
        databases: u16,
        version: &str,
    ) -> Result<Control, ChangeError> {
        let table = self.with_node(new)?;
        let said = |why: &dyn std::fmt::Display| new.refused(why);
        let Some(node) = table.nodes.last() else {
            return Err(said(&"cannot be added"));
        };
        let access = node_of(&self.config, node);
        let mut operator = connect_as_operator(&access, self.config.timeouts.connect)
            .await
            .map_err(|e| said(&e))?;
        let facts = look_over(&mut operator, self.config.pool.bookkeeping_db)
            .await
            .map_err(|e| said(&e))?;
        self.is_fit(&facts, databases, version)
            .map_err(|why| said(&why))?;
        self.is_ours_or_nobodys(&mut operator, &facts)
            .await
            .map_err(|why| said(&why))?;
        Ok(operator)
    }

    /// Adds a node: looks it over, claims it, records it. What it should hold is moved to it from then on.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_node(&self, new: &NewNode, databases: u16, version: &str) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let table = self.with_node(new)?;
        let Some(node) = table.nodes.last().cloned() else {
            return Ok(());
        };
        let id = (table.nodes.len() - 1) as NodeId;
        let said = |why: &dyn std::fmt::Display| new.refused(why);
        let mut operator = self.try_node(new, databases, version).await?;
        admit(
            &mut operator,
            &self.claim,
            Standing::Newcomer,
            &self.instance,
            &self.roles,
        )
        .await
        .map_err(|error: AdmissionError| said(&error))?;
        let user = self.instance.user("c");
        let login = Some((user.as_str(), self.instance.secret.as_str()));
        let own = Control::connect(&node.address, login, self.config.timeouts.connect)
            .await
            .map_err(|error| said(&error))?;
        if let Some(slot) = self.controls.get(usize::from(id)) {
            *slot.lock().await = Some(own);
        }
        if !self
            .record_change(|table| {
                remember_shares(table);
                table.nodes.push(node.clone());
            })
            .await
        {
            if let Some(slot) = self.controls.get(usize::from(id)) {
                *slot.lock().await = None;
            }
            return Err(ChangeError::NotRecorded);
        }
        info!(node = new.name, address = %new.address, "a node is added to the pool");
        Ok(())
    }

    fn is_fit(&self, facts: &Facts, databases: u16, version: &str) -> Result<(), String> {
        let numbers = |text: &str| -> Vec<u32> {
            let parts = text.split('.').take(2);
            parts.map(|n| n.parse().unwrap_or(0)).collect()
        };
        if numbers(&facts.version) < numbers(version) {
            return Err(format!(
                "runs version {}, and the oldest node of the pool runs {version}: upgrade it first, so that it knows every \
                 command that clients may have been told of",
                facts.version
            ));
        }
        if facts.databases < databases {
            return Err(format!(
                "has {} databases, and the pool has {databases}: set \"databases\" there",
                facts.databases
            ));
        }
        let table = self.table();
        let is_it = |(id, _): &(NodeId, &TableNode)| self.health(*id).run_id == facts.run_id;
        match table.members().find(is_it) {
            Some((_, other)) => Err(format!(
                "is the same server as node {:?}: two copies there would be lost together",
                other.name
            )),
            None => Ok(()),
        }
    }

    /// A node that belongs to another pool, or holds what is nobody's of ours, is not touched.
    async fn is_ours_or_nobodys(&self, control: &mut Control, facts: &Facts) -> Result<(), String> {
        let bookkeeping_db = self.config.pool.bookkeeping_db;
        let unreachable = |error| CheckFailure::Unreachable(error).to_string();
        let claim = read_claim(control).await.map_err(unreachable)?;
        if let Some(claim) = claim.as_ref().filter(|claim| claim.pool != self.claim.pool) {
            return Err(AdmissionError::OtherPool(claim.pool.clone()).to_string());
        }
        let table = read_table(control, bookkeeping_db).await.map_err(unreachable)?;
        if let Some(table) = table.as_ref().filter(|table| table.id != self.claim.pool) {
            return Err(AdmissionError::OtherPool(table.id.clone()).to_string());
        }
        if claim.is_some() || table.is_some() {
            return Ok(());
        }
        match facts.in_use.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "holds keys that are not this pool's (in database {}): a node that is added must be empty. Empty it with FLUSHALL if \
                 nobody needs them",
                listed(&facts.in_use)
            )),
        }
    }

    /// Changes the share of a node.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn set_share(&self, name: &str, change: &ShareChange) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let wanted = self.with_share(name, change)?;
        self.change(|table| {
            table.nodes.clone_from(&wanted.nodes);
            table.before.clone_from(&wanted.before);
        })
        .await
    }

    /// Takes a node that holds nothing out of the pool, and everything of ours from the node. The caller has locked
    /// [`Keeper::joining`] and tells how many partitions their owners have on it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_node(&self, name: &str, held: impl Fn(NodeId) -> usize) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let mut table = self.table();
        member(&mut table, name)?.removed = true;
        let ids = (0..).zip(&table.nodes);
        let removed = ids.filter(|(_, node)| node.name == name && node.removed);
        let Some((id, node)) = removed.last() else {
            return Ok(());
        };
        // A record that is on its way may have more.
        let attempted = lock(&self.attempted).partitions_of(id).count();
        let holds = table.partitions_of(id).count().max(attempted).max(held(id));
        if holds > 0 || !node.draining {
            return Err(ChangeError::Conflict(format!(
                "node {name:?} holds {holds} partitions: drain it first (ringfence nodes drain {name}), and remove it when it \
                 holds none"
            )));
        }
        let access = node_of(&self.config, node);
        self.change(|table| {
            if let Some(node) = table.nodes.get_mut(usize::from(id)) {
                node.removed = true;
                node.password = None;
            }
        })
        .await?;
        if let Some(slot) = self.controls.get(usize::from(id)) {
            *slot.lock().await = None;
        }
        self.admissions.look(id);
        info!(node = name, "the node is out of the pool");
        if let Err(why) = self.leave_clean(&access).await {
            warn!(
                node = name,
                "the node was not cleaned up ({why}): empty it with FLUSHALL before another pool uses it"
            );
        }
        Ok(())
    }

    /// Takes our users, our account, and what is left of our data from a node that is no longer in the pool, and leaves there where the
    /// pool is.
    async fn leave_clean(&self, node: &crate::config::Node) -> Result<(), String> {
        let connect = connect_as_operator(node, self.config.timeouts.connect);
        let mut operator = connect.await.map_err(|error| error.to_string())?;
        let clean = async {
            fence_others(&mut operator, None).await?;
            let bookkeeping_db = self.config.pool.bookkeeping_db;
            remove_all(&mut operator, bookkeeping_db).await?;
            operator.select(bookkeeping_db).await?;
            operator.call(&[b"FLUSHDB"]).await?;
            // Without what others are entered with.
            let mut table = self.table();
            table.nodes.iter_mut().for_each(|node| node.password = None);
            operator.call(&[b"SET", account::LEFT, &table.to_json()]).await
        };
        clean.await.map(drop).map_err(|error| error.to_string())
    }

    /// Lets what is to be moved wait, or go on.
    ///
    /// # Errors
    /// [`ChangeError::NotRecorded`].
    pub async fn pause(&self, paused: bool) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        self.change(|table| table.paused = paused).await
    }

    /// Makes the nodes' shares what they were before the changes that are under way. Nodes that have been added since are
    /// drained.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] if nothing is under way.
    pub async fn cancel(&self) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let Some(before) = self.table().before else {
            return Err(ChangeError::Conflict(
                "nothing is under way that could be cancelled".into(),
            ));
        };
        let still_there = |share: &&FormerShare| {
            let table = lock(&self.table);
            let is_it = |(_, node): (NodeId, &TableNode)| node.name == share.name;
            !share.draining && table.members().any(is_it)
        };
        let left = before.iter().filter(still_there).count();
        if left < self.config.pool.replicas {
            return Err(ChangeError::Conflict(format!(
                "{left} nodes would be left for {} copies of everything: nodes that were there before have been removed",
                self.config.pool.replicas
            )));
        }
        self.change(|table| {
            for node in &mut table.nodes {
                match before.iter().find(|share| share.name == node.name) {
                    Some(share) => {
                        node.weight = share.weight;
                        node.zone.clone_from(&share.zone);
                        node.draining = share.draining;
                    }
                    None => node.draining = true,
                }
            }
            table.paused = false;
        })
        .await
    }

    /// All is where `seen` says that it should be: if that is still so, there is nothing left that could be cancelled.
    pub async fn settled(&self, seen: &Table) {
        if seen.before.is_none() {
            return;
        }
        let _changing = self.changing.lock().await;
        if self.table().nodes == seen.nodes {
            self.record_change(|table| table.before = None).await;
        }
    }

    async fn change(&self, change: impl FnOnce(&mut Table)) -> Result<(), ChangeError> {
        match self.record_change(change).await {
            true => Ok(()),
            false => Err(ChangeError::NotRecorded),
        }
    }

    /// Writes the record to a node that is new to it.
    pub(super) async fn give_record(&self, control: &mut Control) -> Result<(), crate::node::ControlError> {
        let record = lock(&self.attempted).to_json();
        write_table(control, self.config.pool.bookkeeping_db, &record).await
    }
}

fn member<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut TableNode, ChangeError> {
    let mut members = table.nodes.iter_mut().filter(|node| !node.removed);
    members
        .find(|node| node.name == name)
        .ok_or_else(|| ChangeError::NoSuchNode(name.to_owned()))
}

fn check_share(weight: Option<u32>, zone: Option<&Option<String>>) -> Result<(), ChangeError> {
    if let Some(weight) = weight.filter(|weight| !(1..=WEIGHT_MAX).contains(weight)) {
        return Err(ChangeError::Invalid(format!(
            "a weight of {weight} is not possible: 1 to {WEIGHT_MAX}, and draining for nothing"
        )));
    }
    match zone {
        Some(Some(zone)) if !is_name(zone) => Err(ChangeError::Invalid(format!(
            "{zone:?} is no name for a zone: 1 to 64 letters, digits, '-', '_', '.'"
        ))),
        _ => Ok(()),
    }
}

/// Notes the shares before the first of several changes.
fn remember_shares(table: &mut Table) {
    if table.before.is_none() {
        let share = |(_, node): (NodeId, &TableNode)| FormerShare {
            name: node.name.clone(),
            weight: node.weight,
            zone: node.zone.clone(),
            draining: node.draining,
        };
        table.before = Some(table.members().map(share).collect());
    }
}
