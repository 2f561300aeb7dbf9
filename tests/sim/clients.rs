//! Clients whose command takes several steps: what `ingress::procedure` and `ingress::blocking` do, with any delay between an
//! answer and what it makes the client do.

use std::collections::VecDeque;

use ringfence::request::{Action, HoldId, Outcome, PartitionId};

use crate::commands;
use crate::history::History;
use crate::ops::{End, Kind};
use crate::sidecar::Life;
use crate::waiting::Waiting;
use crate::wire::{self, Reply};
use crate::world::{World, tell};

#[derive(Debug)]
pub struct Client {
    pub id: u64,
    /// Answers that it has not looked at yet.
    pub inbox: VecDeque<(u16, Outcome)>,
    pub role: Role,
}

#[derive(Debug)]
pub enum Role {
    InTurn(InTurn),
    Waits(Waiting),
}

/// What a client wants to have ordered.
#[derive(Debug)]
pub struct Ask {
    pub part: u16,
    pub partition: PartitionId,
    pub db: u16,
    pub under: HoldId,
    pub action: Action,
}

/// What follows for a client from an answer.
#[derive(Debug)]
pub enum Next {
    Goes(Vec<Ask>),
    Ends(Vec<Ask>, End, Vec<Reply>),
}

/// Holds two partitions, and does one thing in each.
#[derive(Debug)]
pub struct InTurn {
    hold: HoldId,
    /// In the order of their numbers.
    partitions: [PartitionId; 2],
    db: u16,
    /// In the order in which they are done.
    steps: Vec<(PartitionId, Action)>,
    held: usize,
    done: usize,
    replies: Vec<Reply>,
}

impl InTurn {
    fn new(history: &History, id: u64) -> Self {
        let op = &history.ops[id as usize];
        let steps = op.lists.iter().zip([Some(op.partition), op.other]);
        let steps = steps.map(|(list, partition)| {
            let action = match op.kind {
                Kind::PushInTurn => Action::Write(commands::push(list, id)),
                _ => Action::Read(commands::range(list)),
            };
            (partition.unwrap(), action)
        });
        let mut partitions = [op.partition, op.other.unwrap()];
        partitions.sort_unstable();
        Self {
            hold: HoldId::new(0, id),
            partitions,
            db: op.lists[0].0,
            steps: steps.collect(),
            held: 0,
            done: 0,
            replies: Vec::new(),
        }
    }

    fn ask(&self, partition: PartitionId, action: Action) -> Ask {
        Ask {
            part: 0,
            partition,
            db: self.db,
            under: self.hold,
            action,
        }
    }

    fn begin(&self) -> Vec<Ask> {
        vec![self.ask(self.partitions[0], Action::Hold)]
    }

    fn told(&mut self, outcome: &Outcome) -> Result<Next, String> {
        match outcome {
            Outcome::Done if self.held < 2 => {
                self.held += 1;
                if let Some(&next) = self.partitions.get(self.held) {
                    return Ok(Next::Goes(vec![self.ask(next, Action::Hold)]));
                }
            }
            Outcome::Reply { frames, .. } if self.held == 2 => {
                let replies = wire::replies(frames).ok_or("nonsense was answered")?;
                if replies.iter().any(|reply| matches!(reply, Reply::Error(_))) {
                    return Ok(self.end(false));
                }
                self.done += 1;
                self.replies.extend(replies);
            }
            Outcome::Refused(_) => return Ok(self.end(false)),
            Outcome::Unknown => return Ok(self.end(true)),
            other => return Err(format!("a step under a hold is answered {other:?}")),
        }
        match self.steps.get(self.done).cloned() {
            Some((partition, action)) => Ok(Next::Goes(vec![self.ask(partition, action)])),
            None => Ok(self.end(false)),
        }
    }

    fn end(&mut self, unknown: bool) -> Next {
        let end = match self.done {
            _ if unknown => End::Unknown,
            0 => End::NotDone,
            done if done == self.steps.len() => End::Done,
            _ => End::Unknown,
        };
        let release = |&partition| self.ask(partition, Action::Release);
        let releases = self.partitions[..self.held].iter().map(release).collect();
        Next::Ends(releases, end, std::mem::take(&mut self.replies))
    }
}

impl World {
    /// Begins an operation of several steps.
    pub fn begin_steps(&mut self, s: usize, id: u64) {
        let kind = self.history.ops[id as usize].kind;
        let (role, asks) = if kind.waits() {
            let two = self.rng.percent(40);
            let waiting = Waiting::new(&self.history, id, two, &mut self.rng);
            let asks = waiting.begin();
            (Role::Waits(waiting), asks)
        } else {
            let steps = InTurn::new(&self.history, id);
            let asks = steps.begin();
            (Role::InTurn(steps), asks)
        };
        let inbox = VecDeque::new();
        self.clients.insert(id, Client { id, inbox, role });
        self.send(s, id, asks);
    }

    pub fn send(&mut self, s: usize, id: u64, asks: Vec<Ask>) {
        for ask in asks {
            tell!(self, "{id} asks {} {}", ask.partition, ask.describe());
            let Ask {
                part,
                partition,
                db,
                under,
                action,
            } = ask;
            // Who is only told comes again with the others.
            if let Action::Wait(wait) = &action
                && wait.attempt.is_some()
            {
                self.lines.stand(id, (partition, db, wait.key.to_vec()));
            }
            let request = self.history.request(id, part, partition, db, under, action);
            let Life::Serves(serving) = &mut self.sidecars[s].life else {
                return;
            };
            serving.sequencer.order(request);
        }
    }

    /// Clients of this sidecar look at an answer, each with this probability, or lose their patience.
    pub fn act(&mut self, s: usize, percent: usize) -> Result<(), String> {
        let owner = self.sidecars[s].claim.instance;
        let mine = |id: &u64, history: &History| history.ops[*id as usize].owner == owner;
        let ids: Vec<u64> = self
            .clients
            .keys()
            .copied()
            .filter(|id| mine(id, &self.history))
            .collect();
        for id in ids {
            while self.rng.percent(percent)
                && let Some(client) = self.clients.get_mut(&id)
                && let Some((part, outcome)) = client.inbox.pop_front()
            {
                let next = match &mut client.role {
                    Role::InTurn(steps) => steps.told(&outcome),
                    Role::Waits(waiting) => waiting.told(part, &outcome),
                };
                self.goes_on(s, id, next.map_err(|why| format!("{id}: {why}"))?)?;
            }
        }
        Ok(())
    }

    /// A client that waits does so no longer.
    pub fn give_up_waiting(&mut self, s: usize, id: u64) -> Result<(), String> {
        let Some(Client {
            role: Role::Waits(waiting),
            ..
        }) = self.clients.get_mut(&id)
        else {
            return Ok(());
        };
        tell!(self, "{id} gives up");
        let next = waiting.give_up();
        self.goes_on(s, id, next)
    }

    fn goes_on(&mut self, s: usize, id: u64, next: Next) -> Result<(), String> {
        match next {
            Next::Goes(asks) => self.send(s, id, asks),
            Next::Ends(asks, end, replies) => {
                tell!(self, "{id} ends: {end:?} {replies:?}");
                self.clients.remove(&id);
                self.send(s, id, asks);
                self.lines.leave(id);
                self.history.finish(id, end, &replies)?;
            }
        }
        Ok(())
    }

    /// The sidecar is gone, and the connections of its clients with it.
    pub fn drop_clients(&mut self, owner: u32) {
        let gone: Vec<u64> = self
            .clients
            .keys()
            .copied()
            .filter(|&id| self.history.ops[id as usize].owner == owner)
            .collect();
        for id in gone {
            self.lines.leave(id);
            if let Some(client) = self.clients.remove(&id)
                && let Role::Waits(waiting) = &client.role
                && client.inbox.is_empty()
                && waiting.has_nothing()
            {
                self.history.open.remove(&id);
                self.history.ops[id as usize].end = Some(End::NotDone);
            }
        }
    }

    /// Whether nothing is under way for any client that takes several steps.
    pub fn all_wait(&self) -> bool {
        let idle = |client: &Client| {
            client.inbox.is_empty() && matches!(&client.role, Role::Waits(waiting) if waiting.is_still())
        };
        self.clients.values().all(idle)
    }
}

impl Ask {
    fn describe(&self) -> String {
        match &self.action {
            Action::Wait(wait) => format!("to wait at {}", String::from_utf8_lossy(&wait.key)),
            Action::Forget(_, key) => format!("to be forgotten at {}", String::from_utf8_lossy(key)),
            Action::LookAgain(key) => format!("to look again at {}", String::from_utf8_lossy(key)),
            Action::Write(commands) | Action::Read(commands) => {
                format!("{:?}", String::from_utf8_lossy(&commands.frame))
            }
            other => format!("{other:?}"),
        }
    }
}
