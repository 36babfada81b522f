//! TLS: certificates that can be replaced while serving, and the handshake.
//!
//! One provider, aws-lc-rs. HTTP/2 and HTTP/1.1 are offered by ALPN. Not here: reading and watching files (`zim`), what
//! is spoken inside (`connection`). Invariant: a replacement that cannot be used leaves the old certificate in force.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zimcache_config::TlsVersion;

/// First byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;
/// What a client reads that speaks plain HTTP to a port with TLS.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 44\r\n\
    Connection: close\r\n\
    \r\n\
    this port speaks TLS: use a https:// address";

static FROM_1_2: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static FROM_1_3: &[&SupportedProtocolVersion] = &[&TLS13];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain does not parse, or is empty.
    #[error("the certificate file holds no PEM certificate")]
    Certificate,
    /// The key does not parse.
    #[error("the key file holds no PEM private key")]
    Key,
    /// They do not fit each other, or are of a kind that is not supported.
    #[error("the certificate and key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// A certificate in force. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<ArcSwap<ServerConfig>>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Tls {
    /// A certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(chain: &[u8], key: &[u8], oldest: TlsVersion) -> Result<Tls, TlsError> {
        let versions = match oldest {
            TlsVersion::V1_2 => FROM_1_2,
            TlsVersion::V1_3 => FROM_1_3,
        };
        let config = configuration(chain, key, versions)?;
        Ok(Tls {
            current: Arc::new(ArcSwap::from_pointee(config)),
            versions,
        })
    }

    /// Uses another certificate for new connections.
    ///
    /// # Errors
    /// [`TlsError`]; the old one stays in force then.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let config = configuration(chain, key, self.versions)?;
        self.current.store(Arc::new(config));
        Ok(())
    }

    /// Shakes hands on an accepted connection. A peer that speaks plain HTTP is told so.
    pub(crate) async fn accept(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0; 1];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            stream.write_all(SPEAK_TLS).await?;
            stream.shutdown().await?;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer does not speak TLS",
            ));
        }
        let acceptor = TlsAcceptor::from(self.current.load_full());
        acceptor.accept(stream).await
    }
}

fn configuration(
    chain: &[u8],
    key: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::Certificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(TlsError::Unusable)?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
