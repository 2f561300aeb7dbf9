//! The shelf: scripts and functions as they are kept with the pool, so that a sidecar that starts knows them.
//!
//! One hash in the bookkeeping database of every node, written and read by majority:
//!
//! ```text
//! rf:library   hash   stamp          -> <term>:<n>, one higher with every change
//!                     s<text>'s sha  -> a script's text
//!                     f<name>        -> a function library's text
//! ```
//!
//! The hash with the highest stamp counts, as a whole. A node that has just had the one before is given the change, any other
//! the whole hash.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use redis_protocol::resp3::types::BytesFrame;

use crate::account;
use crate::library::{Sha, hex};
use crate::node::{Control, ControlError, bytes_of, is_error, pairs_of, text_of};
use crate::resp::encode;

const STAMP: &[u8] = b"stamp";

/// The field of a script.
pub fn script_field(sha: &Sha) -> Bytes {
    format!("s{}", hex(sha)).into()
}

/// The field of a function library.
pub fn library_field(name: &[u8]) -> Bytes {
    [b"f", name].concat().into()
}

/// Fields that become something else; those without a value are taken off.
pub type Change = Vec<(Bytes, Option<Bytes>)>;

/// What is kept.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    /// Who wrote it last, and how often it has been changed.
    pub stamp: (u64, u64),
    fields: BTreeMap<Bytes, Bytes>,
}

impl Shelf {
    /// Reads what a node has; `None` if it has none. `control` stands in the bookkeeping database.
    pub async fn read(control: &mut Control) -> Result<Option<Self>, ControlError> {
        let mut shelf = None;
        for (field, value) in pairs_of(control.call(&[b"HGETALL", account::LIBRARY]).await?) {
            let shelf = shelf.get_or_insert_with(Self::default);
            if bytes_of(&field) == STAMP {
                shelf.stamp = parse_stamp(&text_of(&value)).unwrap_or_default();
            } else {
                let copy = |frame: &BytesFrame| Bytes::copy_from_slice(bytes_of(frame));
                shelf.fields.insert(copy(&field), copy(&value));
            }
        }
        Ok(shelf)
    }

    /// The stamp of what a node has.
    pub async fn read_stamp(control: &mut Control) -> Result<Option<(u64, u64)>, ControlError> {
        let reply = control.call(&[b"HGET", account::LIBRARY, STAMP]).await?;
        Ok(parse_stamp(&text_of(&reply)))
    }

    /// The texts of one kind: `s` or `f`.
    pub fn texts(&self, kind: u8) -> impl Iterator<Item = &Bytes> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.first() == Some(&kind))
            .map(|(_, text)| text)
    }

    /// The change that takes all of one kind off.
    pub fn without(&self, kind: u8) -> Change {
        let fields = self.fields.keys().filter(|field| field.first() == Some(&kind));
        fields.map(|field| (field.clone(), None)).collect()
    }

    /// The text of a field.
    pub fn get(&self, field: &Bytes) -> Option<&Bytes> {
        self.fields.get(field)
    }

    /// Changes fields: what would undo it.
    pub fn apply(&mut self, change: &Change) -> Change {
        let put = |(field, value): &(Bytes, Option<Bytes>)| {
            let before = match value {
                Some(value) => self.fields.insert(field.clone(), value.clone()),
                None => self.fields.remove(field),
            };
            (field.clone(), before)
        };
        let mut undo: Change = change.iter().map(put).collect();
        undo.reverse();
        undo
    }

    /// Brings a node to what is kept now: by the change, if that is all it lacks.
    pub async fn write(
        &self,
        control: &mut Control,
        bookkeeping_db: u16,
        change: Option<&Change>,
    ) -> Result<(), ControlError> {
        control.select(bookkeeping_db).await?;
        let mut wire = BytesMut::new();
        let mut count = 0;
        let mut say = |args: &[&[u8]]| {
            encode::command(&mut wire, args);
            count += 1;
        };
        say(&[b"MULTI"]);
        match change {
            None => {
                say(&[b"DEL", account::LIBRARY]);
                for (field, value) in &self.fields {
                    say(&[b"HSET", account::LIBRARY, field, value]);
                }
            }
            Some(change) => {
                for (field, value) in change {
                    match value {
                        Some(value) => say(&[b"HSET", account::LIBRARY, field, value]),
                        None => say(&[b"HDEL", account::LIBRARY, field]),
                    }
                }
            }
        }
        let stamp = format!("{}:{}", self.stamp.0, self.stamp.1);
        say(&[b"HSET", account::LIBRARY, STAMP, stamp.as_bytes()]);
        say(&[b"EXEC"]);
        let replies = control.exchange(&wire, count).await?;
        match replies.iter().find(|reply| is_error(reply)) {
            Some(error) => Err(ControlError::Refused(text_of(error))),
            None => Ok(()),
        }
    }

    /// The newest shelf among nodes of which a majority must be given; written again where it is not, so that it is what
    /// any later majority shows. `false`: it could not be written to more than half of all nodes.
    pub async fn settle(
        controls: &mut [&mut Control],
        nodes: usize,
        bookkeeping_db: u16,
    ) -> Result<(Self, bool), ControlError> {
        let mut found = Vec::new();
        for control in controls.iter_mut() {
            control.select(bookkeeping_db).await?;
            found.push(Self::read(control).await?);
        }
        let newest = found
            .iter()
            .flatten()
            .max_by_key(|shelf| shelf.stamp)
            .cloned()
            .unwrap_or_default();
        let writes = controls.iter_mut().zip(&found).map(|(control, found)| {
            let newest = &newest;
            async move {
                let has = found.as_ref().map(|shelf| shelf.stamp).unwrap_or_default() == newest.stamp;
                has || newest.write(control, bookkeeping_db, None).await.is_ok()
            }
        });
        let written = join_all(writes).await.into_iter().filter(|&ok| ok).count();
        Ok((newest, written * 2 > nodes))
    }
}

fn parse_stamp(text: &str) -> Option<(u64, u64)> {
    let (term, n) = text.split_once(':')?;
    Some((term.parse().ok()?, n.parse().ok()?))
}
