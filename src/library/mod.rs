//! The library: the scripts and functions of the pool, and in which form nodes execute them.
//!
//! The cache of a Redis server is one server's; here a script may be executed on any node, at any time, also on one that has
//! just been restarted. So the sidecar knows the texts, keeps them with the pool ([`crate::pool`]), and a node's stream is given
//! a text right before the first command that needs it there, in the same batch. What is given is known by its digest, and
//! never changes: there is no order in which nodes must learn of things, and nothing newer that could be overwritten. For that,
//! every version of a function library is a library of its own on the nodes ([`functions`]).

pub mod functions;
mod judge;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use sha1_smol::Sha1;

use self::functions::Functions;
pub use self::judge::Judge;
use crate::command::script::prelude::Parts;
use crate::limits;
use crate::request::Script;

/// SHA-1 of a script's text.
pub type Sha = [u8; 20];

/// A script that a client has shown.
#[derive(Clone, Debug)]
pub struct KnownScript {
    /// What nodes execute: its own text, or that with a prelude in front.
    pub script: Arc<Script>,
    /// What is in front of it.
    pub parts: Parts,
    /// The same without a guard, for where it may touch any key.
    pub free: Option<(Arc<Script>, Parts)>,
    /// Whether its text proves that it touches only keys that it declares.
    pub only_declared: bool,
    /// How many keys it must be given for that.
    pub keys_needed: usize,
    /// What it is if it is given fewer.
    pub otherwise: Option<Arc<KnownScript>>,
    /// Whether it may change anything.
    pub may_write: bool,
    /// Why it is not executed, if so: an error line.
    pub refusal: Option<&'static str>,
    /// Its own text.
    pub text: Bytes,
    /// Whether it was loaded (`SCRIPT LOAD`) and is kept with the pool, so that its client may count on it.
    pub kept: bool,
}

/// What is known.
#[derive(Debug)]
pub struct Library {
    /// Who says in which form a script is executed.
    pub judge: Judge,
    scripts: Mutex<Scripts>,
    functions: ArcSwap<Functions>,
    /// Held while functions are being changed.
    pub changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Scripts {
    by_sha: HashMap<Sha, KnownScript>,
    bytes: usize,
}

impl Library {
    /// A library that knows these scripts and functions.
    pub fn new(judge: Judge, scripts: impl IntoIterator<Item = Bytes>, functions: Functions) -> Self {
        let library = Self {
            judge,
            scripts: Mutex::default(),
            functions: ArcSwap::from_pointee(functions),
            changing: tokio::sync::Mutex::default(),
        };
        for text in scripts {
            let mut known = library.judge.script(&text);
            known.kept = true;
            library.put(sha_of(&text), known);
        }
        library
    }

    fn scripts(&self) -> std::sync::MutexGuard<'_, Scripts> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The script of this digest.
    pub fn script(&self, sha: &Sha) -> Option<KnownScript> {
        self.scripts().by_sha.get(sha).cloned()
    }

    /// Takes a script in. When there are too many, those that no client counts on are forgotten; if that is not enough, all,
    /// as by `SCRIPT FLUSH`: clients load them again. Whether any were forgotten.
    pub fn put(&self, sha: Sha, script: KnownScript) -> bool {
        let mut scripts = self.scripts();
        let bytes = script.text.len();
        let is_full = |s: &Scripts| {
            s.by_sha.len() >= limits::SCRIPTS_MAX || s.bytes + bytes > limits::SCRIPTS_BYTES_MAX
        };
        let full = is_full(&scripts);
        if full {
            scripts.by_sha.retain(|_, script| script.kept);
            scripts.bytes = scripts.by_sha.values().map(|s| s.text.len()).sum();
            if is_full(&scripts) {
                *scripts = Scripts::default();
            }
        }
        if scripts.by_sha.insert(sha, script).is_none() {
            scripts.bytes += bytes;
        }
        full
    }

    /// Notes that a script is kept with the pool.
    pub fn set_kept(&self, sha: &Sha) {
        if let Some(script) = self.scripts().by_sha.get_mut(sha) {
            script.kept = true;
        }
    }

    /// Forgets all scripts.
    pub fn forget_scripts(&self) {
        *self.scripts() = Scripts::default();
    }

    /// The texts of all scripts, by their digests.
    pub fn texts(&self) -> Vec<(Sha, Bytes)> {
        self.scripts()
            .by_sha
            .iter()
            .map(|(sha, script)| (*sha, script.text.clone()))
            .collect()
    }

    /// The functions as they are now.
    pub fn functions(&self) -> Arc<Functions> {
        self.functions.load_full()
    }

    /// The pool's nodes hold different things from here on: scripts and functions may touch only what is theirs. Those whose form
    /// has changed are executed in the new one.
    ///
    /// # Errors
    /// The names of functions that cannot be used any more.
    pub fn spread_out(&self) -> Result<(), String> {
        self.judge.spread_out();
        let known: Vec<(Sha, Bytes, bool)> = {
            let scripts = self.scripts();
            let each = scripts.by_sha.iter();
            each.map(|(sha, script)| (*sha, script.text.clone(), script.kept))
                .collect()
        };
        for (sha, text, kept) in known {
            let mut script = self.judge.script(&text);
            script.kept = kept;
            self.put(sha, script);
        }
        let before = self.functions();
        let mut functions = Functions::default();
        let mut lost = Vec::new();
        for library in before.libraries() {
            let again =
                functions::FunctionLibrary::new(&self.judge, library.text.clone(), library.functions.clone());
            match again {
                Ok(library) => drop(functions.insert(library)),
                Err(_) => lost.push(String::from_utf8_lossy(&library.name).into_owned()),
            }
        }
        self.set_functions(functions);
        match lost.as_slice() {
            [] => Ok(()),
            _ => Err(lost.join(", ")),
        }
    }

    /// Replaces the functions.
    pub fn set_functions(&self, functions: Functions) {
        self.functions.store(Arc::new(functions));
    }
}

/// The digest of a script.
pub fn sha_of(text: &[u8]) -> Sha {
    Sha1::from(text).digest().bytes()
}

/// Reads a digest as clients write it.
pub fn parse_sha(text: &[u8]) -> Option<Sha> {
    let mut sha = [0; 20];
    if text.len() != 40 {
        return None;
    }
    for (byte, pair) in sha.iter_mut().zip(text.chunks(2)) {
        let digit = |i: usize| pair.get(i).and_then(|&c| char::from(c).to_digit(16));
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(sha)
}

/// A digest as it is written.
pub fn hex(sha: &Sha) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n)).map_or('0', |&d| char::from(d));
    sha.iter()
        .flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;

    #[test]
    fn digests_are_read_in_either_case() {
        let sha = sha_of(b"return 1");
        let text = hex(&sha);
        assert_eq!(text, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(parse_sha(text.to_uppercase().as_bytes()), Some(sha));
        assert_eq!(parse_sha(b"xyz"), None);
        assert_eq!(parse_sha(&[b'g'; 40]), None);
    }

    #[test]
    fn loaded_scripts_outlive_those_that_were_only_run() {
        let judge = Judge::new(Arc::new(CommandTable::builtin()), 3, 256, false);
        let library = Library::new(
            judge,
            [Bytes::from_static(b"return 'kept'")],
            Functions::default(),
        );
        let kept = sha_of(b"return 'kept'");
        for n in 0..limits::SCRIPTS_MAX + 5 {
            let text = Bytes::from(format!("return {n}"));
            library.put(sha_of(&text), library.judge.script(&text));
        }
        assert!(library.script(&kept).is_some());
        assert!(library.script(&sha_of(b"return 7")).is_none());
        assert!(library.texts().len() < 10);
    }
}
