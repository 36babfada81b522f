//! The certificates with which gateways and nodes of one cluster trust each other.
//!
//! [`plan`] decides, [`issue`] makes, and this file reads and writes the Secrets: `<zc>-ca` (authority; its key stays
//! there and is mounted nowhere), `<zc>-peer-node` and `<zc>-peer-gateway` (`ca.crt`, `tls.crt`, `tls.key`). With
//! cert-manager, `cert_manager` asks for the same two Secrets instead. Not here: the public certificate of gateways,
//! which is the user's. Invariant: a Secret of the same name that belongs to somebody else is not touched.

pub mod cert_manager;
pub mod issue;
pub mod plan;

use std::collections::BTreeMap;

use jiff::Timestamp as Moment;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
};
use zimcache_types::Timestamp;

use issue::Pair;
use plan::{Authority, Leaf, Observed, Wanted};
pub use plan::{Policy, Step};

use crate::names::{Component, Names};

/// Who writes these Secrets, in the API server's book of owners of fields.
pub const FIELD_MANAGER: &str = "zim-operator-certificates";
/// Changing this annotation of a ZimCache has its authority replaced.
pub const ROTATE: &str = "zimcache.dev/rotate-certificates";
/// Since when a leaf's Secret has been as it is.
const SINCE: &str = "zimcache.dev/certificates-since";

/// Who has a certificate.
const BOTH: [Component; 2] = [Component::Node, Component::Gateway];

const CA_CRT: &str = "ca.crt";
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const NEXT_CRT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const FORMER_CRT: &str = "former.crt";

/// Why certificates could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] issue::Error),
    /// A Secret of that name belongs to somebody else.
    #[error("secret {0} belongs to something else; rename that, or this ZimCache")]
    Foreign(String),
    /// The API of cert-manager is not there.
    #[error("cert-manager is asked for, but the cluster does not know its Certificates")]
    NoCertManager,
    /// cert-manager is asked for without saying by whom certificates are signed.
    #[error("cert-manager is asked for, but no issuer is named")]
    NoIssuer,
}

impl Error {
    /// A word for metrics and events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Error::Api(_) => "Api",
            Error::Issue(_) => "Certificate",
            Error::Foreign(_) => "ForeignSecret",
            Error::NoCertManager => "NoCertManager",
            Error::NoIssuer => "NoIssuer",
        }
    }
}

/// Whose certificates.
#[derive(Debug, Clone)]
pub struct Of {
    /// The cache.
    pub names: Names,
    /// Labels of what is made for it.
    pub labels: BTreeMap<String, String>,
    /// The ZimCache as an owner: what is made goes with it.
    pub owner: OwnerReference,
}

impl Of {
    /// What is asked for with this value of the annotation [`ROTATE`].
    fn wanted(&self, rotation: Option<String>) -> Wanted {
        let names = |component| (component, plan::names_of(component, &self.names));
        Wanted {
            names: BOTH.map(names).into(),
            rotation,
        }
    }

    fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.names.namespace.clone()),
            labels: Some(self.labels.clone()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }
}

/// How the certificates stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was done.
    pub steps: Vec<Step>,
    /// After how much time something will be due.
    pub look_again: std::time::Duration,
    /// When the first certificate expires, in seconds of Unix time; 0 when that is not known.
    pub expires_seconds: i64,
    /// Whether all are there and can be used.
    pub is_ready: bool,
    /// Whether a replacement of the authority is under way.
    pub is_rotating: bool,
}

/// Does what is due and says how things stand. Idempotent: without anything due nothing is written.
///
/// # Errors
/// [`Error`]; what was written stays, and the next call goes on from there.
pub async fn keep(
    client: &Client,
    of: &Of,
    rotation: Option<String>,
    policy: &Policy,
    now: Timestamp,
) -> Result<Kept, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &of.names.namespace);
    let observed = observe(&secrets, of).await?;
    let plan = plan::plan(&observed, &of.wanted(rotation), policy, now)?;
    // The authority first: a certificate that nobody could sign again would be worse than one that is late.
    if let Some(authority) = &plan.authority {
        apply(&secrets, &authority_secret(of, authority)).await?;
    }
    for (component, leaf) in &plan.leaves {
        apply(&secrets, &leaf_secret(of, *component, leaf)).await?;
    }
    for step in &plan.steps {
        tracing::info!(namespace = %of.names.namespace, name = %of.names.cache, "certificates: {step}");
    }
    Ok(Kept {
        steps: plan.steps,
        look_again: plan.look_again,
        expires_seconds: plan.expires_seconds,
        is_ready: true,
        is_rotating: plan.is_rotating,
    })
}

async fn observe(secrets: &Api<Secret>, of: &Of) -> Result<Observed, Error> {
    let authority = own(secrets, of, &of.names.authority()).await?;
    let mut leaves = BTreeMap::new();
    for component in BOTH {
        let secret = own(secrets, of, &of.names.peer(component)).await?;
        leaves.extend(
            secret
                .as_ref()
                .and_then(read_leaf)
                .map(|leaf| (component, leaf)),
        );
    }
    Ok(Observed {
        authority: authority.as_ref().map(read_authority),
        leaves,
    })
}

/// The Secret, if it is there and belongs to this ZimCache or to nobody.
async fn own(secrets: &Api<Secret>, of: &Of, name: &str) -> Result<Option<Secret>, Error> {
    let secret = secrets.get_opt(name).await?;
    let owners = secret.iter().flat_map(|it| &it.metadata.owner_references);
    let foreign = owners.flatten().any(|owner| owner.uid != of.owner.uid);
    if foreign {
        return Err(Error::Foreign(name.to_owned()));
    }
    Ok(secret)
}

async fn apply(secrets: &Api<Secret>, secret: &Secret) -> Result<(), Error> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    secrets.patch(name, &params, &Patch::Apply(secret)).await?;
    Ok(())
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

fn annotation(secret: &Secret, key: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(key).cloned()
}

fn pair(secret: &Secret, certificate: &str, key: &str) -> Option<Pair> {
    Some(Pair {
        certificate: text(secret, certificate)?,
        key: text(secret, key)?,
    })
}

fn read_authority(secret: &Secret) -> Authority {
    Authority {
        signer: pair(secret, TLS_CRT, TLS_KEY),
        next: pair(secret, NEXT_CRT, NEXT_KEY),
        former: issue::split(&text(secret, FORMER_CRT).unwrap_or_default()),
        rotation: annotation(secret, ROTATE),
    }
}

fn read_leaf(secret: &Secret) -> Option<Leaf> {
    let since: Option<Moment> = annotation(secret, SINCE).and_then(|text| text.parse().ok());
    Some(Leaf {
        bundle: text(secret, CA_CRT)?,
        pair: pair(secret, TLS_CRT, TLS_KEY)?,
        since: since.map_or(Timestamp(u64::MAX), |at| {
            Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0))
        }),
    })
}

fn secret(metadata: ObjectMeta, data: BTreeMap<&str, String>) -> Secret {
    let data = data.into_iter();
    Secret {
        metadata,
        data: Some(
            data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    }
}

fn authority_secret(of: &Of, authority: &Authority) -> Secret {
    let mut metadata = of.metadata(of.names.authority());
    let rotation = authority.rotation.clone();
    metadata.annotations = rotation.map(|word| BTreeMap::from([(ROTATE.to_owned(), word)]));
    let mut data = BTreeMap::from([(CA_CRT, authority.bundle())]);
    let pairs = [
        (TLS_CRT, TLS_KEY, &authority.signer),
        (NEXT_CRT, NEXT_KEY, &authority.next),
    ];
    for (certificate, key, pair) in pairs {
        if let Some(pair) = pair {
            data.insert(certificate, pair.certificate.clone());
            data.insert(key, pair.key.clone());
        }
    }
    if !authority.former.is_empty() {
        data.insert(FORMER_CRT, authority.former.concat());
    }
    secret(metadata, data)
}

fn leaf_secret(of: &Of, component: Component, leaf: &Leaf) -> Secret {
    let mut metadata = of.metadata(of.names.peer(component));
    let millis = i64::try_from(leaf.since.0).unwrap_or(i64::MAX);
    let since = Moment::from_millisecond(millis).unwrap_or(Moment::MAX);
    metadata.annotations = Some(BTreeMap::from([(SINCE.to_owned(), since.to_string())]));
    let data = BTreeMap::from([
        (CA_CRT, leaf.bundle.clone()),
        (TLS_CRT, leaf.pair.certificate.clone()),
        (TLS_KEY, leaf.pair.key.clone()),
    ]);
    secret(metadata, data)
}

#[cfg(test)]
mod tests;
