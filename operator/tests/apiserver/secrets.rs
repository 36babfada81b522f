//! Certificates in real Secrets: who owns which field, and what becomes of what others write there.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use zimcache_operator::{
    certificates::{self, FIELD_MANAGER, Of, Policy, Step},
    crd::ZimCache,
    names::{Component, Names},
};
use zimcache_types::{Clock as _, SystemClock};

use crate::server::ApiServer;

/// A cache, and what its certificates need to know of it.
async fn made(server: &ApiServer, namespace: &str) -> Of {
    let api: Api<ZimCache> = Api::namespaced(server.client(), namespace);
    let cache: ZimCache = serde_json::from_value(json!({
        "apiVersion": "zimcache.dev/v1alpha1", "kind": "ZimCache",
        "metadata": { "name": "main" }, "spec": {},
    }))
    .unwrap();
    let cache = api.create(&PostParams::default(), &cache).await.unwrap();
    Of {
        names: Names::new("main", namespace),
        labels: Names::new("main", namespace).labels(None),
        owner: OwnerReference {
            api_version: "zimcache.dev/v1alpha1".to_owned(),
            kind: "ZimCache".to_owned(),
            name: "main".to_owned(),
            uid: cache.metadata.uid.unwrap(),
            controller: Some(true),
            block_owner_deletion: None,
        },
    }
}

#[tokio::test]
async fn what_others_write_into_the_secrets_is_put_right_and_what_is_right_is_not_written() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("secrets").await;
    let (client, of) = (server.client(), made(&server, &namespace).await);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let policy = Policy {
        settle: Duration::ZERO,
        ..Policy::default()
    };
    let keep = |word: Option<&str>| {
        let (client, of, word) = (client.clone(), of.clone(), word.map(str::to_owned));
        async move {
            let now = SystemClock.now();
            certificates::keep(&client, &of, word, &policy, now)
                .await
                .unwrap()
        }
    };
    assert_eq!(keep(None).await.steps.len(), 3);
    let name = of.names.peer(Component::Node);
    let before = secrets.get(&name).await.unwrap();
    assert!(keep(None).await.steps.is_empty());
    let after = secrets.get(&name).await.unwrap();
    assert_eq!(
        before.metadata.resource_version,
        after.metadata.resource_version
    );
    let managers = after.metadata.managed_fields.unwrap();
    let managers: Vec<_> = managers.into_iter().filter_map(|it| it.manager).collect();
    assert_eq!(managers, [FIELD_MANAGER]);

    // `AAAA` is no certificate.
    let edit = Patch::Merge(
        json!({ "data": { "tls.crt": "AAAA" }, "metadata": { "labels": { "mine": "too" } } }),
    );
    secrets
        .patch(&name, &PatchParams::apply("a-person"), &edit)
        .await
        .unwrap();
    assert_eq!(keep(None).await.steps, [Step::Issued(Component::Node)]);
    let healed = secrets.get(&name).await.unwrap();
    assert_ne!(healed.data.unwrap()["tls.crt"].0, b"\0\0\0");
    assert_eq!(
        healed.metadata.labels.unwrap()["mine"],
        "too",
        "labels of others stay"
    );

    secrets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(keep(None).await.steps, [Step::Issued(Component::Node)]);

    assert_eq!(keep(Some("1")).await.steps, [Step::Introduced]);
    let authority = secrets.get(&of.names.authority()).await.unwrap();
    assert!(authority.data.unwrap().contains_key("next.key"));
    assert_eq!(keep(Some("1")).await.steps[0], Step::Promoted);
    let authority = secrets
        .get(&of.names.authority())
        .await
        .unwrap()
        .data
        .unwrap();
    assert!(
        !authority.contains_key("next.key"),
        "an applied field that is left out is gone"
    );
    assert!(authority.contains_key("former.crt"));
    assert_eq!(keep(Some("1")).await.steps, [Step::Dropped]);
    assert!(keep(Some("1")).await.steps.is_empty());
}

#[tokio::test]
async fn without_cert_manager_asking_for_it_is_a_clear_error() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("secrets").await;
    let of = made(&server, &namespace).await;
    let issuer = serde_json::from_value(json!({ "name": "own" })).unwrap();
    let client = server.client();
    let policy = Policy::default();
    let asked = certificates::cert_manager::keep(&client, &of, &issuer, &policy).await;
    let error = asked.unwrap_err();
    assert_eq!(error.kind(), "NoCertManager");
}
