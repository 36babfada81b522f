//! What the cluster is told: durability classes, deadlines, sizes. Plain data; where it comes from is not its business.
//!
//! Every deadline has its reason beside it. Invariant: a value of this type never depends on the ring.

use std::{collections::BTreeMap, time::Duration};

use zimcache_types::Namespace;

/// What an acknowledgement of a write means in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// One owner has synced it; the other copies follow.
    Local,
    /// Two nodes have synced it, or all there are to be; one of them is an owner.
    #[default]
    Quorum,
    /// One owner has synced it, and it is in the durable tier. Without a durable tier as [`Durability::Quorum`].
    Bucket,
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// A node that does not take a write after this is replaced, if another one has.
    pub connect: Duration,
    /// A node that takes no bytes for this long during a write is given up, if another one does.
    pub stall: Duration,
    /// A node that does not acknowledge after this is late, if another one has: a stand-in is looked for. Whichever of
    /// the two is first counts.
    pub acknowledge: Duration,
    /// The longest that all nodes together are waited for in any step of a write.
    pub patience: Duration,
    /// The next candidate of a small read is asked after this, or after the 95th percentile if that is later.
    pub hedge_small: Duration,
    /// The next candidate of a large read, or one of unknown size, is asked after this.
    pub hedge_large: Duration,
    /// A node that has not sent its first bytes after this is given up.
    pub first_byte: Duration,
    /// The same where the durable tier has to be asked.
    pub fill: Duration,
    /// A node that sends no more bytes for this long in the middle of a value is given up.
    pub read_stall: Duration,
    /// A node that has not answered a question for blobs after this is doubled by the next one.
    pub hedge_find: Duration,
    /// A node that has not answered any other question after this is given up.
    pub answer: Duration,
    /// What a pull may take beside the time for its bytes. That of a write goes on after this, for as long as patience
    /// lasts, while another node is asked as well.
    pub pull: Duration,
    /// How long an acknowledgement waits for the durable tier.
    pub upload: Duration,
    /// What garbage collection and verification may take.
    pub manage: Duration,
    /// How often every node is asked how it is.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect: Duration::from_millis(250),
            stall: Duration::from_secs(1),
            acknowledge: Duration::from_secs(2),
            patience: Duration::from_secs(15),
            hedge_small: Duration::from_millis(10),
            hedge_large: Duration::from_millis(250),
            first_byte: Duration::from_secs(2),
            fill: Duration::from_secs(20),
            read_stall: Duration::from_secs(1),
            hedge_find: Duration::from_millis(100),
            answer: Duration::from_secs(5),
            pull: Duration::from_secs(3),
            upload: Duration::from_mins(1),
            manage: Duration::from_hours(6),
            poll: Duration::from_millis(500),
        }
    }
}

/// Settings of a gateway's side of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The gateway's own zone; nodes in it are asked first.
    pub zone: Box<str>,
    /// What an acknowledgement means where the namespace says nothing else.
    pub durability: Durability,
    /// Namespaces that differ from it.
    pub namespaces: BTreeMap<Namespace, Durability>,
    /// Whether the nodes have a durable tier behind them. A node that says so is believed, too.
    pub durable_tier: bool,
    /// RAM for small blobs, in bytes; 0 keeps none.
    pub ram_bytes: u64,
    /// Largest blob that is kept there, in bytes.
    pub ram_item_bytes: u64,
    /// How long a blob stays there: the longest that a deletion by another gateway goes unnoticed.
    pub ram_lifetime: Duration,
    /// Bodies up to this size are kept during their write, so that they can be sent to another node.
    pub kept_bytes: usize,
    /// How far a reader may fall behind the fastest one of the same blob, in bytes, before it reads by itself.
    pub window_bytes: usize,
    /// A node is passed over after so many failures to reach it in a row.
    pub strikes: u32,
    /// How long things may take.
    pub timing: Timing,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            zone: "".into(),
            durability: Durability::Quorum,
            namespaces: BTreeMap::new(),
            durable_tier: false,
            ram_bytes: 256 << 20,
            ram_item_bytes: 128 << 10,
            ram_lifetime: Duration::from_mins(1),
            kept_bytes: 1 << 20,
            window_bytes: 512 << 10,
            strikes: 3,
            timing: Timing::default(),
        }
    }
}

impl Config {
    /// What an acknowledgement means in a namespace.
    pub fn durability_of(&self, namespace: &Namespace, has_tier: bool) -> Durability {
        let own = self.namespaces.get(namespace).copied();
        match own.unwrap_or(self.durability) {
            Durability::Bucket if !has_tier => Durability::Quorum,
            class => class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_its_own_class_and_bucket_needs_a_bucket() {
        let own = Namespace::new("own").unwrap();
        let config = Config {
            namespaces: [(own.clone(), Durability::Local)].into(),
            durability: Durability::Bucket,
            ..Config::default()
        };
        let other = Namespace::default();
        assert_eq!(config.durability_of(&own, false), Durability::Local);
        assert_eq!(config.durability_of(&other, false), Durability::Quorum);
        assert_eq!(config.durability_of(&other, true), Durability::Bucket);
    }
}
