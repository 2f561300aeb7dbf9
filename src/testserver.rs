//! Real `redis-server` processes for the unit tests, and a blocking client that gives replies as their bytes.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::resp::{Args, ReplyScanner, Span};

/// A server of its own on a unix socket in a directory of its own, killed when dropped.
pub(crate) struct Server {
    process: Child,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it answers. A server that cannot be started fails the test.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--enable-debug-command",
                "yes",
                "--unixsocket",
            ])
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server must be installed");
        let server = Server { process, folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = server.connect() {
            assert!(Instant::now() < deadline, "redis-server does not answer: {error}");
            std::thread::sleep(Duration::from_millis(2));
        }
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> crate::config::NodeAddress {
        crate::config::NodeAddress::Unix(self.folder.path().join("redis.sock"))
    }

    /// A connection that speaks RESP2 or RESP3.
    pub(crate) fn client(&self, protocol: u8) -> Client {
        let mut client = Client {
            connection: self.connect().unwrap(),
            buf: Vec::new(),
        };
        let hello = client.call(&words(&format!("HELLO {protocol}")));
        assert!(!hello.starts_with(b"-"), "{hello:?}");
        client
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        let connection = UnixStream::connect(self.folder.path().join("redis.sock"))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// One connection.
pub(crate) struct Client {
    connection: UnixStream,
    buf: Vec<u8>,
}

impl Client {
    /// The reply to a command, as its bytes.
    pub(crate) fn call(&mut self, args: &[Vec<u8>]) -> Vec<u8> {
        self.raw(Sent::new(args).args().bytes)
    }

    /// The replies to several commands sent at once.
    pub(crate) fn calls(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
        let frames: Vec<u8> = commands.iter().flat_map(|args| Sent::new(args).bytes).collect();
        self.connection.write_all(&frames).unwrap();
        commands.iter().map(|_| self.reply()).collect()
    }

    /// The reply to a command given in words.
    pub(crate) fn line(&mut self, line: &str) -> Vec<u8> {
        self.call(&words(line))
    }

    /// The reply to a command given as its bytes.
    pub(crate) fn raw(&mut self, frame: &[u8]) -> Vec<u8> {
        self.connection.write_all(frame).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Vec<u8> {
        let mut scanner = ReplyScanner::default();
        loop {
            if let Some((len, _)) = scanner.scan(&self.buf, 1).unwrap() {
                return self.buf.drain(..len).collect();
            }
            let mut chunk = [0; 16 * 1024];
            match self.connection.read(&mut chunk) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(n) => self.buf.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }
}

/// The words of a line; `'…'` keeps blanks, `''` is an empty word.
pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    for c in line.bytes() {
        match c {
            b'\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' | b'\n' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A command with its bytes, as a client would have sent it.
pub(crate) struct Sent {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Sent {
    pub(crate) fn new(args: &[Vec<u8>]) -> Self {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        let mut spans = Vec::new();
        for arg in args {
            bytes.extend(format!("${}\r\n", arg.len()).bytes());
            spans.push(Span {
                start: bytes.len() as u32,
                len: arg.len() as u32,
            });
            bytes.extend(arg);
            bytes.extend(b"\r\n");
        }
        Sent { bytes, spans }
    }

    pub(crate) fn args(&self) -> Args<'_> {
        Args {
            bytes: &self.bytes,
            spans: &self.spans,
        }
    }
}
