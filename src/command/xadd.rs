//! `XADD` and `XTRIM`: the id, and how much is trimmed.
//!
//! `XADD k *` takes the node's clock for an id, and `~` trims to where a block of the node's memory ends. Written out, they
//! are an id and an exact limit. `<ms>-*` depends on the stream alone and stays.

use bytes::Bytes;
use smallvec::SmallVec;

use super::frame::FrameWriter;
use super::number::{StreamId, integer};
use crate::resp::Args;

/// An `XADD` with an id in place of its `*` and exact trimming; `None` if it has neither `*` nor `~`, or Redis would
/// not take it.
pub(super) fn add(args: &Args<'_>, next_id: impl FnOnce() -> StreamId) -> Option<Bytes> {
    let options = StreamOptions::read(args, true)?;
    let id = options.asks_for_id(args).then(next_id);
    (id.is_some() || options.approximate.is_some()).then(|| options.write(args, id))
}

/// An `XTRIM` with exact trimming; `None` if it is exact already, or Redis would not take it.
pub(super) fn trim(args: &Args<'_>) -> Option<Bytes> {
    let options = StreamOptions::read(args, false)?;
    options.approximate.is_some().then(|| options.write(args, None))
}

/// Whether an `XADD` leaves the whole id to the server.
pub(super) fn asks_for_id(args: &Args<'_>) -> bool {
    StreamOptions::read(args, true).is_some_and(|options| options.asks_for_id(args))
}

/// The options of `XADD` and `XTRIM`, by their positions.
#[derive(Debug, Default)]
struct StreamOptions {
    /// The `~`.
    approximate: Option<usize>,
    /// Each `LIMIT`.
    limits: SmallVec<[usize; 1]>,
    /// The id.
    id: Option<usize>,
}

impl StreamOptions {
    /// Reads the options as Redis does; `None` for what it would refuse.
    fn read(args: &Args<'_>, adds: bool) -> Option<Self> {
        let mut options = Self::default();
        let mut trims = false;
        let mut at = 2;
        while let Some(option) = args.get(at) {
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            let more = args.len() - 1 - at;
            if (is("MAXLEN") || is("MINID")) && more > 0 {
                if trims {
                    return None;
                }
                trims = true;
                match args.get(at + 1) {
                    Some(b"~") if more > 1 => {
                        options.approximate = Some(at + 1);
                        at += 1;
                    }
                    Some(b"=") if more > 1 => at += 1,
                    _ => {}
                }
                at += 2;
            } else if is("LIMIT") && more > 0 {
                integer(args.arg(at + 1)).filter(|&limit| limit >= 0)?;
                options.limits.push(at);
                at += 2;
            } else if is("KEEPREF") || is("DELREF") || is("ACKED") || (adds && is("NOMKSTREAM")) {
                at += 1;
            } else if adds {
                options.id = Some(at);
                break;
            } else {
                return None;
            }
        }
        // A limit is only allowed with `~`, so it goes with it.
        (options.limits.is_empty() || options.approximate.is_some()).then_some(options)
    }

    fn asks_for_id(&self, args: &Args<'_>) -> bool {
        self.id.is_some_and(|at| args.arg(at) == b"*")
    }

    fn write(&self, args: &Args<'_>, id: Option<StreamId>) -> Bytes {
        let mut frame = FrameWriter::new(args.arg(0), args.bytes.len() + 48);
        for (i, arg) in args.iter().enumerate().skip(1) {
            if self.limits.contains(&i) || self.limits.contains(&(i - 1)) {
                continue;
            }
            match id {
                Some(id) if self.id == Some(i) => frame.id(id),
                _ if self.approximate == Some(i) => frame.arg(b"="),
                _ => frame.arg(arg),
            };
        }
        frame.finish()
    }
}
