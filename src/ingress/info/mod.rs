//! `INFO`: one server's face, in Redis's format, and a section of ours.
//!
//! A section is a name, a heading and a function that writes its lines; which of them are wanted is decided here.

mod facts;
mod sections;

use std::fmt::Write as _;

use facts::Facts;
use sections::SECTIONS;

use crate::resp::Args;
use crate::shared::Shared;

/// One section.
struct Section {
    /// How it is asked for.
    name: &'static str,
    /// How it is headed.
    heading: &'static str,
    /// Whether it is shown to who asks for nothing in particular.
    default: bool,
    lines: fn(&Facts<'_>, &mut String) -> std::fmt::Result,
}

/// The text of `INFO [section …]`.
pub(super) fn info(shared: &Shared, args: &Args<'_>) -> String {
    let wanted: Vec<String> = args
        .iter()
        .skip(1)
        .map(|w| String::from_utf8_lossy(w).to_lowercase())
        .collect();
    let asked = |name: &str| wanted.iter().any(|w| w == name);
    let all = asked("all") || asked("everything");
    let default = wanted.is_empty() || asked("default");
    let facts = Facts::of(shared);
    let mut out = String::new();
    for section in SECTIONS {
        if !(all || (default && section.default) || asked(section.name)) {
            continue;
        }
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        // Writing to a string cannot fail.
        let _written = write!(out, "# {}\r\n", section.heading);
        let _written = (section.lines)(&facts, &mut out);
    }
    out
}
