//! The Deployment of the gateways, and what lets their number follow the load.
//!
//! A gateway that is to go is taken out of the Service first and then finishes what it has begun; during a change there
//! are never fewer than wanted.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        autoscaling::v2::{
            CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
            MetricSpec, MetricTarget, ResourceMetricSource,
        },
        core::v1::{
            Container, ContainerPort, EnvVar, Lifecycle, LifecycleHandler, PodTemplateSpec,
            SleepAction, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Inputs, meta, pinned, pod};
use crate::{
    crd::{AutoscalingSpec, RateLimitSpec},
    names::{ADMIN_PORT, Component, HTTP_PORT, HTTPS_PORT},
};

/// Until every machine knows that a gateway takes no more connections.
const FAREWELL_SECONDS: i64 = 5;
/// How long requests that have begun may take.
const DRAIN: &str = "40s";
/// When it is killed.
const GRACE_SECONDS: i64 = 60;
const TOKENS_FOLDER: &str = "/etc/zimcache/tokens";
const TLS_FOLDER: &str = "/etc/zimcache/tls";
/// The variable with the URL of Redis.
const REDIS: &str = "ZIMCACHE_SERVE__LIMITS__REDIS";
const SIGNING_FOLDER: &str = "/etc/zimcache/signing";
/// Fields of the spec that show in the pods.
const VISIBLE: &[&str] = &[
    "/image",
    "/imagePullPolicy",
    "/imagePullSecrets",
    "/gateway/resources",
    "/gateway/maxConnectionAge",
    "/gateway/ramCache",
    "/nodes/zonesKey",
    "/replication/durability",
    "/replication/zoneAware",
    "/rateLimits",
    "/auth",
    "/tls/secretName",
    "/telemetry",
    "/podTemplate",
];

pub(super) fn build(inputs: &Inputs<'_>) -> Deployment {
    let cache = inputs.cache;
    let live = inputs.gateways.map(|gateways| &gateways.metadata);
    let hash = pinned::hash(&cache.spec, VISIBLE, &[inputs.redis_url]);
    let (template, annotations) = pinned::pin(live, &hash, template(inputs));
    let name = cache.names.of(Component::Gateway);
    let mut metadata = meta(cache, name, Some(Component::Gateway));
    metadata.annotations = Some(annotations.into());
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(inputs)),
            selector: LabelSelector {
                match_labels: Some(cache.names.selector(Component::Gateway)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// How many there are to be. Who scales them by load owns the number: it is only repeated, within the bounds. Leaving it
/// out would make it 1 for a moment.
fn replicas(inputs: &Inputs<'_>) -> i32 {
    let gateway = &inputs.cache.spec.gateway;
    let Some(scaling) = &gateway.autoscaling else {
        return gateway.replicas;
    };
    let live = inputs
        .gateways
        .and_then(|live| live.spec.as_ref()?.replicas);
    let least = scaling.min_replicas;
    live.unwrap_or(least)
        .clamp(least, scaling.max_replicas.max(least))
}

pub(super) fn autoscaler(inputs: &Inputs<'_>) -> Option<HorizontalPodAutoscaler> {
    let cache = inputs.cache;
    let scaling = cache.spec.gateway.autoscaling.as_ref()?;
    let name = cache.names.of(Component::Gateway);
    Some(HorizontalPodAutoscaler {
        metadata: meta(cache, name.clone(), Some(Component::Gateway)),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name,
            },
            min_replicas: Some(scaling.min_replicas),
            max_replicas: scaling.max_replicas,
            metrics: Some(vec![cpu(scaling)]),
            behavior: None,
        }),
        status: None,
    })
}

fn cpu(scaling: &AutoscalingSpec) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(scaling.target_cpu_utilization_percentage),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn template(inputs: &Inputs<'_>) -> PodTemplateSpec {
    let (volumes, own_mounts) = volumes(inputs);
    let mut mounts = pod::mounts();
    mounts.extend(own_mounts);
    let container = Container {
        name: "gateway".to_owned(),
        image: Some(inputs.image().to_owned()),
        image_pull_policy: inputs.cache.spec.image_pull_policy.clone(),
        args: Some(arguments(inputs)),
        env: Some(variables(inputs)),
        ports: Some(ports(inputs)),
        resources: inputs.cache.spec.gateway.resources.clone(),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(mounts),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: FAREWELL_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        startup_probe: Some(pod::probe("/health", 2, 60)),
        liveness_probe: Some(pod::probe("/health", 10, 6)),
        readiness_probe: Some(pod::probe("/ready", 2, 3)),
        ..Container::default()
    };
    pod::template(
        inputs,
        Component::Gateway,
        container,
        volumes,
        GRACE_SECONDS,
    )
}

fn ports(inputs: &Inputs<'_>) -> Vec<ContainerPort> {
    let mut ports = vec![pod::port("http", HTTP_PORT), pod::port("admin", ADMIN_PORT)];
    if inputs.cache.spec.tls.secret_name.is_some() {
        ports.push(pod::port("https", HTTPS_PORT));
    }
    ports
}

fn arguments(inputs: &Inputs<'_>) -> Vec<String> {
    let spec = &inputs.cache.spec;
    let mut arguments = vec![
        "gateway".to_owned(),
        "--bind=0.0.0.0".to_owned(),
        format!("--port={HTTP_PORT}"),
    ];
    arguments.extend(pod::cluster_arguments());
    arguments.extend(pod::log_arguments(inputs));
    arguments.extend([
        format!("--durability={}", spec.replication.durability.as_str()),
        format!("--ram-cache={}", size(&spec.gateway.ram_cache)),
        format!("--max-connection-age={}", spec.gateway.max_connection_age),
        format!("--drain-timeout={DRAIN}"),
        format!("--anonymous={}", spec.auth.anonymous.setting()),
        format!("--tokens={TOKENS_FOLDER}/tokens.toml"),
    ]);
    arguments.extend(limit_arguments(&spec.rate_limits));
    if spec.tls.secret_name.is_some() {
        arguments.extend([
            format!("--tls-cert={TLS_FOLDER}/tls.crt"),
            format!("--tls-key={TLS_FOLDER}/tls.key"),
            format!("--tls-port={HTTPS_PORT}"),
        ]);
    }
    arguments
}

/// Sizes may be written as Kubernetes does, `256Mi`; the program wants `256MiB`.
fn size(text: &str) -> String {
    if text.ends_with('i') {
        return format!("{text}B");
    }
    text.to_owned()
}

fn limit_arguments(limits: &RateLimitSpec) -> Vec<String> {
    let RateLimitSpec {
        global,
        per_address,
        per_token,
        redis: _,
    } = limits;
    let given = [
        ("--limit-global", global),
        ("--limit-per-address", per_address),
        ("--limit-per-token", per_token),
    ];
    let each =
        |(flag, rate): (&str, &Option<String>)| rate.as_ref().map(|rate| format!("{flag}={rate}"));
    given.into_iter().filter_map(each).collect()
}

fn variables(inputs: &Inputs<'_>) -> Vec<EnvVar> {
    let spec = &inputs.cache.spec;
    let mut variables = vec![
        pod::variable_of_pod("POD_NAME", "metadata.name"),
        pod::variable(
            "ZIMCACHE_SERVE__AUTH__SIGNING_KEY_FILE",
            format!("{SIGNING_FOLDER}/key"),
        ),
    ];
    variables.extend(pod::trace_variables(inputs));
    if spec.replication.zone_aware {
        // Kubernetes copies the machine's zone to its pods; where it does not, the variable is empty, which is no zone.
        let field = format!("metadata.labels['{}']", spec.nodes.zones_key);
        variables.push(pod::variable_of_pod(
            "ZIMCACHE_SERVE__CLUSTER__ZONE",
            &field,
        ));
    }
    if let Some(redis) = &spec.rate_limits.redis {
        let url = redis.url.iter();
        variables.extend(url.map(|url| pod::variable(REDIS, url)));
        let secret = redis.existing_secret.iter();
        variables.extend(secret.map(|of| pod::variable_of_secret(REDIS, &of.name, &of.key)));
        let hash = inputs.redis_url.iter();
        variables.extend(hash.map(|hash| pod::variable("REDIS_URL_HASH", *hash)));
    }
    variables
}

fn volumes(inputs: &Inputs<'_>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let spec = &inputs.cache.spec;
    let mut volumes = vec![pod::secret_volume(
        "signing",
        inputs.names().signing(),
        None,
    )];
    let mut mounts = vec![pod::mount("signing", SIGNING_FOLDER, true)];
    if let Some(tokens) = &spec.auth.tokens.existing_secret {
        let item = Some((tokens.key.as_str(), "tokens.toml"));
        volumes.push(pod::secret_volume("tokens", tokens.name.clone(), item));
        mounts.push(pod::mount("tokens", TOKENS_FOLDER, true));
    }
    if let Some(secret) = &spec.tls.secret_name {
        volumes.push(pod::secret_volume("tls", secret.clone(), None));
        mounts.push(pod::mount("tls", TLS_FOLDER, true));
    }
    (volumes, mounts)
}
