//! Units of figures, and goals: which way of a figure is the better one.

use super::subject::Subject;

/// Unit of a row's figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Requests per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Bytes per entry held.
    BytesPerEntry,
    /// MiB of memory.
    Mib,
    /// Microseconds.
    Micros,
    /// MiB of payload per second.
    MibPerSecond,
    /// Requests to the S3 server.
    S3Requests,
    /// Hundredths of all keys.
    PercentOfKeys,
}

impl Unit {
    /// Whether a larger figure is the better one.
    pub(super) fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::MibPerSecond)
    }

    /// The unit of a figure beside a value, by its name.
    pub(super) fn of_figure(name: &str) -> Unit {
        if name.ends_with("_us") {
            Unit::Micros
        } else {
            Unit::S3Requests
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::Seconds => "s",
            Unit::BytesPerEntry => "bytes per entry",
            Unit::Mib => "MiB",
            Unit::Micros => "µs",
            Unit::MibPerSecond => "MiB/s",
            Unit::S3Requests => "S3 requests",
            Unit::PercentOfKeys => "% of keys",
        }
    }
}

/// What a row is to reach: at least (rates) or at most (everything else, and every figure beside the value).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    /// As a ratio to this subject; `None` for the figure itself.
    pub(super) against: Option<Subject>,
    /// The bound.
    pub(super) bound: f64,
    /// The figure that is meant, by its name among those beside a sample; `None` for the sample's value.
    pub(super) figure: Option<&'static str>,
}

impl Goal {
    /// Whether a larger figure is the better one, in a row of this unit.
    pub(super) fn more_is_better(&self, unit: Unit) -> bool {
        self.figure.is_none() && unit.more_is_better()
    }
}
