//! Commands about the whole pool, answered once for each logical key and not for each copy.
//!
//! Each partition's keys are listed by one node, its *lister*: the first of its nodes in sync that is connected. A node's
//! own `SCAN` or `KEYS` is asked, and of what it names only the keys it lists are kept.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::dispatch::Flow;
use super::gather::{Gather, Recipe, elements};
use super::scan_cursor::{ScanCursor, print_of};
use crate::command::Command;
use crate::command::spec::{Downgrade, Pool};
use crate::request::{Action, Commands, HoldId, NodeId, PartitionId, Refusal, Request};
use crate::resp::walk::{is_error, text};
use crate::resp::{Args, Spans, encode};
use crate::ring::partition_of;
use crate::worker::{Core, Worker};

/// Which of a node's keys count.
#[derive(Clone, Debug)]
pub(crate) struct KeyFilter {
    listers: Arc<[Option<NodeId>]>,
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
    fn keeps(&self, node: NodeId, element: &[u8]) -> bool {
        let key = text(element).unwrap_or_default();
        let partition = partition_of(key, self.listers.len() as u16);
        self.listers.get(usize::from(partition)).copied().flatten() == Some(node)
    }

    pub(super) fn assemble(&self, parts: &[Bytes]) -> Bytes {
        let mut keys = Vec::new();
        for (part, &node) in parts.iter().zip(&self.nodes) {
            keys.extend(elements(part).filter(|element| self.keeps(node, element)));
        }
        match self.shown {
            Shown::All => array(&keys),
            Shown::Number => encode::integer(keys.len() as i64),
            Shown::Any => any_of(&keys),
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

fn array(elements: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', elements.len());
    for element in elements {
        out.extend_from_slice(element);
    }
    out.freeze()
}

/// One page of a walk.
#[derive(Debug)]
pub(crate) struct ScanPage {
    node: NodeId,
    view: u8,
    /// Where the walk goes on when this node has no more.
    next_node: Option<NodeId>,
    /// `None`: a walk over one key's elements, all of which count.
    filter: Option<KeyFilter>,
}

impl ScanPage {
    pub(super) fn assemble(&self, reply: &Bytes) -> Bytes {
        if is_error(reply) {
            return reply.clone();
        }
        let mut parts = elements(reply);
        let cursor = parts
            .next()
            .and_then(text)
            .and_then(|t| std::str::from_utf8(t).ok()?.parse::<u64>().ok());
        let (Some(at), Some(found)) = (cursor, parts.next()) else {
            return reply.clone();
        };
        let cursor = match (at, self.next_node) {
            (0, None) => 0,
            (0, Some(node)) => ScanCursor {
                at: 0,
                view: self.view,
                node,
            }
            .to_number(),
            (at, _) => ScanCursor {
                at,
                view: self.view,
                node: self.node,
            }
            .to_number(),
        };
        match &self.filter {
            None => page(cursor, found),
            Some(filter) => {
                let kept: Vec<&[u8]> = elements(found).filter(|e| filter.keeps(self.node, e)).collect();
                page(cursor, &array(&kept))
            }
        }
    }

    /// The node is gone: an empty page, and a cursor that begins again.
    pub(super) fn start_over(&self) -> Bytes {
        let stale = ScanCursor {
            at: 0,
            view: 0,
            node: self.node,
        };
        page(stale.to_number(), b"*0\r\n")
    }
}

fn page(cursor: u64, found: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(found.len() + 40);
    encode::header(&mut out, b'*', 2);
    encode::bulk(&mut out, cursor.to_string().as_bytes());
    out.extend_from_slice(found);
    out.freeze()
}

impl Worker {
    /// For each partition the node that lists its keys.
    pub(super) fn listers(&self, core: &Core) -> Arc<[Option<NodeId>]> {
        let table = self.shared().table.load();
        let lister = |partition: PartitionId| {
            let row = table.rows.get(usize::from(partition))?;
            // The owner knows better than the record who is in sync.
            let in_sync = core
                .sequencer
                .partition_view(partition)
                .map_or(row.in_sync, |(_, set)| set);
            let able = |(i, node): (usize, &NodeId)| in_sync & (1 << i) != 0 && core.sequencer.is_up(*node);
            row.replicas
                .iter()
                .enumerate()
                .find(|&(i, node)| able((i, node)))
                .map(|(_, node)| *node)
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
                    nodes: nodes.clone(),
                    shown: Shown::All,
                };
                self.ask_settled(core, id, &nodes, frame, Recipe::Keys(filter))
            }
            // Each node's choice is a key of the pool, and each key is on one of these nodes.
            _ if self.is_whole(core) => self.ask_settled(core, id, &nodes, frame, Recipe::RandomKey),
            _ => self.ask_all_keys(core, id, listers, nodes, Shown::Any),
        }
    }

    fn no_nodes(&self, core: &mut Core, id: u32) -> Flow {
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
        let all: Vec<NodeId> = (0..table.nodes.len() as NodeId).collect();
        let copies = u64::from(table.replicas).min(table.nodes.len() as u64);
        let frame = encode::command_frame(&[b"DBSIZE"]);
        self.ask_settled(core, id, &all, &frame, Recipe::Dbsize { copies })
    }

    /// Whether every node has what it should have, and nothing else.
    fn is_whole(&self, core: &Core) -> bool {
        let table = self.shared().table.load();
        table.rows.iter().enumerate().all(|(partition, row)| {
            let set = core
                .sequencer
                .partition_view(partition as PartitionId)
                .map_or(row.in_sync, |(_, set)| set);
            set.count_ones() as usize == row.replicas.len()
                && row.replicas.iter().all(|n| core.sequencer.is_up(*n))
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
            nodes: nodes.clone(),
            shown,
        };
        let frame = encode::command_frame(&[b"KEYS", b"*"]);
        self.ask_settled(core, id, &nodes, &frame, Recipe::Keys(filter))
    }

    fn scan(
        self: &Rc<Self>,
        core: &mut Core,
        id: u32,
        args: &Args<'_>,
        listers: &Arc<[Option<NodeId>]>,
        nodes: &[NodeId],
    ) -> Flow {
        let Some(number) = number(args.arg(1)) else {
            return self.refuse(core, id, "ERR invalid cursor");
        };
        let view = print_of(listers);
        let first = nodes.first().copied().unwrap_or_default();
        let from = match ScanCursor::of_number(number) {
            Some(cursor) if cursor.view == view && nodes.contains(&cursor.node) => cursor,
            _ => ScanCursor {
                at: 0,
                view,
                node: first,
            },
        };
        let next_node = nodes.iter().copied().find(|&node| node > from.node);
        let filter = KeyFilter {
            listers: listers.clone(),
            nodes: Vec::new(),
            shown: Shown::All,
        };
        let page = ScanPage {
            node: from.node,
            view,
            next_node,
            filter: Some(filter),
        };
        let at = from.at.to_string();
        let mut all: Vec<&[u8]> = args.iter().collect();
        if let Some(cursor) = all.get_mut(1) {
            *cursor = at.as_bytes();
        }
        let (frame, recipe) = (encode::command_frame(&all), Recipe::Scan(page));
        if from.at > 0 {
            return self.ask_nodes(core, id, &[from.node], &frame, recipe);
        }
        // What is acknowledged before the walk comes to a node must be there.
        self.ask_settled(core, id, &[from.node], &frame, recipe)
    }

    /// `HSCAN`, `SSCAN`, `ZSCAN`: the walk stays on the node it began on.
    pub(super) fn scan_key(
        &self,
        core: &mut Core,
        id: u32,
        partition: PartitionId,
        command: &Command,
        args: &Args<'_>,
    ) -> Flow {
        let Some(number) = number(args.arg(2)) else {
            return self.refuse(core, id, "ERR invalid cursor");
        };
        let listers = self.listers(core);
        let Some(lister) = listers.get(usize::from(partition)).copied().flatten() else {
            return self.no_nodes(core, id);
        };
        let view = print_of(&[Some(lister)]);
        let from = match ScanCursor::of_number(number) {
            Some(cursor) if cursor.view == view && cursor.node == lister => cursor,
            _ => ScanCursor {
                at: 0,
                view,
                node: lister,
            },
        };
        let at = from.at.to_string();
        let mut all: Vec<&[u8]> = args.iter().collect();
        if let Some(cursor) = all.get_mut(2) {
            *cursor = at.as_bytes();
        }
        let frame = encode::command_frame(&all);
        let page = ScanPage {
            node: lister,
            view,
            next_node: None,
            filter: None,
        };
        let _ = command;
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let slot = client.expect_parts(Gather::new(Recipe::Scan(page), 1), core.now_us);
        client.pending_reads.push((slot, partition));
        let reply_to = client.reply_to(self.id(), id, slot, 0);
        let db = client.session.db;
        let action = Action::OnNode(lister, Commands::one(frame));
        self.submit(
            core,
            self.shared().owner_of(partition),
            Request {
                partition,
                db,
                under: HoldId::NONE,
                action,
                reply_to,
            },
        );
        Flow::Next
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
