//! Entries with their scores, as nodes tell them and as clients are told.
//!
//! In its segment an entry's score counts from 1; to a client it counts from the head of the whole queue, as it would on one server.

use bytes::{Bytes, BytesMut};

use crate::ingress::gather::elements;
use crate::resp::encode;
use crate::resp::walk::text;
use crate::stripe::Segment;

/// An entry.
pub(super) struct Entry {
    pub(super) segment: Segment,
    pub(super) member: Bytes,
    pub(super) score: u64,
}

/// The entries of a RESP3 reply `WITHSCORES`.
pub(super) fn entries(segment: Segment, reply: &Bytes) -> Vec<Entry> {
    let entry = |pair: &[u8]| {
        let mut fields = elements(pair).filter_map(text);
        let member = reply.slice_ref(fields.next()?);
        Some(Entry {
            segment,
            member,
            score: number(fields.next()?),
        })
    };
    elements(reply).filter_map(entry).collect()
}

/// A score as a number: scores here are counters.
pub(super) fn number(text: &[u8]) -> u64 {
    let score: Option<f64> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    score.unwrap_or(0.0).max(0.0) as u64
}

/// The reply to a range, in RESP3.
pub(super) fn reply(entries: &[Entry], with_scores: bool) -> Bytes {
    let mut out = BytesMut::new();
    encode::header(&mut out, b'*', entries.len());
    for entry in entries {
        if with_scores {
            encode::header(&mut out, b'*', 2);
        }
        encode::bulk(&mut out, &entry.member);
        if with_scores {
            out.extend_from_slice(&double(entry.segment.base + u128::from(entry.score)));
        }
    }
    out.freeze()
}

/// A whole number as a RESP3 double.
pub(super) fn double(number: u128) -> Bytes {
    format!(",{number}\r\n").into()
}
