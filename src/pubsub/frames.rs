//! What subscribers are sent: an array in RESP2, a push in RESP3, otherwise alike.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Kind, Publication};
use crate::resp::encode;

fn head(out: &mut BytesMut, resp3: bool, len: usize) {
    encode::header(out, if resp3 { b'>' } else { b'*' }, len);
}

/// Appends the answer to a subscription or its end. `count` is how many the client has now; `name` is `None` for
/// "from all" when there was none.
pub fn confirmation(
    out: &mut BytesMut,
    resp3: bool,
    kind: Kind,
    subscribed: bool,
    name: Option<&[u8]>,
    count: usize,
) {
    let verb: &[u8] = match (kind, subscribed) {
        (Kind::Channel, true) => b"subscribe",
        (Kind::Channel, false) => b"unsubscribe",
        (Kind::Pattern, true) => b"psubscribe",
        (Kind::Pattern, false) => b"punsubscribe",
        (Kind::Shard, true) => b"ssubscribe",
        (Kind::Shard, false) => b"sunsubscribe",
    };
    head(out, resp3, 3);
    encode::bulk(out, verb);
    match name {
        Some(name) => encode::bulk(out, name),
        None if resp3 => out.put_slice(b"_\r\n"),
        None => out.put_slice(b"$-1\r\n"),
    }
    out.put_u8(b':');
    encode::decimal(out, count as u64);
    out.put_slice(b"\r\n");
}

fn frame(resp3: bool, words: &[&[u8]]) -> Bytes {
    let size = words.iter().map(|word| word.len() + 16).sum::<usize>() + 16;
    let mut out = BytesMut::with_capacity(size);
    head(&mut out, resp3, words.len());
    for word in words {
        encode::bulk(&mut out, word);
    }
    out.freeze()
}

/// A message, for those who have subscribed to its channel.
pub fn message(publication: &Publication, resp3: bool) -> Bytes {
    let kind: &[u8] = if publication.shard {
        b"smessage"
    } else {
        b"message"
    };
    frame(resp3, &[kind, &publication.channel, &publication.message])
}

/// A message, for those who have subscribed to this pattern.
pub fn pattern_message(pattern: &[u8], publication: &Publication, resp3: bool) -> Bytes {
    let words: [&[u8]; 4] = [b"pmessage", pattern, &publication.channel, &publication.message];
    frame(resp3, &words)
}

/// `PUBSUB HELP`, line by line.
pub const HELP: [&str; 14] = [
    "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANNELS [<pattern>]",
    "    Return the currently active channels matching a <pattern> (default: '*').",
    "NUMPAT",
    "    Return number of subscriptions to patterns.",
    "NUMSUB [<channel> ...]",
    "    Return the number of subscribers for the specified channels, excluding",
    "    pattern subscriptions(default: no channels).",
    "SHARDCHANNELS [<pattern>]",
    "    Return the currently active shard level channels matching a <pattern> (default: '*').",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Return the number of subscribers for the specified shard level channel(s)",
    "HELP",
    "    Prints this help.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_protocols() {
        let publication = Publication {
            shard: false,
            channel: Bytes::from_static(b"c"),
            message: Bytes::from_static(b"hi"),
        };
        assert_eq!(
            &message(&publication, false)[..],
            b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
        );
        assert_eq!(
            &pattern_message(b"?", &publication, true)[..],
            b">4\r\n$8\r\npmessage\r\n$1\r\n?\r\n$1\r\nc\r\n$2\r\nhi\r\n"
        );
        let mut out = BytesMut::new();
        confirmation(&mut out, true, Kind::Shard, true, Some(b"s"), 12);
        confirmation(&mut out, false, Kind::Pattern, false, None, 0);
        assert_eq!(
            &out[..],
            b">3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:12\r\n*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n"
        );
    }
}
