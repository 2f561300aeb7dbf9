//! Messages between threads.
//!
//! They travel in bunches: whatever is for one worker since its mailbox last took something. A bunch waits for room, so
//! a slow worker slows those who write to it; what can wait in an outbox is bounded by what clients may have pending.

use std::rc::Rc;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tracing::debug;

use super::Worker;
use crate::ingress;
use crate::net::Socket;
use crate::request::NodeId;
use crate::shared::{Arrival, Message, WorkerView};

impl Worker {
    /// Sends this worker's messages to `peer`, for ever.
    pub(super) async fn forward_to(self: Rc<Self>, peer: usize) {
        let Some(sender) = self.shared.workers.get(peer) else {
            return;
        };
        let ready = self
            .core
            .borrow()
            .outboxes
            .get(peer)
            .map(|outbox| outbox.ready.clone())
            .unwrap_or_default();
        loop {
            ready.notified().await;
            let messages = match self.core.borrow_mut().outboxes.get_mut(peer) {
                Some(outbox) => std::mem::take(&mut outbox.messages),
                None => return,
            };
            if !messages.is_empty() && sender.send(messages).await.is_err() {
                return;
            }
        }
    }

    /// Reads this worker's mailbox until all its senders are gone.
    pub(super) async fn read_mail(self: Rc<Self>, mut mailbox: mpsc::Receiver<Vec<Message>>) {
        while let Some(messages) = mailbox.recv().await {
            for message in messages {
                self.handle(message);
            }
        }
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Accept(stream, from) => match TcpStream::from_std(stream) {
                Ok(stream) => self.welcome(Arrival {
                    socket: Socket::Tcp(stream),
                    from,
                }),
                Err(error) => debug!(%error, "a client was lost before its first byte"),
            },
            Message::AcceptUnix(stream) => match UnixStream::from_std(stream) {
                Ok(stream) => self.welcome(Arrival::new(Socket::Unix(stream))),
                Err(error) => debug!(%error, "a client was lost before its first byte"),
            },
            Message::Request(request) => self.with(|core| core.sequencer.order(request)),
            Message::Leave(inside) => drop(inside),
            Message::Outcome(to, outcome) => self.with(|core| self.answer(core, to, outcome)),
            Message::Publish(publication, publisher) => {
                self.with(|core| self.order_publication(core, publication, publisher));
            }
            Message::Deliver(delivery) => self.with(|core| self.deliver_publication(core, &delivery)),
            Message::Recorded(sets) => self.with(|core| core.sequencer.recorded(&sets)),
            Message::RollCall(roll_call, to) => self.with(|core| self.answer_roll(core, &roll_call, to)),
            Message::Monitored(line) => self.with(|core| self.show_line(core, &line)),
            // Whoever asked may have gone.
            Message::View(to) => drop(to.send(self.view())),
            Message::Nodes(nodes) => self.make_room(nodes),
            Message::Operate(operation) => self.operate(operation),
        }
    }

    fn welcome(self: &Rc<Self>, arrival: Arrival) {
        arrival.socket.tune();
        spawn_local(ingress::serve(self.clone(), arrival));
    }

    fn view(&self) -> WorkerView {
        let core = self.core.borrow();
        let table = self.shared.table.load();
        WorkerView {
            ready: core.sequencer.is_ready(),
            nodes: (0..table.nodes.len())
                .map(|node| core.sequencer.node_view(node as NodeId))
                .collect(),
            partitions: (0..table.partitions())
                .filter_map(|p| core.sequencer.partition_view(p))
                .collect(),
        }
    }
}
