//! A TCP relay in front of a node, for what cannot be done to a process: a cut, a link that swallows bytes in one
//! direction, a slow link.

use super::client::Endpoint;
use super::wait::Port;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a pump looks whether it was told something new.
const TICK: Duration = Duration::from_millis(10);

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// Connections stay, the sidecar's bytes do not reach the node (they wait).
    HangToNode,
    /// Connections stay, the node's bytes do not reach the sidecar (they wait).
    HangToSidecar,
    HangBoth,
    /// Connections are closed; new ones are closed at once.
    Cut,
    /// Every read waits so long first.
    Slow(Duration),
}

#[derive(Debug)]
struct Shared {
    flow: Mutex<Flow>,
    to: Mutex<SocketAddr>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
    bytes: AtomicU64,
}

impl Shared {
    fn flow(&self) -> Flow {
        *self.flow.lock().expect("relay lock")
    }

    fn close_all(&self) {
        for stream in self.connections.lock().expect("relay lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Listens on a port of its own and passes everything on to one node.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    shared: Arc<Shared>,
}

impl Relay {
    pub fn start(to: &Endpoint) -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(port.address()).expect("relay port");
        let shared = Arc::new(Shared {
            flow: Mutex::new(Flow::Pass),
            to: Mutex::new(tcp(to)),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &for_thread));
        Self { port, shared }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.port.address())
    }

    pub fn set(&self, flow: Flow) {
        *self.shared.flow.lock().expect("relay lock") = flow;
        if flow == Flow::Cut {
            self.shared.close_all();
        }
    }

    /// Connections end, and new ones go to another node.
    pub fn point_to(&self, to: &Endpoint) {
        *self.shared.to.lock().expect("relay lock") = tcp(to);
        self.shared.close_all();
    }

    /// How many bytes went through so far, both ways together.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.close_all();
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.port.address());
    }
}

fn tcp(endpoint: &Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Tcp(address) => *address,
        Endpoint::Unix(_) => panic!("a relay needs a TCP node"),
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for inbound in listener.incoming().flatten() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        if shared.flow() == Flow::Cut {
            continue;
        }
        let to = *shared.to.lock().expect("relay lock");
        let Ok(outbound) = TcpStream::connect(to) else {
            continue;
        };
        let (Ok(in_copy), Ok(out_copy)) = (inbound.try_clone(), outbound.try_clone()) else {
            continue;
        };
        {
            let mut connections = shared.connections.lock().expect("relay lock");
            connections.extend(
                [&inbound, &outbound]
                    .into_iter()
                    .filter_map(|stream| stream.try_clone().ok()),
            );
        }
        let (up, down) = (Arc::clone(shared), Arc::clone(shared));
        std::thread::spawn(move || pump(inbound, outbound, &up, Flow::HangToNode));
        std::thread::spawn(move || pump(out_copy, in_copy, &down, Flow::HangToSidecar));
    }
}

/// Passes bytes on until one side closes. `hang` is the flow that stops this direction.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, hang: Flow) {
    let mut buffer = vec![0; 64 * 1024];
    let _ = from.set_read_timeout(Some(TICK));
    let _ = to.set_nodelay(true);
    while !shared.ended.load(Ordering::Relaxed) {
        match shared.flow() {
            Flow::Cut => break,
            flow if flow == hang || flow == Flow::HangBoth => {
                std::thread::sleep(TICK);
                continue;
            }
            _ => {}
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                // A read that began before the link was told to hang must not slip through.
                while matches!(shared.flow(), flow if flow == hang || flow == Flow::HangBoth) {
                    if shared.ended.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(TICK);
                }
                // Behind the read: one that has begun before is slow, too.
                if let Flow::Slow(pause) = shared.flow() {
                    std::thread::sleep(pause);
                }
                if shared.flow() == Flow::Cut || to.write_all(&buffer[..count]).is_err() {
                    break;
                }
                shared.bytes.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

mod checks_that_it {
    use super::*;
    use crate::cmd;
    use crate::harness::client::PATIENCE;
    use crate::harness::{Client, Node, NodeOptions};
    use std::time::Instant;

    #[test]
    fn passes_hangs_slows_and_cuts() {
        let node = Node::start("plain", NodeOptions::default());
        let relay = Relay::start(&node.endpoint());
        let mut client = Client::connect(&relay.endpoint());
        let hangs = |client: &mut Client| {
            client.set_timeout(Duration::from_millis(300)).expect("timeout");
            let result = client.try_call(&cmd!["INCR", "n"]);
            client.set_timeout(PATIENCE).expect("timeout");
            result.is_err()
        };
        assert!(client.call(cmd!["INCR", "n"]).int() == Some(1));
        relay.set(Flow::HangToSidecar);
        assert!(hangs(&mut client), "an answer came through");
        relay.set(Flow::Pass);
        assert!(
            client.recv().is_ok_and(|reply| reply.int() == Some(2)),
            "what hung was lost"
        );
        relay.set(Flow::HangToNode);
        assert!(hangs(&mut client));
        assert!(
            node.client().call(cmd!["GET", "n"]).text().as_deref() == Some("2"),
            "a command came through"
        );
        relay.set(Flow::Slow(Duration::from_millis(50)));
        assert!(client.recv().is_ok_and(|reply| reply.int() == Some(3)));
        let start = Instant::now();
        assert!(client.try_call(&cmd!["PING"]).is_ok());
        assert!(start.elapsed() > Duration::from_millis(50), "not slow");
        relay.set(Flow::Cut);
        assert!(client.try_call(&cmd!["PING"]).is_err());
        let refused =
            Client::try_connect(&relay.endpoint()).and_then(|mut client| client.try_call(&cmd!["PING"]));
        assert!(refused.is_err(), "connected through a cut");
        relay.set(Flow::Pass);
        let mut client = Client::connect(&relay.endpoint());
        assert!(client.call(cmd!["PING"]).error().is_none());
        assert!(relay.bytes() > 0);
    }
}
