//! Walks with a cursor: `SCAN` over the pool's keys, node by node; `HSCAN`, `SSCAN`, `ZSCAN` over one key's elements.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::dispatch::Flow;
use super::gather::{Gather, Recipe, elements};
use super::pool_wide::KeyFilter;
use super::scan_cursor::{ScanCursor, print_of};
use crate::request::{Action, Commands, HoldId, NodeId, PartitionId, Request};
use crate::resp::walk::{is_error, text};
use crate::resp::{Args, encode};
use crate::worker::{Core, Worker};

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
                page(cursor, &filter.page(&kept))
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
    pub(super) fn scan(
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
        let mut page = ScanPage {
            node: from.node,
            view,
            next_node,
            filter: Some(KeyFilter::of(listers.clone(), self.shared())),
        };
        let at = from.at.to_string();
        let mut all: Vec<&[u8]> = args.iter().collect();
        if let Some(cursor) = all.get_mut(1) {
            *cursor = at.as_bytes();
        }
        // What nodes call a key is not what the pattern is about.
        if self.shared().stripes.is_some()
            && let Some(at) = all
                .iter()
                .skip(2)
                .position(|word| word.eq_ignore_ascii_case(b"match"))
            && at + 3 < all.len()
        {
            let pattern = all.drain(at + 2..at + 4).nth(1);
            page.filter = page.filter.map(|filter| filter.matching(pattern.unwrap_or(b"*")));
        }
        let (frame, recipe) = (encode::command_frame(&all), Recipe::Scan(page));
        if from.at > 0 {
            return self.ask_nodes(core, id, &[from.node], &frame, recipe);
        }
        // What is acknowledged before the walk comes to a node must be there.
        self.ask_settled(core, id, &[from.node], &frame, recipe)
    }

    /// `HSCAN`, `SSCAN`, `ZSCAN`: the walk stays on the node it began on.
    pub(super) fn scan_key(&self, core: &mut Core, id: u32, partition: PartitionId, args: &Args<'_>) -> Flow {
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
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let slot = client.expect_parts(Gather::new(Recipe::Scan(page), 1), core.now_us);
        client.note_read(slot, partition);
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
