//! The list of conditions of a status, written anew each time: what is set stays, what is not set goes.
//!
//! Invariants: a condition keeps the time of its last change unless its status changes; the order is that of the types'
//! names, so that an unchanged status is the same text.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message; the API takes 32,768 bytes.
const MESSAGE_LIMIT: usize = 1_024;

/// Conditions under way.
#[derive(Debug)]
pub struct Conditions<'a> {
    before: &'a [Condition],
    generation: i64,
    now: Timestamp,
    set: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// None yet; `before` is what the last status said.
    pub fn new(before: &'a [Condition], generation: i64, now: Timestamp) -> Conditions<'a> {
        Conditions {
            before,
            generation,
            now,
            set: Vec::new(),
        }
    }

    /// It is so, or not, for this reason.
    pub fn set(&mut self, kind: &str, is_so: bool, reason: &str, message: impl Into<String>) {
        let status = if is_so { "True" } else { "False" };
        self.add(kind, status, reason, message.into());
    }

    /// Nobody can tell.
    pub fn unknown(&mut self, kind: &str, reason: &str, message: impl Into<String>) {
        self.add(kind, "Unknown", reason, message.into());
    }

    fn add(&mut self, kind: &str, status: &str, reason: &str, mut message: String) {
        while message.len() > MESSAGE_LIMIT {
            message.pop();
        }
        let before = self.before.iter().find(|one| one.type_ == kind);
        let unchanged = before.filter(|one| one.status == status);
        let since = unchanged.map_or(Time(self.now), |one| one.last_transition_time.clone());
        self.set.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(self.generation),
            last_transition_time: since,
        });
    }

    /// All of them.
    pub fn finish(mut self) -> Vec<Condition> {
        self.set.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.set
    }
}

/// Whether a condition is there and true.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|one| one.type_ == kind && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_moves_only_with_its_status() {
        let early = Timestamp::from_second(1_000).unwrap();
        let late = Timestamp::from_second(2_000).unwrap();
        let mut first = Conditions::new(&[], 1, early);
        first.set("Ready", false, "Pods", "two of three");
        first.set("Available", true, "Serving", "");
        let before = first.finish();
        assert_eq!(before[0].type_, "Available");
        let mut second = Conditions::new(&before, 2, late);
        second.set("Ready", false, "Ring", "one joins");
        second.unknown("Available", "Silence", "x".repeat(2_000));
        let after = second.finish();
        assert_eq!(after[1].last_transition_time.0, early);
        assert_eq!(
            (after[1].reason.as_str(), after[1].observed_generation),
            ("Ring", Some(2))
        );
        assert_eq!(after[0].last_transition_time.0, late);
        assert_eq!(after[0].message.len(), MESSAGE_LIMIT);
        assert!(!is_true(&after, "Ready"));
    }
}
