//! The configuration file, `proxy.toml`.
//!
//! **Problem.** A wrong setting must be found before the first client is served, and an operator wants to hear of all of
//! them at once, by line, with what to do; serde stops at the first. **Idea.** Two steps: a check of our own walks the
//! parsed file beside a table of all settings (`settings.rs`) and collects every mistake; only when there is none
//! does serde fill the structs below.
//!
//! Rules: an unknown key is a mistake, never ignored. Passwords are [`Secret`]s, and no message repeats one. What the
//! structs hold has been checked: nobody after this checks again, or fills in a default.
//!
//! What it does not do: it opens no connection and resolves no name, so a file that is well can still name a node that
//! is not there.

mod address;
mod check;
mod mistake;
mod profiles;
mod rules;
mod secret;
mod settings;

pub use address::{AddressError, NodeAddress};
pub use check::is_name;
pub use mistake::Mistake;
pub use profiles::unknown as unknown_profile;
pub use secret::Secret;

use crate::profile::{self, Profile};
use bytesize::ByteSize;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file that is read, in bytes. 256 nodes with long names need a tenth of it; a larger one is another file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How a text that came from no file is called in mistakes.
const FILE_NAME: &str = "proxy.toml";

/// The user that every Redis server has.
const DEFAULT_USER: &str = "default";

/// Everything that can be configured. The commented `proxy.toml` says what each setting is for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Event loops, each with a thread, partitions and streams of its own.
    #[serde(default = "one")]
    pub threads: usize,
    /// Where clients and operators reach the sidecar.
    pub listen: Listen,
    /// The pool that the nodes form.
    #[serde(default)]
    pub pool: Pool,
    /// Bounds that an operator may want to change.
    #[serde(default)]
    pub limits: Limits,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Profiles of one's own, by name.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
    /// The pool's nodes: at least `pool.replicas`, with distinct names and addresses.
    pub nodes: Vec<Node>,
}

/// `[listen]`: where clients and operators reach the sidecar. At least one of `tcp` and `unix` is set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// For clients. Port 0 is a free port.
    pub tcp: Option<SocketAddr>,
    /// For clients on this host: the path of a unix socket.
    pub unix: Option<PathBuf>,
    /// The user that the password is for. None is `default`: see [`Listen::user`].
    pub user: Option<String>,
    /// If set, clients must `AUTH`.
    pub password: Option<Secret>,
    /// HTTP, for operators: health, metrics, state. Port 0 is a free port.
    pub admin: Option<SocketAddr>,
    /// For the other sidecars of the pool. If set, this one leaves the pool to the one that serves it, and stands by. Port 0 is a free
    /// port.
    pub peer: Option<SocketAddr>,
    /// Where the others reach it, if not at `peer` itself. Never a unix socket.
    pub advertise: Option<NodeAddress>,
}

impl Listen {
    /// The user that clients `AUTH` as, if there is a password.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(DEFAULT_USER)
    }
}

/// `[pool]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Shown to operators, and kept with the pool: nodes of a pool of another name are refused.
    pub name: String,
    /// R: copies of each partition.
    pub replicas: usize,
    /// W: copies that must have a write before it is acknowledged. `1 <= W <= R`; default: the majority of R.
    #[serde(default)]
    pub write_quorum: usize,
    /// With fewer copies in sync, writes are refused. `W <= min_in_sync <= R`; default: W.
    #[serde(default)]
    pub min_in_sync: usize,
    /// P: slices of the key space. Fixed when the pool is created.
    pub partitions: u16,
    /// Who keeps the table.
    pub coordinator: Coordinator,
    /// What is known of the driver's keys and scripts: one of [`crate::profile::builtin_names`], or of `profiles`. Fixed when the
    /// pool is made.
    pub profile: String,
    /// Entries of a segment of a queue that the profile spreads over nodes. 0: the profile's.
    pub segment_len: u64,
    /// The nodes' logical database for our own account of what they hold. Never 0.
    pub bookkeeping_db: u16,
    /// What a read promises.
    pub reads: Reads,
    /// Which nodes serve reads.
    pub read_from: ReadFrom,
}

/// `pool.coordinator`: who keeps the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coordinator {
    /// The nodes themselves, for one active sidecar.
    #[default]
    Pool,
}

/// `pool.reads`: what a read promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// A reply is released only when it is sure that no other sidecar has taken over meanwhile.
    #[default]
    Linearizable,
    /// Without that: a sidecar that was cut off may, until it notices, answer from the past.
    Fast,
}

/// `pool.read_from`: which nodes serve reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadFrom {
    /// Every node that is in sync, in turn.
    #[default]
    Any,
    /// The partition's primary.
    Primary,
}

/// `[limits]`. None of them is 0, except where 0 means none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of clients.
    pub clients_max: usize,
    /// One whole command of a client.
    pub command_max: ByteSize,
    /// Commands of one client that are not answered yet. Past it, its bytes are left unread.
    pub client_pending_max: usize,
    /// Replies that a client does not read. Past it, it is disconnected.
    pub client_output_max: ByteSize,
    /// Commands kept for nodes that fall behind. A node that needs older ones is copied afresh.
    pub backlog: ByteSize,
    /// Bytes a second that are copied from node to node when partitions move, or nodes come back without their data. 0 is no limit.
    pub copy_rate: ByteSize,
    /// Commands in one batch to a node.
    pub batch_commands_max: usize,
    /// Bytes in one batch to a node. A larger command goes alone.
    pub batch_bytes_max: ByteSize,
    /// A command that takes longer is kept in the slow log.
    #[serde(with = "humantime_serde")]
    pub slowlog_slower_than: Duration,
    /// Commands in the slow log. 0 is none.
    pub slowlog_max_len: usize,
}

/// `[timeouts]`. None of them is 0, except where 0 means never.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For connecting to a node and logging in.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// A node that answers nothing for so long is out.
    #[serde(with = "humantime_serde")]
    pub node: Duration,
    /// A write that has no quorum for so long has an unknown outcome: its client is disconnected.
    #[serde(with = "humantime_serde")]
    pub write: Duration,
    /// A node that is away for so long is replaced: others are given what it held. 0 is never.
    #[serde(with = "humantime_serde")]
    pub replace_after: Duration,
    /// A client that sends nothing for so long is disconnected. 0 is never.
    #[serde(with = "humantime_serde")]
    pub client_idle: Duration,
    /// A sidecar that has asked most of the nodes nothing for so long has gone, to those that stand by.
    #[serde(with = "humantime_serde")]
    pub takeover: Duration,
}

/// One of `[[nodes]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique. It decides the node's place on the ring and is what the table says: renamed, it is another node.
    pub name: String,
    /// Unique.
    pub address: NodeAddress,
    /// Copies are held in proportion to it: 1 to 1000.
    #[serde(default = "one")]
    pub weight: u32,
    /// What fails together. A node without one is a zone of its own.
    #[serde(default)]
    pub zone: Option<String>,
    /// The account that may make our own ACL user. None is `default`: see [`Node::user`].
    #[serde(default)]
    pub user: Option<String>,
    /// That account's password, if it has one.
    #[serde(default)]
    pub password: Option<Secret>,
}

impl Node {
    /// A node of weight 1 without zone and password.
    pub fn new(name: impl Into<String>, address: NodeAddress) -> Self {
        Node {
            name: name.into(),
            address,
            weight: 1,
            zone: None,
            user: None,
            password: None,
        }
    }

    /// The account that may make our own ACL user.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(DEFAULT_USER)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            name: "main".to_owned(),
            replicas: 3,
            write_quorum: majority(3),
            min_in_sync: majority(3),
            partitions: 256,
            coordinator: Coordinator::default(),
            profile: profile::default_name(),
            segment_len: 0,
            bookkeeping_db: 15,
            reads: Reads::default(),
            read_from: ReadFrom::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            clients_max: 20_000,
            command_max: ByteSize::mib(64),
            client_pending_max: 1024,
            client_output_max: ByteSize::mib(64),
            backlog: ByteSize::mib(64),
            copy_rate: ByteSize::mib(64),
            batch_commands_max: 1024,
            batch_bytes_max: ByteSize::mib(1),
            slowlog_slower_than: Duration::from_millis(10),
            slowlog_max_len: 128,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            node: Duration::from_secs(1),
            write: Duration::from_secs(5),
            replace_after: Duration::from_secs(600),
            client_idle: Duration::ZERO,
            takeover: Duration::from_secs(3),
        }
    }
}

impl Config {
    /// What is known of the driver.
    pub fn profile(&self) -> Profile {
        let name = &self.pool.profile;
        let own = self.profiles.get(name).cloned();
        let profile = own.or_else(|| profile::named(name)).unwrap_or_default();
        Profile {
            name: name.clone(),
            segment_len: match self.pool.segment_len {
                0 => profile.segment_len,
                len => len,
            },
            ..profile
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every mistake in it, in the order of their lines; or the one reason why it could not be read.
    pub fn load(path: &Path) -> Result<Config, Vec<Mistake>> {
        let file = path.display().to_string();
        match read(path) {
            Ok(text) => parse_named(&text, &file),
            Err(message) => Err(vec![Mistake {
                file,
                line: None,
                setting: String::new(),
                message,
            }]),
        }
    }

    /// The same with another profile than the file's, if there is one.
    ///
    /// # Errors
    /// As [`Config::load`]; or that there is no such profile.
    pub fn load_with(path: &Path, profile: Option<&str>) -> Result<Config, Vec<Mistake>> {
        let mut config = Self::load(path)?;
        if let Some(name) = profile {
            if profile::builtin(name).is_none() && !config.profiles.contains_key(name) {
                return Err(vec![Mistake {
                    file: path.display().to_string(),
                    line: None,
                    setting: "--profile".to_owned(),
                    message: profiles::unknown(name),
                }]);
            }
            name.clone_into(&mut config.pool.profile);
        }
        Ok(config)
    }

    /// Checks the text of a file; mistakes call it `proxy.toml`.
    ///
    /// # Errors
    /// Every mistake in it, in the order of their lines.
    pub fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
        parse_named(text, FILE_NAME)
    }
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("is larger than 1 MiB: this is not a configuration file".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text: save it as UTF-8".to_owned())
}

fn parse_named(text: &str, file: &str) -> Result<Config, Vec<Mistake>> {
    let mistakes = check::mistakes(text, file);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut config: Config = toml::from_str(text).map_err(|error| {
        // What the check lets pass, serde reads: this is for the day when they disagree. Serde's own message is left
        // out, since it may repeat a password.
        vec![Mistake {
            file: file.to_owned(),
            line: error.span().map(|span| check::line_of(text, span.start)),
            setting: String::new(),
            message: "this is not understood: compare it with the commented proxy.toml".to_owned(),
        }]
    })?;
    let pool = &mut config.pool;
    // 0 is what serde leaves where nothing is written; the check has refused a written one.
    if pool.write_quorum == 0 {
        pool.write_quorum = majority(pool.replicas);
    }
    if pool.min_in_sync == 0 {
        pool.min_in_sync = pool.write_quorum;
    }
    Ok(config)
}

/// The smallest number of `replicas` that is more than half of them.
const fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

fn one<T: From<u8>>() -> T {
    T::from(1)
}

#[cfg(test)]
mod sample_test;
