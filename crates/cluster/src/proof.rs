//! Whether a value is proven to be absent, from what each node said. Pure.
//!
//! A timeout is never "missing". One owner of a placement may be replaced by the word of all its stand-ins, and then
//! another owner must have said no for certain.

use crate::view::{Candidate, Role};

/// What a node said about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was not asked.
    Open,
    /// It has not answered yet.
    Pending,
    /// It cannot be reached, failed, or cannot tell.
    Silent,
    /// It is not there, and the node knows it.
    Absent,
    /// It is there, or was deleted.
    Found,
    /// The same, but the node was away and may have missed a newer version.
    Unsure,
}

/// Whether absence is proven in every open placement. `may_replace`: whether an owner may be replaced at all.
pub(crate) fn is_absent(
    candidates: &[Candidate],
    answers: &[Answer],
    is_changing: bool,
    may_replace: bool,
) -> bool {
    let proven = |role: fn(&Candidate) -> Role| {
        let said = |wanted| {
            let both = candidates.iter().zip(answers);
            let of_role = both.filter(move |(candidate, _)| role(candidate) == wanted);
            of_role.map(|(_, answer)| *answer)
        };
        let owners = said(Role::Owner).count();
        let certain = said(Role::Owner)
            .filter(|answer| *answer == Answer::Absent)
            .count();
        let stand_ins_agree = said(Role::StandIn).all(|answer| answer == Answer::Absent);
        let replaced = may_replace && certain > 0 && certain + 1 == owners && stand_ins_agree;
        certain == owners || replaced
    };
    proven(|candidate| candidate.current)
        && (!is_changing || proven(|candidate| candidate.previous))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{node::Node, testing::fake::nobody};

    fn candidate(current: Role, previous: Role) -> Candidate {
        let member = zimcache_ring::Member::new("someone");
        Candidate {
            node: Arc::new(Node::new(&member, nobody(), 1)),
            is_gone: false,
            current,
            previous,
        }
    }

    /// Judges two owners and a stand-in.
    fn judge(answers: [Answer; 3], may_replace: bool) -> bool {
        let roles = [Role::Owner, Role::Owner, Role::StandIn];
        let candidates = roles.map(|role| candidate(role, Role::None));
        is_absent(&candidates, &answers, false, may_replace)
    }

    #[test]
    fn all_owners_prove_it_whatever_stand_ins_say() {
        assert!(judge([Answer::Absent, Answer::Absent, Answer::Open], true));
        assert!(judge(
            [Answer::Absent, Answer::Absent, Answer::Silent],
            false
        ));
    }

    #[test]
    fn one_silent_owner_is_replaced_by_all_stand_ins_where_that_is_allowed() {
        let answers = [Answer::Absent, Answer::Silent, Answer::Absent];
        assert!(judge(answers, true));
        assert!(!judge(answers, false));
        assert!(!judge(
            [Answer::Absent, Answer::Silent, Answer::Silent],
            true
        ));
        assert!(!judge(
            [Answer::Absent, Answer::Pending, Answer::Open],
            true
        ));
    }

    #[test]
    fn two_silent_owners_prove_nothing() {
        assert!(!judge(
            [Answer::Silent, Answer::Silent, Answer::Absent],
            true
        ));
    }

    #[test]
    fn a_single_owner_is_never_replaced() {
        let candidates = [Role::Owner, Role::StandIn].map(|role| candidate(role, Role::None));
        let answers = [Answer::Silent, Answer::Absent];
        assert!(!is_absent(&candidates, &answers, false, true));
    }

    #[test]
    fn every_open_placement_needs_its_own_proof() {
        let candidates = [
            candidate(Role::Owner, Role::Owner),
            candidate(Role::Owner, Role::None),
            candidate(Role::None, Role::Owner),
        ];
        let answers = [Answer::Absent, Answer::Absent, Answer::Open];
        assert!(is_absent(&candidates, &answers, false, true));
        assert!(!is_absent(&candidates, &answers, true, false));
        let answers = [Answer::Absent; 3];
        assert!(is_absent(&candidates, &answers, true, false));
    }
}
