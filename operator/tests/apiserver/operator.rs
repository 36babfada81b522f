//! The operator as a process on a real API server: what it makes, what it puts back, and what does not stop it.
//!
//! There are no controllers and no kubelets here, so no pod ever comes; what follows from pods is tried end to end.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use zimcache_operator::crd::ZimCache;

use crate::server::{ApiServer, eventually};

/// Generous, for machines with other work; nothing waits longer than it has to.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running operator; it ends with the guard.
struct Operator {
    process: Child,
    log: String,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            println!("the operator said:\n{log}");
        }
    }
}

fn operator(server: &ApiServer, me: &str) -> Operator {
    let log = format!("{}.{me}.log", server.kubeconfig());
    let file = fs::File::create(&log).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_zim-operator"))
        .args(["run", "--listen=127.0.0.1:0", "--lease=operator"])
        .arg("--default-image=localhost/zimcache:test")
        .env("KUBECONFIG", server.kubeconfig())
        .env("POD_NAME", me)
        .env("POD_NAMESPACE", "default")
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Operator { process, log }
}

async fn make(client: &Client, namespace: &str, name: &str, spec: Value) -> ZimCache {
    let api: Api<ZimCache> = Api::namespaced(client.clone(), namespace);
    let cache: ZimCache = serde_json::from_value(json!({
        "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
        "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap();
    api.create(&PostParams::default(), &cache).await.unwrap()
}

/// The object, as soon as it is there and as it should be.
async fn there<K>(api: &Api<K>, name: &str, is_so: impl Fn(&K) -> bool) -> K
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let what = format!("{name} as it should be");
    eventually(&what, PATIENCE, || async {
        match api.get_opt(name).await {
            Ok(Some(found)) if is_so(&found) => Ok(found),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The messages of all conditions of a cache.
async fn said(api: &Api<ZimCache>, name: &str) -> String {
    let status = api.get(name).await.unwrap().status.unwrap_or_default();
    let said = status.conditions.iter();
    let said = said.map(|it| format!("{}={} {}", it.type_, it.status, it.message));
    said.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_cache_gets_what_it_needs_and_what_others_change_of_it_is_put_back() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("objects").await;
    let client = server.client();
    let _operator = operator(&server, "operator-0");
    let cache = make(&client, &namespace, "main", json!({})).await;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &namespace);
    let set = there(&sets, "main-node", |_| true).await;
    assert_eq!(set.owner_references()[0].uid, cache.uid().unwrap());
    let spec = set.spec.unwrap();
    assert_eq!(spec.pod_management_policy.as_deref(), Some("Parallel"));
    let gateway = there(&services, "main-gateway", |_| true).await;
    let port = |service: &Service| service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port;
    assert_eq!(port(&gateway), 8080);
    let headless = there(&services, "main-node", |_| true).await.spec.unwrap();
    assert_eq!(headless.cluster_ip.as_deref(), Some("None"));
    assert_eq!(headless.publish_not_ready_addresses, Some(true));
    there(
        &Api::<Deployment>::namespaced(client.clone(), &namespace),
        "main-gateway",
        |_| true,
    )
    .await;
    there(&budgets, "main-node", |_| true).await;
    for name in ["main-ca", "main-peer-node", "main-peer-gateway"] {
        there(
            &Api::<Secret>::namespaced(client.clone(), &namespace),
            name,
            |_| true,
        )
        .await;
    }
    for name in ["main-node", "main-gateway"] {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        let account = there(&api, name, |_| true).await;
        assert_eq!(account.automount_service_account_token, Some(false));
    }
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    assert!(
        !policies
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let edit = Patch::Merge(json!({
        "metadata": { "labels": { "mine": "too" } },
        "spec": { "ports": [{ "name": "http", "port": 9999 }] },
    }));
    services
        .patch("main-gateway", &PatchParams::apply("a-person"), &edit)
        .await
        .unwrap();
    let back = there(&services, "main-gateway", |service| port(service) == 8080).await;
    assert_eq!(back.labels().get("mine").map(String::as_str), Some("too"));
    let uid = budgets.get("main-node").await.unwrap().uid();
    budgets
        .delete("main-node", &DeleteParams::default())
        .await
        .unwrap();
    there(&budgets, "main-node", |budget| budget.uid() != uid).await;
}

#[tokio::test]
async fn a_missing_secret_is_told_and_healing_it_needs_no_more_than_the_secret() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("missing").await;
    let client = server.client();
    let _operator = operator(&server, "operator-0");
    let spec = json!({ "auth": { "tokens": { "existingSecret": { "name": "of-the-team" } } } });
    make(&client, &namespace, "main", spec).await;
    let api: Api<ZimCache> = Api::namespaced(client.clone(), &namespace);
    let complains = |expected: bool| {
        let api = api.clone();
        move || {
            let api = api.clone();
            async move {
                let said = said(&api, "main").await;
                let is_so = said.contains("of-the-team") == expected && !said.is_empty();
                if is_so { Ok(()) } else { Err(said) }
            }
        }
    };
    eventually("a complaint about the Secret", PATIENCE, complains(true)).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret: Secret = serde_json::from_value(json!({
        "metadata": { "name": "of-the-team" }, "stringData": { "tokens.toml": "# nobody yet\n" },
    }))
    .unwrap();
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    eventually("no complaint any more", PATIENCE, complains(false)).await;
}

/// The definition without its schema, so that the API server takes anything.
async fn forget_the_schema(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "zimcaches.zimcache.dev";
    let mut definition = api.get(name).await.unwrap();
    for version in &mut definition.spec.versions {
        version.schema = Some(
            serde_json::from_value(json!({ "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true } }))
            .unwrap(),
        );
    }
    api.replace(name, &PostParams::default(), &definition)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_object_that_cannot_be_read_does_not_stop_the_others() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("broken").await;
    let client = server.client();
    forget_the_schema(&client).await;
    let resource = kube::api::ApiResource::erase::<ZimCache>(&());
    let raw: Api<kube::api::DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &resource);
    // Before the schema is forgotten everywhere, the object is refused. A number of replicas that is none always is.
    eventually("a broken object", PATIENCE, || async {
        let broken = json!({
            "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
            "metadata": { "name": "broken" }, "spec": { "nodes": { "storage": "three" } },
        });
        let broken = serde_json::from_value(broken).unwrap();
        let made = raw.create(&PostParams::default(), &broken).await;
        made.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let _operator = operator(&server, "operator-0");
    make(&client, &namespace, "main", json!({})).await;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    there(&sets, "main-node", |_| true).await;
    assert!(sets.get_opt("broken-node").await.unwrap().is_none());
}

#[tokio::test]
async fn a_second_operator_takes_over_when_the_first_is_killed() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("takeover").await;
    let client = server.client();
    let first = operator(&server, "operator-0");
    make(&client, &namespace, "main", json!({})).await;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    there(&sets, "main-node", |_| true).await;
    let _second = operator(&server, "operator-1");
    drop(first);
    make(&client, &namespace, "later", json!({})).await;
    there(&sets, "later-node", |_| true).await;
}
