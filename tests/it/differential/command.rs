//! A generated command, and what it means that two servers answer it alike.

use crate::harness::{Reply, ToArg, printable};
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// One argument. Ids that a server chooses (`XADD *`) differ between two servers; a program names them by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    Bytes(Vec<u8>),
    /// The id that the nth `XADD *` of this client got.
    Id(usize),
}

/// How the replies of two servers are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    Exact,
    /// The same elements in any order.
    Unordered,
    /// The same field-value pairs in any order.
    Pairs,
    /// A time to live: close to each other.
    Near(i64),
    /// A server's choice of a stream id, remembered under this number.
    NewId(usize),
    /// Inner arrays without their element of this index (an idle time).
    Without(usize),
    /// The nature of the reply, not its content.
    SameKind,
    /// An encoding. `SORT` turns a sorted set into a skiplist on the server that it reads: the copies keep theirs.
    Encoding,
    /// The first answers by chance; the second is asked whether that could be so.
    Chance(Chance),
}

/// Commands that answer by chance, or in an order of the server's own. They are sent alone and outside `MULTI`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chance {
    /// `SPOP key [count]`: the same members are then removed from the reference.
    Pop,
    /// `SRANDMEMBER`, `HRANDFIELD`, `ZRANDMEMBER`.
    Members,
    /// `RANDOMKEY`.
    Key,
    /// `SCAN` with these further arguments, to its end.
    Keys,
    /// `SSCAN`, `HSCAN`, `ZSCAN`, to its end.
    Elements,
    /// `DUMP key`, then `RESTORE` of each side's own payload to the second argument.
    Copy,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub args: Vec<Arg>,
    pub rule: Rule,
    /// Sent as a line of words.
    pub inline: bool,
}

impl Cmd {
    pub fn new(args: Vec<Vec<u8>>) -> Self {
        Self {
            args: args.into_iter().map(Arg::Bytes).collect(),
            rule: Rule::Exact,
            inline: false,
        }
    }

    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl ToArg) -> Self {
        self.args.push(Arg::Bytes(arg.to_arg()));
        self
    }

    pub fn id(mut self, number: usize) -> Self {
        self.args.push(Arg::Id(number));
        self
    }

    pub fn is_chance(&self) -> bool {
        matches!(self.rule, Rule::Chance(_))
    }

    pub fn bytes(&self, at: usize) -> &[u8] {
        match self.args.get(at) {
            Some(Arg::Bytes(bytes)) => bytes,
            _ => b"",
        }
    }

    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.bytes(0)).to_ascii_uppercase()
    }

    /// Arguments that look like keys of these programs.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.args.iter().filter_map(|arg| match arg {
            Arg::Bytes(bytes) if bytes.starts_with(b"{") => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// What is sent to one side.
    pub fn resolve(&self, ids: &Ids) -> Vec<Vec<u8>> {
        let one = |arg: &Arg| match arg {
            Arg::Bytes(bytes) => bytes.clone(),
            Arg::Id(number) => ids
                .by_number
                .get(number)
                .cloned()
                .unwrap_or_else(|| b"1-1".to_vec()),
        };
        self.args.iter().map(one).collect()
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inline {
            f.write_str("(inline) ")?;
        }
        for (at, arg) in self.args.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " " })?;
            match arg {
                Arg::Bytes(bytes)
                    if !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_graphic() && *b != b'"') =>
                {
                    f.write_str(&printable(bytes).replace('"', ""))?;
                }
                Arg::Bytes(bytes) => f.write_str(&printable(bytes))?,
                Arg::Id(number) => write!(f, "<id {number}>")?,
            }
        }
        Ok(())
    }
}

/// The ids that one side chose.
#[derive(Debug, Default)]
pub struct Ids {
    by_number: HashMap<usize, Vec<u8>>,
    /// Two streams may get the same id in the same millisecond.
    numbers: HashMap<Vec<u8>, BTreeSet<usize>>,
}

impl Ids {
    fn learn(&mut self, number: usize, reply: &Reply) {
        if let Reply::Bulk(id) = reply {
            self.by_number.insert(number, id.clone());
            self.numbers.entry(id.clone()).or_default().insert(number);
        }
    }

    /// Do these two ids, one of each side, stand for the same entry?
    fn same(&self, mine: &[u8], other: &Self, theirs: &[u8]) -> bool {
        match (self.numbers.get(mine), other.numbers.get(theirs)) {
            (Some(mine), Some(theirs)) => !mine.is_disjoint(theirs),
            _ => false,
        }
    }
}

/// Equal, but for ids that the servers chose.
fn same(subject: &Reply, reference: &Reply, ids: (&Ids, &Ids)) -> bool {
    let all = |left: &[Reply], right: &[Reply]| {
        left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r, ids))
    };
    match (subject, reference) {
        (Reply::Bulk(left), Reply::Bulk(right)) => left == right || ids.0.same(left, ids.1, right),
        (Reply::Array(left), Reply::Array(right)) => all(left, right),
        (Reply::Map(_), Reply::Map(_)) => all(&subject.items(), &reference.items()),
        _ => subject == reference,
    }
}

/// Are these answers alike? `Err` says what is not.
pub fn compare(
    rule: &Rule,
    subject: &Reply,
    reference: &Reply,
    ids: (&mut Ids, &mut Ids),
) -> Result<(), String> {
    if let Rule::NewId(number) = rule {
        ids.0.learn(*number, subject);
        ids.1.learn(*number, reference);
    }
    let alike = match rule {
        Rule::Near(tolerance) => match (subject, reference) {
            (Reply::Int(a), Reply::Int(b)) if *a > 0 && *b > 0 => (a - b).abs() <= *tolerance,
            _ => subject == reference,
        },
        Rule::Encoding => {
            const SORTED_SETS: [&[u8]; 2] = [b"listpack", b"skiplist"];
            let may_be_sorted = |reply: &Reply| reply.bytes().is_some_and(|name| SORTED_SETS.contains(&name));
            subject == reference || may_be_sorted(subject) && may_be_sorted(reference)
        }
        Rule::SameKind => std::mem::discriminant(subject) == std::mem::discriminant(reference),
        _ => same(
            &canonical(rule, subject),
            &canonical(rule, reference),
            (ids.0, ids.1),
        ),
    };
    if alike {
        Ok(())
    } else {
        Err(format!(
            "replies differ ({rule:?})\n  program under test: {subject}\n  reference:          {reference}"
        ))
    }
}

/// The reply with everything that may differ taken out.
fn canonical(rule: &Rule, reply: &Reply) -> Reply {
    let mut reply = reply.clone();
    match (rule, &mut reply) {
        (Rule::Unordered, Reply::Array(items) | Reply::Set(items)) => items.sort(),
        (Rule::Pairs, Reply::Map(pairs)) => pairs.sort(),
        (Rule::Pairs, Reply::Array(items)) => {
            let mut pairs: Vec<Vec<Reply>> = items.chunks(2).map(<[Reply]>::to_vec).collect();
            pairs.sort();
            *items = pairs.concat();
        }
        (Rule::Without(at), Reply::Array(items)) => {
            for item in items {
                if let Reply::Array(inner) = item
                    && *at < inner.len()
                {
                    inner.remove(*at);
                }
            }
        }
        _ => {}
    }
    reply
}
