//! What a waiting client does until it has something, or has waited long enough.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Counted, Unblocking, Waiting, is_there, nothing};
use crate::command::Special;
use crate::ingress::across::{Part, news_of};
use crate::ingress::gather::{elements, words_of};
use crate::ingress::procedure::{Procedure, Step, answer, write_of};
use crate::request::{Action, Attempt, Commands, Outcome, Wait, Waiter};
use crate::resp::encode;
use crate::resp::walk::{is_error, text};
use crate::stripe::Watch;

/// What has ended the waiting at one moment.
enum Event {
    Told(u16, Outcome),
    Ends(Unblocking),
}

impl Waiting {
    /// Waits until somebody says that other keys may have taken the place of these: [`Outcome::MayCome`] is its end then.
    pub(in crate::ingress) async fn until_moved(mut self, p: &mut Procedure, moved: Watch) -> Step<Outcome> {
        self.moved = Some(moved);
        let outcome = self.execute(p).await;
        // It may go on, and what was told too late is not an answer to anything else.
        p.forget_asked();
        outcome
    }

    pub(super) async fn execute(mut self, p: &mut Procedure) -> Step<Outcome> {
        match self.special {
            Special::Xread | Special::Xreadgroup => self.read_streams(p).await,
            _ if self.across.is_some() => self.move_across(p).await,
            _ => self.wait(p).await,
        }
    }

    async fn next(&self, p: &Procedure) -> Event {
        let mut moved = self.moved.clone();
        let moved = async {
            match &mut moved {
                Some(moved) => moved.changed().await,
                None => std::future::pending().await,
            }
        };
        let deadline = self
            .deadline
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(86400));
        tokio::select! {
            biased;
            (part, outcome) = p.next() => Event::Told(part, outcome),
            why = self.blocked.ended() => Event::Ends(why),
            () = tokio::time::sleep_until(deadline), if self.deadline.is_some() => {
                Event::Ends(Unblocking::Timeout)
            }
            () = moved => Event::Ends(Unblocking::Elsewhere),
        }
    }

    /// Asks at each key, and waits at all of them.
    async fn wait(&self, p: &Procedure) -> Step<Outcome> {
        let waiter = Arc::<Waiter>::default();
        let mut asked = 0;
        let mut ends: Option<Unblocking> = None;
        let mut clock_stopped = false;
        // Whether it has asked everywhere, before which no time is over.
        let mut has_looked = false;
        let mut counted = None;
        self.stand(p, &waiter, asked);
        loop {
            let event = if clock_stopped {
                let (part, outcome) = p.next().await;
                Event::Told(part, outcome)
            } else {
                self.next(p).await
            };
            match event {
                Event::Told(_, Outcome::Done) => {
                    self.forget(p, &waiter, asked, None);
                    return Ok(nothing(p, ends.unwrap_or(Unblocking::Timeout)));
                }
                Event::Told(part, Outcome::Waits) => {
                    if usize::from(part) == asked && asked + 1 < self.parts.len() {
                        asked += 1;
                        self.stand(p, &waiter, asked);
                        continue;
                    }
                    has_looked |= usize::from(part) == asked;
                    if let Some(why) = ends.filter(|_| has_looked)
                        && waiter.end()
                    {
                        self.forget(p, &waiter, asked, None);
                        return Ok(nothing(p, why));
                    }
                    counted.get_or_insert_with(|| Counted::new(p));
                    if self.parts.len() > 1 {
                        for other in self.parts.iter().take(asked + 1) {
                            p.send(
                                other.partition,
                                p.db,
                                Action::LookAgain(other.key.clone()),
                                p.reply_to(0),
                            );
                        }
                    }
                }
                Event::Told(part, outcome) => {
                    self.forget(p, &waiter, asked, Some(part));
                    return self.served(p, usize::from(part), outcome).await;
                }
                Event::Ends(why) => {
                    ends = Some(why);
                    if (has_looked || why != Unblocking::Timeout) && waiter.end() {
                        self.forget(p, &waiter, asked, None);
                        return Ok(nothing(p, why));
                    }
                    clock_stopped = true;
                }
            }
        }
    }

    fn moves(&self) -> bool {
        matches!(self.special, Special::Blmove | Special::Brpoplpush)
    }

    fn stand(&self, p: &Procedure, waiter: &Arc<Waiter>, i: usize) {
        let Some(part) = self.parts.get(i) else { return };
        let attempt = match part.action.clone() {
            Action::Read(commands) => Attempt::Read(commands),
            Action::Write(commands) if self.moves() => Attempt::Write(behind_length(&part.key, commands)),
            Action::Write(commands) => Attempt::Write(commands),
            _ => return,
        };
        let wait = Wait {
            waiter: waiter.clone(),
            key: part.key.clone(),
            line: self.line.clone(),
            moves: self.moves(),
            attempt: Some(attempt),
        };
        p.send(
            part.partition,
            p.db,
            Action::Wait(Box::new(wait)),
            p.reply_to(i as u16),
        );
    }

    /// Leaves the lines at all keys where it stands, but for one that has let it go already.
    fn forget(&self, p: &Procedure, waiter: &Arc<Waiter>, asked: usize, but: Option<u16>) {
        for (i, part) in self.parts.iter().enumerate().take(asked + 1) {
            if but != Some(i as u16) {
                let forget = Action::Forget(waiter.clone(), part.key.clone());
                p.send(part.partition, p.db, forget, p.reply_to(0));
            }
        }
    }

    /// Something was taken. If nobody is there any more to get it, it goes back.
    async fn served(&self, p: &Procedure, part: usize, outcome: Outcome) -> Step<Outcome> {
        if self.moved.is_none()
            && !is_there(p)
            && let Outcome::Reply { frames, .. } = &outcome
            && let Some(part) = self.parts.get(part)
            && let Some(back) = self.giving_back(&part.action, frames)
        {
            p.ask(part.partition, p.db, Action::Write(back)).await;
        }
        Ok(outcome)
    }

    /// The write that undoes a taking.
    fn giving_back(&self, action: &Action, frames: &Bytes) -> Option<Commands> {
        let Action::Write(taking) = action else {
            return None;
        };
        let fields: Vec<&[u8]> = elements(frames).collect();
        let key = text(fields.first()?)?;
        let from_left = |i: usize| {
            let words = words_of(&taking.frame);
            words
                .get(i)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"LEFT"))
        };
        let mut args: Vec<&[u8]> = match self.special {
            Special::Blpop => vec![b"LPUSH", key],
            Special::Brpop => vec![b"RPUSH", key],
            Special::Blmpop if from_left(4) => vec![b"LPUSH", key],
            Special::Blmpop => vec![b"RPUSH", key],
            Special::Bzpopmin | Special::Bzpopmax | Special::Bzmpop => vec![b"ZADD", key, b"NX"],
            // Moved, or pending in its group: not lost.
            _ => return None,
        };
        match self.special {
            Special::Bzpopmin | Special::Bzpopmax => {
                args.extend([text(fields.get(2)?)?, text(fields.get(1)?)?]);
            }
            Special::Bzmpop => {
                for pair in elements(fields.get(1)?) {
                    let pair: Vec<&[u8]> = elements(pair).collect();
                    args.extend([text(pair.get(1)?)?, text(pair.first()?)?]);
                }
            }
            // The last one taken was the farthest from the end.
            Special::Blmpop => {
                let mut taken: Vec<&[u8]> = elements(fields.get(1)?).filter_map(text).collect();
                taken.reverse();
                args.extend(taken);
            }
            _ => args.push(text(fields.get(1)?)?),
        }
        Some(write_of(&args, &[1]))
    }

    /// Streams: what is there already at any of them comes together; later, one of them answers.
    async fn read_streams(&mut self, p: &mut Procedure) -> Step<Outcome> {
        for part in &mut self.parts {
            settle_id(p, part).await?;
        }
        if self.parts.len() > 1 {
            let news = news_of(p, &self.parts).await?;
            if !news.starts_with(b"_") {
                return Ok(answer(news));
            }
        }
        self.wait(p).await
    }

    /// A move to another partition: as soon as there may be something, it is tried under a hold of both.
    async fn move_across(&self, p: &mut Procedure) -> Step<Outcome> {
        let (Some(across), Some(part)) = (&self.across, self.parts.first()) else {
            return self.wait(p).await;
        };
        let send = |p: &Procedure, action| p.send(part.partition, p.db, action, p.reply_to(0));
        let forget = |p: &Procedure, waiter| send(p, Action::Forget(waiter, part.key.clone()));
        let mut standing: Option<Arc<Waiter>> = None;
        let mut ends = None;
        let mut has_waited = false;
        loop {
            let moved = across.execute(p).await.unwrap_or_else(|end| end);
            let found = match &moved {
                Outcome::Reply { frames, .. } if frames.starts_with(b"_") => false,
                // Who waits goes on waiting when the key becomes something else.
                Outcome::Reply { frames, .. } if has_waited && is_error(frames) => is_list(p, part).await?,
                _ => true,
            };
            if found || ends.is_some() {
                standing.into_iter().for_each(|waiter| forget(p, waiter));
                return Ok(match ends {
                    Some(why) if !found => nothing(p, why),
                    _ => moved,
                });
            }
            has_waited = true;
            // Before others go on: whatever comes from now on is told.
            let waiter = match standing.take() {
                Some(waiter) => {
                    waiter.unclaim();
                    send(p, Action::LookAgain(part.key.clone()));
                    waiter
                }
                None => {
                    let waiter = Arc::<Waiter>::default();
                    let wait = Wait {
                        waiter: waiter.clone(),
                        key: part.key.clone(),
                        line: self.line.clone(),
                        moves: true,
                        attempt: None,
                    };
                    p.ask(part.partition, p.db, Action::Wait(Box::new(wait))).await;
                    waiter
                }
            };
            p.release();
            let _counted = Counted::new(p);
            match self.next(p).await {
                Event::Told(_, Outcome::MayCome) => standing = Some(waiter),
                Event::Told(_, other) => {
                    forget(p, waiter);
                    return Ok(other);
                }
                Event::Ends(why) if waiter.end() => {
                    forget(p, waiter);
                    return Ok(nothing(p, why));
                }
                Event::Ends(why) => {
                    // Told at the same moment, in place of others who wait: it must see.
                    p.next().await;
                    ends = Some(why);
                    standing = Some(waiter);
                }
            }
        }
    }
}

async fn is_list(p: &Procedure, part: &Part) -> Step<bool> {
    let found = p.read(part.partition, &[&[b"TYPE", &part.key]]).await?;
    Ok(found.first().is_some_and(|kind| &kind[..] == b"+list\r\n"))
}

/// The command behind a question for its key's length.
fn behind_length(key: &[u8], commands: Commands) -> Commands {
    let length = encode::command_frame(&[b"LLEN", key]);
    Commands {
        count: commands.count + 1,
        ..commands.behind(&length)
    }
}

/// `$` becomes the stream's last id, as it is when the command comes.
async fn settle_id(p: &Procedure, part: &mut Part) -> Step<()> {
    let commands = match &mut part.action {
        Action::Read(commands) | Action::Write(commands) => commands,
        _ => return Ok(()),
    };
    let words = words_of(&commands.frame);
    if words.last().is_none_or(|id| &id[..] != b"$") {
        return Ok(());
    }
    let info = Commands::one(encode::command_frame(&[b"XINFO", b"STREAM", &part.key]));
    let found = match p.ask(part.partition, p.db, Action::Read(info)).await {
        Outcome::Reply { frames, .. } => frames,
        end => return Err(end),
    };
    let last =
        crate::command::decide::last_stream_id(&found).map_or_else(|| "0-0".into(), |id| id.to_string());
    let mut args: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
    if let Some(id) = args.last_mut() {
        *id = last.as_bytes();
    }
    commands.frame = encode::command_frame(&args);
    Ok(())
}
