//! A fuzzer for every toolchain: changes seeds at random for a few seconds a target. Not led by coverage, so no match for
//! libFuzzer, but it finds what is easily found, everywhere, before a change goes in.
//!
//! `smoke [--seconds S] [--seed N] [--input FILE] [TARGET…]`. The same seed gives the same inputs in the
//! same order. An input that makes a target panic, or keeps it busy for [`HANG_MS`], is saved and ends the run.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_fuzz::cuts::Random;
use ringfence_fuzz::{TARGETS, Target};

/// Longest input, in bytes.
const INPUT_BYTES_MAX: usize = 4096;

/// An input that takes so long, in ms, is as bad as one that panics.
const HANG_MS: u64 = 5000;

/// What is put into inputs: the words and numbers on which code decides.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"*",
    b"$",
    b"$-1\r\n",
    b"*-1\r\n",
    b"_\r\n",
    b"*0\r\n",
    b"$0\r\n\r\n",
    b"%1\r\n",
    b"~2\r\n",
    b">1\r\n",
    b"|1\r\n+k\r\n:1\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"!3\r\nERR\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(9\r\n",
    b"+QUEUED\r\n",
    b"+OK\r\n",
    b"-ERR x\r\n",
    b":1\r\n",
    b"-1",
    b"0",
    b"1",
    b"2",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"4294967295",
    b"65536",
    b"*1\r\n",
    b"{",
    b"}",
    b"{}",
    b"\"",
    b"'",
    b"\\x",
    b"~",
    b"STORE",
    b"BY",
    b"GET",
    b"LIMIT",
    b"MAXLEN",
    b"MINID",
    b"EX",
    b"PX",
    b"EXAT",
    b"COUNT",
    b"IDLE",
    b"TIME",
    b"JUSTID",
    b"STREAMS",
    b"BLOCK",
    b"redis.call(",
    b"[[",
    b"]]",
    b"--[[",
    b"end",
    b"\xff",
    b"\xc3\x28",
];

fn main() -> ExitCode {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seconds = 2.0;
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.subsec_nanos().into());
    let mut input = None;
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value behind the option");
        match arg.as_str() {
            "--seconds" => seconds = value().parse().expect("seconds"),
            "--seed" => seed = value().parse().expect("a seed is a number"),
            "--input" => input = Some(PathBuf::from(value())),
            name => wanted.push(name.to_owned()),
        }
    }
    let unknown = wanted
        .iter()
        .find(|name| TARGETS.iter().all(|(target, _)| target != name));
    if let Some(name) = unknown {
        eprintln!(
            "no target {name:?}; there are: {}",
            TARGETS
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(" ")
        );
        return ExitCode::from(64);
    }
    let chosen = TARGETS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name));
    for &(name, target) in chosen {
        let run = Run {
            name,
            target,
            home,
            watched: watch(name, home),
        };
        if let Some(file) = &input {
            if let Err(failed) = run.once(&fs::read(file).expect("the input")) {
                return failed;
            }
            continue;
        }
        if let Err(failed) = run.for_a_while(seed, Duration::from_secs_f64(seconds)) {
            return failed;
        }
    }
    ExitCode::SUCCESS
}

/// The input being tried, and how many there were; the watch looks at both.
type Watched = Arc<(AtomicU64, Mutex<Vec<u8>>)>;

struct Run<'a> {
    name: &'static str,
    target: Target,
    home: &'a Path,
    watched: Watched,
}

impl Run<'_> {
    fn for_a_while(&self, seed: u64, time: Duration) -> Result<(), ExitCode> {
        let seeds = seeds(&self.home.join("seeds").join(self.name));
        let begun = Instant::now();
        let mut random = Random::new(seed ^ Random::of(self.name.as_bytes()).bits());
        let mut inputs = 0_u64;
        for seed in &seeds {
            self.once(seed)?;
        }
        while begun.elapsed() < time {
            // The clock is not asked for every one.
            for _ in 0..64 {
                let input = changed(&seeds, &mut random);
                self.once(&input)
                    .inspect_err(|_| eprintln!("{}: seed {seed}, input {inputs}", self.name))?;
                inputs += 1;
            }
        }
        println!(
            "{:16} {inputs:8} inputs from {} seeds, --seed {seed}",
            self.name,
            seeds.len()
        );
        Ok(())
    }

    /// Tries one input; if the target panics, saves it.
    fn once(&self, input: &[u8]) -> Result<(), ExitCode> {
        if let Ok(mut current) = self.watched.1.lock() {
            current.clear();
            current.extend_from_slice(input);
        }
        self.watched.0.fetch_add(1, Relaxed);
        let done = catch_unwind(AssertUnwindSafe(|| (self.target)(input)));
        self.watched.0.fetch_add(1, Relaxed);
        done.map_err(|_| {
            save(self.home, self.name, input, "it panicked");
            ExitCode::FAILURE
        })
    }
}

/// Ends the process when one input takes too long.
fn watch(name: &'static str, home: &Path) -> Watched {
    let watched = Watched::default();
    let (seen, home) = (watched.clone(), home.to_owned());
    thread::spawn(move || {
        let mut last = (0, Instant::now());
        loop {
            thread::sleep(Duration::from_millis(HANG_MS / 10));
            let count = seen.0.load(Relaxed);
            // Odd: in the middle of one.
            if count != last.0 || count.is_multiple_of(2) {
                last = (count, Instant::now());
            } else if last.1.elapsed().as_millis() as u64 > HANG_MS {
                save(
                    &home,
                    name,
                    &seen.1.lock().map(|input| input.clone()).unwrap_or_default(),
                    "it took too long",
                );
                std::process::exit(1);
            }
        }
    });
    watched
}

fn save(home: &Path, name: &str, input: &[u8], why: &str) {
    let folder = home.join("artifacts").join(name);
    let file = folder.join(format!("smoke-{:016x}", Random::of(input).bits()));
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)) {
        Ok(()) => eprintln!("{name}: {why}; the input is in {}", file.display()),
        Err(error) => eprintln!("{name}: {why}; the input could not be saved ({error}): {input:?}"),
    }
}

/// A target's committed inputs, in the order of their names.
fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

/// A seed with a few changes.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(24)).min(input.len());
        match random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.bits() as u8,
            2 => drop(input.drain(at..end)),
            3 => drop(input.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            4 => drop(input.splice(at..end, TOKENS[random.below(TOKENS.len())].iter().copied())),
            5 => {
                let again = input[at..end].repeat(1 + random.below(4));
                drop(input.splice(at..at, again));
            }
            6 => {
                let other = &seeds[random.below(seeds.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ => number(&mut input, at, random),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Makes another number of the next one behind `at`.
fn number(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = input[at..]
        .iter()
        .position(u8::is_ascii_digit)
        .map(|offset| at + offset)
    else {
        return;
    };
    let len = input[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let old: u64 = std::str::from_utf8(&input[start..start + len])
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let new = match random.below(6) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(10),
        3 => random.below(20) as u64,
        4 => i64::MAX as u64 - random.below(3) as u64,
        _ => u64::MAX,
    };
    drop(input.splice(start..start + len, new.to_string().into_bytes()));
}
