//! Making batches: what waits for a node becomes one `MULTI … EXEC` that carries the node's account.

use bytes::BytesMut;

use super::Sequencer;
use super::joint;
use super::node::{Expect, Item, Node};
use crate::account::{self, Position, Touch};
use crate::limits;
use crate::request::{Commands, NodeId, Touched};
use crate::resp::{OutBuf, encode};

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
pub(super) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Commands of the account at a batch's end: `SELECT`, two `HSET`.
const ACCOUNT_COMMANDS: u32 = 3;

impl Sequencer {
    /// Nodes that something waits for.
    pub fn has_work(&self, node: NodeId) -> bool {
        self.nodes
            .get(usize::from(node))
            .is_some_and(|n| n.up && (n.ping_wanted || !n.todo.is_empty()))
    }

    /// Ends a round of [`Sequencer::next_batch`] calls over all nodes: reads that come from now on need answers to
    /// something that is sent later.
    pub fn end_round(&mut self) {
        self.round += 1;
    }

    /// Appends the node's next batch to `out`, if there is something to send and room to send it. Whether there was.
    pub fn next_batch(&mut self, id: NodeId, out: &mut OutBuf) -> bool {
        let keeps_account = self.settings.replicas > 1;
        let Some(node) = self.nodes.get_mut(usize::from(id)) else {
            return false;
        };
        if !node.up {
            return false;
        }
        let start_len = out.len();
        let mut section: Option<Section> = None;
        let mut wrote = false;
        let mut script = false;
        let mut commands = 0;
        while let Some(&item) = node.todo.front() {
            if commands >= self.settings.batch_commands_max
                || out.len() - start_len >= self.settings.batch_bytes_max
            {
                break;
            }
            match item {
                // Replies that wait to be confirmed take room too.
                Item::Read(..) if self.parked_bytes > limits::READ_WINDOW_BYTES => break,
                Item::Read(..) if node.reads_in_flight >= node.read_window() => break,
                Item::Read(read_id, generation) => {
                    node.todo.pop_front();
                    let Some(read) = self
                        .reads
                        .get(read_id as usize)
                        .filter(|r| r.generation == generation)
                    else {
                        continue;
                    };
                    node.reads_in_flight += 1;
                    put_item(node, out, &mut section, item, read.db, &read.commands);
                    script |= read.commands.scripts.is_some();
                    commands += 1;
                }
                Item::Write(pos) => {
                    if keeps_account && node.write_in_flight {
                        break;
                    }
                    let Some(entry) = self.log.get_mut(pos) else {
                        node.todo.pop_front();
                        continue;
                    };
                    if entry.joint.is_some()
                        && !entry.is_flush()
                        && !joint::is_whole(&mut self.partitions, &mut self.effects, entry, id)
                    {
                        node.todo.pop_front();
                        continue;
                    }
                    let p = self
                        .partitions
                        .get(usize::from(entry.partition))
                        .and_then(Option::as_ref);
                    let (bit, acked) = p
                        .and_then(|p| {
                            let (i, bit) = p.bit_of(id)?;
                            Some((bit & p.streaming, p.replicas.get(i)?.acked))
                        })
                        .unwrap_or_default();
                    if !entry.is_flush() {
                        // What the node has refused begins a batch, so that it does not keep others from being executed.
                        if entry.refused & bit != 0 && section.is_some() {
                            break;
                        }
                        // Nor is it tried again while others have yet to say what they make of it.
                        let asked = p.map_or(0, |p| {
                            if p.has_executed(entry.seq) {
                                0
                            } else {
                                entry.sent & p.streaming
                            }
                        });
                        if entry.refused & bit != 0 && asked & !bit != 0 {
                            break;
                        }
                        // Expelled since it was queued: what is missing before it makes it useless there. Or it is in the copy
                        // that the node has been given since.
                        if bit == 0 || (keeps_account && entry.joint.is_none() && acked >= entry.seq) {
                            node.todo.pop_front();
                            continue;
                        }
                        entry.sent |= bit;
                        // What it said of an earlier attempt does not hold for this one.
                        entry.refused &= !bit;
                    }
                    node.todo.pop_front();
                    if keeps_account && section.is_none() {
                        section = Some(Section::open(node, out, true));
                        self.batch_mark += 1;
                        self.marks.clear();
                        self.touched.clear();
                        wrote = true;
                    }
                    put_item(node, out, &mut section, item, entry.db, &entry.commands);
                    script |= entry.commands.scripts.is_some();
                    commands += 1;
                    self.counters.batched_writes += 1;
                    if !keeps_account {
                        continue;
                    }
                    for (partition, seq) in entry.parts() {
                        let Some(Some(p)) = self.partitions.get_mut(usize::from(partition)) else {
                            continue;
                        };
                        if p.bit_of(id).is_none_or(|(_, bit)| p.streaming & bit == 0) {
                            continue;
                        }
                        if p.batch_mark != self.batch_mark {
                            p.batch_mark = self.batch_mark;
                            self.marks.push(partition);
                        }
                        p.batch_seq = seq;
                        match &entry.commands.touched {
                            Touched::Partition => {
                                let all = Touch::Partition;
                                account::put_touched(&mut self.touched, partition, entry.db, seq, all)
                            }
                            Touched::Keys(keys) => {
                                let touched = &mut self.touched;
                                let mut is_named = false;
                                for span in keys {
                                    let at = span.start as usize..(span.start + span.len) as usize;
                                    let key = entry.commands.frame.get(at).unwrap_or_default();
                                    // Of several partitions each names its own keys.
                                    if entry.joint.is_none()
                                        || self.settings.keyspace.partition_of(key) == partition
                                    {
                                        is_named = true;
                                        let key = Touch::Key(key);
                                        account::put_touched(touched, partition, entry.db, seq, key);
                                    }
                                }
                                if !is_named {
                                    account::put_touched(touched, partition, entry.db, seq, Touch::Nothing);
                                }
                            }
                        }
                    }
                }
            }
        }
        if let Some(section) = section {
            node.batches += 1;
            let bookkeeping_db = self.settings.bookkeeping_db;
            select(node, out.tail(), bookkeeping_db);
            let tail = out.tail();
            encode::header(tail, b'*', 2 + 2 * self.marks.len());
            encode::bulk(tail, b"HSET");
            encode::bulk(tail, account::APPLIED);
            for &partition in &self.marks {
                let Some(Some(p)) = self.partitions.get(usize::from(partition)) else {
                    continue;
                };
                put_number(tail, u64::from(partition));
                Position {
                    epoch: p.epoch,
                    seq: p.batch_seq,
                }
                .put(tail);
            }
            encode::header(tail, b'*', 4);
            encode::bulk(tail, b"HSET");
            encode::bulk(tail, account::TOUCHED);
            let field = format!(
                "{}:{}",
                self.settings.worker,
                node.batches % account::TOUCHED_BATCHES
            );
            encode::bulk(tail, field.as_bytes());
            encode::bulk(tail, &self.touched);
            node.expected.extend([Expect::Skip; ACCOUNT_COMMANDS as usize]);
            section.close(node, out, ACCOUNT_COMMANDS);
            node.write_in_flight = true;
            self.counters.batches += 1;
        }
        if commands == 0 && node.ping_wanted {
            out.put(PING);
            node.expected.push_back(Expect::Alive);
            commands = 1;
        }
        if commands == 0 {
            return false;
        }
        node.ping_wanted = false;
        node.expected.push_back(Expect::End {
            round: self.round,
            wrote,
            sent_ms: self.now_ms,
            script,
        });
        true
    }
}

/// A `MULTI … EXEC` being written.
struct Section {
    /// Where in `expected` its number of `+QUEUED` stands.
    queued_at: usize,
    commands: u32,
}

impl Section {
    fn open(node: &mut Node, out: &mut OutBuf, account: bool) -> Self {
        out.put(MULTI);
        node.expected.push_back(Expect::Skip);
        let queued_at = node.expected.len();
        node.expected
            .extend([Expect::Queued(0), Expect::Exec { account }]);
        Self {
            queued_at,
            commands: 0,
        }
    }

    fn close(self, node: &mut Node, out: &mut OutBuf, more: u32) {
        out.put(EXEC);
        if let Some(Expect::Queued(n)) = node.expected.get_mut(self.queued_at) {
            *n = self.commands + more;
        }
    }
}

/// Appends one item, in the open section or by itself; a transaction by itself gets a section of its own.
fn put_item(
    node: &mut Node,
    out: &mut OutBuf,
    section: &mut Option<Section>,
    item: Item,
    db: u16,
    commands: &Commands,
) {
    let count = commands.count;
    let mut before = 0;
    for script in commands.scripts.iter().flatten() {
        if node.scripts.insert(script.sha) {
            out.put_shared(&script.load);
            before += 1;
        }
    }
    if count > 0 && node.db != db {
        select(node, out.tail(), db);
        before += 1;
    }
    node.expected
        .extend(std::iter::repeat_n(Expect::Skip, before as usize));
    // Opened after the `SELECT`: that one stands even if the section is refused.
    let own = match section {
        Some(section) => {
            section.commands += count + before;
            None
        }
        None if count > 1 || commands.in_multi => Some(Section {
            commands: count,
            ..Section::open(node, out, false)
        }),
        None => None,
    };
    out.put_shared(&commands.frame);
    node.expected.push_back(Expect::Item(item, count));
    if let Some(own) = own {
        own.close(node, out, 0);
    }
}

fn select(node: &mut Node, out: &mut BytesMut, db: u16) {
    node.db = db;
    out.extend_from_slice(b"*2\r\n$6\r\nSELECT\r\n");
    put_number(out, u64::from(db));
}

fn put_number(out: &mut BytesMut, n: u64) {
    encode::header(out, b'$', n.checked_ilog10().unwrap_or(0) as usize + 1);
    encode::decimal(out, n);
    out.extend_from_slice(b"\r\n");
}
