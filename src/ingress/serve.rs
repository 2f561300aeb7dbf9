//! A client's task: read, cut into commands, dispatch; wait when there is reason to.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use tracing::debug;

use super::blocking::Unblocking;
use super::client::{Client, Session};
use super::dispatch::Flow;
use crate::net::ReadHalf;
use crate::resp::{CommandScanner, Scanned};
use crate::shared::{Arrival, unix_ms};
use crate::worker::Worker;

/// Serves one client until it leaves.
pub async fn serve(worker: Rc<Worker>, Arrival { socket, from }: Arrival) {
    let shared = worker.shared().clone();
    let peer = from.map_or_else(|| socket.peer(), |address| address.to_string());
    let (local, fd) = (socket.local(), socket.fd());
    let (read, write) = socket.into_split();
    let session = Session {
        id: shared.next_client_id.fetch_add(1, Relaxed) + 1,
        authenticated: shared.config.listen.password.is_none(),
        since_ms: unix_ms(),
        peer,
        local,
        fd,
        ..Session::default()
    };
    debug!(client = session.id, peer = session.peer, "client connected");
    let id = worker.with(|core| {
        core.generation = core.generation.wrapping_add(1);
        let mut client = Client::new(core.generation, session, write);
        client.active_us = core.now_us;
        core.clients.insert(client) as u32
    });
    Conversation::new(&worker, id, read).hold().await;
    worker.with(|core| {
        worker.end_subscriptions(core, id);
        if let Some(blocked) = core
            .clients
            .try_remove(id as usize)
            .and_then(|client| client.blocked)
        {
            blocked.end(Unblocking::Gone);
        }
    });
    shared.clients.fetch_sub(1, Relaxed);
}

/// The beginning of a command that is shorter is copied, a longer one keeps the buffer it came in.
const OWN_BYTES_MIN: usize = 4096;

/// Bytes that are read ahead from a client that waits for data.
const READ_AHEAD_MAX: usize = 64 * 1024;

/// One client's bytes.
struct Conversation<'a> {
    worker: &'a Rc<Worker>,
    id: u32,
    read: ReadHalf,
    buf: BytesMut,
    scanner: CommandScanner,
}

impl<'a> Conversation<'a> {
    fn new(worker: &'a Rc<Worker>, id: u32, read: ReadHalf) -> Self {
        let command_max = worker.shared().config.limits.command_max.as_u64() as usize;
        Self {
            worker,
            id,
            read,
            buf: BytesMut::new(),
            scanner: CommandScanner::new(command_max),
        }
    }

    async fn hold(mut self) {
        let idle = self.worker.shared().config.timeouts.client_idle;
        loop {
            if !self.work_off().await {
                return;
            }
            let needed = self.scanner.needed_bytes();
            let blocked = self.is_blocked();
            let (worker, read, buf) = (self.worker, &mut self.read, &mut self.buf);
            let reading = poll_fn(|cx| worker.poll_read(cx, read, buf, needed));
            // A client that has to go is woken out of its read.
            let wake = worker.with(|core| core.clients.get(self.id as usize).map(|c| c.wake.clone()));
            let Some(wake) = wake else { return };
            let n = tokio::select! {
                biased;
                n = reading => n,
                () = wake.notified() => continue,
                () = tokio::time::sleep(idle), if !idle.is_zero() => {
                    // Who listens is not expected to say anything.
                    if blocked || self.listens() {
                        continue;
                    }
                    return;
                }
            };
            match n {
                // Nobody is there any more to wait for anything.
                Ok(0) if self.is_blocked() => return,
                Ok(0) => {
                    // What it has asked is still answered; it may only have closed its sending side.
                    self.leave_when_answered();
                    self.wait_while(|_| true).await;
                    return;
                }
                Ok(n) => worker.metrics().bytes_in.add(n as u64),
                Err(_) => return,
            }
        }
    }

    fn listens(&self) -> bool {
        let core = self.worker.core_mut();
        core.clients
            .get(self.id as usize)
            .is_some_and(|client| client.subscriptions.is_some())
    }

    /// Dispatches all commands that are there; `false` when the client is to be left.
    async fn work_off(&mut self) -> bool {
        let limits = &self.worker.shared().config.limits;
        let pending_max = limits.client_pending_max;
        let output_max = limits.client_output_max.as_u64() as usize;
        loop {
            if !self
                .wait_while(|client| client.has_enough(pending_max, output_max))
                .await
            {
                return false;
            }
            let (frame, spans) = match self.scanner.scan(&self.buf) {
                Ok(Scanned::Incomplete) => {
                    // Lets go of the shared buffer: a few bytes must not keep all of it.
                    if self.buf.len() < OWN_BYTES_MIN {
                        self.buf = BytesMut::from(&self.buf[..]);
                    }
                    return true;
                }
                Ok(Scanned::Nothing { len }) => {
                    drop(self.buf.split_to(len));
                    continue;
                }
                Ok(Scanned::Command { len, spans }) => (self.buf.split_to(len).freeze(), spans),
                Ok(Scanned::Inline { len, frame, spans }) => {
                    drop(self.buf.split_to(len));
                    (frame, spans)
                }
                Err(error) => {
                    self.say_goodbye(&error.to_string());
                    self.buf.clear();
                    return self.wait_while(|_| true).await;
                }
            };
            loop {
                match self
                    .worker
                    .with(|core| self.worker.dispatch(core, self.id, &frame, &spans))
                {
                    Flow::Next => break,
                    Flow::Leave => {
                        self.buf.clear();
                        return self.wait_while(|_| true).await;
                    }
                    Flow::Again => {
                        if !self.wait_for_turn().await {
                            return false;
                        }
                    }
                }
            }
        }
    }

    fn is_blocked(&self) -> bool {
        let core = self.worker.core_mut();
        core.clients
            .get(self.id as usize)
            .is_some_and(|c| c.blocked.is_some())
    }

    /// Sleeps until something is answered; `false` when the client is gone. While the client waits for data, it is listened
    /// to all the same, so that its end is noticed.
    async fn wait_for_turn(&mut self) -> bool {
        loop {
            let mut first_look = true;
            if !self.is_blocked() || self.buf.len() >= READ_AHEAD_MAX {
                return self.wait_while(|_| std::mem::take(&mut first_look)).await;
            }
            let needed = self.buf.len() + 1;
            let (worker, id) = (self.worker, self.id);
            let waiting = wait_while(worker, id, move |_| std::mem::take(&mut first_look));
            let (read, buf) = (&mut self.read, &mut self.buf);
            tokio::select! {
                biased;
                is_there = waiting => return is_there,
                n = poll_fn(|cx| worker.poll_read(cx, read, buf, needed)) => match n {
                    Ok(0) | Err(_) => return false,
                    Ok(n) => worker.metrics().bytes_in.add(n as u64),
                },
            }
        }
    }

    /// Sleeps as long as the client is as described; `false` when it is gone.
    async fn wait_while(&self, so: impl FnMut(&Client) -> bool) -> bool {
        wait_while(self.worker, self.id, so).await
    }

    /// Tells the client what is wrong with its protocol, in its turn, and lets it go then.
    fn say_goodbye(&self, why: &str) {
        self.worker
            .with(|core| self.worker.refuse(core, self.id, &format!("ERR {why}")));
        self.leave_when_answered();
    }

    fn leave_when_answered(&self) {
        self.worker.with(|core| {
            if let Some(client) = core.clients.get_mut(self.id as usize) {
                client.closing = true;
                client.dirty = true;
                core.dirty.push(self.id);
            }
        });
    }
}

/// See [`Conversation::wait_while`].
async fn wait_while(worker: &Worker, id: u32, mut so: impl FnMut(&Client) -> bool) -> bool {
    loop {
        let wake = {
            let mut core = worker.core_mut();
            match core.clients.get_mut(id as usize) {
                Some(client) if client.gone => return false,
                Some(client) if so(client) => {
                    client.waiting = true;
                    client.wake.clone()
                }
                Some(client) => {
                    client.waiting = false;
                    return true;
                }
                None => return false,
            }
        };
        wake.notified().await;
    }
}
