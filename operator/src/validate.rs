//! From what people wrote to what can be built: pure, and the last place that sees texts with units.
//!
//! The API server has checked the schema and its rules; here is what they cannot say, and whatever an older definition
//! let through. Invariant: a [`Cache`] can be built; every problem is told at once.

use std::{collections::BTreeSet, time::Duration};

use kube::ResourceExt as _;

use crate::{
    crd::{InternalTls, LONGEST_NAME, MOST_NODES, ZimCache, ZimCacheSpec},
    names::{FORCE_DRAIN, LOST, Names},
};

/// Share of a volume that the store may take, in percent: the rest is the file system's own, which keeps up to 5 % for
/// the administrator and needs about 2 % for its tables, and room for what lies beside the store.
const STORE_SHARE_PERCENT: u64 = 90;
/// Smallest volume: the store needs 64 MiB, and a file system on less is mostly tables.
const LEAST_VOLUME_BYTES: u64 = 256 << 20;

/// A cache that can be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Names of everything.
    pub names: Names,
    /// The object's identity, for owner references.
    pub uid: String,
    /// Number of the spec.
    pub generation: i64,
    /// What was asked for.
    pub spec: ZimCacheSpec,
    /// Size of each volume in bytes.
    pub volume_bytes: u64,
    /// After this a drain that goes on is called blocked.
    pub drain_timeout: Duration,
    /// Nodes that people have given up.
    pub lost: BTreeSet<String>,
    /// Nodes that go even if they cannot hand over what they have.
    pub forced: BTreeSet<String>,
}

impl Cache {
    /// Most bytes that the store on a volume of this size may take.
    pub const fn store_bytes(volume_bytes: u64) -> u64 {
        let bytes = volume_bytes / 100 * STORE_SHARE_PERCENT;
        bytes - bytes % (1 << 20)
    }
}

/// Why a spec cannot succeed: a sentence each, that says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Problems(pub Vec<String>);

/// The cache that this object describes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validate(object: &ZimCache) -> Result<Cache, Problems> {
    let spec = &object.spec;
    let mut problems = Vec::new();
    let mut check = |holds: bool, sentence: &str| {
        if !holds {
            problems.push(sentence.to_owned());
        }
    };
    let name = object.name_any();
    check(
        name.len() <= LONGEST_NAME && is_label(&name),
        "metadata.name: write at most 40 lower-case letters, digits and dashes, starting with a letter",
    );
    check(
        (1..=MOST_NODES).contains(&spec.nodes.replicas),
        "nodes.replicas: write a number from 1 to 1000",
    );
    check(
        (1..=spec.nodes.replicas).contains(&spec.replication.factor),
        "replication.factor must be at least 1 and not more than nodes.replicas",
    );
    let volume_bytes = quantity(&spec.nodes.storage.size).unwrap_or(0);
    check(
        volume_bytes >= LEAST_VOLUME_BYTES,
        "nodes.storage.size: write a size such as 100Gi, at least 256Mi",
    );
    let drain_timeout = duration(&spec.nodes.drain.timeout);
    check(
        drain_timeout.is_some(),
        "nodes.drain.timeout: write a duration such as 30m",
    );
    check(
        spec.tls.internal != InternalTls::CertManager || spec.tls.issuer_ref.is_some(),
        "tls.internal: CertManager needs tls.issuerRef",
    );
    check_redis(spec, &mut check);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    Ok(Cache {
        names: Names::new(name, object.namespace().unwrap_or_default()),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        spec: spec.clone(),
        volume_bytes,
        drain_timeout: drain_timeout.unwrap_or_default(),
        lost: listed(object, LOST),
        forced: listed(object, FORCE_DRAIN),
    })
}

fn check_redis(spec: &ZimCacheSpec, check: &mut impl FnMut(bool, &str)) {
    let Some(redis) = &spec.rate_limits.redis else {
        return;
    };
    check(
        redis.url.is_some() != redis.existing_secret.is_some(),
        "rateLimits.redis: write either url or existingSecret",
    );
}

/// What an annotation lists, separated by commas.
fn listed(object: &ZimCache, annotation: &str) -> BTreeSet<String> {
    let text = object
        .annotations()
        .get(annotation)
        .map_or("", String::as_str);
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn is_label(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(legal)
}

/// The bytes of a quantity of Kubernetes, such as `100Gi`, `1.5T` or `1e9`; `None` for what is none, or is negative.
pub fn quantity(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
    let (number, factor) = match unit {
        Some((name, factor)) => (text.strip_suffix(name)?, *factor),
        None => (text, 1.0),
    };
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '+') {
        return None;
    }
    let bytes = number.parse::<f64>().ok()? * factor;
    // Beyond 2^63 nothing is a volume.
    #[allow(clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..9.2e18).contains(&bytes).then_some(bytes as u64)
}

/// A duration such as `30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A cache of the name `main` in the namespace `build`.
    pub(crate) fn object(spec: ZimCacheSpec) -> ZimCache {
        let mut object = ZimCache::new("main", spec);
        object.metadata.namespace = Some("build".to_owned());
        object.metadata.uid = Some("11-22".to_owned());
        object.metadata.generation = Some(4);
        object
    }

    /// The same, checked.
    pub(crate) fn cache(spec: ZimCacheSpec) -> Cache {
        validate(&object(spec)).unwrap()
    }

    #[test]
    fn an_empty_spec_is_fine() {
        let cache = cache(ZimCacheSpec::default());
        assert_eq!(cache.volume_bytes, 100 << 30);
        assert_eq!(cache.drain_timeout, Duration::from_mins(30));
        assert_eq!(cache.generation, 4);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut spec = ZimCacheSpec::default();
        spec.nodes.replicas = 1;
        spec.nodes.storage.size = "much".to_owned();
        spec.nodes.drain.timeout = "soon".to_owned();
        spec.tls.internal = InternalTls::CertManager;
        spec.rate_limits.redis = Some(crate::crd::RedisSpec::default());
        let problems = validate(&object(spec)).unwrap_err();
        assert_eq!(problems.0.len(), 5, "{problems}");
        assert!(
            problems.to_string().contains("replication.factor"),
            "{problems}"
        );
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("2Gi", 2 << 30),
            ("1500M", 1_500_000_000),
            ("1.5Gi", 3 << 29),
            ("1e9", 1_000_000_000),
            ("7", 7),
            ("2000m", 2),
        ] {
            assert_eq!(quantity(text), Some(bytes), "{text}");
        }
        for text in ["", "Gi", "-1Gi", "many", "1 Gi", "inf", "NaN", "1e40"] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }

    #[test]
    fn the_store_leaves_room_for_the_file_system() {
        assert_eq!(Cache::store_bytes(100 << 30) % (1 << 20), 0);
        assert!(Cache::store_bytes(2 << 30) <= (2 << 30) / 100 * 90);
        assert!(Cache::store_bytes(LEAST_VOLUME_BYTES) >= 64 << 20);
    }

    #[test]
    fn annotations_list_nodes() {
        let mut object = object(ZimCacheSpec::default());
        let annotation = (LOST.to_owned(), "main-node-1, main-node-2,".to_owned());
        object.metadata.annotations = Some([annotation].into());
        let cache = validate(&object).unwrap();
        assert_eq!(cache.lost.len(), 2);
        assert!(cache.lost.contains("main-node-2") && cache.forced.is_empty());
    }
}
