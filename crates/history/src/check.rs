//! Sorts events by key and has each key judged.

use std::collections::{BTreeMap, HashMap};

use crate::{
    History, Kind, Op, Violation, blobs, entries, faults::Faults, sweep, timeline::Timeline,
};

/// Names every answer that breaks a promise, in the order of keys; nothing when the history is good.
pub fn check(history: &History) -> Vec<Violation> {
    let events = &history.events;
    let faults = Faults::new(&history.faults, history.limits.convergence);
    let mut keys: BTreeMap<(Kind, &str, &str), Vec<usize>> = BTreeMap::new();
    let mut purges: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, event) in events.iter().enumerate() {
        if event.op == Op::Purge {
            purges.entry(&event.namespace).or_default().push(place);
        } else {
            keys.entry(event.place()).or_default().push(place);
        }
    }
    let mut found = Vec::new();
    for ((kind, namespace, _), mut places) in keys {
        places.extend(purges.get(namespace).into_iter().flatten());
        let timeline = Timeline::new(events, &faults, &history.limits, &places);
        match kind {
            Kind::Blob => blobs::check(&timeline, &mut found),
            Kind::Entry => entries::check(&timeline, &mut found),
        }
    }
    sweep::check(history, &mut found);
    found
}
