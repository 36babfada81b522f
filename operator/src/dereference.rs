//! What a spec refers to and what is there already, read from the API server and from the pods. Nothing is decided here.
//!
//! Invariants: of a Secret only what is needed is kept, and of its values only a hash; silence of a pod is told as such.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret},
    },
};
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zimcache_ring::Document;
use zimcache_types::Timestamp;

use crate::{
    names::{Component, DRAINED, Names, RING_CHANGED, RING_KEY},
    node_client::{self, GatewayReports, NodeReports},
    pods::PodView,
    validate::Cache,
};

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The nodes' set.
    pub node_set: Option<StatefulSet>,
    /// The gateways.
    pub gateways: Option<Deployment>,
    /// The ring's ConfigMap.
    pub ring: Option<PublishedRing>,
    /// Pods of nodes.
    pub nodes: Vec<PodView>,
    /// The nodes' volumes.
    pub claims: Vec<Claim>,
    /// The zone of each node that has a machine.
    pub zones: BTreeMap<String, String>,
    /// Pods of gateways.
    pub gateway_pods: Vec<PodView>,
    /// What the nodes say.
    pub reports: NodeReports,
    /// What the gateways say.
    pub gateway_reports: GatewayReports,
    /// What is in the Secrets that the spec names.
    pub secrets: Secrets,
}

impl World {
    /// Numbers of the volumes that no node has left for good.
    pub fn claimed(&self) -> BTreeSet<i32> {
        let in_use = self
            .claims
            .iter()
            .filter(|claim| !claim.is_left && !claim.is_going);
        in_use.map(|claim| claim.ordinal).collect()
    }

    /// Pods that serve and do not follow this ring yet, nor a later one.
    pub fn behind(&self, epoch: u64) -> Vec<&str> {
        let node = |pod: &PodView| {
            self.reports
                .get(&pod.name)?
                .as_ref()
                .ok()
                .map(|it| it.epoch)
        };
        let gateway = |pod: &PodView| {
            let report = self.gateway_reports.get(&pod.name)?;
            report.as_ref().ok().map(|it| it.epoch)
        };
        let nodes = self.nodes.iter().map(|pod| (pod, node(pod)));
        let gateways = self.gateway_pods.iter().map(|pod| (pod, gateway(pod)));
        let all = nodes.chain(gateways);
        all.filter(|(pod, _)| pod.is_ready && !pod.is_terminating)
            .filter(|(_, known)| known.is_none_or(|known| known < epoch))
            .map(|(pod, _)| pod.name.as_str())
            .collect()
    }
}

/// The volume of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The node's number.
    pub ordinal: i32,
    /// Whether its node has handed over everything and left.
    pub is_left: bool,
    /// Whether it is on its way out.
    pub is_going: bool,
}

/// The ring as it is published.
#[derive(Debug, Clone)]
pub struct PublishedRing {
    /// The document; or why it is none.
    pub document: Result<Document, String>,
    /// The version of the ConfigMap, for the next write.
    pub version: Option<String>,
    /// When it was last changed.
    pub changed: Option<Timestamp>,
}

/// What is in the Secrets that the spec names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// A sentence for each that is missing or lacks a key.
    pub problems: Vec<String>,
    /// Hash of the credentials for S3.
    pub s3: Option<String>,
    /// Hash of the URL of Redis.
    pub redis: Option<String>,
}

/// Looks at everything.
///
/// # Errors
/// When the API server refuses.
pub async fn dereference(client: &Client, cache: &Cache) -> Result<World, kube::Error> {
    let names = &cache.names;
    let namespace = &names.namespace;
    let node_set = get(client, namespace, names.of(Component::Node));
    let gateways = get(client, namespace, names.of(Component::Gateway));
    let ring = get::<ConfigMap>(client, namespace, names.ring());
    let nodes = pods(client, names, Component::Node);
    let gateway_pods = pods(client, names, Component::Gateway);
    let secrets = secrets(client, cache);
    let (node_set, gateways, ring, nodes, gateway_pods, secrets, claims) = tokio::try_join!(
        node_set,
        gateways,
        ring,
        nodes,
        gateway_pods,
        secrets,
        claims(client, names)
    )?;
    let zones = zones(client, cache, &nodes).await?;
    let targets = |pods: &[PodView]| pods.iter().filter_map(PodView::target).collect::<Vec<_>>();
    let (reports, gateway_reports) = tokio::join!(
        node_client::ask_nodes(targets(&nodes)),
        node_client::ask_gateways(targets(&gateway_pods))
    );
    Ok(World {
        node_set,
        gateways,
        ring: ring.as_ref().map(published),
        nodes,
        claims,
        zones,
        gateway_pods,
        reports,
        gateway_reports,
        secrets,
    })
}

async fn get<K>(client: &Client, namespace: &str, name: String) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    Api::namespaced(client.clone(), namespace)
        .get_opt(&name)
        .await
}

async fn pods(
    client: &Client,
    names: &Names,
    component: Component,
) -> Result<Vec<PodView>, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
    let found = api
        .list(&ListParams::default().labels(&names.pods_query(component)))
        .await?;
    let mut views: Vec<PodView> = found.iter().map(PodView::of).collect();
    if component == Component::Node {
        views.retain(|pod| names.ordinal(&pod.name).is_some());
    }
    Ok(views)
}

async fn claims(client: &Client, names: &Names) -> Result<Vec<Claim>, kube::Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let query = names.pods_query(Component::Node);
    let found = api.list(&ListParams::default().labels(&query)).await?;
    let prefix = names.claim("");
    let claims = found.iter().filter_map(|claim| {
        let name = claim.name_any();
        Some(Claim {
            ordinal: names.ordinal(name.strip_prefix(&prefix)?)?,
            is_left: claim.annotations().contains_key(DRAINED),
            is_going: claim.metadata.deletion_timestamp.is_some(),
        })
    });
    Ok(claims.collect())
}

/// The zone of each pod's machine; nothing where zones do not matter. A machine without the label is a zone without name.
async fn zones(
    client: &Client,
    cache: &Cache,
    pods: &[PodView],
) -> Result<BTreeMap<String, String>, kube::Error> {
    let mut zones = BTreeMap::new();
    if !cache.spec.replication.zone_aware {
        return Ok(zones);
    }
    let machines: Api<Node> = Api::all(client.clone());
    for pod in pods {
        let Some(machine) = &pod.machine else {
            continue;
        };
        let found = machines.get_opt(machine).await?;
        let zone = found.and_then(|it| it.labels().get(&cache.spec.nodes.zones_key).cloned());
        zones.insert(pod.name.clone(), zone.unwrap_or_default());
    }
    Ok(zones)
}

fn published(map: &ConfigMap) -> PublishedRing {
    let text = map.data.as_ref().and_then(|data| data.get(RING_KEY));
    let document = match text {
        Some(text) => Document::parse(text).map_err(|error| error.to_string()),
        None => Err(format!("it has no {RING_KEY}")),
    };
    let changed = map
        .annotations()
        .get(RING_CHANGED)
        .and_then(|text| text.parse().ok());
    PublishedRing {
        document,
        version: map.resource_version(),
        changed: changed.map(Timestamp),
    }
}

/// The keys of the Secrets that the spec names, by Secret, and what each is for.
fn wanted(cache: &Cache) -> Vec<(&str, Vec<&str>, &'static str)> {
    let spec = &cache.spec;
    let tier = spec
        .durable_tier
        .as_ref()
        .and_then(|tier| tier.s3.existing_secret.as_ref());
    let s3 = tier.map(|it| {
        let keys = vec![
            it.access_key_id_key.as_str(),
            it.secret_access_key_key.as_str(),
        ];
        (it.name.as_str(), keys, S3)
    });
    let redis = spec
        .rate_limits
        .redis
        .as_ref()
        .and_then(|redis| redis.existing_secret.as_ref());
    let redis = redis.map(|it| (it.name.as_str(), vec![it.key.as_str()], REDIS));
    let tokens = spec.auth.tokens.existing_secret.as_ref();
    let tokens = tokens.map(|it| (it.name.as_str(), vec![it.key.as_str()], "auth.tokens"));
    let tls = spec.tls.secret_name.as_ref();
    let tls = tls.map(|name| (name.as_str(), vec!["tls.crt", "tls.key"], "tls.secretName"));
    let gc = spec.gc.existing_secret.as_ref();
    let gc = gc.map(|it| (it.name.as_str(), vec![it.key.as_str()], "gc.existingSecret"));
    [s3, redis, tokens, tls, gc].into_iter().flatten().collect()
}

const S3: &str = "durableTier.s3";
const REDIS: &str = "rateLimits.redis";

async fn secrets(client: &Client, cache: &Cache) -> Result<Secrets, kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &cache.names.namespace);
    let mut found = Secrets::default();
    for (name, keys, purpose) in wanted(cache) {
        let secret = api.get_opt(name).await?;
        match values(secret.as_ref(), name, &keys) {
            Ok(hash) if purpose == S3 => found.s3 = Some(hash),
            Ok(hash) if purpose == REDIS => found.redis = Some(hash),
            Ok(_) => {}
            Err(problem) => found.problems.push(format!("{purpose}: {problem}")),
        }
    }
    Ok(found)
}

/// Hash of the values of these keys.
fn values(secret: Option<&Secret>, name: &str, keys: &[&str]) -> Result<String, String> {
    let secret = secret.ok_or_else(|| format!("there is no Secret {name}"))?;
    let mut hasher = Sha256::new();
    for key in keys {
        let value = secret.data.as_ref().and_then(|data| data.get(*key));
        let value = value.filter(|value| !value.0.is_empty());
        let value = value.ok_or_else(|| format!("Secret {name} has no value under {key}"))?;
        hasher.update((value.0.len() as u64).to_le_bytes());
        hasher.update(&value.0);
    }
    Ok(crate::hex::text(&hasher.finalize()[..8]))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(pairs: &[(&str, &str)]) -> Secret {
        let data = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().into())));
        Secret {
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn what_a_secret_lacks_is_told_by_name_and_its_values_are_not() {
        let missing = values(None, "keys", &["a"]).unwrap_err();
        assert_eq!(missing, "there is no Secret keys");
        let found = secret(&[("a", "s3cret"), ("empty", "")]);
        assert!(
            values(Some(&found), "keys", &["a", "b"])
                .unwrap_err()
                .contains("under b")
        );
        assert!(
            values(Some(&found), "keys", &["empty"])
                .unwrap_err()
                .contains("under empty")
        );
        let hash = values(Some(&found), "keys", &["a"]).unwrap();
        assert!(!hash.contains("s3cret"));
        assert_ne!(
            values(Some(&secret(&[("a", "other")])), "keys", &["a"]).unwrap(),
            hash
        );
    }

    #[test]
    fn whoever_serves_and_follows_an_older_ring_is_behind() {
        let pod = |name: &str| {
            let mut pod = PodView::of(&Pod::default());
            pod.name = name.to_owned();
            pod.is_ready = true;
            pod
        };
        let mut world = World {
            nodes: vec![pod("n")],
            gateway_pods: vec![pod("g")],
            ..World::default()
        };
        assert_eq!(world.behind(7), ["n", "g"], "nobody said so");
        let node = node_client::NodeReport {
            epoch: 7,
            ..Default::default()
        };
        world.reports.insert("n".to_owned(), Ok(node));
        let mut gateway = node_client::GatewayReport {
            epoch: 6,
            ..Default::default()
        };
        world.gateway_reports.insert("g".to_owned(), Ok(gateway));
        assert_eq!(world.behind(7), ["g"], "it would still call who has left");
        gateway.epoch = 8;
        world.gateway_reports.insert("g".to_owned(), Ok(gateway));
        assert!(world.behind(7).is_empty());
        world.gateway_reports.clear();
        world.gateway_pods[0].is_ready = false;
        assert!(
            world.behind(7).is_empty(),
            "who does not serve calls nobody"
        );
    }

    #[test]
    fn a_ring_that_cannot_be_read_is_no_absent_ring() {
        let map = ConfigMap {
            data: Some([(RING_KEY.to_owned(), "{".to_owned())].into()),
            ..ConfigMap::default()
        };
        assert!(published(&map).document.is_err());
        assert!(
            published(&ConfigMap::default())
                .document
                .unwrap_err()
                .contains("ring.json")
        );
    }
}
