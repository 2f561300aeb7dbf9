//! `FLUSHDB`, `FLUSHALL`: every key of every partition goes, at one moment.
//!
//! All partitions are held. With one worker the command itself is a write of all partitions at one place of the order. With
//! several, each has a stream of its own to a node, and a `FLUSHDB` in one of them would come at no defined place among the
//! others' writes; so the keys are listed and removed partition by partition, still under the hold.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::dispatch::Flow;
use super::gather::elements;
use super::procedure::{Procedure, Step, answer, reply, write_of};
use crate::command::Special;
use crate::command::spec::Downgrade;
use crate::request::{Action, Commands, NodeId, Outcome, PartitionId, Refusal};
use crate::resp::walk::text;
use crate::resp::{Args, encode};
use crate::worker::{Core, Worker};

/// Keys that are listed at once.
const PAGE: &[u8] = b"1000";

const OK: &[u8] = b"+OK\r\n";

/// What is removed.
#[derive(Clone, Copy)]
pub(super) enum Flush {
    /// The client's database.
    Database,
    /// Every database that clients have.
    All,
}

impl Flush {
    /// What a command asks for; or what is wrong with it.
    pub(super) fn of(special: Special, args: &Args<'_>) -> Result<Self, Bytes> {
        let sound = match args.get(1) {
            None => true,
            Some(word) => word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async"),
        };
        match special {
            _ if !sound || args.len() > 2 => Err(encode::error("ERR syntax error")),
            Special::Flushall => Ok(Self::All),
            _ => Ok(Self::Database),
        }
    }

    pub(super) fn databases(self, worker: &Worker, db: u16) -> Vec<u16> {
        match self {
            Self::Database => vec![db],
            Self::All => {
                let shared = worker.shared();
                (0..shared.databases)
                    .filter(|&n| shared.has_database(n))
                    .collect()
            }
        }
    }

    pub(super) async fn execute(self, p: &mut Procedure) -> Step<Outcome> {
        let partitions = p.worker.shared().table.load().partitions();
        p.hold((0..partitions).collect()).await?;
        let databases = self.databases(&p.worker, p.db);
        if p.worker.shared().workers.len() == 1 {
            reply(p.ask(0, p.db, flush_everywhere(&databases, p.db)).await)?;
        } else {
            let listers = p.worker.listers(&p.worker.core_mut());
            let listers: Option<Vec<NodeId>> = listers.iter().copied().collect();
            let listers = listers.ok_or(Outcome::Refused(Refusal::Unconfirmed))?;
            let mut settled = BTreeMap::new();
            for (partition, &node) in listers.iter().enumerate() {
                let partition = partition as PartitionId;
                settled.insert((p.worker.shared().owner_of(partition), node), partition);
            }
            for (&(_, node), &partition) in &settled {
                match p.ask(partition, p.db, Action::Settled(node)).await {
                    Outcome::Done => {}
                    end => return Err(end),
                }
            }
            for &db in &databases {
                remove_all(p, db, &listers).await?;
            }
        }
        if let Some(stripes) = &p.worker.shared().stripes {
            stripes.forget(&databases);
        }
        Ok(answer(OK))
    }
}

impl Worker {
    pub(super) fn flush_pool(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        special: Special,
        args: &Args<'_>,
    ) -> Flow {
        let flush = match Flush::of(special, args) {
            Ok(flush) => flush,
            Err(error) => return self.reply(core, id, error),
        };
        self.proceed(core, id, Downgrade::Generic, move |mut procedure| async move {
            let worker = procedure.worker.clone();
            // Gates come before holds: what is on its way to segments as they are comes before the flush.
            let _alone = match &worker.shared().stripes {
                Some(stripes) => stripes.alone(&flush.databases(&worker, procedure.db)).await,
                None => Vec::new(),
            };
            let outcome = flush.execute(&mut procedure).await.unwrap_or_else(|end| end);
            (procedure, outcome)
        })
    }
}

/// The bookkeeping database must stay, so even `FLUSHALL` becomes a `FLUSHDB` of each other one.
fn flush_everywhere(databases: &[u16], db: u16) -> Action {
    let mut out = BytesMut::new();
    for database in databases {
        encode::command(&mut out, &[b"SELECT", database.to_string().as_bytes()]);
        encode::command(&mut out, &[b"FLUSHDB"]);
    }
    encode::command(&mut out, &[b"SELECT", db.to_string().as_bytes()]);
    Action::Everywhere(out.freeze(), 2 * databases.len() as u32 + 1)
}

/// Removes all keys of a database, each as its partition's lister names it.
async fn remove_all(p: &Procedure, db: u16, listers: &[NodeId]) -> Step<()> {
    let mut nodes = listers.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    for node in nodes {
        let mut cursor = b"0".to_vec();
        loop {
            let scan = Commands::one(encode::command_frame(&[b"SCAN", &cursor, b"COUNT", PAGE]));
            let here = p.worker.own_partition();
            let page = reply(p.ask(here, db, Action::OnNode(node, scan)).await)?;
            let mut fields = elements(&page);
            cursor = fields.next().and_then(text).unwrap_or(b"0").to_vec();
            let mut keys: BTreeMap<PartitionId, Vec<&[u8]>> = BTreeMap::new();
            for key in fields.next().into_iter().flat_map(elements).filter_map(text) {
                let partition = p.worker.shared().keyspace.partition_of(key);
                if listers.get(usize::from(partition)) == Some(&node) {
                    keys.entry(partition).or_default().push(key);
                }
            }
            let removals = keys.into_iter().map(|(partition, keys)| {
                let mut args: Vec<&[u8]> = vec![b"UNLINK"];
                args.extend(&keys);
                let touched: Vec<usize> = (1..args.len()).collect();
                (partition, db, Action::Write(write_of(&args, &touched)))
            });
            for outcome in p.ask_all(removals.collect()).await {
                reply(outcome)?;
            }
            if cursor == b"0" {
                break;
            }
        }
    }
    Ok(())
}
