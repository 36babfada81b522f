//! Secrets there and back, against an API server that knows nothing but Secrets; and TLS as gateways and nodes speak it.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn of() -> Of {
    Of {
        names: Names::new("main", "zim"),
        labels: [("app.kubernetes.io/instance".to_owned(), "main".to_owned())].into(),
        owner: owner("own"),
    }
}

fn owner(uid: &str) -> OwnerReference {
    OwnerReference {
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

type Secrets = Arc<Mutex<BTreeMap<String, Secret>>>;

/// An API server that keeps whole Secrets; it counts writes.
fn server(secrets: &Secrets, writes: &Arc<Mutex<Vec<String>>>) -> Client {
    let (secrets, writes) = (Arc::clone(secrets), Arc::clone(writes));
    let answer = move |request: Request<Body>| {
        let (secrets, writes) = (Arc::clone(&secrets), Arc::clone(&writes));
        async move {
            let path = request.uri().path().to_owned();
            let name = path.rsplit('/').next().unwrap().to_owned();
            if request.method() == Method::PATCH {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let secret: Secret = serde_json::from_slice(&body).unwrap();
                secrets.lock().insert(name.clone(), secret);
                writes.lock().push(name.clone());
            }
            let found = secrets.lock().get(&name).cloned();
            let body = match &found {
                Some(secret) => serde_json::to_vec(secret).unwrap(),
                None => {
                    br#"{"status":"Failure","message":"","reason":"NotFound","code":404}"#.to_vec()
                }
            };
            let code = match found {
                Some(_) => StatusCode::OK,
                None => StatusCode::NOT_FOUND,
            };
            let answer = Response::builder().status(code).body(Body::from(body));
            Ok::<_, std::convert::Infallible>(answer.unwrap())
        }
    };
    Client::new(tower::service_fn(answer), "zim")
}

#[tokio::test]
async fn secrets_are_made_once_authority_first_and_then_left_alone() {
    let (secrets, writes) = (Secrets::default(), Arc::default());
    let client = server(&secrets, &writes);
    let policy = Policy::default();
    let kept = keep(&client, &of(), None, &policy, NOW).await.unwrap();
    assert_eq!(
        *writes.lock(),
        ["main-ca", "main-peer-node", "main-peer-gateway"]
    );
    assert_eq!(kept.steps.len(), 3);
    assert!(kept.expires_seconds > 1_800_000_000);
    let again = keep(&client, &of(), None, &policy, NOW).await.unwrap();
    assert!(again.steps.is_empty());
    assert_eq!(
        writes.lock().len(),
        3,
        "nothing was due, but something was written"
    );
    let node = secrets.lock()["main-peer-node"].clone();
    assert_eq!(node.metadata.owner_references.unwrap()[0].uid, "own");
    assert_eq!(
        node.data.unwrap().into_keys().collect::<Vec<_>>(),
        ["ca.crt", "tls.crt", "tls.key"]
    );
}

#[tokio::test]
async fn every_state_of_a_rotation_survives_the_way_through_its_secrets() {
    let (secrets, writes) = (Secrets::default(), Arc::default());
    let client = server(&secrets, &writes);
    let policy = Policy::default();
    let mut now = NOW;
    let mut steps = Vec::new();
    for _ in 0..8 {
        let kept = keep(&client, &of(), Some("1".to_owned()), &policy, now).await;
        steps.extend(kept.unwrap().steps);
        now = now.plus(policy.settle);
    }
    // The word is known from the start, so nothing is replaced; a new word replaces.
    assert_eq!(steps.len(), 3, "{steps:?}");
    steps.clear();
    for _ in 0..8 {
        let kept = keep(&client, &of(), Some("2".to_owned()), &policy, now).await;
        steps.extend(kept.unwrap().steps);
        now = now.plus(policy.settle);
    }
    let expected = [
        Step::Introduced,
        Step::Promoted,
        Step::Issued(Component::Node),
        Step::Issued(Component::Gateway),
        Step::Dropped,
    ];
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_touched() {
    let (secrets, writes) = (Secrets::default(), Arc::default());
    let foreign = Secret {
        metadata: ObjectMeta {
            owner_references: Some(vec![owner("other")]),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    secrets.lock().insert("main-peer-node".to_owned(), foreign);
    let client = server(&secrets, &writes);
    let refused = keep(&client, &of(), None, &Policy::default(), NOW).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), "ForeignSecret");
    assert!(error.to_string().contains("main-peer-node"), "{error}");
    assert!(writes.lock().is_empty());
}

/// Both sides as `zim` sets them up: TLS 1.3, a certificate of the common authority from either.
fn shake(node: &Leaf, gateway: &Leaf, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = |leaf: &Leaf| {
        let mut roots = RootCertStore::empty();
        let all = CertificateDer::pem_slice_iter(leaf.bundle.as_bytes());
        roots.add_parsable_certificates(all.map(Result::unwrap));
        Arc::new(roots)
    };
    let chain = |leaf: &Leaf| {
        vec![CertificateDer::from_pem_slice(leaf.pair.certificate.as_bytes()).unwrap()]
    };
    let key = |leaf: &Leaf| PrivateKeyDer::from_pem_slice(leaf.pair.key.as_bytes()).unwrap();
    let callers = WebPkiClientVerifier::builder_with_provider(roots(node), Arc::clone(&provider));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(callers.build().unwrap())
        .with_single_cert(chain(node), key(node))?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(gateway))
        .with_client_auth_cert(chain(gateway), key(gateway))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name)?;
    let mut server = rustls::ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn gateways_and_nodes_accept_each_other_by_the_names_in_the_ring_and_nobody_else() {
    // Valid now, as rustls looks at the clock of the machine.
    let now = zimcache_types::Clock::now(&zimcache_types::SystemClock);
    let policy = Policy::default();
    let made = || plan::plan(&Observed::default(), &of().wanted(None), &policy, now).unwrap();
    let (ours, theirs) = (made(), made());
    let (node, gateway) = (
        &ours.leaves[&Component::Node],
        &ours.leaves[&Component::Gateway],
    );
    shake(node, gateway, "main-node-0.main-node.zim.svc").unwrap();
    shake(node, node, "main-node-7.main-node.zim.svc").unwrap();
    let elsewhere = shake(node, gateway, "main-node-0.main-node.other.svc");
    assert!(elsewhere.is_err(), "a node of another namespace");
    let stranger = &theirs.leaves[&Component::Gateway];
    assert!(shake(node, stranger, "main-node-0.main-node.zim.svc").is_err());
    let as_node = shake(gateway, node, "main-gateway.zim.svc");
    assert!(as_node.is_err(), "a gateway must not pass for a server");
}
