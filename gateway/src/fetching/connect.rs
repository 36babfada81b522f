//! Connections to servers elsewhere: look the host up, judge every address, connect to what was judged.
//!
//! A host is looked up once per connection and its name is not used again, so an answer that changes between two
//! look-ups gains nothing. One address that may not be connected to spoils the whole answer. TLS is that of the rest of
//! the product: aws-lc-rs, 1.2 and 1.3, the system's authorities, read when the first https URL is fetched.

use std::{fmt::Debug, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::OnceCell,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zimcache_telemetry::task;

use super::{Failure, guard::Place, target::Target};

/// Most addresses of a host that are tried.
const MOST_ADDRESSES: usize = 8;

/// How long others may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A look-up, a connection and a TLS handshake together.
    connect: Duration,
    /// An answer, or the next bytes of it.
    pub(super) idle: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
        }
    }
}

/// Finds the addresses of hosts. Tests bring one of their own.
pub(super) trait Resolve: Send + Sync + Debug + 'static {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// As every program on this machine does.
#[derive(Debug)]
pub(super) struct System;

impl Resolve for System {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }
}

/// Bytes both ways.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    resolver: Box<dyn Resolve>,
    pub(super) patience: Patience,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(resolver: impl Resolve) -> Connector {
        Connector {
            resolver: Box::new(resolver),
            patience: Patience::default(),
            tls: OnceCell::new(),
        }
    }

    /// Gives up sooner.
    #[cfg(test)]
    pub(super) fn impatient(self) -> Connector {
        let short = Duration::from_millis(100);
        Connector {
            patience: Patience {
                connect: short,
                idle: short,
            },
            ..self
        }
    }

    /// Trusts these authorities instead of the system's.
    #[cfg(test)]
    fn trusting(self, roots: RootCertStore) -> Connector {
        Connector {
            tls: OnceCell::from(client_config(roots).unwrap()),
            ..self
        }
    }

    /// Connects to the URL's server. Private addresses only where they are allowed.
    pub(super) async fn connect(
        &self,
        target: &Target,
        private: bool,
    ) -> Result<Box<dyn Wire>, Failure> {
        let connected = timeout(self.patience.connect, self.try_connect(target, private)).await;
        connected.unwrap_or(Err(Failure::Silent))
    }

    async fn try_connect(&self, target: &Target, private: bool) -> Result<Box<dyn Wire>, Failure> {
        let unreachable = |error: io::Error| {
            tracing::debug!(%error, server = %target, "a server to fetch from cannot be reached");
            Failure::Unreachable
        };
        let found = self.resolver.resolve(&target.host, target.port).await;
        let addresses = found.map_err(unreachable)?;
        let allowed = |address: &SocketAddr| match Place::of(address.ip()) {
            Place::Public => true,
            Place::Private => private,
            Place::Never => false,
        };
        if !addresses.iter().all(allowed) {
            tracing::warn!(server = %target, ?addresses, "a fetch from a forbidden address was refused");
            return Err(Failure::ForbiddenAddress);
        }
        let stream = connect_any(&addresses).await.map_err(unreachable)?;
        if !target.https {
            return Ok(Box::new(stream));
        }
        let tls = TlsConnector::from(self.client_config().await?);
        let name: Result<_, InvalidDnsNameError> = ServerName::try_from(target.host.clone());
        let name = name.map_err(|_| Failure::Unreachable)?;
        let secured = tls.connect(name, stream).await.map_err(unreachable)?;
        Ok(Box::new(secured))
    }

    async fn client_config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let made = self.tls.get_or_try_init(|| async {
            let loaded = task::spawn_blocking("authorities", || {
                let mut roots = RootCertStore::empty();
                let system = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(system.certs);
                if roots.is_empty() {
                    tracing::warn!(errors = ?system.errors, "no certificate authorities are trusted");
                }
                roots
            });
            let roots = loaded.await.map_err(|_| Failure::Unreachable)?;
            client_config(roots).map_err(|error| {
                tracing::error!(%error, "TLS cannot be used to fetch");
                Failure::Unreachable
            })
        });
        made.await.cloned()
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

/// Connects to the first that answers.
async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(MOST_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        net::{IpAddr, Ipv4Addr},
    };

    use parking_lot::Mutex;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::{io::AsyncReadExt as _, net::TcpListener};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Gives one answer after the other.
    #[derive(Debug)]
    struct Changing(Mutex<VecDeque<Vec<IpAddr>>>);

    impl Changing {
        fn answers(answers: &[&[&str]]) -> Connector {
            let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            Connector::new(Changing(Mutex::new(answers.iter().map(parse).collect())))
        }
    }

    impl Resolve for Changing {
        fn resolve<'a>(
            &'a self,
            _: &'a str,
            port: u16,
        ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let answer = self.0.lock().pop_front().unwrap();
            let addresses = answer.into_iter().map(|ip| SocketAddr::new(ip, port));
            Box::pin(std::future::ready(Ok(addresses.collect())))
        }
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn target(scheme: &str, port: u16) -> Target {
        Target::parse(&format!("{scheme}://origin.test:{port}/")).unwrap()
    }

    async fn outcome(connector: &Connector, target: &Target, private: bool) -> Option<Failure> {
        connector.connect(target, private).await.err()
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused() {
        let (_listener, port) = listener().await;
        let connector = Changing::answers(&[&["127.0.0.1"], &["::ffff:127.0.0.1"], &["::1"]]);
        for _ in 0..3 {
            let failure = outcome(&connector, &target("http", port), false).await;
            assert_eq!(failure, Some(Failure::ForbiddenAddress));
        }
    }

    #[tokio::test]
    async fn one_forbidden_address_spoils_the_answer() {
        let (_listener, port) = listener().await;
        let connector = Changing::answers(&[&["127.0.0.1", "169.254.169.254"]]);
        let failure = outcome(&connector, &target("http", port), true).await;
        assert_eq!(failure, Some(Failure::ForbiddenAddress));
    }

    #[tokio::test]
    async fn what_was_judged_is_connected_to_whatever_a_second_look_up_would_say() {
        let (listener, port) = listener().await;
        let connector = Changing::answers(&[&["127.0.0.1"], &["169.254.169.254"]]);
        let target = target("http", port);
        assert_eq!(outcome(&connector, &target, true).await, None);
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), Ipv4Addr::LOCALHOST);
        // The next connection judges the next answer.
        let failure = outcome(&connector, &target, true).await;
        assert_eq!(failure, Some(Failure::ForbiddenAddress));
    }

    #[tokio::test]
    async fn metadata_services_are_refused_even_where_private_networks_are_allowed() {
        let connector = Changing::answers(&[&["169.254.169.254"]]);
        let failure = outcome(&connector, &target("http", 80), true).await;
        assert_eq!(failure, Some(Failure::ForbiddenAddress));
    }

    #[tokio::test]
    async fn a_connection_that_takes_too_long_is_given_up() {
        let (listener, port) = listener().await;
        let connector = Changing::answers(&[&["127.0.0.1"]]).impatient();
        // It is accepted by the system and never spoken to: there is no TLS handshake.
        let failure = outcome(&connector, &target("https", port), true).await;
        assert_eq!(failure, Some(Failure::Silent));
        drop(listener);
    }

    #[tokio::test]
    async fn a_certificate_has_to_be_of_the_host_and_of_a_trusted_authority() {
        let named = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        for (name, trusted, expected) in [
            ("origin.test", true, None),
            ("other.test", true, Some(Failure::Unreachable)),
            ("origin.test", false, Some(Failure::Unreachable)),
        ] {
            let made = named(name);
            let certificate: CertificateDer<'static> = made.cert.der().clone();
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            let mut roots = RootCertStore::empty();
            if trusted {
                roots.add(certificate.clone()).unwrap();
            }
            let provider = Arc::new(aws_lc_rs::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
            let (listener, port) = listener().await;
            let serving = task::spawn("origin", async move {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                    stream.read_to_end(&mut Vec::new()).await.ok();
                }
            });
            let connector = Changing::answers(&[&["127.0.0.1"]]).trusting(roots);
            let failure = outcome(&connector, &target("https", port), true).await;
            assert_eq!(failure, expected, "{name} {trusted}");
            serving.await.unwrap();
        }
    }
}
