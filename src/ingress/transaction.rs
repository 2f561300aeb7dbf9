//! `MULTI` … `EXEC`: commands are kept here until `EXEC`, then each partition gets its group as one unit.
//!
//! A group is executed at one place of its partition's order, in one batch of each node: all or nothing, whatever dies.
//! Groups of different partitions are ordered one right after the other; when a sidecar dies between them, one may have
//! been executed and the other not (see README, "What it does not guarantee").

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::client::{Client, in_protocol};
use super::dispatch::{Flow, Prepared, part_of};
use super::gather::{Gather, Recipe, cut};
use super::scripts::ScriptUse;
use crate::command::rewrite::PoolClock;
use crate::command::spec::{Compare, Downgrade, Pool};
use crate::command::{Command, Special};
use crate::limits;
use crate::request::{Action, Commands, PartitionId, Request, Script, Touched};
use crate::resp::{Args, Span, Spans, encode};
use crate::router::Route;
use crate::worker::{Core, Worker};

/// What is between `MULTI` and `EXEC`.
#[derive(Debug, Default)]
pub struct Transaction {
    commands: Vec<(Bytes, Spans)>,
    /// What is known to be wrong with the command that comes next: a script that does not compile.
    pub(super) fault: Option<Bytes>,
    /// The same for commands that are queued, by their number.
    faults: Vec<(usize, Bytes)>,
    bytes: usize,
    /// A command was refused, so `EXEC` will be.
    spoilt: bool,
}

/// How the groups' replies become the reply to `EXEC`.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    replies: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    /// Known already.
    Literal(Bytes),
    /// The next reply of a group.
    Of { group: usize, rule: Downgrade },
    /// One next reply of each of these groups, merged.
    Merged { gather: Box<Gather>, groups: Vec<usize> },
}

impl Assembly {
    pub(super) fn assemble(&mut self, parts: &[Bytes], client_resp3: bool) -> Bytes {
        let mut groups: Vec<std::vec::IntoIter<Bytes>> = parts.iter().map(|p| cut(p).into_iter()).collect();
        let mut next = |group: usize| groups.get_mut(group).and_then(Iterator::next).unwrap_or_default();
        let mut out = BytesMut::new();
        encode::header(&mut out, b'*', self.replies.len());
        for piece in &mut self.replies {
            let bytes = match piece {
                Piece::Literal(bytes) => bytes.clone(),
                Piece::Of { group, rule } => in_protocol(*rule, next(*group), true, client_resp3),
                Piece::Merged { gather, groups } => {
                    for (part, group) in groups.iter().enumerate() {
                        let frames = next(*group);
                        gather.take(
                            part as u16,
                            crate::request::Outcome::Reply { frames, resp3: true },
                        );
                    }
                    gather.assemble(client_resp3)
                }
            };
            out.extend_from_slice(&bytes);
        }
        out.freeze()
    }
}

/// The commands of one partition, becoming one unit.
struct Group {
    partition: PartitionId,
    db: u16,
    frame: BytesMut,
    count: u32,
    write: bool,
    touched: Touched,
    compare: Compare,
    scripts: Vec<std::sync::Arc<Script>>,
}

impl Group {
    fn add(&mut self, commands: Commands, write: bool) {
        let offset = self.frame.len() as u32;
        self.frame.extend_from_slice(&commands.frame);
        self.count += commands.count;
        self.write |= write;
        // One rule for the unit: exact if that holds for all, else types and lengths.
        if commands.compare != Compare::Exact {
            self.compare = Compare::Shape;
        }
        match (&mut self.touched, commands.touched) {
            (Touched::Keys(all), Touched::Keys(keys)) if write => {
                all.extend(keys.iter().map(|key| Span {
                    start: key.start + offset,
                    len: key.len,
                }));
            }
            (touched, Touched::Partition) if write => *touched = Touched::Partition,
            _ => {}
        }
        self.scripts.extend(commands.scripts.into_iter().flatten());
    }
}

impl Client {
    /// Notes that a command of an open transaction was refused.
    pub(super) fn spoil_transaction(&mut self) {
        if let Some(transaction) = &mut self.session.transaction {
            transaction.spoilt = true;
        }
    }
}

impl Worker {
    /// `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.
    pub(super) fn transaction(&self, core: &mut Core, id: u32, special: Special, _args: &Args<'_>) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let open = client.session.transaction.is_some();
        match special {
            Special::Multi if open => self.refuse(core, id, "ERR MULTI calls can not be nested"),
            Special::Multi => {
                client.session.transaction = Some(Box::default());
                self.reply(core, id, OK)
            }
            Special::Discard if !open => self.refuse(core, id, "ERR DISCARD without MULTI"),
            Special::Discard => {
                client.session.transaction = None;
                self.reply(core, id, OK)
            }
            Special::Exec if !open => self.refuse(core, id, "ERR EXEC without MULTI"),
            Special::Exec => self.exec(core, id),
            Special::Watch if open => self.refuse(core, id, "ERR WATCH inside MULTI is not allowed"),
            Special::Unwatch => self.reply(core, id, OK),
            _ => self.refuse(core, id, "ERR WATCH is not available yet"),
        }
    }

    /// Keeps a command for `EXEC`.
    pub(super) fn queue(
        &self,
        core: &mut Core,
        id: u32,
        command: &Command,
        frame: &Bytes,
        spans: &Spans,
        route: &Route,
    ) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        let refusal = match route {
            Route::Refused(line) => Some(line.clone()),
            Route::Pool(Pool::Scripts) => None,
            Route::Pool(_) => Some(encode::error(
                "ERR a command about the whole pool (SCAN, KEYS, FLUSHDB, SCRIPT, …) cannot be part of a transaction",
            )),
            _ if self.decided_first(command, frame, spans) => Some(encode::error(
                "ERR this command's effect is decided by one node first, so it cannot be part of a transaction yet",
            )),
            _ if command.flags.contains(crate::command::Flags::NO_MULTI) => {
                Some(encode::error("ERR Command not allowed inside a transaction"))
            }
            _ => None,
        };
        if let Some(line) = refusal {
            client.spoil_transaction();
            return self.reply(core, id, line);
        }
        let bytes_max = self.shared().config.limits.command_max.as_u64() as usize;
        if let Some(transaction) = &mut client.session.transaction {
            transaction.bytes += frame.len();
            if transaction.commands.len() >= limits::TRANSACTION_COMMANDS_MAX || transaction.bytes > bytes_max
            {
                transaction.spoilt = true;
                transaction.commands.clear();
                return self.refuse(
                    core,
                    id,
                    "ERR the transaction is larger than the limit for one command (setting limits.command_max)",
                );
            }
            if let Some(fault) = transaction.fault.take() {
                transaction.faults.push((transaction.commands.len(), fault));
            }
            transaction.commands.push((frame.clone(), spans.clone()));
        }
        self.reply(core, id, Bytes::from_static(b"+QUEUED\r\n"))
    }

    /// Whether one node has to decide the command's effect.
    fn decided_first(&self, command: &Command, frame: &Bytes, spans: &Spans) -> bool {
        // By a clock of its own: what it would be rewritten to is thrown away.
        let mut clock = PoolClock {
            now_ms: self.shared().pool_ms(),
            ..PoolClock::default()
        };
        matches!(
            self.prepare(&mut clock, command, frame, spans),
            Prepared::Decide(_)
        )
    }

    fn exec(&self, core: &mut Core, id: u32) -> Flow {
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        // Its reads may concern any of the partitions.
        if client.reads_pending(None) {
            return Flow::Again;
        }
        let Some(transaction) = client.session.transaction.take() else {
            return Flow::Next;
        };
        if transaction.spoilt {
            return self.refuse(
                core,
                id,
                "EXECABORT Transaction discarded because of previous errors.",
            );
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut assembly = Assembly::default();
        for (i, (frame, spans)) in transaction.commands.iter().enumerate() {
            let piece = match transaction.faults.iter().find(|(at, _)| *at == i) {
                Some((_, fault)) => Piece::Literal(fault.clone()),
                None => self.piece(core, id, frame, spans, &mut groups),
            };
            assembly.replies.push(piece);
        }
        let Some(client) = core.clients.get_mut(id as usize) else {
            return Flow::Leave;
        };
        if groups.is_empty() {
            let resp3 = client.session.resp3;
            let reply = assembly.assemble(&[], resp3);
            return self.reply(core, id, reply);
        }
        let gather = Gather::new(Recipe::Exec(Box::new(assembly)), groups.len());
        let slot = client.expect_parts(gather, core.now_us);
        let mut requests = Vec::with_capacity(groups.len());
        for (part, group) in groups.into_iter().enumerate() {
            let commands = Commands {
                frame: group.frame.freeze(),
                count: group.count,
                compare: group.compare,
                touched: group.touched,
                scripts: (!group.scripts.is_empty()).then(|| group.scripts.into_boxed_slice()),
                second_chance: None,
            };
            let action = if group.write {
                Action::Write(commands)
            } else {
                Action::Read(commands)
            };
            if !group.write {
                client.pending_reads.push((slot, group.partition));
            }
            let reply_to = client.reply_to(self.id(), id, slot, part as u16);
            requests.push(Request {
                partition: group.partition,
                db: group.db,
                action,
                reply_to,
            });
        }
        for request in requests {
            self.submit(core, self.shared().owner_of(request.partition), request);
        }
        Flow::Next
    }

    /// What one command of a transaction contributes to its reply; its work goes into the groups.
    fn piece(
        &self,
        core: &mut Core,
        id: u32,
        frame: &Bytes,
        spans: &Spans,
        groups: &mut Vec<Group>,
    ) -> Piece {
        let args = Args { bytes: frame, spans };
        let command = match self.shared().commands.lookup(&args) {
            Ok(command) => command,
            Err(error) => return Piece::Literal(error.to_bytes()),
        };
        let db = core.clients.get(id as usize).map_or(0, |c| c.session.db);
        match self.route(command, &args) {
            Route::One { partition, write } => {
                let script = match self.script_in_transaction(command, &args) {
                    Ok(script) => script,
                    Err(error) => return Piece::Literal(error),
                };
                let frame = match &script {
                    Some(script) => script.frame(frame, &args, core.clock.now_ms),
                    None => frame.clone(),
                };
                let commands = match self.prepare(&mut core.clock, command, &frame, spans) {
                    Prepared::Commands(commands) => Commands {
                        scripts: script.and_then(ScriptUse::into_loads),
                        ..commands
                    },
                    Prepared::Decide(_) => {
                        return Piece::Literal(encode::error("ERR not possible in a transaction"));
                    }
                };
                if write {
                    self.note_expiry(partition, command, &args);
                }
                let rule = command.downgrade(spans.len());
                Piece::Of {
                    group: put(groups, partition, db, commands, write),
                    rule,
                }
            }
            Route::Several {
                merge,
                write,
                parts,
                step,
            } => {
                let order: Vec<Vec<u32>> = parts
                    .iter()
                    .map(|(_, keys)| keys.iter().map(|&key| (key - 1) / step as u32).collect())
                    .collect();
                let keys = order.iter().map(Vec::len).sum();
                let groups = parts
                    .iter()
                    .map(|(partition, keys)| {
                        put(
                            groups,
                            *partition,
                            db,
                            part_of(&args, keys, step, command.compare),
                            write,
                        )
                    })
                    .collect::<Vec<_>>();
                let gather = Box::new(Gather::new(Recipe::Split { merge, order, keys }, groups.len()));
                Piece::Merged { gather, groups }
            }
            Route::Local => Piece::Literal(self.local_reply(core, id, command, &args)),
            Route::Refused(line) | Route::Invalid(line) => Piece::Literal(line),
            Route::Pool(Pool::Scripts) => Piece::Literal(self.script_reply(command.special, &args)),
            Route::Transaction | Route::Pool(_) => {
                Piece::Literal(encode::error("ERR not possible in a transaction"))
            }
        }
    }
}

/// Puts commands into the group of their partition and database: its number.
fn put(groups: &mut Vec<Group>, partition: PartitionId, db: u16, commands: Commands, write: bool) -> usize {
    let found = groups.iter().position(|g| g.partition == partition && g.db == db);
    let at = found.unwrap_or_else(|| {
        groups.push(Group {
            partition,
            db,
            frame: BytesMut::new(),
            count: 0,
            write: false,
            touched: Touched::Keys(SmallVec::new()),
            compare: Compare::Exact,
            scripts: Vec::new(),
        });
        groups.len() - 1
    });
    if let Some(group) = groups.get_mut(at) {
        group.add(commands, write);
    }
    at
}

pub(super) const OK: Bytes = Bytes::from_static(b"+OK\r\n");
