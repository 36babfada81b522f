//! What each namespace holds, for the metrics page: the store is asked now and then, because the page cannot wait.
//!
//! Invariant: [`MOST`] namespaces have a label, those that hold the most; the rest is counted together.

use std::{cmp::Reverse, collections::HashMap, fmt::Write, time::Duration};

use arc_swap::ArcSwap;
use zimcache_store::{StoreAdmin, Usage};

use super::OTHER;

/// Namespaces with a label.
const MOST: usize = 100;
/// Between two questions.
const EVERY: Duration = Duration::from_secs(15);

/// Bytes by namespace, as the store said last.
#[derive(Debug, Default)]
pub(crate) struct Held(ArcSwap<Vec<(String, u64)>>);

impl Held {
    /// Asks the store again and again; never ends.
    pub(crate) async fn follow(&self, admin: &dyn StoreAdmin) {
        loop {
            match admin.usage().await {
                Ok(usage) => self.set(&usage),
                // What it said before stays.
                Err(error) => tracing::debug!(%error, "it is not known what namespaces hold"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn set(&self, usage: &[Usage]) {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for row in usage {
            *sums.entry(row.namespace.as_str()).or_default() += row.bytes;
        }
        let mut all: Vec<(&str, u64)> = sums.into_iter().collect();
        all.sort_unstable_by_key(|(name, bytes)| (Reverse(*bytes), *name));
        let rest: u64 = all.iter().skip(MOST).map(|(_, bytes)| bytes).sum();
        let named = all.iter().take(MOST).copied();
        let rest = (rest > 0).then_some((OTHER, rest));
        let owned = named
            .chain(rest)
            .map(|(name, bytes)| (name.to_owned(), bytes));
        self.0.store(owned.collect::<Vec<_>>().into());
    }

    /// Writes the figures onto the metrics page, once there are any.
    pub(super) fn write(&self, page: &mut String) {
        let all = self.0.load();
        if all.is_empty() {
            return;
        }
        let name = "zimcache_namespace_held_bytes";
        let help = "Bytes of values held, all copies on all nodes, before compression.";
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
        for (namespace, bytes) in all.iter() {
            writeln!(page, "{name}{{namespace=\"{namespace}\"}} {bytes}").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use zimcache_store::UsageKind;
    use zimcache_types::{EntryKind, Namespace};

    use super::*;

    fn row(name: &str, kind: UsageKind, bytes: u64) -> Usage {
        Usage {
            namespace: Namespace::new(name).unwrap(),
            kind,
            count: 1,
            bytes,
        }
    }

    #[test]
    fn kinds_are_summed_and_the_smallest_namespaces_counted_together() {
        let held = Held::default();
        let mut page = String::new();
        held.write(&mut page);
        assert_eq!(page, "");
        let mut usage = vec![
            row("team", UsageKind::Blob, 1_000),
            row("team", UsageKind::Entry(EntryKind::Nx), 7),
        ];
        let names = (0..=MOST).map(|number| format!("small-{number}"));
        usage.extend(names.map(|name| row(&name, UsageKind::Blob, 2)));
        held.set(&usage);
        held.write(&mut page);
        let samples: Vec<&str> = page.lines().skip(2).collect();
        assert_eq!(samples.len(), MOST + 1);
        assert_eq!(
            samples[0],
            "zimcache_namespace_held_bytes{namespace=\"team\"} 1007"
        );
        assert_eq!(
            samples[MOST],
            "zimcache_namespace_held_bytes{namespace=\"(other)\"} 4"
        );
    }
}
