//! The furthest of all intervals that end before, or begin by, some time; found by bisection.

/// Something that came into force between two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Not before.
    pub(crate) invoked: u64,
    /// By then it is in force everywhere; the largest number when that is not known.
    pub(crate) settled: u64,
    /// The event that it comes from.
    pub(crate) event: usize,
}

/// Spans, of which the one that began last is asked for.
#[derive(Debug, Default)]
pub(crate) struct Latest(Vec<Span>);

impl Latest {
    pub(crate) fn new(mut spans: Vec<Span>) -> Latest {
        spans.sort_unstable_by_key(|span| span.settled);
        let mut best: Option<Span> = None;
        for span in &mut spans {
            let kept = best.filter(|best| best.invoked >= span.invoked);
            let kept = kept.unwrap_or(*span);
            best = Some(kept);
            (span.invoked, span.event) = (kept.invoked, kept.event);
        }
        Latest(spans)
    }

    /// Of those settled before this time the one that began last.
    pub(crate) fn before(&self, time: u64) -> Option<Span> {
        let end = self.0.partition_point(|span| span.settled < time);
        self.0[..end].last().copied()
    }
}

/// Spans, of which the one that may come into force last is asked for.
#[derive(Debug, Default)]
pub(crate) struct Furthest(Vec<(u64, u64)>);

impl Furthest {
    pub(crate) fn new(spans: &[Span]) -> Furthest {
        let mut ends: Vec<(u64, u64)> = spans
            .iter()
            .map(|span| (span.invoked, span.settled))
            .collect();
        ends.sort_unstable();
        let mut best = 0;
        for end in &mut ends {
            best = best.max(end.1);
            end.1 = best;
        }
        Furthest(ends)
    }

    /// The same of when they began.
    pub(crate) fn begun(spans: &[Span]) -> Furthest {
        let begins = spans.iter().map(|span| Span {
            settled: span.invoked,
            ..*span
        });
        Furthest::new(&begins.collect::<Vec<_>>())
    }

    /// By when the last of those that began by this time is in force.
    pub(crate) fn by(&self, time: u64) -> Option<u64> {
        let end = self.0.partition_point(|(invoked, _)| *invoked <= time);
        self.0[..end].last().map(|(_, settled)| *settled)
    }
}
