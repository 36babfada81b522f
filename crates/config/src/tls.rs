//! Settings of TLS.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    field::settings,
    problem::{Checks, Problems},
};

/// The oldest TLS spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

settings! {
    /// TLS on the port, or on one of its own. Both files are watched: renewed certificates are used for new connections.
    pub struct TlsConfig in "tls" {
        /// Certificate chain, PEM, the server's own first.
        cert: Option<PathBuf> = None,
            accepts "the path of a PEM file, together with tls.key", flag "--tls-cert";
        /// Its private key, PEM.
        key: Option<PathBuf> = None,
            accepts "the path of a PEM file, together with tls.cert", flag "--tls-key";
        /// A port of its own for TLS; `--port` answers in clear then. Absent, `--port` is the one that speaks TLS.
        port: Option<u16> = None,
            accepts "a port number, together with tls.cert", flag "--tls-port";
        /// Oldest version spoken.
        min_version: TlsVersion = TlsVersion::V1_3,
            accepts "1.2 or 1.3";
    }
}

impl TlsConfig {
    /// The files, when TLS is asked for.
    pub fn files(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.cert.as_ref().zip(self.key.as_ref())
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// When one file is given without the other.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        checks.require(
            "cert",
            self.cert.is_none() || self.key.is_some(),
            "a certificate without a key",
        );
        checks.require(
            "key",
            self.key.is_none() || self.cert.is_some(),
            "a key without a certificate",
        );
        checks.require(
            "port",
            self.port.is_none() || self.cert.is_some(),
            "a port for TLS without a certificate",
        );
        checks.finish()
    }
}
