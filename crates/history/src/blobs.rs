//! The rules of one blob.
//!
//! Its bytes are those its key names. Once acknowledged or told to be present it is found until it is deleted, also
//! while something is broken: then a call may fail, but not deny it. At such times "missing" is a guess, and so is
//! "present" of what no acknowledged put has surely left there: whom it could be compared with may be away.

use crate::{
    Event, Op, Outcome, Rule, Violation,
    bound::{Furthest, Latest, Span},
    timeline::{Removals, Timeline, span},
};

/// Everything that is wrong about one blob.
pub(crate) fn check(timeline: &Timeline<'_>, found: &mut Vec<Violation>) {
    let blob = Blob::new(timeline);
    for (_, event) in timeline.events() {
        let verdict = match (event.op, event.outcome) {
            (Op::Get, Outcome::Ok) if event.value.as_deref() != Some(&event.key) => {
                Some((Rule::WrongBytes, None))
            }
            (Op::Get, Outcome::Ok) => blob.judge_presence(event, Rule::Resurrected),
            (Op::Find, Outcome::Ok) => blob.judge_presence(event, Rule::FalselyPresent),
            (Op::Get, Outcome::Absent) => blob.judge_absence(event, Rule::LostBlob),
            (Op::Find, Outcome::Absent) if timeline.is_excused(event) => None,
            (Op::Find, Outcome::Absent) => blob.judge_absence(event, Rule::FalselyMissing),
            _ => None,
        };
        found.extend(verdict.map(|(rule, because)| {
            let because = because.map(|place: usize| timeline.all[place].clone());
            Violation::new(rule, event, because)
        }));
    }
}

type Verdict = Option<(Rule, Option<usize>)>;

struct Blob<'a> {
    timeline: &'a Timeline<'a>,
    /// What shows that it is there.
    shown: Latest,
    puts: Furthest,
    removals: Removals,
}

impl<'a> Blob<'a> {
    fn new(timeline: &'a Timeline<'a>) -> Blob<'a> {
        let removals = timeline.removals();
        let is_acknowledged = |event: &&Event| event.op == Op::Put && event.outcome == Outcome::Ok;
        let puts = timeline.events();
        let puts = puts.filter(|(_, event)| is_acknowledged(event));
        let acknowledged = Latest::new(puts.map(|(place, event)| span(place, event)).collect());
        let is_surely_there = |event: &Event| {
            let put = acknowledged.before(event.invoked);
            put.is_some_and(|put| !removals.may_have_removed(put.invoked, event.completed))
        };
        let shown = timeline.events().filter_map(|(place, event)| {
            let span = span(place, event);
            // What nobody acknowledged may be on one disk only, which is down for a while.
            let later = Span {
                settled: timeline.faults.settled_after(event.completed),
                ..span
            };
            match (event.op, event.outcome) {
                (Op::Put, Outcome::Ok) => Some(span),
                (Op::Find, Outcome::Ok)
                    if !timeline.is_excused(event) || is_surely_there(event) =>
                {
                    Some(span)
                }
                (Op::Find | Op::Get, Outcome::Ok) => Some(later),
                _ => None,
            }
        });
        Blob {
            shown: Latest::new(shown.collect()),
            puts: Furthest::new(&timeline.puts()),
            removals,
            timeline,
        }
    }

    fn judge_presence(&self, event: &Event, rule: Rule) -> Verdict {
        let Some(put) = self.puts.by(event.completed) else {
            return Some((Rule::Early, None));
        };
        let removed = self.removals.latest.before(event.invoked);
        let removed = removed.filter(|removed| removed.invoked > put);
        removed.map(|removed| (rule, Some(removed.event)))
    }

    fn judge_absence(&self, event: &Event, rule: Rule) -> Verdict {
        if self.timeline.limits.may_evict {
            return None;
        }
        let shown = self.shown.before(event.invoked)?;
        let is_gone = self
            .removals
            .may_have_removed(shown.invoked, event.completed);
        (!is_gone).then_some((rule, Some(shown.event)))
    }
}
