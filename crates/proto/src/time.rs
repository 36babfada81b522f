//! Times and durations as the JSON form of protocol buffers writes them: RFC 3339, and seconds with an `s`.
//!
//! Written with the offset `+00:00` and with no, three, six or nine digits of a second, as clients do; read with any
//! offset and any number of digits up to nine. Invariant: what is written is read back the same.

use prost_types::{Duration, Timestamp};

const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the times that the form can write.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;
/// Longest duration: about 10 000 years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;
const NANOS: i32 = 1_000_000_000;

/// Writes a time; `None` when it cannot be written.
pub(crate) fn write_timestamp(time: Timestamp) -> Option<String> {
    if !(FIRST..=LAST).contains(&time.seconds) || !(0..NANOS).contains(&time.nanos) {
        return None;
    }
    let (year, month, day) = date_of(time.seconds.div_euclid(DAY_SECONDS));
    let of_day = time.seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = fraction(time.nanos);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00"
    ))
}

/// Reads a time.
pub(crate) fn read_timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.split_at_checked(9)?;
    let mut date = date.splitn(3, '-');
    let (year, month) = (digits(date.next()?, 4)?, digits(date.next()?, 2)?);
    let day = digits(date.next()?, 2)?;
    let mut clock = clock.strip_prefix(['T', 't'])?.splitn(3, ':');
    let (hour, minute) = (digits(clock.next()?, 2)?, digits(clock.next()?, 2)?);
    let second = digits(clock.next()?, 2)?;
    let legal = year >= 1
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !legal {
        return None;
    }
    let offset_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, offset) = rest.split_at(offset_at);
    let nanos = match fraction.strip_prefix('.') {
        Some(fraction) => read_fraction(fraction)?,
        None if fraction.is_empty() => 0,
        None => return None,
    };
    let of_day = hour * 3600 + minute * 60 + second;
    let seconds = days_of(year, month, day) * DAY_SECONDS + of_day - read_offset(offset)?;
    (FIRST..=LAST)
        .contains(&seconds)
        .then_some(Timestamp { seconds, nanos })
}

/// Writes a duration; `None` when it is none.
pub(crate) fn write_duration(duration: Duration) -> Option<String> {
    let Duration { seconds, nanos } = duration;
    let bounded = (-MAX_DURATION_SECONDS..=MAX_DURATION_SECONDS).contains(&seconds);
    let of_one_sign = nanos == 0 || seconds == 0 || (nanos < 0) == (seconds < 0);
    if !bounded || !of_one_sign || nanos <= -NANOS || nanos >= NANOS {
        return None;
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, fraction) = (seconds.unsigned_abs(), fraction(nanos.abs()));
    Some(format!("{sign}{seconds}{fraction}s"))
}

/// Reads a duration.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, nanos) = match text.split_once('.') {
        Some((seconds, fraction)) => (seconds, read_fraction(fraction)?),
        None => (text, 0),
    };
    let seconds = digits(seconds, seconds.len().clamp(1, 12))?;
    let sign = if negative { -1 } else { 1 };
    (seconds <= MAX_DURATION_SECONDS).then_some(Duration {
        seconds: i64::from(sign) * seconds,
        nanos: sign * nanos,
    })
}

/// The part of a second with its point; nothing when there is none.
fn fraction(nanos: i32) -> String {
    match nanos {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1000 == 0 => format!(".{:06}", nanos / 1000),
        nanos => format!(".{nanos:09}"),
    }
}

fn read_fraction(text: &str) -> Option<i32> {
    let missing = 9_u32.checked_sub(u32::try_from(text.len()).ok()?)?;
    let nanos = digits(text, text.len())? * 10_i64.pow(missing);
    i32::try_from(nanos).ok()
}

/// Seconds east of Greenwich.
fn read_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A number of exactly so many digits, at least one.
fn digits(text: &str, count: usize) -> Option<i64> {
    let only_digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    (only_digits && text.len() == count)
        .then(|| text.parse().ok())
        .flatten()
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the Unix epoch. Years are counted from March, so that the day of a leap year is the last.
const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// The inverse of [`days_of`]: year, month, day. Years come in cycles of 400 with the same number of days.
const fn date_of(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468;
    let (cycle, day_of_cycle) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let leap_days = day_of_cycle / 1460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let before = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100;
    let day_of_year = day_of_cycle - before;
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_cycle + cycle * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(seconds: i64, nanos: i32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    #[test]
    fn times_are_written_with_an_offset_and_only_as_many_digits_as_needed() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00+00:00"),
            (
                1_795_228_958,
                844_974_723,
                "2026-11-21T02:42:38.844974723+00:00",
            ),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.500+00:00"),
            (-1, 1000, "1969-12-31T23:59:59.000001+00:00"),
            (FIRST, 0, "0001-01-01T00:00:00+00:00"),
            (LAST, 999_999_999, "9999-12-31T23:59:59.999999999+00:00"),
        ] {
            let written = write_timestamp(time(seconds, nanos));
            assert_eq!(written.as_deref(), Some(text));
            assert_eq!(read_timestamp(text), Some(time(seconds, nanos)));
        }
        for (seconds, nanos) in [(FIRST - 1, 0), (LAST + 1, 0), (0, -1), (0, NANOS)] {
            assert_eq!(write_timestamp(time(seconds, nanos)), None);
        }
    }

    #[test]
    fn any_offset_is_read_and_what_is_no_time_is_not() {
        for (text, seconds, nanos) in [
            ("2026-11-21T02:42:38Z", 1_795_228_958, 0),
            ("2026-11-21t04:12:38.5+01:30", 1_795_228_958, 500_000_000),
            ("2026-11-20T22:42:38.12-04:00", 1_795_228_958, 120_000_000),
        ] {
            assert_eq!(read_timestamp(text), Some(time(seconds, nanos)), "{text}");
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T02:42:38",
            "2026-11-21 02:42:38Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "2026-11-21T24:00:00Z",
            "2026-11-21T02:60:00Z",
            "2026-11-21T02:42:60Z",
            "2026-11-21T02:42:38.Z",
            "2026-11-21T02:42:38.1234567890Z",
            "2026-11-21T02:42:38+0100",
            "2026-11-21T02:42:38+24:00",
            "2026-11-21T02:42:38ZZ",
            "2026-1-021T02:42:38Z",
            "2026-11-21T02:42:38é+00:00",
        ] {
            assert_eq!(read_timestamp(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_are_seconds_with_their_sign() {
        for (seconds, nanos, text) in [
            (0, 0, "0s"),
            (3, 1, "3.000000001s"),
            (-3, -500_000_000, "-3.500s"),
            (0, -1000, "-0.000001s"),
            (MAX_DURATION_SECONDS, 0, "315576000000s"),
        ] {
            let duration = Duration { seconds, nanos };
            assert_eq!(write_duration(duration).as_deref(), Some(text));
            assert_eq!(read_duration(text), Some(duration));
        }
        for (seconds, nanos) in [(1, -1), (-1, 1), (0, NANOS), (i64::MIN, 0), (i64::MAX, 0)] {
            assert_eq!(write_duration(Duration { seconds, nanos }), None);
        }
        for bad in [
            "",
            "s",
            "1",
            "-s",
            "1.s",
            ".5s",
            "--1s",
            "1.5.5s",
            "315576000001s",
            "+1s",
        ] {
            assert_eq!(read_duration(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_day_has_one_date(days in -719_162_i64..=2_932_896) {
            let (year, month, day) = date_of(days);
            prop_assert_eq!(days_of(year, month, day), days);
            prop_assert!((1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day));
        }

        #[test]
        fn no_text_breaks_the_readers(text in "[0-9TZtz:.+s-]{0,40}|\\PC{0,40}") {
            read_duration(&text);
            if let Some(time) = read_timestamp(&text) {
                prop_assert_eq!(read_timestamp(&write_timestamp(time).unwrap()), Some(time));
            }
        }
    }
}
