//! Random programs: which client sends what, in which pipelines, transactions and databases.
//!
//! A program is data, made before anything runs, so that a seed always gives the same one and a failing one can be cut
//! down. Keys are few, so that commands meet on them, and carry a hash tag: commands over several keys that Redis
//! would want in one slot use keys of one tag, the others mix tags.

use super::command::{Arg, Chance, Cmd, Rule};
use super::run::{Program, Step};
use super::{data, events, keys, odd};
use crate::cmd;
use crate::harness::Rng;
use std::collections::HashMap;

/// Different tags of one client, so different partitions with some luck.
const TAGS: usize = 4;

/// Different keys of one kind under one tag.
const KEYS_PER_KIND: usize = 3;

/// The letter in a key's name that says which type it usually holds.
const KINDS: [char; 8] = ['s', 'l', 'e', 'h', 'z', 'x', 'b', 'p'];

/// What a program may contain.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub client: usize,
    pub commands: usize,
    pub resp3: bool,
    /// No other client works at the same time: commands about the whole pool make sense.
    pub alone: bool,
    /// With FLUSHDB and FLUSHALL.
    pub flush: bool,
}

/// Makes one program.
#[derive(Debug)]
pub struct Gen {
    pub rng: Rng,
    pub client: usize,
    /// The numbers of the ids that servers chose, by stream.
    ids: HashMap<String, Vec<usize>>,
    ids_count: usize,
    /// Counts what may give a key's name another stream: another database, an empty pool.
    scene: usize,
    stream_ms: i64,
    pub in_multi: bool,
    /// All keys under this tag, so in one partition.
    fixed_tag: Option<usize>,
}

/// The program of this seed.
pub fn program(seed: u64, shape: Shape) -> Program {
    let rng = Rng::new(seed ^ (shape.client as u64) << 48);
    let mut generator = Gen {
        rng,
        client: shape.client,
        ids: HashMap::new(),
        ids_count: 0,
        scene: 0,
        stream_ms: 10,
        in_multi: false,
        fixed_tag: None,
    };
    let mut steps = Vec::new();
    let mut made = 0;
    while made < shape.commands {
        let next = generator.steps(shape);
        made += next.iter().map(Vec::len).sum::<usize>();
        steps.extend(next);
    }
    Program {
        resp3: shape.resp3,
        steps,
    }
}

impl Gen {
    pub fn tag(&mut self) -> String {
        self.tag_among(TAGS)
    }

    pub fn tag_among(&mut self, count: usize) -> String {
        let tag = self.fixed_tag.unwrap_or_else(|| self.rng.below(count));
        format!("{{c{}t{tag}}}", self.client)
    }

    /// A key that usually holds this kind, under a tag.
    pub fn key_of(&mut self, tag: &str, kind: char) -> String {
        let kind = if self.rng.chance(5) {
            *self.rng.pick(&KINDS)
        } else {
            kind
        };
        format!("{tag}:{kind}{}", self.rng.below(KEYS_PER_KIND))
    }

    pub fn key(&mut self, kind: char) -> String {
        let tag = self.tag();
        self.key_of(&tag, kind)
    }

    /// A key of any kind.
    pub fn any_key(&mut self) -> String {
        let kind = *self.rng.pick(&KINDS);
        self.key(kind)
    }

    /// Several keys of one tag.
    pub fn keys_together(&mut self, kind: char, count: usize) -> Vec<String> {
        let tag = self.tag();
        (0..count).map(|_| self.key_of(&tag, kind)).collect()
    }

    pub fn value(&mut self) -> Vec<u8> {
        match self.rng.below(20) {
            0..=5 => self.rng.between(-50, 50).to_string().into_bytes(),
            6 => b"3.25".to_vec(),
            7 => Vec::new(),
            8 => b"line\r\nbreak\0\xff\"quote\"".to_vec(),
            9 => vec![b'x'; self.rng.below(3000)],
            10 if self.rng.chance(20) => vec![b'L'; 70_000 + self.rng.below(60_000)],
            _ => self.member().into_bytes(),
        }
    }

    /// One of few short words, so that sets and hashes meet the same members again.
    pub fn member(&mut self) -> String {
        format!("m{}", self.rng.below(12))
    }

    pub fn members(&mut self, max: usize) -> Vec<String> {
        let count = 1 + self.rng.below(max);
        (0..count).map(|_| self.member()).collect()
    }

    pub fn score(&mut self) -> String {
        match self.rng.below(10) {
            0 => "1.5".to_owned(),
            1 => (*self.rng.pick(&["inf", "-inf", "1e3", "nan", "x"])).to_owned(),
            _ => self.rng.between(-9, 9).to_string(),
        }
    }

    pub fn index(&mut self) -> i64 {
        self.rng.between(-6, 6)
    }

    /// A stream whose ids the servers choose. It is never deleted and used in one database only: else two entries
    /// with the same name could have ids that are equal on one side alone.
    pub fn chosen_ids_key(&mut self) -> String {
        format!("{}:y{}", self.tag_among(2), self.scene)
    }

    /// The number of a new id.
    pub fn new_id(&mut self, key: &str) -> usize {
        self.ids_count += 1;
        self.ids.entry(key.to_owned()).or_default().push(self.ids_count);
        self.ids_count
    }

    /// One of the ids of this stream; 0, which no entry has, if there is none.
    pub fn some_id(&mut self, key: &str) -> usize {
        match self.ids.get(key) {
            Some(ids) => *self.rng.pick(ids),
            None => 0,
        }
    }

    /// An explicit stream id, mostly larger than all before.
    pub fn stream_id(&mut self) -> String {
        if self.rng.chance(15) {
            return format!("{}-{}", self.rng.between(0, self.stream_ms), self.rng.below(3));
        }
        self.stream_ms += self.rng.between(0, 2);
        if self.rng.chance(10) {
            format!("{}-*", self.stream_ms + 1)
        } else {
            format!("{}-{}", self.stream_ms, self.rng.below(5))
        }
    }

    /// One command on data.
    pub fn command(&mut self) -> Cmd {
        loop {
            let command = match self.rng.below(100) {
                0..=13 => data::strings(self),
                14..=17 => data::bits(self),
                18..=29 => data::lists(self),
                30..=39 => data::sets(self),
                40..=49 => data::hashes(self),
                50..=62 => data::zsets(self),
                63..=65 => data::geo(self),
                66..=79 => events::streams(self),
                80..=89 => keys::keys(self),
                90..=94 => odd::scripts(self),
                95..=97 => odd::wrong(self),
                _ => odd::connection(self),
            };
            let reset = command.name() == "RESET";
            if !(self.in_multi && (command.is_chance() || reset || refused_in_multi(&command))) {
                self.scene += usize::from(reset);
                return self.perhaps_inline(command);
            }
        }
    }

    fn perhaps_inline(&mut self, mut command: Cmd) -> Cmd {
        let plain = |arg: &[u8]| {
            !arg.is_empty()
                && arg.len() < 200
                && arg
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || b"{}:.-_".contains(b))
        };
        let args = command.resolve(&super::command::Ids::default());
        if !command.is_chance()
            && self.rng.chance(4)
            && args.iter().all(|arg| plain(arg))
            && command
                .args
                .iter()
                .all(|arg| matches!(arg, super::command::Arg::Bytes(_)))
        {
            command.inline = true;
        }
        command
    }

    fn steps(&mut self, shape: Shape) -> Vec<Step> {
        match self.rng.below(100) {
            0..=7 => self.transaction(),
            8..=10 => {
                self.scene += 1;
                let db = *self.rng.pick(&["0", "0", "1", "9", "14", "15", "16", "-1", "x"]);
                vec![vec![Cmd::new(cmd!["SELECT", db])]]
            }
            11..=13 if shape.alone => vec![vec![self.whole_pool(shape.flush)]],
            14..=40 => {
                let count = 2 + self.rng.below(14);
                self.pipeline(count)
            }
            _ => self.pipeline(1),
        }
    }

    /// Commands sent together; those that need a word with the reference go alone.
    fn pipeline(&mut self, count: usize) -> Vec<Step> {
        let mut steps = vec![Vec::new()];
        for _ in 0..count {
            let command = self.command();
            if command.is_chance() {
                steps.push(vec![command]);
                steps.push(Vec::new());
            } else if let Some(last) = steps.last_mut() {
                last.push(command);
            }
        }
        steps.retain(|step| !step.is_empty());
        steps
    }

    fn transaction(&mut self) -> Vec<Step> {
        self.in_multi = true;
        let mut commands = vec![Cmd::new(cmd!["MULTI"])];
        self.fixed_tag = self.rng.chance(50).then(|| self.rng.below(TAGS));
        for _ in 0..self.rng.below(8) {
            commands.push(self.command());
        }
        if self.rng.chance(5) {
            commands.push(Cmd::new(cmd!["MULTI"]));
        }
        commands.push(Cmd::new(if self.rng.chance(85) {
            cmd!["EXEC"]
        } else {
            cmd!["DISCARD"]
        }));
        self.in_multi = false;
        self.fixed_tag = None;
        if self.rng.chance(60) {
            vec![commands]
        } else {
            commands.into_iter().map(|command| vec![command]).collect()
        }
    }

    fn whole_pool(&mut self, flush: bool) -> Cmd {
        self.scene += 1;
        let tag = self.tag();
        match self.rng.below(if flush { 17 } else { 14 }) {
            0..=2 => Cmd::new(cmd!["DBSIZE"]),
            3 => Cmd::new(cmd!["SCRIPT", "FLUSH"]),
            4..=5 => Cmd::new(cmd!["KEYS", "*"]).rule(Rule::Unordered),
            6 => Cmd::new(cmd!["KEYS", format!("{tag}:*")]).rule(Rule::Unordered),
            7..=8 => Cmd::new(cmd!["RANDOMKEY"]).rule(Rule::Chance(Chance::Key)),
            9..=10 => Cmd::new(cmd!["SCAN", 0]).rule(Rule::Chance(Chance::Keys)),
            11 => Cmd::new(cmd!["SCAN", 0, "COUNT", 3]).rule(Rule::Chance(Chance::Keys)),
            12 => {
                Cmd::new(cmd!["SCAN", 0, "MATCH", "*s1*", "TYPE", "string"]).rule(Rule::Chance(Chance::Keys))
            }
            13 => Cmd::new(cmd!["KEYS", "*[0-1]"]).rule(Rule::Unordered),
            14..=15 => Cmd::new(cmd!["FLUSHDB"]),
            _ => Cmd::new(
                self.rng
                    .pick(&[cmd!["FLUSHALL"], cmd!["FLUSHDB", "ASYNC"], cmd!["FLUSHDB", "x"]])
                    .clone(),
            ),
        }
    }
}

/// What the pool refuses in a transaction, with a sentence of its own: commands whose effect is decided on one node
/// first, and commands about the whole pool.
fn refused_in_multi(command: &Cmd) -> bool {
    match command.name().as_str() {
        "XAUTOCLAIM" | "XCLAIM" | "SCRIPT" => true,
        // An unknown digest is refused when it is queued, where Redis would answer so in EXEC's reply.
        "EVALSHA" | "EVALSHA_RO" => true,
        "SORT" => command
            .args
            .iter()
            .any(|arg| *arg == Arg::Bytes(b"STORE".to_vec())),
        // Looked at when it is queued: a text that does not compile and a wrong number of keys are refused then.
        "EVAL" => command.bytes(1).starts_with(b"this is not lua") || command.bytes(1) == b"return 1",
        _ => false,
    }
}
