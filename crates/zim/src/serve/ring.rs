//! Following the ring: a file or an HTTP address that is looked at again and again.
//!
//! Not here: what a ring means (`zimcache_ring`). Invariants: what cannot be read, or is older than what is followed,
//! changes nothing; a ring that comes to us another way (a node's answer) is not written down.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use zimcache_ring::Document;
use zimcache_telemetry::task;

use crate::{
    error::{Error, Result},
    remote::Server,
    settings::Endpoint,
};

/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often an address is asked.
const ASK: Duration = Duration::from_secs(1);

/// Where the ring is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RingSource {
    File(PathBuf),
    Url(String),
}

impl RingSource {
    /// What a setting names.
    pub(crate) fn new(text: &str) -> RingSource {
        if text.starts_with("http://") || text.starts_with("https://") {
            return RingSource::Url(text.to_owned());
        }
        RingSource::File(Path::new(text).to_owned())
    }

    /// The ring as it is now. Blocks.
    pub(crate) fn read(&self) -> Result<Document> {
        let refused = |source| Error::Ring {
            place: self.to_string(),
            source,
        };
        match self {
            RingSource::File(path) => Document::read(path).map_err(refused),
            RingSource::Url(url) => {
                let endpoint = Endpoint {
                    url: url.clone(),
                    ..Endpoint::default()
                };
                let answer = Server::at(&endpoint)?.get("")?;
                Document::parse(&String::from_utf8_lossy(&answer)).map_err(refused)
            }
        }
    }

    /// Reads it again and again until the process ends; what is newer is seen in what this returns. Call it on the
    /// runtime.
    pub(crate) fn follow(self, first: Document) -> watch::Receiver<Arc<Document>> {
        let mut epoch = first.epoch();
        let (newest, seen) = watch::channel(Arc::new(first));
        let mut looks = interval(match self {
            RingSource::File(_) => LOOK,
            RingSource::Url(_) => ASK,
        });
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        task::spawn("ring", async move {
            let mut complained = false;
            loop {
                looks.tick().await;
                let source = self.clone();
                let read = task::spawn_blocking("ring", move || source.read()).await;
                match read {
                    Ok(Ok(document)) if document.epoch() > epoch => {
                        epoch = document.epoch();
                        tracing::info!(epoch, "another ring is in force");
                        newest.send_replace(Arc::new(document));
                    }
                    Ok(Ok(_)) => complained = false,
                    Ok(Err(error)) if !complained => {
                        complained = true;
                        tracing::warn!(%error, "the ring cannot be read; the last one stays in force");
                    }
                    Ok(Err(_)) => {}
                    Err(error) => tracing::error!(%error, "reading the ring failed"),
                }
            }
        });
        seen
    }
}

impl std::fmt::Display for RingSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RingSource::File(path) => path.display().fmt(f),
            RingSource::Url(url) => f.write_str(url),
        }
    }
}
