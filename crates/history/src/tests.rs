//! Every kind of violation is found, and good histories are silent.

use crate::{Event, History, Kind, Limits, Op, Outcome, ParseError, Rule, Window, check};

/// A history in the making: calls of one client a line, at the times given.
struct Story(History);

fn story() -> Story {
    Story(History::new(Limits {
        convergence: 60,
        may_evict: false,
        gateways: 2,
        clocks_apart: 0,
    }))
}

impl Story {
    fn call(
        mut self,
        (kind, op): (Kind, Op),
        value: impl Into<Option<&'static str>>,
        (invoked, completed): (u64, u64),
        outcome: Outcome,
    ) -> Story {
        let key = match (kind, op) {
            (_, Op::Purge) => "",
            (Kind::Blob, _) => "hash",
            (Kind::Entry, _) => "name",
        };
        self.0.events.push(Event {
            client: 1,
            gateway: 0,
            op,
            kind,
            namespace: "team".into(),
            key: key.into(),
            value: value.into().map(Into::into),
            invoked,
            completed,
            outcome,
            sweep: false,
        });
        self
    }

    fn fault(mut self, from: u64, until: u64) -> Story {
        self.0.faults.push(Window {
            what: "a node is down".into(),
            from,
            until,
            loses_disk: false,
        });
        self
    }

    fn lost_disk(mut self, from: u64, until: u64) -> Story {
        self.0.faults.push(Window {
            what: "a node lost its disk".into(),
            from,
            until,
            loses_disk: true,
        });
        self
    }

    /// Makes the last call one of the sweep, and gives it the gateway.
    fn swept_through(mut self, gateway: u32) -> Story {
        let last = self.0.events.last_mut().unwrap();
        (last.sweep, last.gateway) = (true, gateway);
        self
    }

    fn rules(&self) -> Vec<Rule> {
        let found = check(&self.0);
        found.iter().map(|violation| violation.rule).collect()
    }

    /// Lines written and read again say the same.
    fn again(&self) -> History {
        let mut lines = Vec::new();
        self.0.write(&mut lines).unwrap();
        History::read(&lines[..]).unwrap()
    }

    fn stays_silent(self) {
        assert_eq!(self.again(), self.0);
        let found = check(&self.0);
        assert!(found.is_empty(), "{}", found[0]);
    }

    fn breaks(self, rules: &[Rule]) {
        assert_eq!(self.rules(), rules, "{:#?}", self.0);
    }
}

use Kind::{Blob, Entry};
use Op::{Delete, Find, Get, Purge, Put};
use Outcome::{Absent, Failed, Ok, Unknown};

#[test]
fn values_follow_one_another_and_reads_see_the_newest_or_a_concurrent_one() {
    let run = story()
        .call((Entry, Get), None, (0, 5), Absent)
        .call((Entry, Put), "1", (10, 20), Ok)
        .call((Entry, Get), "1", (21, 25), Ok)
        .call((Entry, Put), "2", (30, 40), Ok)
        .call((Entry, Get), "1", (31, 35), Ok)
        .call((Entry, Get), "2", (32, 36), Ok)
        .call((Entry, Get), "2", (41, 45), Ok)
        .call((Entry, Delete), None, (50, 60), Ok)
        .call((Entry, Get), "2", (51, 55), Ok)
        .call((Entry, Get), None, (61, 65), Absent)
        .call((Entry, Put), "3", (70, 80), Ok)
        .call((Entry, Get), None, (72, 75), Absent)
        .call((Entry, Get), "3", (81, 85), Ok)
        .call((Entry, Purge), None, (90, 95), Ok)
        .call((Entry, Get), None, (96, 97), Absent);
    run.stays_silent();
}

#[test]
fn blobs_stay_until_they_are_deleted() {
    let run = story()
        .call((Blob, Find), None, (0, 1), Absent)
        .call((Blob, Get), None, (0, 1), Absent)
        .call((Blob, Put), "hash", (10, 20), Ok)
        .call((Blob, Get), "hash", (11, 15), Ok)
        .call((Blob, Find), None, (21, 25), Ok)
        .call((Blob, Get), "hash", (21, 25), Ok)
        .call((Blob, Get), None, (22, 25), Failed)
        .call((Blob, Delete), None, (30, 40), Ok)
        .call((Blob, Get), "hash", (31, 39), Ok)
        .call((Blob, Get), None, (41, 45), Absent)
        .call((Blob, Find), None, (41, 45), Absent)
        .call((Blob, Put), "hash", (50, 60), Unknown)
        .call((Blob, Get), None, (61, 62), Absent)
        .call((Blob, Get), "hash", (63, 64), Ok);
    run.stays_silent();
}

#[test]
fn bytes_of_nobody_are_wrong() {
    let run = story().call((Entry, Put), "1", (10, 20), Ok);
    run.call((Entry, Get), "x", (30, 40), Ok)
        .breaks(&[Rule::WrongBytes]);
    let run = story().call((Blob, Put), "hash", (10, 20), Ok);
    run.call((Blob, Get), "other", (30, 40), Ok)
        .breaks(&[Rule::WrongBytes]);
}

#[test]
fn a_refused_value_is_never_seen() {
    let run = story().call((Entry, Put), "1", (10, 20), Failed);
    run.call((Entry, Get), "1", (30, 40), Ok)
        .breaks(&[Rule::Refused]);
}

#[test]
fn nothing_is_seen_before_it_was_put() {
    let run = story().call((Entry, Put), "1", (10, 20), Ok);
    run.call((Entry, Get), "1", (5, 8), Ok)
        .breaks(&[Rule::Early]);
    let run = story().call((Blob, Put), "hash", (10, 20), Ok);
    run.call((Blob, Find), None, (5, 8), Ok)
        .breaks(&[Rule::Early]);
}

#[test]
fn an_older_value_is_seen_only_while_something_is_broken_and_a_while_after() {
    let run = || {
        let run = story().call((Entry, Put), "1", (10, 20), Ok);
        run.call((Entry, Put), "2", (30, 40), Ok)
    };
    run()
        .call((Entry, Get), "1", (41, 45), Ok)
        .breaks(&[Rule::Stale]);
    let broken = || run().fault(35, 50);
    broken()
        .call((Entry, Get), "1", (109, 120), Ok)
        .stays_silent();
    broken()
        .call((Entry, Get), None, (109, 120), Absent)
        .stays_silent();
    broken()
        .call((Entry, Get), "1", (111, 120), Ok)
        .breaks(&[Rule::Stale]);
    broken()
        .call((Entry, Get), None, (111, 120), Absent)
        .breaks(&[Rule::LostEntry]);
}

#[test]
fn what_was_deleted_stays_so_also_while_something_is_broken() {
    let run = story()
        .fault(0, 1000)
        .call((Entry, Put), "1", (10, 20), Ok)
        .call((Entry, Delete), None, (30, 40), Ok);
    run.call((Entry, Get), "1", (41, 45), Ok)
        .breaks(&[Rule::Resurrected]);
    let run = story()
        .fault(0, 1000)
        .call((Blob, Put), "hash", (10, 20), Ok)
        .call((Blob, Purge), None, (30, 40), Ok);
    run.call((Blob, Get), "hash", (41, 45), Ok)
        .call((Blob, Find), None, (41, 45), Ok)
        .breaks(&[Rule::Resurrected, Rule::FalselyPresent]);
}

#[test]
fn an_acknowledged_blob_is_never_denied() {
    let run = |outcome| {
        let run = story().fault(0, 100);
        run.call((Blob, Put), "hash", (10, 20), outcome)
    };
    run(Ok)
        .call((Blob, Get), None, (30, 40), Absent)
        .breaks(&[Rule::LostBlob]);
    run(Ok)
        .call((Blob, Find), None, (30, 40), Absent)
        .stays_silent();
    run(Ok)
        .call((Blob, Find), None, (161, 162), Absent)
        .breaks(&[Rule::FalselyMissing]);
    run(Unknown)
        .call((Blob, Get), None, (30, 40), Absent)
        .stays_silent();
}

#[test]
fn what_was_told_to_be_present_is_never_denied_unless_nobody_could_be_asked_who_would_know() {
    let found = |(outcome, until)| {
        let run = story().fault(0, until);
        let run = run.call((Blob, Put), "hash", (10, 20), outcome);
        run.call((Blob, Find), None, (80, 90), Ok)
    };
    let denied = |put| found(put).call((Blob, Get), None, (91, 95), Absent);
    denied((Unknown, 15)).breaks(&[Rule::LostBlob]);
    denied((Unknown, 25)).stays_silent();
    let late = found((Unknown, 25)).call((Blob, Get), None, (160, 170), Absent);
    late.breaks(&[Rule::LostBlob]);
    denied((Ok, 25)).breaks(&[Rule::LostBlob]);
    let deleted = found((Ok, 25)).call((Blob, Delete), None, (19, 30), Ok);
    let denied = deleted.call((Blob, Get), None, (91, 95), Absent);
    denied.stays_silent();
}

#[test]
fn a_deletion_of_unknown_outcome_may_come_late() {
    let run = story()
        .call((Blob, Put), "hash", (10, 20), Ok)
        .call((Blob, Delete), None, (30, 40), Unknown)
        .call((Blob, Get), "hash", (50, 60), Ok)
        .call((Blob, Get), None, (70, 80), Absent)
        .call((Entry, Put), "1", (10, 20), Ok)
        .call((Entry, Delete), None, (30, 40), Unknown)
        .call((Entry, Get), "1", (50, 60), Ok);
    run.call((Entry, Get), None, (70, 80), Absent)
        .stays_silent();
}

#[test]
fn a_deletion_that_was_refused_explains_nothing() {
    let run = story().call((Blob, Put), "hash", (10, 20), Ok);
    run.call((Blob, Delete), None, (30, 40), Failed)
        .call((Blob, Get), None, (50, 60), Absent)
        .breaks(&[Rule::LostBlob]);
}

#[test]
fn an_unknown_outcome_may_appear_but_stays_once_it_was_seen() {
    let run = || {
        let run = story().call((Entry, Put), "1", (10, 20), Ok);
        run.call((Entry, Put), "2", (30, 40), Unknown)
    };
    run()
        .call((Entry, Get), "1", (50, 60), Ok)
        .call((Entry, Get), "2", (500, 510), Ok)
        .call((Entry, Get), "1", (511, 520), Ok)
        .stays_silent();
    run()
        .call((Entry, Get), "2", (50, 60), Ok)
        .call((Entry, Get), "1", (121, 130), Ok)
        .breaks(&[Rule::Stale]);
    run()
        .call((Entry, Get), "2", (50, 60), Ok)
        .fault(115, 200)
        .call((Entry, Get), "1", (259, 261), Ok)
        .stays_silent();
    run()
        .call((Entry, Get), "2", (50, 60), Ok)
        .call((Entry, Delete), None, (130, 140), Ok)
        .call((Entry, Get), "2", (141, 150), Ok)
        .breaks(&[Rule::Resurrected]);
}

#[test]
fn a_purge_that_failed_halfway_may_bring_back_older_values_until_one_succeeds() {
    let run = || {
        let run = story()
            .call((Entry, Put), "1", (10, 20), Ok)
            .call((Entry, Put), "2", (30, 40), Ok)
            .call((Entry, Purge), None, (50, 60), Unknown);
        run.call((Entry, Get), "1", (70, 80), Ok)
    };
    run().stays_silent();
    run()
        .call((Entry, Purge), None, (90, 100), Ok)
        .call((Entry, Get), "1", (110, 120), Ok)
        .breaks(&[Rule::Resurrected]);
}

/// Seed 973: nobody who could be asked knew the older value, and its gateway's clock was minutes ahead.
#[test]
fn an_older_put_may_win_where_two_owners_were_hit_and_the_clocks_are_apart() {
    let (put, get) = ((Kind::Entry, Op::Put), (Kind::Entry, Op::Get));
    let run = |lost_until, clocks_apart| {
        let run = story()
            .call(put, "old", (0, 10), Outcome::Ok)
            .lost_disk(20, lost_until)
            .fault(30, 120)
            .call(put, "new", (100, 110), Outcome::Ok)
            .call(get, "old", (1000, 1010), Outcome::Ok)
            .swept_through(0)
            .call(get, "old", (1020, 1030), Outcome::Ok)
            .swept_through(1);
        let mut run = run;
        run.0.limits.clocks_apart = clocks_apart;
        run.rules()
    };
    assert_eq!(run(50, 200), []);
    for (lost_until, clocks_apart) in [(50, 100), (35, 200), (50, 0)] {
        let rules = run(lost_until, clocks_apart);
        assert_eq!(rules, [Rule::Stale; 2], "{lost_until} {clocks_apart}");
    }
}

/// Seed 1436: an old copy was all that could be asked.
#[test]
fn what_was_deleted_may_be_read_only_while_two_owners_are_hit() {
    let call = |op| (Kind::Entry, op);
    let run = |lost_until, read| {
        story()
            .call(call(Op::Put), "old", (0, 10), Outcome::Ok)
            .call(call(Op::Delete), None, (15, 18), Outcome::Ok)
            .lost_disk(20, lost_until)
            .fault(30, 120)
            .call(call(Op::Get), "old", (read, read + 5), Outcome::Ok)
    };
    run(90, 100).stays_silent();
    run(90, 130).breaks(&[Rule::Resurrected]);
    run(35, 100).breaks(&[Rule::Resurrected]);
    let swept = run(90, 100).swept_through(0);
    let swept = swept.call(call(Op::Get), "old", (101, 105), Outcome::Ok);
    swept.swept_through(1).breaks(&[Rule::Resurrected; 2]);
}

#[test]
fn eviction_excuses_a_miss_but_no_wrong_value() {
    let mut run = story()
        .call((Entry, Put), "1", (10, 20), Ok)
        .call((Entry, Put), "2", (21, 22), Ok)
        .call((Blob, Put), "hash", (10, 20), Ok)
        .call((Entry, Get), None, (30, 40), Absent)
        .call((Blob, Get), None, (30, 40), Absent);
    run.0.limits.may_evict = true;
    run.call((Entry, Get), "1", (41, 45), Ok)
        .breaks(&[Rule::Stale]);
}

#[test]
fn the_sweep_asks_for_everything_and_excuses_nothing() {
    let run = || {
        let run = story().fault(0, 100);
        run.call((Entry, Put), "1", (10, 20), Ok)
            .call((Entry, Put), "2", (30, 40), Unknown)
    };
    let first = || {
        let run = run().call((Entry, Get), "1", (140, 141), Ok);
        run.swept_through(0)
    };
    first().breaks(&[Rule::Unswept]);
    let second = |outcome| first().call((Entry, Get), None, (142, 143), outcome);
    second(Failed).swept_through(1).breaks(&[Rule::Unreadable]);
    second(Absent)
        .swept_through(1)
        .breaks(&[Rule::LostEntry, Rule::Disagreement]);
    let other = first().call((Entry, Get), "2", (142, 143), Ok);
    // Never acknowledged: it may be on one node only.
    other.swept_through(1).stays_silent();
    let same = first().call((Entry, Get), "1", (142, 143), Ok);
    same.swept_through(1).stays_silent();
}

#[test]
fn values_that_repeat_are_a_mistake_of_the_test() {
    let run = story().call((Entry, Put), "1", (10, 20), Ok);
    run.call((Entry, Put), "1", (30, 40), Ok)
        .breaks(&[Rule::Reused]);
}

#[test]
fn keys_that_were_acknowledged_are_named_once() {
    let run = story()
        .call((Entry, Put), "1", (10, 20), Ok)
        .call((Entry, Put), "2", (30, 40), Ok)
        .call((Blob, Put), "hash", (30, 40), Unknown);
    assert_eq!(run.0.acknowledged(), [(Entry, "team", "name")]);
}

#[test]
fn lines_that_are_no_history_are_refused() {
    let refused = |text: &str| History::read(text.as_bytes()).unwrap_err();
    assert!(matches!(refused(""), ParseError::NoLimits));
    assert!(matches!(
        refused("{\"event\":{}}"),
        ParseError::Line { line: 1, .. }
    ));
}

#[test]
fn a_long_history_is_checked_quickly() {
    let mut run = story();
    let value = |n: u64| Some(n.to_string());
    for n in 0..100_000_u64 {
        let put = |op, value, invoked| Event {
            client: 1,
            gateway: 0,
            op,
            kind: Entry,
            namespace: "team".into(),
            key: "name".into(),
            value,
            invoked,
            completed: invoked + 2,
            outcome: Ok,
            sweep: false,
        };
        run.0.events.push(put(Put, value(n), n * 10));
        run.0.events.push(put(Get, value(n), n * 10 + 5));
    }
    assert!(check(&run.0).is_empty());
    run.0.events.last_mut().unwrap().value = value(1);
    assert_eq!(check(&run.0)[0].rule, Rule::Stale);
}
