//! `spec.replication`, `spec.durableTier`, `spec.gc`: how safe data is, and how long it stays.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{access::SecretKeyRef, rules};

/// Copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::REPLICATION)))]
pub struct ReplicationSpec {
    /// How many nodes keep each blob and each entry.
    #[schemars(range(min = 1, max = 8))]
    pub factor: i32,
    /// Whether the copies lie in different zones, as long as there are several.
    pub zone_aware: bool,
    /// What an acknowledged write has reached.
    pub durability: Durability,
}

impl Default for ReplicationSpec {
    fn default() -> ReplicationSpec {
        ReplicationSpec {
            factor: 2,
            zone_aware: false,
            durability: Durability::Quorum,
        }
    }
}

/// What an acknowledged write has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The disk of one node; the others get their copies afterwards.
    Local,
    /// The disks of two nodes.
    #[default]
    Quorum,
    /// The disk of one node, and the bucket.
    Bucket,
}

impl Durability {
    /// The word of the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Durability::Local => "local",
            Durability::Quorum => "quorum",
            Durability::Bucket => "bucket",
        }
    }
}

/// The bucket behind the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DurableTierSpec {
    /// A bucket of S3, or of a server that speaks like it.
    pub s3: S3Spec,
}

/// A bucket of S3.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::S3)))]
pub struct S3Spec {
    /// Its name.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub bucket: String,
    /// Its region. Absent: us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// A server other than AWS, such as http://minio:9000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://.+$"))]
    pub endpoint: Option<String>,
    /// What every key starts with.
    #[serde(default)]
    #[schemars(length(max = 256), regex(pattern = r"^([^/](.*[^/])?)?$"))]
    pub prefix: String,
    /// Put the bucket in the path, not in the host name. Absent: so if there is an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Make the bucket if it is missing.
    #[serde(default)]
    pub create_bucket: bool,
    /// How long after its last use an object stays, at least two days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([2-9]|[1-9][0-9]+)d$"))]
    pub ttl: Option<String>,
    /// The Secret with the credentials. Absent: from the ServiceAccount (web identity) or the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_secret: Option<S3Secret>,
    /// Annotations of the nodes' ServiceAccount, for credentials by web identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), extend("additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// A Secret with credentials for S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Secret {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it with the access key's id.
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: String,
    /// The key in it with the secret access key.
    #[serde(default = "secret_access_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key_key: String,
}

fn access_key_id() -> String {
    "access-key-id".to_owned()
}

fn secret_access_key() -> String {
    "secret-access-key".to_owned()
}

/// What is forgotten, and when the nodes compact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::GC)))]
pub struct GcSpec {
    /// How long after its put a value is served, such as 30d. Absent: as long as there is room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[1-9][0-9]*(s|m|h|d)$"))]
    pub retention: Option<String>,
    /// When all nodes compact and forget at once, as a CronJob writes it, such as "0 3 * * *". Nodes do both by
    /// themselves when room runs short.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 128))]
    pub schedule: Option<String>,
    /// The Secret with a token of scope admin for the schedule; needed unless anonymous is read-write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_secret: Option<SecretKeyRef>,
}
