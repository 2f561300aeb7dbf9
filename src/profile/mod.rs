//! Profiles: what a driver's keys and scripts mean.
//!
//! **Problem.** A driver written for one server may take for granted that all its keys are together, and which of them belong
//! together only its author knew. **Idea.** A profile says it, for one driver, as data: patterns of keys, where they live, which role
//! they play, and what its scripts do with keys that they do not declare. Some are built in (`profiles/*.toml`), others are written
//! in `proxy.toml`; a pool has one, for good, since it decides where its keys are.
//!
//! Without a profile a key lives where its hash tag says, or the whole key.

mod pattern;
mod read;

pub use pattern::{Caught, Pattern, UUID_LEN, is_uuid};
pub use read::{ProfileError, SEGMENT_LEN_MAX, builtin, builtin_names, mistakes, named, parse};

use serde::{Deserialize, Serialize};

/// What keys of a pattern are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keys like any other.
    #[default]
    Plain,
    /// A sorted set of items' ids, in the order of their scores: a queue that is spread over several nodes.
    Index,
    /// The number that the next item of an index gets as its score.
    Counter,
    /// A hash that an index names; it lives with the index's entry.
    Item,
    /// A list that is spread over several nodes.
    List,
    /// A stream that is spread over several nodes.
    Stream,
}

/// What a profile says of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRule {
    /// Which keys.
    pub pattern: Pattern,
    /// What they are.
    #[serde(default)]
    pub role: Role,
    /// What decides where they live: they live with other keys of the same text. None: the whole key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Pattern>,
    /// Of a counter: its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Pattern>,
    /// Of an item: the field that only a new one is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_with: Option<String>,
}

impl KeyRule {
    /// Keys that live together.
    ///
    /// # Errors
    /// What is wrong with the pattern or the template.
    pub fn together(pattern: &str, route: &str) -> Result<Self, String> {
        Ok(Self {
            pattern: Pattern::try_from(pattern.to_owned())?,
            role: Role::Plain,
            route: Some(Pattern::try_from(route.to_owned())?),
            of: None,
            created_with: None,
        })
    }
}

/// What a script does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Does {
    /// It appends items to an index.
    Append,
    /// It looks at an index from its head, until it has found enough.
    Visit,
}

/// What a profile says of a script, which is known by the roles of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptRule {
    /// The roles of its keys, all of them.
    pub keys: Vec<Role>,
    /// What it does.
    pub does: Does,
    /// Of `append`: which of `ARGV` is the first item's id; all from there on are.
    #[serde(default)]
    pub items: usize,
    /// Of `visit`: which of `ARGV` is the number of items that are enough. Its reply is a list of what it has found.
    #[serde(default)]
    pub limit: usize,
    /// Which of `ARGV` is the id of something new, which is no item; 0: none.
    #[serde(default)]
    pub fresh: usize,
}

/// All that is known of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called.
    #[serde(skip)]
    pub name: String,
    /// For whom it is, in a few words.
    #[serde(default)]
    pub about: String,
    /// Entries of a segment of a queue.
    #[serde(default = "segment_len")]
    pub segment_len: u64,
    /// What is said of keys: the first rule that fits counts.
    #[serde(default, rename = "key")]
    pub keys: Vec<KeyRule>,
    /// What is said of scripts.
    #[serde(default, rename = "script")]
    pub scripts: Vec<ScriptRule>,
}

impl Profile {
    /// The rule of the first role of this kind.
    pub fn role(&self, role: Role) -> Option<&KeyRule> {
        self.keys.iter().find(|rule| rule.role == role)
    }

    /// Whether queues are spread over nodes.
    pub fn is_striped(&self) -> bool {
        [Role::Index, Role::List, Role::Stream]
            .into_iter()
            .any(|role| self.role(role).is_some())
    }
}

/// What is taken where none is named: `generic`.
pub fn default_name() -> String {
    "generic".to_owned()
}

/// 10,000 messages of a few hundred bytes are some MB: moved in a moment, and 200 segments for 2 million.
fn segment_len() -> u64 {
    10_000
}
