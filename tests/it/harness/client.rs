//! A small blocking client: what an application's driver does, with nothing hidden. It never reconnects and never
//! retries by itself, so that a test knows exactly what was sent and what was answered.

use super::reply::Reply;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longer than every timeout of the sidecar: a client that waits in vain is a failure, not a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Where a server listens; shown as `proxy.toml` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What can be an argument of a command.
pub trait ToArg {
    fn to_arg(&self) -> Vec<u8>;
}

impl ToArg for &str {
    fn to_arg(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl ToArg for String {
    fn to_arg(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl ToArg for Vec<u8> {
    fn to_arg(&self) -> Vec<u8> {
        self.clone()
    }
}

impl<T: ToArg> ToArg for &T {
    fn to_arg(&self) -> Vec<u8> {
        (*self).to_arg()
    }
}

macro_rules! number_to_arg {
    ($($kind:ty),*) => { $(impl ToArg for $kind {
        fn to_arg(&self) -> Vec<u8> {
            self.to_string().into_bytes()
        }
    })* };
}
number_to_arg!(i32, i64, u16, u64, usize, f64);

/// `cmd!["SET", key, 5]`: the arguments of one command.
#[macro_export]
macro_rules! cmd {
    ($($arg:expr),* $(,)?) => { Vec::from([$($crate::harness::ToArg::to_arg(&$arg)),*]) };
}

/// A command as RESP.
pub fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<Conn>,
}

impl Client {
    pub fn try_connect(to: &Endpoint) -> io::Result<Self> {
        let conn = match to {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                Conn::Tcp(stream)
            }
            Endpoint::Unix(path) => Conn::Unix(UnixStream::connect(path)?),
        };
        let mut client = Self {
            stream: BufReader::new(conn),
        };
        client.set_timeout(PATIENCE)?;
        Ok(client)
    }

    #[track_caller]
    pub fn connect(to: &Endpoint) -> Self {
        Self::try_connect(to).unwrap_or_else(|e| panic!("cannot connect to {to}: {e}"))
    }

    /// For reads and for writes.
    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        match self.stream.get_ref() {
            Conn::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Conn::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn recv(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.stream)
    }

    /// Waits for bytes of a reply, and takes none of them: whether there are some.
    pub fn has_something(&mut self, timeout: Duration) -> io::Result<bool> {
        self.set_timeout(timeout)?;
        let found = match self.stream.fill_buf() {
            Ok([]) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(e) => Err(e),
        };
        self.set_timeout(PATIENCE)?;
        found
    }

    pub fn try_call(&mut self, args: &[Vec<u8>]) -> io::Result<Reply> {
        self.send_raw(&encode(args))?;
        self.recv()
    }

    /// One command and its reply; the test fails if the connection does.
    #[track_caller]
    pub fn call(&mut self, args: Vec<Vec<u8>>) -> Reply {
        match self.try_call(&args) {
            Ok(reply) => reply,
            Err(e) => panic!("no reply to {}: {e}", super::reply::printable(&args.join(&b' '))),
        }
    }

    /// All commands in one write, then all replies.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<Vec<Reply>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.recv()).collect()
    }

    /// What the server still sends until it closes the connection: `None` if it kept it open for `timeout`.
    pub fn read_to_close(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        self.set_timeout(timeout).ok()?;
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => Some(rest),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(_) => Some(rest),
        }
    }
}
