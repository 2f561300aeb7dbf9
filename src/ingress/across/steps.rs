//! Commands that become a few plain ones, in an order in which nothing is lost whatever dies in between.

use super::{Across, NULL, news_of};
use crate::command::dump;
use crate::ingress::answer::SYNTAX;
use crate::ingress::procedure::{Procedure, Step, answer, reply, write_of};
use crate::request::{Action, Outcome};
use crate::resp::encode;

impl Across {
    pub(super) async fn move_element(&self, p: &Procedure, from: Side, to: Side) -> Step<Outcome> {
        let end: &[u8] = match from {
            Side::Left => b"0",
            Side::Right => b"-1",
        };
        let found = p.read(self.at(1), &[&[b"LINDEX", self.arg(1), end]]).await?;
        let Some(element) = found.first().and_then(|f| crate::resp::walk::text(f)) else {
            return Ok(answer(NULL));
        };
        let (push, pop): (&[u8], &[u8]) = (
            match to {
                Side::Left => b"LPUSH",
                Side::Right => b"RPUSH",
            },
            match from {
                Side::Left => b"LPOP",
                Side::Right => b"RPOP",
            },
        );
        p.write(self.at(2), p.db, &[push, self.arg(2), element], 1)
            .await?;
        p.write(self.at(1), p.db, &[pop, self.arg(1)], 1).await?;
        Ok(answer(encode::bulk_frame(element)))
    }

    pub(super) async fn move_member(&self, p: &Procedure) -> Step<Outcome> {
        let found = p
            .read(
                self.at(1),
                &[
                    &[b"EXISTS", self.arg(1)],
                    &[b"SISMEMBER", self.arg(1), self.arg(3)],
                ],
            )
            .await?;
        if found.first().is_some_and(|exists| exists.starts_with(b":0")) {
            return Ok(answer(encode::integer(0)));
        }
        // Only to be told of a wrong type, as the server would.
        p.read(self.at(2), &[&[b"SCARD", self.arg(2)]]).await?;
        if found.get(1).is_some_and(|is_member| is_member.starts_with(b":0")) {
            return Ok(answer(encode::integer(0)));
        }
        p.write(self.at(2), p.db, &[b"SADD", self.arg(2), self.arg(3)], 1)
            .await?;
        p.write(self.at(1), p.db, &[b"SREM", self.arg(1), self.arg(3)], 1)
            .await?;
        Ok(answer(encode::integer(1)))
    }

    pub(super) async fn rename(&self, p: &Procedure, only_if_new: bool) -> Step<Outcome> {
        let value = self.value(p, 1).await?;
        if !dump::exists(&value) {
            return Ok(answer(encode::error("ERR no such key")));
        }
        if only_if_new && self.is_there(p, 2, p.db).await? {
            return Ok(answer(encode::integer(0)));
        }
        self.put(p, 2, p.db, &value).await?;
        p.write(self.at(1), p.db, &[b"DEL", self.arg(1)], 1).await?;
        Ok(match only_if_new {
            true => answer(encode::integer(1)),
            false => answer(&b"+OK\r\n"[..]),
        })
    }

    pub(super) async fn copy(&self, p: &Procedure) -> Step<Outcome> {
        let mut db = p.db;
        let mut replace = false;
        let mut words = self.args.iter().skip(3);
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case(b"replace") {
                replace = true;
            } else if word.eq_ignore_ascii_case(b"db")
                && let Some(number) = words.next()
            {
                let number = std::str::from_utf8(number)
                    .ok()
                    .and_then(|n| n.parse::<i64>().ok());
                db = match number {
                    None => {
                        return Ok(answer(encode::error(
                            "ERR value is not an integer or out of range",
                        )));
                    }
                    Some(n) => match u16::try_from(n).ok().filter(|&n| n < self.databases_max) {
                        Some(n) => n,
                        None => return Ok(answer(encode::error("ERR DB index is out of range"))),
                    },
                };
            } else {
                return Ok(answer(encode::error(SYNTAX)));
            }
        }
        let value = self.value(p, 1).await?;
        if !dump::exists(&value) || (!replace && self.is_there(p, 2, db).await?) {
            return Ok(answer(encode::integer(0)));
        }
        self.put(p, 2, db, &value).await?;
        Ok(answer(encode::integer(1)))
    }

    /// `MSETNX`: all or none.
    pub(super) async fn set_all(&self, p: &Procedure) -> Step<Outcome> {
        for &key in &self.keys {
            if self.is_there(p, key as usize, p.db).await? {
                return Ok(answer(encode::integer(0)));
            }
        }
        let sets = self.keys.iter().map(|&key| {
            let key = key as usize;
            let set = write_of(&[b"SET", self.arg(key), self.arg(key + 1)], &[1]);
            (self.at(key), p.db, Action::Write(set))
        });
        for outcome in p.ask_all(sets.collect()).await {
            reply(outcome)?;
        }
        Ok(answer(encode::integer(1)))
    }

    /// `LMPOP`, `ZMPOP`: from the first key that has something.
    pub(super) async fn pop_first(&self, p: &Procedure) -> Step<Outcome> {
        for part in &self.parts {
            let popped = reply(p.ask(part.partition, p.db, part.action.clone()).await)?;
            if popped != NULL {
                return Ok(answer(popped));
            }
        }
        Ok(answer(NULL))
    }

    /// `XREAD`, `XREADGROUP`: what is new in each of the streams.
    pub(super) async fn read_streams(&self, p: &Procedure) -> Step<Outcome> {
        Ok(answer(news_of(p, &self.parts).await?))
    }
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
}

pub(super) fn side(word: &[u8]) -> Option<Side> {
    if word.eq_ignore_ascii_case(b"left") {
        Some(Side::Left)
    } else if word.eq_ignore_ascii_case(b"right") {
        Some(Side::Right)
    } else {
        None
    }
}
