//! How gateways and nodes speak to nodes: the certificates that the settings name.

use std::{fs, path::Path};

use zimcache_config::ClusterConfig;
use zimcache_link::{Settings, Tls};

use crate::error::{Error, Result};

/// The certificates, when mutual TLS is asked for.
pub(super) fn tls(config: &ClusterConfig) -> Result<Option<Tls>> {
    let Some((authority, chain, key)) = config.peer_files() else {
        return Ok(None);
    };
    let tls = Tls::new(&read(authority)?, &read(chain)?, &read(key)?);
    tls.map(Some).map_err(Error::PeerTls)
}

/// How nodes are spoken to.
pub(super) fn settings(config: &ClusterConfig) -> Result<Settings> {
    Ok(Settings {
        tls: tls(config)?,
        ..Settings::default()
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::ReadFile {
        path: path.to_owned(),
        source,
    })
}
