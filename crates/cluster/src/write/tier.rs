//! Waiting until the durable tier has a value, by asking a node that holds it.

use std::{sync::Arc, time::Duration};

use zimcache_link::Error;
use zimcache_store::Result;

use super::fetch::Value;
use crate::{
    ask::{Said, ask},
    node::{Node, store_error, unavailable},
};

/// Pauses between two questions.
const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(250);

impl Value<'_> {
    /// Waits until the durable tier has what a node holds.
    ///
    /// # Errors
    /// `Unavailable` when it has not after a time, or the holder is gone.
    pub(super) async fn wait_for_the_tier(self, holder: Option<Arc<Node>>) -> Result<()> {
        let Some(holder) = holder else {
            return Err(unavailable("no node has the value"));
        };
        let limit = self.shared.config.timing.upload;
        let waited = tokio::time::timeout(limit, self.poll_until_clean(&holder)).await;
        waited.unwrap_or_else(|_| {
            Err(unavailable(
                "the durable tier has not taken the value in time",
            ))
        })
    }

    async fn poll_until_clean(self, holder: &Arc<Node>) -> Result<()> {
        let mut pause = FIRST;
        loop {
            let limit = self.shared.config.timing.first_byte;
            match ask(holder, self.read(), limit).await {
                Ok(Said::Yes(hit)) if !hit.pins.dirty => return Ok(()),
                Ok(Said::Yes(_)) => {}
                Ok(Said::No(_)) => return Err(unavailable("the node lost the value")),
                // It may be slow; one that is away is passed over soon.
                Err(Error::Unreachable { .. }) if holder.is_reachable() => {}
                Err(error) => return Err(store_error(error)),
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST.min(pause * 2);
        }
    }
}
