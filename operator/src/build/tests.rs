//! Tests of the objects that a cache becomes.

use serde_json::json;

use super::*;
use crate::{
    crd::{AutoscalingSpec, ReclaimPolicy, ZimCacheSpec},
    validate::tests::cache,
};

fn inputs(cache: &Cache) -> Inputs<'_> {
    Inputs {
        cache,
        default_image: "zimcache:1",
        node_pods: 3,
        may_disrupt: true,
        s3_credentials: None,
        redis_url: None,
        node_set: None,
        gateways: None,
    }
}

fn spec(value: Value) -> ZimCacheSpec {
    serde_json::from_value(value).unwrap()
}

fn body<'a>(objects: &'a [Object], kind: &str, name: &str) -> &'a Value {
    let found = objects
        .iter()
        .find(|object| object.resource.kind == kind && object.name == name);
    &found.unwrap_or_else(|| panic!("no {kind} {name}")).body
}

fn container(body: &Value) -> &Value {
    &body["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(body: &Value) -> Vec<&str> {
    let arguments = container(body)["args"].as_array().unwrap();
    arguments
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect()
}

#[test]
fn a_cache_is_made_of_exactly_these_objects() {
    let cache = cache(ZimCacheSpec::default());
    let objects = build(&inputs(&cache));
    let names: Vec<String> = objects
        .iter()
        .map(|object| format!("{} {}", object.resource.kind, object.name))
        .collect();
    let expected = [
        "ServiceAccount main-node",
        "NetworkPolicy main-node",
        "PodDisruptionBudget main-node",
        "ServiceAccount main-gateway",
        "NetworkPolicy main-gateway",
        "PodDisruptionBudget main-gateway",
        "Service main-node",
        "Service main-gateway",
        "StatefulSet main-node",
        "Deployment main-gateway",
    ];
    assert_eq!(names, expected);
    for object in &objects {
        let owner = &object.body["metadata"]["ownerReferences"][0];
        assert_eq!(
            (owner["kind"].as_str(), owner["uid"].as_str()),
            (Some("ZimCache"), Some("11-22"))
        );
        assert_eq!(
            object.body["metadata"]["labels"]["app.kubernetes.io/instance"],
            "main"
        );
        assert!(object.body["apiVersion"].is_string(), "{}", object.name);
        assert!(object.body.get("status").is_none(), "{}", object.name);
    }
}

#[test]
fn pods_keep_to_restricted_security() {
    let cache = cache(ZimCacheSpec::default());
    let objects = build(&inputs(&cache));
    for (kind, name) in [("StatefulSet", "main-node"), ("Deployment", "main-gateway")] {
        let object = body(&objects, kind, name);
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        let security = &container(object)["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        for mount in container(object)["volumeMounts"].as_array().unwrap() {
            assert!(
                mount.get("subPath").is_none(),
                "such a file would never change: {mount}"
            );
        }
    }
}

#[test]
fn nodes_get_their_ring_their_bucket_and_a_store_smaller_than_their_volume() {
    let cache = cache(spec(json!({
        "nodes": {"storage": {"size": "2Gi", "storageClassName": "fast"}},
        "gc": {"retention": "30d"},
        "durableTier": {"s3": {"bucket": "builds", "endpoint": "http://s3:7070", "createBucket": true,
            "existingSecret": {"name": "keys"}}},
    })));
    let objects = build(&Inputs {
        s3_credentials: Some("abc"),
        ..inputs(&cache)
    });
    let set = body(&objects, "StatefulSet", "main-node");
    let arguments = arguments(set);
    for expected in [
        "node",
        "--member=$(POD_NAME)",
        "--ring=/etc/zimcache/ring/ring.json",
        "--listen=0.0.0.0:7400",
        "--admin=0.0.0.0:9090",
        "--peer-ca=/etc/zimcache/peer/ca.crt",
        "--max-size=1843MiB",
        "--retention=30d",
        "--s3-bucket=builds",
        "--s3-endpoint=http://s3:7070",
        "--s3-create-bucket",
    ] {
        assert!(
            arguments.contains(&expected),
            "{expected} is not among {arguments:?}"
        );
    }
    let spec = &set["spec"];
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(spec["updateStrategy"]["type"], "OnDelete");
    let retention = &spec["persistentVolumeClaimRetentionPolicy"];
    assert_eq!(
        (&retention["whenDeleted"], &retention["whenScaled"]),
        (&json!("Retain"), &json!("Retain"))
    );
    let claim = &spec["volumeClaimTemplates"][0]["spec"];
    assert_eq!(
        (
            &claim["storageClassName"],
            &claim["resources"]["requests"]["storage"]
        ),
        (&json!("fast"), &json!("2Gi"))
    );
    let variables = container(set)["env"].as_array().unwrap();
    let key = variables
        .iter()
        .find(|one| one["name"] == "AWS_SECRET_ACCESS_KEY")
        .unwrap();
    assert_eq!(
        key["valueFrom"]["secretKeyRef"],
        json!({"name": "keys", "key": "secret-access-key"})
    );
    assert!(
        variables.iter().any(|one| one["value"] == "abc"),
        "other credentials are other pods"
    );
}

#[test]
fn gateways_are_told_who_may_do_what_and_how_much() {
    let cache = cache(spec(json!({
        "gateway": {"ramCache": "64Mi", "maxConnectionAge": "90s"},
        "auth": {"anonymous": "read-only", "tokens": {"existingSecret": {"name": "hashes", "key": "file"}}},
        "rateLimits": {"perAddress": "10/s burst 100", "redis": {"existingSecret": {"name": "redis"}}},
        "replication": {"durability": "local"},
    })));
    let objects = build(&inputs(&cache));
    let deployment = body(&objects, "Deployment", "main-gateway");
    let arguments = arguments(deployment);
    for expected in [
        "gateway",
        "--port=8080",
        "--ram-cache=64MiB",
        "--max-connection-age=90s",
        "--anonymous=read",
        "--tokens=/etc/zimcache/tokens/tokens.toml",
        "--limit-per-address=10/s burst 100",
        "--durability=local",
    ] {
        assert!(
            arguments.contains(&expected),
            "{expected} is not among {arguments:?}"
        );
    }
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(rolling["maxUnavailable"], 0);
    let volumes = deployment["spec"]["template"]["spec"]["volumes"]
        .as_array()
        .unwrap();
    let tokens = volumes.iter().find(|one| one["name"] == "tokens").unwrap();
    assert_eq!(
        tokens["secret"]["items"],
        json!([{"key": "file", "path": "tokens.toml"}])
    );
    assert_eq!(tokens["secret"]["optional"], true);
}

#[test]
fn traces_are_sent_where_the_spec_says_and_nowhere_else() {
    let sent = |cache: &Cache| {
        let objects = build(&inputs(cache));
        let set = body(&objects, "StatefulSet", "main-node").clone();
        let variables = container(&set)["env"].as_array().unwrap().clone();
        let value = |name: &str| {
            variables
                .iter()
                .find(|one| one["name"] == name)
                .map(|one| one["value"].clone())
        };
        value("ZIMCACHE_SERVE__TELEMETRY__OTLP_ENDPOINT")
    };
    assert_eq!(sent(&cache(ZimCacheSpec::default())), None);
    let traced = cache(spec(
        json!({"telemetry": {"otlpEndpoint": "http://collector:4317"}}),
    ));
    assert_eq!(sent(&traced).unwrap(), "http://collector:4317");
}

#[test]
fn the_service_of_the_gateways_speaks_tls_only_with_a_certificate() {
    let ports = |cache: &Cache| {
        let objects = build(&inputs(cache));
        let service = body(&objects, "Service", "main-gateway").clone();
        assert_eq!(service["spec"]["trafficDistribution"], "PreferClose");
        let ports = service["spec"]["ports"].as_array().unwrap().clone();
        ports
            .iter()
            .map(|port| format!("{} {}", port["name"].as_str().unwrap(), port["port"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(&cache(ZimCacheSpec::default())), ["http 8080"]);
    let tls = cache(spec(json!({"tls": {"secretName": "public"}})));
    assert_eq!(ports(&tls), ["http 8080", "https 8443"]);
}

#[test]
fn what_is_asked_for_is_there_and_what_is_not_is_not() {
    let mut wanted = ZimCacheSpec::default();
    wanted.gateway.autoscaling = Some(AutoscalingSpec::default());
    wanted.gc.schedule = Some("0 3 * * *".to_owned());
    let cache = cache(wanted);
    let objects = build(&inputs(&cache));
    let scaler = body(&objects, "HorizontalPodAutoscaler", "main-gateway");
    assert_eq!(scaler["spec"]["maxReplicas"], 10);
    let job = body(&objects, "CronJob", "main-gc");
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["args"],
        json!(["cache", "gc", "--url", "http://main-gateway:8080"])
    );
}

#[test]
fn the_number_of_gateways_is_the_autoscalers() {
    let mut wanted = ZimCacheSpec::default();
    wanted.gateway.autoscaling = Some(AutoscalingSpec::default());
    let cache = cache(wanted);
    let replicas = |live: Option<i32>| {
        let mut deployment = Deployment::default();
        deployment.spec.get_or_insert_default().replicas = live;
        let objects = build(&Inputs {
            gateways: Some(&deployment),
            ..inputs(&cache)
        });
        body(&objects, "Deployment", "main-gateway")["spec"]["replicas"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(replicas(None), 2);
    assert_eq!(replicas(Some(7)), 7);
    assert_eq!(replicas(Some(40)), 10);
}

#[test]
fn another_operator_with_another_default_restarts_nothing() {
    let cache = cache(ZimCacheSpec::default());
    let objects = build(&inputs(&cache));
    let mut live: StatefulSet =
        serde_json::from_value(body(&objects, "StatefulSet", "main-node").clone()).unwrap();
    let template =
        |objects: &[Object]| body(objects, "StatefulSet", "main-node")["spec"]["template"].clone();
    let later = Inputs {
        default_image: "zimcache:2",
        node_set: Some(&live),
        ..inputs(&cache)
    };
    assert_eq!(template(&build(&later)), template(&objects));
    // Once people change what pods show, they are made as they are made now.
    let mut changed = cache.clone();
    changed.spec.telemetry.log_level = "debug".to_owned();
    let later = Inputs {
        cache: &changed,
        default_image: "zimcache:2",
        node_set: Some(&live),
        ..inputs(&cache)
    };
    let image = &template(&build(&later))["spec"]["containers"][0]["image"];
    assert_eq!(image, "zimcache:2");
    // What pods do not show changes nothing.
    let mut scaled = cache.clone();
    scaled.spec.nodes.storage.reclaim = ReclaimPolicy::Delete;
    scaled.spec.gateway.replicas = 9;
    let later = Inputs {
        cache: &scaled,
        node_set: Some(&live),
        ..inputs(&cache)
    };
    assert_eq!(template(&build(&later)), template(&objects));
    live.metadata.annotations = None;
    let later = Inputs {
        default_image: "zimcache:2",
        node_set: Some(&live),
        ..inputs(&cache)
    };
    assert_ne!(
        template(&build(&later)),
        template(&objects),
        "nothing is remembered"
    );
}

#[test]
fn no_node_may_be_taken_away_while_one_is_not_in_full_service() {
    let cache = cache(ZimCacheSpec::default());
    for (may_disrupt, expected) in [(true, 1), (false, 0)] {
        let objects = build(&Inputs {
            may_disrupt,
            ..inputs(&cache)
        });
        let budget = body(&objects, "PodDisruptionBudget", "main-node");
        assert_eq!(budget["spec"]["maxUnavailable"], expected);
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
        assert_eq!(
            body(&objects, "PodDisruptionBudget", "main-gateway")["spec"]["minAvailable"],
            1
        );
    }
}

#[test]
fn nodes_are_reached_by_their_own_cache_alone() {
    let cache = cache(ZimCacheSpec::default());
    let objects = build(&inputs(&cache));
    let rule = &body(&objects, "NetworkPolicy", "main-node")["spec"]["ingress"][0];
    assert_eq!(rule["ports"][0]["port"], 7400);
    for peer in rule["from"].as_array().unwrap() {
        assert_eq!(
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"],
            "main"
        );
        assert!(peer.get("namespaceSelector").is_none());
    }
}

#[test]
fn a_change_that_a_paused_cache_does_not_follow_is_seen() {
    let cache = cache(ZimCacheSpec::default());
    let objects = build(&inputs(&cache));
    let set: StatefulSet =
        serde_json::from_value(body(&objects, "StatefulSet", "main-node").clone()).unwrap();
    let deployment: Deployment =
        serde_json::from_value(body(&objects, "Deployment", "main-gateway").clone()).unwrap();
    assert!(are_as_built(&objects, Some(&set), Some(&deployment)));
    assert!(!are_as_built(&objects, None, Some(&deployment)));
    let mut changed = cache.clone();
    changed.spec.gateway.replicas = 5;
    let objects = build(&inputs(&changed));
    assert!(!are_as_built(&objects, Some(&set), Some(&deployment)));
}
