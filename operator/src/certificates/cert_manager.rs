//! The same Secrets made by cert-manager: two Certificates, signed by the issuer that the user names.
//!
//! Its types are not linked in: the objects are small and stable, and are written as JSON. cert-manager rotates by itself;
//! whether its authority is replaced with an overlap is the affair of whoever runs the issuer.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use crate::{crd::IssuerRef, names::Component};

use super::{
    BOTH, CA_CRT, Error, FIELD_MANAGER, Kept, Of, TLS_CRT, TLS_KEY,
    issue::{self, Facts},
    plan::{self, Policy},
    text,
};

/// Asks for the Certificates and says whether their Secrets are there.
///
/// # Errors
/// [`Error::NoCertManager`] when the cluster does not know Certificates; what the API server refuses.
pub async fn keep(
    client: &Client,
    of: &Of,
    issuer: &IssuerRef,
    policy: &Policy,
) -> Result<Kept, Error> {
    let resource = resource();
    let certificates: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &of.names.namespace, &resource);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    for component in BOTH {
        let name = of.names.peer(component);
        let wanted = Patch::Apply(certificate(of, component, issuer, policy));
        let applied = certificates.patch(&name, &params, &wanted);
        applied.await.map_err(|error| match error {
            // An API that is not there is told without the usual words.
            kube::Error::Api(status) if status.code == 404 => Error::NoCertManager,
            other => other.into(),
        })?;
    }
    look(client, of).await
}

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate");
    ApiResource::from_gvk_with_plural(&kind, "certificates")
}

fn certificate(of: &Of, component: Component, issuer: &IssuerRef, policy: &Policy) -> Value {
    let usages: &[&str] = match component {
        Component::Node => &["digital signature", "server auth", "client auth"],
        Component::Gateway => &["digital signature", "client auth"],
    };
    let hours = |duration: Duration| format!("{}h", duration.as_secs() / 3600);
    json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": of.metadata(of.names.peer(component)),
        "spec": {
            "secretName": of.names.peer(component),
            "commonName": format!("zimcache {}", component.as_str()),
            "dnsNames": plan::names_of(component, &of.names),
            "usages": usages,
            "duration": hours(policy.leaf),
            "renewBefore": hours(policy.leaf / 3),
            "privateKey": { "algorithm": "ECDSA", "size": 256, "encoding": "PKCS8", "rotationPolicy": "Always" },
            "issuerRef": issuer,
        },
    })
}

/// Whether cert-manager has made both Secrets whole.
async fn look(client: &Client, of: &Of) -> Result<Kept, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &of.names.namespace);
    let mut expiries = Vec::new();
    for component in BOTH {
        let secret = secrets.get_opt(&of.names.peer(component)).await?;
        expiries.extend(secret.as_ref().and_then(expiry));
    }
    let is_ready = expiries.len() == BOTH.len();
    Ok(Kept {
        steps: Vec::new(),
        look_again: Duration::from_secs(if is_ready { 3600 } else { 5 }),
        expires_seconds: expiries.into_iter().min().unwrap_or(0),
        is_ready,
        is_rotating: false,
    })
}

/// When the certificate in a whole Secret expires.
fn expiry(secret: &Secret) -> Option<i64> {
    let (authority, certificate) = (text(secret, CA_CRT)?, text(secret, TLS_CRT)?);
    text(secret, TLS_KEY)?;
    let first = issue::split(&certificate).into_iter().next()?;
    let facts = Facts::read(&first)?;
    (!issue::split(&authority).is_empty()).then_some(facts.valid_seconds.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_every_node_and_renews_while_a_third_of_its_life_is_left() {
        let of = Of {
            names: crate::names::Names::new("main", "zim"),
            labels: std::collections::BTreeMap::new(),
            owner: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference::default(),
        };
        let issuer = IssuerRef {
            name: "own".to_owned(),
            kind: "Issuer".to_owned(),
            group: "cert-manager.io".to_owned(),
        };
        let made = certificate(&of, Component::Node, &issuer, &Policy::default());
        let spec = &made["spec"];
        assert_eq!(spec["secretName"], "main-peer-node");
        assert_eq!(spec["dnsNames"][0], "*.main-node.zim.svc");
        assert_eq!(
            (&spec["duration"], &spec["renewBefore"]),
            (&json!("2160h"), &json!("720h"))
        );
        assert_eq!(spec["issuerRef"]["name"], "own");
        let gateway = certificate(&of, Component::Gateway, &issuer, &Policy::default());
        assert_eq!(
            gateway["spec"]["usages"],
            json!(["digital signature", "client auth"])
        );
    }
}
