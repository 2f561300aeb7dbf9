//! Clients that wait for elements, and what they were promised: first come, first served.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence::command::parts::{ElementType, Line};
use ringfence::request::{Action, Attempt, Commands, HoldId, Outcome, PartitionId, Wait, Waiter};
use ringfence::resp::encode;

use crate::clients::{Ask, Next};
use crate::commands;
use crate::history::History;
use crate::node::Key;
use crate::ops::{End, Kind};
use crate::queues::is_nothing;
use crate::rng::Rng;
use crate::wire::{self, Reply};

/// Where it waits, and what serves it there.
#[derive(Debug)]
pub struct Place {
    pub partition: PartitionId,
    pub key: Key,
    /// Waits for it to be longer than that.
    pub floor: usize,
    attempt: Attempt,
}

/// How far one that waits to be told is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is served where it stands.
    No,
    Holds,
    Looks,
    Stands,
}

#[derive(Debug)]
pub struct Waiting {
    id: u64,
    kind: Kind,
    pub places: Vec<Place>,
    pub waiter: Arc<Waiter>,
    /// How many operations there were when it was last tried in vain.
    pub tried_at: usize,
    asked: usize,
    /// It was told that there is nothing at the last place where it asked.
    settled: bool,
    ended: bool,
    told: Told,
    stands: bool,
    hold: u64,
}

impl Waiting {
    pub fn new(history: &History, id: u64, two: bool, rng: &mut Rng) -> Self {
        let op = &history.ops[id as usize];
        let keys = &history.keys;
        let second = rng.percent(30);
        let first = keys.queue(op.partition, second);
        let write = |commands| Attempt::Write(commands);
        let mut places = Vec::new();
        let mut add = |partition, key: Key, attempt| {
            places.push(Place {
                partition,
                key,
                floor: 0,
                attempt,
            });
        };
        match op.kind {
            Kind::WaitTake => {
                add(op.partition, first.clone(), write(commands::take(&first)));
                if two {
                    let partition = op.other.unwrap_or(op.partition);
                    let other = keys.queue(partition, partition == op.partition && !second);
                    add(partition, other.clone(), write(commands::take(&other)));
                }
            }
            Kind::WaitMove => {
                let to = keys.queue(op.partition, !second);
                let length = encode::command_frame(&[b"LLEN", &first.1]);
                let moving = commands::moving(&first, &to).behind(&length);
                let moving = Commands { count: 2, ..moving };
                add(op.partition, first, write(moving));
            }
            Kind::WaitTold => add(op.partition, first.clone(), write(commands::take(&first))),
            _ => {
                let partitions = [Some(op.partition), op.other].into_iter().flatten();
                for ((partition, list), floor) in partitions.zip(&op.lists).zip(&op.list_floors) {
                    add(
                        partition,
                        list.clone(),
                        Attempt::Read(commands::longer(list, *floor)),
                    );
                }
            }
        }
        for (place, floor) in places.iter_mut().zip(&op.list_floors) {
            place.floor = *floor;
        }
        Self {
            id,
            kind: op.kind,
            places,
            waiter: Arc::default(),
            tried_at: 0,
            asked: 0,
            settled: false,
            ended: false,
            told: match op.kind {
                Kind::WaitTold => Told::Holds,
                _ => Told::No,
            },
            stands: false,
            hold: 0,
        }
    }

    fn hold(&self) -> HoldId {
        // A number of its own for each time that it holds.
        HoldId::new(0, self.id + (self.hold << 24))
    }

    fn ask(&self, place: usize, action: Action) -> Ask {
        let Place { partition, key, .. } = &self.places[place];
        Ask {
            part: place as u16,
            partition: *partition,
            db: key.0,
            under: match self.told {
                Told::Holds | Told::Looks => self.hold(),
                _ => HoldId::NONE,
            },
            action,
        }
    }

    pub fn begin(&self) -> Vec<Ask> {
        match self.told {
            Told::No => vec![self.stand(0)],
            _ => vec![self.ask(0, Action::Hold)],
        }
    }

    fn stand(&self, place: usize) -> Ask {
        let Place { key, attempt, .. } = &self.places[place];
        let wait = Wait {
            waiter: self.waiter.clone(),
            key: key.1.clone().into(),
            line: match self.kind {
                Kind::WaitLong => Line::Readers,
                _ => Line::Elements(ElementType::List),
            },
            moves: self.kind == Kind::WaitMove,
            attempt: (self.kind != Kind::WaitTold).then(|| attempt.clone()),
        };
        self.ask(place, Action::Wait(Box::new(wait)))
    }

    fn forget(&self, but: Option<u16>) -> Vec<Ask> {
        let left = (0..=self.asked).filter(|&place| but != Some(place as u16));
        left.map(|place| {
            let key = self.places[place].key.1.clone().into();
            self.ask(place, Action::Forget(self.waiter.clone(), key))
        })
        .collect()
    }

    pub fn told(&mut self, part: u16, outcome: &Outcome) -> Result<Next, String> {
        if self.told != Told::No {
            return self.told_to_look(outcome);
        }
        match outcome {
            Outcome::Done => Ok(Next::Ends(self.forget(None), End::NotDone, Vec::new())),
            Outcome::Waits => {
                if usize::from(part) == self.asked && self.asked + 1 < self.places.len() {
                    self.asked += 1;
                    return Ok(Next::Goes(vec![self.stand(self.asked)]));
                }
                self.settled |= usize::from(part) == self.asked;
                let look = |place: usize| {
                    let key = self.places[place].key.1.clone().into();
                    self.ask(place, Action::LookAgain(key))
                };
                let several = self.places.len() > 1;
                Ok(Next::Goes(
                    (0..=self.asked).filter(|_| several).map(look).collect(),
                ))
            }
            outcome => {
                let mut next = ended(self.forget(Some(part)), outcome)?;
                if let Next::Ends(_, End::Done, replies) = &mut next
                    && self.kind == Kind::WaitLong
                {
                    // What it is told does not say of which list.
                    replies.insert(0, Reply::Int(part.into()));
                }
                Ok(next)
            }
        }
    }

    /// It holds the partition, tries to take something, and stands in line before it lets it go.
    fn told_to_look(&mut self, outcome: &Outcome) -> Result<Next, String> {
        match (self.told, outcome) {
            (Told::Holds, Outcome::Done) => {
                self.told = Told::Looks;
                let Attempt::Write(take) = self.places[0].attempt.clone() else {
                    return Err("reads".into());
                };
                Ok(Next::Goes(vec![self.ask(0, Action::Write(take))]))
            }
            (Told::Looks, Outcome::Reply { frames, .. })
                if wire::replies(frames).is_some_and(|all| all.iter().all(is_nothing)) =>
            {
                if !self.stands {
                    self.stands = true;
                    return Ok(Next::Goes(vec![self.stand(0)]));
                }
                self.waiter.unclaim();
                let key = self.places[0].key.1.clone().into();
                let look = self.ask(0, Action::LookAgain(key));
                Ok(Next::Goes(vec![look, self.lets_go()]))
            }
            (Told::Looks, Outcome::Waits) => Ok(Next::Goes(vec![self.lets_go()])),
            (Told::Looks, outcome) => {
                let mut asks = self.forget(None);
                asks.push(self.ask(0, Action::Release));
                ended(asks, outcome)
            }
            (Told::Stands, Outcome::MayCome) if self.ended => {
                Ok(Next::Ends(self.forget(None), End::NotDone, Vec::new()))
            }
            (Told::Stands, Outcome::MayCome) => {
                self.told = Told::Holds;
                self.settled = false;
                self.hold += 1;
                Ok(Next::Goes(vec![self.ask(0, Action::Hold)]))
            }
            (_, outcome) => ended(self.forget(None), outcome),
        }
    }

    /// Whatever comes from now on it is told of.
    fn lets_go(&mut self) -> Ask {
        let release = self.ask(0, Action::Release);
        self.told = Told::Stands;
        self.settled = true;
        release
    }

    /// Its time is over, or it is gone.
    pub fn give_up(&mut self) -> Next {
        let may = self.told == Told::No || self.told == Told::Stands;
        if self.ended || !may {
            return Next::Goes(Vec::new());
        }
        self.ended = true;
        if self.waiter.end() {
            Next::Ends(self.forget(None), End::NotDone, Vec::new())
        } else {
            Next::Goes(Vec::new())
        }
    }

    /// Nothing is being done for it.
    pub fn is_still(&self) -> bool {
        self.settled && !self.ended
    }

    /// Nothing has been taken for it that it has not been told of; nor will be.
    pub fn has_nothing(&self) -> bool {
        (self.told == Told::No || self.told == Told::Stands)
            && (self.kind == Kind::WaitTold || self.waiter.claim())
    }
}

fn ended(asks: Vec<Ask>, outcome: &Outcome) -> Result<Next, String> {
    match outcome {
        Outcome::Reply { frames, .. } => {
            let replies = wire::replies(frames).ok_or("nonsense was answered")?;
            let failed = replies.iter().any(|reply| matches!(reply, wire::Reply::Error(_)));
            let end = if failed { End::NotDone } else { End::Done };
            Ok(Next::Ends(asks, end, replies))
        }
        Outcome::Refused(_) => Ok(Next::Ends(asks, End::NotDone, Vec::new())),
        Outcome::Unknown => Ok(Next::Ends(asks, End::Unknown, Vec::new())),
        other => Err(format!("one who waits is told {other:?}")),
    }
}

/// Where somebody stands: partition, database, key.
pub type Standing = (PartitionId, u16, Vec<u8>);

/// Who stands where, in the order in which they came.
#[derive(Debug, Default)]
pub struct Lines(BTreeMap<Standing, Vec<u64>>);

impl Lines {
    pub fn stand(&mut self, id: u64, place: Standing) {
        self.0.entry(place).or_default().push(id);
    }

    /// It does not stand anywhere any more.
    pub fn leave(&mut self, id: u64) {
        self.0
            .values_mut()
            .for_each(|line| line.retain(|&other| other != id));
    }

    /// Those who came before `id` to this place.
    pub fn before(&self, id: u64, place: &Standing) -> Vec<u64> {
        let line = self.0.get(place).map(Vec::as_slice).unwrap_or_default();
        line.iter().copied().take_while(|&other| other != id).collect()
    }
}
