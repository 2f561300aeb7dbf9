//! `ringfence nodes`: see and change the nodes of the pool.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::client::{Document, node_path};
use super::documents::{Change, Node, Removal};
use super::failure::Failure;
use super::operate::{Add, Doing, NodesCommand, Set};
use super::table::{Align, Table};
use super::words::size;
use super::{Session, ring};
use crate::config::Secret;

/// The password of a node that is added, for those who do not keep it in a file.
const PASSWORD_VARIABLE: &str = "RINGFENCE_NODE_PASSWORD";

pub(super) fn run(session: &mut Session<'_, '_>, command: &NodesCommand) -> Result<(), Failure> {
    match command {
        NodesCommand::List => {
            let document = session.client.get("/v1/nodes")?;
            session.show(&document, |nodes: &Vec<Node>| table(nodes))?;
            Ok(())
        }
        NodesCommand::Add(add) => {
            let password = password(add.password_file.as_deref(), std::env::var_os(PASSWORD_VARIABLE))?;
            let body = addition(add, password.as_ref());
            let path = format!("/v1/nodes{}", query(&add.doing));
            let document = session.client.post(&path, Some(&body))?;
            changed(session, &document, &add.doing, &format!("{} is added", add.name))
        }
        NodesCommand::Drain(drain) => {
            let name = &drain.node.name;
            let path = node_path(name, &format!("/drain{}", query(&drain.doing)));
            let document = session.client.post(&path, None)?;
            changed(
                session,
                &document,
                &drain.doing,
                &format!("{name} is being drained"),
            )
        }
        NodesCommand::Set(set) => {
            let name = &set.node.name;
            let path = node_path(name, query(&set.doing));
            let document = session.client.patch(&path, &difference(set))?;
            changed(session, &document, &set.doing, &format!("{name} is changed"))
        }
        NodesCommand::Remove(node) => {
            let document = session.client.delete(&node_path(&node.name, ""))?;
            session.show(&document, |removal: &Removal| {
                if removal.applied {
                    format!("{} is removed: its server can be switched off.", node.name)
                } else {
                    "Nothing was changed.".to_owned()
                }
            })?;
            Ok(())
        }
    }
}

fn query(doing: &Doing) -> &'static str {
    if doing.dry_run { "?dry_run=true" } else { "" }
}

/// Prints what a change moves, and watches until it is moved if that is asked for.
fn changed(
    session: &mut Session<'_, '_>,
    document: &Document,
    doing: &Doing,
    what: &str,
) -> Result<(), Failure> {
    session.show(document, |change: &Change| {
        let headline = match (change.applied, doing.dry_run) {
            (true, _) => format!("{what}."),
            (false, true) => "Nothing was changed. This would be the effect:".to_owned(),
            (false, false) => "Nothing was changed: it is so already.".to_owned(),
        };
        let mut text = format!("{headline}\n{}", ring::plan_text(&change.plan));
        if change.applied && change.plan.moves > 0 && !doing.wait {
            text.push_str("\nFollow it with `ringfence ring status --watch`.");
        }
        text
    })?;
    if doing.wait {
        ring::watch(session, true)
    } else {
        Ok(())
    }
}

fn addition(add: &Add, password: Option<&Secret>) -> Value {
    json!({
        "name": add.name,
        "address": add.address,
        "weight": add.weight,
        "zone": add.zone,
        "user": add.user,
        "password": password.map(Secret::expose),
    })
}

/// Only what is to become different.
fn difference(set: &Set) -> Value {
    let mut body = Map::new();
    if let Some(weight) = set.weight {
        body.insert("weight".to_owned(), json!(weight));
    }
    if set.no_zone || set.zone.is_some() {
        body.insert("zone".to_owned(), json!(set.zone));
    }
    if set.undrain {
        body.insert("draining".to_owned(), json!(false));
    }
    Value::Object(body)
}

/// From the file if one is named, else from the variable. A line end at the end does not belong to it.
pub(super) fn password(file: Option<&Path>, variable: Option<OsString>) -> Result<Option<Secret>, Failure> {
    let (text, whence) = match (file, variable) {
        (Some(file), _) => {
            let whence = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::Usage(format!("the password cannot be read from {whence}: {error}"))
            })?;
            (text, whence)
        }
        (None, Some(variable)) => {
            let text = variable
                .into_string()
                .map_err(|_| Failure::Usage(format!("the password in {PASSWORD_VARIABLE} is not UTF-8")))?;
            (text, PASSWORD_VARIABLE.to_owned())
        }
        (None, None) => return Ok(None),
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Failure::Usage(format!(
            "the password in {whence} is empty: write it there, or leave it away"
        )));
    }
    Ok(Some(Secret::new(line)))
}

fn table(nodes: &[Node]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("NAME", Left),
        ("ADDRESS", Left),
        ("STATE", Left),
        ("STATUS", Left),
        ("WEIGHT", Right),
        ("ZONE", Left),
        ("IN SYNC", Right),
        ("HELD", Right),
        ("WANTED", Right),
        ("LAG", Right),
        ("MEMORY", Right),
    ]);
    for node in nodes {
        table.row(vec![
            node.name.clone(),
            node.address.clone(),
            node.state.clone(),
            node.status.clone(),
            node.weight.to_string(),
            node.zone.clone().unwrap_or_else(|| "-".to_owned()),
            node.in_sync.to_string(),
            node.partitions.to_string(),
            node.wanted.to_string(),
            node.lag_ops.to_string(),
            size(node.memory_bytes),
        ]);
        if let Some(reason) = &node.reason {
            table.note(reason);
        }
    }
    table.text()
}
