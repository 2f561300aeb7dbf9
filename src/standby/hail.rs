//! What a sidecar says first when it passes a client on to another one: where that client is; and what it is answered: that it is taken. A client
//! is only heard when somebody has taken it, so one that comes while sidecars change is not lost.
//!
//! What is said is the header of HAProxy's PROXY protocol, version 2, which has a length of its own: it can be read to its last byte and no further.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{self, Addresses, Builder, Command, Header, Protocol, Version};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What the other sidecar answers when it has taken the client, or would, before anything else: nothing that a Redis server says.
pub const TAKEN: u8 = 0x06;

/// What it answers to a probe as long as it does not serve.
pub const NOT_YET: u8 = 0x15;

/// The part of a header that tells the length of the rest, in bytes.
const FIXED_BYTES: usize = 16;

/// What may follow it: addresses, and some fields that others may add.
const REST_BYTES_MAX: usize = 1024;

/// What a sidecar wants of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hail {
    /// To know whether it serves.
    Probe,
    /// To pass a client on. Its address, but of one that came over a unix socket.
    Client(Option<SocketAddr>),
}

/// The header for a client that has connected from one address to the other, or over a unix socket.
pub(super) fn header_for(client: Option<(SocketAddr, SocketAddr)>) -> io::Result<Vec<u8>> {
    match client {
        Some(both) => header(Command::Proxy, Protocol::Stream, Addresses::from(both)),
        None => header(Command::Proxy, Protocol::Unspecified, Addresses::Unspecified),
    }
}

/// The header of a probe.
pub(super) fn probe() -> io::Result<Vec<u8>> {
    header(Command::Local, Protocol::Unspecified, Addresses::Unspecified)
}

fn header(command: Command, protocol: Protocol, addresses: Addresses) -> io::Result<Vec<u8>> {
    Builder::with_addresses(Version::Two | command, protocol, addresses).build()
}

/// Reads a header.
pub async fn read_header(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Hail> {
    let mut bytes = vec![0; FIXED_BYTES];
    from.read_exact(&mut bytes).await?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if !bytes.starts_with(v2::PROTOCOL_PREFIX) {
        return Err(invalid(
            "this port is for other sidecars of the pool: clients use the port of listen.tcp",
        ));
    }
    let rest = match bytes.as_slice() {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if rest > REST_BYTES_MAX {
        return Err(invalid("the header is too long"));
    }
    bytes.resize(FIXED_BYTES + rest, 0);
    from.read_exact(bytes.get_mut(FIXED_BYTES..).unwrap_or_default())
        .await?;
    let header = Header::try_from(bytes.as_slice()).map_err(|error| invalid(&error.to_string()))?;
    Ok(match (header.command, &header.addresses) {
        (Command::Local, _) => Hail::Probe,
        (_, Addresses::IPv4(v4)) => Hail::Client(Some((v4.source_address, v4.source_port).into())),
        (_, Addresses::IPv6(v6)) => Hail::Client(Some((v6.source_address, v6.source_port).into())),
        _ => Hail::Client(None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    async fn read(bytes: &[u8]) -> (Result<Hail, io::Error>, usize) {
        let mut rest = bytes;
        (read_header(&mut rest).await, rest.len())
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_last_byte_and_no_further() {
        let clients = [
            Some((address("10.1.2.3:4567"), address("127.0.0.1:6379"))),
            Some((address("[fd00::7]:4567"), address("[::1]:6379"))),
            None,
        ];
        for client in clients {
            let mut bytes = header_for(client).unwrap();
            bytes.extend(b"PING\r\n");
            let (found, left) = read(&bytes).await;
            assert_eq!(found.unwrap(), Hail::Client(client.map(|(from, _)| from)));
            assert_eq!(left, 6);
        }
        assert_eq!(read(&probe().unwrap()).await.0.unwrap(), Hail::Probe);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let too_long = [v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat();
        let unknown_version = [v2::PROTOCOL_PREFIX, &[0x31, 0x11, 0, 0]].concat();
        for (bytes, said) in [
            (&b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n"[..], "listen.tcp"),
            (&too_long, "too long"),
            (&unknown_version, "version"),
            (b"\r\n\r\n", "eof"),
        ] {
            let error = read(bytes).await.0.unwrap_err().to_string();
            assert!(error.to_lowercase().contains(said), "{error}");
        }
    }
}
