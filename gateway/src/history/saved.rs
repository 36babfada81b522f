//! The history as it is kept in the store: one protocol buffer, columns of numbers.
//!
//! Compact because most numbers are small; a field that a newer version adds is skipped by an older one. Invariant:
//! whatever bytes are read, what comes out is in order and within bounds.

use bytes::Bytes;
use prost::Message;

use super::{
    Kind, Subject,
    ring::{Ring, Series},
};
use crate::metrics::Counts;

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(message, repeated, tag = "1")]
    series: Vec<SavedSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedSeries {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    minutes: Option<Columns>,
    #[prost(message, optional, tag = "4")]
    hours: Option<Columns>,
}

/// One number of each per step; a step's time is told as its distance from the step before.
#[derive(Clone, PartialEq, Message)]
struct Columns {
    #[prost(uint32, repeated, tag = "1")]
    after: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    hits: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    misses: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    served_bytes: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    stored_bytes: Vec<u64>,
}

impl Columns {
    fn of(ring: &Ring) -> Columns {
        let mut columns = Columns::default();
        let mut last = 0;
        for (at, counts) in &ring.0 {
            columns.after.push(at - last);
            last = *at;
            columns.hits.push(counts.hits);
            columns.misses.push(counts.misses);
            columns.served_bytes.push(counts.served_bytes);
            columns.stored_bytes.push(counts.stored_bytes);
        }
        columns
    }

    fn ring(columns: Option<Columns>) -> Ring {
        let columns = columns.unwrap_or_default();
        let at = |column: &[u64], nth: usize| column.get(nth).copied().unwrap_or(0);
        let mut last = 0_u32;
        let mut ring = Ring::default();
        for (nth, after) in columns.after.iter().enumerate() {
            last = last.saturating_add(*after);
            let counts = Counts {
                hits: at(&columns.hits, nth),
                misses: at(&columns.misses, nth),
                served_bytes: at(&columns.served_bytes, nth),
                stored_bytes: at(&columns.stored_bytes, nth),
            };
            ring.0.push_back((last, counts));
        }
        ring
    }
}

/// Writes all series.
pub(super) fn encode<'a>(all: impl Iterator<Item = (&'a Subject, &'a Series)>) -> Bytes {
    let series = all.map(|((kind, name), series)| SavedSeries {
        kind: *kind as u32,
        name: name.clone(),
        minutes: Some(Columns::of(&series.minutes)),
        hours: Some(Columns::of(&series.hours)),
    });
    let saved = Saved {
        series: series.collect(),
    };
    saved.encode_to_vec().into()
}

/// Reads all series of kinds that are known; `None` when it is no history.
pub(super) fn decode(bytes: Bytes) -> Option<Vec<(Subject, Series)>> {
    let saved = Saved::decode(bytes).ok()?;
    let known = saved.series.into_iter().filter_map(|series| {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| *kind as u32 == series.kind)?;
        let read = Series {
            minutes: Columns::ring(series.minutes),
            hours: Columns::ring(series.hours),
        };
        Some(((kind, series.name), read))
    });
    Some(known.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            name in "[a-z(]{0,9}",
            steps in proptest::collection::vec((0_u32..5_000_000, 0_u64.., 0_u64..9, 0_u64..), 0..40),
        ) {
            let mut series = Series::default();
            for (minutes, hits, misses, served_bytes) in steps {
                let half = Counts {
                    hits: hits / 64,
                    misses,
                    served_bytes: served_bytes / 64,
                    stored_bytes: 1,
                };
                series.add(u64::from(minutes) * 60, half);
            }
            let all = [((Kind::Namespace, name), series)];
            let bytes = encode(all.iter().map(|(subject, series)| (subject, series)));
            prop_assert_eq!(decode(bytes), Some(all.to_vec()));
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(all) = decode(Bytes::from(bytes)) {
                for (_, series) in all {
                    prop_assert!(series.minutes.0.iter().map(|(at, _)| at).is_sorted());
                }
            }
        }
    }
}
