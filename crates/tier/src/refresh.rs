//! Keeps alive what is used: an object past half of its life is made young when its record is touched.
//!
//! Which objects are old is known from the last listing, so a touch of a young one costs nothing but a look into memory.
//! Touches go through a bounded queue; when it is full they are dropped, for the next touch comes.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zimcache_store::{RecordKey, RecordKind};
use zimcache_telemetry::task;

use crate::{
    Presence, Result,
    upload::{Reason, Ship},
};

/// Touches not worked off yet, at most.
const QUEUE: usize = 4096;

/// Takes touches.
#[derive(Debug)]
pub(crate) struct Refresher {
    presence: Arc<Presence>,
    touches: mpsc::Sender<RecordKey>,
}

impl Refresher {
    pub(crate) fn start(ship: Ship, presence: Arc<Presence>, stop: CancellationToken) -> Refresher {
        let (touches, queue) = mpsc::channel(QUEUE);
        let work = work(ship, Arc::clone(&presence), queue);
        task::spawn("refresh of objects", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
        Refresher { presence, touches }
    }

    /// A record was used.
    pub(crate) fn touched(&self, key: &RecordKey) {
        if self.presence.is_old(key) {
            // A full queue drops it.
            let _ = self.touches.try_send(key.clone());
        }
    }
}

async fn work(ship: Ship, presence: Arc<Presence>, mut queue: mpsc::Receiver<RecordKey>) {
    while let Some(key) = queue.recv().await {
        ship.bucket.outage().ready().await;
        // Queued twice, and done meanwhile.
        if !presence.is_old(&key) {
            continue;
        }
        match Box::pin(renew(&ship, &key)).await {
            Ok(()) => presence.set_renewed(&key),
            Err(error) => tracing::debug!(%error, "an object could not be made young"),
        }
    }
}

/// Copies a blob onto itself. An entry is written again from the node's own record, since a copy could bring an old
/// version back; so is a blob that is gone or as good as gone.
async fn renew(ship: &Ship, key: &RecordKey) -> Result<()> {
    if let RecordKind::Blob(_) = key.kind {
        let name = ship.bucket.keys().object(key);
        if let Some(stat) = ship.bucket.head(&name).await?
            && ship.keep_alive(&name, &stat).await?
        {
            return Ok(());
        }
    }
    ship.upload(key, Reason::Old).await.map(|_| ())
}
