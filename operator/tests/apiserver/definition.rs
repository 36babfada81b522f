//! The definition of ZimCache: what is refused, with which words, and what is filled in.

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use zimcache_operator::crd::ZimCache;

use crate::server::ApiServer;

fn cache(name: &str, spec: &Value) -> ZimCache {
    serde_json::from_value(json!({
        "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
        "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

/// A raw apply, so that fields which the types do not know get there too.
async fn apply(api: &Api<ZimCache>, name: &str, spec: &Value) -> Result<ZimCache, String> {
    let object = json!({
        "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
        "metadata": { "name": name }, "spec": spec,
    });
    let mut params = PatchParams::apply("a-person").force();
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let applied = api.patch(name, &params, &Patch::Apply(&object)).await;
    applied.map_err(|error| error.to_string())
}

/// A spec that is refused when an object is made, and what is said.
fn unusable() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({ "nodes": { "replicas": 1 } }),
            "replication.factor must not be more than nodes.replicas",
        ),
        (
            json!({ "replication": { "durability": "bucket" } }),
            "durability: bucket needs a bucket; write durableTier.s3 too",
        ),
        (
            json!({ "nodes": { "storage": { "size": "much" } } }),
            "write a size such as 100Gi",
        ),
        (
            json!({ "nodes": { "storage": { "size": "1Mi" } } }),
            "at least 256Mi",
        ),
        (
            json!({ "nodes": { "replicas": 0 } }),
            "should be greater than or equal to 1",
        ),
        (
            json!({ "gateway": { "autoscaling": { "minReplicas": 5, "maxReplicas": 2 } } }),
            "minReplicas must not be more than maxReplicas",
        ),
        (
            json!({ "rateLimits": { "redis": {} } }),
            "write either url, or existingSecret",
        ),
        (
            json!({ "tls": { "internal": "CertManager" } }),
            "CertManager needs tls.issuerRef",
        ),
        (
            json!({ "nodes": { "replica": 3 } }),
            "field not declared in schema",
        ),
        (
            json!({ "auth": { "anonymous": "everything" } }),
            "Unsupported value",
        ),
    ]
}

/// A change that is refused: the spec before, the one after, and what is said.
fn forbidden() -> Vec<(Value, Value, &'static str)> {
    let s3 = |bucket: &str| json!({ "s3": { "bucket": bucket } });
    vec![
        (
            json!({ "nodes": { "storage": { "size": "2Gi" } } }),
            json!({ "nodes": { "storage": { "size": "1Gi" } } }),
            "nodes.storage.size can only grow",
        ),
        (
            json!({ "nodes": { "storage": { "storageClassName": "fast" } } }),
            json!({ "nodes": { "storage": { "storageClassName": "slow" } } }),
            "storageClassName cannot be changed",
        ),
        (
            json!({ "replication": { "factor": 2 } }),
            json!({ "replication": { "factor": 3 } }),
            "replication.factor cannot be changed",
        ),
        (
            json!({ "durableTier": s3("first") }),
            json!({ "durableTier": s3("second") }),
            "bucket and prefix cannot be changed",
        ),
        (
            json!({ "durableTier": s3("first") }),
            json!({}),
            "durableTier cannot be taken away",
        ),
    ]
}

#[tokio::test]
async fn specs_are_filled_in_or_refused_with_a_sentence_that_says_what_to_write() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("definition").await;
    let api: Api<ZimCache> = Api::namespaced(server.client(), &namespace);
    for (spec, expected) in unusable() {
        let refused = apply(&api, "refused", &spec).await;
        let said = refused.expect_err(&format!("{spec} was taken"));
        assert!(said.contains(expected), "{spec}: {said}");
    }
    for (number, (before, after, expected)) in forbidden().into_iter().enumerate() {
        let name = format!("changed-{number}");
        apply(&api, &name, &before).await.unwrap();
        let refused = apply(&api, &name, &after).await;
        let said = refused.expect_err(&format!("{after} was taken after {before}"));
        assert!(said.contains(expected), "{after} after {before}: {said}");
    }
    let long = "a".repeat(41);
    let said = apply(&api, &long, &json!({})).await.unwrap_err();
    assert!(said.contains("at most 40"), "{said}");
    let made = apply(&api, "main", &json!({})).await.unwrap();
    assert_eq!(
        (made.spec.nodes.replicas, made.spec.gateway.replicas),
        (3, 2)
    );
    assert_eq!(made.spec.replication.factor, 2);
}

#[tokio::test]
async fn a_cache_is_scaled_by_its_scale_subresource_and_status_is_apart_from_spec() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("scale").await;
    let api: Api<ZimCache> = Api::namespaced(server.client(), &namespace);
    let mut made = cache("main", &json!({}));
    made.status = None;
    let made = api.create(&PostParams::default(), &made).await.unwrap();
    let scale = Patch::Merge(json!({ "spec": { "replicas": 5 } }));
    api.patch_scale("main", &PatchParams::default(), &scale)
        .await
        .unwrap();
    let scaled = api.get("main").await.unwrap();
    assert_eq!(scaled.spec.nodes.replicas, 5);
    assert_eq!(scaled.metadata.generation, Some(2));

    let status = json!({
        "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
        "status": { "replicas": 4, "selector": "a=b" },
    });
    let params = PatchParams::apply("status").force();
    api.patch_status("main", &params, &Patch::Apply(&status))
        .await
        .unwrap();
    let scale = api.get_scale("main").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    let seen = scale.status.unwrap();
    assert_eq!((seen.replicas, seen.selector.as_deref()), (4, Some("a=b")));
    let after = api.get("main").await.unwrap();
    assert_eq!(
        after.metadata.generation,
        Some(2),
        "a status is no new spec"
    );
    assert_eq!(after.metadata.uid, made.metadata.uid);
}
