//! Sockets: TCP or unix, in two halves.
//!
//! The read half is polled by one task; the write half is written to directly by whoever has bytes ready (so that one
//! event leads to one `write`), and waited for only after a partial write.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use crate::config::NodeAddress;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Connects within `timeout`.
    pub async fn connect(address: &NodeAddress, timeout: Duration) -> io::Result<Self> {
        let connecting = async {
            Ok::<_, io::Error>(match address {
                NodeAddress::Tcp { host, port } => {
                    Self::Tcp(TcpStream::connect((host.as_str(), *port)).await?)
                }
                NodeAddress::Unix(path) => Self::Unix(UnixStream::connect(path).await?),
            })
        };
        let socket = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection within the time limit"))??;
        socket.tune();
        Ok(socket)
    }

    /// Sets what every connection of ours needs.
    pub fn tune(&self) {
        if let Self::Tcp(stream) = self {
            let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
            // A socket that cannot be tuned still works.
            drop(stream.set_nodelay(true));
            drop(SockRef::from(stream).set_tcp_keepalive(&keepalive));
        }
    }

    /// Where the other side is, as `CLIENT LIST` shows it.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "?:0".into(), |a| a.to_string()),
            Self::Unix(_) => self.local(),
        }
    }

    /// Where it has connected to, in the same form: of a unix socket its path, and 0 for a port.
    pub fn local(&self) -> String {
        match self {
            Self::Tcp(stream) => stream
                .local_addr()
                .map_or_else(|_| "?:0".into(), |a| a.to_string()),
            Self::Unix(stream) => {
                let address = stream.local_addr().ok();
                let path = address.as_ref().and_then(|a| a.as_pathname());
                format!("{}:0", path.map_or_else(String::new, |p| p.display().to_string()))
            }
        }
    }

    /// Both addresses of a TCP connection, the other side's first.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(stream) => Some((stream.peer_addr().ok()?, stream.local_addr().ok()?)),
            Self::Unix(_) => None,
        }
    }

    /// Waits until the socket takes something.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Writes what the socket takes at once.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// The number that the system has given it.
    pub fn fd(&self) -> i32 {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Splits the socket.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

/// The half that is read from.
#[derive(Debug)]
pub enum ReadHalf {
    /// Over TCP.
    Tcp(tcp::OwnedReadHalf),
    /// Over a unix socket.
    Unix(unix::OwnedReadHalf),
}

impl ReadHalf {
    /// Waits until there is something to be read.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.readable().await,
            Self::Unix(half) => half.readable().await,
        }
    }

    /// Reads what has come.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_read(buffer),
            Self::Unix(half) => half.try_read(buffer),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

/// The half that is written to. Closes the connection's sending side when dropped.
#[derive(Debug)]
pub enum WriteHalf {
    /// Over TCP.
    Tcp(tcp::OwnedWriteHalf),
    /// Over a unix socket.
    Unix(unix::OwnedWriteHalf),
}

impl WriteHalf {
    /// Writes what the socket takes at once.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp(half), [one]) => half.try_write(one),
            (Self::Tcp(half), _) => half.try_write_vectored(slices),
            (Self::Unix(half), [one]) => half.try_write(one),
            (Self::Unix(half), _) => half.try_write_vectored(slices),
        }
    }

    /// Whether the other side has closed the connection, as far as has come and all before it has been read.
    pub fn is_left(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(half) => SockRef::from(half.as_ref()).peek(&mut byte),
            Self::Unix(half) => SockRef::from(half.as_ref()).peek(&mut byte),
        };
        match peeked {
            Ok(n) => n == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Waits until the socket takes something.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.writable().await,
            Self::Unix(half) => half.writable().await,
        }
    }
}
