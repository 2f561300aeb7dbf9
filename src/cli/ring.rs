//! `ringfence ring`: see and steer the moves of partitions between nodes.

use std::fmt::Write as _;

use super::Session;
use super::documents::{Holding, Job, Moves, MovesState, Plan};
use super::failure::Failure;
use super::follow::{Followed, Step, follow};
use super::operate::RingCommand;
use super::table::{Align, Table};
use super::words::{count, micros, printable, seconds, size};

pub(super) fn run(session: &mut Session<'_, '_>, command: &RingCommand) -> Result<(), Failure> {
    let steer = match command {
        RingCommand::Plan => {
            let document = session.client.get("/v1/ring/plan")?;
            session.show(&document, plan_text)?;
            return Ok(());
        }
        RingCommand::Status(how) if how.watch => return watch(session, false),
        RingCommand::Status(_) => {
            let document = session.client.get(Moves::PATH)?;
            session.show(&document, status_text)?;
            return Ok(());
        }
        RingCommand::Pause => "/v1/ring/pause",
        RingCommand::Resume => "/v1/ring/resume",
        RingCommand::Cancel => "/v1/ring/cancel",
    };
    let document = session.client.post(steer, None)?;
    session.show(&document, status_text)?;
    Ok(())
}

/// Watches until the ring is settled. `known`: the sidecar has just answered.
pub(super) fn watch(session: &mut Session<'_, '_>, known: bool) -> Result<(), Failure> {
    let moves: Moves = follow(session, known)?;
    if session.json {
        return Ok(());
    }
    Ok(session.screen.line(&moves.headline())?)
}

/// What a plan moves, and where to.
pub(super) fn plan_text(plan: &Plan) -> String {
    use Align::{Left, Right};
    if plan.moves == 0 {
        return "Nothing is to be moved.".to_owned();
    }
    let mut text = format!(
        "{} of partitions to be made (at least {} for any placement; the pool has {}), about {}:\n",
        count(plan.moves, "copy", "copies"),
        plan.ideal_moves,
        count(plan.partitions, "partition", "partitions"),
        size(plan.bytes_estimated),
    );
    let mut table = Table::new(&[
        ("NAME", Left),
        ("COPIES NOW", Right),
        ("COPIES THEN", Right),
        ("TO COPY", Right),
    ]);
    for node in &plan.nodes {
        table.row(vec![
            node.name.clone(),
            node.before.to_string(),
            node.after.to_string(),
            size(node.bytes_in),
        ]);
    }
    text.push_str(&table.text());
    text
}

/// All of a status.
fn status_text(moves: &Moves) -> String {
    use Align::{Left, Right};
    let mut text = moves.headline();
    if !moves.jobs.is_empty() {
        let mut table = Table::new(&[
            ("FROM", Left),
            ("TO", Left),
            ("PARTITIONS", Right),
            ("KEYS", Right),
            ("COPIED", Right),
            ("PHASE", Left),
        ]);
        for job in &moves.jobs {
            table.row(vec![
                job.from.clone(),
                job.to.clone(),
                job.partitions.to_string(),
                job.keys.to_string(),
                size(job.bytes),
                job.phase.clone(),
            ]);
        }
        let _infallible = write!(text, "\n\n{}", table.text());
    }
    if !moves.nodes.is_empty() {
        let mut table = Table::new(&[("NAME", Left), ("HOLDS", Right), ("WANTED", Right)]);
        for node in &moves.nodes {
            table.row(vec![
                node.name.clone(),
                node.holds.to_string(),
                node.wanted.to_string(),
            ]);
        }
        let _infallible = write!(text, "\n\n{}", table.text());
    }
    text
}

fn job_text(job: &Job) -> String {
    printable(&format!(
        "{} to {}: {}, {}, {}, {}",
        job.from,
        job.to,
        count(job.partitions, "partition", "partitions"),
        count(job.keys, "key", "keys"),
        size(job.bytes),
        job.phase
    ))
}

impl Moves {
    fn misplaced(&self) -> Option<&Holding> {
        self.nodes.iter().find(|node| node.holds != node.wanted)
    }

    fn reason(&self) -> String {
        self.reason
            .as_deref()
            .map_or_else(|| "it does not say for what".to_owned(), printable)
    }
}

impl Followed for Moves {
    const PATH: &'static str = "/v1/ring";

    fn step(&self) -> Step {
        match self.state {
            MovesState::Settled => match self.misplaced() {
                None => Step::Done,
                // Right after a change, for an instant; or for ever, after the rest was cancelled.
                Some(node) => Step::Stalled(format!(
                    "nothing moves, but {} holds {} and should hold {}: if the rest was cancelled, ask for the change again",
                    printable(&node.name),
                    count(node.holds, "copy", "copies"),
                    node.wanted
                )),
            },
            MovesState::Moving | MovesState::Unknown => Step::Going,
            MovesState::Waiting => Step::Stalled(format!(
                "the sidecar waits ({}): it goes on by itself when that is over",
                self.reason()
            )),
            MovesState::Paused => {
                Step::Failed("the moves are paused: `ringfence ring resume` goes on with them".to_owned())
            }
        }
    }

    fn headline(&self) -> String {
        let copies = count(self.moves_total, "copy", "copies");
        let head = match self.state {
            MovesState::Settled if self.moves_total == 0 => {
                return "settled: nothing is to be moved".to_owned();
            }
            MovesState::Settled => {
                return format!(
                    "settled: {} of {copies} made, {}, {}, writes held for at most {}",
                    self.moves_done,
                    count(self.keys_copied, "key", "keys"),
                    size(self.bytes_copied),
                    micros(self.longest_hold_us)
                );
            }
            MovesState::Waiting => format!("waiting ({}): ", self.reason()),
            MovesState::Paused => "paused: ".to_owned(),
            MovesState::Moving | MovesState::Unknown => "moving: ".to_owned(),
        };
        let mut text = format!(
            "{head}{} of {copies} made, {} of about {}",
            self.moves_done,
            size(self.bytes_copied),
            size(self.bytes_estimated)
        );
        if self.state == MovesState::Moving {
            let _infallible = write!(text, ", {}/s", size(self.bytes_per_s));
            if let Some(eta) = self.eta_s {
                let _infallible = write!(text, ", about {} left", seconds(eta));
            }
        }
        text
    }

    fn details(&self) -> Vec<String> {
        self.jobs.iter().map(job_text).collect()
    }

    fn turn(&self) -> String {
        let jobs: Vec<String> = self
            .jobs
            .iter()
            .map(|job| format!("{} {} {}", job.from, job.to, job.phase))
            .collect();
        format!(
            "{:?} {:?} {}/{} {jobs:?}",
            self.state, self.reason, self.moves_done, self.moves_total
        )
    }

    fn progress(&self) -> (u64, u64) {
        (self.moves_done, self.bytes_copied)
    }

    fn extent(&self) -> (u64, u64) {
        if self.bytes_estimated == 0 {
            (self.moves_done, self.moves_total)
        } else {
            // It was an estimate.
            (self.bytes_copied.min(self.bytes_estimated), self.bytes_estimated)
        }
    }
}
