//! Whether somebody serves the pool, by what its nodes tell.
//!
//! Who has gone is judged where it matters: a sidecar that asks nodes something every second is there, whatever the network between two
//! sidecars does; and one that asks none of them anything can acknowledge nothing.

use crate::node::Claim;

/// What one node tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Who has claimed it.
    pub(super) claim: Option<Claim>,
    /// Whether a sidecar uses it.
    pub(super) usage: Usage,
}

/// Whether a sidecar uses a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// One does.
    Used,
    /// None does.
    Unused,
    /// None does, and the node has only just come: who serves the pool may not have found it yet.
    New,
}

/// What all of them tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody serves the pool, or is about to: who has the highest claim.
    InUse(Claim),
    /// Most nodes are used by nobody; the highest term that was claimed.
    Free(u64),
    /// Too few nodes tell for either; so many answer.
    Unclear(usize),
}

/// Judges by a look at each node of a pool; `None` of those that do not answer.
pub(super) fn judge(looks: &[Option<Look>]) -> Verdict {
    let answered = || looks.iter().flatten();
    let highest = answered()
        .filter_map(|look| look.claim.as_ref())
        .max_by_key(|claim| claim.term);
    let are = |what: Usage| answered().filter(move |look| look.usage == what).count();
    let unused = are(Usage::Unused);
    if unused * 2 > looks.len() {
        return Verdict::Free(highest.map_or(0, |claim| claim.term));
    }
    match highest {
        Some(claim) if are(Usage::Used) > 0 => Verdict::InUse(claim.clone()),
        _ => Verdict::Unclear(answered().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::Usage::{New, Unused, Used};
    use super::*;

    fn claim(term: u64) -> Claim {
        Claim {
            term,
            instance: format!("i{term}"),
            pool: "p".into(),
        }
    }

    fn look(term: u64, usage: Usage) -> Option<Look> {
        let claim = (term > 0).then(|| claim(term));
        Some(Look { claim, usage })
    }

    #[test]
    fn it_takes_most_nodes_to_say_that_nobody_is_there() {
        assert_eq!(judge(&[look(3, Unused), look(3, Unused), None]), Verdict::Free(3));
        assert_eq!(
            judge(&[look(3, Unused), look(3, Used), None]),
            Verdict::InUse(claim(3))
        );
        assert_eq!(
            judge(&[look(3, Unused), look(3, Unused), look(3, Used)]),
            Verdict::Free(3)
        );
        assert_eq!(judge(&[look(3, Unused), None, None]), Verdict::Unclear(1));
        assert_eq!(
            judge(&[look(3, Unused), look(3, Unused), None, None]),
            Verdict::Unclear(2)
        );
        assert_eq!(judge(&[None, None, None]), Verdict::Unclear(0));
        assert_eq!(
            judge(&[look(3, Unused), look(3, New), look(3, New)]),
            Verdict::Unclear(3)
        );
        // A pool that is yet to be made.
        assert_eq!(
            judge(&[look(0, Unused), look(0, Unused), look(0, Unused)]),
            Verdict::Free(0)
        );
        // Somebody makes it just now.
        assert_eq!(
            judge(&[look(0, Used), look(0, Used), look(0, Used)]),
            Verdict::Unclear(3)
        );
    }

    #[test]
    fn who_takes_over_just_now_is_who_has_the_highest_claim() {
        let looks = [look(4, Used), look(3, Used), look(3, Used)];
        assert_eq!(judge(&looks), Verdict::InUse(claim(4)));
    }
}
