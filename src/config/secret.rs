//! A password that cannot be printed by accident.
//!
//! `Debug` shows three stars and there is no `Display`, so neither a log line nor an error that prints a whole
//! configuration can give it away. Whoever needs the text asks for it by name ([`Secret::expose`]).

use serde::Deserialize;
use std::fmt;

/// A password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` secret.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text, for sending it to a node. Not for logs, errors or replies.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a client offered the right password. The time taken depends on the length of what was offered only, not on
    /// how much of it is right.
    pub fn matches(&self, offered: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let mut difference = own.len() ^ offered.len();
        for (index, byte) in offered.iter().enumerate() {
            difference |= usize::from(byte ^ own.get(index).unwrap_or(&0));
        }
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_matches() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches(b"hunter2"));
        for wrong in ["", "hunter", "hunter22", "hunter3", "hunter2\0", "Hunter2"] {
            assert!(!secret.matches(wrong.as_bytes()), "{wrong}");
        }
        assert!(Secret::new("").matches(b""));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }
}
