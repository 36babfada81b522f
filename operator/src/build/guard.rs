//! What protects the pods: from each other, from the network, and from being taken away at a bad time.

use k8s_openapi::{
    api::{
        core::v1::ServiceAccount,
        networking::v1::{
            NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
            NetworkPolicySpec,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Inputs, meta};
use crate::names::{ADMIN_PORT, Component, HTTP_PORT, HTTPS_PORT, NODE_PORT};

/// Who the pods are. They ask the API server nothing.
pub(super) fn account(inputs: &Inputs<'_>, component: Component) -> ServiceAccount {
    let mut metadata = meta(inputs.cache, inputs.names().of(component), Some(component));
    let tier = inputs.cache.spec.durable_tier.as_ref();
    let annotations = tier.map(|tier| tier.s3.service_account_annotations.clone());
    let wanted = annotations.filter(|all| !all.is_empty() && component == Component::Node);
    metadata.annotations = wanted;
    ServiceAccount {
        metadata,
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// At most one node may be away, and none while one is not in full service; most gateways stay.
pub(super) fn disruption_budget(inputs: &Inputs<'_>, component: Component) -> PodDisruptionBudget {
    let gateway = &inputs.cache.spec.gateway;
    let gateways = gateway
        .autoscaling
        .as_ref()
        .map_or(gateway.replicas, |it| it.min_replicas);
    let (max_unavailable, min_available) = match component {
        Component::Node => (Some(i32::from(inputs.may_disrupt)), None),
        Component::Gateway => (None, Some((gateways - 1).max(0))),
    };
    PodDisruptionBudget {
        metadata: meta(inputs.cache, inputs.names().of(component), Some(component)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: max_unavailable.map(IntOrString::Int),
            min_available: min_available.map(IntOrString::Int),
            selector: Some(selecting(inputs, component)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        }),
        status: None,
    }
}

/// Nodes are reached by gateways and nodes of the same cache alone; the pages for those who run the system from inside
/// the cluster; gateways from everywhere.
pub(super) fn network_policy(inputs: &Inputs<'_>, component: Component) -> NetworkPolicy {
    let inside = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    };
    let admin = rule(&[ADMIN_PORT], Some(vec![inside]));
    let own = match component {
        Component::Node => {
            let of_cache = [Component::Node, Component::Gateway].map(|peer| NetworkPolicyPeer {
                pod_selector: Some(selecting(inputs, peer)),
                ..NetworkPolicyPeer::default()
            });
            rule(&[NODE_PORT], Some(of_cache.into()))
        }
        Component::Gateway => rule(&[HTTP_PORT, HTTPS_PORT], None),
    };
    NetworkPolicy {
        metadata: meta(inputs.cache, inputs.names().of(component), Some(component)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selecting(inputs, component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![own, admin]),
            egress: None,
        }),
    }
}

fn rule(ports: &[u16], from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port = |number: &u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(*number))),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule {
        ports: Some(ports.iter().map(port).collect()),
        from,
    }
}

fn selecting(inputs: &Inputs<'_>, component: Component) -> LabelSelector {
    LabelSelector {
        match_labels: Some(inputs.names().selector(component)),
        ..LabelSelector::default()
    }
}
