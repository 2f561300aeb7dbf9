//! What was put in and what came out, where some of it may come more than once. Pure, so that the checker is tested on invented
//! histories.

use crate::faults::history::{Message, Sent};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub sent: BTreeMap<Message, Sent>,
    /// What each taker got, in his order.
    pub taken: Vec<Vec<Message>>,
    /// How often a message may come again: whoever held it crashed.
    pub excused: BTreeMap<Message, u64>,
    /// Takes of unknown outcome, each of which may have taken a message that nobody has seen.
    pub lost_max: u64,
    /// Moves of unknown outcome, each of which may have left a message in both places.
    pub doubled_max: u64,
    /// Whether each taker gets each producer's messages in their order.
    pub is_ordered: bool,
}

impl Ledger {
    pub fn excuse(&mut self, message: Message) {
        *self.excused.entry(message).or_default() += 1;
    }

    /// Everything that must not be, one line each.
    pub fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut late = Vec::new();
        let mut copies: BTreeMap<Message, u64> = BTreeMap::new();
        for taken in &self.taken {
            let mut last: BTreeMap<usize, u64> = BTreeMap::new();
            for message in taken {
                *copies.entry(*message).or_default() += 1;
                let before = last.entry(message.producer).or_default();
                if self.is_ordered && message.counter < *before {
                    late.push(format!("{message} after number {before}"));
                }
                *before = message.counter.max(*before);
            }
        }
        // What was on its way to somebody who has gone goes back, behind what others have got meanwhile.
        if late.len() as u64 > self.lost_max {
            wrong.push(format!(
                "order: {late:?} ({} takes of unknown outcome)",
                self.lost_max
            ));
        }
        let mut doubled = Vec::new();
        for (message, count) in &copies {
            let Some(sent) = self.sent.get(message) else {
                wrong.push(format!("invented: {message}"));
                continue;
            };
            let puts = u64::from(sent.acknowledged) + sent.unknown;
            if puts == 0 {
                wrong.push(format!("{message} was refused, and came {count} times"));
            }
            let most = puts + self.excused.get(message).copied().unwrap_or(0);
            if *count > most {
                doubled.push((*message, count - most));
            }
        }
        let again: u64 = doubled.iter().map(|(_, more)| more).sum();
        if again > self.doubled_max {
            wrong.push(format!(
                "repeated: {again} more than there may be ({} moves of unknown outcome): {doubled:?}",
                self.doubled_max
            ));
        }
        let is_lost =
            |(message, sent): &(&Message, &Sent)| sent.acknowledged && !copies.contains_key(message);
        let lost: Vec<String> = self
            .sent
            .iter()
            .filter(is_lost)
            .map(|(message, _)| message.to_string())
            .collect();
        if lost.len() as u64 > self.lost_max {
            wrong.push(format!(
                "lost: {} acknowledged messages ({} takes of unknown outcome): {}",
                lost.len(),
                self.lost_max,
                lost.get(..lost.len().min(10)).unwrap_or_default().join(" ")
            ));
        }
        wrong
    }
}

mod checks_that_it {
    use super::*;

    fn message(counter: u64) -> Message {
        Message { producer: 1, counter }
    }

    fn ledger(sent: &[(u64, bool, u64)], taken: &[&[u64]]) -> Ledger {
        let known = |&(n, acknowledged, unknown)| {
            (
                message(n),
                Sent {
                    acknowledged,
                    unknown,
                },
            )
        };
        Ledger {
            sent: sent.iter().map(known).collect(),
            taken: taken
                .iter()
                .map(|of_one| of_one.iter().copied().map(message).collect())
                .collect(),
            is_ordered: true,
            ..Ledger::default()
        }
    }

    #[test]
    fn accepts_what_may_be_and_nothing_else() {
        let both = [(1, true, 0), (2, true, 0)];
        let once = ledger(&both, &[&[1], &[2]]);
        assert_eq!(once.violations(), Vec::<String>::new());
        let cases: [(Ledger, &str); 6] = [
            (ledger(&both, &[&[1]]), "lost"),
            (ledger(&both, &[&[2, 1]]), "order"),
            (ledger(&both, &[&[1], &[1, 2]]), "repeated"),
            (ledger(&both, &[&[1, 2, 3]]), "invented"),
            (ledger(&[(1, false, 0)], &[&[1]]), "refused"),
            (ledger(&[(1, true, 1)], &[&[1], &[1], &[1]]), "repeated"),
        ];
        for (ledger, word) in &cases {
            let wrong = ledger.violations();
            assert!(wrong.iter().any(|line| line.contains(word)), "{word}: {wrong:?}");
        }
        let mut excused = cases[2].0.clone();
        excused.excuse(message(1));
        assert_eq!(excused.violations(), Vec::<String>::new());
        let mut unknown = cases[0].0.clone();
        unknown.lost_max = 1;
        assert_eq!(unknown.violations(), Vec::<String>::new());
    }
}
