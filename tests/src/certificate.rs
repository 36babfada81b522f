//! A certificate authority for a test, and the server certificate for 127.0.0.1 that it signed, as PEM files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Where the files are.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes them in a folder.
    ///
    /// # Errors
    /// When a key cannot be made or a file not written.
    pub fn make_in(folder: &Path) -> Result<Certificates> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "an authority for tests");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(["127.0.0.1".to_owned()])?;
        let server = server.signed_by(&key, &authority)?;
        let made = Certificates {
            folder: folder.to_owned(),
        };
        std::fs::write(made.authority(), authority.pem())?;
        std::fs::write(made.path("server.pem"), server.pem())?;
        std::fs::write(made.path("server.key"), key.serialize_pem())?;
        Ok(made)
    }

    /// The authority's certificate, for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// The flags of a server that shows the certificate.
    pub fn flags(&self) -> [String; 4] {
        let path = |name| self.path(name).display().to_string();
        let (certificate, key) = (path("server.pem"), path("server.key"));
        [
            "--tls-cert".to_owned(),
            certificate,
            "--tls-key".to_owned(),
            key,
        ]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
