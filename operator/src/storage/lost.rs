//! Volumes that went with their machine: which node gets an empty one. Pure.
//!
//! A local volume belongs to one machine. When that machine is gone for good, the pod waits for it for ever. It is given
//! up only when all of this is so: the pod has been unschedulable for a while, no Node fits the volume, neither in the API
//! server's cache nor in a fresh list, and no other one is being replaced. When more than a third look lost, something
//! else is wrong (a list that is cut short, labels that were renamed) and nothing is touched. A person may declare a node
//! lost; then neither the lists nor the third are looked at, but its pod has to be unschedulable all the same.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, VolumeNodeAffinity,
};

/// A machine, as far as volumes care.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Machine {
    /// What matters here of a Node.
    pub fn of(node: &Node) -> Machine {
        Machine {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

/// A node of the cluster with its volume.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Volume {
    /// The pod.
    pub pod: String,
    /// Its claim.
    pub claim: String,
    /// Where the volume can be used; `None` for one that can be used everywhere, or that is not bound.
    pub affinity: Option<VolumeNodeAffinity>,
    /// Whether the pod has found no machine for longer than the time that is allowed for that.
    pub is_stuck: bool,
    /// Whether the claim is being deleted or is not bound: a replacement is under way.
    pub is_unbound: bool,
    /// Whether a person declared it lost.
    pub is_declared_lost: bool,
}

/// What to do about lost volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// None is lost.
    Sound,
    /// This one is given up: the claim is deleted, then the pod.
    Replace {
        /// The pod.
        pod: String,
        /// Its claim.
        claim: String,
    },
    /// Some are lost, but another one is being replaced.
    Waiting {
        /// The pods.
        lost: Vec<String>,
    },
    /// So many look lost that it is not believed.
    TooMany {
        /// The pods.
        lost: Vec<String>,
        /// Out of how many.
        of: usize,
    },
}

/// What follows from what is there. `cached` and `fresh` are two independent lists of all machines.
pub fn decide(volumes: &[Volume], cached: &[Machine], fresh: &[Machine]) -> Verdict {
    let homeless = |volume: &Volume| {
        let fits = |machine: &Machine| fits(volume.affinity.as_ref(), machine);
        // An empty list is no knowledge.
        let known = !cached.is_empty() && !fresh.is_empty();
        known && !cached.iter().any(fits) && !fresh.iter().any(fits)
    };
    let looks_lost = |volume: &&Volume| volume.is_stuck && homeless(volume);
    let found: Vec<&Volume> = volumes.iter().filter(looks_lost).collect();
    let declared = volumes
        .iter()
        .filter(|it| it.is_stuck && it.is_declared_lost);
    let declared: Vec<&Volume> = declared.collect();
    let names = |volumes: &[&Volume]| volumes.iter().map(|it| it.pod.clone()).collect();
    let too_many = found.len() * 3 > volumes.len();
    let candidates = if too_many { &declared } else { &found };
    let Some(first) = declared.first().or_else(|| candidates.first()) else {
        if too_many {
            return Verdict::TooMany {
                lost: names(&found),
                of: volumes.len(),
            };
        }
        return Verdict::Sound;
    };
    if volumes.iter().any(|volume| volume.is_unbound) {
        let lost = if declared.is_empty() {
            &found
        } else {
            &declared
        };
        return Verdict::Waiting { lost: names(lost) };
    }
    Verdict::Replace {
        pod: first.pod.clone(),
        claim: first.claim.clone(),
    }
}

/// Where a volume can be used.
pub fn affinity(volume: &PersistentVolume) -> Option<VolumeNodeAffinity> {
    volume.spec.as_ref()?.node_affinity.clone()
}

/// Whether a volume can be used on a machine: one term has to match, in all its expressions.
fn fits(affinity: Option<&VolumeNodeAffinity>, machine: &Machine) -> bool {
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    let Some(required) = required else {
        return true;
    };
    let terms = &required.node_selector_terms;
    terms.iter().any(|term| term_fits(term, machine))
}

fn term_fits(term: &NodeSelectorTerm, machine: &Machine) -> bool {
    let by_label = term.match_expressions.iter().flatten();
    let by_field = term.match_fields.iter().flatten();
    let label = |rule: &NodeSelectorRequirement| {
        rule_fits(rule, machine.labels.get(&rule.key).map(String::as_str))
    };
    // The one field there is.
    let field = |rule: &NodeSelectorRequirement| {
        rule.key == "metadata.name" && rule_fits(rule, Some(&machine.name))
    };
    let is_empty = term.match_expressions.is_none() && term.match_fields.is_none();
    !is_empty && by_label.clone().all(label) && by_field.clone().all(field)
}

fn rule_fits(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|it| it == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    let compared = number(value).zip(bound);
    match rule.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared.is_some_and(|(value, bound)| value > bound),
        "Lt" => compared.is_some_and(|(value, bound)| value < bound),
        // An operator of a later version: rather keep a volume than lose it.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSelector;

    use super::*;

    const HOST: &str = "kubernetes.io/hostname";

    fn on(host: &str) -> VolumeNodeAffinity {
        let rule = NodeSelectorRequirement {
            key: HOST.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![host.to_owned()]),
        };
        VolumeNodeAffinity {
            required: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: Some(vec![rule]),
                    match_fields: None,
                }],
            }),
        }
    }

    fn machine(name: &str) -> Machine {
        Machine {
            name: name.to_owned(),
            labels: [(HOST.to_owned(), name.to_owned())].into(),
        }
    }

    /// Nodes 0 to n-1 on machines m0 to m(n-1), stuck where `stuck` says so.
    fn volumes(count: usize, stuck: &[usize]) -> Vec<Volume> {
        let volume = |index: usize| Volume {
            pod: format!("main-node-{index}"),
            claim: format!("data-main-node-{index}"),
            affinity: Some(on(&format!("m{index}"))),
            is_stuck: stuck.contains(&index),
            ..Volume::default()
        };
        (0..count).map(volume).collect()
    }

    fn machines(names: &[&str]) -> Vec<Machine> {
        names.iter().map(|name| machine(name)).collect()
    }

    #[test]
    fn the_volume_of_a_machine_that_is_gone_from_both_lists_is_replaced() {
        let volumes = volumes(3, &[1]);
        let left = machines(&["m0", "m2"]);
        let verdict = decide(&volumes, &left, &left);
        let expected = Verdict::Replace {
            pod: "main-node-1".to_owned(),
            claim: "data-main-node-1".to_owned(),
        };
        assert_eq!(verdict, expected);
        let all = machines(&["m0", "m1", "m2"]);
        assert_eq!(decide(&volumes, &all, &left), Verdict::Sound);
        assert_eq!(decide(&volumes, &left, &all), Verdict::Sound);
        assert_eq!(decide(&volumes, &[], &[]), Verdict::Sound);
    }

    #[test]
    fn a_pod_that_is_not_stuck_or_whose_volume_moves_is_left_alone() {
        let left = machines(&["m0", "m2"]);
        assert_eq!(decide(&volumes(3, &[]), &left, &left), Verdict::Sound);
        let mut movable = volumes(3, &[1]);
        movable[1].affinity = None;
        assert_eq!(decide(&movable, &left, &left), Verdict::Sound);
    }

    #[test]
    fn nothing_is_touched_when_more_than_a_third_look_lost() {
        let left = machines(&["m0", "m1"]);
        let verdict = decide(&volumes(4, &[2, 3]), &left, &left);
        let lost = vec!["main-node-2".to_owned(), "main-node-3".to_owned()];
        assert_eq!(verdict, Verdict::TooMany { lost, of: 4 });
        let verdict = decide(&volumes(6, &[2, 3]), &left, &left);
        assert!(matches!(verdict, Verdict::Replace { pod, .. } if pod == "main-node-2"));
    }

    #[test]
    fn one_is_replaced_after_the_other() {
        let left = machines(&["m0", "m1"]);
        let mut six = volumes(6, &[2, 3]);
        six[2].is_unbound = true;
        let lost = vec!["main-node-2".to_owned(), "main-node-3".to_owned()];
        assert_eq!(decide(&six, &left, &left), Verdict::Waiting { lost });
    }

    #[test]
    fn a_person_may_declare_what_no_list_shows() {
        let all = machines(&["m0", "m1"]);
        let mut two = volumes(2, &[]);
        two[1].is_declared_lost = true;
        assert_eq!(decide(&two, &all, &all), Verdict::Sound, "it runs");
        two[1].is_stuck = true;
        let verdict = decide(&two, &all, &all);
        assert!(matches!(verdict, Verdict::Replace { pod, .. } if pod == "main-node-1"));
    }

    #[test]
    fn affinities_are_matched_as_the_scheduler_does() {
        let rule = |operator: &str, values: &[&str]| NodeSelectorRequirement {
            key: "size".to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|it| (*it).to_owned()).collect()),
        };
        for (operator, values, value, expected) in [
            ("In", &["5"][..], Some("5"), true),
            ("In", &["5"], None, false),
            ("NotIn", &["5"], None, true),
            ("NotIn", &["5"], Some("5"), false),
            ("Exists", &[], Some("x"), true),
            ("DoesNotExist", &[], Some("x"), false),
            ("Gt", &["5"], Some("6"), true),
            ("Lt", &["5"], Some("6"), false),
            ("Lt", &["5"], Some("few"), false),
        ] {
            let fits = rule_fits(&rule(operator, values), value);
            assert_eq!(fits, expected, "{value:?} {operator} {values:?}");
        }
        let by_name = NodeSelectorTerm {
            match_expressions: None,
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec!["m1".to_owned()]),
            }]),
        };
        assert!(term_fits(&by_name, &machine("m1")) && !term_fits(&by_name, &machine("m2")));
        assert!(!term_fits(&NodeSelectorTerm::default(), &machine("m1")));
    }
}
