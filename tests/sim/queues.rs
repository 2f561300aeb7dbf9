//! Lists of which elements are taken, by whoever is first: no element is lost, taken twice, or in two places.

use std::collections::BTreeMap;

use crate::ops::{End, Op};
use crate::wire::Reply;

#[derive(Debug, Default)]
pub struct Queues {
    /// Who has taken an element.
    taken: BTreeMap<u64, u64>,
    /// Who has taken one that somebody else had taken: it was in two places.
    again: Vec<(u64, u64)>,
}

impl Queues {
    /// Somebody was given an element, or shown one that has been moved.
    pub fn give(&mut self, ops: &[Op], to: u64, reply: &Reply) -> Result<(), String> {
        let Reply::Text(text) = reply else {
            return Err(format!("an element is not {reply:?}"));
        };
        let value: u64 = String::from_utf8_lossy(text)
            .parse()
            .map_err(|_| "was given nonsense")?;
        let put = ops.get(value as usize).ok_or("was given what was never put")?;
        if !put.kind.puts() || put.end == Some(End::NotDone) {
            return Err(format!("was given {value}, which was not put"));
        }
        // Who moves it does not keep it, and another one may have been told first that he has it.
        if ops[to as usize].kind.takes()
            && let Some(other) = self.taken.insert(value, to)
        {
            self.again.push((to, other));
        }
        Ok(())
    }

    /// `found`: all elements of all queues when everything is still. `torn` joint writes may be done in one partition only: what they move may
    /// be in two places then, but not in none.
    pub fn check_final(&self, ops: &[Op], found: &[Vec<u8>], torn: usize) -> Result<(), String> {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for element in found {
            let value = String::from_utf8_lossy(element)
                .parse()
                .map_err(|_| "nonsense in a queue")?;
            *times.entry(value).or_default() += 1;
        }
        let mut missing = Vec::new();
        let mut twice = self.again.len();
        let mut unknown = 0;
        for (id, op) in ops.iter().enumerate() {
            let times = times.remove(&(id as u64)).unwrap_or_default();
            let taken = self.taken.contains_key(&(id as u64));
            twice += times.saturating_sub(1) + usize::from(taken && times > 0);
            match (op.kind.puts(), &op.end) {
                (true, Some(End::NotDone)) if times > 0 => {
                    return Err(format!("{id} was refused and is there"));
                }
                (true, Some(End::Done)) if times == 0 && !taken => missing.push(id),
                _ => {}
            }
            unknown += usize::from(op.kind.takes() && op.end == Some(End::Unknown));
        }
        if !times.is_empty() {
            return Err(format!("{times:?} are in queues, and were never put"));
        }
        if twice > torn {
            return Err(format!(
                "{twice} elements are in queues though they were taken, or are twice there, or were taken twice: {:?}",
                self.again
            ));
        }
        if missing.len() > unknown {
            return Err(format!("{missing:?} are lost, and {unknown} may be taken"));
        }
        Ok(())
    }
}

/// Whether a reply says that there was nothing.
pub fn is_nothing(reply: &Reply) -> bool {
    *reply == Reply::Null
}
