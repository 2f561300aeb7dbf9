//! Looking at the nodes of a pool that another sidecar serves: who has claimed them, and whether anybody uses them.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::verdict::{Look, Usage};
use crate::config::{self, Config};
use crate::node::{CheckFailure, Control, USER_PREFIX, read_claim, text_of};
use crate::pool::table::Table;
use crate::pool::{connect_as_operator, node_of, read_known_table};

/// A node is given so long to be found by who serves the pool. (One that was lost, and is back: as long as a sidecar may be silent.)
const SETTLING_TIME: Duration = Duration::from_millis(600);

/// The nodes of a pool, each with a connection that lasts.
#[derive(Debug)]
pub(super) struct Nodes {
    bookkeeping_db: u16,
    connect: Duration,
    /// A connection that has been idle for so long serves nobody, in s.
    idle_max_s: u64,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    node: config::Node,
    control: Option<(Control, Instant)>,
    /// How long that tells nothing of who does not use the node.
    settling: Duration,
    /// Why it could not tell, when it was last asked.
    trouble: Option<String>,
    /// The connection of a sidecar that was seen to be used last: to ask for one is cheaper than for all.
    client: Option<String>,
}

impl Nodes {
    /// Those of `proxy.toml`, as long as no table is known.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            bookkeeping_db: config.pool.bookkeeping_db,
            connect: config.timeouts.connect,
            idle_max_s: config.timeouts.takeover.as_secs(),
            watched: config.nodes.iter().cloned().map(Watched::new).collect(),
        }
    }

    /// From now on those of the table.
    pub(super) fn follow(&mut self, config: &Config, table: &Table) {
        let mut before = std::mem::take(&mut self.watched);
        for (_, member) in table.members() {
            let node = node_of(config, member);
            let known = before.iter().position(|watched| watched.node == node);
            self.watched.push(match known {
                Some(at) => before.swap_remove(at),
                None => Watched::new(node),
            });
        }
    }

    /// A look at each of them; `None` of those that cannot tell.
    pub(super) async fn look(&mut self) -> Vec<Option<Look>> {
        let (bookkeeping_db, connect, idle_max_s) = (self.bookkeeping_db, self.connect, self.idle_max_s);
        let looks = self
            .watched
            .iter_mut()
            .map(|watched| watched.look(bookkeeping_db, connect, idle_max_s));
        join_all(looks).await
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    /// Why those that cannot tell cannot.
    pub(super) fn troubles(&self) -> Vec<&str> {
        let troubles = self
            .watched
            .iter()
            .filter_map(|watched| watched.trouble.as_deref());
        troubles.collect()
    }

    /// The tables that those that answer have.
    pub(super) async fn tables(&mut self) -> Vec<Table> {
        let bookkeeping_db = self.bookkeeping_db;
        let tables = self.watched.iter_mut().map(async |watched| {
            let (control, _) = watched.control.as_mut()?;
            read_known_table(control, bookkeeping_db).await.ok().flatten()
        });
        join_all(tables).await.into_iter().flatten().collect()
    }
}

impl Watched {
    fn new(node: config::Node) -> Self {
        Self {
            node,
            control: None,
            settling: SETTLING_TIME,
            trouble: None,
            client: None,
        }
    }

    async fn look(&mut self, bookkeeping_db: u16, connect: Duration, idle_max_s: u64) -> Option<Look> {
        let look = self.ask(bookkeeping_db, connect, idle_max_s).await;
        if let Err(failure) = &look {
            let trouble = format!("node {:?} at {} {failure}", self.node.name, self.node.address);
            if self.trouble.is_none() {
                warn!("standing by: {trouble}");
            }
            self.trouble = Some(trouble);
            self.client = None;
            if self.control.take().is_some() {
                self.settling = Duration::from_secs(idle_max_s);
            }
        }
        look.ok()
    }

    async fn ask(
        &mut self,
        bookkeeping_db: u16,
        connect: Duration,
        idle_max_s: u64,
    ) -> Result<Look, CheckFailure> {
        let (control, since) = match &mut self.control {
            Some(connected) => connected,
            none => none.insert((connect_as_operator(&self.node, connect).await?, Instant::now())),
        };
        control.select(bookkeeping_db).await?;
        let claim = read_claim(control).await?;
        let mut used = None;
        if let Some(id) = &self.client {
            let list = control.call(&[b"CLIENT", b"LIST", b"ID", id.as_bytes()]).await?;
            used = in_use(&text_of(&list), idle_max_s);
        }
        if used.is_none() {
            let list = control.call(&[b"CLIENT", b"LIST"]).await?;
            used = in_use(&text_of(&list), idle_max_s);
        }
        self.client = used;
        let usage = match &self.client {
            Some(_) => Usage::Used,
            None if since.elapsed() < self.settling => Usage::New,
            None => Usage::Unused,
        };
        self.trouble = None;
        Ok(Look { claim, usage })
    }
}

/// The id of a sidecar's connection that is not idle, in what `CLIENT LIST` answers.
fn in_use(list: &str, idle_max_s: u64) -> Option<String> {
    let connection = |line: &str| {
        let field = |name: &str| {
            line.split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        // Negative, where the node's clock was put back.
        let idle_s: i64 = field("idle")?.parse().ok()?;
        let is_fresh = field("user")?.starts_with(USER_PREFIX) && idle_s < idle_max_s as i64;
        is_fresh.then(|| field("id").map(str::to_owned)).flatten()
    };
    list.lines().find_map(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_sidecars_that_are_not_idle_are_found() {
        let list = "id=3 addr=127.0.0.1:5 name= age=9 idle=0 flags=N db=0 cmd=get user=default redir=-1\n\
                    id=5 addr=127.0.0.1:6 name= age=9 idle=7 flags=N db=15 cmd=get user=rf-ab-c redir=-1\n\
                    id=6 addr=127.0.0.1:7 name= age=9 idle=2 flags=N db=0 cmd=exec user=rf-ab-w0 redir=-1\n";
        assert_eq!(in_use(list, 3), Some("6".into()));
        assert_eq!(in_use(list, 2), None);
        assert_eq!(in_use("", 3), None);
        assert_eq!(in_use("id=7 idle=-9 user=rf-ab-c", 3), Some("7".into()));
    }
}
