//! What may change while the gateway serves: who may do what, which namespaces there are, which limits hold.
//!
//! One immutable value behind an atomic pointer; a reload swaps it whole, so a request sees one policy from its start
//! to its end. Not here: where the parts come from (`zim` reads files), what a request asks for (`call`).

use std::{sync::Arc, time::Duration};

use zimcache_auth::{Anonymous, Authenticator, Sources};
use zimcache_config::{AssetsConfig, LimitsConfig, Namespaces, namespaces::ANY};
use zimcache_store::Retention;
use zimcache_types::Namespace;

use crate::{limits::Limiter, metrics::Metrics};

/// Who may do what, and how much of it.
#[derive(Debug)]
pub struct Policy {
    /// Tokens, users, and what everybody else may do.
    pub authenticator: Authenticator,
    /// The namespaces there are; empty: any.
    pub namespaces: Namespaces,
    /// How many requests are answered.
    pub limits: LimitsConfig,
    /// What may be fetched from elsewhere.
    pub assets: AssetsConfig,
    /// Origins whose pages a browser may let use the cache.
    pub cors_origins: Vec<String>,
    /// Log every request.
    pub access_log: bool,
    /// Which share of requests is traced when their callers do not say, from 0 to 1.
    pub trace_ratio: f64,
}

impl Default for Policy {
    /// Everybody may read and write everything, without limits.
    fn default() -> Policy {
        Policy {
            authenticator: Authenticator::new(Sources {
                anonymous: Anonymous::ReadWrite,
                ..Sources::default()
            }),
            namespaces: Namespaces::default(),
            limits: LimitsConfig::default(),
            assets: AssetsConfig::default(),
            cors_origins: Vec::new(),
            access_log: false,
            trace_ratio: 0.0,
        }
    }
}

/// A policy, and what was made of it.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    pub(crate) policy: Arc<Policy>,
    /// Absent while there are no limits: then a request pays one branch.
    pub(crate) limiter: Option<Limiter>,
}

impl InForce {
    /// The next policy in force. What callers have used up stays used up.
    pub(crate) fn followed_by(&self, policy: Policy, metrics: &Metrics) -> InForce {
        let figures = || metrics.shared_limits();
        InForce {
            limiter: Limiter::new(&policy.limits, self.limiter.as_ref(), figures),
            policy: Arc::new(policy),
        }
    }
}

impl Policy {
    /// Whether the namespace exists or may come into being.
    pub(crate) fn has(&self, namespace: &Namespace) -> bool {
        let listed = &self.namespaces;
        listed.is_empty() || listed.contains_key(namespace.as_str()) || listed.contains_key(ANY)
    }
}

/// How long values are kept, given what holds where nothing else is said.
pub fn retention_of(
    namespaces: &Namespaces,
    default_ttl: Option<Duration>,
    min_lifetime: Duration,
) -> Retention {
    let own = |name: &str| namespaces.get(name).and_then(|config| config.retention);
    let listed = namespaces.keys().filter(|name| *name != ANY);
    let own_ttl = |name: &String| Some((Namespace::new(name).ok()?, own(name)?.0));
    Retention {
        default_ttl: own(ANY).map_or(default_ttl, |retention| retention.0),
        min_lifetime,
        namespaces: listed.filter_map(own_ttl).collect(),
    }
}
