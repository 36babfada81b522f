//! What the pods of gateways and nodes have in common: security, certificates, ring, probes, where they run.
//!
//! Restricted pod security: no root, no writable root file system, no capabilities.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort,
        EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
        PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
        SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext,
        TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::Inputs;
use crate::names::{ADMIN_PORT, Component, RING_KEY};

/// User and group of the image.
const USER: i64 = 65532;
/// Where the ring is found.
const RING_FOLDER: &str = "/etc/zimcache/ring";
/// Where the certificates between gateways and nodes are found.
const PEER_FOLDER: &str = "/etc/zimcache/peer";

/// A pod of this component around its container and the volumes of its own.
pub(super) fn template(
    inputs: &Inputs<'_>,
    component: Component,
    container: Container,
    volumes: Vec<Volume>,
    grace_seconds: i64,
) -> PodTemplateSpec {
    let names = inputs.names();
    let added = &inputs.cache.spec.pod_template;
    let mut labels = added.labels.clone();
    labels.extend(names.labels(Some(component)));
    let mut all = vec![
        config_map_volume("ring", names.ring()),
        secret_volume("peer", names.peer(component), None),
        Volume {
            name: "tmp".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
    ];
    all.extend(volumes);
    let spec = PodSpec {
        service_account_name: Some(names.of(component)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds),
        security_context: Some(pod_security()),
        image_pull_secrets: none_if_empty(&inputs.cache.spec.image_pull_secrets),
        containers: vec![container],
        volumes: Some(all),
        ..placed(inputs, component)
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: (!added.annotations.is_empty()).then(|| added.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

/// The part of a pod that says where it runs.
fn placed(inputs: &Inputs<'_>, component: Component) -> PodSpec {
    let added = &inputs.cache.spec.pod_template;
    let selector = inputs.names().selector(component);
    let affinity = added.affinity.clone().unwrap_or_else(|| apart(&selector));
    let mut spread = added.topology_spread_constraints.clone();
    if spread.is_empty() {
        spread.push(over_zones(&selector, &inputs.cache.spec.nodes.zones_key));
    }
    PodSpec {
        node_selector: (!added.node_selector.is_empty()).then(|| added.node_selector.clone()),
        tolerations: none_if_empty(&added.tolerations),
        affinity: Some(affinity),
        topology_spread_constraints: Some(spread),
        priority_class_name: added.priority_class_name.clone(),
        runtime_class_name: added.runtime_class_name.clone(),
        scheduler_name: added.scheduler_name.clone(),
        ..PodSpec::default()
    }
}

fn none_if_empty<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

fn selecting(selector: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector.clone()),
        ..LabelSelector::default()
    }
}

/// On different machines, if there are enough.
fn apart(selector: &BTreeMap<String, String>) -> Affinity {
    let term = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            label_selector: Some(selecting(selector)),
            topology_key: "kubernetes.io/hostname".to_owned(),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Over the zones, if it can be.
fn over_zones(selector: &BTreeMap<String, String>, key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selecting(selector)),
        ..TopologySpreadConstraint::default()
    }
}

/// Who a pod runs as.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

/// What a container must not do.
pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

/// Where the ring and the certificates are, as arguments.
pub(super) fn cluster_arguments() -> Vec<String> {
    vec![
        format!("--ring={RING_FOLDER}/{RING_KEY}"),
        format!("--admin=0.0.0.0:{ADMIN_PORT}"),
        format!("--peer-ca={PEER_FOLDER}/ca.crt"),
        format!("--peer-cert={PEER_FOLDER}/tls.crt"),
        format!("--peer-key={PEER_FOLDER}/tls.key"),
    ]
}

/// How the process logs, as arguments.
pub(super) fn log_arguments(inputs: &Inputs<'_>) -> [String; 2] {
    let level = &inputs.cache.spec.telemetry.log_level;
    [
        "--log-format=json".to_owned(),
        format!("--log-level={level}"),
    ]
}

/// Where the process sends its traces, as variables; none where there is nowhere to send them.
pub(super) fn trace_variables(inputs: &Inputs<'_>) -> Vec<EnvVar> {
    let telemetry = &inputs.cache.spec.telemetry;
    let Some(endpoint) = &telemetry.otlp_endpoint else {
        return Vec::new();
    };
    vec![
        variable("ZIMCACHE_SERVE__TELEMETRY__OTLP_ENDPOINT", endpoint),
        variable(
            "ZIMCACHE_SERVE__TELEMETRY__SAMPLE_RATIO",
            &telemetry.sample_ratio,
        ),
    ]
}

/// The mounts of the ring, the certificates and room for temporary files.
pub(super) fn mounts() -> Vec<VolumeMount> {
    vec![
        mount("ring", RING_FOLDER, true),
        mount("peer", PEER_FOLDER, true),
        mount("tmp", "/tmp", false),
    ]
}

/// A volume in a container. Never a single file of it: those do not change when the volume does.
pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn config_map_volume(name: &str, map: String) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: map,
            default_mode: Some(0o444),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A Secret as a folder; with an item, only that key, under that file name, and its absence keeps no pod from starting.
pub(super) fn secret_volume(name: &str, secret: String, item: Option<(&str, &str)>) -> Volume {
    let items = item.map(|(key, path)| {
        vec![KeyToPath {
            key: key.to_owned(),
            path: path.to_owned(),
            mode: None,
        }]
    });
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            optional: items.as_ref().map(|_| true),
            items,
        }),
        ..Volume::default()
    }
}

/// A variable with this value.
pub(super) fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        value_from: None,
    }
}

/// A variable with what the pod says of itself.
pub(super) fn variable_of_pod(name: &str, field: &str) -> EnvVar {
    let source = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            field_path: field.to_owned(),
            // Said, because the API server would add it.
            api_version: Some("v1".to_owned()),
        }),
        ..EnvVarSource::default()
    };
    variable_from(name, source)
}

/// A variable with what is in a Secret.
pub(super) fn variable_of_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let source = EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: secret.to_owned(),
            key: key.to_owned(),
            optional: None,
        }),
        ..EnvVarSource::default()
    };
    variable_from(name, source)
}

fn variable_from(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(source),
    }
}

/// A port of a container.
pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// Asks a page on the port for those who run the system.
pub(super) fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
