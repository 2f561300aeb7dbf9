//! A connection that sends commands and reads their replies, and the queue driver on top of it: what Zaqar's driver sends for a post, a
//! page, a claim and a delete.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A reply of RESP2.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Text(String),
    Number(i64),
    Nil,
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Reply::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        let Reply::List(items) = self else {
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| item.text().map(str::to_owned))
            .collect()
    }
}

type Words<'a> = Vec<&'a str>;

/// KEYS: index, counter; ARGV: number of ids, ids.
const APPEND: &str = "local next = tonumber(redis.call('GET', KEYS[2]) or 1) \
     local add = {'ZADD', KEYS[1]} \
     for i = 1, tonumber(ARGV[1]) do add[#add + 1] = next + i - 1; add[#add + 1] = ARGV[1 + i] end \
     redis.call(unpack(add)) \
     return redis.call('SET', KEYS[2], next + tonumber(ARGV[1]))";

/// KEYS: index; ARGV: now, limit, claim. In pages, as Zaqar's own script goes through a queue.
const CLAIM: &str = "local found, start = {}, 0 \
     while #found < tonumber(ARGV[2]) do \
       local ids = redis.call('ZRANGE', KEYS[1], start, start + 99) \
       if #ids == 0 then break end \
       start = start + 100 \
       for _, id in ipairs(ids) do \
         local claim = redis.call('HMGET', id, 'c', 'e') \
         if claim[1] == '' and #found < tonumber(ARGV[2]) then \
           redis.call('HMSET', id, 'c', ARGV[3], 'c.e', ARGV[1]) \
           found[#found + 1] = id \
         end \
       end \
     end \
     return found";

pub(crate) struct Driver {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
    append: String,
    claim: String,
    seed: u64,
    body: String,
    /// Replicas that must have executed a write before the next command.
    wait: Option<String>,
}

impl Driver {
    pub(crate) fn connect(address: SocketAddr, seed: u64) -> Result<Driver> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut driver = Driver {
            reader: BufReader::new(stream),
            out: Vec::new(),
            append: String::new(),
            claim: String::new(),
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            body: "b".repeat(200),
            wait: None,
        };
        for (text, name) in [(APPEND, true), (CLAIM, false)] {
            let reply = driver.call(&["SCRIPT", "LOAD", text])?;
            let digest = reply.text().context("no digest")?.to_owned();
            match name {
                true => driver.append = digest,
                false => driver.claim = digest,
            }
        }
        Ok(driver)
    }

    /// The same for a server whose clients wait themselves until so many replicas have what they wrote.
    pub(crate) fn waiting_for(self, replicas: usize) -> Driver {
        let wait = (replicas > 0).then(|| replicas.to_string());
        Driver { wait, ..self }
    }

    /// An id that nobody else has.
    pub(crate) fn new_id(&mut self) -> String {
        let mut next = || {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            self.seed
        };
        let digits = format!("{:016x}{:016x}", next(), next());
        let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
        let (a, b, c, d, e) = (part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32));
        format!("{a}-{b}-{c}-{d}-{e}")
    }

    /// Posts so many messages: their ids.
    pub(crate) fn post(&mut self, queue: &str, count: usize) -> Result<Vec<String>> {
        let ids: Vec<String> = (0..count).map(|_| self.new_id()).collect();
        let body = self.body.clone();
        let mut commands: Vec<Words<'_>> = vec![vec!["MULTI"]];
        for id in &ids {
            commands.push(vec![
                "HMSET", id, "id", id, "t", "3600", "e", "9", "c", "", "c.e", "0", "b", &body,
            ]);
            commands.push(vec!["EXPIRE", id, "3600"]);
        }
        commands.push(vec!["EXEC"]);
        self.write(&commands)?;
        let (append, count) = (self.append.clone(), count.to_string());
        let (index, counter) = (format!("{queue}.messages"), format!("{queue}.rank_counter"));
        let mut call: Words<'_> = vec!["EVALSHA", &append, "2", &index, &counter, &count];
        call.extend(ids.iter().map(String::as_str));
        self.write(&[call])?;
        Ok(ids)
    }

    /// Claims up to so many messages and reads them, as Zaqar does: their ids, and the claim's.
    pub(crate) fn claim(&mut self, queue: &str, limit: usize) -> Result<(Vec<String>, String)> {
        let claim = self.new_id();
        let (script, limit) = (self.claim.clone(), limit.to_string());
        let index = format!("{queue}.messages");
        let call = vec!["EVALSHA", &script, "1", &index, "1", &limit, &claim];
        let ids = self.write(&[call])?.texts();
        if ids.is_empty() {
            return Ok((ids, claim));
        }
        let mut read: Vec<Words<'_>> = vec![vec!["MULTI"]];
        read.extend(ids.iter().map(|id| vec!["HGETALL", id.as_str()]));
        read.push(vec!["EXEC"]);
        self.all(&read)?;
        let (list, claims, held) = (
            format!("messages.{claim}"),
            format!("{queue}.claims"),
            ids.len().to_string(),
        );
        let mut push: Words<'_> = vec!["RPUSH", &list];
        push.extend(ids.iter().map(String::as_str));
        let note: Vec<Words<'_>> = vec![
            vec!["MULTI"],
            push,
            vec!["EXPIRE", &list, "60"],
            vec!["HMSET", &claim, "id", &claim, "n", &held],
            vec!["EXPIRE", &claim, "60"],
            vec!["ZADD", &claims, "9", &claim],
            vec!["EXEC"],
        ];
        self.write(&note)?;
        Ok((ids, claim))
    }

    /// Deletes a claimed message.
    pub(crate) fn delete(&mut self, queue: &str, id: &str, claim: &str) -> Result<()> {
        let (index, list) = (format!("{queue}.messages"), format!("messages.{claim}"));
        self.call(&["EXISTS", id])?;
        self.call(&["HMGET", id, "c", "c.e"])?;
        let gone: Vec<Words<'_>> = vec![
            vec!["MULTI"],
            vec!["DEL", id],
            vec!["ZREM", &index, id],
            vec!["LREM", &list, "1", id],
            vec!["HINCRBY", claim, "n", "-1"],
            vec!["EXEC"],
        ];
        let reply = self.write(&gone)?;
        match reply {
            Reply::List(items) if items.first() == Some(&Reply::Number(1)) => Ok(()),
            other => bail!("a claimed message was not there: {other:?}"),
        }
    }

    /// The page behind a message, or the first one: ids.
    pub(crate) fn page(&mut self, queue: &str, behind: Option<&str>, len: i64) -> Result<Vec<String>> {
        let index = format!("{queue}.messages");
        let start = match behind {
            None => 0,
            Some(id) => match self.call(&["ZRANK", &index, id])? {
                Reply::Number(rank) => rank + 1,
                _ => 0,
            },
        };
        let (start, stop) = (start.to_string(), (start + len - 1).to_string());
        let ids = self.call(&["ZRANGE", &index, &start, &stop])?.texts();
        let mut read: Vec<Words<'_>> = vec![vec!["MULTI"]];
        read.extend(ids.iter().map(|id| vec!["HGETALL", id.as_str()]));
        read.push(vec!["EXEC"]);
        if !ids.is_empty() {
            self.all(&read)?;
        }
        Ok(ids)
    }

    pub(crate) fn call(&mut self, words: &[&str]) -> Result<Reply> {
        self.put(words);
        self.flush()?;
        self.reply()
    }

    /// Sends commands that write, and waits for what they wrote to be safe: the last one's reply.
    fn write(&mut self, commands: &[Words<'_>]) -> Result<Reply> {
        let Some(replicas) = self.wait.clone() else {
            return self.all(commands);
        };
        for command in commands {
            self.put(command);
        }
        self.put(&["WAIT", &replicas, "0"]);
        self.flush()?;
        let mut last = Reply::Nil;
        for _ in commands {
            last = self.reply()?;
        }
        self.reply()?;
        Ok(last)
    }

    /// Sends all at once: the last reply.
    fn all(&mut self, commands: &[Words<'_>]) -> Result<Reply> {
        for command in commands {
            self.put(command);
        }
        self.flush()?;
        let mut last = Reply::Nil;
        for _ in commands {
            last = self.reply()?;
        }
        Ok(last)
    }

    fn put(&mut self, words: &[&str]) {
        self.out
            .extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out
                .extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.reader.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("the connection was closed")?;
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            ":" => Ok(Reply::Number(rest.parse()?)),
            "$" | "*" if rest == "-1" => Ok(Reply::Nil),
            "$" => {
                let mut body = vec![0; rest.parse::<usize>()? + 2];
                self.reader.read_exact(&mut body)?;
                body.truncate(body.len() - 2);
                Ok(Reply::Text(String::from_utf8(body)?))
            }
            "*" => (0..rest.parse::<usize>()?)
                .map(|_| self.reply())
                .collect::<Result<_>>()
                .map(Reply::List),
            _ => bail!("answered {line}"),
        }
    }
}
