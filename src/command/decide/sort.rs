//! `SORT … BY … ALPHA … STORE`: the order is taken from one node.
//!
//! Elements with equal weights keep no particular order, and two nodes with the same set begin from different ones. With
//! numbers Redis breaks ties by the elements themselves, and `BY nosort` on a set sorts before it stores, so only a sort
//! by words from other keys is left to decide. The result of the sort is stored as a list by plain commands.
//!
//! Redis compares words by the node's locale when it answers, and by their bytes when it stores. They agree in the `C`
//! locale; in another one the stored order is the locale's.

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::{Conclusion, Decision, Reply, in_chunks};
use crate::command::frame::FrameWriter;
use crate::resp::walk::{self, Elements};
use crate::resp::{Args, encode};

/// Whether a `SORT` needs a decision.
pub(in crate::command) fn sort(args: &Args<'_>) -> Option<Decision> {
    let options = options(args)?;
    (options.store.is_some() && options.by_pattern && options.alpha).then_some(Decision::SortStore)
}

/// The same sort without storing.
pub(super) fn probe(args: &Args<'_>) -> Bytes {
    let stores = options(args).unwrap_or_default().stores;
    let mut frame = FrameWriter::new(args.arg(0), args.bytes.len());
    for (i, arg) in args.iter().enumerate().skip(1) {
        if !stores.contains(&i) && !stores.contains(&(i - 1)) {
            frame.arg(arg);
        }
    }
    frame.finish()
}

pub(super) fn conclude(args: &Args<'_>, probe_reply: &[u8]) -> Option<Conclusion> {
    let destination = args.get(options(args)?.store?)?;
    let elements = Elements::of(probe_reply).ok()??;
    let mut items = Vec::with_capacity(elements.len());
    for element in elements {
        // What a `GET` did not find is stored as an empty string.
        items.push(walk::text(element.ok()?).unwrap_or_default());
    }
    let mut write: SmallVec<[Bytes; 2]> = smallvec![
        FrameWriter::new(b"DEL", destination.len() + 16)
            .arg(destination)
            .finish()
    ];
    write.extend(in_chunks(b"RPUSH", destination, &items));
    let length = i64::try_from(items.len()).ok()?;
    Some(Conclusion {
        write,
        reply: Reply::Fixed(encode::integer(length)),
    })
}

#[derive(Debug, Default)]
struct Options {
    /// Where each `STORE` is.
    stores: SmallVec<[usize; 1]>,
    /// The destination: Redis takes the last one.
    store: Option<usize>,
    /// Sorts by other keys. A pattern without `*` means "do not sort".
    by_pattern: bool,
    alpha: bool,
}

/// Reads the options as Redis does; `None` for what it would refuse.
fn options(args: &Args<'_>) -> Option<Options> {
    let mut options = Options::default();
    let mut at = 2;
    while let Some(option) = args.get(at) {
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        let more = args.len() - 1 - at;
        if is("ASC") || is("DESC") {
            at += 1;
        } else if is("ALPHA") {
            options.alpha = true;
            at += 1;
        } else if is("LIMIT") && more >= 2 {
            at += 3;
        } else if is("STORE") && more >= 1 {
            options.stores.push(at);
            options.store = Some(at + 1);
            at += 2;
        } else if is("BY") && more >= 1 {
            options.by_pattern = args.arg(at + 1).contains(&b'*');
            at += 2;
        } else if is("GET") && more >= 1 {
            at += 2;
        } else {
            return None;
        }
    }
    Some(options)
}
