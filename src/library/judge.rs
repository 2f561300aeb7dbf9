//! In which form a script is executed, if at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;

use super::{KnownScript, sha_of};
use crate::command::script::prelude::{self, Parts};
use crate::command::script::{ScriptTraits, analyse, touches_only_declared};
use crate::command::{Command, CommandTable, Flags};
use crate::profile::{KeyRule, Role};
use crate::request::Script;
use crate::resp::encode;

const DIFFERS: &str = "ERR this script may have another effect on each node, and hides how it calls Redis (_G, loadstring, …), \
                       so it cannot be mirrored. Pass times and random values as arguments instead";

const HIDDEN: &str = "ERR this script hides how it calls Redis (_G, loadstring, …), so it cannot be made sure that it touches \
                      only keys that it declares: call redis.call by its name";

const OUT_OF_BOUNDS: &str = "ERR this script uses a command that operates a server or reaches beyond its keys (SELECT, \
                             FLUSHALL, CONFIG, …), which is not possible in a pool";

/// Judges scripts by what they are and where they are to run.
#[derive(Debug)]
pub struct Judge {
    commands: Arc<CommandTable>,
    replicas: usize,
    partitions: u16,
    /// The profile has items, which scripts need not declare.
    items: bool,
    /// Its rules, for the guard.
    rules: String,
    /// Every node holds everything, and one worker orders it.
    one_place: AtomicBool,
}

impl Judge {
    /// For a pool. In `one_place`, where every node holds everything and one
    /// worker orders it, a script may touch any key.
    pub fn new(commands: Arc<CommandTable>, replicas: usize, partitions: u16, one_place: bool) -> Self {
        Self {
            commands,
            replicas,
            partitions,
            items: false,
            rules: String::new(),
            one_place: AtomicBool::new(one_place),
        }
    }

    /// The same with a profile's rules.
    pub fn with_rules(self, rules: &[KeyRule]) -> Self {
        Self {
            items: rules.iter().any(|rule| rule.role == Role::Item),
            rules: prelude::rules(rules),
            ..self
        }
    }

    /// A script, as it is executed.
    pub fn script(&self, text: &Bytes) -> KnownScript {
        let traits = analyse(text);
        let Some(keys_needed) = touches_only_declared(text, &self.commands) else {
            return self.form(text, &traits, false);
        };
        let otherwise = (keys_needed > 0).then(|| Arc::new(self.form(text, &traits, false)));
        KnownScript {
            keys_needed,
            otherwise,
            ..self.form(text, &traits, true)
        }
    }

    fn form(&self, text: &Bytes, traits: &ScriptTraits, only_declared: bool) -> KnownScript {
        let parts = self.parts(traits, only_declared);
        let with = |parts: Parts| {
            let script = match parts.any() {
                true => prelude::script(text, parts, &self.keys(traits, parts)),
                false => text.to_vec(),
            };
            Arc::new(Script {
                sha: sha_of(&script),
                load: encode::command_frame(&[b"SCRIPT", b"LOAD", &script]),
            })
        };
        let unguarded = Parts {
            guard: false,
            ..parts
        };
        let free = (parts.guard && self.one_place.load(Relaxed)).then(|| (with(unguarded), unguarded));
        KnownScript {
            script: with(parts),
            parts,
            only_declared,
            keys_needed: 0,
            otherwise: None,
            may_write: self.may_write(traits),
            refusal: self.refusal(traits, if free.is_some() { unguarded } else { parts }),
            free,
            text: text.clone(),
            kept: false,
        }
    }

    /// Whether functions, whose keys cannot be told, may touch any key.
    pub fn is_one_place(&self) -> bool {
        self.one_place.load(Relaxed) && self.partitions > 1
    }

    /// From here on, nodes hold different things.
    pub(super) fn spread_out(&self) {
        self.one_place.store(false, Relaxed);
    }

    /// A function library under another name and with a prefix for its functions: its text, and what is in front of it.
    ///
    /// # Errors
    /// Why it is not possible: an error line.
    pub fn library(&self, text: &[u8], name: &str, prefix: &str) -> Result<(Vec<u8>, Parts), &'static str> {
        let traits = analyse(text);
        let parts = self.parts(&traits, self.one_place.load(Relaxed));
        match self.refusal(&traits, parts) {
            Some(line) => Err(line),
            None => Ok((
                prelude::library(text, name, prefix, parts, &self.keys(&traits, parts)),
                parts,
            )),
        }
    }

    /// Whether a script may change anything.
    fn may_write(&self, traits: &ScriptTraits) -> bool {
        let writes = |name: &str| {
            self.commands
                .get(name)
                .is_none_or(|c| c.flags.contains(Flags::WRITE))
        };
        traits.unclear || traits.commands.iter().any(|name| writes(name))
    }

    fn parts(&self, traits: &ScriptTraits, only_declared: bool) -> Parts {
        let differs = traits.unclear
            || traits.names_time_or_random
            || traits.relative_expiry
            || ((traits.unordered_reads || traits.server_state) && self.may_write(traits));
        let items = self.items && !only_declared;
        let clock = self.replicas > 1 && differs;
        Parts {
            moment: self.replicas > 1 && (differs || items),
            clock,
            natives: clock && traits.names_natives,
            guard: self.partitions > 1 && !only_declared,
            items,
            publish: traits.may_publish(),
            bounds: traits.unclear || traits.commands.iter().any(|name| &**name == "copy"),
            os: traits.names_os,
        }
    }

    fn refusal(&self, traits: &ScriptTraits, parts: Parts) -> Option<&'static str> {
        let out_of_bounds = |name: &str| {
            matches!(name, "select" | "flushall" | "flushdb" | "script" | "function")
                || self.commands.get(name).is_some_and(Command::is_refused)
        };
        if traits.commands.iter().any(|name| out_of_bounds(name)) {
            Some(OUT_OF_BOUNDS)
        } else if parts.clock && traits.hidden {
            Some(DIFFERS)
        } else if parts.guard && traits.hidden {
            Some(HIDDEN)
        } else {
            None
        }
    }

    fn keys(&self, traits: &ScriptTraits, parts: Parts) -> prelude::Keys {
        let written = traits.written.iter().map(|name| &**name);
        let plain = prelude::plain(&self.commands, written, parts);
        if !parts.guard {
            return prelude::Keys {
                plain,
                ..prelude::Keys::default()
            };
        }
        let names = |name: &str| traits.unclear || traits.commands.iter().any(|known| **known == *name);
        prelude::Keys {
            specs: prelude::key_specs(&self.commands, names),
            rules: self.rules.clone(),
            plain,
        }
    }
}
