//! Volumes that grow and volumes that are lost, on an API server where the test plays storage and machines.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{
    Resource,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use zimcache_operator::storage::{self, Growth, Of, Template, lost::Verdict};
use zimcache_types::{Clock as _, SystemClock};

use crate::server::ApiServer;

fn of(namespace: &str) -> Of {
    Of {
        namespace: namespace.to_owned(),
        set: "main-node".to_owned(),
        selector: "app=main".to_owned(),
        field_manager: "zim-operator".to_owned(),
        owner: OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            name: namespace.to_owned(),
            uid: "0".to_owned(),
            ..OwnerReference::default()
        },
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// A claim of a node that is bound to `pv-<pod>` with this size, as storage would leave it.
async fn bound_claim(client: &Client, namespace: &str, pod: &str, size: &str) {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let name = format!("data-{pod}");
    create(
        &api,
        json!({
            "metadata": { "name": name },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": format!("pv-{pod}"),
                "resources": { "requests": { "storage": size } } },
        }),
    )
    .await;
    give(&api, &name, size).await;
}

async fn give(api: &Api<PersistentVolumeClaim>, name: &str, size: &str) {
    let status = json!({ "status": { "phase": "Bound", "capacity": { "storage": size } } });
    let params = PatchParams::default();
    api.patch_status(name, &params, &Patch::Merge(status))
        .await
        .unwrap();
}

fn set(size: &str) -> Value {
    json!({
        "metadata": { "name": "main-node" },
        "spec": {
            "replicas": 2, "serviceName": "main-node", "selector": { "matchLabels": { "app": "main" } },
            "template": { "metadata": { "labels": { "app": "main" } },
                "spec": { "containers": [{ "name": "node", "image": "none" }] } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                "resources": { "requests": { "storage": size } } } }],
        },
    })
}

#[tokio::test]
async fn volumes_grow_claims_first_and_a_set_that_is_deleted_is_made_again_after_a_crash() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("growth").await;
    let client = server.client();
    let classes: Api<StorageClass> = Api::all(client.clone());
    create(
        &classes,
        json!({ "metadata": { "name": "fast" }, "provisioner": "none", "allowVolumeExpansion": false }),
    )
    .await;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let before = create(&sets, set("1Gi")).await;
    for pod in ["main-node-0", "main-node-1"] {
        bound_claim(&client, &namespace, pod, "1Gi").await;
    }
    bound_claim(&client, &namespace, "other-node-0", "1Gi").await;
    let (of, size) = (of(&namespace), Quantity("2Gi".to_owned()));
    let prepare = || storage::prepare(&client, &of, &size);

    let refused = prepare().await.unwrap();
    assert_eq!(
        refused.growth,
        Growth::Refused {
            class: "fast".to_owned()
        }
    );
    assert_eq!(refused.template, Template::Keep(Quantity("1Gi".to_owned())));
    let allow = Patch::Merge(json!({ "allowVolumeExpansion": true }));
    classes
        .patch("fast", &PatchParams::default(), &allow)
        .await
        .unwrap();

    let patched = prepare().await.unwrap();
    assert!(matches!(patched.growth, Growth::Patch { claims } if claims.len() == 2));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let other = claims.get("data-other-node-0").await.unwrap();
    let requests = other.spec.unwrap().resources.unwrap().requests.unwrap();
    assert_eq!(
        requests["storage"].0, "1Gi",
        "a claim of somebody else grew"
    );

    let recreated = prepare().await.unwrap();
    assert_eq!(
        (recreated.growth, recreated.template),
        (Growth::Recreate, Template::Hold)
    );
    // The deletion waits for who leaves the pods alone; until then the set must not be touched.
    assert_eq!(prepare().await.unwrap().template, Template::Hold);
    let kept: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    assert!(kept.get_opt("main-node-recreate").await.unwrap().is_some());
    let orphaned = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    sets.patch("main-node", &PatchParams::default(), &orphaned)
        .await
        .unwrap();
    assert!(
        sets.get_opt("main-node").await.unwrap().is_none(),
        "the moment of a crash"
    );

    assert_eq!(prepare().await.unwrap().template, Template::Hold);
    let after = sets.get("main-node").await.unwrap();
    assert_ne!(before.metadata.uid, after.metadata.uid);
    assert_eq!(after.spec.unwrap().replicas, Some(2));
    assert!(kept.get_opt("main-node-recreate").await.unwrap().is_none());
    let waiting = prepare().await.unwrap();
    assert!(matches!(waiting.growth, Growth::Waiting { claims } if claims.len() == 2));
    assert_eq!(waiting.template, Template::Wanted);
    for pod in ["main-node-0", "main-node-1"] {
        give(&claims, &format!("data-{pod}"), "2Gi").await;
    }
    assert_eq!(prepare().await.unwrap().growth, Growth::Settled);
}

/// A machine, a volume on it, and a node's pod that wants it.
async fn seat(client: &Client, namespace: &str, number: usize) {
    let (host, pod) = (format!("m{number}"), format!("main-node-{number}"));
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = json!({ "kubernetes.io/hostname": host });
    create(
        &nodes,
        json!({ "metadata": { "name": host, "labels": labels } }),
    )
    .await;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let terms = json!([{ "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": [host] } ] }]);
    create(
        &volumes,
        json!({
            "metadata": { "name": format!("pv-{pod}") },
            "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "fast",
                "local": { "path": "/none" }, "nodeAffinity": { "required": { "nodeSelectorTerms": terms } } },
        }),
    )
    .await;
    bound_claim(client, namespace, &pod, "1Gi").await;
    waiting_pod(client, namespace, &pod).await;
}

/// A pod that has found no machine for an hour.
async fn waiting_pod(client: &Client, namespace: &str, pod: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    create(
        &pods,
        json!({
            "metadata": { "name": pod, "labels": { "app": "main" } },
            "spec": { "containers": [{ "name": "node", "image": "none" }] },
        }),
    )
    .await;
    let status = json!({ "status": { "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
          "lastTransitionTime": "2026-01-01T00:00:00Z" } ] } });
    let params = PatchParams::default();
    pods.patch_status(pod, &params, &Patch::Strategic(status))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_volume_of_a_machine_that_is_gone_is_given_up_claim_first_and_one_at_a_time() {
    let Some(server) = ApiServer::start().await else {
        return;
    };
    let namespace = server.namespace("lost").await;
    let client = server.client();
    for number in 0..3 {
        seat(&client, &namespace, number).await;
    }
    let of = of(&namespace);
    let declared = BTreeSet::new();
    let look = || storage::replace_lost(&client, &of, &declared, SystemClock.now());
    assert_eq!(
        look().await.unwrap(),
        Verdict::Sound,
        "all machines are there"
    );
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.delete("m1", &DeleteParams::default()).await.unwrap();
    nodes.delete("m2", &DeleteParams::default()).await.unwrap();
    crate::server::eventually("the cache knows", Duration::from_secs(30), || async {
        match look().await.unwrap() {
            Verdict::TooMany { lost, of: 3 } if lost.len() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    assert_eq!(
        claims
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        3
    );

    create(
        &nodes,
        json!({ "metadata": { "name": "m2", "labels": { "kubernetes.io/hostname": "m2" } } }),
    )
    .await;
    let expected = Verdict::Replace {
        pod: "main-node-1".to_owned(),
        claim: "data-main-node-1".to_owned(),
    };
    assert_eq!(look().await.unwrap(), expected);
    let claim = claims.get_opt("data-main-node-1").await.unwrap();
    let is_going = claim.is_none_or(|claim| claim.metadata.deletion_timestamp.is_some());
    assert!(is_going, "the claim is still there");
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    assert!(pods.get_opt("main-node-1").await.unwrap().is_none());
    assert!(pods.get_opt("main-node-0").await.unwrap().is_some());
}
