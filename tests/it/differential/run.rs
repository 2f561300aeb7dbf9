//! Runs a program on the program under test and on one plain Redis, side by side, and compares every reply.

use super::command::{Arg, Chance, Cmd, Ids, Rule, compare};
use crate::cmd;
use crate::harness::{Client, Endpoint, Reply, encode};
use std::collections::BTreeSet;
use std::io;

/// Commands that are written at once before any reply is read.
pub type Step = Vec<Cmd>;

/// What one client does.
#[derive(Clone, Debug)]
pub struct Program {
    pub resp3: bool,
    pub steps: Vec<Step>,
}

/// Where the two answers parted.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub step: usize,
    pub command: Cmd,
    pub what: String,
}

struct Pair {
    subject: Client,
    reference: Client,
    subject_ids: Ids,
    reference_ids: Ids,
    /// The rules of the commands queued by an open `MULTI`.
    queued: Option<Vec<Rule>>,
}

/// Both endpoints: the program under test, and the reference.
#[derive(Clone, Debug)]
pub struct Sides {
    pub subject: Endpoint,
    pub reference: Endpoint,
}

/// Runs it to the end, or to the first difference.
pub fn run(sides: &Sides, program: &Program) -> Result<(), Mismatch> {
    let mut pair = Pair {
        subject: Client::connect(&sides.subject),
        reference: Client::connect(&sides.reference),
        subject_ids: Ids::default(),
        reference_ids: Ids::default(),
        queued: None,
    };
    if program.resp3 {
        for client in [&mut pair.subject, &mut pair.reference] {
            client.call(cmd!["HELLO", 3]);
        }
    }
    for (step, commands) in program.steps.iter().enumerate() {
        let done = match commands.as_slice() {
            // Only in a program that was cut: in a transaction nothing is answered at once.
            [one] if one.is_chance() && pair.queued.is_some() => Ok(()),
            [one] if one.is_chance() => pair.chance(one).map_err(|what| (one.clone(), what)),
            _ => pair.step(commands),
        };
        done.map_err(|(command, what)| Mismatch { step, command, what })?;
    }
    Ok(())
}

/// As they are sent to one side.
pub fn wire(commands: &[Cmd], ids: &Ids) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        let args = command.resolve(ids);
        if command.inline {
            out.extend_from_slice(&args.join(&b' '));
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(&encode(&args));
        }
    }
    out
}

impl Pair {
    fn step(&mut self, commands: &[Cmd]) -> Result<(), (Cmd, String)> {
        let Some(first) = commands.first() else {
            return Ok(());
        };
        self.reference
            .send_raw(&wire(commands, &self.reference_ids))
            .expect("the reference takes commands");
        let sent = self.subject.send_raw(&wire(commands, &self.subject_ids));
        sent.map_err(|e| {
            (
                first.clone(),
                format!("cannot send to the program under test: {e}"),
            )
        })?;
        for command in commands {
            let reference = self.reference.recv().expect("the reference answers");
            let subject = match self.subject.recv() {
                Ok(reply) => reply,
                Err(e) => {
                    let what = format!(
                        "no reply from the program under test: {e}\n  reference:          {reference}"
                    );
                    return Err((command.clone(), what));
                }
            };
            self.compare(command, &subject, &reference)
                .map_err(|what| (command.clone(), what))?;
        }
        Ok(())
    }

    fn compare(&mut self, command: &Cmd, subject: &Reply, reference: &Reply) -> Result<(), String> {
        let queued = matches!(reference, Reply::Simple(text) if text == "QUEUED");
        if let (true, Some(rules)) = (queued, self.queued.as_mut()) {
            rules.push(command.rule.clone());
            return self.alike(&Rule::Exact, subject, reference);
        }
        match command.name().as_str() {
            "MULTI" if reference.is_ok() => self.queued = Some(Vec::new()),
            "EXEC" => return self.compare_exec(subject, reference),
            "DISCARD" | "RESET" if reference.error().is_none() => self.queued = None,
            _ => {}
        }
        self.alike(&command.rule, subject, reference)
    }

    fn compare_exec(&mut self, subject: &Reply, reference: &Reply) -> Result<(), String> {
        let rules = self.queued.take().unwrap_or_default();
        let (Reply::Array(subjects), Reply::Array(references)) = (subject, reference) else {
            return self.alike(&Rule::Exact, subject, reference);
        };
        if subjects.len() != references.len() || rules.len() != references.len() {
            return self.alike(&Rule::Exact, subject, reference);
        }
        for ((rule, subject), reference) in rules.iter().zip(subjects).zip(references) {
            self.alike(rule, subject, reference)?;
        }
        Ok(())
    }

    fn alike(&mut self, rule: &Rule, subject: &Reply, reference: &Reply) -> Result<(), String> {
        compare(
            rule,
            subject,
            reference,
            (&mut self.subject_ids, &mut self.reference_ids),
        )
    }

    fn ask(&mut self, command: Vec<Vec<u8>>) -> Reply {
        self.reference.call(command)
    }

    fn subject(&mut self, command: &[Vec<u8>]) -> Result<Reply, String> {
        self.subject
            .try_call(command)
            .map_err(|e: io::Error| format!("no reply from the program under test: {e}"))
    }

    fn chance(&mut self, command: &Cmd) -> Result<(), String> {
        let Rule::Chance(chance) = &command.rule else {
            return Ok(());
        };
        let args = command.resolve(&self.subject_ids);
        let key = args.get(1).cloned().unwrap_or_default();
        match chance {
            Chance::Pop => self.pop(&args, &key),
            Chance::Members => self.members(&args, &key),
            Chance::Key => self.random_key(&args),
            Chance::Keys => self.scan(&args, 1),
            Chance::Elements => self.scan(&args, 2),
            Chance::Copy => self.copy(&args),
        }
    }

    fn pop(&mut self, args: &[Vec<u8>], key: &[u8]) -> Result<(), String> {
        let subject = self.subject(args)?;
        let size = self.ask(cmd!["SCARD", key.to_vec()]);
        let Some(size) = size.int() else {
            return self.alike(&Rule::Exact, &subject, &size);
        };
        let wanted = args
            .get(2)
            .map_or(1, |count| String::from_utf8_lossy(count).parse().unwrap_or(0))
            .min(size);
        let popped = if args.len() > 2 {
            subject.items()
        } else {
            vec![subject.clone()]
        };
        if args.len() > 2 {
            // RESP3 has a type of its own for it; asking for none of them shows which, and changes nothing.
            let kind = self.ask(cmd!["SPOP", key.to_vec(), 0]);
            self.alike(&Rule::SameKind, &subject, &kind)?;
        }
        if args.len() == 2 && size == 0 {
            return if subject.is_nil() {
                Ok(())
            } else {
                Err(format!("SPOP of nothing answered {subject}"))
            };
        }
        let mut removed = 0;
        for member in popped.iter().filter_map(Reply::bytes) {
            removed += self
                .ask(cmd!["SREM", key.to_vec(), member.to_vec()])
                .int()
                .unwrap_or(0);
        }
        if removed == wanted && popped.len() as i64 == wanted {
            return Ok(());
        }
        Err(format!(
            "SPOP answered {subject}; {removed} of these were members, {wanted} of {size} expected"
        ))
    }

    fn members(&mut self, args: &[Vec<u8>], key: &[u8]) -> Result<(), String> {
        let subject = self.subject(args)?;
        let (list, count) = match args.first().map(Vec::as_slice) {
            Some(b"SRANDMEMBER") => (cmd!["SMEMBERS", key.to_vec()], "SCARD"),
            Some(b"HRANDFIELD") => (cmd!["HKEYS", key.to_vec()], "HLEN"),
            _ => (cmd!["ZRANGE", key.to_vec(), 0, -1], "ZCARD"),
        };
        let size = self.ask(cmd![count, key.to_vec()]);
        let Some(size) = size.int() else {
            return self.alike(&Rule::Exact, &subject, &size);
        };
        let all: BTreeSet<Vec<u8>> = self
            .ask(list)
            .items()
            .iter()
            .filter_map(Reply::bytes)
            .map(<[u8]>::to_vec)
            .collect();
        let wanted = args
            .get(2)
            .and_then(|count| String::from_utf8_lossy(count).parse::<i64>().ok());
        let answered = match (wanted, subject.is_nil()) {
            (None, true) => Vec::new(),
            (None, false) => vec![subject.clone()],
            (Some(_), _) => subject.items(),
        };
        let expected = match wanted {
            None => size.min(1),
            Some(count) if count >= 0 => count.min(size),
            Some(_) if size == 0 => 0,
            Some(count) => -count,
        };
        let distinct: BTreeSet<Vec<u8>> = answered
            .iter()
            .filter_map(Reply::bytes)
            .map(<[u8]>::to_vec)
            .collect();
        let repeats = wanted.is_some_and(|count| count < 0) || distinct.len() == answered.len();
        if answered.len() as i64 == expected && distinct.is_subset(&all) && repeats {
            return Ok(());
        }
        Err(format!(
            "answered {subject}, which is no choice of {expected} from {} members",
            all.len()
        ))
    }

    fn random_key(&mut self, args: &[Vec<u8>]) -> Result<(), String> {
        let subject = self.subject(args)?;
        let fits = match subject.bytes() {
            Some(key) => self.ask(cmd!["EXISTS", key.to_vec()]) == Reply::Int(1),
            None => subject.is_nil() && self.ask(cmd!["DBSIZE"]) == Reply::Int(0),
        };
        if fits {
            Ok(())
        } else {
            Err(format!(
                "RANDOMKEY answered {subject}, which the reference does not have"
            ))
        }
    }

    /// Walks a cursor to its end on both sides. `at` is where the cursor stands in the command.
    fn scan(&mut self, args: &[Vec<u8>], at: usize) -> Result<(), String> {
        const CALLS_MAX: usize = 20_000;
        let mut walks = Vec::new();
        for side in 0..2 {
            let mut found = BTreeSet::new();
            let mut command = args.to_vec();
            for call in 0.. {
                let reply = if side == 0 {
                    self.subject(&command)?
                } else {
                    self.ask(command.clone())
                };
                let Reply::Array(parts) = &reply else {
                    walks.push(Err(reply));
                    break;
                };
                let [cursor, items] = parts.as_slice() else {
                    return Err(format!("no cursor and items: {reply}"));
                };
                let width = if matches!(args[0].as_slice(), b"HSCAN" | b"ZSCAN") {
                    2
                } else {
                    1
                };
                found.extend(
                    items
                        .items()
                        .chunks(width)
                        .map(|item| Reply::Array(item.to_vec())),
                );
                command[at] = cursor.bytes().unwrap_or_default().to_vec();
                if command[at] == b"0" {
                    walks.push(Ok(found));
                    break;
                }
                if call > CALLS_MAX {
                    return Err(format!("the cursor does not end after {CALLS_MAX} calls"));
                }
            }
        }
        match walks.as_slice() {
            [Ok(subject), Ok(reference)] if subject == reference => Ok(()),
            [Ok(subject), Ok(reference)] => Err(format!(
                "walks differ\n  only the program under test: {:?}\n  only the reference: {:?}",
                subject.difference(reference).take(10).collect::<Vec<_>>(),
                reference.difference(subject).take(10).collect::<Vec<_>>()
            )),
            [Err(subject), Err(reference)] => self.alike(&Rule::Exact, &subject.clone(), &reference.clone()),
            other => Err(format!("one walk failed: {other:?}")),
        }
    }

    fn copy(&mut self, args: &[Vec<u8>]) -> Result<(), String> {
        let (from, to) = (args[1].clone(), args[2].clone());
        let subject = self.subject(&cmd!["DUMP", from])?;
        let reference = self.ask(cmd!["DUMP", from]);
        let (Some(mine), Some(theirs)) = (subject.bytes(), reference.bytes()) else {
            return self.alike(&Rule::Exact, &subject, &reference);
        };
        let rest = &args[3..];
        let with =
            |payload: &[u8]| [cmd!["RESTORE", to, rest[0], payload.to_vec()], rest[1..].to_vec()].concat();
        let restored = self.subject(&with(mine))?;
        let expected = self.ask(with(theirs));
        self.alike(&Rule::Exact, &restored, &expected)
    }
}

/// The commands up to a mismatch that touch the same keys, or the connection itself.
pub fn related(program: &Program, mismatch: &Mismatch) -> Vec<Step> {
    const CONNECTION: [&str; 8] = [
        "SELECT", "MULTI", "EXEC", "DISCARD", "RESET", "FLUSHDB", "FLUSHALL", "SCRIPT",
    ];
    let mut keys: BTreeSet<Vec<u8>> = mismatch.command.keys().map(<[u8]>::to_vec).collect();
    let whole_pool = keys.is_empty();
    let until = &program.steps[..=mismatch.step];
    // A transaction's mismatch shows at EXEC, a command's cause may have come through a second key: go back once.
    for command in until.iter().flatten() {
        if command.keys().any(|key| keys.contains(key)) {
            let more: Vec<Vec<u8>> = command.keys().map(<[u8]>::to_vec).collect();
            keys.extend(more);
        }
    }
    let matters = |command: &Cmd| {
        whole_pool
            || command.args.iter().any(|arg| matches!(arg, Arg::Id(_)))
            || CONNECTION.contains(&command.name().as_str())
            || command.keys().any(|key| keys.contains(key))
    };
    let mut steps: Vec<Step> = Vec::new();
    for step in until {
        let kept: Step = step.iter().filter(|command| matters(command)).cloned().collect();
        if !kept.is_empty() {
            steps.push(kept);
        }
    }
    steps
}
