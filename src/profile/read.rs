//! Profiles as text: those that are built in, and the check of one.

use thiserror::Error;

use super::{Does, KeyRule, Profile, Role, ScriptRule};

/// Those that are built in.
const BUILTIN: [(&str, &str); 6] = [
    ("generic", include_str!("../../profiles/generic.toml")),
    ("zaqar", include_str!("../../profiles/zaqar.toml")),
    ("celery", include_str!("../../profiles/celery.toml")),
    ("rq", include_str!("../../profiles/rq.toml")),
    ("sidekiq", include_str!("../../profiles/sidekiq.toml")),
    ("bullmq", include_str!("../../profiles/bullmq.toml")),
];

/// A segment's entries are counted in 24 bits of a marker.
pub const SEGMENT_LEN_MAX: u64 = (1 << 24) - 2;

/// What is wrong with a profile, and with which part of it.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{where_}: {what}")]
pub struct ProfileError {
    /// The part: `key[0].pattern`.
    pub where_: String,
    /// What is wrong with it, and what to do.
    pub what: String,
}

/// The names of those that are built in.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// The text of one that is built in.
pub fn builtin(name: &str) -> Option<&'static str> {
    BUILTIN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// One that is built in.
pub fn named(name: &str) -> Option<Profile> {
    // Each of them is read by a test.
    parse(name, builtin(name)?).ok()
}

/// Reads and checks one.
///
/// # Errors
/// The first mistake in it.
pub fn parse(name: &str, text: &str) -> Result<Profile, ProfileError> {
    let mut profile: Profile = toml::from_str(text).map_err(|error| ProfileError {
        where_: match error.span() {
            Some(span) => format!("line {}", 1 + text[..span.start].matches('\n').count()),
            None => "the profile".to_owned(),
        },
        what: error.message().to_owned(),
    })?;
    profile.name = name.to_owned();
    match mistakes(&profile).into_iter().next() {
        Some(first) => Err(first),
        None => Ok(profile),
    }
}

/// All that does not fit together: of each rule the first thing.
pub fn mistakes(profile: &Profile) -> Vec<ProfileError> {
    let error = |where_: String, what: &str| ProfileError {
        where_,
        what: what.to_owned(),
    };
    let is_counted = (1..=SEGMENT_LEN_MAX).contains(&profile.segment_len);
    let length = (!is_counted).then(|| error("segment_len".into(), "must be from 1 to 16777214"));
    let keys = (0..profile.keys.len()).filter_map(|at| {
        let (field, what) = check_rule(profile, at).err()?;
        Some(error(format!("key[{at}].{field}"), &what))
    });
    let scripts = profile.scripts.iter().enumerate().filter_map(|(at, script)| {
        let (field, what) = check_script(script).err()?;
        Some(error(format!("script[{at}].{field}"), what))
    });
    length.into_iter().chain(keys).chain(scripts).collect()
}

fn check_rule(profile: &Profile, at: usize) -> Result<(), (&'static str, String)> {
    let Some(rule) = profile.keys.get(at) else {
        return Ok(());
    };
    for (field, template) in [("route", &rule.route), ("of", &rule.of)] {
        let mut places = template.iter().flat_map(|t| t.places());
        if let Some(place) = places.find(|place| !rule.pattern.places().any(|known| known == *place)) {
            return Err((field, format!("{{{place}}} is not a place of the pattern")));
        }
    }
    let mut before = profile.keys.iter().take(at);
    if before.any(|other| other.pattern == rule.pattern) {
        let what = "is there twice: only the first rule would ever count";
        return Err(("pattern", what.to_owned()));
    }
    check_role(profile, rule).map_err(|(field, what)| (field, what.to_owned()))
}

fn check_script(script: &ScriptRule) -> Result<(), (&'static str, &'static str)> {
    let is_index = |role: &Role| matches!(role, Role::Index | Role::Counter);
    if script.keys.first() != Some(&Role::Index) || !script.keys.iter().all(is_index) {
        return Err(("keys", "must be [\"index\"] or [\"index\", \"counter\"]"));
    }
    match script.does {
        Does::Append if script.items == 0 => Err((
            "items",
            "say which of ARGV is the first item's id (1 is the first)",
        )),
        Does::Visit if script.limit == 0 => Err((
            "limit",
            "say which of ARGV is the number of items that are enough (1 is the first)",
        )),
        _ => Ok(()),
    }
}

fn check_role(profile: &Profile, rule: &KeyRule) -> Result<(), (&'static str, &'static str)> {
    let count = |role: Role| profile.keys.iter().filter(|other| other.role == role).count();
    match rule.role {
        Role::Plain if rule.route.is_none() => Err((
            "route",
            "say where keys of this pattern live, or give them a role",
        )),
        Role::Index if count(Role::Item) != 1 => {
            Err(("role", "an index needs one rule for its items: role = \"item\""))
        }
        Role::Index | Role::Item if count(rule.role) > 1 => Err(("role", "only one rule can have this role")),
        Role::Counter if rule.of.is_none() => Err((
            "of",
            "say which index it counts for, as in of = \"{queue}.messages\"",
        )),
        Role::Item if rule.created_with.is_none() => {
            Err(("created_with", "say which field only a new item is given"))
        }
        Role::Item if rule.pattern.to_string() != "{id:uuid}" => {
            Err(("pattern", "items are called by bare UUIDs: \"{id:uuid}\""))
        }
        Role::Item if rule.route.is_some() => {
            Err(("route", "items live with the entry of their index: leave it out"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_built_in_are_sound() {
        for name in builtin_names() {
            let profile =
                parse(name, builtin(name).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!profile.about.is_empty(), "{name}");
        }
        assert!(named("zaqar").unwrap().is_striped());
        assert_eq!(named("nobody"), None);
    }

    #[test]
    fn every_rule_that_is_wrong_is_named() {
        let text = "segment_len = 0\n[[key]]\npattern = \"a:{b}\"\n[[key]]\npattern = \"c\"\nroute = \"{d}\"\n\
                    [[script]]\nkeys = [\"index\"]\ndoes = \"append\"";
        let found = mistakes(&toml::from_str(text).unwrap());
        let places: Vec<&str> = found.iter().map(|error| error.where_.as_str()).collect();
        assert_eq!(
            places,
            ["segment_len", "key[0].route", "key[1].route", "script[0].items"]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("[[key]]\npattern = \"a:{b}\"", "key[0].route: say where"),
            (
                "[[key]]\npattern = \"a:{b}\"\nroute = \"{c}\"",
                "key[0].route: {c} is not a place",
            ),
            (
                "[[key]]\npattern = \"a:{b\"\nroute = \"x\"",
                "line 2: has a { without a }",
            ),
            ("[[key]]\npatern = \"a\"", "line 2: unknown field `patern`"),
            ("segment_len = 0", "segment_len: must be"),
            (
                "[[key]]\npattern = \"{q}.m\"\nrole = \"index\"",
                "key[0].role: an index needs",
            ),
            (
                "[[script]]\nkeys = [\"item\"]\ndoes = \"append\"",
                "script[0].keys: must be",
            ),
            (
                "[[script]]\nkeys = [\"index\"]\ndoes = \"visit\"",
                "script[0].limit: say which",
            ),
        ] {
            let error = parse("mine", text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
