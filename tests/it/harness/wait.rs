//! Waiting for a condition (never for a time that should be enough), free ports that stay free, and one HTTP request.
//!
//! Ports come from below the kernel's ephemeral range and are held by a file lock as long as the test wants them: a
//! node that is killed finds its port free when it restarts, also while other test processes run and while thousands
//! of outgoing connections use up the ephemeral ones.

use std::fs::{File, create_dir_all};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const PORT_FIRST: u16 = 17_000;
const PORT_COUNT: u16 = 15_000;

/// A loopback port that nobody else of these tests gets while this value lives.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let dir = std::env::temp_dir().join("ringfence-test-ports");
        create_dir_all(&dir).expect("directory for port locks");
        let start = (std::process::id() as u16).wrapping_mul(97);
        for _ in 0..PORT_COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = PORT_FIRST + start.wrapping_add(step) % PORT_COUNT;
            let lock = File::create(dir.join(number.to_string())).expect("port lock file");
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free loopback port");
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}

/// Polls `condition` until it holds; fails the test after `timeout`, saying what it waited for.
#[track_caller]
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let held = wait_for(timeout, || condition().then_some(()));
    assert!(held.is_some(), "waited {timeout:?} in vain for: {what}");
}

/// Polls until there is something; `None` if there is nothing after `timeout`, for who has more to say about it.
pub fn wait_for<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        let late = Instant::now() > end;
        let found = look();
        if found.is_some() || late {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `GET path`: the status and the body.
pub fn http_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    http(address, "GET", path, "")
}

/// Any request: the status and the body.
pub fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not an HTTP answer: {answer:?}"),
        )
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(bad)?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok((status, unchunk(body)));
    }
    Ok((status, body.to_owned()))
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}
