//! The names, labels, ports and annotations of what belongs to a cache: one home for what others rely on.
//!
//! Invariants: they never change between versions, as data and running pods hang on them; a node's id in the ring is the
//! name of its pod.

use std::collections::BTreeMap;

/// Field manager of what the operator applies.
pub const MANAGER: &str = "zim-operator";
/// Field manager of the status.
pub const STATUS_MANAGER: &str = "zim-operator-status";
/// Where gateways and nodes hear each other.
pub const NODE_PORT: u16 = 7400;
/// Where clients reach a gateway in clear.
pub const HTTP_PORT: u16 = 8080;
/// Where clients reach a gateway with TLS.
pub const HTTPS_PORT: u16 = 8443;
/// Health, readiness, metrics and standing of gateways and nodes.
pub const ADMIN_PORT: u16 = 9090;
/// Key of the ring document in its ConfigMap.
pub const RING_KEY: &str = "ring.json";
/// Name of the volume of a node.
pub const DATA: &str = "data";

/// On a pod: the epoch of the ring it was last told of, which makes the kubelet look at the ConfigMap.
pub const RING_EPOCH: &str = "zimcache.dev/ring-epoch";
/// On the ring: when it was last changed.
pub const RING_CHANGED: &str = "zimcache.dev/changed-at";
/// On a claim: its node has handed over everything and left, so nothing is missed on it.
pub const DRAINED: &str = "zimcache.dev/drained";
/// On a workload: hash of what people can see of its pods.
pub const INPUTS: &str = "zimcache.dev/inputs";
/// On a workload: the pods as they were last made of these inputs.
pub const TEMPLATE: &str = "zimcache.dev/template";
/// On a ZimCache, by people: nodes that are given up, by name, separated by commas.
pub const LOST: &str = "zimcache.dev/lost-nodes";
/// On a ZimCache, by people: nodes that go although they cannot hand over what they have, by name, separated by commas.
pub const FORCE_DRAIN: &str = "zimcache.dev/force-drain";
/// On a ZimCache with reclaim Delete: its volumes go first.
pub const FINALIZER: &str = "zimcache.dev/volumes";

/// Which part of a cache a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// It keeps data.
    Node,
    /// It speaks to clients.
    Gateway,
}

impl Component {
    /// The word in labels and names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Component::Node => "node",
            Component::Gateway => "gateway",
        }
    }
}

/// The names of one cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Name of the ZimCache.
    pub cache: String,
    /// Its namespace.
    pub namespace: String,
}

impl Names {
    /// Of the cache of this name.
    pub fn new(cache: impl Into<String>, namespace: impl Into<String>) -> Names {
        Names {
            cache: cache.into(),
            namespace: namespace.into(),
        }
    }

    /// StatefulSet, headless Service, ServiceAccount and so on of the nodes; Deployment and so on of the gateways.
    pub fn of(&self, component: Component) -> String {
        format!("{}-{}", self.cache, component.as_str())
    }

    /// The ConfigMap with the ring.
    pub fn ring(&self) -> String {
        format!("{}-ring", self.cache)
    }

    /// The Secret with the authority of the certificates between gateways and nodes.
    pub fn authority(&self) -> String {
        format!("{}-ca", self.cache)
    }

    /// The Secret with the certificate that gateways or nodes show each other.
    pub fn peer(&self, component: Component) -> String {
        format!("{}-peer-{}", self.cache, component.as_str())
    }

    /// The Secret with the key that signs URLs, which all gateways share.
    pub fn signing(&self) -> String {
        format!("{}-signing", self.cache)
    }

    /// The CronJob that compacts.
    pub fn gc(&self) -> String {
        format!("{}-gc", self.cache)
    }

    /// The pod of the node with this number, which is its id in the ring.
    pub fn pod(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.of(Component::Node))
    }

    /// The number of a node; `None` for what is no node of this cache.
    pub fn ordinal(&self, pod: &str) -> Option<i32> {
        let number = pod
            .strip_prefix(&self.of(Component::Node))?
            .strip_prefix('-')?;
        let ordinal: i32 = number.parse().ok()?;
        (self.pod(ordinal) == pod && ordinal >= 0).then_some(ordinal)
    }

    /// The claim of the volume of a node.
    pub fn claim(&self, pod: &str) -> String {
        format!("{DATA}-{pod}")
    }

    /// Where a node's internal service answers.
    pub fn address(&self, pod: &str) -> String {
        let (service, namespace) = (self.of(Component::Node), &self.namespace);
        format!("https://{pod}.{service}.{namespace}.svc:{NODE_PORT}")
    }

    /// What finds the pods of a component. It is part of what can never change.
    pub fn selector(&self, component: Component) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "zimcache"),
            ("app.kubernetes.io/instance", &self.cache),
            ("app.kubernetes.io/component", component.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The labels of everything that belongs to a component, or to the whole cache.
    pub fn labels(&self, component: Option<Component>) -> BTreeMap<String, String> {
        let mut labels = self.selector(component.unwrap_or(Component::Node));
        if component.is_none() {
            labels.remove("app.kubernetes.io/component");
        }
        labels.insert(
            "app.kubernetes.io/managed-by".to_owned(),
            MANAGER.to_owned(),
        );
        labels
    }

    /// The query that finds everything of the cache that the operator applied.
    pub fn query(&self) -> String {
        query(&self.labels(None))
    }

    /// The query that finds the pods of a component.
    pub fn pods_query(&self, component: Component) -> String {
        query(&self.selector(component))
    }
}

/// Labels as a query.
pub fn query(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_by_the_name_of_its_pod_and_nothing_else_is_a_node() {
        let names = Names::new("main", "build");
        assert_eq!(names.pod(3), "main-node-3");
        assert_eq!(names.ordinal("main-node-3"), Some(3));
        for other in [
            "main-node-03",
            "main-node-",
            "main-node-x",
            "main-gateway-3",
            "other-main-node-3",
            "main-node--1",
        ] {
            assert_eq!(names.ordinal(other), None, "{other}");
        }
        assert_eq!(
            names.address("main-node-0"),
            "https://main-node-0.main-node.build.svc:7400"
        );
        assert_eq!(names.claim("main-node-0"), "data-main-node-0");
    }
}
