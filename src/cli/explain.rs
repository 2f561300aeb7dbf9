//! `ringfence explain`: where a command goes, and why, without asking anybody.

use std::fmt::Write as _;

use super::args::Explain;
use crate::command::CommandTable;
use crate::config::{Config, Mistake};
use crate::ingress::stripe;
use crate::profile::{self, Profile, Role, ScriptRule};
use crate::resp::{Args, frame_of};
use crate::ring::{self, Keyspace, RingNode, routing_key};
use crate::router::{Route, route};

/// Partitions where no configuration says how many.
const PARTITIONS: u16 = 256;

/// What is to be told of a command.
///
/// # Errors
/// What is wrong with the configuration, or with the profile's name.
pub fn explain(asked: &Explain) -> Result<String, Vec<Mistake>> {
    let config = asked
        .config
        .as_ref()
        .map(|path| Config::load_with(path, asked.profile.as_deref()))
        .transpose()?;
    let profile = match (&config, &asked.profile) {
        (Some(config), _) => config.profile(),
        (None, Some(name)) => profile::named(name).ok_or_else(|| {
            vec![Mistake {
                file: "ringfence".into(),
                line: None,
                setting: "--profile".into(),
                message: crate::config::unknown_profile(name),
            }]
        })?,
        (None, None) => profile::named("generic").unwrap_or_default(),
    };
    let keyspace = Keyspace {
        partitions: config
            .as_ref()
            .map_or(PARTITIONS, |config| config.pool.partitions),
        rules: profile.keys.clone().into(),
    };
    let words: Vec<&[u8]> = asked.words.iter().map(|word| word.as_bytes()).collect();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ok = tell(&mut out, &words, &profile, &keyspace, config.as_ref());
    Ok(out)
}

fn tell(
    out: &mut String,
    words: &[&[u8]],
    profile: &Profile,
    keyspace: &Keyspace,
    config: Option<&Config>,
) -> std::fmt::Result {
    writeln!(out, "profile    {}: {}", profile.name, profile.about)?;
    let (frame, spans) = frame_of(words);
    let args = Args {
        bytes: &frame,
        spans: &spans,
    };
    let commands = CommandTable::builtin();
    let command = match commands.lookup(&args) {
        Ok(command) => command,
        Err(error) => return writeln!(out, "refused    {}", line_of(&error.to_bytes())),
    };
    match stripe::refusal(profile, keyspace, command, &args) {
        Some(error) => writeln!(out, "refused    {}", line_of(&error))?,
        None => writeln!(out, "goes       {}", way(&route(command, &args, keyspace)))?,
    }
    let keys = command.keys(&args).unwrap_or_default();
    for &key in &keys {
        tell_key(out, args.arg(key as usize), keyspace, config)?;
    }
    let roles: Vec<Role> = keys
        .iter()
        .map(|&key| role_of(keyspace, args.arg(key as usize)))
        .collect();
    let is_script = matches!(&*command.name, "eval" | "evalsha" | "eval_ro" | "evalsha_ro");
    if is_script && let Some(rule) = profile.scripts.iter().find(|rule| rule.keys == roles) {
        tell_script(out, rule)?;
    }
    Ok(())
}

fn role_of(keyspace: &Keyspace, key: &[u8]) -> Role {
    keyspace.rule_of(key).map_or(Role::Plain, |(rule, _)| rule.role)
}

fn tell_key(out: &mut String, key: &[u8], keyspace: &Keyspace, config: Option<&Config>) -> std::fmt::Result {
    writeln!(out, "key        {}", String::from_utf8_lossy(key))?;
    let partition = keyspace.partition_of(key);
    match keyspace.rule_of(key) {
        Some((rule, _)) if rule.role == Role::Item => {
            return writeln!(
                out,
                "  because  it fits {}: an item, which lives with the entry of its index, or, as long as it has none, in partition \
                 {partition} of {}",
                rule.pattern, keyspace.partitions
            );
        }
        Some((rule, caught)) => {
            let route = match &rule.route {
                Some(route) => route.fill(&rule.pattern, &caught),
                None => key.to_vec(),
            };
            let route = String::from_utf8_lossy(&route);
            writeln!(
                out,
                "  because  it fits {}: it lives where {route:?} says",
                rule.pattern
            )?;
            if !matches!(rule.role, Role::Plain | Role::Item) {
                writeln!(
                    out,
                    "  segments it is cut into segments; this is its home, where the first one is and where the others are listed"
                )?;
            }
        }
        None if routing_key(key).len() < key.len() => {
            let tag = String::from_utf8_lossy(routing_key(key));
            writeln!(out, "  because  of its hash tag {tag:?}")?;
        }
        None => writeln!(
            out,
            "  because  of the whole key: no rule fits it, and it has no hash tag"
        )?,
    }
    writeln!(out, "  lives in partition {partition} of {}", keyspace.partitions)?;
    if let Some(config) = config {
        let nodes: Vec<RingNode<'_>> = config
            .nodes
            .iter()
            .map(|node| RingNode {
                name: &node.name,
                weight: node.weight,
                zone: node.zone.as_deref(),
            })
            .collect();
        let sets = ring::place(&nodes, keyspace.partitions, config.pool.replicas);
        let set = sets.get(usize::from(partition));
        let names: Vec<&str> = set
            .into_iter()
            .flatten()
            .filter_map(|&node| Some(&*config.nodes.get(usize::from(node))?.name))
            .collect();
        writeln!(
            out,
            "  on nodes {} (as the ring of this file wants it)",
            names.join(", ")
        )?;
    }
    Ok(())
}

fn tell_script(out: &mut String, rule: &ScriptRule) -> std::fmt::Result {
    match rule.does {
        profile::Does::Append => writeln!(
            out,
            "script     it appends to an index: to the open segment; the items (ARGV[{}] and on) are put there with it",
            rule.items
        ),
        profile::Does::Visit => writeln!(
            out,
            "script     it visits the segments of an index from the head, until it has found ARGV[{}]",
            rule.limit
        ),
    }
}

fn way(route: &Route) -> String {
    let kind = |write: bool| match write {
        true => "a write, to all nodes of the partition at once",
        false => "a read, of one node of the partition",
    };
    match route {
        Route::Local => "nowhere: it is answered by the sidecar".into(),
        Route::Transaction => "nowhere by itself: it begins or ends a transaction".into(),
        Route::One { write, .. } => format!("to one partition: {}", kind(*write)),
        Route::Several { parts, write, .. } => {
            format!("to {} partitions, a part each: {}", parts.len(), kind(*write))
        }
        Route::Across => {
            "to several partitions: at once where these are on the same nodes, else in steps, while they are held".into()
        }
        Route::Blocking(_) => "to where its keys are, to wait there for data".into(),
        Route::PubSub => "to the subscribers".into(),
        Route::Pool(_) => "to all nodes".into(),
        Route::Refused(line) | Route::Invalid(line) => format!("nowhere: {}", line_of(line)),
    }
}

fn line_of(error: &[u8]) -> String {
    String::from_utf8_lossy(error)
        .trim_start_matches('-')
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(profile: &str, line: &str) -> String {
        explain(&Explain {
            config: None,
            profile: Some(profile.into()),
            words: line.split(' ').map(str::to_owned).collect(),
        })
        .unwrap()
    }

    #[test]
    fn every_way_is_told() {
        for (profile, line, words) in [
            (
                "generic",
                "LPUSH q x",
                &["one partition: a write", "the whole key"][..],
            ),
            ("generic", "LRANGE {q}.a 0 -1", &["a read", "hash tag \"q\""]),
            ("generic", "MGET a b c", &["to 3 partitions"]),
            ("generic", "PING", &["answered by the sidecar"]),
            ("generic", "NOSUCH x", &["refused", "unknown command"]),
            (
                "bullmq",
                "LPUSH bull:mail:wait 1",
                &["bull:{queue}:{rest}", "where \"bull:mail\" says"],
            ),
            (
                "zaqar",
                "ZCARD p.q.messages",
                &["cut into segments", "where \"p.q\" says"],
            ),
            ("sidekiq", "EXPIRE queue:default 10", &["refused", "not possible"]),
            ("sidekiq", "LPUSH queue:default 1", &["goes", "cut into segments"]),
            (
                "zaqar",
                "HGETALL 5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b11",
                &["an item", "entry of its index"],
            ),
            (
                "zaqar",
                "EVALSHA 0123456789abcdef0123456789abcdef01234567 2 p.q.messages p.q.rank_counter 1 m",
                &["appends to an index", "ARGV[2]"],
            ),
        ] {
            let told = told(profile, line);
            for word in words {
                assert!(told.contains(word), "{line}: {word:?} is missing in\n{told}");
            }
        }
    }

    #[test]
    fn a_profile_that_does_not_exist_is_said() {
        let asked = Explain {
            config: None,
            profile: Some("zakar".into()),
            words: vec!["PING".into()],
        };
        assert!(explain(&asked).unwrap_err()[0].message.contains("zaqar"));
    }
}
