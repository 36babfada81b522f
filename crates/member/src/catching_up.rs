//! After a start: asks everybody what they hold for us, before "absent" is said.
//!
//! A member that is declared lost is not waited for; one that is merely away is.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;
use zimcache_link::StatusQuestion;
use zimcache_ring::{NodeIx, Ring};

use crate::{member::Inner, rings::waited_for};

/// The longest between two rounds.
const MOST_PAUSE: Duration = Duration::from_secs(1);
/// The first pause.
const PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    /// Ends when everybody has said that nothing is held for this node.
    pub(crate) async fn catch_up(&self) {
        let mut passed = BTreeSet::new();
        let mut pause = PAUSE;
        loop {
            if let Some(ring) = self.parts.rings.get()
                && self.ask_all(&ring, &mut passed).await
            {
                self.catching_up.store(false, Ordering::Release);
                self.hand_over_wanted.notify_one();
                tracing::info!(epoch = ring.epoch(), "this node has caught up");
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }

    /// Asks those that have not passed yet; whether all have.
    async fn ask_all(&self, ring: &Ring, passed: &mut BTreeSet<String>) -> bool {
        let Some(me) = ring.find(&self.parts.id) else {
            return false;
        };
        let mut all = true;
        for node in waited_for(ring).filter(|node| *node != me) {
            let id = &ring.member(node).id;
            if passed.contains(id) {
                continue;
            }
            if self.has_nothing_for_us(ring, node).await {
                passed.insert(id.clone());
            } else {
                all = false;
            }
        }
        all
    }

    async fn has_nothing_for_us(&self, ring: &Ring, node: NodeIx) -> bool {
        let Some(peer) = self.peer_of(ring, node) else {
            return false;
        };
        let question = StatusQuestion {
            ring: None,
            for_member: Some((self.parts.id.clone(), self.parts.replica.store_id())),
            with_figures: false,
        };
        match peer.status(question).await {
            Ok(status) => {
                self.adopt(status.ring).await;
                status.nothing_for_member
            }
            Err(error) => {
                let member = &ring.member(node).id;
                tracing::debug!(%error, member, "a member does not say what it holds for us");
                false
            }
        }
    }
}
