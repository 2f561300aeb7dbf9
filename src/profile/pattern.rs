//! Patterns of keys: `bull:{queue}:{rest}`, and templates that are filled from what they caught.
//!
//! A pattern is text with places in braces. It fits a key if the texts stand in it in this order, from its first byte to its last, with
//! at least one byte in each place; every place catches as little as it can. `{id:uuid}` catches a UUID in its usual form, and
//! nothing else. A template (`bull:{queue}`) is the same with the places' names; what they caught is put in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of a UUID as text: `8-4-4-4-12` hexadecimal digits.
pub const UUID_LEN: usize = 36;

/// Longest pattern or template, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Most places in a pattern.
const PLACES_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Place { name: Box<str>, is_uuid: bool },
}

/// A pattern, or a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    pieces: Box<[Piece]>,
}

/// What a pattern's places have caught in a key, in their order.
pub type Caught<'k> = smallvec::SmallVec<[&'k [u8]; 4]>;

impl Pattern {
    /// What the places caught, if the pattern fits the key.
    pub fn fit<'k>(&self, key: &'k [u8]) -> Option<Caught<'k>> {
        // The cheap question first: this is asked of every key.
        if let Some(Piece::Text(text)) = self.pieces.last()
            && !key.ends_with(text)
        {
            return None;
        }
        let mut caught = Caught::new();
        fit(&self.pieces, key, &mut caught).then_some(caught)
    }

    /// A template's text, with what the places of `pattern` have caught.
    pub fn fill(&self, pattern: &Pattern, caught: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Place { name, .. } => {
                    let at = pattern.places().position(|other| other == &**name);
                    out.extend_from_slice(at.and_then(|at| caught.get(at)).copied().unwrap_or_default());
                }
            }
        }
        out
    }

    /// The pattern in Lua's words, where places catch alike.
    pub fn lua(&self) -> Vec<u8> {
        let mut out = b"^".to_vec();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => text.iter().for_each(|byte| match byte {
                    // Lua's texts may have it, its patterns may not.
                    0 => out.extend_from_slice(b"%z"),
                    b if b.is_ascii_punctuation() => out.extend_from_slice(&[b'%', *b]),
                    b => out.push(*b),
                }),
                Piece::Place { is_uuid: false, .. } => out.extend_from_slice(b"(..-)"),
                Piece::Place { is_uuid: true, .. } => {
                    let digits = |n: usize| "%x".repeat(n);
                    let parts = [8, 4, 4, 4, 12].map(digits).join("%-");
                    out.extend_from_slice(format!("({parts})").as_bytes());
                }
            }
        }
        out.push(b'$');
        out
    }

    /// The template in Lua's words, for what `pattern` has caught.
    pub fn lua_template(&self, pattern: &Pattern) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => text.iter().for_each(|byte| match byte {
                    b'%' => out.extend_from_slice(b"%%"),
                    b => out.push(*b),
                }),
                Piece::Place { name, .. } => {
                    let at = pattern.places().position(|other| other == &**name);
                    out.extend_from_slice(format!("%{}", at.unwrap_or(0) + 1).as_bytes());
                }
            }
        }
        out
    }

    /// The places' names.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Place { name, .. } => Some(&**name),
            Piece::Text(_) => None,
        })
    }
}

fn fit<'k>(pieces: &[Piece], key: &'k [u8], caught: &mut Caught<'k>) -> bool {
    let Some((first, rest)) = pieces.split_first() else {
        return key.is_empty();
    };
    match first {
        Piece::Text(text) => key
            .strip_prefix(&**text)
            .is_some_and(|key| fit(rest, key, caught)),
        Piece::Place { is_uuid: true, .. } => match key.split_at_checked(UUID_LEN) {
            Some((id, key)) if is_uuid(id) => {
                caught.push(id);
                fit(rest, key, caught) || caught.pop().is_none()
            }
            _ => false,
        },
        Piece::Place { .. } => match rest {
            // All that is before the last text, wherever else that stands: most patterns ask just this.
            [Piece::Text(last)] => {
                let here = key.strip_suffix(&**last).filter(|here| !here.is_empty());
                caught.extend(here);
                here.is_some()
            }
            _ => (1..=key.len()).any(|len| {
                let (here, key) = key.split_at(len);
                caught.push(here);
                fit(rest, key, caught) || caught.pop().is_none()
            }),
        },
    }
}

/// Whether it is a UUID in its usual form.
#[inline]
pub fn is_uuid(text: &[u8]) -> bool {
    text.len() == UUID_LEN
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text.as_str();
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(format!("must have 1 to {TEXT_BYTES_MAX} bytes"));
        }
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.as_bytes().into()));
            }
            let (inside, behind) = after
                .split_once('}')
                .ok_or_else(|| "has a { without a }".to_owned())?;
            let (name, kind) = inside.split_once(':').unwrap_or((inside, ""));
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!(
                    "{{{inside}}} is not a place: name it by letters, digits and _, as in {{queue}}"
                ));
            }
            let is_known =
                |piece: &Piece| matches!(piece, Piece::Place { name: other, .. } if **other == *name);
            match kind {
                _ if pieces.iter().any(is_known) => return Err(format!("has two places called {name}")),
                "" if matches!(pieces.last(), Some(Piece::Place { is_uuid: false, .. })) => {
                    return Err("has two places side by side: put text between them".to_owned());
                }
                "" | "uuid" => pieces.push(Piece::Place {
                    name: name.into(),
                    is_uuid: kind == "uuid",
                }),
                _ => {
                    return Err(format!(
                        "{{{inside}}}: the only kind of place there is is {{{name}:uuid}}"
                    ));
                }
            }
            rest = behind;
        }
        if rest.contains('}') {
            return Err("has a } without a {".to_owned());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.as_bytes().into()));
        }
        let pattern = Self {
            pieces: pieces.into(),
        };
        match pattern.places().count() {
            ..=PLACES_MAX => Ok(pattern),
            _ => Err(format!("has more than {PLACES_MAX} places")),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(&String::from_utf8_lossy(text))?,
                Piece::Place { name, is_uuid: false } => write!(f, "{{{name}}}")?,
                Piece::Place { name, is_uuid: true } => write!(f, "{{{name}:uuid}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::try_from(text.to_owned()).unwrap()
    }

    fn caught<'k>(text: &str, key: &'k str) -> Option<Vec<&'k str>> {
        let found = pattern(text).fit(key.as_bytes())?;
        Some(
            found
                .iter()
                .map(|part| std::str::from_utf8(part).unwrap())
                .collect(),
        )
    }

    const ID: &str = "5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b11";

    #[test]
    fn a_pattern_fits_the_whole_key_and_catches_little() {
        for (text, key, expected) in [
            ("{queue}.messages", "p.q.messages", Some(vec!["p.q"])),
            (
                "{queue}.messages",
                "a.messages.messages",
                Some(vec!["a.messages"]),
            ),
            ("{queue}.messages", ".messages", None),
            ("{queue}.messages", "p.q.messages2", None),
            (
                "bull:{queue}:{rest}",
                "bull:mail:7:lock",
                Some(vec!["mail", "7:lock"]),
            ),
            ("bull:{queue}:{rest}", "bull:mail", None),
            ("rq:{rest}", "rq:job:1", Some(vec!["job:1"])),
            ("exact", "exact", Some(vec![])),
            ("exact", "exactly", None),
            ("{id:uuid}", ID, Some(vec![ID])),
            ("{id:uuid}", "5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b1", None),
            ("{id:uuid}", "5083c0f1x0e9c-4a1c-8d1e-5c9a7f1f0b11", None),
        ] {
            assert_eq!(caught(text, key), expected, "{text} {key}");
        }
        assert_eq!(
            caught("messages.{id:uuid}", &format!("messages.{ID}")),
            Some(vec![ID])
        );
    }

    #[test]
    fn a_template_is_filled() {
        let of = pattern("{project}.{queue}.rank");
        let caught = of.fit(b"p.q.rank").unwrap();
        assert_eq!(pattern("{queue}<{project}>").fill(&of, &caught), b"q<p>");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "1 to 256"),
            ("{a}{b}", "side by side"),
            ("{a", "without a }"),
            ("a}", "without a {"),
            ("{}", "not a place"),
            ("{a b}", "not a place"),
            ("{a}-{a}", "two places called a"),
            ("{a:hex}", "{a:uuid}"),
        ] {
            let error = Pattern::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn lua_is_told_in_its_own_words() {
        let of = pattern("bull:{queue}.{rest}");
        assert_eq!(of.lua(), b"^bull%:(..-)%.(..-)$");
        assert_eq!(pattern("50%-{rest}/{queue}").lua_template(&of), b"50%%-%2/%1");
        assert!(
            pattern("m.{id:uuid}")
                .lua()
                .starts_with(b"^m%.(%x%x%x%x%x%x%x%x%-%x%x%x%x%-")
        );
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        for text in ["bull:{queue}:{rest}", "{id:uuid}", "messages.{id:uuid}"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }
}
