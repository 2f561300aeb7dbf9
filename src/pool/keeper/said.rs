//! What has been said of a node in the log, so that who tries again and again does not say the same each time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What has not been the case for so long is news when it is again; and no two lines on how a node stands are said sooner if it
/// is always the same two.
const QUIET: Duration = Duration::from_secs(10);

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Things that happened, and when each last did.
    happened: HashMap<String, Instant>,
    /// How the node stood when that was last said.
    standing: String,
    /// When it was said of it that it stood so.
    stood: HashMap<String, Instant>,
}

impl Said {
    /// Whether that has not happened lately; it has now.
    pub(super) fn is_news(&mut self, what: &str, now: Instant) -> bool {
        forget_old(&mut self.happened, now);
        self.happened.insert(what.to_owned(), now).is_none()
    }

    /// Whether it should be said that the node stands so. Asked again as long as it does: what is held back because it was said
    /// a moment ago is said in the end, if it is still true.
    pub(super) fn should_say(&mut self, standing: &str, now: Instant) -> bool {
        forget_old(&mut self.stood, now);
        if self.standing == standing || self.stood.contains_key(standing) {
            return false;
        }
        standing.clone_into(&mut self.standing);
        self.stood.insert(standing.to_owned(), now);
        true
    }
}

/// So there are only as many as come up within that time.
fn forget_old(times: &mut HashMap<String, Instant>, now: Instant) {
    times.retain(|_, last| now.duration_since(*last) < QUIET);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_once() {
        let mut said = Said::default();
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        assert!(said.is_news("refused", at(0)));
        assert!((1..60).all(|s| !said.is_news("refused", at(s))));
        assert!(said.is_news("closed", at(60)));
        assert!(said.is_news("refused", at(80)));
    }

    #[test]
    fn who_comes_and_goes_is_not_told_of_each_time_but_in_the_end() {
        let mut said = Said::default();
        let begin = Instant::now();
        let mut lines = Vec::new();
        for s in 0..24 {
            let standing = if s % 2 == 0 || s > 20 { "away" } else { "there" };
            if said.should_say(standing, begin + Duration::from_secs(s)) {
                lines.push((s, standing));
            }
        }
        assert_eq!(
            lines,
            [
                (0, "away"),
                (1, "there"),
                (10, "away"),
                (11, "there"),
                (20, "away")
            ]
        );
    }
}
