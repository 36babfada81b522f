//! Which node is restarted next, so that its pod is as the spec says: pure.
//!
//! One at a time, highest number first, and only while all others are in full service: nobody away, nobody catching up,
//! no change of the ring under way. Ready is not enough: a node that was away has caught up only when it says so.
//! A pod that does not work anyway may always be replaced, or a bad change could never be taken back.

use std::collections::BTreeSet;

use crate::{
    crd::{UpdateStrategy, UpdateStrategyType},
    names::Names,
    pods::PodView,
};

/// What the decision depends on.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// Names of everything.
    pub names: &'a Names,
    /// Pods of the nodes.
    pub pods: &'a [PodView],
    /// The version of the template that pods are made of now.
    pub revision: &'a str,
    /// Who restarts, and which.
    pub strategy: &'a UpdateStrategy,
    /// Nodes in full service.
    pub active: &'a BTreeSet<String>,
    /// How many pods there are to be.
    pub wanted: i32,
    /// Whether nothing else is under way: the ring is settled, volumes have their size, certificates are good.
    pub is_quiet: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollout {
    /// Every pod is up to date.
    Done,
    /// Some are not, and are left so because the spec says so.
    Held(Vec<String>),
    /// Some are not; something has to happen before the next one.
    Waiting(Vec<String>, String),
    /// This one is replaced now.
    Restart(PodView),
}

/// The next step.
pub fn decide(seen: &Seen<'_>) -> Rollout {
    let mut outdated: Vec<&PodView> = seen
        .pods
        .iter()
        .filter(|pod| pod.revision != seen.revision)
        .collect();
    if outdated.is_empty() {
        return Rollout::Done;
    }
    let ordinal = |pod: &PodView| seen.names.ordinal(&pod.name).unwrap_or(0);
    outdated.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
    let names = |pods: &[&PodView]| pods.iter().map(|pod| pod.name.clone()).collect::<Vec<_>>();
    let eligible: Vec<&PodView> = outdated
        .iter()
        .filter(|pod| ordinal(pod) >= seen.strategy.partition)
        .copied()
        .collect();
    if seen.strategy.kind == UpdateStrategyType::OnDelete || eligible.is_empty() {
        return Rollout::Held(names(&outdated));
    }
    if let Some(pod) = eligible.iter().find(|pod| pod.is_terminating) {
        return Rollout::Waiting(names(&eligible), format!("{} stops", pod.name));
    }
    let broken = |pod: &&&PodView| {
        !seen.active.contains(&pod.name) && !pod.is_ready && pod.trouble.is_some()
    };
    if let Some(pod) = eligible.iter().find(broken) {
        return Rollout::Restart((*pod).clone());
    }
    if let Some(reason) = obstacle(seen) {
        return Rollout::Waiting(names(&eligible), reason);
    }
    Rollout::Restart(eligible[0].clone())
}

/// What stands against taking a working node away.
fn obstacle(seen: &Seen<'_>) -> Option<String> {
    if !seen.is_quiet {
        return Some("another change is under way".to_owned());
    }
    let absent = (0..seen.wanted).map(|ordinal| seen.names.pod(ordinal));
    let mut absent = absent.filter(|pod| !seen.active.contains(pod));
    let first = absent.next()?;
    Some(format!("{first} is not in full service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ordinal: i32, revision: &str) -> PodView {
        PodView {
            name: format!("main-node-{ordinal}"),
            uid: format!("uid-{ordinal}"),
            revision: revision.to_owned(),
            is_ready: true,
            is_terminating: false,
            machine: None,
            ip: None,
            ring_epoch: None,
            trouble: None,
        }
    }

    fn next(
        pods: &[PodView],
        active: &[i32],
        strategy: &UpdateStrategy,
        is_quiet: bool,
    ) -> Rollout {
        decide(&Seen {
            names: &Names::new("main", "build"),
            pods,
            revision: "new",
            strategy,
            active: &active
                .iter()
                .map(|ordinal| format!("main-node-{ordinal}"))
                .collect(),
            wanted: 3,
            is_quiet,
        })
    }

    #[test]
    fn nodes_are_restarted_highest_first_while_all_are_in_full_service() {
        let rolling = UpdateStrategy::default();
        let pods = [pod(0, "old"), pod(1, "old"), pod(2, "old")];
        assert_eq!(
            next(&pods, &[0, 1, 2], &rolling, true),
            Rollout::Restart(pod(2, "old"))
        );
        let pods = [pod(0, "old"), pod(1, "old"), pod(2, "new")];
        let waiting = next(&pods, &[0, 1], &rolling, true);
        let Rollout::Waiting(left, reason) = waiting else {
            panic!("{waiting:?}")
        };
        assert_eq!(left, ["main-node-1", "main-node-0"]);
        assert_eq!(reason, "main-node-2 is not in full service");
        assert_eq!(
            next(&pods, &[0, 1, 2], &rolling, true),
            Rollout::Restart(pod(1, "old"))
        );
        assert!(matches!(
            next(&pods, &[0, 1, 2], &rolling, false),
            Rollout::Waiting(..)
        ));
        assert_eq!(next(&[pod(0, "new")], &[], &rolling, false), Rollout::Done);
    }

    #[test]
    fn a_pod_that_does_not_work_is_replaced_whatever_the_others_do() {
        let broken = PodView {
            is_ready: false,
            trouble: Some("ImagePullBackOff".to_owned()),
            ..pod(1, "old")
        };
        let pods = [pod(0, "old"), broken.clone(), pod(2, "new")];
        assert_eq!(
            next(&pods, &[0, 2], &UpdateStrategy::default(), false),
            Rollout::Restart(broken)
        );
    }

    #[test]
    fn people_may_hold_back_some_or_all() {
        let pods = [pod(0, "old"), pod(1, "old"), pod(2, "new")];
        let by_hand = UpdateStrategy {
            kind: UpdateStrategyType::OnDelete,
            partition: 0,
        };
        assert!(
            matches!(next(&pods, &[0, 1, 2], &by_hand, true), Rollout::Held(held) if held.len() == 2)
        );
        let partly = UpdateStrategy {
            partition: 1,
            ..UpdateStrategy::default()
        };
        assert_eq!(
            next(&pods, &[0, 1, 2], &partly, true),
            Rollout::Restart(pod(1, "old"))
        );
        let pods = [pod(0, "old"), pod(1, "new"), pod(2, "new")];
        assert!(matches!(
            next(&pods, &[0, 1, 2], &partly, true),
            Rollout::Held(_)
        ));
    }

    #[test]
    fn one_that_stops_is_waited_for() {
        let stopping = PodView {
            is_terminating: true,
            ..pod(2, "old")
        };
        let pods = [pod(0, "old"), pod(1, "old"), stopping];
        assert!(matches!(
            next(&pods, &[0, 1, 2], &UpdateStrategy::default(), true),
            Rollout::Waiting(..)
        ));
    }
}
