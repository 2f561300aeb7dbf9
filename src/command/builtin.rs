//! The commands of Redis 7.0 as that server describes them, for nodes that are too old to say it themselves.
//!
//! `redis-7.0.tsv` is one line a command: name, arity, flags, whether two servers with the same data reply alike, and the
//! key specs. It is written by the test below from a real server (`UPDATE_SNAPSHOT=1 cargo test snapshot`), which
//! otherwise checks that the file still says what the server says.

use super::described::{Described, ReplyHint, find};
use super::spec::{Begin, FLAG_NAMES, Find, Flags, KEY_FLAG_NAMES, KeyFlags, KeySpec};

const SNAPSHOT: &str = include_str!("redis-7.0.tsv");

/// The commands of the snapshot.
pub(super) fn commands() -> Vec<Described> {
    let mut commands: Vec<Described> = Vec::new();
    for command in SNAPSHOT
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(line)
    {
        // Sorted, a container is right before its subcommands.
        match commands.last_mut() {
            Some(container)
                if command
                    .name
                    .split_once('|')
                    .is_some_and(|(name, _)| *name == *container.name) =>
            {
                container.subcommands.get_or_insert_default().push(command);
            }
            _ => commands.push(command),
        }
    }
    commands
}

fn line(line: &str) -> Option<Described> {
    let mut columns = line.split('\t');
    let name = columns.next()?;
    let arity = columns.next()?.parse().ok()?;
    let flags = columns
        .next()?
        .split(',')
        .filter_map(|name| find(FLAG_NAMES, name));
    let reply = match columns.next()? {
        "same" => ReplyHint::Same,
        "order" => ReplyHint::OtherOrder,
        _ => ReplyHint::Other,
    };
    let specs = columns.next()?.split(';').filter(|spec| !spec.is_empty());
    Some(Described {
        name: name.into(),
        arity,
        flags: flags.fold(Flags::empty(), Flags::union),
        range: (0, 0, 0),
        reply,
        key_specs: Some(specs.map(key_spec).collect::<Option<_>>()?),
        subcommands: Some(Vec::new()),
    })
}

/// `RO,incomplete keyword STREAMS 1 range -1 1 2`: flags, where to begin, what to take.
fn key_spec(spec: &str) -> Option<KeySpec> {
    let mut words = spec.split_ascii_whitespace();
    let flags = words
        .next()?
        .split(',')
        .filter_map(|name| find(KEY_FLAG_NAMES, name));
    let flags = flags.fold(KeyFlags::empty(), KeyFlags::union);
    let begin = match words.next()? {
        "index" => Begin::Index(words.next()?.parse().ok()?),
        "keyword" => Begin::Keyword {
            word: words.next()?.into(),
            from: words.next()?.parse().ok()?,
        },
        _ => Begin::Unknown,
    };
    let find = match words.next() {
        Some("range") => Find::Range {
            last: words.next()?.parse().ok()?,
            step: words.next()?.parse().ok()?,
            limit: words.next()?.parse().ok()?,
        },
        Some("keynum") => Find::KeyNum {
            number: words.next()?.parse().ok()?,
            first: words.next()?.parse().ok()?,
            step: words.next()?.parse().ok()?,
        },
        _ => Find::Unknown,
    };
    Some(KeySpec { begin, find, flags })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::described::read;
    use super::*;
    use crate::testserver::Server;

    fn joined<F: bitflags::Flags + Copy>(known: &[(&str, F)], flags: F) -> String {
        let names: Vec<&str> = known
            .iter()
            .filter(|(_, flag)| flags.contains(*flag))
            .map(|(name, _)| *name)
            .collect();
        names.join(",")
    }

    fn render(command: &Described, out: &mut String) {
        let reply = match command.reply {
            ReplyHint::Same => "same",
            ReplyHint::OtherOrder => "order",
            ReplyHint::Other => "other",
        };
        let flags = joined(FLAG_NAMES, command.flags);
        let specs = command.key_specs.iter().flatten().map(|spec| {
            let mut text = joined(KEY_FLAG_NAMES, spec.flags);
            match &spec.begin {
                Begin::Index(index) => write!(text, " index {index}").unwrap(),
                Begin::Keyword { word, from } => write!(text, " keyword {word} {from}").unwrap(),
                Begin::Unknown => text.push_str(" unknown"),
            }
            match spec.find {
                Find::Range { last, step, limit } => write!(text, " range {last} {step} {limit}").unwrap(),
                Find::KeyNum { number, first, step } => {
                    write!(text, " keynum {number} {first} {step}").unwrap()
                }
                Find::Unknown => {}
            }
            text
        });
        let specs: Vec<String> = specs.collect();
        writeln!(
            out,
            "{}\t{}\t{flags}\t{reply}\t{}",
            command.name,
            command.arity,
            specs.join(";")
        )
        .unwrap();
        let mut subcommands: Vec<&Described> = command.subcommands.iter().flatten().collect();
        subcommands.sort_by(|a, b| a.name.cmp(&b.name));
        for subcommand in subcommands {
            render(subcommand, out);
        }
    }

    #[test]
    fn snapshot_is_what_redis_7_0_says() {
        let server = Server::start();
        for protocol in [2, 3] {
            let mut client = server.client(protocol);
            let version = String::from_utf8(client.line("INFO server")).unwrap();
            assert!(
                version.contains("redis_version:7.0."),
                "the snapshot is checked against Redis 7.0"
            );
            let mut commands = read(&client.line("COMMAND")).unwrap();
            commands.sort_by(|a, b| a.name.cmp(&b.name));
            let mut said = String::from(
                "# name\tarity\tflags\treply on two servers\tkeys (see src/command/builtin.rs)\n",
            );
            commands.iter().for_each(|command| render(command, &mut said));
            if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
                std::fs::write(
                    concat!(env!("CARGO_MANIFEST_DIR"), "/src/command/redis-7.0.tsv"),
                    &said,
                )
                .unwrap();
            } else {
                assert!(said == SNAPSHOT, "protocol {protocol}: {said}");
            }
        }
    }

    #[test]
    fn every_line_is_read() {
        let read = commands();
        let subcommands: usize = read
            .iter()
            .map(|command| command.subcommands.iter().flatten().count())
            .sum();
        assert_eq!((read.len(), subcommands), (240, 126));
        assert_eq!(SNAPSHOT.lines().count(), 1 + 240 + 126);
    }
}
