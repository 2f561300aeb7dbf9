//! Commands that are executed on copies of their keys, on any node.

use bytes::Bytes;

use super::Across;
use crate::command::dump;
use crate::ingress::gather::cut;
use crate::ingress::procedure::{Procedure, Step, answer, replies};
use crate::request::{Action, Commands, Outcome, Refusal};
use crate::resp::encode;
use crate::resp::walk::is_error;

/// What a key that is called like ours is called first where a command is executed on copies.
const SCRATCH: &str = "rf:scratch";

impl Across {
    pub(super) async fn on_copies(&self, p: &Procedure) -> Step<Outcome> {
        let mut keys: Vec<usize> = Vec::new();
        for &key in &self.keys {
            if !keys
                .iter()
                .any(|&known| self.arg(known) == self.arg(key as usize))
            {
                keys.push(key as usize);
            }
        }
        let asked = keys.iter().map(|&key| (self.at(key), p.db, self.ask_for(key)));
        let mut values: Vec<Bytes> = Vec::with_capacity(keys.len());
        for outcome in p.ask_all(asked.collect()).await {
            values.push(self.question.value(replies(outcome)?.concat()));
        }
        let written: Vec<usize> = keys
            .iter()
            .copied()
            .filter(|&key| {
                self.written
                    .iter()
                    .any(|&w| self.arg(w as usize) == self.arg(key))
            })
            .collect();
        let (commands, restored) = self.scratch(&keys, &values, &written);
        let wanted = commands.count as usize;
        let replies = p.on_any_node(commands).await?;
        // Refused as a whole: one error.
        if replies.len() != wanted {
            return Ok(answer(replies.into_iter().next().unwrap_or_default()));
        }
        // Not all of the copies are there: a value of another version of Redis.
        if let Some(error) = replies.iter().take(restored).find(|reply| is_error(reply)) {
            return Ok(answer(error.clone()));
        }
        let mut found = replies.into_iter().skip(restored);
        // An error, too: what a script has done before it stays done.
        let reply = found.next().unwrap_or_default();
        let mut changed: Vec<(i64, usize, Bytes)> = Vec::new();
        for key in written {
            let value: Vec<Bytes> = found.by_ref().take(self.question.count() as usize).collect();
            let value = self.question.value(value.concat());
            let before = keys.iter().zip(&values).find(|(known, _)| **known == key);
            let before = before.map_or(&b""[..], |(_, before)| &before[..]);
            if before != value {
                changed.push((before.len() as i64 - value.len() as i64, key, value));
            }
        }
        // What has grown comes first: what a script moves is in both places rather than in none if there is no going on.
        changed.sort_by_key(|(shrunk_by, ..)| *shrunk_by);
        for (_, key, value) in changed {
            self.put(p, key, p.db, &value).await?;
        }
        Ok(answer(reply))
    }

    /// The command on copies of its keys' values; and how many replies come before its own.
    fn scratch(&self, keys: &[usize], values: &[Bytes], written: &[usize]) -> (Commands, usize) {
        // By their own names, which a script may use as data; but for one that would be in the way there.
        let name = |key: usize| match self.arg(key) {
            key if key.starts_with(b"rf:") => [SCRATCH.as_bytes(), b":", key].concat(),
            key => key.to_vec(),
        };
        let mut frames: Vec<Bytes> = Vec::new();
        for (&key, value) in keys.iter().zip(values) {
            if dump::exists(value)
                && let Some((frame, _)) = dump::restore(&name(key), value)
            {
                frames.push(frame);
            }
        }
        let restored = frames.len();
        let names: Vec<Vec<u8>> = self.keys.iter().map(|&key| name(key as usize)).collect();
        let mut args: Vec<&[u8]> = self.args.iter().map(|arg| &arg[..]).collect();
        for (&key, name) in self.keys.iter().zip(&names) {
            if let Some(arg) = args.get_mut(key as usize) {
                *arg = name;
            }
        }
        frames.push(encode::command_frame(&args));
        let mut count = restored as u32 + 1;
        for &key in written {
            frames.push(self.question.about(&name(key)));
            count += self.question.count();
        }
        let mut clear: Vec<&[u8]> = vec![b"UNLINK"];
        clear.extend(names.iter().map(|name| &name[..]));
        frames.push(encode::command_frame(&clear));
        let commands = Commands {
            scripts: self.scripts.clone(),
            count: count + 1,
            ..Commands::one(frames.concat().into())
        };
        (commands, restored)
    }
}

impl Procedure {
    /// The replies to commands that any node may execute, in its bookkeeping database.
    async fn on_any_node(&self, commands: Commands) -> Step<Vec<Bytes>> {
        let mut last = Outcome::Refused(Refusal::Unconfirmed);
        // A second node, if the first one dies over it.
        for _ in 0..2 {
            let Some(node) = self.worker.core_mut().sequencer.any_node() else {
                break;
            };
            let db = self.worker.shared().config.pool.bookkeeping_db;
            let here = self.worker.own_partition();
            last = self.ask(here, db, Action::OnNode(node, commands.clone())).await;
            if let Outcome::Reply { frames, .. } = last {
                return Ok(cut(&frames));
            }
        }
        Err(last)
    }
}
