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
    /// Somebody uses nodes that know of no claim.
    Unrecorded,
    /// Too few nodes tell for either; so many answer.
    Unclear(usize),
}

/// Judges by a look at each node of a pool; `None` of those that do not answer. With the pool's id, if it has been made.
pub(super) fn judge(pool: Option<&str>, looks: &[Option<Look>]) -> Verdict {
    // At a node's address there may be a node of another pool.
    let is_of_another = |claim: &Claim| pool.is_some_and(|pool| claim.pool != pool);
    let answered = || {
        let answered = looks.iter().flatten();
        answered.filter(|look| !look.claim.as_ref().is_some_and(is_of_another))
    };
    let claims = answered().filter_map(|look| look.claim.as_ref());
    let highest = claims.max_by_key(|claim| claim.term);
    let is_used = answered().any(|look| look.usage == Usage::Used);
    // Who takes over claims one node after the other. It is not disturbed.
    if let Some(claim) = highest {
        let has = |look: &&Look| look.claim.as_ref() == Some(claim);
        let is_minority = answered().filter(has).count() * 2 <= looks.len();
        if is_minority && answered().filter(has).any(|look| look.usage == Usage::Used) {
            return Verdict::InUse(claim.clone());
        }
    }
    // One that has forgotten who has claimed it may have forgotten the users of that one, too.
    let tells = |look: &&Look| look.claim.is_some() || highest.is_none() || !is_used;
    let unused = answered()
        .filter(|look| look.usage == Usage::Unused)
        .filter(tells);
    if unused.count() * 2 > looks.len() {
        return Verdict::Free(highest.map_or(0, |claim| claim.term));
    }
    match highest {
        Some(claim) if is_used => Verdict::InUse(claim.clone()),
        None if is_used => Verdict::Unrecorded,
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
        assert_eq!(
            judge(Some("p"), &[look(3, Unused), look(3, Unused), None]),
            Verdict::Free(3)
        );
        assert_eq!(
            judge(Some("p"), &[look(3, Unused), look(3, Used), None]),
            Verdict::InUse(claim(3))
        );
        assert_eq!(
            judge(Some("p"), &[look(3, Unused), look(3, Unused), look(3, Used)]),
            Verdict::Free(3)
        );
        assert_eq!(
            judge(Some("p"), &[look(3, Unused), None, None]),
            Verdict::Unclear(1)
        );
        assert_eq!(
            judge(Some("p"), &[look(3, Unused), look(3, Unused), None, None]),
            Verdict::Unclear(2)
        );
        assert_eq!(judge(Some("p"), &[None, None, None]), Verdict::Unclear(0));
        assert_eq!(
            judge(Some("p"), &[look(3, Unused), look(3, New), look(3, New)]),
            Verdict::Unclear(3)
        );
        // A pool that is yet to be made.
        assert_eq!(
            judge(Some("p"), &[look(0, Unused), look(0, Unused), look(0, Unused)]),
            Verdict::Free(0)
        );
        // A node of another pool tells nothing of this one; one that has forgotten its claim does not, while another one is used.
        let foreign = Some(Look {
            claim: Some(Claim {
                pool: "q".into(),
                ..claim(9)
            }),
            usage: Used,
        });
        assert_eq!(
            judge(Some("p"), &[foreign.clone(), look(3, Used), look(3, Used)]),
            Verdict::InUse(claim(3))
        );
        assert_eq!(
            judge(Some("p"), &[foreign, look(3, Unused), look(3, Unused)]),
            Verdict::Free(3)
        );
        assert_eq!(
            judge(Some("p"), &[look(0, Unused), look(0, Unused), look(3, Used)]),
            Verdict::InUse(claim(3))
        );
        assert_eq!(
            judge(Some("p"), &[look(0, Unused), look(0, Unused), look(3, Unused)]),
            Verdict::Free(3)
        );
        // Nodes know of nobody, and are used.
        assert_eq!(
            judge(None, &[look(0, Used), look(0, Used), look(0, Used)]),
            Verdict::Unrecorded
        );
    }

    #[test]
    fn who_takes_over_just_now_is_who_has_the_highest_claim() {
        let begins = [look(4, Used), look(3, Unused), look(3, Unused)];
        assert_eq!(judge(Some("p"), &begins), Verdict::InUse(claim(4)));
        let gave_up = [look(4, Unused), look(3, Unused), look(3, Unused)];
        assert_eq!(judge(Some("p"), &gave_up), Verdict::Free(4));
        let looks = [look(4, Used), look(3, Used), look(3, Used)];
        assert_eq!(judge(Some("p"), &looks), Verdict::InUse(claim(4)));
    }
}
