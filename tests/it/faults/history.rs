//! What producers and consumers remember of a run, and what must be true of it. Pure, so that the checker is tested
//! on invented histories.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One message: who made it, and which of his it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub producer: usize,
    pub counter: u64,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.producer, self.counter)
    }
}

impl Message {
    pub fn parse(text: &str) -> Option<Self> {
        let (producer, counter) = text.split_once(':')?;
        Some(Self {
            producer: producer.parse().ok()?,
            counter: counter.parse().ok()?,
        })
    }
}

/// What a producer knows of one message: it may be sent more than once after an outcome it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub acknowledged: bool,
    /// Attempts that ended with a dropped connection.
    pub unknown: u64,
}

/// What happened on one queue.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub sent: BTreeMap<Message, Sent>,
    /// In the order in which the only consumer got them, with what was drained at the end.
    pub received: Vec<Message>,
    /// Pops that ended with a dropped connection: each may have taken one message with it.
    pub unknown_pops: u64,
}

impl History {
    /// Everything that must not be, one line each.
    pub fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut copies: BTreeMap<Message, u64> = BTreeMap::new();
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for message in &self.received {
            *copies.entry(*message).or_default() += 1;
            let before = last.entry(message.producer).or_default();
            if message.counter < *before {
                wrong.push(format!(
                    "order: {message} came after {}:{before}",
                    message.producer
                ));
            }
            *before = message.counter.max(*before);
        }
        for (message, count) in &copies {
            match self.sent.get(message) {
                None => wrong.push(format!("invented: {message}")),
                Some(sent) => {
                    let most = u64::from(sent.acknowledged) + sent.unknown;
                    if *count > most {
                        wrong.push(format!("{message} came {count} times, {most} at most: {sent:?}"));
                    }
                }
            }
        }
        let lost: BTreeSet<&Message> = self
            .sent
            .iter()
            .filter(|(message, sent)| sent.acknowledged && !copies.contains_key(message))
            .map(|(message, _)| message)
            .collect();
        if lost.len() as u64 > self.unknown_pops {
            let shown: Vec<String> = lost.iter().take(10).map(ToString::to_string).collect();
            wrong.push(format!(
                "lost: {} acknowledged messages ({} pops of unknown outcome): {}",
                lost.len(),
                self.unknown_pops,
                shown.join(" ")
            ));
        }
        wrong
    }
}

mod checks_that_it {
    use super::*;

    fn history(sent: &[(u64, bool, u64)], received: &[u64], unknown_pops: u64) -> History {
        let message = |counter| Message { producer: 1, counter };
        History {
            sent: sent
                .iter()
                .map(|(n, acknowledged, unknown)| {
                    (
                        message(*n),
                        Sent {
                            acknowledged: *acknowledged,
                            unknown: *unknown,
                        },
                    )
                })
                .collect(),
            received: received.iter().map(|n| message(*n)).collect(),
            unknown_pops,
        }
    }

    #[test]
    fn accepts_what_a_crash_may_do() {
        let fine = [
            history(&[(1, true, 0), (2, true, 0)], &[1, 2], 0),
            history(&[(1, true, 0), (2, false, 1)], &[1], 0),
            history(&[(1, true, 0), (2, false, 1)], &[1, 2], 0),
            history(&[(1, true, 1), (2, true, 0)], &[1, 1, 2], 0),
            history(&[(1, true, 0), (2, true, 0)], &[2], 1),
        ];
        for history in fine {
            assert_eq!(history.violations(), Vec::<String>::new());
        }
    }

    #[test]
    fn catches_loss_invention_repetition_and_disorder() {
        let wrong = [
            (history(&[(1, true, 0), (2, true, 0)], &[1], 0), "lost"),
            (history(&[(1, true, 0)], &[1, 2], 0), "invented"),
            (history(&[(1, true, 0)], &[1, 1], 0), "came 2 times"),
            // Refused with an error, so never done.
            (history(&[(1, false, 0)], &[1], 0), "came 1 times, 0 at most"),
            (history(&[(1, true, 0), (2, true, 0)], &[2, 1], 0), "order"),
            (
                history(&[(1, true, 0), (2, true, 0), (3, true, 0)], &[3], 1),
                "lost",
            ),
        ];
        for (history, expected) in wrong {
            let violations = history.violations();
            assert!(
                violations.iter().any(|line| line.contains(expected)),
                "{expected}: {violations:?}"
            );
        }
    }
}
