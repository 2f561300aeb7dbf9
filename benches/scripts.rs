//! What scripts cost a node by themselves, and in the form in which nodes get them (`command::script::prelude`).
//!
//! `cargo bench --bench scripts` (seconds). Both forms take turns on one Redis server; figures are medians of rounds, in us of a run.
//! `cargo test --bench scripts` runs everything once and checks that both forms answer the same.

use std::io::{BufRead, BufReader, Read, Write, stdout};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use ringfence::command::CommandTable;
use ringfence::command::script::prelude::moment;
use ringfence::library::{Judge, KnownScript, hex};
use ringfence::profile;
use ringfence::resp::encode;

/// Runs that are sent at once.
const PIPELINE: usize = 100;

/// Where the nodes keep a queue's index and its items.
const PIN: &str = "rf@0000";

#[derive(Debug, Parser)]
#[command(name = "scripts")]
struct Args {
    /// Rounds in which both forms take turns
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Runs of each form in a round
    #[arg(long, default_value_t = 5_000)]
    runs: usize,
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(hide = true)]
    filter: Option<String>,
}

struct Case {
    name: &'static str,
    text: String,
    keys: Vec<String>,
    args: Vec<String>,
    /// What the keys are, in commands; `<where>` stands for where items live.
    before: Vec<String>,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args
        .filter
        .as_ref()
        .is_some_and(|filter| !"scripts".contains(filter.as_str()))
    {
        return Ok(());
    }
    if !args.bench {
        (args.rounds, args.runs) = (1, PIPELINE);
    }
    let rules = profile::named("zaqar").context("no such profile")?.keys;
    let judge = Judge::new(Arc::new(CommandTable::builtin()), 3, 256, false).with_rules(&rules);
    let server = Server::start()?;
    let mut client = server.client()?;
    let mut out = stdout();
    writeln!(
        out,
        "{:44} {:>10} {:>10} {:>8}   (us of a node for a run)",
        "script", "by itself", "on nodes", "more"
    )?;
    for case in cases() {
        let known = judge.script(&Bytes::from(case.text.clone()));
        let mut figures = [const { Vec::new() }; 2];
        let mut answers = Vec::new();
        for _ in 0..args.rounds {
            for (form, figures) in figures.iter_mut().enumerate() {
                let prepared = Prepared::of(&case, (form == 1).then_some(&known));
                let (us, answer) = prepared.run(&mut client, args.runs)?;
                figures.push(us);
                answers.push(answer);
            }
        }
        ensure!(
            answers.windows(2).all(|two| two.first() == two.last()),
            "{}: {answers:?}",
            case.name
        );
        let [itself, on_nodes] = figures.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        });
        let more = on_nodes - itself;
        writeln!(
            out,
            "{:44} {itself:>10.1} {on_nodes:>10.1} {more:>8.1}",
            case.name
        )?;
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let ids: Vec<String> = (0..10)
        .map(|n| format!("{n:08}-0000-4000-8000-000000000000"))
        .collect();
    let case = |name, text: &str, keys: &[&str], args: &[&str]| Case {
        name,
        text: text.to_owned(),
        keys: words(keys),
        args: words(args),
        before: Vec::new(),
    };
    let many = "for i = 1, 20 do redis.call('GET', KEYS[1] .. i) end return 1";
    let claim = "local found = {} for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, 99)) do \
                 if redis.call('HGET', id, 'c') == '' then redis.call('HSET', id, 'e', ARGV[1]) found[#found + 1] = id end end return found";
    let append = "local add = {'ZADD', KEYS[1]} for i = 1, #ARGV do add[#add + 1] = i add[#add + 1] = ARGV[i] end \
                  return redis.call(unpack(add))";
    let fill = |id: &String| {
        [
            format!("ZADD {PIN}.0000:q.messages 1 {id}"),
            format!("HSET <where>{id} c '' e 9"),
            format!("EXPIRE <where>{id} 3600"),
        ]
    };
    vec![
        case(
            "keys that it declares",
            "return redis.call('GET', KEYS[1])",
            &["{t}k"],
            &[],
        ),
        Case {
            args: ids.clone(),
            ..case("a command in a table, 10 elements", append, &["{t}z"], &[])
        },
        case(
            "a key that it builds",
            "return redis.call('GET', KEYS[1] .. 'x')",
            &["{t}k"],
            &[],
        ),
        case("20 keys that it builds", many, &["{t}k"], &[]),
        case(
            "a time to live",
            "return redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)",
            &["{t}k"],
            &["v"],
        ),
        case(
            "a name that it computes",
            "return redis.call(ARGV[1], KEYS[1])",
            &["{t}k"],
            &["STRLEN"],
        ),
        Case {
            before: ids.iter().flat_map(fill).collect(),
            ..case(
                "a claim of 10 items of a queue",
                claim,
                &[&format!("{PIN}.0000:q.messages")],
                &["9"],
            )
        },
    ]
}

/// A script with its arguments, in one of its forms.
struct Prepared {
    load: Bytes,
    call: Bytes,
    before: Vec<Bytes>,
}

impl Prepared {
    fn of(case: &Case, on_nodes: Option<&KnownScript>) -> Self {
        let own_load = encode::command_frame(&[b"SCRIPT", b"LOAD", case.text.as_bytes()]);
        let (load, sha) = match on_nodes {
            Some(known) => (known.script.load.clone(), hex(&known.script.sha)),
            None => (own_load, hex(&ringfence::library::sha_of(case.text.as_bytes()))),
        };
        let mut call = vec!["EVALSHA".to_owned(), sha, case.keys.len().to_string()];
        call.extend(case.keys.iter().chain(&case.args).cloned());
        let is_told = on_nodes.is_some_and(|known| known.parts.moment);
        if is_told {
            call.push(moment(1_000, 7));
        }
        let frame = |words: &[String]| {
            let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
            encode::command_frame(&words)
        };
        let has_items = on_nodes.is_some_and(|known| known.parts.items);
        let place = match has_items {
            true => format!("{PIN}:"),
            false => String::new(),
        };
        let before = case.before.iter().map(|line| {
            let words = line
                .split(' ')
                .map(|word| word.replace("''", "").replace("<where>", &place));
            frame(&words.collect::<Vec<_>>())
        });
        Self {
            load,
            call: frame(&call),
            before: before.collect(),
        }
    }

    /// us of a run, and what it answers.
    fn run(&self, client: &mut Client, runs: usize) -> Result<(f64, String)> {
        client.all(&[encode::command_frame(&[b"FLUSHALL"]), self.load.clone()])?;
        client.all(&self.before)?;
        client.all(&[encode::command_frame(&[b"CONFIG", b"RESETSTAT"])])?;
        let mut answer = String::new();
        for _ in 0..runs / PIPELINE {
            let answers = client.all(&vec![self.call.clone(); PIPELINE])?;
            // One that may publish answers with its messages: here with none.
            answer = answers.last().map_or("", |answer| answer.trim()).to_owned();
        }
        let info = client
            .all(&[encode::command_frame(&[b"INFO", b"commandstats"])])?
            .concat();
        let (_, rest) = info.split_once("cmdstat_evalsha:").context("no figures")?;
        let (_, rest) = rest.split_once("usec_per_call=").context("no figures")?;
        let us = rest.split(',').next().unwrap_or_default().parse()?;
        Ok((us, answer))
    }
}

/// A Redis server of our own.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server could not be started")?;
        let server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.client().is_err() {
            ensure!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn client(&self) -> Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        Ok(Client(BufReader::new(stream)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ok = self.child.kill().and_then(|()| self.child.wait());
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    /// Sends all at once: the replies, as text.
    fn all(&mut self, frames: &[Bytes]) -> Result<Vec<String>> {
        self.0.get_mut().write_all(&frames.concat())?;
        frames.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("the connection was closed")?;
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" if rest == "-1" => Ok("nil".to_owned()),
            "$" => {
                let mut body = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut body)?;
                Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
            }
            "*" => {
                let items = (0..rest.parse::<usize>()?).map(|_| self.reply());
                Ok(items.collect::<Result<Vec<_>>>()?.join(" "))
            }
            _ => bail!("answered {line}"),
        }
    }
}
