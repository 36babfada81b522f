//! The StatefulSet of the nodes.
//!
//! All pods start at once, as a node needs the others to know what it missed. It replaces no pod by itself: the operator
//! does, one after the other ([`crate::rollout`]). Volumes outlive pods, the set and the cache.

use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{
            Container, EnvVar, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec,
            VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};

use super::{Inputs, meta, pinned, pod};
use crate::{
    crd::S3Spec,
    names::{ADMIN_PORT, Component, DATA, NODE_PORT},
    validate::Cache,
};

/// Where the volume is mounted. The store is in a folder below: the root of a file system is not ours alone.
const VOLUME: &str = "/var/lib/zimcache";
/// How long a node that stops may go on uploading. Short, as it is missed meanwhile: what is left is on its disk, and one
/// that leaves for good has handed over everything before.
const DRAIN: &str = "5s";
/// When it is killed.
const GRACE_SECONDS: i64 = 60;
/// How long a node may take to read its index: ten seconds each.
const STARTS: i32 = 360;
/// Fields of the spec that show in the pods.
const VISIBLE: &[&str] = &[
    "/image",
    "/imagePullPolicy",
    "/imagePullSecrets",
    "/nodes/resources",
    "/nodes/storage/size",
    "/nodes/zonesKey",
    "/durableTier",
    "/gc/retention",
    "/telemetry",
    "/podTemplate",
];

pub(super) fn build(inputs: &Inputs<'_>) -> StatefulSet {
    let cache = inputs.cache;
    let live = inputs.node_set.map(|set| &set.metadata);
    let hash = pinned::hash(&cache.spec, VISIBLE, &[inputs.s3_credentials]);
    let (template, annotations) = pinned::pin(live, &hash, template(inputs));
    let mut metadata = meta(
        cache,
        cache.names.of(Component::Node),
        Some(Component::Node),
    );
    metadata.annotations = Some(annotations.into());
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(inputs.node_pods),
            service_name: Some(cache.names.of(Component::Node)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".to_owned()),
                    when_scaled: Some("Retain".to_owned()),
                },
            ),
            selector: LabelSelector {
                match_labels: Some(cache.names.selector(Component::Node)),
                ..LabelSelector::default()
            },
            template,
            volume_claim_templates: Some(vec![claim(inputs)]),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

/// The claim of each node. Its size cannot be changed on a set that exists: growing volumes is a matter of its own.
fn claim(inputs: &Inputs<'_>) -> PersistentVolumeClaim {
    let storage = &inputs.cache.spec.nodes.storage;
    let size = live_size(inputs).unwrap_or_else(|| Quantity(storage.size.clone()));
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(DATA.to_owned()),
            labels: Some(inputs.names().labels(Some(Component::Node))),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn live_size(inputs: &Inputs<'_>) -> Option<Quantity> {
    let claims = inputs
        .node_set?
        .spec
        .as_ref()?
        .volume_claim_templates
        .as_ref()?;
    let resources = claims.first()?.spec.as_ref()?.resources.as_ref()?;
    resources.requests.as_ref()?.get("storage").cloned()
}

fn template(inputs: &Inputs<'_>) -> PodTemplateSpec {
    let mut mounts = pod::mounts();
    mounts.push(pod::mount(DATA, VOLUME, false));
    let container = Container {
        name: "node".to_owned(),
        image: Some(inputs.image().to_owned()),
        image_pull_policy: inputs.cache.spec.image_pull_policy.clone(),
        args: Some(arguments(inputs)),
        env: Some(variables(inputs)),
        ports: Some(vec![
            pod::port("peer", NODE_PORT),
            pod::port("admin", ADMIN_PORT),
        ]),
        resources: inputs.cache.spec.nodes.resources.clone(),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(mounts),
        startup_probe: Some(pod::probe("/health", 10, STARTS)),
        liveness_probe: Some(pod::probe("/health", 10, 6)),
        readiness_probe: Some(pod::probe("/ready", 5, 3)),
        ..Container::default()
    };
    pod::template(
        inputs,
        Component::Node,
        container,
        Vec::new(),
        GRACE_SECONDS,
    )
}

fn arguments(inputs: &Inputs<'_>) -> Vec<String> {
    let spec = &inputs.cache.spec;
    let mut arguments = vec!["node".to_owned(), "--member=$(POD_NAME)".to_owned()];
    arguments.extend(pod::cluster_arguments());
    arguments.extend(pod::log_arguments(inputs));
    let store_bytes = Cache::store_bytes(inputs.cache.volume_bytes);
    arguments.extend([
        format!("--listen=0.0.0.0:{NODE_PORT}"),
        format!("--storage={VOLUME}/store"),
        format!("--max-size={}MiB", store_bytes >> 20),
    ]);
    let retention = spec.gc.retention.iter();
    arguments.extend(retention.map(|retention| format!("--retention={retention}")));
    if let Some(tier) = &spec.durable_tier {
        arguments.extend(bucket_arguments(&tier.s3));
    }
    arguments
}

fn bucket_arguments(s3: &S3Spec) -> Vec<String> {
    let mut arguments = vec![format!("--s3-bucket={}", s3.bucket)];
    let mut add = |flag: &str, value: Option<&String>| {
        arguments.extend(value.map(|value| format!("{flag}={value}")));
    };
    add("--s3-region", s3.region.as_ref());
    add("--s3-endpoint", s3.endpoint.as_ref());
    add(
        "--s3-prefix",
        Some(&s3.prefix).filter(|prefix| !prefix.is_empty()),
    );
    add("--s3-ttl", s3.ttl.as_ref());
    add(
        "--s3-path-style",
        s3.path_style.map(|on| on.to_string()).as_ref(),
    );
    if s3.create_bucket {
        arguments.push("--s3-create-bucket".to_owned());
    }
    arguments
}

fn variables(inputs: &Inputs<'_>) -> Vec<EnvVar> {
    let mut variables = vec![
        pod::variable_of_pod("POD_NAME", "metadata.name"),
        pod::variable("ZIMCACHE_SERVE__GATEWAY__DRAIN_TIMEOUT", DRAIN),
    ];
    variables.extend(pod::trace_variables(inputs));
    let tier = inputs.cache.spec.durable_tier.as_ref();
    if let Some(secret) = tier.and_then(|tier| tier.s3.existing_secret.as_ref()) {
        let of = |name, key: &str| pod::variable_of_secret(name, &secret.name, key);
        variables.push(of("AWS_ACCESS_KEY_ID", &secret.access_key_id_key));
        variables.push(of("AWS_SECRET_ACCESS_KEY", &secret.secret_access_key_key));
    }
    // So that other credentials are other pods: a process does not see its variables change.
    let hash = inputs.s3_credentials.iter();
    variables.extend(hash.map(|hash| pod::variable("S3_CREDENTIALS_HASH", *hash)));
    variables
}
