//! The command line: what it takes, and the commands that operate a running sidecar over its admin port.
//!
//! A command is one request, or for `--watch` and `--wait` one request again and again, and prints what came back: for people as
//! sentences and tables, with `--json` as the sidecar's own document. It knows nothing of pools: what may be done and what it would
//! cost is the sidecar's to say, and a refusal is printed as the sidecar worded it.
//!
//! It runs without an event loop: a command waits for one answer and ends. What is printed goes to a [`Screen`], so that tests see it.

mod args;
mod client;
mod documents;
mod explain;
mod failure;
mod follow;
mod nodes;
mod operate;
mod ring;
mod screen;
mod table;
mod verify;
mod words;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use args::{Cli, Command, Dev, Explain};
pub use explain::explain;
pub use operate::{
    Add, Drain, Name, Nodes, NodesCommand, Operate, Ring, RingCommand, Set, Target, Verify, Watch,
};
pub use screen::Screen;

use client::Client;
use failure::Failure;

/// `EX_USAGE`: the configuration or the command line is wrong.
pub const EXIT_USAGE: u8 = 64;

/// How long things may take while a command watches.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Between two looks.
    pub poll: Duration,
    /// How long a sidecar that has gone is tried.
    pub gone_max: Duration,
    /// How long a sidecar may wait for something without any progress before the command says that it is stuck.
    pub stalled_max: Duration,
    /// Without a terminal: how long nothing is said while only the counts grow.
    pub quiet: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            gone_max: Duration::from_secs(30),
            stalled_max: Duration::from_secs(30),
            quiet: Duration::from_secs(10),
        }
    }
}

/// Runs one command to its end and returns the exit code: 0 if it is done, 1 if the sidecar refused or could not finish it, 64 for
/// wrong usage, 69 if there is no sidecar, 74 if the output cannot be written.
pub fn run(operate: &Operate, screen: &mut Screen<'_>, pace: &Pace) -> u8 {
    let result = match operate {
        Operate::Nodes(nodes) => nodes::run(&mut session(&nodes.target, screen, pace), &nodes.command),
        Operate::Ring(ring) => ring::run(&mut session(&ring.target, screen, pace), &ring.command),
        Operate::Verify(verify) => verify::run(&mut session(&verify.target, screen, pace), verify),
    };
    match result {
        Ok(()) => 0,
        Err(failure) => {
            if !failure.is_closed_pipe() {
                screen.complain(&failure.to_string());
            }
            failure.exit_code()
        }
    }
}

/// What every command has.
struct Session<'a, 's> {
    client: Client,
    screen: &'a mut Screen<'s>,
    pace: &'a Pace,
    /// Print the sidecar's documents as they are.
    json: bool,
}

fn session<'a, 's>(target: &Target, screen: &'a mut Screen<'s>, pace: &'a Pace) -> Session<'a, 's> {
    Session {
        client: Client::new(target.admin.clone()),
        screen,
        pace,
        json: target.json,
    }
}

impl Session<'_, '_> {
    /// Prints `document` as it is, or what `words` makes of it.
    fn show<T: serde::de::DeserializeOwned>(
        &mut self,
        document: &client::Document,
        words: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        let parsed = document.parse()?;
        if self.json {
            self.screen.line(document.text())?;
        } else {
            self.screen.line(&words(&parsed))?;
        }
        Ok(parsed)
    }
}
