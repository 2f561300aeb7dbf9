//! Finds every mistake in a configuration file.
//!
//! Two passes. The first goes through the file and looks at each value by itself: is there such a setting, is the value
//! of its type and in its range. What it found to be good it notes, with its line. The second ([`rules`](super::rules))
//! looks at values together (`write_quorum` and `replicas`, the nodes' names); it uses the notes only, so that a value
//! that was already reported does not cause a second, confusing mistake.

use super::address::{NodeAddress, check_unix_path};
use super::mistake::{Mistake, nearest};
use super::settings::{self, Kind, NAME_BYTES_MAX};
use super::{profiles, rules};
use bytesize::ByteSize;
use humantime_serde::re::humantime;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// Everything that is wrong with `text`, in the order of the lines. What concerns no line comes first.
pub(super) fn mistakes(text: &str, file: &str) -> Vec<Mistake> {
    let mut findings = Findings {
        text,
        file,
        mistakes: Vec::new(),
        noted: BTreeMap::new(),
        node_lines: Vec::new(),
    };
    match DeTable::parse(text) {
        // The parser's sentences name what it expected; they do not repeat what is there.
        Err(error) => {
            let line = error.span().map(|span| line_of(text, span.start));
            findings.report(line, "", format!("not valid TOML: {}", error.message()));
        }
        Ok(document) => {
            findings.table("", "", document.get_ref());
            rules::check(&mut findings);
            profiles::check(&mut findings);
        }
    }
    findings.mistakes.sort_by_key(|mistake| mistake.line);
    findings.mistakes
}

/// The line, counted from 1, of a byte of `text`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A setting that is in the file.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    pub(super) line: usize,
    /// None if a mistake was reported.
    pub(super) value: Option<Value>,
}

/// A value that is good by itself. What no rule looks at is not kept.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Number(u64),
    Listen(SocketAddr),
    Node(NodeAddress),
    Text(String),
    Other,
}

/// What the passes have found so far.
pub(super) struct Findings<'t> {
    pub(super) text: &'t str,
    file: &'t str,
    mistakes: Vec<Mistake>,
    /// By dotted path as shown, such as `pool.replicas` or `nodes[0].name`.
    noted: BTreeMap<String, Noted>,
    /// The lines on which the nodes begin.
    pub(super) node_lines: Vec<usize>,
}

impl Findings<'_> {
    pub(super) fn report(&mut self, line: Option<usize>, setting: &str, message: String) {
        self.mistakes.push(Mistake {
            file: self.file.to_owned(),
            line,
            setting: setting.to_owned(),
            message,
        });
    }

    /// What the file says of a setting, if it does.
    pub(super) fn noted(&self, setting: &str) -> Option<&Noted> {
        self.noted.get(setting)
    }

    /// One table of the file: the whole of it (section `""`), a section, or a node. `shown` is what comes before the key in
    /// the paths of its settings.
    fn table(&mut self, section: &str, shown: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let line = line_of(self.text, key.span().start);
            let key: &str = key.get_ref();
            let path = if section.is_empty() {
                key.to_owned()
            } else {
                format!("{section}.{key}")
            };
            let shown = format!("{shown}{key}");
            let value = value.get_ref();
            if let Some(setting) = settings::find(&path) {
                let checked = check(setting.kind, value);
                let value = match checked {
                    Ok(value) => Some(value),
                    Err(message) => {
                        self.report(Some(line), &shown, message);
                        None
                    }
                };
                self.noted.insert(shown, Noted { line, value });
            } else if section.is_empty() && key == "profiles" {
                self.noted.insert(shown, Noted { line, value: None });
            } else if section.is_empty() && settings::sections().any(|section| section == key) {
                self.section(key, line, value);
            } else {
                self.report(Some(line), &shown, unknown(section, key, value));
            }
        }
    }

    fn section(&mut self, section: &str, line: usize, value: &DeValue<'_>) {
        self.noted.insert(section.to_owned(), Noted { line, value: None });
        match value {
            DeValue::Array(nodes) if section == "nodes" => {
                for (index, node) in nodes.iter().enumerate() {
                    let line = line_of(self.text, node.span().start);
                    self.node_lines.push(line);
                    match node.get_ref() {
                        DeValue::Table(node) => self.table(section, &format!("nodes[{index}]."), node),
                        other => {
                            let message = format!(
                                "expected a table with the settings of a node, found {}",
                                found(other)
                            );
                            self.report(Some(line), &format!("nodes[{index}]"), message);
                        }
                    }
                }
            }
            _ if section == "nodes" => {
                let message =
                    "write [[nodes]], with two brackets, above the settings of each node".to_owned();
                self.report(Some(line), section, message);
            }
            DeValue::Table(table) => self.table(section, &format!("{section}."), table),
            other => {
                let message = format!("expected the settings of [{section}], found {}", found(other));
                self.report(Some(line), section, message);
            }
        }
    }
}

fn unknown(section: &str, key: &str, value: &DeValue<'_>) -> String {
    if section.is_empty() && matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
        return match nearest(key, settings::sections().chain(["profiles"])) {
            Some("nodes") => "there is no such section: did you mean [[nodes]]?".to_owned(),
            Some(section) => format!("there is no such section: did you mean [{section}]?"),
            None => "there is no such section: remove it".to_owned(),
        };
    }
    // The very name in another place is a better guess than a similar one in this place.
    let elsewhere = settings::SETTINGS
        .iter()
        .find(|setting| settings::split(setting.path).1 == key);
    if let Some(setting) = elsewhere {
        match settings::split(setting.path).0 {
            "" => {
                format!("there is no such setting here: {key} stands at the top, before the first section")
            }
            "nodes" => format!("there is no such setting here: {key} belongs under [[nodes]]"),
            section => format!("there is no such setting here: {key} belongs under [{section}]"),
        }
    } else if let Some(known) = nearest(key, settings::keys_of(section)) {
        format!("there is no such setting: did you mean {known}?")
    } else {
        "there is no such setting: remove it".to_owned()
    }
}

/// What stands where something else was expected, without repeating it.
fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Looks at a value by itself. An error is the sentence to report.
fn check(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    match kind {
        Kind::Number { min, max } => check_number(value, min, max),
        Kind::Size { min, max } => check_size(value, min, max),
        Kind::Time { min, max } => check_time(value, min, max),
        Kind::Listen => {
            let expected = "give an IP address and a port in quotes, such as \"127.0.0.1:6379\" (\"0.0.0.0:6379\" for all \
                            interfaces, port 0 for any free port)";
            text(value, expected)?
                .parse()
                .map(Value::Listen)
                .map_err(|_| expected.to_owned())
        }
        Kind::UnixPath => {
            let path = text(
                value,
                "give the path of a unix socket in quotes, such as \"/run/ringfence.sock\"",
            )?;
            check_unix_path(Path::new(path)).map_err(|error| error.to_string())?;
            Ok(Value::Text(path.to_owned()))
        }
        Kind::Node => {
            let address = text(
                value,
                "give an address in quotes, such as \"10.0.0.1:6379\" or \"unix:/run/redis.sock\"",
            )?;
            address
                .parse()
                .map(Value::Node)
                .map_err(|error: super::AddressError| error.to_string())
        }
        Kind::Name => check_name(value),
        Kind::User => {
            let expected =
                format!("give a user name of 1 to {NAME_BYTES_MAX} characters in quotes, without spaces");
            let name = text(value, &expected)?;
            let good = (1..=NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic());
            if good { Ok(Value::Other) } else { Err(expected) }
        }
        Kind::Password => match text(value, "give the password in quotes")? {
            "" => Err("is empty: give a password, or remove the line".to_owned()),
            _ => Ok(Value::Other),
        },
        Kind::Word(words) => check_word(value, words),
    }
}

fn text<'v>(value: &'v DeValue<'_>, expected: &str) -> Result<&'v str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{expected}; found {}", found(value)))
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    // Larger ones are out of every range: any number that is, will do.
    Some(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX))
}

fn check_number(value: &DeValue<'_>, min: u64, max: u64) -> Result<Value, String> {
    let expected = format!("give a whole number from {min} to {max}");
    let number = integer(value).ok_or_else(|| match value.as_str() {
        Some(text) if text.parse::<i64>().is_ok() => format!("{expected}, without quotes"),
        _ => format!("{expected}; found {}", found(value)),
    })?;
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
        _ => Err(format!("{number} is out of range: {expected}")),
    }
}

fn check_size(value: &DeValue<'_>, min: u64, max: u64) -> Result<Value, String> {
    let expected = format!(
        "give a size from \"{}\" to \"{}\", such as \"64MiB\"",
        ByteSize(min),
        ByteSize(max)
    );
    let bytes = match value {
        DeValue::String(text) => text.parse::<ByteSize>().map_err(|_| expected.clone())?.as_u64(),
        DeValue::Integer(_) => integer(value)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .ok_or_else(|| expected.clone())?,
        other => return Err(format!("{expected}; found {}", found(other))),
    };
    if bytes < min {
        Err(format!("{} is too small: {expected}", ByteSize(bytes)))
    } else if bytes > max {
        Err(format!("{} is too large: {expected}", ByteSize(bytes)))
    } else {
        Ok(Value::Other)
    }
}

fn check_time(value: &DeValue<'_>, min: Duration, max: Duration) -> Result<Value, String> {
    let show = humantime::format_duration;
    let never = if min.is_zero() { " (\"0s\" for never)" } else { "" };
    let expected = format!(
        "give a duration with its unit in quotes, from \"{}\" to \"{}\", such as \"500ms\"{never}",
        show(min),
        show(max)
    );
    let time = humantime::parse_duration(text(value, &expected)?).map_err(|_| expected.clone())?;
    if time < min {
        Err(format!("{} is too short: {expected}", show(time)))
    } else if time > max {
        Err(format!("{} is too long: {expected}", show(time)))
    } else {
        Ok(Value::Other)
    }
}

/// Whether it can be the name of a node, a zone, a pool.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn check_name(value: &DeValue<'_>) -> Result<Value, String> {
    let expected = format!("give a name of 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.' in quotes");
    let name = text(value, &expected)?;
    if is_name(name) {
        Ok(Value::Text(name.to_owned()))
    } else {
        Err(expected)
    }
}

fn check_word(value: &DeValue<'_>, words: &[&str]) -> Result<Value, String> {
    let expected = format!("give \"{}\"", words.join("\" or \""));
    let word = text(value, &expected)?;
    if words.contains(&word) {
        Ok(Value::Other)
    } else if word == "etcd" {
        Err(format!("etcd is not available in this version: {expected}"))
    } else if let Some(near) = nearest(word, words.iter().copied()) {
        Err(format!(
            "there is no such choice: did you mean \"{near}\"? {expected}",
            expected = capitalised(&expected)
        ))
    } else {
        Err(format!("there is no such choice: {expected}"))
    }
}

fn capitalised(sentence: &str) -> String {
    let (first, rest) = sentence.split_at_checked(1).unwrap_or((sentence, ""));
    first.to_ascii_uppercase() + rest
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
