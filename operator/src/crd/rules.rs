//! The rules that the API server checks: what no type and no pattern can say. Each with the sentence for who broke it.
//!
//! A rule with `oldSelf` is not asked when an object is made. Invariant: a message names the field and what to write.

use serde_json::{Value, json};

/// A rule in CEL, and what is said when it does not hold.
pub(super) type Rule = (&'static str, &'static str);

/// The rules as the schema has them.
pub(super) fn of(rules: &[Rule]) -> Value {
    let each = |(rule, message): &Rule| json!({ "rule": rule, "message": message });
    rules.iter().map(each).collect()
}

/// Of the whole spec.
pub(super) const SPEC: &[Rule] = &[
    (
        "self.replication.factor <= self.nodes.replicas",
        "replication.factor must not be more than nodes.replicas: each copy lies on a node of its own; add nodes, or make the cache anew with replication.factor: 1",
    ),
    (
        "self.replication.durability != 'bucket' || has(self.durableTier)",
        "replication.durability: bucket needs a bucket; write durableTier.s3 too, or durability: quorum",
    ),
    (
        "!has(oldSelf.durableTier) || has(self.durableTier)",
        "durableTier cannot be taken away: what the nodes' disks had no room for is only there; make another ZimCache instead",
    ),
];

/// Of `nodes.storage`.
pub(super) const STORAGE: &[Rule] = &[
    (
        "isQuantity(self.size) && quantity(self.size).compareTo(quantity('256Mi')) >= 0",
        "nodes.storage.size: write a size such as 100Gi, at least 256Mi",
    ),
    (
        "!isQuantity(self.size) || !isQuantity(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
        "nodes.storage.size can only grow: no volume of Kubernetes becomes smaller; for less room take fewer nodes",
    ),
    (
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
        "nodes.storage.storageClassName cannot be changed: volumes stay in their class; make another ZimCache instead",
    ),
];

/// Of `nodes`.
pub(super) const NODES: &[Rule] = &[(
    "self.zonesKey == oldSelf.zonesKey",
    "nodes.zonesKey cannot be changed: the zones of the nodes decide where data lies",
)];

/// Of `replication`.
pub(super) const REPLICATION: &[Rule] = &[
    (
        "self.factor == oldSelf.factor",
        "replication.factor cannot be changed: it decides where data lies; make another ZimCache instead",
    ),
    (
        "self.zoneAware == oldSelf.zoneAware",
        "replication.zoneAware cannot be changed: it decides where data lies; make another ZimCache instead",
    ),
];

/// Of `durableTier.s3`.
pub(super) const S3: &[Rule] = &[(
    "self.bucket == oldSelf.bucket && self.prefix == oldSelf.prefix",
    "durableTier.s3.bucket and prefix cannot be changed: the nodes rely on what they have copied there; make another ZimCache instead",
)];

/// Of `gateway.autoscaling`.
pub(super) const AUTOSCALING: &[Rule] = &[(
    "self.minReplicas <= self.maxReplicas",
    "gateway.autoscaling.minReplicas must not be more than maxReplicas",
)];

/// Of `rateLimits.redis`.
pub(super) const REDIS: &[Rule] = &[(
    "has(self.url) != has(self.existingSecret)",
    "rateLimits.redis: write either url, or existingSecret with the name of a Secret that holds the URL",
)];

/// Of `tls`.
pub(super) const TLS: &[Rule] = &[(
    "self.internal != 'CertManager' || has(self.issuerRef)",
    "tls.internal: CertManager needs tls.issuerRef, the name of an Issuer or ClusterIssuer",
)];

/// Of `gc`.
pub(super) const GC: &[Rule] = &[(
    "!has(self.existingSecret) || has(self.schedule)",
    "gc.existingSecret is for gc.schedule; write a schedule such as \"0 3 * * *\" too",
)];
