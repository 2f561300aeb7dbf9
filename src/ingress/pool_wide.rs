//! Commands about the whole pool, answered once for each logical key and not for each copy.
//!
//! Each partition's keys are listed by one node, its *lister*: the first of its nodes in sync that is connected. A node's
//! own `SCAN` or `KEYS` is asked, and of what it names only the keys it lists are kept.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::dispatch::Flow;
use super::gather::{Gather, Recipe, elements};
use crate::command::Command;
use crate::command::spec::{Downgrade, Pool};
use crate::pubsub::pattern::matches;
use crate::request::{Action, Commands, HoldId, NodeId, PartitionId, Refusal, Request};
use crate::resp::walk::text;
use crate::resp::{Args, Spans, encode};
use crate::ring::Keyspace;
use crate::shared::Shared;
use crate::stripe::names;
use crate::worker::{Core, Worker};

/// Which of a node's keys count.
#[derive(Clone, Debug)]
pub(crate) struct KeyFilter {
    listers: Arc<[Option<NodeId>]>,
    keyspace: Arc<Keyspace>,
    /// Keys have other names on the nodes than clients know: see [`crate::stripe::names`].
    striped: bool,
    /// Which of these names are told, if not all.
    pattern: Option<Bytes>,
    /// The node behind each part.
    nodes: Vec<NodeId>,
    /// What is told of them.
    shown: Shown,
}

/// What is told of the keys that count.
#[derive(Clone, Copy, Debug)]
enum Shown {
    All,
    Number,
    Any,
}

impl KeyFilter {
    /// For the keys of one node after the other.
    pub(super) fn of(listers: Arc<[Option<NodeId>]>, shared: &Shared) -> Self {
        Self {
            listers,
            keyspace: shared.keyspace.clone(),
            striped: shared.stripes.is_some(),
            pattern: None,
            nodes: Vec::new(),
            shown: Shown::All,
        }
    }

    pub(super) fn keeps(&self, node: NodeId, element: &[u8]) -> bool {
        let key = text(element).unwrap_or_default();
        let partition = self.keyspace.partition_of(key);
        self.listers.get(usize::from(partition)).copied().flatten() == Some(node)
    }

    pub(super) fn assemble(&self, parts: &[Bytes]) -> Bytes {
        let mut keys = Vec::new();
        for (part, &node) in parts.iter().zip(&self.nodes) {
            keys.extend(elements(part).filter(|element| self.keeps(node, element)));
        }
        if self.striped {
            return self.told(&keys);
        }
        match self.shown {
            Shown::All => array(&keys),
            Shown::Number => encode::integer(keys.len() as i64),
            Shown::Any => any_of(&keys),
        }
    }
}

impl KeyFilter {
    /// The keys as clients know them, each once.
    fn told(&self, keys: &[&[u8]]) -> Bytes {
        let names: BTreeSet<&[u8]> = keys
            .iter()
            .filter_map(|key| text(key))
            .filter_map(names::of_client)
            .filter(|name| self.pattern.as_ref().is_none_or(|pattern| matches(pattern, name)))
            .collect();
        let all: Vec<Bytes> = names.into_iter().map(encode::bulk_frame).collect();
        let all: Vec<&[u8]> = all.iter().map(|name| &name[..]).collect();
        match self.shown {
            Shown::All => array(&all),
            Shown::Number => encode::integer(all.len() as i64),
            Shown::Any => any_of(&all),
        }
    }

    /// Only keys whose names, as clients know them, fit the pattern.
    pub(super) fn matching(self, pattern: &[u8]) -> Self {
        Self {
            pattern: Some(Bytes::copy_from_slice(pattern)),
            ..self
        }
    }

    /// The keys of one page, as clients know them.
    pub(super) fn page(&self, kept: &[&[u8]]) -> Bytes {
        match self.striped {
            true => self.told(kept),
            false => array(kept),
        }
    }
}

/// One of these, by chance; none of none.
pub(super) fn any_of(elements: &[&[u8]]) -> Bytes {
    match elements.len() {
        0 => Bytes::from_static(b"_\r\n"),
        count => elements
            .get(rand::random_range(0..count))
            .map(|element| Bytes::copy_from_slice(element))
            .unwrap_or_default(),
    }
}

pub(super) fn array(elements: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', elements.len());
    for element in elements {
        out.extend_from_slice(element);
    }
    out.freeze()
}

impl Worker {
    /// For each partition the node that lists its keys.
    pub(super) fn listers(&self, core: &Core) -> Arc<[Option<NodeId>]> {
        let table = self.shared().table.load();
        let lister = |partition: PartitionId| {
            let row = table.rows.get(usize::from(partition))?;
            // The owner knows better than the record who is in sync.
            let view = core.sequencer.partition_view(partition);
            let in_sync = view.map_or_else(|| row.nodes_in_sync(), |view| view.in_sync);
            in_sync.into_iter().find(|&node| core.sequencer.is_up(node))
        };
        (0..table.partitions()).map(lister).collect()
    }

    pub(super) fn pool_wide(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        command: &Command,
        pool: Pool,
        frame: &Bytes,
        spans: &Spans,
    ) -> Flow {
        let args = Args { bytes: frame, spans };
        match pool {
            Pool::Scripts | Pool::KillScript => return self.script_command(core, id, command.special, &args),
            Pool::AnyNode => {
                let Some(node) = core.sequencer.any_node() else {
                    return self.no_nodes(core, id);
                };
                let rule = command.downgrade(spans.len());
                return self.ask_node(core, id, self.id(), node, frame.clone(), rule);
            }
            Pool::Clients => return self.call_roll(core, id, command.special, &args),
            Pool::Flush => return self.flush_pool(core, id, command.special, &args),
            _ => {}
        }
        let listers = self.listers(core);
        let mut nodes: Vec<NodeId> = listers.iter().flatten().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        if listers.iter().any(Option::is_none) || nodes.is_empty() {
            return self.no_nodes(core, id);
        }
        match pool {
            Pool::Scan => self.scan(core, id, &args, &listers, &nodes),
            Pool::Dbsize => self.dbsize(core, id, &listers, nodes),
            Pool::Keys => {
                let filter = KeyFilter {
                    listers,
                    keyspace: self.shared().keyspace.clone(),
                    striped: self.shared().stripes.is_some(),
                    pattern: None,
                    nodes: nodes.clone(),
                    shown: Shown::All,
                };
                if !filter.striped {
                    return self.ask_settled(core, id, &nodes, frame, Recipe::Keys(filter));
                }
                let all = encode::command_frame(&[b"KEYS", b"*"]);
                let recipe = Recipe::Keys(filter.matching(args.arg(1)));
                self.ask_settled(core, id, &nodes, &all, recipe)
            }
            // Each node's choice is a key of the pool, and each key is on one of these nodes.
            _ if self.is_whole(core) && self.shared().stripes.is_none() => {
                self.ask_settled(core, id, &nodes, frame, Recipe::RandomKey)
            }
            _ => self.ask_all_keys(core, id, listers, nodes, Shown::Any),
        }
    }

    pub(super) fn no_nodes(&self, core: &mut Core, id: u32) -> Flow {
        self.refuse(core, id, Refusal::Unconfirmed.message())
    }

    /// One command for one node, behind all that `owner` has sent there.
    fn ask_node(
        &self,
        core: &mut Core,
        id: u32,
        owner: u16,
        node: NodeId,
        frame: Bytes,
        rule: Downgrade,
    ) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let slot = client.expect_one(rule, core.now_us);
        let reply_to = client.reply_to(self.id(), id, slot, 0);
        let db = client.session.db;
        self.submit(
            core,
            owner,
            Request {
                partition: 0,
                db,
                under: HoldId::NONE,
                action: Action::OnNode(node, Commands::one(frame)),
                reply_to,
            },
        );
        Flow::Next
    }

    pub(super) fn ask_nodes(
        &self,
        core: &mut Core,
        id: u32,
        nodes: &[NodeId],
        frame: &Bytes,
        recipe: Recipe,
    ) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let slot = client.expect_parts(Gather::new(recipe, nodes.len()), core.now_us);
        let db = client.session.db;
        let request = |(part, &node): (usize, &NodeId)| Request {
            partition: 0,
            db,
            under: HoldId::NONE,
            action: Action::OnNode(node, Commands::one(frame.clone())),
            reply_to: client.reply_to(self.id(), id, slot, part as u16),
        };
        let requests: Vec<Request> = nodes.iter().enumerate().map(request).collect();
        for request in requests {
            self.submit(core, self.id(), request);
        }
        Flow::Next
    }

    /// Every key is on R nodes, so the nodes' own counts say it; unless some copy is missing, then keys are counted.
    fn dbsize(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        listers: &Arc<[Option<NodeId>]>,
        nodes: Vec<NodeId>,
    ) -> Flow {
        if !self.is_whole(core) {
            return self.ask_all_keys(core, id, listers.clone(), nodes, Shown::Number);
        }
        let table = self.shared().table.load();
        let all: Vec<NodeId> = table.members().map(|(node, _)| node).collect();
        let copies = u64::from(table.replicas).min(all.len() as u64);
        let frame = encode::command_frame(&[b"DBSIZE"]);
        self.ask_settled(core, id, &all, &frame, Recipe::Dbsize { copies })
    }

    /// Whether every node has what it should have, and nothing else.
    fn is_whole(&self, core: &Core) -> bool {
        let table = self.shared().table.load();
        let is_settled = !self.shared().admissions.may_have_strangers();
        is_settled
            && table.members().all(|(node, _)| core.sequencer.is_up(node))
            && table.rows.iter().enumerate().all(|(partition, row)| {
                let view = core.sequencer.partition_view(partition as PartitionId);
                let in_sync = view.map_or_else(|| row.nodes_in_sync(), |view| view.in_sync);
                in_sync.len() == row.replicas.len()
            })
    }

    /// Looks at the names of all keys: where a node may have some that are none any more, its own word does not do.
    fn ask_all_keys(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        listers: Arc<[Option<NodeId>]>,
        nodes: Vec<NodeId>,
        shown: Shown,
    ) -> Flow {
        let filter = KeyFilter {
            listers,
            keyspace: self.shared().keyspace.clone(),
            striped: self.shared().stripes.is_some(),
            pattern: None,
            nodes: nodes.clone(),
            shown,
        };
        let frame = encode::command_frame(&[b"KEYS", b"*"]);
        self.ask_settled(core, id, &nodes, &frame, Recipe::Keys(filter))
    }
}
