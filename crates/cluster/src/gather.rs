//! Waiting for several nodes at once: all of them for a while, then only until there is enough.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

/// Work that will end with its number.
pub(crate) type Numbered<'a, T> = Pin<Box<dyn Future<Output = (usize, T)> + Send + 'a>>;

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For all.
    pub(crate) all: Duration,
    /// Until there is enough.
    pub(crate) most: Duration,
}

/// What came of it: a place for each piece of work, and the work that has not ended.
pub(crate) struct Gathered<'a, T> {
    pub(crate) results: Vec<Option<T>>,
    pub(crate) rest: FuturesUnordered<Numbered<'a, T>>,
}

/// Waits for all work, but after `limits.all` only while `enough` is false, and never beyond `limits.most`.
pub(crate) async fn gather<'a, T>(
    work: impl IntoIterator<Item = Numbered<'a, T>>,
    limits: Limits,
    enough: impl Fn(&[Option<T>]) -> bool,
) -> Gathered<'a, T> {
    let mut rest: FuturesUnordered<_> = work.into_iter().collect();
    let mut results: Vec<Option<T>> = (0..rest.len()).map(|_| None).collect();
    let start = Instant::now();
    let soft = sleep_until(start + limits.all);
    let hard = sleep_until(start + limits.most);
    tokio::pin!(soft, hard);
    let mut is_late = false;
    while !(rest.is_empty() || is_late && enough(&results)) {
        tokio::select! {
            biased;
            Some((number, result)) = rest.next() => results[number] = Some(result),
            () = &mut soft, if !is_late => is_late = true,
            () = &mut hard => break,
        }
    }
    Gathered { results, rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(number: usize, millis: u64) -> Numbered<'static, u64> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            (number, millis)
        })
    }

    const LIMITS: Limits = Limits {
        all: Duration::from_millis(100),
        most: Duration::from_secs(10),
    };

    #[tokio::test(start_paused = true)]
    async fn all_are_waited_for_while_the_time_for_all_lasts() {
        let start = Instant::now();
        let gathered = gather([after(0, 5), after(1, 90)], LIMITS, |_| true).await;
        assert_eq!(gathered.results, [Some(5), Some(90)]);
        assert_eq!(start.elapsed().as_millis(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_one_is_left_when_there_is_enough() {
        let gathered = gather([after(0, 5), after(1, 900)], LIMITS, |got| got[0].is_some()).await;
        assert_eq!(gathered.results, [Some(5), None]);
        assert_eq!(gathered.rest.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_one_is_waited_for_when_there_is_not_enough() {
        let gathered = gather([after(0, 5), after(1, 900)], LIMITS, |got| got[1].is_some()).await;
        assert_eq!(gathered.results, [Some(5), Some(900)]);
        let gathered = gather([after(0, 99_000)], LIMITS, |got| got[0].is_some()).await;
        assert_eq!(gathered.results, [None]);
    }
}
