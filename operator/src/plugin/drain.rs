//! `kubectl zim drain`: one node less, with everything handed over before it goes.
//!
//! A StatefulSet can only lose the node with the highest number, so no other one can be asked for. The operator does the
//! rest: this lowers `spec.nodes.replicas` by one, only from the number that was seen, and waits. Ending the waiting ends
//! nothing else; raising the number again cancels.

use std::time::Duration;

use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Cluster, Error, Result, output};
use crate::{
    crd::{ZimCache, condition},
    names::Names,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The node, such as main-node-3, or the ZimCache: then it is the node with the highest number
    what: Option<String>,
    /// Does not wait until the node is gone
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(cluster: &Cluster, args: &Arguments) -> Result<()> {
    let (cache, node) = find(cluster, args.what.as_deref()).await?;
    let names = Names::new(cache.name_any(), &cluster.namespace);
    let left = check(&cache, &names, node.as_deref()).map_err(Error::Refused)?;
    let version = cache.resource_version();
    let patch = json!({
        // Refused when somebody changed the cache since it was read.
        "metadata": { "resourceVersion": version },
        "spec": { "nodes": { "replicas": left } },
    });
    let caches = cluster.caches();
    let patch = Patch::Merge(patch);
    caches
        .patch(&names.cache, &PatchParams::default(), &patch)
        .await?;
    let going = names.pod(left);
    output::tell(&format!(
        "{going} hands over what it has and goes; raise spec.nodes.replicas to {} to keep it",
        left + 1
    ));
    if args.no_wait {
        return Ok(());
    }
    wait(&caches, &names.cache, &going, left).await
}

/// The cache, and the node if one was named.
async fn find(cluster: &Cluster, what: Option<&str>) -> Result<(ZimCache, Option<String>)> {
    let Some(what) = what else {
        return Ok((cluster.cache(None).await?, None));
    };
    if let Some(cache) = cluster.caches().get_opt(what).await? {
        return Ok((cache, None));
    }
    let name = what.rsplit_once("-node-").map(|(cache, _)| cache);
    let cache = match name {
        Some(name) => cluster.caches().get_opt(name).await?,
        None => None,
    };
    let cache = cache.ok_or_else(|| {
        let place = &cluster.namespace;
        Error::Refused(format!(
            "namespace {place} has no ZimCache and no node {what}"
        ))
    })?;
    Ok((cache, Some(what.to_owned())))
}

/// How many nodes are left, or why the node cannot go.
fn check(cache: &ZimCache, names: &Names, node: Option<&str>) -> std::result::Result<i32, String> {
    let replicas = cache.spec.nodes.replicas;
    let highest = names.pod(replicas - 1);
    if let Some(node) = node {
        let ordinal = names
            .ordinal(node)
            .ok_or(format!("{node} is no node of {}", names.cache))?;
        if ordinal >= replicas {
            return Err(format!(
                "{node} is on its way out already: {replicas} nodes are wanted"
            ));
        }
        if node != highest {
            return Err(format!(
                "only {highest} can go, for it has the highest number; {node} keeps its number. To replace the machine \
                 or the disk of {node}, see docs/kubernetes.md"
            ));
        }
    }
    if cache.spec.paused {
        return Err(format!(
            "{} is paused: set spec.paused to false first",
            names.cache
        ));
    }
    if replicas <= 1 {
        return Err(format!("{highest} is the only node"));
    }
    let copies = cache.spec.replication.factor;
    if replicas <= copies {
        return Err(format!(
            "{replicas} nodes keep {copies} copies of everything, each on a node of its own: none can go"
        ));
    }
    Ok(replicas - 1)
}

/// Waits until the node is out of the status; tells whom it waits for.
async fn wait(caches: &Api<ZimCache>, name: &str, node: &str, left: i32) -> Result<()> {
    let mut told = String::new();
    loop {
        let cache = caches.get(name).await?;
        if cache.spec.nodes.replicas != left {
            let now = cache.spec.nodes.replicas;
            return Err(Error::Refused(format!(
                "somebody else wants {now} nodes now"
            )));
        }
        if is_gone(&cache, node) {
            return output::print(&format!("{node} is gone\n"));
        }
        let news = news(&cache, node);
        if news != told {
            output::tell(&news);
            told = news;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_gone(cache: &ZimCache, node: &str) -> bool {
    let Some(status) = &cache.status else {
        return false;
    };
    let current = status.observed_generation == cache.metadata.generation;
    let is_listed = status.nodes.iter().any(|it| it.name == node);
    current && !is_listed && status.replicas <= cache.spec.nodes.replicas
}

/// What is waited for, as far as it is known.
fn news(cache: &ZimCache, node: &str) -> String {
    let status = cache.status.clone().unwrap_or_default();
    let blocked = status.conditions.iter().find(|condition| {
        condition.type_ == condition::SCALE_DOWN_BLOCKED && condition.status == "True"
    });
    if let Some(blocked) = blocked {
        return format!("blocked: {}", blocked.message);
    }
    let ring = status.ring.unwrap_or_default();
    if !ring.waiting_for.is_empty() {
        return format!("waiting for {}", ring.waiting_for.join(", "));
    }
    format!("waiting for {node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(spec: serde_json::Value, status: serde_json::Value) -> ZimCache {
        serde_json::from_value(json!({
            "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
            "metadata": { "name": "main", "generation": 2 }, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn check_of(spec: serde_json::Value, node: Option<&str>) -> std::result::Result<i32, String> {
        let names = Names::new("main", "zim");
        check(&cache(spec, serde_json::Value::Null), &names, node)
    }

    #[test]
    fn only_the_node_with_the_highest_number_can_go() {
        let four = || json!({ "nodes": { "replicas": 4 } });
        assert_eq!(check_of(four(), None), Ok(3));
        assert_eq!(check_of(four(), Some("main-node-3")), Ok(3));
        let refused = check_of(four(), Some("main-node-1")).unwrap_err();
        assert!(refused.contains("only main-node-3 can go"), "{refused}");
        let refused = check_of(four(), Some("main-node-4")).unwrap_err();
        assert!(refused.contains("on its way out already"), "{refused}");
        let refused = check_of(four(), Some("other-node-3")).unwrap_err();
        assert!(refused.contains("no node of main"), "{refused}");
    }

    #[test]
    fn a_node_that_the_copies_need_stays() {
        let spec = json!({ "nodes": { "replicas": 2 }, "replication": { "factor": 2 } });
        let refused = check_of(spec, None).unwrap_err();
        assert!(refused.contains("none can go"), "{refused}");
        let one = json!({ "nodes": { "replicas": 1 }, "replication": { "factor": 1 } });
        assert!(check_of(one, None).unwrap_err().contains("only node"));
        let paused = json!({ "nodes": { "replicas": 4 }, "paused": true });
        assert!(check_of(paused, None).unwrap_err().contains("paused"));
    }

    #[test]
    fn a_node_is_gone_when_a_status_of_this_spec_does_not_know_it() {
        let spec = || json!({ "nodes": { "replicas": 3 } });
        let node = json!({ "name": "main-node-3", "ordinal": 3, "state": "Draining" });
        let with = json!({ "observedGeneration": 2, "replicas": 4, "nodes": [node] });
        assert!(!is_gone(&cache(spec(), with), "main-node-3"));
        let old = json!({ "observedGeneration": 1, "replicas": 3, "nodes": [] });
        assert!(!is_gone(&cache(spec(), old), "main-node-3"));
        let without = json!({ "observedGeneration": 2, "replicas": 3, "nodes": [] });
        assert!(is_gone(&cache(spec(), without), "main-node-3"));
        let waiting = json!({ "ring": { "epoch": 3, "waitingFor": ["main-node-0"] } });
        let news = news(&cache(spec(), waiting), "main-node-3");
        assert_eq!(news, "waiting for main-node-0");
    }
}
