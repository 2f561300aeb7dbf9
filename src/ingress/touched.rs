//! What a write may change, as places in its own frame.
//!
//! **Problem.** Nodes' accounts name what their last batches have touched, and a node that is behind at a takeover is given just that. A
//! key that a write changes and does not name differs between the copies from then on, and nobody who waits there is served.
//!
//! **Idea.** The keys are those of the command in the form in which nodes execute it, in the database in which they do. Where that
//! cannot be told it is the whole partition: then all of that is given.

use bytes::Bytes;
use smallvec::smallvec;

use crate::command::{Command, Special};
use crate::request::Touched;
use crate::resp::{Args, CommandScanner, Scanned};

/// What a write may change.
pub(super) fn touched_by(command: &Command, args: &Args<'_>) -> Touched {
    let span = |key: usize| args.spans.get(key).copied().unwrap_or_default();
    if matches!(command.special, Special::Eval | Special::Evalsha | Special::Fcall) {
        return Touched::Partition;
    }
    // Keys are named in the database of the write, and this one is in another.
    if command.special == Special::Copy && databases_named(args).next().is_some() {
        return Touched::Partition;
    }
    if let Some(key) = command.first_key() {
        return Touched::Keys(smallvec![span(key)]);
    }
    match command.keys_written(args) {
        Ok(keys) => Touched::Keys(keys.iter().map(|&key| span(key as usize)).collect()),
        Err(_) => Touched::Partition,
    }
}

/// The same of a command that has been rewritten: its keys stay where they were.
pub(super) fn touched_as(command: &Command, rewritten: &Bytes) -> Touched {
    match CommandScanner::new(usize::MAX).scan(rewritten) {
        Ok(Scanned::Command { spans, .. }) => {
            let (bytes, spans) = (rewritten, &spans);
            touched_by(command, &Args { bytes, spans })
        }
        _ => Touched::Partition,
    }
}

/// The databases that a `COPY` names: it may do so more than once, and Redis takes the last.
pub(super) fn databases_named<'a>(args: &Args<'a>) -> impl Iterator<Item = &'a [u8]> {
    let named = args.iter().skip(3).zip(args.iter().skip(4));
    named
        .filter(|(word, _)| word.eq_ignore_ascii_case(b"db"))
        .map(|(_, db)| db)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandTable;
    use crate::command::rewrite::{Form, PoolClock, deterministic};

    /// What a node of version 8.4 says of it.
    const MSETEX: &str = "*1 *10 $msetex :-4 *2 +write +denyoom :0 :0 :0 *0 *0 *1 *6 $flags *2 +OW +UPDATE $begin_search \
                          *4 $type $index $spec *2 $index :1 $find_keys *4 $type $keynum $spec *6 $keynumidx :0 $firstkey :1 \
                          $keystep :2 *0";

    fn table() -> CommandTable {
        let line = |word: &str| match word.strip_prefix('$') {
            Some(text) => format!("${}\r\n{text}\r\n", text.len()),
            None => format!("{word}\r\n"),
        };
        let reply: String = MSETEX.split_whitespace().map(line).collect();
        CommandTable::from_nodes(&[reply]).unwrap()
    }

    /// The keys that are named when nodes are given the command in the form that is the same for all.
    fn named(table: &CommandTable, words: &str) -> Vec<String> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let (bytes, spans) = crate::resp::frame_of(&words);
        let args = Args {
            bytes: &bytes,
            spans: &spans,
        };
        let command = table.lookup(&args).unwrap();
        let mut clock = PoolClock::default();
        let rule = command.rewrite.unwrap();
        let Form::Rewritten(rewritten) = deterministic(rule, &args, &mut clock) else {
            panic!("{words:?}")
        };
        let Touched::Keys(keys) = touched_as(command, &rewritten) else {
            panic!("{words:?}")
        };
        let name = |key: &crate::resp::Span| {
            let at = key.start as usize..(key.start + key.len) as usize;
            String::from_utf8(rewritten[at].to_vec()).unwrap()
        };
        keys.iter().map(name).collect()
    }

    #[test]
    fn rewritten_commands_name_their_keys() {
        assert_eq!(named(&table(), "MSETEX 2 a 1 b 2 EX 10"), ["a", "b"]);
        let builtin = CommandTable::builtin();
        for words in ["SETEX a 10 v", "SET a v EX 10", "EXPIRE a 10", "XADD a * f v"] {
            assert_eq!(named(&builtin, words), ["a"], "{words}");
        }
    }
}
