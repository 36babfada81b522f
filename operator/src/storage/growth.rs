//! Volumes that grow: what has to happen before nodes have more room. Pure.
//!
//! A StatefulSet's templates of claims cannot be changed. So every claim is patched, and then the StatefulSet is deleted
//! with its pods left alone and made again with the larger template; the pods never notice. Nothing happens while a class
//! of storage forbids growing: a StatefulSet whose template promises more than its claims have would lie to people.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec},
    },
    apimachinery::pkg::api::resource::Quantity,
};

/// The template of a node's volume.
pub const TEMPLATE: &str = "data";

/// A claim of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Bytes it asks for.
    pub requested_bytes: u128,
    /// Bytes it has; 0 before it is bound.
    pub capacity_bytes: u128,
    /// Its class of storage, if it has one.
    pub class: Option<String>,
}

impl Claim {
    /// What matters here of a claim.
    pub fn of(claim: &PersistentVolumeClaim) -> Claim {
        let spec = claim.spec.as_ref();
        let capacity = claim
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref());
        Claim {
            name: claim.metadata.name.clone().unwrap_or_default(),
            requested_bytes: spec.and_then(requested).unwrap_or(0),
            capacity_bytes: capacity
                .and_then(|capacity| bytes(capacity.get("storage")?))
                .unwrap_or(0),
            class: spec.and_then(|spec| spec.storage_class_name.clone()),
        }
    }
}

/// What to do about the size of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Growth {
    /// Everything has the size that is asked for.
    Settled,
    /// These claims are to ask for more.
    Patch {
        /// Their names.
        claims: Vec<String>,
    },
    /// All claims ask for enough; the StatefulSet is to be made again.
    Recreate,
    /// These claims have not got yet what they ask for; the storage works on it.
    Waiting {
        /// Their names.
        claims: Vec<String>,
    },
    /// A class of storage forbids it.
    Refused {
        /// Which.
        class: String,
    },
}

/// The next thing to do so that every volume has `wanted` bytes. `template` is the size in the StatefulSet, if there is
/// one; `may_grow` says which classes allow it. Smaller volumes are never asked for.
pub fn decide(
    wanted: u128,
    template: Option<u128>,
    claims: &[Claim],
    may_grow: &BTreeMap<String, bool>,
) -> Growth {
    let allows = |claim: &Claim| {
        let class = claim.class.as_deref();
        class
            .and_then(|class| may_grow.get(class))
            .copied()
            .unwrap_or(false)
    };
    let small: Vec<&Claim> = claims
        .iter()
        .filter(|claim| claim.requested_bytes < wanted)
        .collect();
    if let Some(refused) = small.iter().find(|claim| !allows(claim)) {
        let class = refused.class.clone().unwrap_or_default();
        return Growth::Refused { class };
    }
    let names = |claims: Vec<&Claim>| claims.iter().map(|claim| claim.name.clone()).collect();
    if !small.is_empty() {
        return Growth::Patch {
            claims: names(small),
        };
    }
    if template.is_some_and(|template| template < wanted) {
        return Growth::Recreate;
    }
    let short = |claim: &&Claim| claim.capacity_bytes != 0 && claim.capacity_bytes < wanted;
    let waiting: Vec<&Claim> = claims.iter().filter(short).collect();
    if waiting.is_empty() {
        return Growth::Settled;
    }
    Growth::Waiting {
        claims: names(waiting),
    }
}

/// Bytes that the StatefulSet's template asks for.
pub fn template_bytes(set: &StatefulSet) -> Option<u128> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let named = |it: &&PersistentVolumeClaim| it.metadata.name.as_deref() == Some(TEMPLATE);
    requested(templates.iter().find(named)?.spec.as_ref()?)
}

fn requested(spec: &PersistentVolumeClaimSpec) -> Option<u128> {
    let requests = spec.resources.as_ref()?.requests.as_ref()?;
    bytes(requests.get("storage")?)
}

/// A quantity as whole bytes, rounded up; `None` when it is none, or negative.
pub fn bytes(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (factor, divisor) = factor(unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let product = digits.checked_mul(factor)?;
    Some(product.div_ceil(scale.checked_mul(divisor)?))
}

/// What a unit multiplies with, and divides by.
fn factor(unit: &str) -> Option<(u128, u128)> {
    if let Some(exponent) = unit
        .strip_prefix(['e', 'E'])
        .filter(|rest| !rest.is_empty())
    {
        let power: i32 = exponent.parse().ok()?;
        let size = 10_u128.checked_pow(power.unsigned_abs())?;
        return Some(if power < 0 { (1, size) } else { (size, 1) });
    }
    let multiplied = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        "m" => return Some((1, 1_000)),
        "u" => return Some((1, 1_000_000)),
        "n" => return Some((1, 1_000_000_000)),
        _ => return None,
    };
    Some((multiplied, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, requested: u128, capacity: u128) -> Claim {
        Claim {
            name: name.to_owned(),
            requested_bytes: requested,
            capacity_bytes: capacity,
            class: Some("fast".to_owned()),
        }
    }

    fn classes(may_grow: bool) -> BTreeMap<String, bool> {
        [("fast".to_owned(), may_grow)].into()
    }

    #[test]
    fn claims_are_patched_before_the_set_is_made_again_and_then_waited_for() {
        let grow = |template, claims: &[Claim]| decide(20, Some(template), claims, &classes(true));
        let before = [claim("data-0", 20, 10), claim("data-1", 10, 10)];
        let claims = vec!["data-1".to_owned()];
        assert_eq!(grow(10, &before), Growth::Patch { claims });
        let patched = [claim("data-0", 20, 20), claim("data-1", 20, 10)];
        assert_eq!(grow(10, &patched), Growth::Recreate);
        let claims = vec!["data-1".to_owned()];
        assert_eq!(grow(20, &patched), Growth::Waiting { claims });
        let grown = [claim("data-0", 20, 20), claim("data-1", 20, 0)];
        assert_eq!(grow(20, &grown), Growth::Settled);
    }

    #[test]
    fn nothing_is_touched_when_the_class_forbids_growing_or_is_unknown() {
        let claims = [claim("data-0", 10, 10)];
        let class = "fast".to_owned();
        let refused = Growth::Refused { class };
        assert_eq!(decide(20, Some(10), &claims, &classes(false)), refused);
        assert_eq!(decide(20, Some(10), &claims, &BTreeMap::new()), refused);
    }

    #[test]
    fn volumes_never_shrink_and_a_new_cluster_has_nothing_to_do() {
        let claims = [claim("data-0", 30, 30)];
        assert_eq!(
            decide(20, Some(30), &claims, &classes(true)),
            Growth::Settled
        );
        assert_eq!(decide(20, None, &[], &classes(true)), Growth::Settled);
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("1", Some(1)),
            ("2Gi", Some(2 << 30)),
            ("1.5Ki", Some(1536)),
            ("100M", Some(100_000_000)),
            ("1e3", Some(1000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("1500m", Some(2)),
            ("-1", None),
            ("", None),
            ("1Xi", None),
            ("1.2.3", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text:?}");
        }
    }
}
