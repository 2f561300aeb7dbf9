//! What is known about one command: the words the rest of the program uses to speak of it.
//!
//! A [`Command`] says which arguments are keys, where the command may go ([`Class`]), how replies of several nodes
//! to it are compared ([`Compare`]) and how its RESP3 reply becomes the RESP2 one ([`Downgrade`]). All of it is data:
//! arity, flags and key specs come from the nodes, the rest from `annotations.rs`. Nothing here looks at a connection
//! or at a placement; what a class *means* is the router's.

use smallvec::SmallVec;

use super::rewrite::RewriteRule;
pub use super::special::Special;

bitflags::bitflags! {
    /// The flags of `COMMAND`, as far as anything here depends on them. Others are dropped when read.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// May change data.
        const WRITE = 1;
        /// Never changes data.
        const READONLY = 1 << 1;
        /// Refused by a node that is out of memory.
        const DENYOOM = 1 << 2;
        /// Operates the server.
        const ADMIN = 1 << 3;
        /// Publish or subscribe.
        const PUBSUB = 1 << 4;
        /// Not allowed in scripts.
        const NOSCRIPT = 1 << 5;
        /// May block its connection.
        const BLOCKING = 1 << 6;
        /// Where its keys are depends on its arguments.
        const MOVABLEKEYS = 1 << 7;
        /// Not allowed between `MULTI` and `EXEC`.
        const NO_MULTI = 1 << 8;
        /// Allowed before `AUTH`.
        const NO_AUTH = 1 << 9;
        /// Takes constant or logarithmic time.
        const FAST = 1 << 10;
        /// May have a key spec and yet no key (`EVAL … 0`).
        const NO_MANDATORY_KEYS = 1 << 11;
        /// Allowed while a script is over its time.
        const ALLOW_BUSY = 1 << 12;
        /// Allowed while the node loads its data.
        const LOADING = 1 << 13;
        /// Allowed on a replica with old data.
        const STALE = 1 << 14;
        /// Not shown by `MONITOR`.
        const SKIP_MONITOR = 1 << 15;
        /// Not kept in the slow log.
        const SKIP_SLOWLOG = 1 << 16;
        /// For cluster slots that are being imported.
        const ASKING = 1 << 17;
        /// Not allowed while the node loads its data in the background.
        const NO_ASYNC_LOADING = 1 << 18;
    }
}

/// Every flag with its name in `COMMAND`.
pub(super) const FLAG_NAMES: &[(&str, Flags)] = &[
    ("write", Flags::WRITE),
    ("readonly", Flags::READONLY),
    ("denyoom", Flags::DENYOOM),
    ("admin", Flags::ADMIN),
    ("pubsub", Flags::PUBSUB),
    ("noscript", Flags::NOSCRIPT),
    ("blocking", Flags::BLOCKING),
    ("movablekeys", Flags::MOVABLEKEYS),
    ("no_multi", Flags::NO_MULTI),
    ("no_auth", Flags::NO_AUTH),
    ("fast", Flags::FAST),
    ("no_mandatory_keys", Flags::NO_MANDATORY_KEYS),
    ("allow_busy", Flags::ALLOW_BUSY),
    ("loading", Flags::LOADING),
    ("stale", Flags::STALE),
    ("skip_monitor", Flags::SKIP_MONITOR),
    ("skip_slowlog", Flags::SKIP_SLOWLOG),
    ("asking", Flags::ASKING),
    ("no_async_loading", Flags::NO_ASYNC_LOADING),
];

bitflags::bitflags! {
    /// What a command does with the keys of one key spec.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct KeyFlags: u16 {
        /// Changes the value, and looks at it.
        const RW = 1;
        /// Only looks at it.
        const RO = 1 << 1;
        /// Overwrites it.
        const OW = 1 << 2;
        /// Removes it.
        const RM = 1 << 3;
        /// Not a key at all: a channel.
        const NOT_KEY = 1 << 4;
        /// The spec does not find all keys.
        const INCOMPLETE = 1 << 5;
        /// What is done depends on the arguments.
        const VARIABLE = 1 << 6;
    }
}

/// Every key flag that matters here with its name in `COMMAND`. The 7.0 names `access`, `insert`, `delete` and
/// `update` say what is done to the *data*; they are dropped.
pub(super) const KEY_FLAG_NAMES: &[(&str, KeyFlags)] = &[
    ("RW", KeyFlags::RW),
    ("RO", KeyFlags::RO),
    ("OW", KeyFlags::OW),
    ("RM", KeyFlags::RM),
    ("not_key", KeyFlags::NOT_KEY),
    ("incomplete", KeyFlags::INCOMPLETE),
    ("variable_flags", KeyFlags::VARIABLE),
];

/// Where a key spec starts to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// Behind the first argument that is this word, from `from` on; a negative `from` counts from the end and
    /// searches backwards.
    Keyword {
        /// The word, in capitals; compared without case.
        word: Box<str>,
        /// The first argument looked at.
        from: i32,
    },
    /// Redis cannot say.
    Unknown,
}

/// Which arguments are keys, from where [`Begin`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// From the beginning to `last`, every `step`-th.
    Range {
        /// Last key: relative to the first, or from the end of the arguments if negative.
        last: i32,
        /// Distance between two keys.
        step: usize,
        /// With `last` = -1: only the first `1/limit` of the arguments; 0 and 1 are all.
        limit: usize,
    },
    /// An argument says how many.
    KeyNum {
        /// Where the number is, from the beginning.
        number: usize,
        /// Where the first key is, from the beginning.
        first: usize,
        /// Distance between two keys.
        step: usize,
    },
    /// Redis cannot say.
    Unknown,
}

/// One rule for where keys are among the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Where to start.
    pub begin: Begin,
    /// What to take.
    pub find: Find,
    /// What is done with those keys.
    pub flags: KeyFlags,
}

/// Where a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// About the connection or the proxy: answered here.
    Local,
    /// `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`: part of a transaction.
    Transaction,
    /// Its keys belong to one partition, and it does not change them: any in-sync node.
    Read,
    /// Its keys belong to one partition, and it changes them, or may: all nodes, in order.
    Write,
    /// Each key may belong to a partition of its own. Whether it writes is in its flags.
    Split(Split),
    /// About the whole pool.
    Pool(Pool),
    /// Waits for data; changes or reads it when there is some.
    Blocking(Timeout),
    /// Publish or subscribe.
    PubSub,
    /// Operates a server, so it is answered with this error line.
    Refused(&'static str),
    /// Could be served, and is not: answered with this error line.
    NotYet(&'static str),
}

/// How a command over several partitions falls into one command a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Arguments that belong to one key, itself included: 2 for `MSET`.
    pub step: usize,
    /// How the replies become one.
    pub merge: Merge,
}

/// How the replies of a split command become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// One element a key, in the order of the keys.
    Concat,
    /// The sum of integers.
    Sum,
    /// 1 if the sum of integers is not 0.
    Any,
    /// `OK`.
    Ok,
}

/// What the whole pool is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Something any node answers alike.
    AnyNode,
    /// Something about scripts or functions, which are on every node and kept with the pool.
    Scripts,
    /// Stopping the script that runs now, on whatever node that is.
    KillScript,
    /// One step of a walk over all keys.
    Scan,
    /// All keys of a pattern.
    Keys,
    /// The number of keys.
    Dbsize,
    /// One key, whichever.
    RandomKey,
    /// Removing all keys.
    Flush,
    /// The clients of all threads.
    Clients,
}

/// Where the timeout of a blocking command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Its last argument, in seconds: `BLPOP`.
    Last,
    /// Its first argument, in seconds: `BLMPOP`.
    First,
    /// Behind the word `BLOCK`, in milliseconds; without it the command does not block: `XREAD`.
    Option,
}

/// How the replies of two nodes to the same command are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// They are the same.
    Exact,
    /// They have the same elements (a map: the same pairs), in whatever order.
    Unordered,
    /// They are of the same type, and as long where they are arrays.
    Shape,
    /// They say nothing about the data.
    Skip,
    /// They are the same; the command was only sent to see whether they are, and whoever sent it is told where they are not.
    Check,
}

/// How a RESP3 reply becomes what Redis would have answered under RESP2, where converting types one by one (map and
/// set to array, double to bulk string, `_` to `$-1`, …) is not enough. Each of the others does that too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downgrade {
    /// It is in the client's protocol already.
    AsIs,
    /// Converting the types is enough.
    Generic,
    /// Arrays in the outermost array are spliced into it: `[[a, 1], [b, 2]]` becomes `[a, 1, b, 2]`. An array without
    /// arrays stays as it is, so that this holds with and without `WITHSCORES`.
    FlattenPairs,
    /// The outermost map becomes an array of `[key, value]`, and every null, however deep, is `*-1`: the stream
    /// without news, and the pending entry that has been deleted.
    MapToPairs,
    /// An outermost null is `*-1`.
    NullArray,
    /// A null right in the outermost array is `*-1`: `GEOPOS`.
    NullArrayItems,
    /// A null at the end of the outermost array is `*-1`, its other nulls are `$-1`: `XPENDING k g` with nothing pending.
    NullArrayLast,
}

/// Replies converted by a [`Downgrade`] if the command has enough arguments, else generically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DowngradeRule {
    /// The conversion.
    pub downgrade: Downgrade,
    /// Fewest arguments, the name included, with which it applies: `LPOP k` answers `$-1`, `LPOP k 2` answers `*-1`.
    pub args_min: usize,
}

/// A command as the proxy knows it.
#[derive(Clone, Debug)]
pub struct Command {
    /// Full name in lower case: `lpush`, `xgroup|create`.
    pub name: Box<str>,
    /// Its place in the table, by which it is counted.
    pub index: u16,
    /// Which of the commands it is that are handled by name.
    pub special: Special,
    /// What has to be done about it so that it does the same on every node; `None` for most.
    pub rewrite: Option<RewriteRule>,
    /// Number of arguments, the name (and the subcommand) included; at least `-arity` if negative.
    pub arity: i32,
    /// What `COMMAND` says of it.
    pub flags: Flags,
    /// Where it goes; use [`Command::class`], which looks at the arguments too.
    pub(super) class: Class,
    /// For a command that goes elsewhere when none of these words is among its arguments.
    pub(super) unless: Option<(&'static [&'static str], Class)>,
    /// How replies of several nodes are compared.
    pub compare: Compare,
    /// How its replies are converted; use [`Command::downgrade`].
    pub(super) downgrade: DowngradeRule,
    /// Where its keys are; use [`Command::keys`].
    pub(super) key_specs: SmallVec<[KeySpec; 1]>,
    /// The position of its one key, 0 if it has not exactly one at a fixed place.
    pub(super) key_fixed: u32,
}

impl Command {
    /// Whether the command may change data, as far as its flags and its class say (`EVAL` has no flag of either kind).
    pub fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE) || matches!(self.class, Class::Write)
    }

    /// How its RESP3 reply becomes a RESP2 reply, given how many arguments it had, the name included.
    pub fn downgrade(&self, args_len: usize) -> Downgrade {
        if args_len < self.downgrade.args_min {
            Downgrade::Generic
        } else {
            self.downgrade.downgrade
        }
    }

    /// Whether it operates a server, so that no client may use it.
    pub fn is_refused(&self) -> bool {
        matches!(self.class, Class::Refused(_))
    }

    /// Whether `args_len` arguments, the name included, are neither too few nor too many.
    pub fn takes(&self, args_len: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 {
            args_len >= wanted
        } else {
            args_len == wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arity: i32, downgrade: DowngradeRule) -> Command {
        Command {
            name: "x".into(),
            index: 0,
            special: Special::None,
            rewrite: None,
            arity,
            flags: Flags::empty(),
            class: Class::Read,
            unless: None,
            compare: Compare::Exact,
            downgrade,
            key_specs: SmallVec::new(),
            key_fixed: 0,
        }
    }

    #[test]
    fn arity_is_exact_or_a_minimum() {
        let rule = DowngradeRule {
            downgrade: Downgrade::Generic,
            args_min: 0,
        };
        let exact = command(3, rule);
        assert!(!exact.takes(2) && exact.takes(3) && !exact.takes(4));
        let minimum = command(-3, rule);
        assert!(!minimum.takes(2) && minimum.takes(3) && minimum.takes(4));
    }

    #[test]
    fn a_downgrade_may_need_arguments() {
        let pop = command(
            -2,
            DowngradeRule {
                downgrade: Downgrade::NullArray,
                args_min: 3,
            },
        );
        assert_eq!(pop.downgrade(2), Downgrade::Generic);
        assert_eq!(pop.downgrade(3), Downgrade::NullArray);
    }
}
