//! How gateways and nodes speak to nodes: the certificates that the settings name, also when they were renewed.
//!
//! Invariant: files that cannot be used, such as a certificate whose key is not there yet, leave the old ones in force;
//! they are read again until they can be used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::time::{MissedTickBehavior, interval};
use zimcache_config::ClusterConfig;
use zimcache_link::{Settings, Tls};
use zimcache_telemetry::task;

use super::reload::{LOOK, prints};
use crate::{
    error::{Error, Result},
    output,
};

/// How nodes are spoken to.
pub(super) fn settings(config: &ClusterConfig) -> Result<Settings> {
    let tls = Files::of(config).map(|files| files.load()).transpose()?;
    Ok(Settings {
        tls,
        ..Settings::default()
    })
}

/// Puts renewed certificates in force for new connections, until the process ends. Call it on the runtime.
pub(super) fn watch(config: &ClusterConfig, settings: &Settings) {
    let Some((files, tls)) = Files::of(config).zip(settings.tls.clone()) else {
        return;
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    task::spawn("peer certificates", async move {
        let mut seen = prints(&files.0);
        loop {
            looks.tick().await;
            let now = prints(&files.0);
            if now == seen {
                continue;
            }
            match files.renew(&tls) {
                Ok(()) => {
                    tracing::info!("renewed peer certificates are in force");
                    seen = now;
                }
                // Looked at again: the other files may be on their way.
                Err(error) => output::complain(&error),
            }
        }
    });
}

/// Who signs, own certificate, its key.
#[derive(Debug)]
struct Files([PathBuf; 3]);

impl Files {
    /// Those of the settings, when mutual TLS is asked for.
    fn of(config: &ClusterConfig) -> Option<Files> {
        let (authority, chain, key) = config.peer_files()?;
        Some(Files([authority.clone(), chain.clone(), key.clone()]))
    }

    fn load(&self) -> Result<Tls> {
        let [authority, chain, key] = self.read()?;
        Tls::new(&authority, &chain, &key).map_err(Error::PeerTls)
    }

    fn renew(&self, tls: &Tls) -> Result<()> {
        let [authority, chain, key] = self.read()?;
        tls.replace(&authority, &chain, &key)
            .map_err(Error::PeerTls)
    }

    fn read(&self) -> Result<[Vec<u8>; 3]> {
        let [authority, chain, key] = &self.0;
        Ok([read(authority)?, read(chain)?, read(key)?])
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::ReadFile {
        path: path.to_owned(),
        source,
    })
}
