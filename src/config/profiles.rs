//! Profiles in the configuration: `[profiles.NAME]`, each as [`crate::profile`] has it; and the choice of one.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::check::{Findings, Value, is_name, line_of};
use crate::profile::{self, Profile};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    profiles: BTreeMap<String, Spanned<toml::Value>>,
}

/// Reports what is wrong with the file's own profiles, and a choice of one that does not exist.
pub(super) fn check(findings: &mut Findings<'_>) {
    let text = findings.text;
    let Ok(document) = toml::from_str::<Document>(text) else {
        let line = findings.noted("profiles").map(|noted| noted.line);
        return findings.report(
            line,
            "profiles",
            "write [profiles.NAME] above the settings of each profile".to_owned(),
        );
    };
    for (name, value) in &document.profiles {
        let line = Some(line_of(text, value.span().start));
        let shown = format!("profiles.{name}");
        if profile::builtin(name).is_some() {
            let message = "is built in: give your own profile another name".to_owned();
            findings.report(line, &shown, message);
        } else if !is_name(name) {
            let message = "is not a name: letters, digits, '-', '_', '.'".to_owned();
            findings.report(line, &shown, message);
        } else {
            for message in mistakes(value.get_ref()) {
                findings.report(line, &shown, message);
            }
        }
    }
    if let Some(noted) = findings.noted("pool.profile")
        && let Some(Value::Text(chosen)) = &noted.value
        && profile::builtin(chosen).is_none()
        && !document.profiles.contains_key(chosen)
    {
        let message = unknown(chosen);
        let line = Some(noted.line);
        findings.report(line, "pool.profile", message);
    }
}

/// What is said of a profile that does not exist.
pub fn unknown(name: &str) -> String {
    let known: Vec<&str> = profile::builtin_names().collect();
    format!(
        "there is no profile {name:?}: take one of {}, or write [profiles.{name}]",
        known.join(", ")
    )
}

fn mistakes(value: &toml::Value) -> Vec<String> {
    match Profile::deserialize(value.clone()) {
        Ok(profile) => profile::mistakes(&profile)
            .iter()
            .map(ToString::to_string)
            .collect(),
        Err(error) => vec![error.message().to_owned()],
    }
}
