//! What is kept of scripts and functions when a pool is opened.

use std::collections::HashMap;

use bytes::Bytes;

use tracing::{info, warn};

use super::Setback;
use crate::library::functions::Function;
use crate::node::{Control, ControlError, libraries};
use crate::pool::shelf::{Shelf, library_field};
use crate::request::NodeId;

/// What is kept of scripts and functions, and what the functions are by a node's judgement.
pub(super) async fn open_shelf(
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
