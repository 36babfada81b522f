//! The rules of one entry.
//!
//! A read has a value that was put here, not refused, not put later, not deleted, and none that a newer acknowledged one
//! had replaced before the read began, unless something was broken. Where one owner was away and the other had lost its disk
//! while the newer one was put, nobody could know the older one: then the clocks of the gateways decide between both. As
//! long as that lasts, what was deleted may be read, too. What nobody knows the outcome of counts from the
//! time when it was seen and had time to spread. A purge that failed halfway may bring back what was replaced, until
//! another one succeeds.

use std::collections::{HashMap, HashSet};

use crate::{
    Event, Op, Outcome, Rule, Violation,
    bound::{Latest, Span},
    timeline::{Purges, Removals, Timeline},
};

/// Everything that is wrong about one entry.
pub(crate) fn check(timeline: &Timeline<'_>, found: &mut Vec<Violation>) {
    let entry = Entry::new(timeline, found);
    for (_, event) in timeline.events().filter(|(_, event)| event.op == Op::Get) {
        let verdict = match (event.outcome, event.value.as_deref()) {
            (Outcome::Ok, Some(value)) => entry.judge_value(event, value),
            (Outcome::Ok, None) => Some((Rule::WrongBytes, None)),
            (Outcome::Absent, _) => entry.judge_absence(event),
            (Outcome::Failed | Outcome::Unknown, _) => None,
        };
        found.extend(verdict.map(|(rule, because)| {
            let because = because.map(|place| timeline.all[place].clone());
            Violation::new(rule, event, because)
        }));
    }
}

type Verdict = Option<(Rule, Option<usize>)>;

struct Entry<'a> {
    timeline: &'a Timeline<'a>,
    puts: HashMap<&'a str, Span>,
    refused: HashSet<&'a str>,
    newest: Latest,
    removals: Removals,
    purges: Purges,
}

impl<'a> Entry<'a> {
    fn new(timeline: &'a Timeline<'a>, found: &mut Vec<Violation>) -> Entry<'a> {
        let (mut puts, mut effects) = (HashMap::new(), Vec::new());
        let seen = timeline.first_seen();
        for mut span in timeline.puts() {
            let event = &timeline.all[span.event];
            let Some(value) = event.value.as_deref() else {
                continue;
            };
            if let (u64::MAX, Some(seen)) = (span.settled, seen.get(value)) {
                span.settled = timeline.faults.settled_after(*seen);
            }
            effects.push(span);
            if puts.insert(value, span).is_some() {
                found.push(Violation::new(Rule::Reused, event, None));
            }
        }
        let removed = timeline
            .events()
            .filter(|(_, event)| matches!(event.op, Op::Delete | Op::Purge) && event.has_effect());
        effects.extend(removed.map(|(place, event)| crate::timeline::span(place, event)));
        let refused = timeline.events().filter_map(|(_, event)| {
            let is_refused = event.op == Op::Put && event.outcome == Outcome::Failed;
            event.value.as_deref().filter(|_| is_refused)
        });
        Entry {
            puts,
            refused: refused.collect(),
            newest: Latest::new(effects),
            removals: timeline.removals(),
            purges: timeline.purges(),
            timeline,
        }
    }

    fn judge_value(&self, read: &Event, value: &str) -> Verdict {
        let Some(put) = self.puts.get(value) else {
            let is_refused = self.refused.contains(value);
            return Some(if is_refused {
                (Rule::Refused, None)
            } else {
                (Rule::WrongBytes, None)
            });
        };
        if put.invoked > read.completed {
            return Some((Rule::Early, Some(put.event)));
        }
        if self.purges.leave_pieces(read) {
            return None;
        }
        let after = |span: &Span| span.invoked > put.settled;
        let deleted = self.removals.latest.before(read.invoked).filter(after);
        let deleted = deleted.filter(|_| !self.are_owners_away(read));
        if let Some(deleted) = deleted {
            return Some((Rule::Resurrected, Some(deleted.event)));
        }
        let newer = self.newest.before(read.invoked).filter(after);
        let newer =
            newer.filter(|newer| !self.may_win(put, newer) && !self.timeline.is_excused(read));
        newer.map(|newer| (Rule::Stale, Some(newer.event)))
    }

    /// Whether nobody who can be asked may know what became of the entry.
    fn are_owners_away(&self, read: &Event) -> bool {
        !read.sweep && self.timeline.faults.are_two_owners_hit(read.invoked)
    }

    /// Whether a put may have a higher version than one that came later.
    fn may_win(&self, older: &Span, newer: &Span) -> bool {
        let Timeline { faults, limits, .. } = self.timeline;
        newer.invoked - older.invoked < limits.clocks_apart
            && faults.are_two_owners_hit(newer.invoked)
    }

    fn judge_absence(&self, read: &Event) -> Verdict {
        if self.timeline.limits.may_evict || self.timeline.is_excused(read) {
            return None;
        }
        let newest = self.newest.before(read.invoked)?;
        let is_gone = self
            .removals
            .may_have_removed(newest.invoked, read.completed);
        (!is_gone).then_some((Rule::LostEntry, Some(newest.event)))
    }
}
