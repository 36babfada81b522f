//! One key's events in the form that both kinds of keys are judged by.

use std::collections::HashMap;

use crate::{
    Event, Limits, Op, Outcome,
    bound::{Furthest, Latest, Span},
    faults::Faults,
};

/// What happened to one key.
pub(crate) struct Timeline<'a> {
    pub(crate) all: &'a [Event],
    pub(crate) faults: &'a Faults,
    pub(crate) limits: &'a Limits,
    /// Its events and the purges of its namespace, as places in `all`.
    events: &'a [usize],
}

impl<'a> Timeline<'a> {
    pub(crate) const fn new(
        all: &'a [Event],
        faults: &'a Faults,
        limits: &'a Limits,
        events: &'a [usize],
    ) -> Timeline<'a> {
        Timeline {
            all,
            faults,
            limits,
            events,
        }
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = (usize, &'a Event)> {
        self.events.iter().map(|place| (*place, &self.all[*place]))
    }

    /// What may have been stored.
    pub(crate) fn puts(&self) -> Vec<Span> {
        self.spans(|event| event.op == Op::Put)
    }

    /// What may have been removed.
    pub(crate) fn removals(&self) -> Removals {
        let spans = self.spans(|event| matches!(event.op, Op::Delete | Op::Purge));
        Removals {
            furthest: Furthest::new(&spans),
            latest: Latest::new(spans),
        }
    }

    fn spans(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Span> {
        let effects = self.events();
        let effects = effects.filter(|(_, event)| wanted(event) && event.has_effect());
        effects.map(|(place, event)| span(place, event)).collect()
    }

    /// When each value was first read, in full.
    pub(crate) fn first_seen(&self) -> HashMap<&'a str, u64> {
        let mut seen = HashMap::new();
        for (_, event) in self.events() {
            if let (Op::Get, Some(value)) = (event.op, event.value.as_deref()) {
                let first = seen.entry(value).or_insert(u64::MAX);
                *first = event.completed.min(*first);
            }
        }
        seen
    }

    /// Purges that may have reached some stores and not others, by when they began, and those that reached all.
    pub(crate) fn purges(&self) -> Purges {
        let unknown = |event: &Event| event.op == Op::Purge && event.outcome == Outcome::Unknown;
        let known = |event: &Event| event.op == Op::Purge && event.outcome != Outcome::Unknown;
        Purges {
            partial: Furthest::begun(&self.spans(unknown)),
            whole: Latest::new(self.spans(known)),
        }
    }

    /// Whether a read may have met an older state, because something was broken.
    pub(crate) fn is_excused(&self, event: &Event) -> bool {
        !event.sweep && self.faults.excuse(event.invoked, event.completed)
    }
}

/// What an event brought about, and by when.
pub(crate) fn span(place: usize, event: &Event) -> Span {
    let is_known = matches!(event.outcome, Outcome::Ok | Outcome::Absent);
    Span {
        invoked: event.invoked,
        settled: if is_known { event.completed } else { u64::MAX },
        event: place,
    }
}

/// Deletions and purges.
pub(crate) struct Removals {
    pub(crate) latest: Latest,
    pub(crate) furthest: Furthest,
}

impl Removals {
    /// Whether what came into being at `since` may have been removed by a call that began by `time`.
    pub(crate) fn may_have_removed(&self, since: u64, time: u64) -> bool {
        self.furthest
            .by(time)
            .is_some_and(|settled| settled >= since)
    }
}

/// Purges of the namespace.
pub(crate) struct Purges {
    partial: Furthest,
    whole: Latest,
}

impl Purges {
    /// Whether a namespace may be purged on some stores only when a read is made: what is newest may be gone there, and
    /// what it had replaced still be elsewhere. Purging again ends it.
    pub(crate) fn leave_pieces(&self, read: &Event) -> bool {
        let whole = self.whole.before(read.invoked);
        let partial = self.partial.by(read.completed);
        partial.is_some_and(|begun| whole.is_none_or(|whole| whole.invoked < begun))
    }
}
