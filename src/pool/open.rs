//! Opening a pool: from a list of addresses to a table that may be served.

mod library;
mod presence;
mod table;
mod visit;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use self::library::open_shelf;
pub use self::presence::Presence;
pub(crate) use self::table::{login_digest, settings_fit, use_addresses};
use self::visit::Visited;
pub(crate) use self::visit::{connect_as_operator, node_of, read_known_table};
pub(super) use self::visit::{read_table, write_table};
use super::keeper::foreign_keys;
use super::recovery::recover_all;
use super::shelf::Shelf;
use super::table::{Table, TableNode};
use crate::config::{Config, NodeAddress};
use crate::library::functions::Function;
use crate::node::{AdmissionError, Claim, Control, Instance, Standing, admit};
use crate::request::NodeId;
use crate::service::Service;

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
    /// Of several sidecars, this one does not take the pool for the moment: another one does, or may be able to.
    #[error("this sidecar leaves the pool to others for the moment")]
    StoodBack,
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
    /// To be kept until its nodes are used.
    pub presence: Presence,
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

/// How a sidecar that others can replace takes a pool.
#[derive(Clone, Debug)]
pub struct Candidacy {
    /// Where the others reach it.
    pub peer: NodeAddress,
    /// The pool as it was when it was last looked at, if it has been made.
    pub known: Option<Table>,
    /// The highest term that was claimed when nobody used the pool. Who has a higher one since then is left alone.
    pub seen: u64,
}

/// Opens the pool; waits for nodes that cannot be reached as long as there are too few, and says in `service` why. `roles` are the users
/// to make. Without a `candidacy` it takes the pool from whoever has it.
///
/// # Errors
/// What waiting does not mend: unfit nodes, settings that contradict the pool.
pub async fn open(
    config: &Config,
    roles: &[String],
    candidacy: Option<Candidacy>,
    service: &watch::Sender<Service>,
) -> Result<Opened, OpenError> {
    let mut contests = 0;
    loop {
        match attempt(config, roles, candidacy.as_ref()).await {
            Ok(opened) => return Ok(opened),
            Err(Setback::Fatal(error)) => return Err(error),
            Err(Setback::Contested) if candidacy.is_some() => return Err(OpenError::StoodBack),
            // Perhaps somebody else can.
            Err(Setback::Wait(why)) if candidacy.is_some() => {
                Service::nobody(service, &why);
                return Err(OpenError::StoodBack);
            }
            Err(Setback::Contested) => {
                contests += 1;
                if contests > CONTESTS_MAX {
                    return Err(OpenError::Contest);
                }
                let pause_ms = rand::rng().random_range(50..400);
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            Err(Setback::Wait(why)) => {
                Service::nobody(service, &why);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn attempt(
    config: &Config,
    roles: &[String],
    candidacy: Option<&Candidacy>,
) -> Result<Opened, Setback> {
    let bookkeeping_db = config.pool.bookkeeping_db;
    let known = candidacy.and_then(|candidacy| candidacy.known.as_ref());
    let mut visited = Visited::of(known.map(|table| table.id.clone()));
    visited.visit(config, &config.nodes).await;
    // Those that `proxy.toml` names may all have left the pool.
    if let Some(known) = known {
        let others = visited.others(config, known);
        visited.visit(config, &others).await;
    }
    let mut table = visited.find_table(config)?;
    // Nodes that were added while the pool was served: the newest table that they know is found by going where it points.
    loop {
        let others = visited.others(config, &table);
        if others.is_empty() {
            break;
        }
        visited.visit(config, &others).await;
        table = visited.find_table(config)?;
    }
    settings_fit(config, &table)?;
    table.forget_removed();
    visited.keep_members(config, &table)?;
    let Visited {
        mut reached, absent, ..
    } = visited;
    let mut absent: Vec<String> = absent.into_iter().map(|(_, line)| line).collect();
    let too_few = |there: usize, absent: &[String]| {
        Setback::Wait(format!(
            "{there} of {} nodes are there, and more than half must be; {}",
            table.nodes.len(),
            absent.join("; ")
        ))
    };
    // Those that are there are not taken from whoever has more of them.
    if !table.is_majority(reached.len()) {
        return Err(too_few(reached.len(), &absent));
    }
    let found_term = reached
        .values()
        .filter_map(|r| r.claim.as_ref())
        .map(|claim| claim.term)
        .max()
        .unwrap_or(0);
    let term = found_term.max(table.term) + 1;
    if candidacy.is_some_and(|candidacy| found_term > candidacy.seen) {
        return Err(Setback::Contested);
    }
    let instance = Instance::random();
    let claim = Claim {
        term,
        instance: instance.id.clone(),
        pool: table.id.clone(),
    };

    let mut controls: HashMap<NodeId, Control> = HashMap::new();
    let mut presence = Presence::default();
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
        if !creating && found.claim.is_none() && found.table.is_none() {
            match foreign_keys(&mut found.control).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    absent.push(format!("node {:?} at {} {why}", node.name, node.address));
                    continue;
                }
                Err(error) => {
                    absent.push(format!("node {:?} could not be looked at ({error})", node.name));
                    continue;
                }
            }
        }
        let standing = match creating {
            true => Standing::Founder,
            false => Standing::Member,
        };
        match admit(&mut found.control, &claim, standing, &instance, roles).await {
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
                presence.at(node.address.clone(), instance.clone(), config.timeouts.connect);
                controls.insert(id as NodeId, control);
                commands.push(found.facts.commands.clone());
                offsets.push(found.facts.clock_offset_ms);
                versions.push(found.facts.version.clone());
                databases = databases.min(found.facts.databases);
            }
            Err(error) => absent.push(format!("node {:?} could not be used ({error})", node.name)),
        }
    }
    if !table.is_majority(controls.len()) {
        return Err(too_few(controls.len(), &absent));
    }
    // Those that have lost their data do not know the table. Of the others there may be later ones, as long as some are to come.
    let knows = |(id, node): &(usize, &TableNode)| {
        let is_here = controls.contains_key(&(*id as NodeId));
        is_here && reached.get(&node.name).is_some_and(|found| found.table.is_some())
    };
    let know = table.nodes.iter().enumerate().filter(knows).count();
    if table.version > 0 && !table.is_majority(know) && controls.len() < table.nodes.len() {
        return Err(Setback::Wait(format!(
            "{know} of {} nodes still know the pool, and more than half must, or all must be there: others may know what has changed \
             since; {}",
            table.nodes.len(),
            absent.join("; ")
        )));
    }
    // What a former owner recorded until it was fenced just now.
    for control in controls.values_mut() {
        if let Ok(Some(newer)) = read_table(control, bookkeeping_db).await
            && newer.stamp() > table.stamp()
        {
            let mut newer = newer;
            newer.forget_removed();
            table::use_addresses(config, &mut newer);
            let names =
                |table: &Table| -> Vec<String> { table.nodes.iter().map(|n| n.name.clone()).collect() };
            if names(&newer) != names(&table) {
                return Err(Setback::Contested);
            }
            table = newer;
        }
    }
    let min_in_sync = config.pool.min_in_sync as u32;
    recover_all(&mut table, term, bookkeeping_db, min_in_sync, &mut controls)
        .await
        .map_err(|error| Setback::Wait(format!("{error}; {}", absent.join("; "))))?;
    table.term = term;
    table.version += 1;
    table.instance = instance.id.clone();
    let former_peer = table.peer.take();
    match (candidacy, former_peer) {
        (Some(candidacy), _) => table.peer = Some(candidacy.peer.clone()),
        (None, Some(former)) => warn!(
            "this sidecar has no listen.peer, and has taken the pool from those that have, such as the one at {former}: their clients are \
             not served while it runs. Give it one, or stop it"
        ),
        (None, None) => {}
    }
    table.login = candidacy.and_then(|_| login_digest(config, &table.id));
    let record = table.to_json();
    let mut written = 0;
    for control in controls.values_mut() {
        written += usize::from(write_table(control, bookkeeping_db, &record).await.is_ok());
    }
    if !table.is_majority(written) {
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
        presence,
    })
}
