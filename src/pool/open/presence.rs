//! Being seen at the nodes while a pool is opened, which may take long: those that stand by take one that nobody uses for theirs.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::node::Control;

/// How often something is asked over each connection.
const INTERVAL: Duration = Duration::from_secs(1);

/// Connections to nodes over which something is asked now and then, as long as this value lives.
#[derive(Debug, Default)]
pub struct Presence {
    tasks: JoinSet<()>,
}

impl Presence {
    /// At one more node.
    pub(super) fn at(&mut self, mut control: Control) {
        self.tasks.spawn(async move {
            // One that is lost is not missed: then the node is, too, or somebody else has it.
            while control.call(&[b"PING"]).await.is_ok() {
                tokio::time::sleep(INTERVAL).await;
            }
        });
    }
}
