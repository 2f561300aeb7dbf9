//! Those who wait in lines, in examples.

use std::sync::Arc;

use ringfence::command::parts::{ElementType, Line};
use ringfence::request::{Action, Attempt, Commands, Outcome, Touched, Wait, Waiter};
use ringfence::resp::{Span, encode};
use ringfence::sequencer::{Effect, Sequencer};

use crate::pool::{LARGE, LIST, Pool, START};

impl Pool {
    /// Somebody comes to wait at the list.
    fn wait(&mut self, slot: u64, waiter: &Arc<Waiter>) {
        let pop = Commands {
            touched: Touched::Keys([Span { start: 18, len: 2 }].into_iter().collect()),
            ..Commands::one(encode::command_frame(&[b"LPOP", LIST]))
        };
        let wait = Wait {
            waiter: waiter.clone(),
            key: LIST.to_vec().into(),
            line: Line::Elements(ElementType::List),
            moves: false,
            attempt: Some(Attempt::Write(pop)),
        };
        self.order(Action::Wait(Box::new(wait)), slot);
    }

    /// Lets all that is under way arrive, and tells the sequencer how its attempts ended.
    fn run_attempts(&mut self) {
        self.run();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Complete(to, outcome) if Sequencer::is_attempt(to) => {
                    self.sequencer.attempted(to, outcome);
                    self.run();
                }
                other => self.effects.push(other),
            }
        }
    }

    fn told(&self, slot: u64) -> Option<&Outcome> {
        let mut told = self.effects.iter().filter_map(|effect| match effect {
            Effect::Complete(to, outcome) if to.slot == slot => Some(outcome),
            _ => None,
        });
        told.next_back()
    }
}

/// One that waits here and elsewhere is served elsewhere. Until it has left the line, it stands there for nobody: what comes is for who
/// comes next.
#[test]
fn who_was_served_elsewhere_keeps_nobody_waiting() {
    let mut pool = Pool::new(LARGE);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    let (first, second) = (Arc::new(Waiter::default()), Arc::new(Waiter::default()));
    pool.wait(1, &first);
    pool.run_attempts();
    assert!(matches!(pool.told(1), Some(Outcome::Waits)));
    assert!(first.claim());
    first.served();
    pool.push(7);
    pool.run_attempts();
    pool.wait(2, &second);
    pool.run_attempts();
    let told = pool.told(2);
    assert!(
        matches!(told, Some(Outcome::Reply { frames, .. }) if *frames == b"$1\r\n7\r\n"[..]),
        "{told:?}"
    );
}
