//! Where a command goes: the key decides the partition, the partition decides the owner.
//!
//! Pure: a command and its arguments in, a [`Route`] out. It knows no node and no table, because nothing a client sends
//! needs them: a key's partition never changes.

use crate::command::Special;
use crate::command::sort_reads_other_keys;
use crate::command::spec::{Class, Command, Flags, Merge, Pool, Split, Timeout};
use crate::request::PartitionId;
use crate::resp::{Args, encode};
use crate::ring::Keyspace;

/// Where a command goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Answered here.
    Local,
    /// Opens, fills or ends a transaction.
    Transaction,
    /// To one partition.
    One {
        /// Which.
        partition: PartitionId,
        /// Whether all nodes must execute it.
        write: bool,
    },
    /// To several partitions, a command each.
    Several {
        /// How the replies become one.
        merge: Merge,
        /// Whether they are writes.
        write: bool,
        /// For each partition the positions of its keys.
        parts: Vec<(PartitionId, Vec<u32>)>,
        /// Arguments that belong to one key.
        step: usize,
    },
    /// To several partitions, in several steps.
    Across,
    /// To where its keys are, to wait there for data.
    Blocking(Timeout),
    /// To subscribers, or about them.
    PubSub,
    /// To the whole pool.
    Pool(Pool),
    /// Nowhere: this error line is the answer.
    Refused(bytes::Bytes),
    /// Nowhere: Redis itself would find fault with the arguments when it executes the command, in these words.
    Invalid(bytes::Bytes),
}

/// Why a command cannot be executed on keys of several partitions.
pub const CROSSSLOT: &str = "CROSSSLOT Keys in request don't belong to the same partition. Give keys that are used together \
                         the same hash tag, as in {user1}.a and {user1}.b";

/// Up to so many keys, looking for a partition among those before is cheaper than an index of all.
const SEARCHED_KEYS_MAX: usize = 32;

const KEYS: &str =
    "ERR the nodes describe this command's keys in a way that cannot be, so it cannot be routed";

const SORT_PATTERNS: &str = "ERR SORT with a BY or GET pattern reads keys that may be in other partitions, and is not \
                             available yet; sort in the client";

/// Finds the route of a command whose arity has been checked.
pub fn route(command: &Command, args: &Args<'_>, keyspace: &Keyspace) -> Route {
    match command.class(args) {
        Class::Local => Route::Local,
        Class::Transaction => Route::Transaction,
        Class::Read => by_keys(command, args, keyspace, false),
        Class::Write => by_keys(command, args, keyspace, true),
        Class::Split(split) => several(command, args, keyspace, split),
        Class::Pool(pool) => Route::Pool(pool),
        Class::Blocking(timeout) => Route::Blocking(timeout),
        Class::PubSub => Route::PubSub,
        Class::Refused(line) | Class::NotYet(line) => Route::Refused(encode::error(line)),
    }
}

/// The same in a transaction, where nothing waits.
pub fn route_at_once(command: &Command, args: &Args<'_>, keyspace: &Keyspace) -> Route {
    match command.class(args) {
        Class::Blocking(_) => by_keys(command, args, keyspace, command.special != Special::Xread),
        _ => route(command, args, keyspace),
    }
}

fn by_keys(command: &Command, args: &Args<'_>, keyspace: &Keyspace, write: bool) -> Route {
    if matches!(command.special, Special::Sort | Special::SortRo) && sort_reads_other_keys(args) {
        return Route::Refused(encode::error(SORT_PATTERNS));
    }
    if let Some(key) = command.first_key() {
        return Route::One {
            partition: keyspace.partition_of(args.arg(key)),
            write,
        };
    }
    let keys = match command.keys(args) {
        Ok(keys) => keys,
        Err(error) => return Route::Invalid(error.to_bytes()),
    };
    let mut all = keys
        .iter()
        .map(|&key| keyspace.partition_of(args.arg(key as usize)));
    // Without a key (a script that only computes) any partition will do, but always the same one.
    let partition = all.next().unwrap_or_else(|| keyspace.partition_of(args.arg(1)));
    if all.any(|other| other != partition) {
        return Route::Across;
    }
    Route::One { partition, write }
}

fn several(command: &Command, args: &Args<'_>, keyspace: &Keyspace, split: Split) -> Route {
    let write = command.flags.contains(Flags::WRITE);
    let keys = match command.keys(args) {
        Ok(keys) => keys,
        Err(error) => return Route::Invalid(error.to_bytes()),
    };
    if split.step > 1 && !(args.len() - 1).is_multiple_of(split.step) {
        let line = format!("ERR wrong number of arguments for '{}' command", command.name);
        return Route::Invalid(encode::error(&line));
    }
    let mut parts: Vec<(PartitionId, Vec<u32>)> = Vec::new();
    // The place of each partition in `parts`: few are looked for there, for many there is an index.
    let mut index: Vec<Option<u16>> = match keys.len() > SEARCHED_KEYS_MAX {
        true => vec![None; usize::from(keyspace.partitions)],
        false => Vec::new(),
    };
    for &key in &keys {
        let partition = keyspace.partition_of(args.arg(key as usize));
        let place = match index.get(usize::from(partition)) {
            Some(place) => place.map(usize::from),
            None => parts.iter().position(|(p, _)| *p == partition),
        };
        let place = place.unwrap_or_else(|| {
            parts.push((partition, Vec::new()));
            let place = parts.len() - 1;
            if let Some(known) = index.get_mut(usize::from(partition)) {
                *known = Some(place as u16);
            }
            place
        });
        if let Some((_, positions)) = parts.get_mut(place) {
            positions.push(key);
        }
    }
    if keys
        .iter()
        .any(|&key| key == 0 || key as usize + split.step > args.len())
    {
        return Route::Refused(encode::error(KEYS));
    }
    match parts.as_slice() {
        [] => Route::Refused(encode::error(KEYS)),
        [(partition, _)] => Route::One {
            partition: *partition,
            write,
        },
        _ => Route::Several {
            merge: split.merge,
            write,
            parts,
            step: split.step,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;
    use crate::resp::{CommandScanner, Scanned};
    use crate::ring::partition_of;

    fn of(line: &str) -> Route {
        let table = CommandTable::builtin();
        let line = format!("{line}\r\n");
        let Ok(Scanned::Inline { frame, spans, .. }) = CommandScanner::new(1 << 20).scan(line.as_bytes())
        else {
            panic!("{line}")
        };
        let args = Args {
            bytes: &frame,
            spans: &spans,
        };
        route(table.lookup(&args).unwrap(), &args, &Keyspace::plain(256))
    }

    #[test]
    fn a_key_decides() {
        let Route::One {
            partition,
            write: true,
        } = of("LPUSH {q}.a x")
        else {
            panic!()
        };
        assert_eq!(
            of("LRANGE {q}.b 0 -1"),
            Route::One {
                partition,
                write: false
            }
        );
        assert!(matches!(of("EVAL return x {q}.x"), Route::Invalid(_)));
        assert_eq!(
            of("RENAME {q}.a {q}.b"),
            Route::One {
                partition,
                write: true
            }
        );
        assert_eq!(of("RENAME a b"), Route::Across);
        assert_eq!(of("EVAL x 2 a b"), Route::Across);
    }

    #[test]
    fn many_keys_are_split_and_few_are_not() {
        let Route::Several {
            parts, write: false, ..
        } = of("MGET a b c d e f")
        else {
            panic!()
        };
        let mut keys: Vec<u32> = parts.iter().flat_map(|(_, keys)| keys.clone()).collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 2, 3, 4, 5, 6]);
        // The same whether there is an index or not.
        for count in [SEARCHED_KEYS_MAX, SEARCHED_KEYS_MAX + 1, 5000] {
            let line: String = (1..=count).map(|key| format!(" k{key}")).collect();
            let Route::Several { parts, .. } = of(&format!("MGET{line}")) else {
                panic!()
            };
            let mut found: Vec<u32> = Vec::new();
            for (partition, keys) in &parts {
                assert!(keys.is_sorted());
                let same = |key: &u32| partition_of(format!("k{key}").as_bytes(), 256) == *partition;
                assert!(keys.iter().all(same));
                found.extend(keys);
            }
            found.sort_unstable();
            assert!(found.iter().copied().eq(1..=count as u32));
            let mut partitions: Vec<PartitionId> = parts.iter().map(|(partition, _)| *partition).collect();
            partitions.sort_unstable();
            partitions.dedup();
            assert_eq!(partitions.len(), parts.len(), "each once");
        }
        assert!(matches!(of("MGET {t}a {t}b"), Route::One { write: false, .. }));
        assert!(matches!(of("MSET {t}a 1 {t}b"), Route::Invalid(_)));
        assert!(matches!(
            of("DEL a b c"),
            Route::Several {
                write: true,
                merge: Merge::Sum,
                ..
            }
        ));
    }
}
