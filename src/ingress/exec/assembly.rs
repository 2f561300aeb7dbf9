//! How the replies of groups become the reply to `EXEC`.

use bytes::{Bytes, BytesMut};

use crate::command::spec::Downgrade;
use crate::ingress::client::in_protocol;
use crate::ingress::finish::Finish;
use crate::ingress::gather::{Gather, cut};
use crate::pubsub::Publication;
use crate::request::Outcome;
use crate::resp::{Spans, encode};

/// How the groups' replies become the reply to `EXEC`.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pub(super) replies: Vec<Piece>,
    /// Publishing and subscribing, done when the rest is acknowledged.
    pub(super) pubsub: Vec<(Bytes, Spans)>,
}

#[derive(Debug)]
pub(super) enum Piece {
    /// Known already.
    Literal(Bytes),
    /// The next reply of a group.
    Of { group: usize, rule: Downgrade },
    /// The same of a script.
    OfScript { group: usize, finish: Box<Finish> },
    /// One next reply of each of these groups, merged.
    Merged { gather: Box<Gather>, groups: Vec<usize> },
    /// Of the next command in `Assembly::pubsub`.
    PubSub,
}

impl Assembly {
    pub(in crate::ingress) fn take_pubsub(&mut self) -> Vec<(Bytes, Spans)> {
        std::mem::take(&mut self.pubsub)
    }

    pub(in crate::ingress) fn pubsub_done(&mut self, replies: Vec<Bytes>) {
        let open = self.replies.iter_mut().filter(|p| matches!(p, Piece::PubSub));
        for (piece, reply) in open.zip(replies) {
            *piece = Piece::Literal(reply);
        }
    }

    pub(in crate::ingress) fn assemble(
        &mut self,
        parts: &[Bytes],
        client_resp3: bool,
        published: &mut Vec<Publication>,
    ) -> Bytes {
        let mut groups: Vec<std::vec::IntoIter<Bytes>> = parts.iter().map(|p| cut(p).into_iter()).collect();
        let mut next = |group: usize| groups.get_mut(group).and_then(Iterator::next).unwrap_or_default();
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', self.replies.len());
        for piece in &mut self.replies {
            let bytes = match piece {
                Piece::Literal(bytes) => bytes.clone(),
                Piece::PubSub => Bytes::new(),
                Piece::Of { group, rule } => in_protocol(*rule, next(*group), true, client_resp3),
                Piece::OfScript { group, finish } => finish.apply(&next(*group), client_resp3, published),
                Piece::Merged { gather, groups } => {
                    for (part, group) in groups.iter().enumerate() {
                        let frames = next(*group);
                        gather.take(part as u16, Outcome::Reply { frames, resp3: true });
                    }
                    gather.assemble(client_resp3)
                }
            };
            out.extend_from_slice(&bytes);
        }
        out.freeze()
    }
}
