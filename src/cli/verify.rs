//! `ringfence verify`: compare the copies of every key, and repair what differs.

use serde_json::json;

use super::Session;
use super::documents::{Verification, VerificationState};
use super::failure::Failure;
use super::follow::{Followed, Step, follow};
use super::operate::Verify;
use super::words::count;

pub(super) fn run(session: &mut Session<'_, '_>, verify: &Verify) -> Result<(), Failure> {
    if verify.status && verify.watch {
        return watch(session, false);
    }
    let document = if verify.status {
        session.client.get(Verification::PATH)?
    } else if verify.stop {
        session.client.delete(Verification::PATH)?
    } else {
        let body = json!({ "keys_per_s": verify.rate });
        session.client.post(Verification::PATH, Some(&body))?
    };
    if verify.watch {
        // It is only begun: what comes of it is seen by watching.
        return watch(session, true);
    }
    let verification = session.show(&document, Verification::headline)?;
    if verification.state == VerificationState::Running {
        return Ok(());
    }
    verification.verdict()
}

fn watch(session: &mut Session<'_, '_>, known: bool) -> Result<(), Failure> {
    let verification: Verification = follow(session, known)?;
    if !session.json {
        session.screen.line(&verification.headline())?;
    }
    verification.verdict()
}

impl Verification {
    /// Whether all that was to be compared is the same on all nodes now.
    fn verdict(&self) -> Result<(), Failure> {
        if let (VerificationState::Done, Some(why)) = (self.state, &self.reason) {
            return Err(Failure::Unfinished(format!(
                "not all keys could be compared ({why}): verify again when that is over"
            )));
        }
        match self.different.saturating_sub(self.repaired) {
            0 => Ok(()),
            left => Err(Failure::Unfinished(format!(
                "{} could not be made the same on all nodes: the sidecar's log says why; then verify again",
                count(left, "key", "keys")
            ))),
        }
    }
}

impl Followed for Verification {
    const PATH: &'static str = "/v1/verify";

    fn step(&self) -> Step {
        match self.state {
            VerificationState::Running | VerificationState::Unknown => Step::Going,
            VerificationState::Done => Step::Done,
            VerificationState::Stopped => Step::Failed(format!(
                "it was stopped after {} of {} partitions: `ringfence verify` begins again",
                self.partitions_done, self.partitions_total
            )),
            VerificationState::Idle => Step::Failed(
                "the sidecar compares nothing (perhaps it was restarted): `ringfence verify` begins"
                    .to_owned(),
            ),
        }
    }

    fn headline(&self) -> String {
        let state = match self.state {
            VerificationState::Idle => {
                return "idle: nothing was compared since the sidecar's start".to_owned();
            }
            VerificationState::Running | VerificationState::Unknown => "running",
            VerificationState::Done => "done",
            VerificationState::Stopped => "stopped",
        };
        let rate = match self.state {
            VerificationState::Running => format!(" ({}/s)", self.keys_per_s),
            _ => String::new(),
        };
        format!(
            "{state}: {} of {}, {}{rate}, {} different, {} repaired, {} skipped",
            self.partitions_done,
            count(self.partitions_total, "partition", "partitions"),
            count(self.keys, "key", "keys"),
            self.different,
            self.repaired,
            self.skipped
        )
    }

    fn details(&self) -> Vec<String> {
        Vec::new()
    }

    fn turn(&self) -> String {
        format!("{:?} {} {}", self.state, self.different, self.repaired)
    }

    fn progress(&self) -> (u64, u64) {
        (self.partitions_done, self.keys)
    }

    fn extent(&self) -> (u64, u64) {
        (self.partitions_done, self.partitions_total)
    }
}
