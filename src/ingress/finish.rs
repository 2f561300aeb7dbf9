//! What is done to the reply of a script that did not run as its client knows it.
//!
//! Errors name the script by the digest, or the function by the name, that it has on the nodes: they get back what the client
//! calls it. Messages that it has published come with the reply, and are published when the reply is released.

use bytes::{Bytes, BytesMut};

use super::client::in_protocol;
use super::gather::elements;
use crate::command::spec::Downgrade;
use crate::pubsub::Publication;
use crate::resp::walk::{is_error, text};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Finish {
    /// Whether the reply is `{reply, messages}`.
    pub(super) publishes: bool,
    /// What the nodes call it.
    pub(super) on_nodes: String,
    /// What the client calls it.
    pub(super) original: String,
}

impl Finish {
    /// The reply as Redis would have given it, in the client's protocol.
    pub(super) fn apply(&self, reply: &Bytes, client_resp3: bool, published: &mut Vec<Publication>) -> Bytes {
        let mut reply = reply.clone();
        if self.publishes && !is_error(&reply) {
            let mut parts = elements(&reply).map(|part| reply.slice_ref(part));
            let (result, messages) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            drop(parts);
            let words: Vec<Bytes> = elements(&messages)
                .map(|word| Bytes::copy_from_slice(text(word).unwrap_or_default()))
                .collect();
            for message in words.chunks(3) {
                if let [command, channel, message] = message {
                    published.push(Publication {
                        shard: command.eq_ignore_ascii_case(b"spublish"),
                        channel: channel.clone(),
                        message: message.clone(),
                    });
                }
            }
            reply = result;
        }
        if is_error(&reply) {
            return replace(&reply, self.on_nodes.as_bytes(), self.original.as_bytes());
        }
        in_protocol(Downgrade::Generic, reply, true, client_resp3)
    }
}

/// The text with every `from` in it made `to`.
fn replace(text: &Bytes, from: &[u8], to: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len());
    let mut rest = &text[..];
    while let Some((&first, behind)) = rest.split_first() {
        match rest.strip_prefix(from).filter(|_| !from.is_empty()) {
            Some(behind) => {
                out.extend_from_slice(to);
                rest = behind;
            }
            None => {
                out.extend_from_slice(&[first]);
                rest = behind;
            }
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_what_they_would_have_been() {
        let finish = Finish {
            publishes: true,
            on_nodes: "rf_1_".into(),
            original: String::new(),
        };
        let mut published = Vec::new();
        let mut apply =
            |reply: &'static [u8]| finish.apply(&Bytes::from_static(reply), false, &mut published);
        assert_eq!(apply(b"*2\r\n_\r\n*0\r\n"), "$-1\r\n");
        assert_eq!(
            apply(b"*2\r\n-ERR x script: rf_1_f, on 1\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$1\r\nm\r\n"),
            "-ERR x script: f, on 1\r\n"
        );
        assert_eq!(apply(b"-BUSY rf_1_f\r\n"), "-BUSY f\r\n");
        assert_eq!(
            (
                &published[0].channel[..],
                &published[0].message[..],
                published.len()
            ),
            (&b"c"[..], &b"m"[..], 1)
        );
    }
}
