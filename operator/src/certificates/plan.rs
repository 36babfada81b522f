//! What becomes of a cluster's certificates: one pure step from what is there to what should be there.
//!
//! An authority is replaced in three steps, so that at no time two pods are without a common one: the new one is
//! *introduced* (everybody trusts both, the old one still signs), *promoted* (it signs, both are trusted), and then the
//! old one is *dropped*. Between two steps every leaf Secret must have held the state before for the settling time, in
//! which kubelets refresh volumes and processes read them again; the Secret itself says since when.
//! An authority's Secret that is gone is replaced in the same way, for the leaves remember whom everybody trusts.

use std::{collections::BTreeMap, fmt, time::Duration};

use zimcache_types::Timestamp;

use super::issue::{self, Error, Facts, Pair, seconds};
use crate::names::{Component, Names};

/// The names in the certificate of a cache's nodes or gateways.
pub fn names_of(component: Component, names: &Names) -> Vec<String> {
    let service = format!("{}.{}.svc", names.of(component), names.namespace);
    match component {
        // `*` is a node's pod; its address in the ring is that name.
        Component::Node => vec![format!("*.{service}"), service],
        Component::Gateway => vec![service],
    }
}

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// An authority's life.
    pub authority: Duration,
    /// A leaf's life.
    pub leaf: Duration,
    /// How long it takes until every pod has what is in its Secret: a kubelet looks about once a minute.
    pub settle: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        const DAY: Duration = Duration::from_hours(24);
        Policy {
            authority: DAY * 3 * 365,
            leaf: DAY * 90,
            settle: Duration::from_mins(5),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The names in each leaf.
    pub names: BTreeMap<Component, Vec<String>>,
    /// A word that a person changes to have the authority replaced before its time.
    pub rotation: Option<String>,
}

/// The authority's Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authority {
    /// Who signs. `None` when that key was lost and the next one is not trusted by all yet.
    pub signer: Option<Pair>,
    /// Who will sign.
    pub next: Option<Pair>,
    /// Who signed before and is still trusted, PEM.
    pub former: Vec<String>,
    /// The word of the last rotation that was asked for.
    pub rotation: Option<String>,
}

impl Authority {
    /// Everybody to trust, PEM.
    pub fn bundle(&self) -> String {
        let pairs = self.signer.iter().chain(&self.next);
        let current = pairs.map(|pair| &pair.certificate);
        let all = current.chain(&self.former).map(|it| it.trim_end());
        let mut bundle = all.collect::<Vec<_>>().join("\n");
        bundle.push('\n');
        bundle
    }
}

/// A leaf's Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Everybody to trust, PEM.
    pub bundle: String,
    /// The certificate.
    pub pair: Pair,
    /// Since when the Secret has been so.
    pub since: Timestamp,
}

/// What is in the Secrets. What cannot be read is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The authority.
    pub authority: Option<Authority>,
    /// The leaves.
    pub leaves: BTreeMap<Component, Leaf>,
}

/// What happens, for logs and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was no authority.
    Made,
    /// A new authority is trusted from now on.
    Introduced,
    /// The new authority signs.
    Promoted,
    /// The old authority is no longer trusted.
    Dropped,
    /// A leaf is made anew.
    Issued(Component),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Made => f.write_str("there is an authority now"),
            Step::Introduced => f.write_str("a new authority is trusted from now on"),
            Step::Promoted => f.write_str("the new authority signs"),
            Step::Dropped => f.write_str("the old authority is no longer trusted"),
            Step::Issued(component) => {
                write!(f, "a new certificate for every {}", component.as_str())
            }
        }
    }
}

/// What to write, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The authority, when it changes. Written first.
    pub authority: Option<Authority>,
    /// The leaves that change.
    pub leaves: BTreeMap<Component, Leaf>,
    /// What that means.
    pub steps: Vec<Step>,
    /// After how much time something will be due.
    pub look_again: Duration,
    /// When the first certificate expires, in seconds of Unix time.
    pub expires_seconds: i64,
    /// Whether a replacement of the authority is under way.
    pub is_rotating: bool,
}

/// The next step.
///
/// # Errors
/// When a certificate cannot be made.
pub fn plan(
    observed: &Observed,
    wanted: &Wanted,
    policy: &Policy,
    now: Timestamp,
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let known = observed.authority.as_ref().filter(|it| is_usable(it, now));
    let (authority, step) = match known {
        Some(authority) => advance(authority, observed, wanted, policy, now)?,
        None => replace(observed, wanted, policy, now)?,
    };
    plan.steps.extend(step);
    let mut after = observed.leaves.clone();
    for (component, names) in &wanted.names {
        let before = observed.leaves.get(component);
        let Some((leaf, is_new)) = leaf(before, *component, names, &authority, policy, now)? else {
            continue;
        };
        if is_new {
            plan.steps.push(Step::Issued(*component));
        }
        after.insert(*component, leaf.clone());
        plan.leaves.insert(*component, leaf);
    }
    plan.is_rotating = authority.next.is_some() || !authority.former.is_empty();
    (plan.look_again, plan.expires_seconds) = times(&authority, &after, policy, now);
    if observed.authority.as_ref() != Some(&authority) {
        plan.authority = Some(authority);
    }
    Ok(plan)
}

/// Whether it can go on: whoever signs, or will, is whole and alive.
fn is_usable(authority: &Authority, now: Timestamp) -> bool {
    let mut pairs = authority.signer.iter().chain(&authority.next).peekable();
    let is_some = pairs.peek().is_some();
    let is_alive = |pair: &Pair| {
        let facts = Facts::read(&pair.certificate);
        issue::belong_together(pair) && facts.is_some_and(|it| seconds(now) < it.valid_seconds.1)
    };
    is_some && pairs.all(is_alive)
}

/// An authority for a cluster that has none, or whose key is gone.
fn replace(
    observed: &Observed,
    wanted: &Wanted,
    policy: &Policy,
    now: Timestamp,
) -> Result<(Authority, Option<Step>), Error> {
    let new = issue::authority(now, policy.authority)?;
    let mut former: Vec<String> = Vec::new();
    for certificate in observed
        .leaves
        .values()
        .flat_map(|leaf| issue::split(&leaf.bundle))
    {
        let alive = Facts::read(&certificate);
        let alive = alive.is_some_and(|facts| seconds(now) < facts.valid_seconds.1);
        if alive && !former.contains(&certificate) {
            former.push(certificate);
        }
    }
    let rotation = wanted.rotation.clone();
    if former.is_empty() {
        let authority = Authority {
            signer: Some(new),
            rotation,
            ..Authority::default()
        };
        return Ok((authority, Some(Step::Made)));
    }
    let authority = Authority {
        signer: None,
        next: Some(new),
        former,
        rotation,
    };
    Ok((authority, Some(Step::Introduced)))
}

/// The authority after the step that is due, if one is.
fn advance(
    authority: &Authority,
    observed: &Observed,
    wanted: &Wanted,
    policy: &Policy,
    now: Timestamp,
) -> Result<(Authority, Option<Step>), Error> {
    let mut next = authority.clone();
    let components = wanted.names.keys();
    let settled = components
        .map(|component| observed.leaves.get(component))
        .all(|leaf| leaf.is_some_and(|leaf| has_settled(leaf, authority, policy, now)));
    if !settled {
        return Ok((next, None));
    }
    if let Some(new) = next.next.take() {
        let old = next.signer.replace(new);
        next.former.extend(old.map(|pair| pair.certificate));
        return Ok((next, Some(Step::Promoted)));
    }
    if !next.former.is_empty() {
        next.former.clear();
        return Ok((next, Some(Step::Dropped)));
    }
    let signer = authority.signer.as_ref();
    let facts = signer.and_then(|pair| Facts::read(&pair.certificate));
    let due = facts.is_some_and(|facts| facts.due_seconds() <= seconds(now));
    let asked = wanted.rotation.is_some() && wanted.rotation != authority.rotation;
    if due || asked {
        next.next = Some(issue::authority(now, policy.authority)?);
        next.rotation.clone_from(&wanted.rotation);
        return Ok((next, Some(Step::Introduced)));
    }
    Ok((next, None))
}

/// Whether every pod has had the time to take over what the authority says.
fn has_settled(leaf: &Leaf, authority: &Authority, policy: &Policy, now: Timestamp) -> bool {
    let signer = authority.signer.as_ref();
    leaf.bundle == authority.bundle()
        && signer.is_none_or(|it| issue::is_signed_by(&leaf.pair.certificate, &it.certificate))
        && leaf.since.plus(policy.settle) <= now
}

/// The leaf as it should be, and whether its certificate is new; `None` when it is so already.
fn leaf(
    before: Option<&Leaf>,
    component: Component,
    names: &[String],
    authority: &Authority,
    policy: &Policy,
    now: Timestamp,
) -> Result<Option<(Leaf, bool)>, Error> {
    let bundle = authority.bundle();
    let good = before.filter(|leaf| may_stay(leaf, names, authority, now));
    if let Some(leaf) = good {
        let changed = leaf.bundle != bundle;
        let pair = leaf.pair.clone();
        let since = now;
        return Ok(changed.then_some((
            Leaf {
                bundle,
                pair,
                since,
            },
            false,
        )));
    }
    let Some(signer) = authority.signer.as_ref().or(authority.next.as_ref()) else {
        return Ok(None);
    };
    let pair = issue::leaf(signer, component, names, now, policy.leaf)?;
    let since = now;
    Ok(Some((
        Leaf {
            bundle,
            pair,
            since,
        },
        true,
    )))
}

/// Whether a leaf's certificate still does: the right names, signed by who signs now, and not due.
fn may_stay(leaf: &Leaf, names: &[String], authority: &Authority, now: Timestamp) -> bool {
    let mut names = names.to_vec();
    names.sort();
    let facts = Facts::read(&leaf.pair.certificate);
    let fits =
        facts.is_some_and(|facts| facts.names == names && seconds(now) < facts.due_seconds());
    let signed = |by: &str| issue::is_signed_by(&leaf.pair.certificate, by);
    let trusted = match &authority.signer {
        Some(signer) => signed(&signer.certificate),
        None => issue::split(&authority.bundle())
            .iter()
            .any(|by| signed(by)),
    };
    fits && trusted && issue::belong_together(&leaf.pair)
}

/// After how much time to look again, and when the first certificate expires.
fn times(
    authority: &Authority,
    leaves: &BTreeMap<Component, Leaf>,
    policy: &Policy,
    now: Timestamp,
) -> (Duration, i64) {
    let pairs = authority.signer.iter().chain(&authority.next);
    let all = pairs.chain(leaves.values().map(|leaf| &leaf.pair));
    let facts: Vec<Facts> = all
        .filter_map(|pair| Facts::read(&pair.certificate))
        .collect();
    let due = facts.iter().map(Facts::due_seconds).min().unwrap_or(0);
    let mut wait = u64::try_from(due.saturating_sub(seconds(now))).unwrap_or(0);
    if authority.next.is_some() || !authority.former.is_empty() {
        wait = wait.min(policy.settle.as_secs() + 1);
    }
    let expires = facts.iter().map(|facts| facts.valid_seconds.1).min();
    (Duration::from_secs(wait), expires.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn wanted() -> Wanted {
        let cache = Names::new("main", "zim");
        let names = |component: Component| (component, names_of(component, &cache));
        Wanted {
            names: super::super::BOTH.map(names).into(),
            rotation: None,
        }
    }

    /// Secrets, and the time.
    struct World {
        observed: Observed,
        wanted: Wanted,
        now: Timestamp,
    }

    impl World {
        fn new() -> World {
            let mut world = World {
                observed: Observed::default(),
                wanted: wanted(),
                now: START,
            };
            assert_eq!(
                world.step(),
                [
                    Step::Made,
                    Step::Issued(Component::Node),
                    Step::Issued(Component::Gateway)
                ]
            );
            world
        }

        fn plan(&self) -> Plan {
            plan(&self.observed, &self.wanted, &Policy::default(), self.now).unwrap()
        }

        /// Does what the plan says.
        fn step(&mut self) -> Vec<Step> {
            let plan = self.plan();
            if let Some(authority) = plan.authority {
                self.observed.authority = Some(authority);
            }
            self.observed.leaves.extend(plan.leaves);
            self.check();
            plan.steps
        }

        /// Everybody trusts everybody's certificate, also while some pods have the Secrets and some do not yet.
        fn check(&self) {
            for one in self.observed.leaves.values() {
                let trusted = issue::split(&one.bundle);
                for other in self.observed.leaves.values() {
                    let certificate = &other.pair.certificate;
                    let by_any = trusted
                        .iter()
                        .any(|by| issue::is_signed_by(certificate, by));
                    assert!(by_any, "a pod does not trust another");
                }
            }
        }

        /// Pods that have not read their Secret again since `before` and those that have trust each other.
        fn check_with(&self, before: &World) {
            for one in self.observed.leaves.values() {
                for other in before.observed.leaves.values() {
                    let trusts = |a: &Leaf, b: &Leaf| {
                        let certificate = &b.pair.certificate;
                        let bundle = issue::split(&a.bundle);
                        bundle.iter().any(|by| issue::is_signed_by(certificate, by))
                    };
                    assert!(
                        trusts(one, other) && trusts(other, one),
                        "no common authority"
                    );
                }
            }
        }

        fn clone(&self) -> World {
            World {
                observed: self.observed.clone(),
                wanted: self.wanted.clone(),
                now: self.now,
            }
        }

        fn wait(&mut self, duration: Duration) {
            self.now = self.now.plus(duration);
        }
    }

    fn settle() -> Duration {
        Policy::default().settle
    }

    #[test]
    fn a_settled_cluster_is_left_alone_until_a_leaf_is_due() {
        let mut world = World::new();
        let plan = world.plan();
        assert!(plan.authority.is_none() && plan.leaves.is_empty() && plan.steps.is_empty());
        let days = plan.look_again.as_secs() / 86_400;
        assert!((59..=60).contains(&days), "{days}");
        let until = plan.look_again;
        world.wait(until.checked_sub(Duration::from_secs(1)).unwrap());
        assert!(world.step().is_empty());
        world.wait(Duration::from_secs(1));
        assert_eq!(
            world.step(),
            [
                Step::Issued(Component::Node),
                Step::Issued(Component::Gateway)
            ]
        );
        assert!(world.step().is_empty());
    }

    #[test]
    fn an_authority_is_replaced_in_steps_between_which_everybody_trusts_everybody() {
        let mut world = World::new();
        world.wait(settle());
        world.wanted.rotation = Some("now".to_owned());
        for expected in [
            vec![Step::Introduced],
            vec![
                Step::Promoted,
                Step::Issued(Component::Node),
                Step::Issued(Component::Gateway),
            ],
            vec![Step::Dropped],
        ] {
            let before = world.clone();
            assert_eq!(world.step(), expected);
            world.check_with(&before);
            assert!(
                world.step().is_empty(),
                "a step before everybody had the time"
            );
            world.wait(settle());
        }
        assert!(world.step().is_empty(), "the same word asks once");
        let authority = world.observed.authority.clone().unwrap();
        assert!(authority.next.is_none() && authority.former.is_empty());
        assert_eq!(issue::split(&authority.bundle()).len(), 1);
        world.wanted.rotation = None;
        assert!(
            world.step().is_empty(),
            "taking the word back asks for nothing"
        );
    }

    #[test]
    fn an_authority_is_replaced_before_it_ends_without_being_asked() {
        let mut world = World::new();
        let two_years = Duration::from_hours(24 * 2 * 365 + 24);
        world.wait(two_years);
        assert_eq!(world.step()[0], Step::Introduced);
    }

    #[test]
    fn a_crash_between_the_authority_and_its_leaves_delays_the_next_step() {
        let mut world = World::new();
        world.wait(settle());
        world.wanted.rotation = Some("now".to_owned());
        let plan = world.plan();
        world.observed.authority = plan.authority;
        world.wait(settle() * 10);
        assert!(
            world.step().is_empty(),
            "the leaves are only brought up to date"
        );
        assert!(world.step().is_empty());
        world.wait(settle());
        assert_eq!(world.step()[0], Step::Promoted);
    }

    #[test]
    fn a_lost_authority_is_replaced_without_a_moment_of_distrust() {
        let mut world = World::new();
        let before = world.clone();
        world.observed.authority = None;
        assert_eq!(world.step(), [Step::Introduced]);
        world.check_with(&before);
        let introduced = world.clone();
        world.wait(settle());
        assert_eq!(world.step()[0], Step::Promoted);
        world.check_with(&introduced);
        let promoted = world.clone();
        world.wait(settle());
        assert_eq!(world.step(), [Step::Dropped]);
        world.check_with(&promoted);
    }

    #[test]
    fn a_leaf_is_made_anew_when_it_is_gone_broken_or_has_other_names() {
        let mut world = World::new();
        world.observed.leaves.remove(&Component::Gateway);
        assert_eq!(world.step(), [Step::Issued(Component::Gateway)]);
        let other = world.observed.leaves[&Component::Gateway].pair.key.clone();
        let node = world.observed.leaves.get_mut(&Component::Node).unwrap();
        node.pair.key = other;
        assert_eq!(world.step(), [Step::Issued(Component::Node)]);
        let names = vec!["*.other-node.zim.svc".to_owned()];
        world.wanted.names.insert(Component::Node, names);
        assert_eq!(world.step(), [Step::Issued(Component::Node)]);
        assert!(world.step().is_empty());
    }

    #[test]
    fn an_expired_authority_is_not_trusted_again() {
        let mut world = World::new();
        world.wait(Duration::from_hours(24 * 4 * 365));
        let steps = world.step();
        assert_eq!(steps[0], Step::Made);
        assert_eq!(
            issue::split(&world.observed.leaves[&Component::Node].bundle).len(),
            1
        );
    }
}
