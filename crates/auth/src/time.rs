//! Times as people read them: RFC 3339 in UTC, such as `2026-11-21T08:00:00Z`.

use std::time::{Duration, UNIX_EPOCH};

use zimcache_types::Timestamp;

/// 9999-12-31T23:59:59Z, the last second that the form can write.
const LAST: Timestamp = Timestamp(253_402_300_799_000);

/// The time in UTC, to the second, or to the millisecond where there is a part of a second. Times beyond the year
/// 9999 are shown as its last second.
pub fn rfc3339(time: Timestamp) -> String {
    let millis = time.min(LAST).0;
    let shown = UNIX_EPOCH + Duration::from_millis(millis);
    if millis.is_multiple_of(1000) {
        humantime::format_rfc3339_seconds(shown).to_string()
    } else {
        humantime::format_rfc3339_millis(shown).to_string()
    }
}

/// Reads an RFC 3339 time in UTC, from 1970 on; parts of a millisecond are dropped.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since_epoch = time.duration_since(UNIX_EPOCH).ok()?;
    let millis = u64::try_from(since_epoch.as_millis()).ok()?;
    Some(Timestamp(millis))
}

/// The time without its part of a second.
pub(crate) fn to_second(time: Timestamp) -> Timestamp {
    Timestamp(time.0 / 1000 * 1000)
}

/// So much later, if the form can still write that.
pub(crate) fn later(time: Timestamp, by: Duration) -> Option<Timestamp> {
    let time = time.plus(by);
    (time <= LAST).then_some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let moment = Timestamp(1_795_248_000_000);
        assert_eq!(rfc3339(moment), "2026-11-21T08:00:00Z");
        assert_eq!(rfc3339(Timestamp(moment.0 + 5)), "2026-11-21T08:00:00.005Z");
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn times_without_a_zone_before_1970_or_that_do_not_exist_are_refused() {
        for bad in [
            "2026-11-21T08:00:00",
            "2026-11-21T08:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "2026-02-30T08:00:00Z",
            "2026-11-21",
            "",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_no_time() {
        assert_eq!(later(LAST, Duration::ZERO), Some(LAST));
        assert_eq!(later(LAST, Duration::from_secs(1)), None);
        assert_eq!(later(Timestamp(5), Duration::MAX), None);
    }

    proptest! {
        #[test]
        fn a_time_reads_back_as_written(millis in 0..=LAST.0, whole in any::<bool>()) {
            let time = Timestamp(millis);
            let time = if whole { to_second(time) } else { time };
            prop_assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time));
        }
    }
}
