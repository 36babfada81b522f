//! Figures per namespace, for the most used namespaces; the rest is counted together.
//!
//! Namespaces are chosen by callers, so there may be any number of them: [`MOST_NAMED`] have counters and a label of
//! their own, and who they are is decided once a minute by recent use ([`Namespaces::settle`]). A namespace that loses
//! its label adds what it counted to the rest; one that gains a label starts at zero: no counter ever goes back.

use std::{
    collections::HashMap,
    fmt::Write,
    iter::Sum,
    ops::{AddAssign, Sub},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use zimcache_types::Namespace;

/// Namespaces with figures of their own.
const MOST_NAMED: usize = 100;
/// Other namespaces whose use is watched.
const MOST_WATCHED: usize = 1_000;
/// Name of all others together; no namespace can be called so.
pub(crate) const OTHER: &str = "(other)";

/// What a cache did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// Bytes of hits.
    pub(crate) served_bytes: u64,
    /// Bytes of uploads.
    pub(crate) stored_bytes: u64,
}

impl Counts {
    pub(crate) fn each(self) -> [u64; 4] {
        [self.hits, self.misses, self.served_bytes, self.stored_bytes]
    }

    /// Share of look-ups that found something.
    pub(crate) fn hit_rate(self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.served_bytes += other.served_bytes;
        self.stored_bytes += other.stored_bytes;
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(all: I) -> Counts {
        all.fold(Counts::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

impl Sub for Counts {
    type Output = Counts;

    /// What was added since; zero where a counter began anew.
    fn sub(self, before: Counts) -> Counts {
        Counts {
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            served_bytes: self.served_bytes.saturating_sub(before.served_bytes),
            stored_bytes: self.stored_bytes.saturating_sub(before.stored_bytes),
        }
    }
}

/// Counters that only grow, and how often they were used of late.
#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    counters: [AtomicU64; 4],
    recent: AtomicU64,
}

impl Tally {
    /// A request ended.
    fn add(&self, counts: Counts) {
        self.recent.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.count(counts);
    }

    /// Takes over what another one counted.
    fn absorb(&self, other: &Tally) {
        let requests = other.requests.load(Ordering::Relaxed);
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.count(other.counts());
    }

    fn count(&self, counts: Counts) {
        for (counter, count) in self.counters.iter().zip(counts.each()) {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn counts(&self) -> Counts {
        let [hits, misses, served_bytes, stored_bytes] =
            [0, 1, 2, 3].map(|nth: usize| self.counters[nth].load(Ordering::Relaxed));
        Counts {
            hits,
            misses,
            served_bytes,
            stored_bytes,
        }
    }
}

/// Halves a count of recent uses; gives what it was.
fn fade(recent: &AtomicU64) -> u64 {
    let halved = |uses: u64| Some(uses / 2);
    let faded = recent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, halved);
    faded.unwrap_or_else(|uses| uses)
}

type Named = HashMap<Namespace, Arc<Tally>>;

/// Figures per namespace.
#[derive(Debug)]
pub(crate) struct Namespaces {
    named: ArcSwap<Named>,
    changing: Mutex<()>,
    other: Tally,
    watched: Cache<Namespace, Arc<AtomicU64>>,
}

impl Default for Namespaces {
    fn default() -> Namespaces {
        Namespaces {
            named: ArcSwap::default(),
            changing: Mutex::default(),
            other: Tally::default(),
            watched: Cache::new(MOST_WATCHED),
        }
    }
}

impl Namespaces {
    /// Counts for a namespace.
    pub(super) fn add(&self, namespace: &Namespace, counts: Counts) {
        if let Some(tally) = self.named.load().get(namespace) {
            tally.add(counts);
        } else if let Some(tally) = self.name(namespace) {
            tally.add(counts);
        } else {
            self.other.add(counts);
            let uses = self
                .watched
                .get_or_insert_with(namespace, || Ok::<_, ()>(Arc::default()));
            if let Ok(uses) = uses {
                uses.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Gives a namespace a label while there are any left.
    fn name(&self, namespace: &Namespace) -> Option<Arc<Tally>> {
        if self.named.load().len() >= MOST_NAMED {
            return None;
        }
        let _changing = self.changing.lock();
        let mut named = Named::clone(&self.named.load());
        if named.len() >= MOST_NAMED && !named.contains_key(namespace) {
            return None;
        }
        let tally = Arc::clone(named.entry(namespace.clone()).or_default());
        self.named.store(Arc::new(named));
        Some(tally)
    }

    /// Lets a namespace that is used much more than the least used one with a label take its place. Called once a
    /// minute; recent use fades by half each time.
    pub(crate) fn settle(&self) {
        let _changing = self.changing.lock();
        let named = self.named.load();
        let faded = named
            .iter()
            .map(|(name, tally)| (fade(&tally.recent), name));
        let weakest = faded.min().map(|(uses, name)| (uses, name.clone()));
        let faded = self.watched.iter().map(|(name, uses)| (fade(&uses), name));
        let strongest = faded.max();
        let (Some((least, weakest)), Some((most, strongest))) = (weakest, strongest) else {
            return;
        };
        if most / 2 <= least {
            return;
        }
        let mut changed = Named::clone(&named);
        if let Some(tally) = changed.remove(&weakest) {
            self.other.absorb(&tally);
        }
        self.watched.remove(&strongest);
        changed.insert(strongest, Arc::default());
        self.named.store(Arc::new(changed));
    }

    /// What each namespace did so far, by name; the others together come last.
    pub(crate) fn read(&self) -> Vec<(String, Counts)> {
        self.each(Tally::counts)
    }

    fn each<T>(&self, read: impl Fn(&Tally) -> T) -> Vec<(String, T)> {
        let named = self.named.load();
        let own = named.iter();
        let mut all: Vec<_> = own
            .map(|(name, tally)| (name.as_str().to_owned(), read(tally)))
            .collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all.push((OTHER.to_owned(), read(&self.other)));
        all
    }

    /// Writes the figures onto the metrics page. No name of a namespace needs escaping.
    pub(super) fn write(&self, page: &mut String) {
        const FAMILIES: [(&str, &str); 5] = [
            ("requests_total", "Requests in this namespace that ended."),
            (
                "hits_total",
                "GET requests in this namespace that found something.",
            ),
            (
                "misses_total",
                "GET requests in this namespace that found nothing.",
            ),
            (
                "served_bytes_total",
                "Bytes of values served from this namespace.",
            ),
            (
                "stored_bytes_total",
                "Bytes of values taken into this namespace.",
            ),
        ];
        let all = self.each(|tally| {
            let [hits, misses, served, stored] = tally.counts().each();
            let requests = tally.requests.load(Ordering::Relaxed);
            [requests, hits, misses, served, stored]
        });
        for (nth, (name, help)) in FAMILIES.into_iter().enumerate() {
            let name = format!("zimcache_namespace_{name}");
            writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter").ok();
            for (namespace, counts) in &all {
                let count = counts[nth];
                writeln!(page, "{name}{{namespace=\"{namespace}\"}} {count}").ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIT: Counts = Counts {
        hits: 1,
        misses: 0,
        served_bytes: 10,
        stored_bytes: 0,
    };

    fn hits(namespaces: &Namespaces, name: &str) -> Option<u64> {
        let all = namespaces.read();
        all.iter()
            .find(|(own, _)| own == name)
            .map(|(_, counts)| counts.hits)
    }

    #[test]
    fn a_thousand_namespaces_take_a_hundred_labels_and_nothing_is_lost() {
        let namespaces = Namespaces::default();
        for number in 0..1_000 {
            let name = Namespace::new(&format!("team-{number}")).unwrap();
            namespaces.add(&name, HIT);
        }
        let all = namespaces.read();
        assert_eq!(all.len(), MOST_NAMED + 1);
        assert_eq!(
            all.iter().map(|(_, counts)| counts.hits).sum::<u64>(),
            1_000
        );
        assert_eq!(hits(&namespaces, OTHER), Some(900));
    }

    #[test]
    fn the_most_used_namespaces_get_the_labels() {
        let namespaces = Namespaces::default();
        let name = |number: usize| Namespace::new(&format!("team-{number}")).unwrap();
        for number in 0..MOST_NAMED {
            (0..=number).for_each(|_| namespaces.add(&name(number), HIT));
        }
        let late = name(500);
        (0..50).for_each(|_| namespaces.add(&late, HIT));
        assert_eq!(hits(&namespaces, "team-500"), None);
        namespaces.settle();
        assert_eq!(hits(&namespaces, "team-500"), Some(0));
        assert_eq!(hits(&namespaces, "team-0"), None);
        assert_eq!(hits(&namespaces, OTHER), Some(51));
        namespaces.add(&late, HIT);
        assert_eq!(hits(&namespaces, "team-500"), Some(1));
        namespaces.settle();
        assert_eq!(namespaces.read().len(), MOST_NAMED + 1);
    }

    #[test]
    fn differences_never_go_below_zero() {
        let more = Counts { hits: 3, ..HIT };
        assert_eq!((more - HIT).each(), [2, 0, 0, 0]);
        assert_eq!((HIT - more).hits, 0);
    }
}
