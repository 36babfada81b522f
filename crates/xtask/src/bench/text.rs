//! Figures and dates as people read them.

use zimcache_types::Timestamp;

/// Three significant digits; thousands set apart.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if size < 0.01 {
        return format!("{value:.4}");
    }
    if size < 10.0 {
        return format!("{value:.2}");
    }
    if size < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{size:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// A bound as it was set: no digits that say nothing.
pub(super) fn bound(value: f64) -> String {
    format!("{value}")
}

/// The date of a time in UTC (civil calendar from days since 1970, in eras of 400 years).
pub(super) fn day(time: Timestamp) -> String {
    let days = time.0 / 86_400_000 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown = [0.0, 0.0021, 0.5, 6.0, 18.84, 840.4, 97_770.0, 1_234_567.0].map(number);
        assert_eq!(
            shown,
            [
                "0",
                "0.0021",
                "0.50",
                "6.00",
                "18.8",
                "840",
                "97 770",
                "1 234 567"
            ]
        );
    }

    #[test]
    fn days_are_civil() {
        assert_eq!(day(Timestamp(0)), "1970-01-01");
        assert_eq!(day(Timestamp(951_782_400_000)), "2000-02-29");
        assert_eq!(day(Timestamp(1_795_219_199_000)), "2026-11-20");
    }
}
