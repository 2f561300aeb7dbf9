//! Watching something that the sidecar does until it is done: asking again and again, with nothing that times out while it goes on.
//!
//! What ends the watch otherwise: the sidecar says that it failed; it waits for something for longer than [`Pace::stalled_max`]
//! (a node that restarts is back by then); it has gone for longer than [`Pace::gone_max`]. One that is there but does not serve yet
//! is bringing its nodes up to date, which takes as long as it takes.
//!
//! [`Pace::stalled_max`]: super::Pace::stalled_max
//! [`Pace::gone_max`]: super::Pace::gone_max

use std::io;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::de::DeserializeOwned;

use super::Session;
use super::client::Document;
use super::failure::Failure;
use super::screen::Screen;

/// What can be watched.
pub(super) trait Followed: DeserializeOwned {
    /// Where it is asked for.
    const PATH: &'static str;
    fn step(&self) -> Step;
    /// How it stands, in one line.
    fn headline(&self) -> String;
    /// What goes on in particular, a line each.
    fn details(&self) -> Vec<String>;
    /// Becomes different when something has happened that should be said at once.
    fn turn(&self) -> String;
    /// Becomes different while it goes on.
    fn progress(&self) -> (u64, u64);
    /// How much is done, of how much.
    fn extent(&self) -> (u64, u64);
}

/// How it is with what is watched.
pub(super) enum Step {
    Done,
    Going,
    /// Waiting for something: a sentence, for the case that it does not come.
    Stalled(String),
    /// A sentence.
    Failed(String),
}

/// Watches until it is done. `known`: the sidecar has just answered, so it counts as gone if it does not now.
pub(super) fn follow<F: Followed>(session: &mut Session<'_, '_>, known: bool) -> Result<F, Failure> {
    let mut view = View::new(session.screen, session.json);
    let result = until_done(session, known, &mut view);
    view.close();
    result
}

fn until_done<F: Followed>(
    session: &mut Session<'_, '_>,
    known: bool,
    view: &mut View,
) -> Result<F, Failure> {
    let pace = session.pace;
    let admin = session.client.admin().to_owned();
    let mut known = known;
    let mut absence = Absence::default();
    let mut stalled: Option<(Instant, (u64, u64))> = None;
    loop {
        match session.client.get(F::PATH) {
            Ok(document) => {
                if absence.end() {
                    view.notice(session.screen, &format!("the sidecar at {admin} is there again"));
                }
                known = true;
                let now: F = document.parse()?;
                view.show(session.screen, &now, &document, pace.quiet)?;
                match now.step() {
                    Step::Done => return Ok(now),
                    Step::Failed(why) => return Err(Failure::Unfinished(why)),
                    Step::Going => stalled = None,
                    Step::Stalled(why) => {
                        let since = match stalled {
                            Some((since, progress)) if progress == now.progress() => since,
                            _ => Instant::now(),
                        };
                        stalled = Some((since, now.progress()));
                        if since.elapsed() >= pace.stalled_max {
                            return Err(Failure::Unfinished(why));
                        }
                    }
                }
            }
            Err(Failure::NotServing(why)) => {
                known = true;
                if absence.serving_not_yet() {
                    view.notice(session.screen, &format!("{why}: waiting until it serves"));
                }
            }
            // One that is killed while it answers leaves half an answer.
            Err(gone @ (Failure::Unreachable { .. } | Failure::Foreign { .. })) if known => {
                match absence.gone() {
                    None => view.notice(
                        session.screen,
                        &format!(
                            "the sidecar at {admin} has gone: trying for {} s to reach it again",
                            pace.gone_max.as_secs()
                        ),
                    ),
                    Some(since) if since.elapsed() >= pace.gone_max => return Err(gone),
                    Some(_) => {}
                }
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(pace.poll);
    }
}

/// What is known of a sidecar that gives no documents; each part is said once.
#[derive(Default)]
struct Absence {
    gone: Option<Instant>,
    not_serving: bool,
}

impl Absence {
    /// Since when it is gone; `None` if that is new.
    fn gone(&mut self) -> Option<Instant> {
        let before = self.gone;
        self.gone = before.or_else(|| Some(Instant::now()));
        before
    }

    /// It is there, but does not serve; true if that is new.
    fn serving_not_yet(&mut self) -> bool {
        self.gone = None;
        !std::mem::replace(&mut self.not_serving, true)
    }

    /// It answers; true if it did not before.
    fn end(&mut self) -> bool {
        let Self { gone, not_serving } = std::mem::take(self);
        gone.is_some() || not_serving
    }
}

/// What the user sees of it.
enum View {
    /// A document when it is another one.
    Json { last: String },
    /// A line when something has happened, and now and then while the counts grow.
    Lines { last: Option<(String, String, Instant)> },
    /// Drawn from the first document on.
    Bar(ProgressBar, Option<ProgressDrawTarget>),
}

impl View {
    fn new(screen: &mut Screen<'_>, json: bool) -> Self {
        if json {
            return Self::Json { last: String::new() };
        }
        match screen.bar.take() {
            None => Self::Lines { last: None },
            Some(target) => {
                let bar = ProgressBar::hidden();
                if let Ok(style) = ProgressStyle::with_template("{percent:>3}% [{bar:30}]\n{msg}") {
                    bar.set_style(style.progress_chars("=> "));
                }
                Self::Bar(bar, Some(target))
            }
        }
    }

    fn show<F: Followed>(
        &mut self,
        screen: &mut Screen<'_>,
        now: &F,
        document: &Document,
        quiet: std::time::Duration,
    ) -> io::Result<()> {
        match self {
            Self::Json { last } => {
                let line = document.one_line();
                if line != *last {
                    screen.line(&line)?;
                    *last = line;
                }
            }
            Self::Lines { last } => {
                // The last one is the command's result, and printed by it.
                if matches!(now.step(), Step::Done) {
                    return Ok(());
                }
                let (turn, line) = (now.turn(), line(now));
                let due = last.as_ref().is_none_or(|(last_turn, last_line, at)| {
                    *last_turn != turn || (*last_line != line && at.elapsed() >= quiet)
                });
                if due {
                    screen.line(&line)?;
                    *last = Some((turn, line, Instant::now()));
                }
            }
            Self::Bar(bar, target) => {
                let (done, all) = now.extent();
                let mut text = now.headline();
                for detail in now.details() {
                    text.push_str("\n  ");
                    text.push_str(&detail);
                }
                bar.set_message(text);
                bar.set_length(all);
                bar.set_position(done);
                if let Some(target) = target.take() {
                    bar.set_draw_target(target);
                }
                bar.tick();
            }
        }
        Ok(())
    }

    /// Says something above the bar.
    fn notice(&self, screen: &mut Screen<'_>, text: &str) {
        match self {
            Self::Bar(bar, _) => bar.suspend(|| screen.complain(text)),
            _ => screen.complain(text),
        }
    }

    /// Takes the bar away: the result, or what went wrong, takes its place.
    fn close(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

fn line<F: Followed>(now: &F) -> String {
    let details = now.details();
    if details.is_empty() {
        now.headline()
    } else {
        format!("{}; {}", now.headline(), details.join("; "))
    }
}
