//! The door: where clients come in, whoever serves them.
//!
//! A client that comes while this sidecar serves goes to a worker, in turn. While another one does, it is passed on; while nobody does, it
//! waits for a moment, since most of what a pool waits for is over by then, and is told why otherwise. What comes from another sidecar
//! is a client, too, and says first where it is.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::command::ErrorReply;
use crate::config::{Config, NodeAddress};
use crate::net::Socket;
use crate::serve::{ServeError, listen_error};
use crate::service::Service;
use crate::shared::{Arrival, Message, Shared};
use crate::standby::{Hail, NOT_YET, Standby, TAKEN, read_header};

/// How long clients just wait once there is a reason why nobody serves.
const WAITED_FOR: Duration = Duration::from_secs(1);

/// How often it is tried again meanwhile to pass them on.
const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long they wait while the pool is being opened, and nothing is known that is in the way.
const OPENED_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may take for its first command once it is to be told that nobody serves.
const TURNED_AWAY_AFTER: Duration = Duration::from_secs(5);

/// How long another sidecar may take to say where its client is.
const HEADER_WITHIN: Duration = Duration::from_secs(2);

/// How long it may take to write an error.
const SAID_WITHIN: Duration = Duration::from_millis(100);

/// Clients that wait, or are told to come again, at most; the others wait until they are accepted.
const WAITING_MAX: usize = 100;

/// Pause after a client that could not be accepted: usually there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Where clients come from.
#[derive(Debug)]
pub struct Door {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
    peer: Option<TcpListener>,
    config: Arc<Config>,
    service: watch::Receiver<Service>,
    standby: Arc<Standby>,
}

/// Through which of its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entrance {
    /// Applications.
    Client,
    /// Other sidecars.
    Peer,
}

impl Door {
    /// Binds all that is to be listened on, so that a mistake in an address is told at once.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn bind(
        config: Arc<Config>,
        service: watch::Receiver<Service>,
        standby: Arc<Standby>,
    ) -> Result<Self, ServeError> {
        let listen = &config.listen;
        let tcp = bind_tcp(listen.tcp, "listening").await?;
        let peer = bind_tcp(listen.peer, "listening for other sidecars").await?;
        let unix = match &listen.unix {
            Some(path) => {
                remove_stale(path).await;
                let listener = UnixListener::bind(path).map_err(listen_error(path.display()))?;
                info!(path = %path.display(), "listening");
                Some((listener, path.clone()))
            }
            None => None,
        };
        Ok(Self {
            tcp,
            unix,
            peer,
            config,
            service,
            standby,
        })
    }

    /// Where other sidecars reach this one, if they do.
    pub fn advertised(&self) -> Option<NodeAddress> {
        let bound = self.peer.as_ref()?.local_addr().ok()?;
        let advertised = self.config.listen.advertise.clone();
        Some(advertised.unwrap_or_else(|| NodeAddress::Tcp {
            host: bound.ip().to_string(),
            port: bound.port(),
        }))
    }

    /// Lets clients in, for ever.
    pub async fn keep(&self) -> std::convert::Infallible {
        let (never, _) = tokio::join!(self.let_in(Entrance::Client), self.let_in(Entrance::Peer));
        never
    }

    /// Removes what is left of it in the file system.
    pub fn close(&self) {
        if let Some((_, path)) = &self.unix {
            drop(std::fs::remove_file(path));
        }
    }

    async fn let_in(&self, entrance: Entrance) -> std::convert::Infallible {
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        let mut guests = JoinSet::new();
        loop {
            let next = async {
                let permit = waiting.clone().acquire_owned().await.ok();
                (permit, self.accept(entrance).await)
            };
            let (permit, socket) = tokio::select! {
                next = next => next,
                Some(_) = guests.join_next() => continue,
            };
            let here = match &*self.service.borrow() {
                Service::Here(shared) if entrance == Entrance::Client => Some(shared.clone()),
                _ => None,
            };
            if let Some(shared) = here {
                take_in(&shared, Arrival::new(socket)).await;
                continue;
            }
            let guest = Guest {
                config: self.config.clone(),
                service: self.service.clone(),
                standby: self.standby.clone(),
                permit,
            };
            match entrance {
                Entrance::Client => guests.spawn(guest.find_service(socket)),
                Entrance::Peer => guests.spawn(guest.be_handed(socket)),
            };
        }
    }

    async fn accept(&self, entrance: Entrance) -> Socket {
        loop {
            let accepted = match entrance {
                Entrance::Peer => accept_tcp(self.peer.as_ref()).await,
                Entrance::Client => tokio::select! {
                    accepted = accept_tcp(self.tcp.as_ref()) => accepted,
                    accepted = self.accept_unix() => accepted,
                },
            };
            match accepted {
                Ok(socket) => return socket,
                Err(error) => {
                    warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_unix(&self) -> io::Result<Socket> {
        match &self.unix {
            Some((listener, _)) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
            None => std::future::pending().await,
        }
    }
}

async fn bind_tcp(address: Option<SocketAddr>, what: &str) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.map_err(listen_error(address))?;
    info!(address = %listener.local_addr().unwrap_or(address), "{what}");
    Ok(Some(listener))
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<Socket> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
        None => std::future::pending().await,
    }
}

/// Removes a socket that nobody listens on: what a killed sidecar leaves behind.
async fn remove_stale(path: &Path) {
    let refused = tokio::net::UnixStream::connect(path).await;
    if refused.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        drop(std::fs::remove_file(path));
    }
}

/// A client that no worker has yet.
struct Guest {
    config: Arc<Config>,
    service: watch::Receiver<Service>,
    standby: Arc<Standby>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Guest {
    /// Brings a client to whoever serves.
    async fn find_service(mut self, mut client: Socket) {
        let came = Instant::now();
        let mut leaves = None;
        loop {
            let service = self.service.borrow_and_update().clone();
            let (why, since) = match &service {
                Service::Here(shared) => return take_in(shared, Arrival::new(client)).await,
                Service::There(_) if self.standby.relayed.load(Relaxed) >= self.config.limits.clients_max => {
                    return say(&client, &too_many()).await;
                }
                Service::There(active) => {
                    let timeout = self.config.timeouts.connect;
                    let connected = tokio::select! {
                        connected = self.standby.connect(&client, active, timeout) => connected,
                        changed = self.service.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return,
                        },
                    };
                    if let Some(socket) = connected {
                        self.permit = None;
                        return self
                            .standby
                            .relay(client, socket, active, &mut self.service)
                            .await;
                    }
                    let address = &active.address;
                    let why = format!("the sidecar at {address}, which serves the pool, does not answer");
                    (why, came)
                }
                Service::Nobody(wait) => match wait.since {
                    Some(since) => (wait.why.clone(), since),
                    // Who comes while the pool is just being opened waits for that, but not for ever.
                    None => (
                        "the pool is being opened".to_owned(),
                        came + OPENED_WITHIN - WAITED_FOR,
                    ),
                },
            };
            let is_due = since.elapsed() >= WAITED_FOR;
            if is_due {
                leaves.get_or_insert_with(|| Instant::now() + TURNED_AWAY_AFTER);
            }
            tokio::select! {
                changed = self.service.changed() => if changed.is_err() {
                    return;
                },
                asks = asks(&mut client, leaves.unwrap_or(came)), if is_due => {
                    if asks {
                        // As a server does that loads its file: with drivers, that is a reason to try again.
                        let line = format!("LOADING Ringfence is not serving yet: {why}");
                        say(&client, &ErrorReply::new(line)).await;
                    }
                    return;
                },
                () = tokio::time::sleep(TRY_INTERVAL) => {}
            }
        }
    }

    /// Takes a client from another sidecar, if this one serves. The other one tells it why, if not.
    async fn be_handed(mut self, socket: Socket) {
        let mut arrival = Arrival::new(socket);
        match tokio::time::timeout(HEADER_WITHIN, read_header(&mut arrival.socket)).await {
            Ok(Ok(Hail::Client(from))) => arrival.from = from,
            Ok(Ok(Hail::Probe)) => {
                let serves = matches!(*self.service.borrow(), Service::Here(_));
                write(&arrival.socket, &[if serves { TAKEN } else { NOT_YET }]).await;
                return;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                debug!(%error, peer = arrival.socket.peer(), "not a sidecar");
                return say(&arrival.socket, &ErrorReply::new(format!("ERR {error}"))).await;
            }
            Ok(Err(_)) | Err(_) => return,
        }
        let serves = |service: &Service| matches!(service, Service::Here(_));
        drop(tokio::time::timeout(WAITED_FOR, self.service.wait_for(serves)).await);
        let Service::Here(shared) = self.service.borrow().clone() else {
            return;
        };
        // From here on what the client sends is answered, or its connection ends.
        if write(&arrival.socket, &[TAKEN]).await {
            take_in(&shared, arrival).await;
        }
    }
}

/// Whether a client asks for something until then. An answer must not come before the question; and one that is not read would cut the
/// answer off.
async fn asks(client: &mut Socket, until: Instant) -> bool {
    let mut question = vec![0; 16 * 1024];
    let until = tokio::time::Instant::from_std(until);
    matches!(
        tokio::time::timeout_at(until, client.read(&mut question)).await,
        Ok(Ok(1..))
    )
}

/// Says one thing; the connection is closed when the socket is dropped.
async fn say(socket: &Socket, error: &ErrorReply) {
    write(socket, &error.to_bytes()).await;
}

/// Writes the first bytes of a connection, for which there is room; but the system has to say so first. Whether that was done.
async fn write(socket: &Socket, bytes: &[u8]) -> bool {
    drop(tokio::time::timeout(SAID_WITHIN, socket.writable()).await);
    socket.try_write(bytes).is_ok_and(|n| n == bytes.len())
}

/// What Redis says.
fn too_many() -> ErrorReply {
    ErrorReply::new("ERR max number of clients reached".to_owned())
}

/// Hands a client to one of the workers, in turn.
async fn take_in(shared: &Arc<Shared>, arrival: Arrival) {
    if shared.clients.load(Relaxed) >= shared.config.limits.clients_max {
        shared.rejected_clients.fetch_add(1, Relaxed);
        return say(&arrival.socket, &too_many()).await;
    }
    let turn = shared.clients.fetch_add(1, Relaxed);
    let id = turn % shared.workers.len().max(1);
    let Some(worker) = shared.workers.get(id) else {
        return;
    };
    match Message::accept(arrival) {
        Ok(message) => drop(worker.send(vec![message]).await),
        Err(error) => {
            shared.clients.fetch_sub(1, Relaxed);
            warn!(%error, "a client was lost before its first byte");
        }
    }
}
