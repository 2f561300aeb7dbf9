//! Being seen at the nodes while a pool is opened, which may take long: those that stand by take one that nobody uses for theirs.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::NodeAddress;
use crate::node::{Control, Instance};

/// How often something is asked over each connection.
const INTERVAL: Duration = Duration::from_secs(1);

/// Connections to nodes over which something is asked now and then, as long as this value lives.
#[derive(Debug, Default)]
pub struct Presence {
    tasks: JoinSet<()>,
}

impl Presence {
    /// At one more node, which has been claimed.
    pub(super) fn at(&mut self, address: NodeAddress, instance: Instance, timeout: Duration) {
        self.tasks.spawn(async move {
            let user = instance.user("c");
            let login = Some((user.as_str(), instance.secret.as_str()));
            loop {
                // A node may be slow while it is given much.
                if let Ok(mut control) = Control::connect(&address, login, timeout).await {
                    while control.call(&[b"PING"]).await.is_ok() {
                        tokio::time::sleep(INTERVAL).await;
                    }
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
    }
}
