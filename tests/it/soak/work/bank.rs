//! Transfers between accounts, with `WATCH`: nobody ever sees money made or lost.
//!
//! Where accounts are in several partitions, a sidecar that dies in the middle of an `EXEC` may leave half of it (README): as much as
//! the transfers of unknown outcome until then may be missing, or be too much.

use super::{Work, lock, named};
use crate::cmd;
use crate::harness::{Client, Reply};
use crate::soak::hand::{Crew, Hand, Told};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const ACCOUNTS: usize = 4;
const FIRST: i64 = 1000;
const SUM: i64 = FIRST * ACCOUNTS as i64;

/// What is known of transfers that nobody has acknowledged.
struct Unknown {
    began: Instant,
    amount: i64,
}

struct Bank {
    name: &'static str,
    unknown: Arc<Mutex<Vec<Unknown>>>,
    /// Sums that were not what they should be, and when they were seen.
    odd: Arc<Mutex<Vec<(Instant, i64)>>>,
    transfers: Arc<Mutex<u64>>,
}

/// With a `{hash tag}` as `name` all accounts are in one partition, without they are not.
pub(super) fn start(crew: &mut Crew, name: &'static str) -> Box<dyn Work> {
    let bank = Bank {
        name,
        unknown: Arc::default(),
        odd: Arc::default(),
        transfers: Arc::default(),
    };
    let mut client = Client::connect(&crew.front.endpoint());
    for account in accounts(name) {
        assert!(client.call(cmd!["SET", account, FIRST]).is_ok());
    }
    for at in 0..2 {
        let (unknown, transfers) = (Arc::clone(&bank.unknown), Arc::clone(&bank.transfers));
        crew.hire(&format!("{name} clerk {at}"), move |mut hand| {
            while hand.goes_on() {
                if transfer(&mut hand, name, &unknown).is_some() {
                    *lock(&transfers) += 1;
                }
                hand.rest(2, 12);
            }
        });
    }
    let odd = Arc::clone(&bank.odd);
    crew.hire(&format!("{name} auditor"), move |mut hand| {
        let ask: Vec<_> = accounts(name).map(|account| cmd!["GET", account]).collect();
        while hand.goes_on() {
            if let Some(Told::Done(reply)) = hand.transaction(&ask) {
                let sum: i64 = reply.items().iter().filter_map(number).sum();
                if sum != SUM {
                    lock(&odd).push((Instant::now(), sum));
                }
            }
            hand.rest(2, 12);
        }
    });
    Box::new(bank)
}

fn accounts(name: &str) -> impl Iterator<Item = String> {
    (0..ACCOUNTS).map(move |at| format!("{name}:account-{at}"))
}

fn number(reply: &Reply) -> Option<i64> {
    reply.text().and_then(|text| text.parse().ok())
}

/// Tries once. `None` if it was not done, for whatever reason.
fn transfer(hand: &mut Hand, name: &str, unknown: &Mutex<Vec<Unknown>>) -> Option<()> {
    let from = hand.rng.below(ACCOUNTS);
    let to = (from + hand.rng.between(1, ACCOUNTS as i64 - 1) as usize) % ACCOUNTS;
    let [from, to] = [from, to].map(|at| format!("{name}:account-{at}"));
    hand.call(&cmd!["WATCH", from, to])?.done()?;
    // Whatever fails, this connection does not go on watching: a new one begins anew.
    let seen: Option<(i64, i64)> = (|| {
        let had_from = number(&hand.call(&cmd!["GET", from])?.done()?)?;
        let had_to = number(&hand.call(&cmd!["GET", to])?.done()?)?;
        Some((had_from, had_to))
    })();
    let Some((had_from, had_to)) = seen else {
        hand.hang_up();
        return None;
    };
    let amount = hand.rng.between(1, 20);
    let began = Instant::now();
    let told = hand.transaction(&[
        cmd!["SET", from, had_from - amount],
        cmd!["SET", to, had_to + amount],
    ]);
    match told? {
        Told::Done(reply) if reply.is_nil() => None,
        Told::Done(_) => Some(()),
        Told::Refused => None,
        Told::Unknown => {
            lock(unknown).push(Unknown { began, amount });
            None
        }
    }
}

impl Work for Bank {
    fn finish(self: Box<Self>, client: &mut Client) -> Vec<String> {
        let replies = accounts(self.name).map(|account| client.call(cmd!["GET", account]));
        let sum: i64 = replies.filter_map(|reply| number(&reply)).sum();
        let mut odd = lock(&self.odd);
        if sum != SUM {
            odd.push((Instant::now(), sum));
        }
        let unknown = lock(&self.unknown);
        eprintln!(
            "  {}: {} transfers, {} unknown, {} odd sums seen",
            self.name,
            lock(&self.transfers),
            unknown.len(),
            odd.len()
        );
        let is_whole = self.name.starts_with('{');
        let allowed = |seen: Instant| -> i64 {
            let before = unknown.iter().filter(|transfer| transfer.began <= seen);
            if is_whole {
                0
            } else {
                before.map(|transfer| transfer.amount).sum()
            }
        };
        let wrong = odd.iter().filter(|(at, sum)| (sum - SUM).abs() > allowed(*at));
        let wrong = wrong.map(|(at, sum)| {
            format!(
                "the sum is {sum} instead of {SUM}, {} ms ago; {} may be missing",
                at.elapsed().as_millis(),
                allowed(*at)
            )
        });
        named(self.name, wrong.take(10).collect())
    }
}
