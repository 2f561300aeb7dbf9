//! `SCRIPT KILL`, `FUNCTION KILL`: stopping a script that runs too long.
//!
//! The script blocks the streams to the nodes that execute it, so the nodes are asked over connections of their own. All copies
//! must stop it or none: one node is asked first, and if the script has already written there, it is left alone everywhere.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tracing::warn;

use super::dispatch::Flow;
use super::scripts::{OK, said};
use crate::command::Special;
use crate::command::spec::Downgrade;
use crate::limits;
use crate::node::{Control, ControlError};
use crate::request::NodeId;
use crate::shared::Shared;
use crate::worker::{Core, Worker};

const NOTBUSY: &str = "NOTBUSY No scripts in execution right now.";

/// What a node made of it.
enum Said {
    Killed,
    NotBusy,
    /// Its own words: `UNKILLABLE …`.
    Refused(String),
    Nothing,
}

impl Worker {
    pub(super) fn kill_script(self: &Rc<Self>, core: &mut Core, id: u32, special: Special) -> Flow {
        let command: &[u8] = match special {
            Special::FunctionKill => b"FUNCTION",
            _ => b"SCRIPT",
        };
        self.proceed(core, id, Downgrade::Generic, move |procedure| async move {
            let reply = kill(procedure.worker.shared(), command).await;
            (procedure, said(reply))
        })
    }
}

async fn kill(shared: &Shared, command: &[u8]) -> Result<Bytes, String> {
    let nodes = shared.table.load().nodes.len() as NodeId;
    let mut answered = false;
    for first in 0..nodes {
        match ask(shared, first, command).await {
            Said::Killed => {
                let rest = join_all((first + 1..nodes).map(|node| ask(shared, node, command))).await;
                if rest.iter().any(|said| matches!(said, Said::Refused(_))) {
                    warn!(
                        "a script was stopped on some nodes at the moment it wrote on others: see the differences counted"
                    );
                }
                return Ok(OK);
            }
            Said::Refused(why) => return Err(why),
            Said::NotBusy => answered = true,
            Said::Nothing => {}
        }
    }
    Err(if answered {
        NOTBUSY
    } else {
        "NOREPLICAS No node answers. See /v1/nodes on the admin port."
    }
    .into())
}

async fn ask(shared: &Shared, node: NodeId, command: &[u8]) -> Said {
    let address = shared
        .table
        .load()
        .nodes
        .get(usize::from(node))
        .map(|n| n.address.clone());
    let Some(address) = address else {
        return Said::Nothing;
    };
    let user = shared.instance.user("c");
    let login = Some((user.as_str(), shared.instance.secret.as_str()));
    let wait = Duration::from_millis(limits::KILL_WAIT_MS);
    let asked = async {
        Control::connect(&address, login, wait)
            .await?
            .call(&[command, b"KILL"])
            .await
    };
    match tokio::time::timeout(wait, asked).await {
        Ok(Ok(_)) => Said::Killed,
        Ok(Err(ControlError::Refused(why))) if why.starts_with("NOTBUSY") => Said::NotBusy,
        Ok(Err(ControlError::Refused(why))) => Said::Refused(why),
        _ => Said::Nothing,
    }
}
