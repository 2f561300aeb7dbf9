//! A queue driver in small, that does what Zaqar's does: messages are hashes called by bare ids, a sorted set has their ids, and scripts
//! touch the hashes without declaring them. It does not know what it is connected to.

use crate::cmd;
use crate::harness::{Client, Endpoint, Reply, Rng};

/// KEYS: index, counter; ARGV: number of ids, ids.
const APPEND: &str = "
    local next = tonumber(redis.call('GET', KEYS[2]) or 1)
    for i = 1, tonumber(ARGV[1]) do redis.call('ZADD', KEYS[1], next + i - 1, ARGV[1 + i]) end
    return redis.call('SET', KEYS[2], next + tonumber(ARGV[1]))";

/// KEYS: index; ARGV: now, limit, claim. Takes what is free, and removes ids of messages that have expired.
const CLAIM: &str = "
    local found, gone = {}, {}
    for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        if #found >= tonumber(ARGV[2]) then break end
        local claim = redis.call('HGET', id, 'c')
        if not claim then
            gone[#gone + 1] = id
        elseif claim == '' then
            redis.call('HMSET', id, 'c', ARGV[3], 'since', ARGV[1])
            found[#found + 1] = id
        end
    end
    if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
    return found";

pub struct Driver {
    pub client: Client,
    append: String,
    claim: String,
}

/// A bare id.
pub fn new_id(rng: &mut Rng) -> String {
    let (high, low) = (rng.next(), rng.next());
    let digits = format!("{high:016x}{low:016x}");
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

impl Driver {
    pub fn connect(to: &Endpoint) -> Self {
        let mut client = Client::connect(to);
        let mut load = |text: &str| client.call(cmd!["SCRIPT", "LOAD", text]).text().unwrap();
        let (append, claim) = (load(APPEND), load(CLAIM));
        Self {
            client,
            append,
            claim,
        }
    }

    /// Puts messages at the end of a queue.
    pub fn post(&mut self, queue: &str, ids: &[String], ttl_ms: u64) -> Reply {
        self.create(ids, ttl_ms);
        self.index(queue, ids)
    }

    /// The first half of that.
    pub fn create(&mut self, ids: &[String], ttl_ms: u64) {
        let mut commands = vec![cmd!["MULTI"]];
        for id in ids {
            commands.push(cmd!["HMSET", id, "id", id, "c", "", "b", format!("body of {id}")]);
            commands.push(cmd!["PEXPIRE", id, ttl_ms]);
        }
        commands.push(cmd!["EXEC"]);
        let replies = self.client.pipeline(&commands).unwrap();
        let last = replies.last().unwrap();
        assert_eq!(last.items().len(), 2 * ids.len(), "{last:?}");
    }

    /// The second half.
    pub fn index(&mut self, queue: &str, ids: &[String]) -> Reply {
        self.index_as(queue, &ids.len().to_string(), ids)
    }

    /// The same where the script is told another number of ids.
    pub fn index_as(&mut self, queue: &str, count: &str, ids: &[String]) -> Reply {
        let mut call = cmd![
            "EVALSHA",
            self.append,
            2,
            format!("{queue}.messages"),
            format!("{queue}.rank_counter"),
            count
        ];
        call.extend(ids.iter().map(|id| id.clone().into_bytes()));
        self.client.call(call)
    }

    pub fn claim(&mut self, queue: &str, limit: usize, claim: &str) -> Reply {
        let index = format!("{queue}.messages");
        self.client
            .call(cmd!["EVALSHA", self.claim, 1, index, 1, limit, claim])
    }

    /// Deletes one message.
    pub fn delete(&mut self, queue: &str, id: &str) -> Reply {
        let commands = [
            cmd!["MULTI"],
            cmd!["DEL", id],
            cmd!["ZREM", format!("{queue}.messages"), id],
            cmd!["EXEC"],
        ];
        self.client.pipeline(&commands).unwrap().pop().unwrap()
    }

    /// A page of ids, behind a message or from the head, as the driver asks for it.
    pub fn page(&mut self, queue: &str, behind: Option<&str>, len: i64) -> Vec<String> {
        self.page_with(queue, behind, len, || {})
    }

    /// The same, while something happens between its two questions.
    pub fn page_with(
        &mut self,
        queue: &str,
        behind: Option<&str>,
        len: i64,
        meanwhile: impl FnOnce(),
    ) -> Vec<String> {
        let index = format!("{queue}.messages");
        let rank = match behind {
            Some(id) => self.client.call(cmd!["ZRANK", index, id]).int(),
            None => None,
        };
        meanwhile();
        let start = match rank {
            Some(rank) if rank != 0 => rank + 1,
            _ => 0,
        };
        ids(&self.client.call(cmd!["ZRANGE", index, start, start + len - 1]))
    }

    /// What is read of a page: the messages that are there.
    pub fn bodies(&mut self, ids: &[String]) -> Vec<String> {
        let mut commands = vec![cmd!["MULTI"]];
        commands.extend(ids.iter().map(|id| cmd!["HGETALL", id]));
        commands.push(cmd!["EXEC"]);
        let reply = self.client.pipeline(&commands).unwrap().pop().unwrap();
        let all = reply.items();
        assert_eq!(all.len(), ids.len(), "{reply:?}");
        let there = ids
            .iter()
            .zip(all)
            .filter(|(_, fields)| !fields.items().is_empty());
        there
            .map(|(id, fields)| {
                let body = fields.items().last().unwrap().text().unwrap();
                assert_eq!(body, format!("body of {id}"), "another message's body");
                id.clone()
            })
            .collect()
    }
}

/// The texts of an array.
#[track_caller]
pub fn ids(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.error(), None, "{reply:?}");
    reply.items().iter().map(|id| id.text().unwrap()).collect()
}
