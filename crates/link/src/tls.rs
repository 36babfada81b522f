//! Who may speak to whom inside a cluster: both sides show a certificate of the cluster's own authority.
//!
//! One provider, aws-lc-rs; TLS 1.3 alone, as both sides are ours. Not here: reading and watching files (`zim`).
//! Invariant: a replacement that cannot be used leaves the old certificates in force.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::wire::Io;

/// HTTP/2 alone.
const ALPN: &[u8] = b"h2";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority's file has no certificate.
    #[error("the file of the cluster's authority holds no PEM certificate")]
    Authority,
    /// The chain does not parse, or is empty.
    #[error("the certificate file holds no PEM certificate")]
    Certificate,
    /// The key does not parse.
    #[error("the key file holds no PEM private key")]
    Key,
    /// They do not fit each other, or are of a kind that is not supported.
    #[error("the certificates and the key cannot be used together: {0}")]
    Unusable(Box<str>),
}

/// The certificates of a gateway or node. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<ArcSwap<Both>>,
    name: Option<ServerName<'static>>,
}

#[derive(Debug)]
struct Both {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// The certificate of the cluster's authority, an own chain that it signed, and its key; all PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Tls, TlsError> {
        let both = Both::new(authority, chain, key)?;
        Ok(Tls {
            current: Arc::new(ArcSwap::from_pointee(both)),
            name: None,
        })
    }

    /// Expects this name in the certificates of nodes instead of the host in their addresses: for clusters in which all
    /// nodes share a certificate.
    ///
    /// # Errors
    /// `Unusable` when it is not a name.
    pub fn with_name(mut self, name: &str) -> Result<Tls, TlsError> {
        self.name = Some(server_name(name)?);
        Ok(self)
    }

    /// Uses others for new connections.
    ///
    /// # Errors
    /// [`TlsError`]; the old ones stay in force then.
    pub fn replace(&self, authority: &[u8], chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.current
            .store(Arc::new(Both::new(authority, chain, key)?));
        Ok(())
    }

    pub(crate) async fn connect(
        &self,
        host: &str,
        io: Box<dyn Io>,
    ) -> std::io::Result<client::TlsStream<Box<dyn Io>>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(std::io::Error::other)?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.current.load().client));
        connector.connect(name, io).await
    }

    pub(crate) async fn accept(
        &self,
        io: Box<dyn Io>,
    ) -> std::io::Result<server::TlsStream<Box<dyn Io>>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().server));
        acceptor.accept(io).await
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let inner = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    ServerName::try_from(inner).map_err(|error| TlsError::Unusable(error.to_string().into()))
}

impl Both {
    fn new(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Both, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots(authority)?);
        let chain = certificates(chain);
        if chain.is_empty() {
            return Err(TlsError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
        Ok(Both {
            client: Arc::new(client(&provider, &roots, chain.clone(), key.clone_key())?),
            server: Arc::new(server(&provider, roots, chain, key)?),
        })
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    parsed.unwrap_or_default()
}

fn roots(authority: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(authority));
    match added {
        0 => Err(TlsError::Authority),
        _ => Ok(roots),
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(Arc::clone(roots));
    let mut config = builder
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let callers = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let callers = callers.build();
    let callers = callers.map_err(|error| TlsError::Unusable(error.to_string().into()))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(callers);
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Unusable(error.to_string().into())
}
