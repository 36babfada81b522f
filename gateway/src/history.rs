//! What the cache did over time, per tool and per namespace, so that "hit rate of the last seven days" has an answer
//! also after a restart.
//!
//! Once a minute the counters are read and what they gained is added to the series (`ring`); every five minutes and at
//! the end everything is written to the store as one entry (`saved`). Nothing is counted here while a request runs.
//! Not here: who may see it (`admin`). Invariants: memory is bounded ([`MOST_NAMESPACES`] and the rings); a history that
//! could not be read is not overwritten; a crash loses what came after the last write and no more.

mod ring;
mod saved;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use zimcache_store::{self as store, ByteRange, EntryMeta, EntryStore, Precondition};
use zimcache_types::{Clock, EntryKey, EntryKind, Namespace, SystemClock};

use self::ring::Series;
pub(crate) use self::ring::Window;
use crate::metrics::{Counts, Metrics, OTHER};

/// Where the history is kept; entries of the internal kind are out of reach for every dialect.
const KEPT_IN: &str = "zimcache.internal";
const KEPT_AS: &str = "history";
/// Largest history that is read back.
const MOST_BYTES: u64 = 64 << 20;
/// Namespaces that have a series; of more, those without use for the longest time are dropped.
const MOST_NAMESPACES: usize = 128;
const SAMPLES: Duration = Duration::from_mins(1);
/// Samples between two writes.
const SAMPLES_PER_SAVE: u32 = 5;

/// Whose series it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A dialect. Numbers are on disk.
    Tool = 1,
    /// A namespace, or all that have no figures of their own together.
    Namespace = 2,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Tool, Kind::Namespace];
}

type Subject = (Kind, String);

/// What one subject did in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) name: String,
    pub(crate) total: Counts,
    /// Start of a step in seconds since 1970, and what was counted in it. Steps without anything are left out.
    pub(crate) steps: Vec<(u64, Counts)>,
}

#[derive(Debug, Default)]
struct State {
    series: BTreeMap<Subject, Series>,
    /// The counters when they were last read.
    read: HashMap<Subject, Counts>,
    changed: bool,
    may_save: bool,
}

/// What the cache did over time.
#[derive(Debug)]
pub(crate) struct History {
    entries: Arc<dyn EntryStore>,
    state: Mutex<State>,
}

impl History {
    /// An empty history, kept in this store.
    pub(crate) fn new(entries: Arc<dyn EntryStore>) -> History {
        History {
            entries,
            state: Mutex::default(),
        }
    }

    /// Reads back what was kept. Call it once, before requests come.
    pub(crate) async fn restore(&self) {
        let found = match self.load().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the history of figures cannot be read; it starts anew and is not kept");
                return;
            }
        };
        let series = found.and_then(|bytes| {
            let series = saved::decode(bytes);
            if series.is_none() {
                tracing::warn!("the history of figures is damaged and starts anew");
            }
            series
        });
        let mut state = self.state.lock();
        state.may_save = true;
        state.series.extend(series.unwrap_or_default());
    }

    async fn load(&self) -> store::Result<Option<Bytes>> {
        let Some(key) = key() else { return Ok(None) };
        match self.entries.get(&key, ByteRange::Full).await? {
            Some(entry) => entry.value.read_all(MOST_BYTES).await.map(Some),
            None => Ok(None),
        }
    }

    /// Samples once a minute and writes from time to time; never ends.
    pub(crate) async fn run(&self, metrics: &Metrics) {
        let mut pace = tokio::time::interval(SAMPLES);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pace.tick().await;
        loop {
            for _ in 0..SAMPLES_PER_SAVE {
                pace.tick().await;
                self.sample(metrics);
                metrics.namespaces.settle();
                self.state.lock().read = counters(metrics).collect();
            }
            self.save().await;
        }
    }

    /// Adds what the counters gained since they were last read.
    pub(crate) fn sample(&self, metrics: &Metrics) {
        let now = now_seconds();
        let mut state = self.state.lock();
        for (subject, counts) in counters(metrics) {
            let gained = counts - state.read.get(&subject).copied().unwrap_or_default();
            if gained == Counts::default() {
                continue;
            }
            state.read.insert(subject.clone(), counts);
            state.series.entry(subject).or_default().add(now, gained);
            state.changed = true;
        }
        state.forget();
    }

    /// Writes everything, if anything changed since the last time.
    pub(crate) async fn save(&self) {
        let bytes = {
            let mut state = self.state.lock();
            if !(state.changed && state.may_save) {
                return;
            }
            state.changed = false;
            saved::encode(state.series.iter())
        };
        if let Err(error) = self.write(bytes).await {
            self.state.lock().changed = true;
            tracing::warn!(%error, "the history of figures could not be written; it is tried again");
        }
    }

    async fn write(&self, bytes: Bytes) -> store::Result<()> {
        let Some(key) = key() else { return Ok(()) };
        let put = self
            .entries
            .put(&key, EntryMeta::default(), Precondition::None, None);
        let mut writer = put.await?;
        writer.write(bytes).await?;
        writer.commit().await.map(|_| ())
    }

    /// What each subject of a kind did in a window, by name; those that did nothing are left out.
    pub(crate) fn courses(&self, kind: Kind, window: &Window) -> Vec<Course> {
        let state = self.state.lock();
        let own = state.series.iter().filter(|((own, _), _)| *own == kind);
        let courses = own.map(|((_, name), series)| {
            let steps = series.within(window);
            Course {
                name: name.clone(),
                total: steps.iter().map(|(_, counts)| *counts).sum(),
                steps,
            }
        });
        courses.filter(|course| !course.steps.is_empty()).collect()
    }

    /// What all tools did together in a window.
    pub(crate) fn total(&self, window: &Window) -> Counts {
        let courses = self.courses(Kind::Tool, window);
        courses.iter().map(|course| course.total).sum()
    }
}

impl State {
    /// Drops the namespaces that were not used for the longest time, when there are too many.
    fn forget(&mut self) {
        let namespaces = self
            .series
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::Namespace);
        let mut by_use: Vec<_> = namespaces
            .filter(|((_, name), _)| name != OTHER)
            .map(|(subject, series)| (series.last_hour(), subject.clone()))
            .collect();
        let too_many = by_use.len().saturating_sub(MOST_NAMESPACES);
        by_use.sort_unstable();
        for (_, subject) in by_use.into_iter().take(too_many) {
            self.series.remove(&subject);
        }
    }
}

fn counters(metrics: &Metrics) -> impl Iterator<Item = (Subject, Counts)> + '_ {
    let tools = metrics.by_dialect();
    let tools = tools.map(|(dialect, counts)| ((Kind::Tool, dialect.as_str().to_owned()), counts));
    let namespaces = metrics.namespaces.read().into_iter();
    tools.chain(namespaces.map(|(name, counts)| ((Kind::Namespace, name), counts)))
}

fn key() -> Option<EntryKey> {
    EntryKey::new(Namespace::new(KEPT_IN).ok()?, EntryKind::Internal, KEPT_AS)
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    SystemClock.now().0 / 1_000
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use zimcache_store::memory::MemoryStore;
    use zimcache_telemetry::metrics::Registry;

    use super::*;
    use crate::{
        metrics::{Ended, Verb},
        protocol::Dialect,
    };

    fn metrics(store: &MemoryStore) -> Metrics {
        Metrics::new(Registry::new(), Arc::new(store.clone()))
    }

    fn hit(metrics: &Metrics, namespace: &str) {
        metrics.record(&Ended {
            dialect: Dialect::Gradle,
            namespace: Some(&Namespace::new(namespace).unwrap()),
            verb: Verb::Get,
            status: Some(StatusCode::OK),
            sent_bytes: 5,
            received_bytes: 0,
            took: Duration::ZERO,
            trace: None,
        });
    }

    fn week() -> Window {
        Window::last(Duration::from_hours(7 * 24), now_seconds())
    }

    #[tokio::test]
    async fn figures_of_a_week_survive_restarts() {
        let store = MemoryStore::default();
        for run in 1..=3 {
            let history = History::new(Arc::new(store.clone()));
            history.restore().await;
            let metrics = metrics(&store);
            hit(&metrics, "team-a");
            history.sample(&metrics);
            history.sample(&metrics);
            assert_eq!(history.total(&week()).each(), [run, 0, 5 * run, 0]);
            let names = history.courses(Kind::Namespace, &week());
            assert_eq!((names.len(), &*names[0].name), (1, "team-a"));
            history.save().await;
        }
    }

    #[tokio::test]
    async fn nothing_is_written_while_nothing_happens() {
        let store = MemoryStore::default();
        let history = History::new(Arc::new(store.clone()));
        history.restore().await;
        history.sample(&metrics(&store));
        history.save().await;
        assert!(history.load().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_history_that_is_none_is_replaced() {
        let store = MemoryStore::default();
        let history = History::new(Arc::new(store.clone()));
        history
            .write(Bytes::from_static(b"\xff\xff"))
            .await
            .unwrap();
        history.restore().await;
        let metrics = metrics(&store);
        hit(&metrics, "team-a");
        history.sample(&metrics);
        history.save().await;
        let bytes = history.load().await.unwrap().unwrap();
        assert_eq!(saved::decode(bytes).unwrap().len(), 2);
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let store = MemoryStore::default();
        let history = History::new(Arc::new(store.clone()));
        for group in 0..5 {
            let metrics = metrics(&store);
            for number in 0..60 {
                hit(&metrics, &format!("team-{group}-{number}"));
            }
            history.sample(&metrics);
            history.state.lock().read.clear();
        }
        let named = history.courses(Kind::Namespace, &week()).len();
        assert_eq!(named, MOST_NAMESPACES);
    }
}
