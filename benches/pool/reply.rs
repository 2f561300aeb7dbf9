//! Counts replies without keeping them.
//!
//! One counter per connection is fed whatever a read returned: a line may be cut anywhere, a body is jumped over by its
//! length. Only what the measured commands can answer is understood (simple strings, errors, integers, bulk strings);
//! anything else ends the cell, because a counter that has lost its place would measure nonsense.
//!
//! A wrong answer must not look like a fast one: errors, missing values and a `WAIT` that reached too few replicas are
//! counted as failures, and the first is kept for the report.

use anyhow::{Result, bail};

/// Longest line kept: an error message is cut here, other lines are far shorter.
const LINE_BYTES_MAX: usize = 256;

/// Replies of one connection so far.
#[derive(Default)]
pub(crate) struct Replies {
    /// Complete replies.
    pub(crate) count: u64,
    /// Replies that mean the command was not done.
    pub(crate) failed: u64,
    /// The first of those, as the server said it.
    pub(crate) failure: Option<String>,
    /// Sum of integer replies (of the requests themselves, not of a `WAIT` behind them).
    pub(crate) sum: i64,
    /// Every second reply is that of a `WAIT` for so many replicas.
    wait_copies: Option<i64>,
    body_bytes_left: usize,
    line: Vec<u8>,
}

impl Replies {
    pub(crate) fn new(wait_copies: Option<usize>) -> Replies {
        Replies {
            wait_copies: wait_copies.map(|copies| copies as i64),
            ..Replies::default()
        }
    }

    /// Takes what a read returned.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.body_bytes_left > 0 {
                let skipped = self.body_bytes_left.min(bytes.len());
                self.body_bytes_left -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                if self.body_bytes_left == 0 {
                    self.count += 1;
                }
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.keep(bytes);
                return Ok(());
            };
            let (head, rest) = bytes.split_at_checked(end + 1).unwrap_or((bytes, &[]));
            if self.line.is_empty() {
                self.take_line(head)?;
            } else {
                self.keep(head);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        let line = line.trim_ascii_end();
        match line.split_first() {
            Some((b'+', _)) => {}
            Some((b':', digits)) => self.take_integer(number(digits)?),
            Some((b'-', _)) => self.fail(String::from_utf8_lossy(line).into_owned()),
            Some((b'_', _)) => self.fail("the value is missing".to_owned()),
            Some((b'$', digits)) => match usize::try_from(number(digits)?) {
                Ok(length) => {
                    self.body_bytes_left = length + 2;
                    return Ok(());
                }
                Err(_) => self.fail("the value is missing".to_owned()),
            },
            _ => bail!("cannot follow the reply {:?}", String::from_utf8_lossy(line)),
        }
        self.count += 1;
        Ok(())
    }

    fn take_integer(&mut self, value: i64) {
        match self.wait_copies {
            Some(copies) if self.count % 2 == 1 => {
                if value < copies {
                    self.fail(format!("WAIT reached {value} of {copies} replicas"));
                }
            }
            _ => self.sum += value,
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failure.get_or_insert(what);
    }
}

fn number(digits: &[u8]) -> Result<i64> {
    let parsed = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    match parsed {
        Some(value) => Ok(value),
        None => bail!("{:?} is not a number", String::from_utf8_lossy(digits)),
    }
}
