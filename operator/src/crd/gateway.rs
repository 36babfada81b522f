//! `spec.gateway`: the pods that speak to clients.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The gateways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// How many there are. Ignored with autoscaling.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// Lets their number follow the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// What each of them asks for and may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// How clients reach them.
    pub service: ServiceSpec,
    /// How long a connection of HTTP/2 is used before the client is asked to make another one, so that gateways that are
    /// added get work. `off`: for ever.
    #[schemars(length(max = 32), regex(pattern = r"^([1-9][0-9]*(s|m|h|d)|off)$"))]
    pub max_connection_age: String,
    /// RAM for small blobs that are read again and again; 0 keeps none.
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+([KMGT]i?B?)?$"))]
    pub ram_cache: String,
}

impl Default for GatewaySpec {
    fn default() -> GatewaySpec {
        GatewaySpec {
            replicas: 2,
            autoscaling: None,
            resources: None,
            service: ServiceSpec::default(),
            max_connection_age: "5m".to_owned(),
            ram_cache: "256MiB".to_owned(),
        }
    }
}

/// Bounds within which the number of gateways follows their load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::of(rules::AUTOSCALING)))]
pub struct AutoscalingSpec {
    /// Fewest gateways.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most gateways.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// How busy they are meant to be, in percent of the CPU they ask for.
    #[serde(rename = "targetCPUUtilizationPercentage")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization_percentage: i32,
}

impl Default for AutoscalingSpec {
    fn default() -> AutoscalingSpec {
        AutoscalingSpec {
            min_replicas: 2,
            max_replicas: 10,
            target_cpu_utilization_percentage: 70,
        }
    }
}

/// The Service in front of the gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Annotations of it, such as those a load balancer of a cloud looks at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), extend("additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub annotations: BTreeMap<String, String>,
}

/// Types of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Inside the cluster only.
    #[default]
    ClusterIP,
    /// On a port of every machine.
    NodePort,
    /// By a load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// The word of Kubernetes.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        }
    }
}
