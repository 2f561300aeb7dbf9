//! A fake node: reads the bytes of a stream, executes them as Redis would (a transaction as one), answers in RESP3.
//!
//! Its data is durable but for what a fault takes: `restart` can undo the last transactions, as an append-only file that
//! is synced once a second does, or all of it. What the sidecar wrote by control connections (claim, table, repair) is not
//! undone, only emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringfence::account::{self, Position};
use ringfence::pool::recover::Account;
use ringfence::pool::table::Row;
use ringfence::request::PartitionId;

use crate::keys::partition_of;
use crate::wire::{self, Cmd};

pub const BOOKKEEPING_DB: u16 = 15;

/// Transactions that a restart may undo at most.
const JOURNAL_MAX: usize = 40;

/// Database and key.
pub type Key = (u16, Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    List(Vec<Vec<u8>>),
    Int(i64),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

/// How one change is undone.
#[derive(Debug)]
enum Undo {
    Key(Key, Option<Value>),
    Field(Key, Vec<u8>, Option<Vec<u8>>),
    Pop(Key),
    Repair(PartitionId, Option<Vec<Option<Key>>>),
}

/// Who has claimed a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub term: u64,
    pub instance: u32,
}

/// The table's record.
#[derive(Debug)]
pub struct Record {
    /// Term and version: the later one counts.
    pub stamp: (u64, u64),
    pub rows: Vec<Row>,
}

/// What a control connection changes, as one transaction.
#[derive(Clone, Debug)]
pub enum Change {
    /// What there is of these partitions is not what any position says.
    Announce(Vec<PartitionId>),
    /// A key becomes what it is elsewhere.
    Put(Key, Option<Value>),
    /// Partitions are whole, and stand there.
    Account(Vec<(PartitionId, Option<Position>)>),
    /// Nothing is left of these partitions.
    Clear(Vec<PartitionId>),
}

/// The node's side of a connection.
#[derive(Debug, Default)]
pub struct Session {
    db: u16,
    input: Vec<u8>,
    multi: Option<Vec<Cmd>>,
    refused: bool,
}

#[derive(Debug)]
pub struct Node {
    pub up: bool,
    /// Refuses writes, as Redis does when it cannot write to its disk.
    pub refusing: bool,
    pub data: BTreeMap<Key, Value>,
    pub claim: Option<Claim>,
    /// See `account::FORGOT`.
    pub forgot: bool,
    /// Nobody has claimed it yet: the pool is made of it.
    is_new: bool,
    /// Who has a user here. Forgotten by a restart.
    pub admitted: Option<u32>,
    pub table: Option<Rc<Record>>,
    pub repair: BTreeMap<PartitionId, Vec<Option<Key>>>,
    /// How often its process has started: connections of an earlier time are gone.
    pub boot: u32,
    /// Clients' keys that have changed since the beginning, as it tells those who track them.
    pub changes: Vec<Key>,
    /// What a fault took, until it is there again: see `World::excused`.
    pub lost: BTreeMap<PartitionId, Position>,
    pub lost_table: Option<(u64, u64)>,
    scripts: BTreeSet<Vec<u8>>,
    journal: Vec<Vec<Undo>>,
    choice: usize,
}

impl Node {
    pub fn new(id: usize, table: Rc<Record>) -> Self {
        Self {
            up: true,
            refusing: false,
            data: BTreeMap::new(),
            claim: None,
            forgot: false,
            is_new: true,
            admitted: None,
            table: Some(table),
            repair: BTreeMap::new(),
            boot: 0,
            changes: Vec::new(),
            lost: BTreeMap::new(),
            lost_table: None,
            scripts: BTreeSet::new(),
            journal: Vec::new(),
            choice: id,
        }
    }

    /// Takes bytes of a stream; appends what it answers.
    pub fn feed(&mut self, session: &mut Session, bytes: &[u8], out: &mut Vec<u8>) {
        session.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut session.input);
        let mut at = 0;
        while let Some((cmd, used)) = wire::command(&input[at..]) {
            at += used;
            self.handle(session, cmd, out);
        }
        session.input = input[at..].to_vec();
    }

    fn handle(&mut self, session: &mut Session, cmd: Cmd, out: &mut Vec<u8>) {
        let name = cmd[0].as_slice();
        match name {
            b"MULTI" => {
                assert!(session.multi.is_none(), "MULTI within MULTI");
                session.multi = Some(Vec::new());
                session.refused = false;
                return out.extend_from_slice(b"+OK\r\n");
            }
            b"EXEC" => {
                let queued = session.multi.take().expect("EXEC without MULTI");
                if session.refused {
                    let text = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
                    return out.extend_from_slice(text);
                }
                out.extend_from_slice(format!("*{}\r\n", queued.len()).as_bytes());
                let mut undo = Vec::new();
                for cmd in &queued {
                    self.execute(session, cmd, out, &mut undo);
                }
                return self.remember(undo);
            }
            _ => {}
        }
        let writes = matches!(
            name,
            b"RPUSH" | b"LPOP" | b"RPOPLPUSH" | b"INCR" | b"SADD" | b"SREM" | b"EVALSHA" | b"HSET"
        );
        let refusal: Option<&[u8]> = match name {
            b"BOOM" => Some(b"-ERR unknown command 'BOOM'\r\n"),
            _ if writes && self.refusing => Some(b"-MISCONF Errors writing to the AOF file\r\n"),
            _ => None,
        };
        if let Some(text) = refusal {
            session.refused = true;
            return out.extend_from_slice(text);
        }
        match &mut session.multi {
            Some(queued) => {
                queued.push(cmd);
                out.extend_from_slice(b"+QUEUED\r\n");
            }
            None => {
                let mut undo = Vec::new();
                self.execute(session, &cmd, out, &mut undo);
                self.remember(undo);
            }
        }
    }

    fn remember(&mut self, undo: Vec<Undo>) {
        if undo.is_empty() {
            return;
        }
        let changed = undo.iter().filter_map(|undo| match undo {
            Undo::Key(key, _) | Undo::Pop(key) if key.0 != BOOKKEEPING_DB => Some(key.clone()),
            _ => None,
        });
        self.changes.extend(changed);
        self.journal.push(undo);
        if self.journal.len() > JOURNAL_MAX {
            self.journal.remove(0);
        }
    }

    fn execute(&mut self, session: &mut Session, cmd: &Cmd, out: &mut Vec<u8>, undo: &mut Vec<Undo>) {
        let key = |i: usize| (session.db, cmd[i].clone());
        match cmd[0].as_slice() {
            b"PING" => out.extend_from_slice(b"+PONG\r\n"),
            b"SELECT" => {
                session.db = String::from_utf8_lossy(&cmd[1]).parse().unwrap();
                out.extend_from_slice(b"+OK\r\n");
            }
            b"RPUSH" => self.push(key(1), &cmd[2], out, undo),
            b"SCRIPT" => {
                self.scripts.insert(cmd[2].clone());
                wire::put_bulk(out, &cmd[2]);
            }
            b"EVALSHA" => {
                if self.scripts.contains(&cmd[1]) {
                    let (keys, value) = (3..cmd.len() - 1, &cmd[cmd.len() - 1]);
                    out.extend_from_slice(format!("*{}\r\n", keys.len()).as_bytes());
                    keys.for_each(|i| self.push(key(i), value, out, undo));
                } else {
                    out.extend_from_slice(b"-NOSCRIPT No matching script.\r\n");
                }
            }
            b"LRANGE" => match self.data.get(&key(1)) {
                Some(Value::List(items)) => wire::put_list(out, items),
                _ => wire::put_list(out, &[]),
            },
            // No command of Redis: stands for those that wait for what comes after something.
            b"LONGER" => match self.data.get(&key(1)) {
                Some(Value::List(items)) if items.len() > number(&cmd[2]) => wire::put_list(out, items),
                _ => out.extend_from_slice(b"_\r\n"),
            },
            b"LLEN" => {
                let len = match self.data.get(&key(1)) {
                    Some(Value::List(items)) => items.len(),
                    _ => 0,
                };
                wire::put_int(out, len as i64);
            }
            b"LPOP" => match self.pull(key(1), true, undo) {
                Some(item) => wire::put_bulk(out, &item),
                None => out.extend_from_slice(b"_\r\n"),
            },
            b"RPOPLPUSH" => match self.pull(key(1), false, undo) {
                Some(item) => {
                    undo.push(Undo::Key(key(2), self.data.get(&key(2)).cloned()));
                    let to = self.data.entry(key(2)).or_insert_with(|| Value::List(Vec::new()));
                    let Value::List(items) = to else {
                        panic!("not a list")
                    };
                    items.insert(0, item.clone());
                    wire::put_bulk(out, &item);
                }
                None => out.extend_from_slice(b"_\r\n"),
            },
            b"INCR" => {
                let key = key(1);
                let old = self.data.get(&key).cloned();
                let n = if let Some(Value::Int(n)) = old { n + 1 } else { 1 };
                self.data.insert(key.clone(), Value::Int(n));
                undo.push(Undo::Key(key, old));
                wire::put_int(out, n);
            }
            b"GET" => match self.data.get(&key(1)) {
                Some(Value::Int(n)) => wire::put_bulk(out, n.to_string().as_bytes()),
                _ => out.extend_from_slice(b"_\r\n"),
            },
            b"SADD" | b"SREM" => {
                let key = key(1);
                let old = self.data.get(&key).cloned();
                let Value::Set(members) = self
                    .data
                    .entry(key.clone())
                    .or_insert_with(|| Value::Set(BTreeSet::new()))
                else {
                    panic!("not a set")
                };
                let mut changed = 0;
                for member in &cmd[2..] {
                    let done = match cmd[0].as_slice() {
                        b"SADD" => members.insert(member.clone()),
                        _ => members.remove(member),
                    };
                    changed += i64::from(done);
                }
                if members.is_empty() {
                    self.data.remove(&key);
                }
                undo.push(Undo::Key(key, old));
                wire::put_int(out, changed);
            }
            b"SRANDMEMBER" => match self.data.get(&key(1)) {
                Some(Value::Set(members)) => {
                    // Every node chooses otherwise.
                    self.choice += 7;
                    let member = members.iter().nth(self.choice % members.len()).unwrap();
                    wire::put_bulk(out, member);
                }
                _ => out.extend_from_slice(b"_\r\n"),
            },
            b"HSET" => {
                assert_eq!(
                    session.db, BOOKKEEPING_DB,
                    "the account is kept in its own database"
                );
                let key = key(1);
                let Value::Hash(fields) = self
                    .data
                    .entry(key.clone())
                    .or_insert_with(|| Value::Hash(BTreeMap::new()))
                else {
                    panic!("not a hash")
                };
                let mut new = 0;
                for pair in cmd[2..].chunks(2) {
                    let old = fields.insert(pair[0].clone(), pair[1].clone());
                    new += i64::from(old.is_none());
                    undo.push(Undo::Field(key.clone(), pair[0].clone(), old));
                }
                wire::put_int(out, new);
            }
            b"DUMP" => match self.data.get(&key(1)) {
                Some(value) => wire::put_bulk(out, &dump(value)),
                None => out.extend_from_slice(b"_\r\n"),
            },
            b"PEXPIRETIME" => wire::put_int(out, if self.data.contains_key(&key(1)) { -1 } else { -2 }),
            b"RESTORE" => {
                let key = key(1);
                let old = self.data.insert(key.clone(), restore(&cmd[3]));
                undo.push(Undo::Key(key, old));
                out.extend_from_slice(b"+OK\r\n");
            }
            b"DEL" => {
                let key = key(1);
                let old = self.data.remove(&key);
                wire::put_int(out, i64::from(old.is_some()));
                undo.push(Undo::Key(key, old));
            }
            other => panic!("a node was sent {:?}", String::from_utf8_lossy(other)),
        }
    }

    fn push(&mut self, key: Key, value: &[u8], out: &mut Vec<u8>, undo: &mut Vec<Undo>) {
        let Value::List(items) = self
            .data
            .entry(key.clone())
            .or_insert_with(|| Value::List(Vec::new()))
        else {
            panic!("not a list")
        };
        items.push(value.to_vec());
        undo.push(Undo::Pop(key));
        wire::put_int(out, items.len() as i64);
    }

    /// Takes the first element of a list, or the last.
    fn pull(&mut self, key: Key, first: bool, undo: &mut Vec<Undo>) -> Option<Vec<u8>> {
        let Some(Value::List(items)) = self.data.get_mut(&key) else {
            return None;
        };
        undo.push(Undo::Key(key.clone(), Some(Value::List(items.clone()))));
        let item = items.remove(if first { 0 } else { items.len() - 1 });
        if items.is_empty() {
            self.data.remove(&key);
        }
        Some(item)
    }

    /// The process ends and starts again; the last `undone` transactions are gone.
    pub fn restart(&mut self, undone: usize) {
        self.forget_connections();
        let before = self.account().applied;
        for _ in 0..undone {
            let Some(mut undo) = self.journal.pop() else { break };
            while let Some(undo) = undo.pop() {
                self.undo(undo);
            }
        }
        self.journal.clear();
        let after = self.account().applied;
        for (partition, position) in before {
            if after.get(&partition).copied().unwrap_or_default() < position {
                let lost = self.lost.entry(partition).or_default();
                *lost = position.max(*lost);
            }
        }
    }

    /// The process ends and starts again without its data.
    pub fn restart_empty(&mut self) {
        self.forget_connections();
        for (partition, position) in self.account().applied {
            let lost = self.lost.entry(partition).or_default();
            *lost = position.max(*lost);
        }
        self.lost_table = self.table.as_ref().map(|t| t.stamp).max(self.lost_table);
        self.data.clear();
        self.repair.clear();
        self.journal.clear();
        self.table = None;
        self.claim = None;
        self.forgot = false;
        self.is_new = false;
    }

    fn forget_connections(&mut self) {
        self.up = false;
        self.boot += 1;
        self.admitted = None;
        self.scripts.clear();
        self.refusing = false;
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Key(key, Some(value)) => drop(self.data.insert(key, value)),
            Undo::Key(key, None) => drop(self.data.remove(&key)),
            Undo::Field(key, field, old) => {
                let Some(Value::Hash(fields)) = self.data.get_mut(&key) else {
                    panic!("no hash to undo in")
                };
                match old {
                    Some(old) => fields.insert(field, old),
                    None => fields.remove(&field),
                };
            }
            Undo::Repair(partition, Some(old)) => drop(self.repair.insert(partition, old)),
            Undo::Repair(partition, None) => drop(self.repair.remove(&partition)),
            Undo::Pop(key) => {
                let Some(Value::List(items)) = self.data.get_mut(&key) else {
                    panic!("no list to undo in")
                };
                items.pop();
                if items.is_empty() {
                    self.data.remove(&key);
                }
            }
        }
    }

    /// A control connection changes something.
    pub fn change(&mut self, change: Change) {
        let mut undo = Vec::new();
        match change {
            Change::Put(key, value) => {
                let old = match value {
                    Some(value) => self.data.insert(key.clone(), value),
                    None => self.data.remove(&key),
                };
                undo.push(Undo::Key(key, old));
            }
            Change::Announce(partitions) => {
                for partition in partitions {
                    self.mark(partition, Some(vec![None]), &mut undo);
                    self.stand(partition, None, &mut undo);
                }
            }
            Change::Account(positions) => {
                for (partition, position) in positions {
                    self.mark(partition, None, &mut undo);
                    if position.is_some() {
                        self.stand(partition, position, &mut undo);
                    }
                }
            }
            Change::Clear(partitions) => {
                for partition in partitions {
                    self.mark(partition, None, &mut undo);
                }
            }
        }
        self.remember(undo);
    }

    fn mark(&mut self, partition: PartitionId, keys: Option<Vec<Option<Key>>>, undo: &mut Vec<Undo>) {
        let old = match keys {
            Some(keys) => self.repair.insert(partition, keys),
            None => self.repair.remove(&partition),
        };
        undo.push(Undo::Repair(partition, old));
    }

    fn stand(&mut self, partition: PartitionId, at: Option<Position>, undo: &mut Vec<Undo>) {
        let (key, field) = (
            (BOOKKEEPING_DB, account::APPLIED.to_vec()),
            partition.to_string().into_bytes(),
        );
        let applied = self
            .data
            .entry(key.clone())
            .or_insert_with(|| Value::Hash(BTreeMap::new()));
        let Value::Hash(fields) = applied else {
            panic!("not a hash")
        };
        let old = match at {
            Some(at) => fields.insert(field.clone(), format!("{}:{}", at.epoch, at.seq).into_bytes()),
            None => fields.remove(&field),
        };
        undo.push(Undo::Field(key, field, old));
    }

    /// What was written by a control connection is there for good.
    pub fn settle(&mut self) {
        self.journal.clear();
    }

    fn hash(&self, name: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        let fields = match self.data.get(&(BOOKKEEPING_DB, name.to_vec())) {
            Some(Value::Hash(fields)) => Some(fields),
            _ => None,
        };
        fields.into_iter().flatten()
    }

    /// Its account, as a control connection reads it.
    pub fn account(&self) -> Account {
        let partition = |field: &Vec<u8>| String::from_utf8_lossy(field).parse().unwrap();
        Account {
            forgot: self.forgot,
            applied: self
                .hash(account::APPLIED)
                .map(|(field, position)| (partition(field), Position::parse(position).expect("a position")))
                .collect(),
            touched: self
                .hash(account::TOUCHED)
                .flat_map(|(_, records)| account::parse_touched(records).expect("records"))
                .collect(),
            repairing: self.repair.iter().map(|(p, keys)| (*p, keys.clone())).collect(),
        }
    }

    /// `node::admission` of the takeover and the keeper: the claim, and what a server without one forgets.
    pub fn set_claim(&mut self, claim: Claim) {
        if self.claim.is_none() && !self.is_new {
            self.forgot = true;
            for hash in [account::APPLIED, account::TOUCHED] {
                self.data.remove(&(BOOKKEEPING_DB, hash.to_vec()));
            }
        }
        self.is_new = false;
        self.claim = Some(claim);
    }

    pub fn position(&self, partition: PartitionId) -> Position {
        let field = partition.to_string().into_bytes();
        match self.data.get(&(BOOKKEEPING_DB, account::APPLIED.to_vec())) {
            Some(Value::Hash(fields)) => fields
                .get(&field)
                .and_then(|p| Position::parse(p))
                .unwrap_or_default(),
            _ => Position::default(),
        }
    }

    /// What the recovery does when the node has been brought up to date.
    pub fn stand_at(&mut self, reached: &BTreeMap<PartitionId, Position>) {
        self.data.remove(&(BOOKKEEPING_DB, account::TOUCHED.to_vec()));
        for (partition, position) in reached {
            self.repair.remove(partition);
            self.stand(*partition, Some(*position), &mut Vec::new());
        }
        self.settle();
    }

    /// `begin_epoch` of the recovery: new positions. What it has beside is marked, and so is what it `holds` without being in sync.
    pub fn begin_epoch(
        &mut self,
        mut applied: BTreeMap<PartitionId, Position>,
        holds: impl Iterator<Item = PartitionId>,
    ) {
        let account = self.account();
        let before = account.applied.clone();
        let known = account
            .applied
            .into_keys()
            .chain(account.repairing.into_keys())
            .chain(holds);
        self.data.remove(&(BOOKKEEPING_DB, account::TOUCHED.to_vec()));
        self.repair = known
            .filter(|partition| !applied.contains_key(partition))
            .map(|partition| (partition, vec![None]))
            .collect();
        for (partition, position) in before {
            applied.entry(partition).or_insert(position);
        }
        let fields: BTreeMap<Vec<u8>, Vec<u8>> = applied
            .iter()
            .map(|(p, at)| {
                (
                    p.to_string().into_bytes(),
                    format!("{}:{}", at.epoch, at.seq).into_bytes(),
                )
            })
            .collect();
        self.data
            .insert((BOOKKEEPING_DB, account::APPLIED.to_vec()), Value::Hash(fields));
        self.settle();
    }

    /// Clients' keys of one partition.
    pub fn keys_of(&self, partition: PartitionId) -> BTreeMap<Key, Value> {
        let mine = |key: &Key| key.0 != BOOKKEEPING_DB && partition_of(&key.1) == partition;
        self.data
            .iter()
            .filter(|(key, _)| mine(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

fn number(text: &[u8]) -> usize {
    String::from_utf8_lossy(text).parse().unwrap()
}

/// A value as `DUMP` gives it: its kind, and its parts as bulk strings.
fn dump(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Int(n) => {
            out.push(b'i');
            wire::put_bulk(&mut out, n.to_string().as_bytes());
        }
        Value::List(items) => {
            out.push(b'l');
            items.iter().for_each(|item| wire::put_bulk(&mut out, item));
        }
        Value::Set(members) => {
            out.push(b's');
            members.iter().for_each(|member| wire::put_bulk(&mut out, member));
        }
        Value::Hash(_) => panic!("only the account is a hash"),
    }
    out
}

fn restore(payload: &[u8]) -> Value {
    let mut parts = Vec::new();
    let mut rest = &payload[1..];
    while let Some(end) = rest.iter().position(|&b| b == b'\n') {
        let len: usize = std::str::from_utf8(&rest[1..end - 1]).unwrap().parse().unwrap();
        parts.push(rest[end + 1..end + 1 + len].to_vec());
        rest = &rest[end + 1 + len + 2..];
    }
    match payload[0] {
        b'i' => Value::Int(String::from_utf8(parts.remove(0)).unwrap().parse().unwrap()),
        b'l' => Value::List(parts),
        _ => Value::Set(parts.into_iter().collect()),
    }
}
