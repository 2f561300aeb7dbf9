//! How large the next reply may be, as far as the last ones tell.
//!
//! What a command is answered with is known only when the answer is there, and by then it takes memory. So whoever bounds what
//! is under way takes each reply for as large as the largest of late, and a first one for large.

use crate::limits;

/// About the largest reply of late.
#[derive(Clone, Copy, Debug)]
pub struct ReplyPeak {
    bytes: usize,
}

impl Default for ReplyPeak {
    fn default() -> Self {
        Self {
            bytes: limits::REPLY_BYTES_FIRST,
        }
    }
}

impl ReplyPeak {
    /// What the next reply is taken for, in bytes.
    pub fn bytes(self) -> usize {
        self.bytes.max(1)
    }

    /// Notes a reply. The peak fades: a large one counts for some hundred that follow.
    pub fn note(&mut self, reply_bytes: usize) {
        self.bytes = reply_bytes.max(self.bytes - self.bytes / 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_reply_counts_at_once_and_is_forgotten_slowly() {
        let mut peak = ReplyPeak::default();
        assert_eq!(peak.bytes(), limits::REPLY_BYTES_FIRST);
        for _ in 0..100 {
            peak.note(10);
        }
        assert!((100_000..400_000).contains(&peak.bytes()), "{peak:?}");
        for _ in 0..1000 {
            peak.note(10);
        }
        assert!(peak.bytes() < 100, "{peak:?}");
        peak.note(5_000_000);
        assert_eq!(peak.bytes(), 5_000_000);
    }
}
