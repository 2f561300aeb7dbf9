//! Every setting there is, and what its value may be: commands as data, for the configuration.
//!
//! The check walks a file beside this table, and the tests hold the structs in `mod.rs` and the commented `proxy.toml`
//! against it, so that a setting cannot exist in one of the three alone.

use crate::{limits, profile};
use std::time::Duration;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Section and key. Those of a node begin with `nodes.`, whichever node it is.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

/// What a value must be. All bounds are inclusive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A whole number.
    Number { min: u64, max: u64 },
    /// A number of bytes, plain or as text with a unit.
    Size { min: u64, max: u64 },
    /// Text with a unit. With a `min` of zero, zero means never.
    Time { min: Duration, max: Duration },
    /// An IP address and a port; port 0 lets the system choose.
    Listen,
    /// The path of a unix socket.
    UnixPath,
    /// See [`NodeAddress`](super::NodeAddress).
    Node,
    /// Something that is shown in tables, metrics and logs: letters, digits, `-`, `_`, `.`.
    Name,
    /// A user name.
    User,
    /// A password. Its value is never repeated.
    Password,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// Longest name of a pool, node, zone or user, in bytes. Names go into tables on the nodes, metrics and logs.
pub(super) const NAME_BYTES_MAX: usize = 64;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

const COPIES: Kind = Kind::Number {
    min: 1,
    max: limits::REPLICAS_MAX as u64,
};
const DEADLINE: Kind = Kind::Time {
    min: MILLISECOND,
    max: HOUR,
};

/// Every setting, in the order of `proxy.toml`.
pub(super) const SETTINGS: &[Setting] = &[
    // Each thread has a stream to each node, and no host has more cores to give to a sidecar.
    setting("threads", Kind::Number { min: 1, max: 64 }),
    setting("listen.tcp", Kind::Listen),
    setting("listen.unix", Kind::UnixPath),
    setting("listen.user", Kind::User),
    setting("listen.password", Kind::Password),
    setting("listen.admin", Kind::Listen),
    setting("listen.peer", Kind::Listen),
    setting("listen.advertise", Kind::Node),
    setting("pool.name", Kind::Name),
    setting("pool.replicas", COPIES),
    setting("pool.write_quorum", COPIES),
    setting("pool.min_in_sync", COPIES),
    setting(
        "pool.partitions",
        Kind::Number {
            min: 1,
            max: limits::PARTITIONS_MAX as u64,
        },
    ),
    setting("pool.coordinator", Kind::Word(&["pool"])),
    setting("pool.profile", Kind::Name),
    // Counted in 24 bits of a marker.
    setting(
        "pool.segment_len",
        Kind::Number {
            min: 0,
            max: profile::SEGMENT_LEN_MAX,
        },
    ),
    // 0 is the applications' own. The nodes' `databases` has the last word.
    setting("pool.bookkeeping_db", Kind::Number { min: 1, max: 4095 }),
    setting("pool.reads", Kind::Word(&["linearizable", "fast"])),
    setting("pool.read_from", Kind::Word(&["any", "primary"])),
    setting(
        "limits.clients_max",
        Kind::Number {
            min: 1,
            max: 1_000_000,
        },
    ),
    // Redis itself closes a connection whose query buffer passes 1 GiB.
    setting("limits.command_max", Kind::Size { min: KIB, max: GIB }),
    setting(
        "limits.client_pending_max",
        Kind::Number {
            min: 1,
            max: 1_000_000,
        },
    ),
    setting(
        "limits.client_output_max",
        Kind::Size {
            min: KIB,
            max: 64 * GIB,
        },
    ),
    setting(
        "limits.backlog",
        Kind::Size {
            min: KIB,
            max: 1024 * GIB,
        },
    ),
    setting(
        "limits.copy_rate",
        Kind::Size {
            min: 0,
            max: 1024 * GIB,
        },
    ),
    setting("limits.batch_commands_max", Kind::Number { min: 1, max: 65_536 }),
    setting("limits.batch_bytes_max", Kind::Size { min: KIB, max: GIB }),
    setting(
        "limits.slowlog_slower_than",
        Kind::Time {
            min: Duration::from_micros(1),
            max: HOUR,
        },
    ),
    setting(
        "limits.slowlog_max_len",
        Kind::Number {
            min: 0,
            max: 1_000_000,
        },
    ),
    setting("timeouts.connect", DEADLINE),
    setting("timeouts.node", DEADLINE),
    setting("timeouts.write", DEADLINE),
    setting(
        "timeouts.replace_after",
        Kind::Time {
            min: Duration::ZERO,
            max: YEAR,
        },
    ),
    setting(
        "timeouts.client_idle",
        Kind::Time {
            min: Duration::ZERO,
            max: YEAR,
        },
    ),
    // Nodes tell it in whole seconds, and are asked something once a second.
    setting(
        "timeouts.takeover",
        Kind::Time {
            min: Duration::from_secs(2),
            max: HOUR,
        },
    ),
    setting("nodes.name", Kind::Name),
    setting("nodes.address", Kind::Node),
    // The ring's integer arithmetic is made for this range.
    setting("nodes.weight", Kind::Number { min: 1, max: 1000 }),
    setting("nodes.zone", Kind::Name),
    setting("nodes.user", Kind::User),
    setting("nodes.password", Kind::Password),
];

const fn setting(path: &'static str, kind: Kind) -> Setting {
    Setting { path, kind }
}

/// The setting of that path, if there is one.
pub(super) fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// The keys of a section; the top level is the section `""`.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(move |setting| {
        let (own, key) = split(setting.path);
        (own == section).then_some(key)
    })
}

/// The sections, in order (some more than once).
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    SETTINGS
        .iter()
        .map(|setting| split(setting.path).0)
        .filter(|section| !section.is_empty())
}

/// A path's section and key.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or(("", path))
}
