//! What is wrong with a configuration file, said so that it can be put right.

use std::fmt;

/// One mistake in a configuration file.
///
/// Shown as `proxy.toml:12: pool.write_quorum: 4 is more than replicas (3): …`. The message says what to do, and never
/// repeats a value that may be a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named to us.
    pub file: String,
    /// Counted from 1. None where no line is to blame: an unreadable file, a setting that is missing.
    pub line: Option<usize>,
    /// The setting's dotted path (`pool.write_quorum`, `nodes[2].address`). Empty where none is to blame.
    pub setting: String,
    /// A sentence that says what to do.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.setting.is_empty() {
            write!(f, ": {}", self.setting)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Mistake {}

/// Longer names are not compared: no setting comes near.
const COMPARED_BYTES_MAX: usize = 40;

/// The one of `known` that `name` was probably meant to be: at most one edit in three letters away.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > COMPARED_BYTES_MAX {
        return None;
    }
    known
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, in bytes: how many insertions, removals and replacements lead from one text to the other.
fn edits(from: &str, to: &str) -> usize {
    // `row` holds the distances from the part of `from` that was gone through to every beginning of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (removed, byte) in from.bytes().enumerate() {
        let mut diagonal = removed;
        let mut left = removed + 1;
        let mut next_row = vec![left];
        for (other, above) in to.bytes().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(byte != other))
                .min(left + 1)
                .min(above + 1);
            diagonal = *above;
            next_row.push(left);
        }
        row = next_row;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edits(from, to), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = || ["replicas", "write_quorum", "min_in_sync"].into_iter();
        assert_eq!(nearest("replica", known()), Some("replicas"));
        assert_eq!(nearest("write-quorum", known()), Some("write_quorum"));
        assert_eq!(nearest("min_insync", known()), Some("min_in_sync"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest(&"x".repeat(1000), known()), None);
    }

    #[test]
    fn a_mistake_names_file_line_and_setting() {
        let mut mistake = Mistake {
            file: "proxy.toml".into(),
            line: Some(12),
            setting: "pool.write_quorum".into(),
            message: "4 is more than replicas (3)".into(),
        };
        assert_eq!(
            mistake.to_string(),
            "proxy.toml:12: pool.write_quorum: 4 is more than replicas (3)"
        );
        mistake.line = None;
        mistake.setting.clear();
        assert_eq!(mistake.to_string(), "proxy.toml: 4 is more than replicas (3)");
    }
}
