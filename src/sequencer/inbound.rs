//! What a node answers: bytes become acknowledgements and replies, matched with what it was sent.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::Sequencer;
use super::node::{Expect, Item, Trouble};
use crate::request::NodeId;
use crate::resp::ReplyError;

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Why a stream must be closed. Nothing is lost by it: the node's account tells the next stream where to go on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// The node sent something that is not a reply, or not one that was due.
    #[error("the node sent what is no reply: {0}")]
    Protocol(#[from] ReplyError),
    /// The node refused to execute a batch.
    #[error("the node refused a batch: {0}")]
    Refused(String),
    /// The node refused something no node should refuse.
    #[error("the node answered {0:?} to a command of the stream itself")]
    Unexpected(String),
}

/// One thing that was found in the node's bytes.
#[derive(Debug)]
pub(super) enum Unit {
    Reply {
        item: Item,
        start: usize,
        end: usize,
        resp3: bool,
    },
    End {
        round: u64,
        wrote: bool,
    },
}

impl Sequencer {
    /// Takes what the node's stream has received; what is complete is taken off the front of `buf`.
    pub fn receive(&mut self, id: NodeId, buf: &mut BytesMut) -> Result<(), Broken> {
        if let Some(node) = self.nodes.get_mut(usize::from(id)) {
            node.heard_ms = self.now_ms;
        }
        let mut units = std::mem::take(&mut self.units);
        let (consumed, broken) = self.scan(id, buf, &mut units);
        let chunk = buf.split_to(consumed).freeze();
        for unit in units.drain(..) {
            match unit {
                Unit::Reply {
                    item: Item::Write(pos),
                    start,
                    end,
                    resp3,
                } => {
                    if self.write_acked(id, pos, &chunk, start..end, resp3) {
                        self.differs(pos);
                    }
                }
                Unit::Reply {
                    item: Item::Read(read, generation),
                    start,
                    end,
                    resp3,
                } => {
                    if let Some(node) = self.nodes.get_mut(usize::from(id)) {
                        node.read_answered(end - start);
                    }
                    self.read_answered(read, generation, chunk.slice(start..end), resp3);
                }
                Unit::End { round, wrote } => {
                    if let Some(node) = self.nodes.get_mut(usize::from(id)) {
                        node.confirmed_round = round;
                        node.write_in_flight &= !wrote;
                        node.slow = false;
                        if wrote {
                            node.trouble = Trouble::None;
                        }
                    }
                }
            }
        }
        self.units = units;
        self.order_again();
        self.settle_reads();
        match broken {
            None => Ok(()),
            Some(Broken::Refused(why)) => Err(Broken::Refused(self.batch_refused(id, why))),
            Some(broken) => Err(broken),
        }
    }

    /// How many bytes the reply that the node has begun to send has at least.
    pub fn needed_bytes(&self, id: NodeId) -> usize {
        self.nodes
            .get(usize::from(id))
            .map_or(0, |node| node.scanner.needed_bytes())
    }

    /// Finds complete units in `buf`: how many bytes they take, and what is wrong with the rest.
    fn scan(&mut self, id: NodeId, buf: &[u8], units: &mut Vec<Unit>) -> (usize, Option<Broken>) {
        let mut at = 0;
        let Some(node) = self.nodes.get_mut(usize::from(id)) else {
            return (at, None);
        };
        loop {
            let rest = buf.get(at..).unwrap_or_default();
            let Some(expect) = node.expected.front_mut() else {
                let surplus = (!rest.is_empty()).then(|| Broken::Unexpected(first_line(rest)));
                return (at, surplus);
            };
            match expect {
                Expect::End { round, wrote, .. } => units.push(Unit::End {
                    round: *round,
                    wrote: *wrote,
                }),
                Expect::Queued(left) if *left > 0 => {
                    if rest.starts_with(QUEUED) {
                        at += QUEUED.len();
                    } else if QUEUED.starts_with(rest) {
                        // Cut in the middle. The scanner must not begin what the line above will finish.
                        return (at, None);
                    } else {
                        let len = match node.scanner.scan(rest, 1) {
                            Ok(Some((len, _))) => len,
                            Ok(None) => return (at, None),
                            Err(e) => return (at, Some(e.into())),
                        };
                        let reply = rest.get(..len).unwrap_or_default();
                        at += len;
                        if reply.first() == Some(&b'-') {
                            node.queue_errors.push((node.queued_seen, reply.to_vec()));
                        } else if reply != QUEUED {
                            return (at, Some(Broken::Unexpected(first_line(reply))));
                        }
                    }
                    node.queued_seen += 1;
                    *left -= 1;
                    continue;
                }
                Expect::Queued(_) => node.queued_seen = 0,
                Expect::Exec { account } => match rest.first() {
                    None => return (at, None),
                    Some(b'*') => {
                        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
                            return (at, None);
                        };
                        at += end + 1;
                    }
                    Some(_) => match node.scanner.scan(rest, 1) {
                        Ok(Some((len, _))) if *account => {
                            let why = first_line(rest.get(..len).unwrap_or_default());
                            return (at + len, Some(Broken::Refused(why)));
                        }
                        Ok(Some((len, _))) => {
                            // A transaction by itself: the refusal is its reply.
                            node.queue_errors.clear();
                            node.expected.pop_front();
                            if let Some(Expect::Item(item, _)) = node.expected.front() {
                                units.push(Unit::Reply {
                                    item: *item,
                                    start: at,
                                    end: at + len,
                                    resp3: false,
                                });
                            }
                            at += len;
                        }
                        Ok(None) => return (at, None),
                        Err(e) => return (at, Some(e.into())),
                    },
                },
                // A node whose disk is full answers `PING` with an error, and goes on reading all the same.
                Expect::Alive if rest.starts_with(b"-MISCONF ") => match node.scanner.scan(rest, 1) {
                    Ok(Some((len, _))) => at += len,
                    Ok(None) => return (at, None),
                    Err(e) => return (at, Some(e.into())),
                },
                Expect::Skip | Expect::Alive => match node.scanner.scan(rest, 1) {
                    Ok(Some((len, _))) if rest.first() == Some(&b'-') => {
                        let why = first_line(rest.get(..len).unwrap_or_default());
                        return (at + len, Some(Broken::Unexpected(why)));
                    }
                    Ok(Some((len, _))) => at += len,
                    Ok(None) => return (at, None),
                    Err(e) => return (at, Some(e.into())),
                },
                Expect::Item(item, count) => match node.scanner.scan(rest, *count) {
                    Ok(Some((len, resp3))) => {
                        units.push(Unit::Reply {
                            item: *item,
                            start: at,
                            end: at + len,
                            resp3,
                        });
                        at += len;
                    }
                    Ok(None) => return (at, None),
                    Err(e) => return (at, Some(e.into())),
                },
            }
            node.expected.pop_front();
        }
    }

    /// A section was not executed. Nothing after it was sent but reads, so the node stands where its account says.
    ///
    /// What only this node refused, it will be given again. What every node refuses is answered with the error and
    /// left out: nobody has executed it, so nobody will miss it. Gives the node's own words.
    fn batch_refused(&mut self, id: NodeId, why: String) -> String {
        let Some(node) = self.nodes.get_mut(usize::from(id)) else {
            return why;
        };
        let errors = std::mem::take(&mut node.queue_errors);
        let first = errors.first().map_or(why, |(_, text)| first_line(text));
        node.trouble = Trouble::Refused(first.clone());
        let mut index = 0u32;
        let mut refused: Vec<(Item, Vec<u8>)> = Vec::new();
        for expect in node.expected.iter().skip(1) {
            match expect {
                Expect::Item(item, count) => {
                    let within = index..index + count;
                    if let Some((_, text)) = errors.iter().find(|(at, _)| within.contains(at)) {
                        refused.push((*item, text.clone()));
                    }
                    index += count;
                }
                Expect::Skip | Expect::Alive => index += 1,
                Expect::End { .. } => break,
                Expect::Queued(_) | Expect::Exec { .. } => {}
            }
        }
        for (item, text) in refused {
            match item {
                Item::Write(pos) => self.write_refused(id, pos, text),
                // Another node would refuse it too.
                Item::Read(read, generation) => {
                    self.read_answered(read, generation, Bytes::from(text), false)
                }
            }
        }
        first
    }
}

/// The first line of a reply, for people; errors without their `-`.
fn first_line(reply: &[u8]) -> String {
    let line = reply
        .split(|&b| b == b'\r' || b == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_prefix(b"-").unwrap_or(line);
    String::from_utf8_lossy(line.get(..line.len().min(200)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_of_a_refusal() {
        assert_eq!(first_line(b"-MISCONF disk\r\n"), "MISCONF disk");
        assert_eq!(first_line(b"+OK\r\n"), "+OK");
    }
}
