//! Bytes on their way out: small things are copied together, large ones are passed on as they are.
//!
//! One `write` for everything that is ready is what makes a proxy cheap. Copying 256 bytes costs less than a reference
//! count and an entry in the vector; copying 16 KiB costs more: [`SHARE_BYTES_MIN`] is where it turns.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// From this size on a payload is shared rather than copied, in bytes.
const SHARE_BYTES_MIN: usize = 4096;

/// Most slices given to one `writev`. Linux takes 1024.
const SLICES_MAX: usize = 64;

/// What an empty buffer may keep for next time, in bytes: more would add up over idle clients.
const KEEP_BYTES_MAX: usize = 1024;

/// An outgoing queue of bytes.
#[derive(Debug, Default)]
pub struct OutBuf {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    parts_len: usize,
    keep_bytes: usize,
}

impl OutBuf {
    /// A queue that keeps up to `keep_bytes` of memory while it is empty.
    pub fn keeping(keep_bytes: usize) -> Self {
        Self {
            keep_bytes,
            ..Self::default()
        }
    }

    /// Bytes still to be written.
    pub fn len(&self) -> usize {
        self.parts_len + self.tail.len()
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.parts_len == 0 && self.tail.is_empty()
    }

    /// The copied part, to be written to directly.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Queues a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Queues `bytes`, sharing them if they are large.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_BYTES_MIN {
            return self.put(bytes);
        }
        if !self.tail.is_empty() {
            self.parts_len += self.tail.len();
            self.parts.push_back(self.tail.split().freeze());
        }
        self.parts_len += bytes.len();
        self.parts.push_back(bytes.clone());
    }

    /// Queues all that another queue holds.
    pub fn append(&mut self, mut other: Self) {
        for part in other.parts.drain(..) {
            self.put_shared(&part);
        }
        self.put(&other.tail);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::keeping(self.keep_bytes);
    }

    /// Writes as much as `write` takes: `Ok(true)` when nothing is left, `Ok(false)` when it would block.
    pub fn write_with(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        while !self.is_empty() {
            let result = if self.parts.is_empty() {
                write(&[IoSlice::new(&self.tail)])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let parts = self
                    .parts
                    .iter()
                    .map(|part| &part[..])
                    .chain(std::iter::once(&self.tail[..]));
                let mut used = 0;
                for (slice, part) in slices.iter_mut().zip(parts) {
                    *slice = IoSlice::new(part);
                    used += 1;
                }
                write(slices.get(..used).unwrap_or_default())
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(front) = self.parts.front_mut() {
            let step = front.len().min(n);
            front.advance(step);
            self.parts_len -= step;
            n -= step;
            if !front.is_empty() {
                return;
            }
            self.parts.pop_front();
        }
        if n < self.tail.len() {
            self.tail.advance(n);
        } else if self.tail.capacity() <= self.keep_bytes.max(KEEP_BYTES_MAX) {
            self.tail.clear();
        } else {
            self.tail = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_through_partial_writes() {
        let large = Bytes::from(vec![b'L'; SHARE_BYTES_MIN]);
        let mut out = OutBuf::default();
        out.put(b"one");
        out.put_shared(&large);
        out.put_shared(&Bytes::from_static(b"two"));
        let expected = [b"one".as_slice(), &large, b"two"].concat();
        assert_eq!(out.len(), expected.len());
        let mut got = Vec::new();
        let mut turn = 0;
        while !out.is_empty() {
            let done = out.write_with(|slices| {
                turn += 1;
                if turn % 3 == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                let n = all.len().min(997);
                got.extend_from_slice(&all[..n]);
                Ok(n)
            });
            assert_eq!(done.unwrap(), out.is_empty());
        }
        assert_eq!(got, expected);
    }
}
