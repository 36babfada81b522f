//! The Services: a name for each node, and one address for all gateways.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Inputs, meta};
use crate::names::{ADMIN_PORT, Component, HTTP_PORT, HTTPS_PORT, NODE_PORT};

/// Names for the nodes. Also for those that are not ready: they need each other to become so.
pub(super) fn nodes(inputs: &Inputs<'_>) -> Service {
    let names = inputs.names();
    Service {
        metadata: meta(
            inputs.cache,
            names.of(Component::Node),
            Some(Component::Node),
        ),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names.selector(Component::Node)),
            ports: Some(vec![port("peer", NODE_PORT), port("admin", ADMIN_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Where clients reach the gateways: one near them, if there is one.
pub(super) fn gateways(inputs: &Inputs<'_>) -> Service {
    let names = inputs.names();
    let wanted = &inputs.cache.spec.gateway.service;
    let mut ports = vec![port("http", HTTP_PORT)];
    if inputs.cache.spec.tls.secret_name.is_some() {
        ports.push(port("https", HTTPS_PORT));
    }
    let name = names.of(Component::Gateway);
    let mut metadata = meta(inputs.cache, name, Some(Component::Gateway));
    metadata.annotations = (!wanted.annotations.is_empty()).then(|| wanted.annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(wanted.kind.as_str().to_owned()),
            selector: Some(names.selector(Component::Gateway)),
            ports: Some(ports),
            traffic_distribution: Some("PreferClose".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
