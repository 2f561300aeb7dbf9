//! Opening a pool: from a list of addresses to a table that may be served.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rand::RngExt;
use thiserror::Error;
use tracing::{info, warn};

use super::recovery::recover_all;
use super::shelf::{Shelf, library_field};
use super::table::{Table, TableNode};
use crate::account;
use crate::config::{self, Config};
use crate::library::functions::Function;
use crate::node::{
    AdmissionError, CheckFailure, Claim, Control, ControlError, Facts, Instance, admit, bytes_of, libraries,
    look_over, read_claim,
};
use crate::request::NodeId;

/// Pause before another attempt, while too few nodes are there.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// So often another sidecar that starts at the same moment may get in the way.
const CONTESTS_MAX: u32 = 5;

/// Why the pool cannot be opened, and will not be by waiting.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Nodes that will not do as they are.
    #[error("{}", .0.join("\n"))]
    Nodes(Vec<String>),
    /// The settings do not fit the pool that is there.
    #[error("{0}")]
    Settings(String),
    /// Other sidecars take the nodes away again and again.
    #[error(
        "another sidecar is taking over this pool at the same time: start one, and let the other stand by"
    )]
    Contest,
}

/// A pool that may be served.
#[derive(Debug)]
pub struct Opened {
    /// The table, recorded on a majority of the nodes.
    pub table: Table,
    /// Who we are to the nodes.
    pub instance: Instance,
    /// What we claim them with.
    pub claim: Claim,
    /// Replies to `COMMAND` of the nodes that are there.
    pub commands: Vec<bytes::Bytes>,
    /// The pool's clock minus this host's, in ms.
    pub clock_offset_ms: i64,
    /// Logical databases that every node has.
    pub databases: u16,
    /// Lowest server version among the nodes.
    pub version: String,
    /// What is kept of scripts and functions.
    pub shelf: Shelf,
    /// Function libraries: their texts and what they register.
    pub libraries: Vec<(Bytes, Vec<Function>)>,
}

/// An attempt's end that may be otherwise next time.
enum Setback {
    Wait(String),
    Contested,
    Fatal(OpenError),
}

impl From<OpenError> for Setback {
    fn from(error: OpenError) -> Self {
        Self::Fatal(error)
    }
}

/// Opens the pool; waits for nodes that cannot be reached as long as there are too few. `roles` are the users to make.
///
/// # Errors
/// What waiting does not mend: unfit nodes, settings that contradict the pool.
pub async fn open(config: &Config, roles: &[String]) -> Result<Opened, OpenError> {
    let mut said = String::new();
    let mut contests = 0;
    loop {
        match attempt(config, roles).await {
            Ok(opened) => return Ok(opened),
            Err(Setback::Fatal(error)) => return Err(error),
            Err(Setback::Contested) => {
                contests += 1;
                if contests > CONTESTS_MAX {
                    return Err(OpenError::Contest);
                }
                let pause_ms = rand::rng().random_range(50..400);
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            Err(Setback::Wait(why)) => {
                if why != said {
                    warn!("not serving yet: {why}");
                    said = why;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// A node that answered and passed.
struct Reached {
    control: Control,
    facts: Facts,
    claim: Option<Claim>,
    table: Option<Table>,
}

async fn attempt(config: &Config, roles: &[String]) -> Result<Opened, Setback> {
    let bookkeeping_db = config.pool.bookkeeping_db;
    let visits = config
        .nodes
        .iter()
        .map(|node| visit(node, bookkeeping_db, config.timeouts.connect));
    let mut reached: HashMap<String, Reached> = HashMap::new();
    let mut absent = Vec::new();
    let mut unfit = Vec::new();
    for (node, visit) in config.nodes.iter().zip(join_all(visits).await) {
        match visit {
            Ok(found) => {
                reached.insert(node.name.clone(), found);
            }
            Err(CheckFailure::Unreachable(error)) => {
                absent.push(format!(
                    "node {:?} at {} cannot be reached ({error})",
                    node.name, node.address
                ));
            }
            Err(CheckFailure::Unfit(why)) => {
                unfit.push(format!("node {:?} at {} {why}", node.name, node.address));
            }
        }
    }
    unfit.extend(same_server_twice(&reached));
    if !unfit.is_empty() {
        return Err(OpenError::Nodes(unfit).into());
    }
    let mut table = find_table(config, &reached, &absent)?;
    settings_fit(config, &table)?;
    let found_term = reached
        .values()
        .filter_map(|r| r.claim.as_ref())
        .map(|claim| claim.term)
        .max()
        .unwrap_or(0);
    let term = found_term.max(table.term) + 1;
    let instance = Instance::random();
    let claim = Claim {
        term,
        instance: instance.id.clone(),
        pool: table.id.clone(),
    };

    let mut controls: HashMap<NodeId, Control> = HashMap::new();
    let mut commands = Vec::new();
    let mut offsets = Vec::new();
    let mut versions = Vec::new();
    let mut databases = u16::MAX;
    for (id, node) in table.nodes.iter().enumerate() {
        let Some(found) = reached.get_mut(&node.name) else {
            continue;
        };
        let creating = table.version == 0;
        if let Some(other) = &found.claim
            && other.pool != table.id
            && !(creating && found.table.is_none())
        {
            let why = AdmissionError::OtherPool(other.pool.clone());
            return Err(
                OpenError::Nodes(vec![format!("node {:?} at {} {why}", node.name, node.address)]).into(),
            );
        }
        match admit(&mut found.control, &claim, creating, &instance, roles).await {
            Ok(()) => {}
            Err(AdmissionError::Superseded(_)) => return Err(Setback::Contested),
            Err(AdmissionError::OtherPool(_)) => return Err(Setback::Contested),
            Err(AdmissionError::Control(error)) => {
                absent.push(format!("node {:?} could not be claimed ({error})", node.name));
                continue;
            }
        }
        // From here on as a user that a successor can fence.
        let user = instance.user("c");
        let login = Some((user.as_str(), instance.secret.as_str()));
        match Control::connect(&node.address, login, config.timeouts.connect).await {
            Ok(control) => {
                controls.insert(id as NodeId, control);
                commands.push(found.facts.commands.clone());
                offsets.push(found.facts.clock_offset_ms);
                versions.push(found.facts.version.clone());
                databases = databases.min(found.facts.databases);
            }
            Err(error) => absent.push(format!("node {:?} could not be used ({error})", node.name)),
        }
    }
    if controls.len() * 2 <= table.nodes.len() {
        return Err(Setback::Wait(format!(
            "{} of {} nodes are there, and more than half must be; {}",
            controls.len(),
            table.nodes.len(),
            absent.join("; ")
        )));
    }
    // What a former owner recorded until it was fenced just now.
    for control in controls.values_mut() {
        if let Ok(Some(newer)) = read_table(control, bookkeeping_db).await
            && newer.stamp() > table.stamp()
        {
            table = newer;
        }
    }
    recover_all(&mut table, term, bookkeeping_db, &mut controls)
        .await
        .map_err(|error| Setback::Wait(format!("{error}; {}", absent.join("; "))))?;
    table.term = term;
    table.version += 1;
    table.instance = instance.id.clone();
    let record = table.to_json();
    let mut written = 0;
    for control in controls.values_mut() {
        written += usize::from(write_table(control, bookkeeping_db, &record).await.is_ok());
    }
    if written * 2 <= table.nodes.len() {
        return Err(Setback::Wait(
            "the table could not be written to more than half of the nodes".into(),
        ));
    }
    let (shelf, libraries) = open_shelf(bookkeeping_db, table.nodes.len(), term, &mut controls).await?;
    for absent in absent {
        warn!("going on without a node: {absent}");
    }
    offsets.sort_unstable();
    versions.sort();
    info!(
        pool = table.pool,
        term,
        version = table.version,
        nodes = table.nodes.len(),
        "the pool is open"
    );
    Ok(Opened {
        clock_offset_ms: offsets.get(offsets.len() / 2).copied().unwrap_or(0),
        databases,
        version: versions.into_iter().next().unwrap_or_default(),
        table,
        instance,
        claim,
        commands,
        shelf,
        libraries,
    })
}

/// What is kept of scripts and functions, and what the functions are by a node's judgement.
async fn open_shelf(
    bookkeeping_db: u16,
    nodes: usize,
    term: u64,
    controls: &mut HashMap<NodeId, Control>,
) -> Result<(Shelf, Vec<(Bytes, Vec<Function>)>), Setback> {
    let trouble =
        |error: ControlError| Setback::Wait(format!("what is kept of scripts cannot be read: {error}"));
    let mut all: Vec<&mut Control> = controls.values_mut().collect();
    let (mut shelf, mut safe) = Shelf::settle(&mut all, nodes, bookkeeping_db)
        .await
        .map_err(trouble)?;
    if shelf.stamp == (0, 0) {
        adopt(&mut shelf, &mut all, term).await.map_err(trouble)?;
        let mut written = 0;
        for control in &mut all {
            written += usize::from(shelf.write(control, bookkeeping_db, None).await.is_ok());
        }
        safe = written * 2 > nodes;
    }
    if !safe {
        return Err(Setback::Wait(
            "what is kept of scripts could not be written to more than half of the nodes".into(),
        ));
    }
    for control in &mut all {
        libraries::clear(control).await.map_err(trouble)?;
    }
    let mut found = Vec::new();
    for text in shelf.texts(b'f') {
        let Some(control) = all.first_mut() else { break };
        match libraries::compile(control, text).await {
            Ok(functions) => found.push((text.clone(), functions)),
            Err(ControlError::Refused(why)) => {
                warn!("a function library cannot be loaded any more and is left out: {why}");
            }
            Err(other) => return Err(trouble(other)),
        }
    }
    Ok((shelf, found))
}

/// In a pool that has no libraries yet: those that all nodes have had before.
async fn adopt(shelf: &mut Shelf, controls: &mut [&mut Control], term: u64) -> Result<(), ControlError> {
    shelf.stamp = (term, 1);
    let mut on_nodes = Vec::new();
    for control in controls.iter_mut() {
        match libraries::native(control).await {
            Ok(found) => on_nodes.push(found),
            // Older than functions.
            Err(ControlError::Refused(_)) => on_nodes.push(Vec::new()),
            Err(other) => return Err(other),
        }
    }
    let Some(first) = on_nodes.first().filter(|first| !first.is_empty()) else {
        return Ok(());
    };
    if on_nodes.iter().any(|other| other != first) {
        warn!(
            "the nodes have different function libraries, so none of them is taken over: load them through the pool"
        );
        return Ok(());
    }
    info!(
        libraries = first.len(),
        "the nodes' function libraries are the pool's from now on"
    );
    let change = first
        .iter()
        .map(|(name, text)| (library_field(name), Some(Bytes::copy_from_slice(text))));
    shelf.apply(&change.collect());
    Ok(())
}

async fn visit(node: &config::Node, bookkeeping_db: u16, timeout: Duration) -> Result<Reached, CheckFailure> {
    let mut control = connect_as_operator(node, timeout).await?;
    let facts = look_over(&mut control, bookkeeping_db).await?;
    let claim = read_claim(&mut control)
        .await
        .map_err(CheckFailure::Unreachable)?;
    let table = read_table(&mut control, bookkeeping_db)
        .await
        .map_err(CheckFailure::Unreachable)?;
    Ok(Reached {
        control,
        facts,
        claim,
        table,
    })
}

/// Connects with the account that `proxy.toml` names.
pub(super) async fn connect_as_operator(
    node: &config::Node,
    timeout: Duration,
) -> Result<Control, CheckFailure> {
    let login = node
        .password
        .as_ref()
        .map(|password| (node.user(), password.expose()));
    match Control::connect(&node.address, login, timeout).await {
        Ok(control) => Ok(control),
        Err(ControlError::Refused(why)) if why.starts_with("LOADING") => {
            Err(CheckFailure::Unreachable(ControlError::Refused(why)))
        }
        Err(ControlError::Refused(why)) => Err(CheckFailure::Unfit(format!(
            "does not let the sidecar in ({why}): check the node's user and password in proxy.toml"
        ))),
        Err(error) => Err(CheckFailure::Unreachable(error)),
    }
}

/// Reads the table's record; `None` if there is none that can be read.
pub(super) async fn read_table(
    control: &mut Control,
    bookkeeping_db: u16,
) -> Result<Option<Table>, ControlError> {
    control
        .call(&[b"SELECT", bookkeeping_db.to_string().as_bytes()])
        .await?;
    let reply = control.call(&[b"GET", account::TABLE]).await?;
    Ok(Table::parse(bytes_of(&reply)))
}

/// Writes the table's record.
pub(super) async fn write_table(
    control: &mut Control,
    bookkeeping_db: u16,
    record: &[u8],
) -> Result<(), ControlError> {
    control
        .call(&[b"SELECT", bookkeeping_db.to_string().as_bytes()])
        .await?;
    control.call(&[b"SET", account::TABLE, record]).await?;
    Ok(())
}

/// Two names for one server would be two copies of everything in one place.
fn same_server_twice(reached: &HashMap<String, Reached>) -> Vec<String> {
    let mut by_run: HashMap<&str, Vec<&str>> = HashMap::new();
    for (name, found) in reached {
        by_run.entry(&found.facts.run_id).or_default().push(name);
    }
    by_run
        .into_values()
        .filter(|names| names.len() > 1)
        .map(|mut names| {
            names.sort_unstable();
            format!(
                "nodes {} are one and the same server: two copies there would be lost together. Give each node a \
                 server of its own in proxy.toml",
                names.join(" and ")
            )
        })
        .collect()
}

/// The latest table among the nodes, or that of a new pool if no node has ever been in one.
fn find_table(
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
        for node in &mut table.nodes {
            // A node may have moved; its name is what counts.
            if let Some(configured) = config.nodes.iter().find(|n| n.name == node.name) {
                node.address = configured.address.clone();
            }
        }
        return Ok(table);
    }
    if !absent.is_empty() {
        return Err(Setback::Wait(format!(
            "no node that answers knows the pool, and a new one is only made when all nodes are there; {}",
            absent.join("; ")
        )));
    }
    let nodes = config
        .nodes
        .iter()
        .map(|n| TableNode {
            name: n.name.clone(),
            address: n.address.clone(),
            weight: n.weight,
            zone: n.zone.clone(),
        })
        .collect();
    let pool = &config.pool;
    let id = format!("{:016x}", rand::rng().random::<u64>());
    info!(pool = pool.name, id, "making a new pool");
    Ok(Table::create(
        &pool.name,
        id,
        nodes,
        pool.partitions,
        pool.replicas as u32,
        pool.write_quorum as u32,
    ))
}

fn settings_fit(config: &Config, table: &Table) -> Result<(), OpenError> {
    let pool = &config.pool;
    let differs = |setting: &str, wanted: String, found: String| {
        (wanted != found).then(|| {
            format!(
                "pool.{setting} is {wanted} in proxy.toml, but the pool was made with {found}: write {found}, or make \
                 a new pool of other nodes"
            )
        })
    };
    let mut mistakes: Vec<String> = [
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
    ]
    .into_iter()
    .flatten()
    .collect();
    for node in &config.nodes {
        if !table.nodes.iter().any(|n| n.name == node.name) {
            mistakes.push(format!(
                "node {:?} is in proxy.toml but not in the pool, and this version cannot add nodes to a pool yet: take \
                 it out, or make a new pool",
                node.name
            ));
        }
    }
    for node in &table.nodes {
        if !config.nodes.iter().any(|n| n.name == node.name) {
            mistakes.push(format!(
                "node {:?} is in the pool but not in proxy.toml: add it, with its address and password",
                node.name
            ));
        }
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(OpenError::Settings(mistakes.join("\n")))
    }
}
