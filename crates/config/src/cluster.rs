//! Settings of `zim-gateway` and `zim-node`: the ring, the way to the nodes, and what a write has to reach.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use zimcache_types::ByteSize;

use crate::{
    field::settings,
    human::size_text,
    problem::{Checks, Problems},
};

/// What an acknowledged write has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The disk of one node; the others get their copies afterwards.
    Local,
    /// The disks of two nodes.
    #[default]
    Quorum,
    /// The disk of one node, and the bucket.
    Bucket,
}

settings! {
    /// A cluster of gateways and nodes. `zim cache serve` uses none of it.
    pub struct ClusterConfig in "cluster" {
        /// The document that says which nodes there are: a file, or an HTTP address that serves it. Looked at again and again.
        ring: Option<String> = None,
            accepts "the path of a file, or an http:// or https:// URL", flag "--ring";
        /// Of a node: which member of the ring this is.
        member: Option<String> = None,
            accepts "the id of a member", flag "--member";
        /// Of a node: where gateways and other nodes reach it.
        listen: Option<SocketAddr> = None,
            accepts "an address and port such as 10.0.0.7:7400", flag "--listen";
        /// Where health, readiness and metrics are served to those who run the system.
        admin: Option<SocketAddr> = None,
            accepts "an address and port such as 127.0.0.1:9090", flag "--admin";
        /// Between gateways and nodes: the certificate of who signs the others', PEM. Absent, they talk in clear.
        peer_ca: Option<PathBuf> = None,
            accepts "the path of a PEM file, together with cluster.peer-cert and cluster.peer-key", flag "--peer-ca";
        /// Between gateways and nodes: the own certificate, PEM.
        peer_cert: Option<PathBuf> = None,
            accepts "the path of a PEM file, together with cluster.peer-ca and cluster.peer-key", flag "--peer-cert";
        /// Between gateways and nodes: the key of the own certificate, PEM.
        peer_key: Option<PathBuf> = None,
            accepts "the path of a PEM file, together with cluster.peer-ca and cluster.peer-cert", flag "--peer-key";
        /// What an acknowledged write has reached; namespaces may differ.
        durability: Durability = Durability::Quorum,
            accepts "local, quorum or bucket", flag "--durability";
        /// Of a gateway: its zone. Nodes of the same zone are read first.
        zone: String = String::new(),
            accepts "the name of a zone", flag "--zone";
        /// Of a gateway: RAM for small blobs that are read again and again; 0 keeps none.
        #[serde(with = "crate::human::size")]
        ram_cache: ByteSize = ByteSize::mib(256),
            accepts "a size such as 256MiB, or 0", flag "--ram-cache";
    }
}

/// Most RAM for small blobs that is not a typing error.
const MOST_RAM: ByteSize = ByteSize::gib(1024);

impl ClusterConfig {
    /// The files of mutual TLS, when it is asked for: who signs, own certificate, its key.
    pub fn peer_files(&self) -> Option<(&PathBuf, &PathBuf, &PathBuf)> {
        let (ca, cert) = self.peer_ca.as_ref().zip(self.peer_cert.as_ref())?;
        Some((ca, cert, self.peer_key.as_ref()?))
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut checks = Checks::new(Self::FIELDS);
        let given = [&self.peer_ca, &self.peer_cert, &self.peer_key];
        let names = ["peer_ca", "peer_cert", "peer_key"];
        let some = given.iter().any(|file| file.is_some());
        for (name, file) in names.into_iter().zip(given) {
            checks.require(name, !some || file.is_some(), "some of the three files");
        }
        checks.require(
            "ram_cache",
            self.ram_cache <= MOST_RAM,
            size_text(self.ram_cache),
        );
        for (name, text) in [("ring", &self.ring), ("member", &self.member)] {
            let holds = text.as_ref().is_none_or(|text| !text.trim().is_empty());
            checks.require(name, holds, "an empty text");
        }
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutual_tls_needs_all_three_files() {
        let mut config = ClusterConfig::default();
        assert!(config.validate().is_ok() && config.peer_files().is_none());
        config.peer_ca = Some("ca.pem".into());
        assert_eq!(config.validate().unwrap_err().0.len(), 2);
        config.peer_cert = Some("own.pem".into());
        config.peer_key = Some("own.key".into());
        assert!(config.validate().is_ok() && config.peer_files().is_some());
    }
}
