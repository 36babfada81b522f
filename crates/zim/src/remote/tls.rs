//! Connections to a server: TCP, and TLS where the URL says https.
//!
//! One provider of cryptography, aws-lc-rs, TLS 1.2 and 1.3. Trusted are the system's authorities, or the ones that
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name instead, and those of `--ca`. They are read for https URLs only: it takes time.

use std::{path::Path, sync::Arc, time::Duration};

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::Version;
use crate::{
    error::{Error, Result},
    output,
};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What connects to the URL's server.
pub(super) fn connector(
    is_https: bool,
    ca: Option<&Path>,
    version: Version,
) -> Result<HttpsConnector<HttpConnector>> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let roots = if is_https {
        roots(ca)?
    } else {
        RootCertStore::empty()
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(Error::TlsClient)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    let builder = builder.https_or_http();
    Ok(match version {
        Version::Http1 => builder.enable_http1().wrap_connector(tcp),
        Version::Http2 => builder.enable_http2().wrap_connector(tcp),
    })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(file) = ca {
        add(&mut roots, file)?;
    }
    if roots.is_empty() {
        let why = system.errors.first().map(|error| format!(": {error}"));
        output::tell(&format!(
            "warning: no certificate authorities are trusted{}",
            why.unwrap_or_default()
        ));
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<()> {
    let refused = |text: String| Error::Authority {
        path: file.to_owned(),
        text,
    };
    let found = CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))?;
    let mut count = 0;
    for certificate in found {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| refused(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(refused("there is no certificate in it".to_owned()));
    }
    Ok(())
}

/// Whether a connection failed because one side did not like what the other showed.
pub(super) fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error does not give what it wraps as its source, but that one's source.
        let wrapped = error.downcast_ref::<std::io::Error>();
        cause = match wrapped.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_refusal_is_found_however_deep_it_is_wrapped() {
        let refusal = || rustls::Error::General("no".to_owned());
        assert!(is_refusal(&refusal()));
        let wrapped = io::Error::other(io::Error::other(refusal()));
        assert!(is_refusal(&wrapped));
        let other = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(!is_refusal(&other));
    }
}
