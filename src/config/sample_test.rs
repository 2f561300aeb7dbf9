//! The commented `proxy.toml` says what the code does: every setting is in it, and its defaults are the real ones.

use super::settings::{self, SETTINGS};
use super::*;
use std::collections::{BTreeMap, BTreeSet};

const SAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml"));

/// Defaults that are words, because they are no value that could be written.
const DEFAULTS_IN_WORDS: [&str; 3] = ["none", "majority", "write_quorum"];

/// What the sample says of a setting where it first stands.
#[derive(Debug)]
struct Entry<'s> {
    /// As it is written.
    value: &'s str,
    /// The lines of comment above it.
    comment: Vec<&'s str>,
}

/// The settings of the sample by path, used or not.
fn entries() -> BTreeMap<String, Entry<'static>> {
    let mut entries = BTreeMap::new();
    let mut section = "";
    let mut comment = Vec::new();
    for line in SAMPLE.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
            comment.clear();
        } else if let Some((key, value)) = assignment(line) {
            let path = if section.is_empty() {
                key.to_owned()
            } else {
                format!("{section}.{key}")
            };
            entries.entry(path).or_insert(Entry {
                value,
                comment: std::mem::take(&mut comment),
            });
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
        } else {
            comment.clear();
        }
    }
    entries
}

/// `key = value`, also behind `# `.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then_some((key, value))
}

impl Entry<'_> {
    /// What follows `Default: `, without an explanation in brackets.
    fn default(&self) -> Option<&str> {
        let line = self
            .comment
            .iter()
            .find_map(|line| line.strip_prefix("Default: "))?;
        Some(line.split_once(" (").map_or(line, |(value, _)| value))
    }

    fn is_required(&self) -> bool {
        self.comment.contains(&"Required")
    }
}

/// A file that sets as little as possible, and `setting = value` besides. Passwords are set, since a user needs one.
fn small_file(extra: Option<(&str, &str)>) -> String {
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut put = |section, line: &str| lines.entry(section).or_default().push(line.to_owned());
    put("listen", "tcp = \"127.0.0.1:6379\"");
    put("listen", "password = \"x\"");
    put(
        "nodes",
        "name = \"a\"\naddress = \"127.0.0.1:7001\"\npassword = \"x\"",
    );
    if let Some((path, value)) = extra {
        let (section, key) = settings::split(path);
        put(section, &format!("{key} = {value}"));
    }
    let top = lines.remove("").unwrap_or_default().join("\n");
    let nodes = lines.remove("nodes").unwrap_or_default().join("\n");
    let sections: String = lines
        .iter()
        .map(|(section, lines)| format!("[{section}]\n{}\n", lines.join("\n")))
        .collect();
    let more_nodes = "[[nodes]]\nname = \"b\"\naddress = \"127.0.0.1:7002\"\n\
                      [[nodes]]\nname = \"c\"\naddress = \"127.0.0.1:7003\"\n";
    format!("{top}\n{sections}[[nodes]]\n{nodes}\n{more_nodes}")
}

#[test]
fn the_sample_is_a_working_example_with_three_loopback_nodes() {
    let config = Config::parse(SAMPLE).unwrap();
    assert_eq!(config.nodes.len(), 3);
    for node in &config.nodes {
        assert!(
            matches!(&node.address, NodeAddress::Tcp { host, .. } if host == "127.0.0.1"),
            "{node:?}"
        );
    }
}

#[test]
fn every_setting_is_in_the_sample_and_nothing_else() {
    let known: BTreeSet<String> = SETTINGS.iter().map(|setting| setting.path.to_owned()).collect();
    let shown: BTreeSet<String> = entries().into_keys().collect();
    assert_eq!(known, shown);
    assert_eq!(known.len(), SETTINGS.len(), "a setting stands twice in the table");
}

#[test]
fn every_setting_is_explained_and_says_whether_it_must_be_given() {
    for (path, entry) in entries() {
        assert!(entry.comment.len() >= 2, "{path} is not explained");
        assert_ne!(
            entry.default().is_some(),
            entry.is_required(),
            "{path}: Default or Required, one of them"
        );
    }
}

#[test]
fn the_defaults_that_it_states_are_those_of_the_code() {
    let without = Config::parse(&small_file(None)).unwrap();
    for (path, entry) in entries() {
        let Some(default) = entry
            .default()
            .filter(|default| !DEFAULTS_IN_WORDS.contains(default))
        else {
            continue;
        };
        let mut with = Config::parse(&small_file(Some((&path, default)))).unwrap();
        // The only defaults that are filled in when they are asked for.
        with.listen.user = with.listen.user.filter(|user| user != without.listen.user());
        with.nodes[0].user = with.nodes[0]
            .user
            .take()
            .filter(|user| user != without.nodes[0].user());
        assert_eq!(with, without, "{path} = {default}");
    }
    assert_eq!(without.pool.write_quorum, majority(without.pool.replicas));
    assert_eq!(without.pool.min_in_sync, without.pool.write_quorum);
    let Listen { unix, admin, .. } = without.listen;
    assert_eq!((unix, admin, without.nodes[0].zone.clone()), (None, None, None));
    assert_eq!(
        (&without.nodes[1].password, without.nodes[1].user()),
        (&None, "default")
    );
}

#[test]
fn its_values_are_the_defaults_where_a_default_would_do() {
    let config = Config::parse(SAMPLE).unwrap();
    assert_eq!(config.threads, 1);
    assert_eq!(config.pool, Pool::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.timeouts, Timeouts::default());
    for (path, entry) in entries() {
        if let Some(default) = entry
            .default()
            .filter(|default| !DEFAULTS_IN_WORDS.contains(default))
        {
            assert_eq!(entry.value, default, "{path}");
        }
    }
}

/// Serde's structs and the table of settings know the same names: what `deny_unknown_fields` says it expected, is the table.
#[test]
fn the_structs_and_the_table_have_the_same_settings() {
    fn fields_of<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
        let error = toml::from_str::<T>("no_such_setting = 1")
            .err()
            .unwrap()
            .to_string();
        let expected = error.split_once("expected one of ").unwrap().1;
        expected
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .collect()
    }
    let keys = |section| {
        settings::keys_of(section)
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let top = keys("")
        .into_iter()
        .chain(settings::sections().map(str::to_owned))
        // Its tables have names of one's own: see `profiles.rs`.
        .chain(["profiles".to_owned()])
        .collect();
    assert_eq!(fields_of::<Config>(), top);
    assert_eq!(fields_of::<Listen>(), keys("listen"));
    assert_eq!(fields_of::<Pool>(), keys("pool"));
    assert_eq!(fields_of::<Limits>(), keys("limits"));
    assert_eq!(fields_of::<Timeouts>(), keys("timeouts"));
    assert_eq!(fields_of::<Node>(), keys("nodes"));
}

#[test]
fn the_bounds_of_every_setting_are_accepted_by_serde() {
    use settings::Kind;
    let quoted = |text: &str| format!("\"{text}\"");
    for setting in SETTINGS {
        // Copies hang together; their bounds are tested with their rules.
        if matches!(
            setting.path,
            "pool.replicas" | "pool.write_quorum" | "pool.min_in_sync"
        ) {
            continue;
        }
        let values = match setting.kind {
            Kind::Number { min, max } => vec![min.to_string(), max.to_string()],
            Kind::Size { min, max } => vec![min.to_string(), max.to_string(), quoted(&format!("{max}B"))],
            Kind::Time { min, max } => [min, max]
                .map(|time| quoted(&humantime_serde::re::humantime::format_duration(time).to_string()))
                .into(),
            Kind::Word(words) => words.iter().map(|word| quoted(word)).collect(),
            Kind::UnixPath => vec![quoted("/run/ringfence.sock")],
            Kind::User => vec![quoted("app"), quoted(&"x".repeat(settings::NAME_BYTES_MAX))],
            Kind::Name | Kind::Node | Kind::Password | Kind::Listen => continue,
        };
        for value in values {
            let parsed = Config::parse(&small_file(Some((setting.path, &value))));
            assert!(parsed.is_ok(), "{} = {value}: {parsed:?}", setting.path);
        }
    }
}
