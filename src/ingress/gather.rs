//! Replies that are put together from parts: of several partitions, of several nodes, of a transaction's groups.

use bytes::{Bytes, BytesMut};

use super::client::in_protocol;
use super::exec::Assembly;
use super::finish::Finish;
use super::pool_wide::{KeyFilter, any_of};
use super::roll_call;
use super::scan::ScanPage;
use crate::command::spec::{Downgrade, Merge};
use crate::library::Sha;
use crate::pubsub::Publication;
use crate::request::{Outcome, Refusal};
use crate::resp::walk::{Elements, is_error};
use crate::resp::{ReplyScanner, encode};

/// How parts become a reply.
#[derive(Debug)]
pub(crate) enum Recipe {
    /// A command split over partitions: for each part the keys' places in the command's order.
    Split {
        merge: Merge,
        order: Vec<Vec<u32>>,
        keys: usize,
    },
    /// A script's reply.
    Script(Box<Finish>),
    /// A transaction.
    Exec(Box<Assembly>),
    /// `DBSIZE`: the sum, divided by the copies.
    Dbsize { copies: u64 },
    /// One page of a `SCAN`.
    Scan(ScanPage),
    /// `KEYS`, or what follows from it, from all nodes.
    Keys(KeyFilter),
    /// `RANDOMKEY`: one that some node has chosen.
    RandomKey,
    /// `CLIENT LIST`, from all workers: of these clients, or of all.
    ClientList(Vec<u64>),
    /// The sum of integers.
    Sum,
    /// `CLIENT KILL address`.
    KilledOne,
    /// No reply of its own: what its command needs before it is taken up again.
    Errand(Errand),
}

/// What a command may need.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Errand {
    /// A script shown to one node, after so many that have gone meanwhile: see `scripts`.
    ShowScript(Sha, u8),
    /// Where items and queues are: see `stripe::errand`.
    LookUp,
}

/// Parts that are being waited for.
#[derive(Debug)]
pub(crate) struct Gather {
    recipe: Recipe,
    parts: Vec<Option<Bytes>>,
    left: usize,
    /// Why a part was refused: the command is answered with that, whatever else comes.
    refused: Option<Refusal>,
    /// Whether another part was done.
    is_begun: bool,
    /// What scripts have published.
    pub(crate) published: Vec<Publication>,
}

impl Gather {
    pub(crate) fn new(recipe: Recipe, parts: usize) -> Self {
        Self {
            recipe,
            parts: vec![None; parts],
            left: parts,
            refused: None,
            is_begun: false,
            published: Vec::new(),
        }
    }

    /// Takes one part; whether it was the last.
    pub(crate) fn take(&mut self, part: u16, outcome: Outcome) -> bool {
        let Some(place) = self
            .parts
            .get_mut(usize::from(part))
            .filter(|place| place.is_none())
        else {
            return false;
        };
        match outcome {
            Outcome::Reply { frames, .. } => {
                self.is_begun |= !is_error(&frames);
                *place = Some(frames);
            }
            Outcome::Refused(refusal) => {
                *place = Some(Bytes::new());
                self.refused.get_or_insert(refusal);
            }
            Outcome::Done | Outcome::Waits | Outcome::MayCome | Outcome::Unknown => {
                *place = Some(Bytes::new())
            }
        }
        self.left -= 1;
        self.left == 0
    }

    fn failed(&self) -> Option<Bytes> {
        let refusal = self.refused?;
        Some(match self.is_begun {
            true => encode::error(&refusal.message_of_part()),
            false => encode::error(refusal.message()),
        })
    }

    /// For an errand: what came of it.
    pub(crate) fn errand_done(&mut self) -> Option<(Errand, Result<(), Bytes>)> {
        let Recipe::Errand(errand) = self.recipe else {
            return None;
        };
        let reply = self.parts.pop().flatten().unwrap_or_default();
        let result = match self.failed() {
            Some(failed) => Err(failed),
            None if is_error(&reply) => Err(reply),
            None => Ok(()),
        };
        Some((errand, result))
    }

    /// The reply, in the client's protocol.
    pub(crate) fn assemble(&mut self, client_resp3: bool) -> Bytes {
        let parts: Vec<Bytes> = self.parts.drain(..).map(Option::unwrap_or_default).collect();
        let failed = self.failed();
        match (&mut self.recipe, failed) {
            (Recipe::Scan(page), Some(_)) => page.start_over(),
            (_, Some(failed)) => failed,
            (Recipe::Exec(assembly), None) => assembly.assemble(&parts, client_resp3, &mut self.published),
            (Recipe::Script(finish), None) => {
                let reply = parts.into_iter().next().unwrap_or_default();
                finish.apply(&reply, client_resp3, &mut self.published)
            }
            (Recipe::Scan(page), None) => parts.first().map(|p| page.assemble(p)).unwrap_or_default(),
            (recipe, None) => {
                if let Some(error) = parts.iter().find(|part| is_error(part)) {
                    return error.clone();
                }
                match recipe {
                    Recipe::Split {
                        merge: Merge::Concat,
                        order,
                        keys,
                    } => concat(&parts, order, *keys, client_resp3),
                    Recipe::Split {
                        merge: Merge::Sum, ..
                    }
                    | Recipe::Sum => encode::integer(sum(&parts)),
                    Recipe::Split {
                        merge: Merge::Any, ..
                    } => encode::integer(i64::from(sum(&parts) > 0)),
                    Recipe::ClientList(ids) => roll_call::merge(&parts, ids, client_resp3),
                    Recipe::KilledOne if sum(&parts) == 0 => encode::error("ERR No such client"),
                    Recipe::Split { merge: Merge::Ok, .. } | Recipe::KilledOne => {
                        Bytes::from_static(b"+OK\r\n")
                    }
                    Recipe::Dbsize { copies } => encode::integer(sum(&parts) / (*copies).max(1) as i64),
                    Recipe::Keys(filter) => {
                        in_protocol(Downgrade::Generic, filter.assemble(&parts), true, client_resp3)
                    }
                    Recipe::RandomKey => {
                        let found: Vec<&[u8]> = parts
                            .iter()
                            .filter(|part| part.first() == Some(&b'$') && !part.starts_with(b"$-1"))
                            .map(|part| &part[..])
                            .collect();
                        in_protocol(Downgrade::Generic, any_of(&found), true, client_resp3)
                    }
                    _ => parts.into_iter().next().unwrap_or_default(),
                }
            }
        }
    }
}

fn sum(parts: &[Bytes]) -> i64 {
    let number = |part: &Bytes| {
        let digits = part.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        std::str::from_utf8(digits).ok()?.parse::<i64>().ok()
    };
    parts.iter().filter_map(number).sum()
}

/// Puts the elements of each part's array at their keys' places.
fn concat(parts: &[Bytes], order: &[Vec<u32>], keys: usize, client_resp3: bool) -> Bytes {
    let mut found: Vec<&[u8]> = vec![b"_\r\n"; keys];
    for (part, places) in parts.iter().zip(order) {
        for (element, &place) in elements(part).zip(places) {
            if let Some(slot) = found.get_mut(place as usize) {
                *slot = element;
            }
        }
    }
    let mut out = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum::<usize>() + 16);
    encode::header(&mut out, b'*', keys);
    for element in found {
        out.extend_from_slice(element);
    }
    in_protocol(Downgrade::Generic, out.freeze(), true, client_resp3)
}

/// The elements of an array, or none if it is something else.
pub(crate) fn elements(reply: &[u8]) -> impl Iterator<Item = &[u8]> {
    Elements::of(reply)
        .ok()
        .flatten()
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
}

/// Cuts replies that lie side by side.
pub(crate) fn cut(frames: &Bytes) -> Vec<Bytes> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(rest) = frames.get(at..).filter(|rest| !rest.is_empty()) {
        match ReplyScanner::default().scan(rest, 1) {
            Ok(Some((len, _))) => {
                all.push(frames.slice(at..at + len));
                at += len;
            }
            _ => break,
        }
    }
    all
}

/// The words of a command of ours.
pub(super) fn words_of(frame: &Bytes) -> Vec<Bytes> {
    cut(frame)
        .first()
        .map(|command| {
            elements(command)
                .filter_map(crate::resp::walk::text)
                .map(|word| command.slice_ref(word))
                .collect()
        })
        .unwrap_or_default()
}
