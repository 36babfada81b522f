//! Who is let in: certificates of the cluster's authority on both sides.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use zimcache_link::{Error, Peer as _, Settings, StatusQuestion, Tls, TlsError};

use crate::{fake::Fake, pair::Pair};

/// An authority of its own, and a certificate for a name that it signed; PEM.
struct Files {
    authority: String,
    chain: String,
    key: String,
}

fn files(name: &str) -> Files {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority for tests");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    Files {
        authority: authority.pem(),
        chain: leaf.pem(),
        key: key.serialize_pem(),
    }
}

fn tls(authority: &Files, own: &Files) -> Tls {
    let (chain, key) = (own.chain.as_bytes(), own.key.as_bytes());
    Tls::new(authority.authority.as_bytes(), chain, key).unwrap()
}

fn settings(tls: Option<Tls>) -> Settings {
    Settings {
        tls,
        // Signing takes its time in a build for tests.
        connect_timeout: std::time::Duration::from_secs(5),
        ..Settings::default()
    }
}

async fn outcome(server: Option<Tls>, client: Option<Tls>) -> Result<(), Error> {
    let pair = Pair::with(Fake::new(), server, settings(client)).await;
    let outcome = pair.remote.status(StatusQuestion::default()).await;
    pair.stop().await;
    outcome.map(drop)
}

#[tokio::test]
async fn members_of_one_authority_speak_to_each_other() {
    let ours = files("127.0.0.1");
    let tls = tls(&ours, &ours);
    outcome(Some(tls.clone()), Some(tls)).await.unwrap();
}

#[tokio::test]
async fn a_shared_certificate_is_known_by_its_name() {
    let ours = files("node.zimcache.internal");
    let tls = tls(&ours, &ours);
    let named = tls.clone().with_name("node.zimcache.internal").unwrap();
    outcome(Some(tls.clone()), Some(named)).await.unwrap();
    let error = outcome(Some(tls.clone()), Some(tls)).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn strangers_are_refused_by_both_sides() {
    let (ours, theirs) = (files("127.0.0.1"), files("127.0.0.1"));
    for (server, client) in [
        // The node is a stranger to the caller.
        (Some(tls(&ours, &theirs)), Some(tls(&ours, &ours))),
        // The caller is a stranger to the node.
        (Some(tls(&ours, &ours)), Some(tls(&ours, &theirs))),
        // The caller shows nothing at all.
        (Some(tls(&ours, &ours)), None),
        // The node shows nothing at all.
        (None, Some(tls(&ours, &ours))),
    ] {
        let refused = outcome(server, client).await;
        assert!(
            matches!(refused, Err(Error::Unreachable { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn certificates_can_be_replaced_while_serving() {
    let (old, new) = (files("127.0.0.1"), files("127.0.0.1"));
    let tls = tls(&old, &old);
    let pair = Pair::with(Fake::new(), Some(tls.clone()), settings(Some(tls.clone()))).await;
    let bad = tls.replace(b"", old.chain.as_bytes(), old.key.as_bytes());
    assert!(matches!(bad, Err(TlsError::Authority)));
    let (authority, chain, key) = (&new.authority, &new.chain, &new.key);
    tls.replace(authority.as_bytes(), chain.as_bytes(), key.as_bytes())
        .unwrap();
    pair.remote.status(StatusQuestion::default()).await.unwrap();
    pair.stop().await;
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let ours = files("x");
    let (authority, chain, key) = (&ours.authority, &ours.chain, &ours.key);
    let (authority, chain, key) = (authority.as_bytes(), chain.as_bytes(), key.as_bytes());
    assert!(matches!(
        Tls::new(b"", chain, key),
        Err(TlsError::Authority)
    ));
    assert!(matches!(
        Tls::new(authority, b"x", key),
        Err(TlsError::Certificate)
    ));
    assert!(matches!(
        Tls::new(authority, chain, b"x"),
        Err(TlsError::Key)
    ));
    let other = files("y");
    let unusable = Tls::new(authority, chain, other.key.as_bytes());
    assert!(matches!(unusable, Err(TlsError::Unusable(_))));
}
