//! Where a node listens: `host:port`, `[ipv6]:port` or `unix:/path`.
//!
//! A host name is kept as a name and resolved at each connect, so that a node may move behind its name. Nothing here
//! resolves or connects.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest path of a unix socket, in bytes: `sun_path` has 108, the last for the closing zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Longest host name, in bytes. RFC 1035.
const HOST_BYTES_MAX: usize = 253;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum NodeAddress {
    /// A host and a port.
    Tcp {
        /// An IP address (IPv6 without brackets) or a name.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

/// Why a text is not an address. It does not repeat the text, which may hold a password (`redis://:secret@host`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `redis://…`, `tcp://…`, `user:password@…`.
    #[error(
        "write only host and port, such as \"10.0.0.1:6379\": no scheme, no user, no password (they are settings)"
    )]
    Url,
    /// No port, or a port that is no number from 1 to 65535.
    #[error("write a host and a port from 1 to 65535, such as \"10.0.0.1:6379\", or \"unix:/path/to.sock\"")]
    Port,
    /// The host is empty, too long, or has characters no host has.
    #[error(
        "this is not a host name or an IP address: write it like \"10.0.0.1:6379\" or \"[fd00::1]:6379\""
    )]
    Host,
    /// The path is relative, empty or too long.
    #[error("write the absolute path of a unix socket, of at most 107 bytes, such as \"/run/redis.sock\"")]
    UnixPath,
}

/// Whether `path` can be the address of a unix socket: absolute, and not longer than the system allows.
pub(super) fn check_unix_path(path: &Path) -> Result<(), AddressError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if path.is_absolute() && bytes.len() <= UNIX_PATH_BYTES_MAX && !bytes.contains(&0) {
        Ok(())
    } else {
        Err(AddressError::UnixPath)
    }
}

impl NodeAddress {
    /// The address with a loopback name written as a number, so that two spellings of one server are found to be one.
    pub(super) fn canonical(&self) -> NodeAddress {
        match self {
            NodeAddress::Tcp { host, port } => {
                let host = match host.parse::<IpAddr>() {
                    Ok(ip) => ip.to_canonical().to_string(),
                    Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.to_string(),
                    Err(_) => host.to_ascii_lowercase(),
                };
                NodeAddress::Tcp { host, port: *port }
            }
            NodeAddress::Unix(path) => NodeAddress::Unix(path.components().collect()),
        }
    }

    /// Whether it is no address, but all of a host.
    pub(super) fn is_unspecified(&self) -> bool {
        match self {
            NodeAddress::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()),
            NodeAddress::Unix(_) => false,
        }
    }

    /// Whether a connection to this address would end at a listener on `listener`.
    pub(super) fn reaches(&self, listener: SocketAddr) -> bool {
        let NodeAddress::Tcp { host, port } = self.canonical() else {
            return false;
        };
        let same_host = host.parse::<IpAddr>().is_ok_and(|ip| {
            ip == listener.ip().to_canonical() || (listener.ip().is_unspecified() && ip.is_loopback())
        });
        same_host && port == listener.port()
    }
}

impl FromStr for NodeAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return check_unix_path(&path).map(|()| NodeAddress::Unix(path));
        }
        if text.contains("://") || text.contains('@') {
            return Err(AddressError::Url);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Port)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner
                .parse::<Ipv6Addr>()
                .map_err(|_| AddressError::Host)?
                .to_string(),
            None => host.to_owned(),
        };
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(plausible);
        if !is_name && host.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::Host);
        }
        // A bare IPv6 address would take its last group for the port.
        if host.contains(':') && !text.starts_with('[') {
            return Err(AddressError::Host);
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if digits && port > 0 => Ok(NodeAddress::Tcp { host, port }),
            _ => Err(AddressError::Port),
        }
    }
}

impl TryFrom<String> for NodeAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// As it is written.
impl Serialize for NodeAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for NodeAddress {
    /// The form that is read back by [`FromStr`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            NodeAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            NodeAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_are_read_and_written_back() {
        for text in [
            "127.0.0.1:7001",
            "redis-1.example.org:6379",
            "localhost:1",
            "[fd00::1]:6379",
            "unix:/run/redis.sock",
        ] {
            assert_eq!(
                text.parse::<NodeAddress>().map(|address| address.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_their_reason() {
        use AddressError::{Host, Port, UnixPath, Url};
        for (text, expected) in [
            ("", Port),
            ("127.0.0.1", Port),
            ("127.0.0.1:", Port),
            ("127.0.0.1:0", Port),
            ("127.0.0.1:+1", Port),
            ("127.0.0.1:65536", Port),
            (":6379", Host),
            ("a b:6379", Host),
            ("fd00::1:6379", Host),
            ("[fd00::1:6379", Host),
            ("[redis]:6379", Host),
            ("redis://:secret@10.0.0.1:6379", Url),
            ("default:secret@10.0.0.1:6379", Url),
            ("unix:redis.sock", UnixPath),
            ("unix:", UnixPath),
        ] {
            assert_eq!(text.parse::<NodeAddress>(), Err(expected), "{text}");
        }
        assert_eq!(
            format!("unix:/{}", "x".repeat(107)).parse::<NodeAddress>(),
            Err(UnixPath)
        );
    }

    #[test]
    fn one_server_has_one_canonical_address() {
        let canonical = |text: &str| text.parse::<NodeAddress>().unwrap().canonical();
        assert_eq!(canonical("LOCALHOST:7001"), canonical("127.0.0.1:7001"));
        assert_eq!(canonical("[::ffff:10.0.0.1]:7001"), canonical("10.0.0.1:7001"));
        assert_eq!(
            canonical("unix:/run//redis.sock"),
            canonical("unix:/run/redis.sock")
        );
        assert_ne!(canonical("10.0.0.1:7001"), canonical("10.0.0.1:7002"));
    }

    #[test]
    fn a_node_behind_our_own_listener_is_recognised() {
        let reaches = |node: &str, listener: &str| {
            node.parse::<NodeAddress>()
                .unwrap()
                .reaches(listener.parse::<SocketAddr>().unwrap())
        };
        assert!(reaches("localhost:6379", "127.0.0.1:6379"));
        assert!(reaches("127.0.0.1:6379", "0.0.0.0:6379"));
        assert!(!reaches("127.0.0.1:6380", "0.0.0.0:6379"));
        assert!(!reaches("10.0.0.1:6379", "127.0.0.1:6379"));
        assert!(!reaches("unix:/run/redis.sock", "127.0.0.1:6379"));
    }
}
