//! How much memory a client's replies may take.
//!
//! **Problem.** A client may ask for more than it reads: its commands are a few bytes, the replies are not. Redis makes them all and keeps
//! them, and disconnects the client at a limit, if it has one (`client-output-buffer-limit`).
//!
//! **Idea.** What a client has not taken holds its next commands back: while its replies, those that wait and those that are under way,
//! might pass half of `limits.client_output_max`, no more of its bytes are read. What is under way is taken for as large as
//! the last replies were ([`ReplyPeak`](crate::resp::ReplyPeak)). So a slow client is only slow.
//!
//! The other half is for what was expected otherwise, and for what nobody can hold back: messages. At the whole limit the client is
//! disconnected; also one that takes nothing for [`limits::CLIENT_STALL_MS`](crate::limits::CLIENT_STALL_MS) while its commands are held
//! back, since it may be waiting for just these commands to be read.

use super::client::Client;

impl Client {
    /// Whether no more of its commands should be taken up for now. One at a time always goes, whatever it brings.
    pub(crate) fn has_enough(&self, pending_max: usize, output_max: usize) -> bool {
        let pending = self.slots.len() + self.unasked;
        if pending >= pending_max {
            return true;
        }
        let there = self.output_bytes();
        let (read, other) = (self.read_peak.bytes(), self.other_peak.bytes());
        let under_way = self
            .read_slots
            .saturating_mul(read)
            .saturating_add((pending - self.read_slots).saturating_mul(other));
        let next = read.max(other);
        there + pending > 0 && there.saturating_add(under_way).saturating_add(next) > output_max / 2
    }

    /// Whether it must be disconnected. What its socket has not refused is not too much, but what cannot be sent to it is.
    pub(crate) fn has_too_much(&self, output_max: usize) -> bool {
        let stuck = if self.clogged { self.out.len() } else { 0 };
        stuck + self.held_bytes > output_max
    }

    /// Replies and messages that it has not been sent yet, in bytes.
    pub(crate) fn output_bytes(&self) -> usize {
        self.out.len() + self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    use crate::command::spec::Downgrade;
    use crate::ingress::client::{Client, Session};
    use crate::limits;
    use crate::net::Socket;

    const MIB: usize = 1024 * 1024;

    async fn client() -> Client {
        let (ours, _) = tokio::net::UnixStream::pair().expect("sockets");
        Client::new(1, Session::default(), Socket::Unix(ours).into_split().1)
    }

    #[tokio::test]
    async fn commands_are_held_back_by_what_their_replies_may_be() {
        let mut client = client().await;
        assert!(!client.has_enough(10, 1), "the first one always goes");
        let mut taken_up = 0;
        while !client.has_enough(1000, 64 * MIB) {
            let slot = client.expect_one(Downgrade::AsIs, 0);
            client.note_read(slot, 0);
            taken_up += 1;
        }
        assert_eq!(taken_up, 32 * MIB / limits::REPLY_BYTES_FIRST);
        assert!(client.has_enough(32, 1024 * MIB), "there may be only so many");
        // Small ones let more go.
        for _ in 0..100 {
            client.read_peak.note(10);
        }
        assert!(!client.has_enough(1000, 64 * MIB));
    }

    #[tokio::test]
    async fn small_writes_say_nothing_of_reads() {
        let mut client = client().await;
        for _ in 0..1000 {
            client.other_peak.note(5);
        }
        let slot = client.expect_one(Downgrade::AsIs, 0);
        client.note_read(slot, 0);
        assert!(
            client.has_enough(1000, 4 * MIB - 10),
            "one read, and perhaps another one"
        );
        assert!(!client.has_enough(1000, 4 * MIB));
    }

    #[tokio::test]
    async fn only_what_cannot_be_sent_is_too_much() {
        let mut client = client().await;
        client.reply(vec![b'x'; 100]);
        assert!(!client.has_too_much(10));
        client.clogged = true;
        assert!(client.has_too_much(10));
        assert!(!client.has_too_much(100));
    }
}
