//! `spec.auth`, `spec.rateLimits`, `spec.tls`: who may do what, how much of it, and under which certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthSpec {
    /// What callers without credentials may do.
    pub anonymous: AnonymousPolicy,
    /// The tokens that are known.
    pub tokens: TokensRef,
}

/// What callers without credentials may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AnonymousPolicy {
    /// Nothing.
    #[default]
    None,
    /// Read.
    ReadOnly,
    /// Read and write, and everything else.
    ReadWrite,
}

impl AnonymousPolicy {
    /// The word of the gateway's settings.
    pub const fn setting(self) -> &'static str {
        match self {
            AnonymousPolicy::None => "none",
            AnonymousPolicy::ReadOnly => "read",
            AnonymousPolicy::ReadWrite => "read-write",
        }
    }
}

/// Where the tokens are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TokensRef {
    /// The Secret with the file of hashes that `zim token create` writes. Changes reach the gateways by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_secret: Option<TokensSecret>,
}

/// A Secret with the file of token hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokensSecret {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "tokens_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn tokens_key() -> String {
    "tokens.toml".to_owned()
}

/// How many requests are served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitSpec {
    /// All requests together, such as 1000/s burst 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        regex(pattern = r"^[1-9][0-9]*/(s|m|h)( burst [1-9][0-9]*)?$")
    )]
    pub global: Option<String>,
    /// Requests of one client address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        regex(pattern = r"^[1-9][0-9]*/(s|m|h)( burst [1-9][0-9]*)?$")
    )]
    pub per_address: Option<String>,
    /// Requests with one token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        regex(pattern = r"^[1-9][0-9]*/(s|m|h)( burst [1-9][0-9]*)?$")
    )]
    pub per_token: Option<String>,
    /// Redis, through which all gateways keep to one limit together. Absent: each counts for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisSpec>,
}

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::REDIS)))]
pub struct RedisSpec {
    /// Its URL, such as redis://redis:6379. With a password, use existingSecret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^rediss?(\+sentinel)?://.+$"))]
    pub url: Option<String>,
    /// The Secret that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_secret: Option<UrlRef>,
}

/// A Secret that holds a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "url_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn url_key() -> String {
    "url".to_owned()
}

/// A Secret that holds a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "token_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn token_key() -> String {
    "token".to_owned()
}

/// Certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::TLS)))]
pub struct TlsSpec {
    /// The Secret of type kubernetes.io/tls with the certificate that clients see on port 8443. Absent: no such port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Who makes the certificates between gateways and nodes.
    pub internal: InternalTls,
    /// The issuer of cert-manager for them; it must be an authority of its own (type CA).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// Who makes the certificates between gateways and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum InternalTls {
    /// The operator.
    #[default]
    Operator,
    /// cert-manager.
    CertManager,
}

/// An issuer of cert-manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Issuer or ClusterIssuer.
    #[serde(default = "issuer")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its API group.
    #[serde(default = "issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn issuer() -> String {
    "Issuer".to_owned()
}

fn issuer_group() -> String {
    "cert-manager.io".to_owned()
}
