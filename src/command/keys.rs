//! Which arguments of a command are keys.
//!
//! Redis describes this with key specs; they are followed here as Redis follows them. Four commands are not described
//! well enough, and have a rule of their own, taken from how Redis parses their options: `SORT` (the *last* `STORE`
//! counts), `GEORADIUS` (likewise), `XREAD` (a consumer may be called `STREAMS`) and `MIGRATE`. A key that is missed
//! would be written on one partition's nodes only to be looked for on another's, so where Redis would refuse a
//! command over its key arguments it is refused here, in Redis's words.

use smallvec::{SmallVec, smallvec};

use super::error::ErrorReply;
use super::number::integer;
use super::spec::{Begin, Class, Command, Find, KeyFlags, KeySpec, Special, Timeout};
use crate::resp::Args;

/// Positions of keys among a command's arguments; the name is at 0.
pub type KeyPositions = SmallVec<[u32; 4]>;

const SYNTAX: ErrorReply = ErrorReply::fixed("ERR syntax error");
const NOT_AN_INTEGER: ErrorReply = ErrorReply::fixed("ERR value is not an integer or out of range");
const UNBALANCED: ErrorReply = ErrorReply::fixed(
    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
);
const UNKNOWN_KEYS: ErrorReply = ErrorReply::fixed(
    "ERR the keys of this command cannot be told from its arguments, so it cannot be routed",
);

/// Whether the keys of a command are found by a rule of ours, whatever the nodes say of them.
pub(super) fn ignores_specs(special: Special) -> bool {
    use Special::*;
    matches!(
        special,
        Sort | SortRo | Georadius | Georadiusbymember | Migrate | Xread | Xreadgroup
    )
}

impl Command {
    /// The position of its key, for a command that has exactly one and always at the same place.
    pub fn first_key(&self) -> Option<usize> {
        (self.key_fixed != 0).then_some(self.key_fixed as usize)
    }

    /// The positions of all its keys, in the order of `COMMAND GETKEYS`. Empty for a command without keys.
    ///
    /// # Errors
    /// What Redis answers to arguments like these, if it would not get as far as looking at a key.
    pub fn keys(&self, args: &Args<'_>) -> Result<KeyPositions, ErrorReply> {
        if self.key_fixed != 0 {
            return Ok(smallvec![self.key_fixed]);
        }
        let mut keys = KeyPositions::new();
        self.each_key(args, &mut |position, _| keys.push(position))?;
        Ok(keys)
    }

    /// The positions of the keys that it may change; the sources of a `…STORE` are left out.
    ///
    /// # Errors
    /// As [`Command::keys`].
    pub fn keys_written(&self, args: &Args<'_>) -> Result<KeyPositions, ErrorReply> {
        let mut keys = KeyPositions::new();
        self.each_key(args, &mut |position, flags| {
            if flags.is_empty() || flags.intersects(KeyFlags::RW | KeyFlags::OW | KeyFlags::RM) {
                keys.push(position);
            }
        })?;
        Ok(keys)
    }

    /// Where this command goes with these arguments: `XREAD` only blocks if it says `BLOCK`, `SORT` only writes if it says
    /// `STORE`.
    pub fn class(&self, args: &Args<'_>) -> Class {
        let Some((words, otherwise)) = self.unless else {
            return self.class;
        };
        let stays = if matches!(self.class, Class::Blocking(Timeout::Option)) {
            xread_block(args).is_some()
        } else {
            args.iter()
                .skip(2)
                .any(|arg| words.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes())))
        };
        if stays { self.class } else { otherwise }
    }

    /// Tells `found` every key with what is done to it.
    fn each_key(&self, args: &Args<'_>, found: &mut dyn FnMut(u32, KeyFlags)) -> Result<(), ErrorReply> {
        match self.special {
            Special::Sort => sort_keys(args, found),
            Special::SortRo => found(1, KeyFlags::RO),
            Special::Georadius => georadius_keys(args, 6, found),
            Special::Georadiusbymember => georadius_keys(args, 5, found),
            Special::Migrate => migrate_keys(args, found),
            Special::Xread => return xread_keys(args, KeyFlags::RO, found),
            // Reading as a group moves the group's position, which is part of the key's value.
            Special::Xreadgroup => return xread_keys(args, KeyFlags::RW, found),
            Special::Mset | Special::Msetnx if args.len().is_multiple_of(2) => {
                return Err(ErrorReply::wrong_arity(&self.name));
            }
            _ => {
                return self
                    .key_specs
                    .iter()
                    .try_for_each(|spec| self.spec_keys(spec, args, found));
            }
        }
        Ok(())
    }

    fn spec_keys(
        &self,
        spec: &KeySpec,
        args: &Args<'_>,
        found: &mut dyn FnMut(u32, KeyFlags),
    ) -> Result<(), ErrorReply> {
        if spec.flags.contains(KeyFlags::NOT_KEY) {
            return Ok(());
        }
        let begin = match &spec.begin {
            Begin::Index(index) => *index,
            Begin::Keyword { word, from } => match keyword(args, word, *from) {
                Some(at) => at + 1,
                None => return Ok(()),
            },
            Begin::Unknown => return Err(UNKNOWN_KEYS),
        };
        let (first, end, step) = match spec.find {
            Find::Range { last, step, limit } => (begin, range_end(begin, last, limit, args.len()), step),
            Find::KeyNum { number, first, step } => {
                let first = begin + first;
                let count = self.key_count(args, begin + number, first, step)?;
                (first, first + count * step, step)
            }
            Find::Unknown => return Err(UNKNOWN_KEYS),
        };
        // A node that describes its commands so is not to be believed: there stands the name.
        if first == 0 {
            return Err(UNKNOWN_KEYS);
        }
        for position in (first..end.min(args.len())).step_by(step.max(1)) {
            found(position as u32, spec.flags);
        }
        Ok(())
    }

    /// How many keys the argument at `number` announces; that many there are.
    fn key_count(
        &self,
        args: &Args<'_>,
        number: usize,
        first: usize,
        step: usize,
    ) -> Result<usize, ErrorReply> {
        let family = NumberFamily::of(&self.name);
        if family == NumberFamily::Script && self.name.starts_with("evalsha") && args.arg(1).len() != 40 {
            return Err(ErrorReply::fixed("NOSCRIPT No matching script. Please use EVAL."));
        }
        let Some(count) = integer(args.arg(number)) else {
            return Err(family.not_an_integer());
        };
        if count < family.least() {
            return Err(family.too_few(&self.name));
        }
        let room = args.len().saturating_sub(first).div_ceil(step.max(1));
        match usize::try_from(count) {
            Ok(count) if count <= room => Ok(count),
            _ => Err(family.too_many()),
        }
    }
}

/// The commands with a number of keys, by how they complain about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberFamily {
    Script,
    Function,
    SortedSets,
    Pop,
    Intercard,
    Other,
}

impl NumberFamily {
    fn of(name: &str) -> Self {
        match name {
            "eval" | "eval_ro" | "evalsha" | "evalsha_ro" => NumberFamily::Script,
            "fcall" | "fcall_ro" => NumberFamily::Function,
            "lmpop" | "blmpop" | "zmpop" | "bzmpop" => NumberFamily::Pop,
            "sintercard" => NumberFamily::Intercard,
            "zunion" | "zunionstore" | "zinter" | "zinterstore" | "zintercard" | "zdiff" | "zdiffstore" => {
                NumberFamily::SortedSets
            }
            _ => NumberFamily::Other,
        }
    }

    fn least(self) -> i64 {
        match self {
            NumberFamily::Script | NumberFamily::Function | NumberFamily::Other => 0,
            NumberFamily::SortedSets | NumberFamily::Pop | NumberFamily::Intercard => 1,
        }
    }

    fn not_an_integer(self) -> ErrorReply {
        match self {
            NumberFamily::Function => ErrorReply::fixed("ERR Bad number of keys provided"),
            NumberFamily::Pop | NumberFamily::Intercard => self.too_few(""),
            NumberFamily::Script | NumberFamily::SortedSets | NumberFamily::Other => NOT_AN_INTEGER,
        }
    }

    fn too_few(self, name: &str) -> ErrorReply {
        match self {
            NumberFamily::Pop | NumberFamily::Intercard => {
                ErrorReply::fixed("ERR numkeys should be greater than 0")
            }
            NumberFamily::SortedSets => {
                ErrorReply::new(format!("ERR at least 1 input key is needed for '{name}' command"))
            }
            NumberFamily::Script | NumberFamily::Function | NumberFamily::Other => {
                ErrorReply::fixed("ERR Number of keys can't be negative")
            }
        }
    }

    fn too_many(self) -> ErrorReply {
        match self {
            NumberFamily::SortedSets | NumberFamily::Pop => SYNTAX,
            NumberFamily::Script | NumberFamily::Function | NumberFamily::Intercard | NumberFamily::Other => {
                ErrorReply::fixed("ERR Number of keys can't be greater than number of args")
            }
        }
    }
}

/// One past the last position of a range.
fn range_end(begin: usize, last: i32, limit: usize, len: usize) -> usize {
    let back = last.unsigned_abs() as usize;
    if last >= 0 {
        begin + back + 1
    } else if limit > 1 {
        (begin + len.saturating_sub(begin) / limit + 1).saturating_sub(back)
    } else {
        (len + 1).saturating_sub(back)
    }
}

/// Where `word` is, looking from `from` on, or from the end backwards if it is negative. The argument at the far end is
/// not looked at: a keyword has something behind it.
fn keyword(args: &Args<'_>, word: &str, from: i32) -> Option<usize> {
    let is_word = |&i: &usize| args.arg(i).eq_ignore_ascii_case(word.as_bytes());
    let far = from.unsigned_abs() as usize;
    if from > 0 {
        (far..args.len().saturating_sub(1)).find(is_word)
    } else {
        (2..=args.len().checked_sub(far)?).rev().find(is_word)
    }
}

/// `SORT key … [STORE destination]`: options are walked as `SORT` walks them, and the last `STORE` counts.
fn sort_keys(args: &Args<'_>, found: &mut dyn FnMut(u32, KeyFlags)) {
    found(1, KeyFlags::RO);
    let mut store = None;
    sort_options(args, |option, at| {
        if option == SortOption::Store {
            store = Some(at);
        }
    });
    if let Some(at) = store {
        found(at as u32, KeyFlags::OW);
    }
}

/// Whether a `SORT` or `SORT_RO` looks at keys that are not among its arguments: a `BY` or `GET` pattern with a `*`.
pub fn sort_reads_other_keys(args: &Args<'_>) -> bool {
    let mut other = false;
    sort_options(args, |option, at| {
        other |= option == SortOption::Pattern && args.arg(at).contains(&b'*')
    });
    other
}

#[derive(PartialEq, Eq)]
enum SortOption {
    Store,
    Pattern,
}

/// Tells `seen` where the value of each option of a `SORT` is.
fn sort_options(args: &Args<'_>, mut seen: impl FnMut(SortOption, usize)) {
    let mut i = 2;
    while i + 1 < args.len() {
        let word = args.arg(i);
        if word.eq_ignore_ascii_case(b"LIMIT") {
            i += 2;
        } else if word.eq_ignore_ascii_case(b"STORE") {
            seen(SortOption::Store, i + 1);
            i += 1;
        } else if word.eq_ignore_ascii_case(b"BY") || word.eq_ignore_ascii_case(b"GET") {
            seen(SortOption::Pattern, i + 1);
            i += 1;
        }
        i += 1;
    }
}

/// `GEORADIUS key … [STORE k] [STOREDIST k]`: one destination, the last that is named.
fn georadius_keys(args: &Args<'_>, options: usize, found: &mut dyn FnMut(u32, KeyFlags)) {
    found(1, KeyFlags::RO);
    let mut store = None;
    let mut i = options;
    while i + 1 < args.len() {
        let word = args.arg(i);
        if word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST") {
            store = Some(i + 1);
            i += 1;
        } else if word.eq_ignore_ascii_case(b"COUNT") {
            i += 1;
        }
        i += 1;
    }
    if let Some(at) = store {
        found(at as u32, KeyFlags::OW);
    }
}

/// What matters of the options of `XREAD` and `XREADGROUP`.
#[derive(Default)]
struct Xread {
    /// Where the milliseconds behind `BLOCK` are.
    block: Option<usize>,
    /// Where the first key is.
    streams: Option<usize>,
}

/// Walks the options as Redis walks them, up to `STREAMS`. A word it does not know is the nodes' to accept or refuse: newer
/// versions have more options.
fn xread(args: &Args<'_>) -> Result<Xread, ErrorReply> {
    let mut read = Xread::default();
    let mut i = 1;
    while i < args.len() {
        let word = args.arg(i);
        let behind = args.len() - i - 1;
        if behind > 0 && word.eq_ignore_ascii_case(b"BLOCK") {
            read.block = Some(i + 1);
            i += 1;
        } else if behind > 0 && word.eq_ignore_ascii_case(b"COUNT") {
            i += 1;
        } else if behind > 0 && word.eq_ignore_ascii_case(b"STREAMS") {
            if !behind.is_multiple_of(2) {
                return Err(UNBALANCED);
            }
            read.streams = Some(i + 1);
            break;
        } else if behind > 1 && word.eq_ignore_ascii_case(b"GROUP") {
            i += 2;
        }
        i += 1;
    }
    Ok(read)
}

/// Where the timeout of an `XREAD` or `XREADGROUP` is, if it blocks.
pub fn xread_block(args: &Args<'_>) -> Option<usize> {
    xread(args).ok()?.block
}

fn xread_keys(
    args: &Args<'_>,
    flags: KeyFlags,
    found: &mut dyn FnMut(u32, KeyFlags),
) -> Result<(), ErrorReply> {
    let first = xread(args)?.streams.ok_or(SYNTAX)?;
    for position in first..first + (args.len() - first) / 2 {
        found(position as u32, flags);
    }
    Ok(())
}

/// `MIGRATE host port key …`, or `MIGRATE host port "" … KEYS key …`.
fn migrate_keys(args: &Args<'_>, found: &mut dyn FnMut(u32, KeyFlags)) {
    let mut keys = 3..4;
    if args.arg(3).is_empty() {
        let mut i = 6;
        while i < args.len() {
            let word = args.arg(i);
            if word.eq_ignore_ascii_case(b"KEYS") {
                keys = i + 1..args.len();
                break;
            } else if word.eq_ignore_ascii_case(b"AUTH") {
                i += 1;
            } else if word.eq_ignore_ascii_case(b"AUTH2") {
                i += 2;
            }
            i += 1;
        }
    }
    for position in keys {
        found(position as u32, KeyFlags::RW);
    }
}

#[cfg(test)]
mod tests;
